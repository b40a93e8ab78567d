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
	// IDLabel distinguishes labs of the same name: each lab gets an id of its own when it is made.
	IDLabel = "eastwest.dev/lab-id"
)

// Labels returns the labels of a lab's objects. Labs made by early versions have no id; theirs is left out.
func Labels(lab, id string) map[string]string {
	labels := map[string]string{ManagedByLabel: ManagedBy, LabLabel: lab}
	if id != "" {
		labels[IDLabel] = id
	}
	return labels
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

// Heal takes back a fault of the underlay. It may be called more than once.
type Heal func(context.Context) error

// Underlay is implemented by clusters whose machines we own. A fault that needs it asks by type assertion,
// and is skipped with its reason where it is missing.
type Underlay interface {
	// Components returns the names that Stop and Kill know, sorted: "etcd", "kube-apiserver" and so on.
	Components() []string
	// Stop freezes a component (SIGSTOP). The heal lets it run again.
	Stop(ctx context.Context, component string) (Heal, error)
	// Kill ends a component with SIGKILL. Its supervisor starts it again.
	Kill(ctx context.Context, component string) error
	// Sever drops all packets between this cluster and the peer, in both directions.
	Sever(ctx context.Context, peer Cluster) (Heal, error)
	// BlockPort drops TCP packets that the peer sends to this cluster's port.
	BlockPort(ctx context.Context, peer Cluster, port uint16) (Heal, error)
}

// Healer is implemented by clusters that know which faults of the underlay are in force, whoever made them.
type Healer interface {
	// HealAll takes back everything that Stop, Sever, BlockPort, FreezePod and Pause have done to this cluster.
	HealAll(ctx context.Context) error
}

// Starting is implemented by clusters that Create returns as soon as their API answers, so that objects can
// be created while the node is still starting.
type Starting interface {
	// Usable waits until pods can run and names resolve.
	Usable(ctx context.Context) error
}

// Advertiser is implemented by clusters whose API other clusters reach at a different address than this machine.
type Advertiser interface {
	// APIServer returns that address, as a URL.
	APIServer() string
}

// Foreign is implemented by clusters that others use as well. A lab leaves everything there as it is, except its own
// objects.
type Foreign interface {
	// Context returns the user's name for the cluster.
	Context() string
	// Adopt allows changes to the cluster's mesh, although the lab has not made it.
	Adopt()
}

// PodFreezer is implemented by clusters whose pods we can freeze from below.
type PodFreezer interface {
	// FreezePod stops every process of a pod (SIGSTOP), given the pod's UID: its connections stay open, and nobody answers.
	// It returns when all of them are stopped.
	FreezePod(ctx context.Context, uid string) error
	// ThawPod lets them go on. It does nothing to a pod that is not frozen.
	ThawPod(ctx context.Context, uid string) error
	// FrozenPods returns the UIDs of the pods that are frozen, whoever froze them.
	FrozenPods(ctx context.Context) ([]string, error)
}

// Pauser is implemented by clusters that can be frozen as a whole.
type Pauser interface {
	// Pause freezes every process of the cluster, including its pods: its addresses still exist, but nobody
	// answers. The heal lets all of them run again.
	Pause(ctx context.Context) (Heal, error)
}

// ImageLoader is implemented by clusters whose nodes take images from files, without a registry.
type ImageLoader interface {
	// LoadImage gives every node the images of an archive: an OCI layout, or what `docker save` writes.
	LoadImage(ctx context.Context, archive string) error
}
