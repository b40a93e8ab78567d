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
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/cluster/forward"
)

// Ports on a pod's loopback. Without a certificate they answer only inside the pod.
const (
	EnvoyAdminPort  = 15000
	IstiodDebugPort = 15014
)

// Admin returns a page of Envoy's admin interface in a pod with a proxy, such as "/clusters?format=json".
func (m *Member) Admin(ctx context.Context, pod *corev1.Pod, path string) ([]byte, error) {
	body, err := m.pages.Get(ctx, pod, EnvoyAdminPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading Envoy's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// ConfigDump returns Envoy's whole configuration, endpoints included, as JSON.
func (m *Member) ConfigDump(ctx context.Context, pod *corev1.Pod) ([]byte, error) {
	return m.Admin(ctx, pod, "/config_dump?include_eds")
}

// IstiodDebug returns a page of the cluster's istiod, such as "/debug/clusterz" or "/metrics". Of several revisions it is the one that
// was installed without one, if it is there; see IstiodPages.
func (m *Member) IstiodDebug(ctx context.Context, path string) ([]byte, error) {
	pods, err := m.ReadyPods(ctx, Istiod)
	if err != nil {
		return nil, err
	}
	pod := pods[len(pods)-1] // during a restart, the newest one stays
	for _, p := range pods { // the settings that verbs change are those of the one without a revision
		if p.Labels[RevisionLabel] == DefaultRevision {
			pod = p
		}
	}
	body, err := m.pages.Get(ctx, pod, IstiodDebugPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading istiod's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// Pages reads pages that pods serve on their loopback, through the API server. All requests to a pod share one
// connection. Close ends the connections.
type Pages struct {
	forward *forward.Forwarder
	mu      sync.Mutex
	client  *http.Client
}

// NewPages returns Pages for the pods of one cluster, which need not be a member of a mesh.
func NewPages(config *rest.Config, kube kubernetes.Interface) *Pages {
	return &Pages{forward: forward.New(config, kube)}
}

// Get returns a page that is served on a port of the pod.
func (f *Pages) Get(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	res, err := f.Open(ctx, pod, port, path)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res)
	_ = res.Close() // the body is read to its end
	return body, err
}

// Open is like Get, for pages that are too large to hold in memory.
func (f *Pages) Open(ctx context.Context, pod *corev1.Pod, port int, path string) (io.ReadCloser, error) {
	// The host names the pod, so that the client does not mix up idle connections of different pods.
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
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()                               //nolint:errcheck // it was only read
		body, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // if this fails, the status is enough
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	return res.Body, nil
}

// Dial connects to a port of the pod's loopback. The connection has no addresses and ignores deadlines.
func (f *Pages) Dial(ctx context.Context, pod *corev1.Pod, port int) (net.Conn, error) {
	return f.forward.Dial(ctx, forward.Pod{UID: string(pod.UID), Name: pod.Name, Namespace: pod.Namespace}, uint16(port))
}

func (f *Pages) http() *http.Client {
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

// Close ends all connections; the next request makes new ones.
func (f *Pages) Close() {
	f.mu.Lock()
	client := f.client
	f.client = nil
	f.mu.Unlock()
	if client != nil {
		client.CloseIdleConnections()
	}
	f.forward.Close()
}
