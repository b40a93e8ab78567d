package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Everything that Probe creates has this name and label, so that you can find what a killed doctor left behind:
// kubectl get pods,services -A -l eastwest.dev/probe
const (
	probeName  = "eastwest-probe"
	probeLabel = "eastwest.dev/probe" // its value is the number of the cluster
	probePort  = 18080
	probeApp   = "probe"          // the container
	untilKnown = 15 * time.Second // until the proxies of all clusters know a new Service
)

// Probe makes calls from a pod in each cluster to a pod in each. It is the only part of doctor that creates something: a pod
// in each cluster, and in each cluster a Service for every cluster. It removes all of it, also when ctx ends. The pod uses the
// image of the proxies that are running, which every node can get: its Envoy answers with the name of the cluster, its curl
// makes the calls.
func Probe(ctx context.Context, targets []Target, o Options) ([]facts.Call, error) {
	space := cmp.Or(o.Namespace, mesh.AppNamespace)
	var readers []*reader
	for _, t := range targets {
		r, err := newReader(t, o, &facts.Cluster{}, &store{facts: &facts.Facts{}})
		if err != nil {
			return nil, err
		}
		defer r.pages.Close()
		readers = append(readers, r)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), oneWithin())
		defer cancel()
		var all sync.WaitGroup
		for _, r := range readers {
			all.Go(func() { r.removeProbe(clean, space, targets) })
		}
		all.Wait()
	}()
	errs, pods := make([]error, len(readers)), make([]*corev1.Pod, len(readers))
	var all sync.WaitGroup
	for i, r := range readers {
		all.Go(func() {
			var err error
			if pods[i], err = r.createProbe(ctx, space, targets, i); err != nil {
				errs[i] = fmt.Errorf("probing %s: %w", targets[i].Name, err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	calls := make([]facts.Call, len(readers)*len(readers))
	for i, r := range readers {
		for j := range readers {
			all.Go(func() {
				url := fmt.Sprintf("http://%s.%s/", probeService(j), space)
				calls[i*len(readers)+j] = r.probe(ctx, pods[i], facts.Call{From: targets[i].Name, To: targets[j].Name, URL: url})
			})
		}
	}
	all.Wait()
	return calls, nil
}

// probeService is the name of the Service of a cluster, in all clusters.
func probeService(i int) string { return fmt.Sprintf("%s-%d", probeName, i+1) }

func probeLabels(i int) map[string]string {
	return map[string]string{cluster.ManagedByLabel: cluster.ManagedBy, probeLabel: fmt.Sprint(i + 1)}
}

// createProbe creates the Services and the pod of a cluster and waits until the pod is Ready.
func (r *reader) createProbe(ctx context.Context, space string, targets []Target, i int) (*corev1.Pod, error) {
	image, err := r.proxyImage(ctx)
	if err != nil {
		return nil, err
	}
	for j := range targets { // names of Services resolve only in clusters that have them
		_, err := r.kube.CoreV1().Services(space).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: probeService(j), Namespace: space, Labels: probeLabels(j)},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{probeLabel: fmt.Sprint(j + 1)},
				Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(probePort)}},
			},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: probeName, Namespace: space, Labels: probeLabels(i)},
		Spec:       probeSpec(image, targets[i].Name),
	}
	if _, err := r.kube.CoreV1().Pods(space).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	err = wait.Until(ctx, "the pod "+probeName, wait.Options{Every: 200 * time.Millisecond}, func(ctx context.Context) error {
		if pod, err = r.kube.CoreV1().Pods(space).Get(ctx, probeName, metav1.GetOptions{}); err != nil {
			return err
		}
		if !mesh.Ready(pod) {
			return errors.New(state(pod))
		}
		if !observe.HasProxy(pod) {
			return wait.Permanent(fmt.Errorf("namespace %s gives pods no proxy: choose another with -n", space))
		}
		return nil
	})
	return pod, err
}

func (r *reader) removeProbe(ctx context.Context, space string, targets []Target) {
	now := int64(0)
	own := metav1.ListOptions{LabelSelector: probeLabel + "," + cluster.ManagedByLabel + "=" + cluster.ManagedBy}
	// Nobody can do more about an error here than what the label is for.
	_ = r.kube.CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, own)
	for j := range targets {
		_ = r.kube.CoreV1().Services(space).Delete(ctx, probeService(j), metav1.DeleteOptions{})
	}
}

// proxyImage returns the image of a proxy of the cluster.
func (r *reader) proxyImage(ctx context.Context) (string, error) {
	options := metav1.ListOptions{Limit: podsPerPage, LabelSelector: "security.istio.io/tlsMode"}
	list, err := r.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return "", err
	}
	for _, p := range list.Items {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			if c.Name == facts.ProxyContainer {
				return c.Image, nil
			}
		}
	}
	return "", errors.New("no pod has a proxy, so there is no image for the probe")
}

// probeConfig makes an Envoy answer every request to a port with a text.
const probeConfig = `{"static_resources":{"listeners":[{"address":{"socket_address":{"address":"0.0.0.0","port_value":%d}},
"filter_chains":[{"filters":[{"name":"http","typed_config":{
"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"probe",
"http_filters":[{"name":"router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
"route_config":{"virtual_hosts":[{"name":"all","domains":["*"],"routes":[
{"match":{"prefix":"/"},"direct_response":{"status":200,"body":{"inline_string":%q}}}]}]}}}]}]}]}}`

// probeSpec is a pod that answers every request with the name of its cluster.
func probeSpec(image, cluster string) corev1.PodSpec {
	config := fmt.Sprintf(probeConfig, probePort, cluster)
	user, no := int64(1000), false // calls of the proxy's own user would not be intercepted
	return corev1.PodSpec{
		AutomountServiceAccountToken: &no,
		Containers: []corev1.Container{{
			Name: probeApp, Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
			Command:         []string{"envoy", "--config-yaml", config, "--base-id", "7", "--concurrency", "1", "--log-level", "error"},
			Ports:           []corev1.ContainerPort{{ContainerPort: probePort}},
			SecurityContext: &corev1.SecurityContext{RunAsUser: &user, AllowPrivilegeEscalation: &no},
		}},
	}
}

// probe makes a call, and repeats it until the new Service is known everywhere.
func (r *reader) probe(ctx context.Context, pod *corev1.Pod, call facts.Call) facts.Call {
	options := wait.Options{Within: untilKnown, Every: 500 * time.Millisecond}
	err := wait.Until(ctx, "an answer of "+call.URL, options, func(ctx context.Context) error {
		call.Err = ""
		out, err := r.run(ctx, pod, probeApp, "curl", "-s", "-m", "3", "-w", "\n%{http_code}", call.URL)
		if err != nil {
			call.Code = ""
			return err
		}
		text := strings.TrimSpace(string(out))
		call.Code = text[max(len(text)-3, 0):]
		if body := strings.TrimSpace(strings.TrimSuffix(text, call.Code)); call.Code != "200" || body != call.To {
			return fmt.Errorf("status %s: %s", call.Code, words.Short(body, 300))
		}
		return nil
	})
	if err != nil {
		call.Err = words.Short(err.Error(), 400)
	}
	return call
}
