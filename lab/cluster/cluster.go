// Package cluster says what a cluster and a provider of clusters are.
//
// A provider is one way to get real Kubernetes clusters: embedded (namespaces of this machine), kind (containers of
// Docker), or existing (contexts of a kubeconfig). Everything above this package (mesh, fault, observe, traffic) knows
// only these interfaces, so the same mesh and the same scenarios run on all of them. What only some clusters can do is a
// second interface, found by type assertion, such as Underlay.
package cluster

import (
	"context"
	"net"
	"net/netip"

	"k8s.io/client-go/rest"
)

// Labels of everything that a lab makes in a cluster.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "eastwest"
	LabLabel       = "eastwest.dev/lab"
	// IDLabel tells labs of one name apart: whoever makes a lab gives it another id.
	IDLabel = "eastwest.dev/lab-id"
)

// Labels are those that a lab's objects carry. A lab without an id is from before there were any.
func Labels(lab, id string) map[string]string {
	labels := map[string]string{ManagedByLabel: ManagedBy, LabLabel: lab}
	if id != "" {
		labels[IDLabel] = id
	}
	return labels
}

// Spec is a requested cluster.
type Spec struct {
	Lab     string // name of the lab that owns it
	Name    string // "cluster-a": also its context, Istio cluster id and part of every label
	Network string // Istio network, "network-a"
	Index   int    // 1-based place in the lab; providers derive addresses from it
	Of      int    // how many clusters the lab has
	// Neighbors are the places of the clusters on the same network: pods reach each other by address.
	Neighbors []int
	// Definitions is a file with CustomResourceDefinitions, as a JSON list, that the cluster may have from its start. It
	// spares work where a provider can do that; others leave it to whoever needs them to apply them.
	Definitions string
}

// Provider makes and removes clusters on some kind of infrastructure.
type Provider interface {
	// Check returns nil, or everything this machine lacks and how to get it.
	Check(ctx context.Context) error
	// Create returns a usable cluster: API up, node Ready, default ServiceAccount there; or, if the
	// cluster is Starting, one whose API answers. A cluster of this lab and name that already runs is
	// returned as it is.
	Create(ctx context.Context, spec Spec) (Cluster, error)
	// Delete removes a lab's clusters and everything made for them; no error if they are already gone.
	Delete(ctx context.Context, lab string) error
}

// Cluster is a running Kubernetes API that we may talk to.
type Cluster interface {
	Name() string
	// RESTConfig reaches the API from this machine. Callers may change the copy they get.
	RESTConfig() *rest.Config
	// Dial connects to an address of the cluster's own network: a pod, a Service, the node.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	// Dump writes the evidence below Kubernetes (component logs, processes, addresses) into dir.
	Dump(ctx context.Context, dir string) error
}

// Heal takes a fault of the underlay back. It may be called more than once.
type Heal func(context.Context) error

// Underlay is offered by clusters whose machines we own. A fault that needs it asks by type assertion
// and is skipped with its reason where it is missing.
type Underlay interface {
	// Components that Signal knows, sorted: "etcd", "kube-apiserver" …
	Components() []string
	// Stop freezes a component (SIGSTOP); the heal lets it go on.
	Stop(ctx context.Context, component string) (Heal, error)
	// Kill ends a component with SIGKILL; its supervisor starts it again.
	Kill(ctx context.Context, component string) error
	// Sever drops all packets between this cluster and the peer, in both directions.
	Sever(ctx context.Context, peer Cluster) (Heal, error)
	// BlockPort drops TCP packets that the peer sends to this cluster's port.
	BlockPort(ctx context.Context, peer Cluster, port uint16) (Heal, error)
}

// Healer is offered by clusters that know which faults of the underlay are in force, whoever made them.
type Healer interface {
	// HealAll takes back everything that Stop, Sever, BlockPort and Pause have done to this cluster.
	HealAll(ctx context.Context) error
}

// Starting is offered by clusters that Create returns as soon as their API answers, so that objects can
// be created while the node still comes up.
type Starting interface {
	// Usable waits until pods can run and names resolve.
	Usable(ctx context.Context) error
}

// Advertiser is offered by clusters whose API other clusters reach at another address than this machine does.
type Advertiser interface {
	// APIServer is that address, as a URL.
	APIServer() string
}

// Foreign is offered by clusters that are not the lab's own: others use them, too, and what is not the lab's stays as
// it is.
type Foreign interface {
	// Context is what the user calls the cluster.
	Context() string
	// Adopt lets the cluster's mesh be changed, though the lab has not made it.
	Adopt()
}

// Pauser is offered by clusters that can be taken away whole.
type Pauser interface {
	// Pause freezes every process of the cluster, pods included: its addresses are still there, and nobody
	// answers. The heal lets all of them go on.
	Pause(ctx context.Context) (Heal, error)
}

// ImageLoader is offered by clusters whose nodes take images from files: no registry is asked.
type ImageLoader interface {
	// LoadImage gives every node the images of an archive: an OCI layout, or what `docker save` writes.
	LoadImage(ctx context.Context, archive string) error
}
