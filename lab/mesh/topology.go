package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind says which clusters run a control plane, in Istio's own words.
type Kind string

// The kinds of topology.
const (
	// None is clusters without a mesh, for people who bring their own.
	None Kind = "none"
	// Single is one cluster with its own istiod.
	Single Kind = "single"
	// MultiPrimary is an istiod in every cluster, each watching the API servers of all.
	MultiPrimary Kind = "multi-primary"
)

// Kinds lists what NewTopology can build.
func Kinds() []Kind { return []Kind{None, Single, MultiPrimary} }

// Network says how pods of different clusters reach each other.
type Network string

// Separate networks meet only at the east-west gateways' port 15443.
const Separate Network = "separate"

// Networks lists the values of Network.
func Networks() []Network { return []Network{Separate} }

// Trust says who signs the workload certificates.
type Trust string

// The kinds of trust.
const (
	// SharedRoot is one root, and one intermediate per cluster, in `cacerts` before istiod starts.
	SharedRoot Trust = "shared-root"
	// SeparateRoots is the same with a root of its own for each cluster: they do not trust each other.
	SeparateRoots Trust = "separate-roots"
	// SelfSigned has no `cacerts`: every istiod makes its own root when it first starts.
	SelfSigned Trust = "self-signed"
)

// Trusts lists the values of Trust.
func Trusts() []Trust { return []Trust{SharedRoot, SeparateRoots, SelfSigned} }

// ClusterSpec is one cluster's place in the mesh.
type ClusterSpec struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	// Primary names the cluster whose istiod serves this one: itself where it has its own.
	Primary string `json:"primary,omitempty"`
}

// HasIstiod reports whether an istiod runs in the cluster.
func (s ClusterSpec) HasIstiod() bool { return s.Primary == s.Name }

// Topology is the whole shape of a mesh. The steps of an installation are derived from Clusters alone,
// so a new kind is a new way to fill them in.
type Topology struct {
	Kind     Kind          `json:"kind"`
	Network  Network       `json:"network"`
	Trust    Trust         `json:"trust"`
	MeshID   string        `json:"meshID"`
	Clusters []ClusterSpec `json:"clusters"`
}

// NewTopology fills in the clusters of a kind. Empty network and trust mean Separate and SharedRoot.
// A cluster "cluster-x" is put on "network-x", as in Istio's own multi-cluster guide.
func NewTopology(kind Kind, network Network, trust Trust, clusters ...string) (Topology, error) {
	if network == "" {
		network = Separate
	}
	if trust == "" {
		trust = SharedRoot
	}
	t := Topology{Kind: kind, Network: network, Trust: trust, MeshID: "mesh1"}
	for _, name := range clusters {
		c := ClusterSpec{Name: name, Network: "network-" + strings.TrimPrefix(name, "cluster-")}
		if kind != None {
			c.Primary = name
		}
		t.Clusters = append(t.Clusters, c)
	}
	return t, t.Validate()
}

// Validate returns everything that is wrong with the topology, joined.
func (t Topology) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("topology: "+format, args...)) }
	if !slices.Contains(Kinds(), t.Kind) {
		bad("kind is %q; use one of %v", t.Kind, Kinds())
	}
	if !slices.Contains(Networks(), t.Network) {
		bad("network is %q; use one of %v", t.Network, Networks())
	}
	if !slices.Contains(Trusts(), t.Trust) {
		bad("trust is %q; use one of %v", t.Trust, Trusts())
	}
	switch n := len(t.Clusters); {
	case n == 0:
		bad("it has no clusters")
	case t.Kind == Single && n != 1:
		bad("kind %q has one cluster, not %d", Single, n)
	case t.Kind == MultiPrimary && n < 2:
		bad("kind %q needs at least two clusters", MultiPrimary)
	}
	seen := map[string]bool{}
	for _, c := range t.Clusters {
		if seen[c.Name] {
			bad("cluster %q is there twice", c.Name)
		}
		seen[c.Name] = true
	}
	for _, c := range t.Clusters {
		if c.Primary != "" && !seen[c.Primary] {
			bad("cluster %q has the primary %q, which is not one of the clusters", c.Name, c.Primary)
		}
	}
	return errors.Join(errs...)
}

// Gateways reports whether the clusters need east-west gateways: more than one network.
func (t Topology) Gateways() bool {
	for _, c := range t.Clusters {
		if c.Primary != "" && c.Network != t.Clusters[0].Network {
			return true
		}
	}
	return false
}
