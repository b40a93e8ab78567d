package gather

import (
	"bytes"
	"context"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// open opens a page of a pod by port-forward or, where that is not allowed, by a command in the pod.
func (r *reader) open(ctx context.Context, pod *corev1.Pod, port int, path string) (io.ReadCloser, error) {
	r.mu.Lock()
	exec := r.exec
	r.mu.Unlock()
	if !exec {
		body, err := r.pages.Open(ctx, pod, port, path)
		if err == nil || !apierrors.IsForbidden(err) {
			return body, err
		}
	}
	container, program := facts.ProxyContainer, "pilot-agent"
	if port == mesh.IstiodDebugPort {
		container, program = "discovery", "pilot-discovery"
	}
	out, err := r.run(ctx, pod, container, program, "request", "GET", path)
	if err == nil {
		r.mu.Lock()
		r.exec = true
		r.mu.Unlock()
	}
	return io.NopCloser(bytes.NewReader(out)), err
}

// page reads a page of a pod, within oneWithin.
func (r *reader) page(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, oneWithin())
	defer cancel()
	body, err := r.open(ctx, pod, port, path)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	return io.ReadAll(body)
}

// run runs a command in a container and returns what it wrote to its standard output.
func (r *reader) run(ctx context.Context, pod *corev1.Pod, container string, command ...string) ([]byte, error) {
	options := &corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}
	req := r.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(r.config, "POST", req.URL())
	if err != nil {
		return nil, err
	}
	var out, problem bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problem}); err != nil {
		return nil, fmt.Errorf("%w %s", err, words.Short(problem.String(), 200))
	}
	return out.Bytes(), nil
}
