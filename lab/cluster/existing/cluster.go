package existing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/forward"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Cluster is a cluster of a lab that somebody else has made.
type Cluster struct {
	info       info
	config     *rest.Config // with the guard in it
	kube       kubernetes.Interface
	forward    *forward.Forwarder
	guard      *guard
	kubeconfig string
}

var (
	_ cluster.Cluster    = (*Cluster)(nil)
	_ cluster.Foreign    = (*Cluster)(nil)
	_ cluster.Advertiser = (*Cluster)(nil)
)

// Limits of our requests to one API server, which serves others as well.
const (
	requestsPerSecond = 100
	requestsAtOnce    = 200
)

func newCluster(kubeconfig *api.Config, i info) (*Cluster, error) {
	config, err := clientcmd.NewNonInteractiveClientConfig(*kubeconfig, i.Name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", i.Context, err)
	}
	config.QPS, config.Burst = requestsPerSecond, requestsAtOnce
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON // the guard reads JSON only
	c := &Cluster{info: i}
	if c.guard, err = newGuard(config, i); err != nil {
		return nil, fmt.Errorf("context %q: %w", i.Context, err)
	}
	c.config = rest.CopyConfig(config)
	c.config.Wrap(c.guard.wrap)
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, fmt.Errorf("context %q: %w", i.Context, err)
	}
	c.forward = forward.New(c.config, c.kube)
	return c, nil
}

// Name implements cluster.Cluster.
func (c *Cluster) Name() string { return c.info.Name }

// Context implements cluster.Foreign.
func (c *Cluster) Context() string { return c.info.Context }

// Adopt implements cluster.Foreign.
func (c *Cluster) Adopt() { c.guard.adopted.Store(true) }

// APIServer implements cluster.Advertiser.
func (c *Cluster) APIServer() string { return cmp.Or(c.info.APIServer, c.config.Host) }

// RESTConfig implements cluster.Cluster. Clients made from it refuse to write objects that are not the lab's.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the path of the lab's own kubeconfig of the cluster.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// aliveWithin is how long the API server may take to answer Alive.
const aliveWithin = 3 * time.Second

// Alive returns nil if the API server answers and accepts our credentials.
func (c *Cluster) Alive(ctx context.Context) error {
	ctx, cancel := wait.TimeoutCause(ctx, aliveWithin, "no answer")
	defer cancel()
	_, err := c.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return c.failed(ctx, err)
	}
	return nil
}

// failed adds the name of the context and the address of the API server to the error of a request.
func (c *Cluster) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("context %q: asking the API server %s: %w", c.info.Context, c.config.Host, err)
}

// Dial implements cluster.Cluster. It connects through the API server, to a pod or to a pod behind a Service. The pod sees a
// connection from its own loopback.
func (c *Cluster) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	pod, port, err := c.behind(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dialing %s through the API server of %s: %w", addr, c.Name(), err)
	}
	conn, err := c.forward.Dial(ctx, pod, port)
	if err != nil {
		return nil, fmt.Errorf("dialing %s through the API server of %s: %w", addr, c.Name(), err)
	}
	return conn, nil
}

// behind returns the pod that answers on an address, and the port on which it answers.
func (c *Cluster) behind(ctx context.Context, addr netip.AddrPort) (forward.Pod, uint16, error) {
	pods, err := c.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("status.podIP", addr.Addr().String()).String(),
	})
	if err != nil {
		return forward.Pod{}, 0, err
	}
	for _, p := range pods.Items {
		// A pod that has ended may have lost its address to another one. Pods on the node's network share one address.
		if p.Status.Phase == corev1.PodRunning && !p.Spec.HostNetwork {
			return forward.Pod{UID: string(p.UID), Namespace: p.Namespace, Name: p.Name}, addr.Port(), nil
		}
	}
	services, err := c.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return forward.Pod{}, 0, err
	}
	for _, s := range services.Items {
		if slices.Contains(s.Spec.ClusterIPs, addr.Addr().String()) {
			return c.endpoint(ctx, s, int32(addr.Port()))
		}
	}
	return forward.Pod{}, 0, errors.New("no running pod and no Service has this address")
}

// endpoint returns a ready pod behind a port of a Service, and the pod's port.
func (c *Cluster) endpoint(ctx context.Context, s corev1.Service, port int32) (forward.Pod, uint16, error) {
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if i < 0 {
		return forward.Pod{}, 0, fmt.Errorf("Service %s/%s has no port %d", s.Namespace, s.Name, port) //nolint:revive,staticcheck // a kind
	}
	ofService := metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name}
	list, err := c.kube.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, ofService)
	if err != nil {
		return forward.Pod{}, 0, err
	}
	for _, slice := range list.Items {
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name == nil || *p.Name != s.Spec.Ports[i].Name {
				continue
			}
			for _, e := range slice.Endpoints {
				if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					return forward.Pod{UID: string(ref.UID), Namespace: ref.Namespace, Name: ref.Name}, uint16(*p.Port), nil
				}
			}
		}
	}
	return forward.Pod{}, 0, fmt.Errorf("no ready pod is behind port %d of Service %s/%s", port, s.Namespace, s.Name)
}

// Dump implements cluster.Cluster. We do not see below Kubernetes here, so it writes the nodes as the API shows them.
func (c *Cluster) Dump(ctx context.Context, dir string) error {
	version, err := c.kube.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return c.failed(ctx, err)
	}
	nodes, err := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return c.failed(ctx, err)
	}
	data, err := json.MarshalIndent(map[string]any{
		"context": c.info.Context, "server": c.config.Host, "version": json.RawMessage(version), "nodes": nodes.Items,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cluster.json"), append(data, '\n'), 0o644)
}
