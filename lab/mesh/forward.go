package mesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/eastwest-lab/eastwest/lab/cluster/forward"
)

// Ports on a pod's loopback, where nobody but the pod itself is let in without a certificate.
const (
	envoyAdminPort  = 15000
	istiodDebugPort = 15014
)

// Admin returns what Envoy's admin page says in a pod with a proxy, such as "/clusters?format=json".
func (m *Member) Admin(ctx context.Context, pod *corev1.Pod, path string) ([]byte, error) {
	body, err := m.forward.get(ctx, pod, envoyAdminPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading Envoy's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// ConfigDump returns Envoy's whole configuration, endpoints included, as JSON.
func (m *Member) ConfigDump(ctx context.Context, pod *corev1.Pod) ([]byte, error) {
	return m.Admin(ctx, pod, "/config_dump?include_eds")
}

// IstiodDebug returns a page of the cluster's istiod, such as "/debug/clusterz" or "/metrics".
func (m *Member) IstiodDebug(ctx context.Context, path string) ([]byte, error) {
	pods, err := m.ReadyPods(ctx, Istiod)
	if err != nil {
		return nil, err
	}
	pod := pods[len(pods)-1] // after a restart the newer one is the one that stays
	body, err := m.forward.get(ctx, pod, istiodDebugPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading istiod's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// forwarder asks what listens on the loopback of pods only.
type forwarder struct {
	forward *forward.Forwarder
	mu      sync.Mutex
	client  *http.Client
}

func (f *forwarder) get(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	// The host names the pod, so that the client's idle connections are kept apart.
	url := fmt.Sprintf("http://%s.%s.%s:%d/%s", pod.UID, pod.Name, pod.Namespace, port, strings.TrimPrefix(path, "/"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = "localhost"
	res, err := f.http().Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // the body is read to its end
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return body, err
}

func (f *forwarder) http() *http.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client == nil {
		f.client = &http.Client{Transport: &http.Transport{
			IdleConnTimeout: 30 * time.Second,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				host, text, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				port, err := strconv.ParseUint(text, 10, 16)
				if err != nil {
					return nil, err
				}
				uid, rest, _ := strings.Cut(host, ".")
				dot := strings.LastIndexByte(rest, '.')
				return f.forward.Dial(ctx, forward.Pod{UID: uid, Name: rest[:dot], Namespace: rest[dot+1:]}, uint16(port))
			},
		}}
	}
	return f.client
}

func (f *forwarder) close() {
	f.mu.Lock()
	client := f.client
	f.client = nil
	f.mu.Unlock()
	if client != nil {
		client.CloseIdleConnections()
	}
	f.forward.Close()
}
