package mesh

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Trust says who signs the workload certificates.
type Trust string

// The kinds of trust.
const (
	// SharedRoot is one root, and one intermediate per istiod, in `cacerts` before istiod starts.
	SharedRoot Trust = "shared-root"
	// SeparateRoots is the same with a root of its own for each istiod: they do not trust each other.
	SeparateRoots Trust = "separate-roots"
	// SelfSigned has no `cacerts`: every istiod makes its own root when it first starts.
	SelfSigned Trust = "self-signed"
)

// Trusts lists the values of Trust.
func Trusts() []Trust { return []Trust{SharedRoot, SeparateRoots, SelfSigned} }

// ClusterSpec is one cluster's place in the mesh. The words are Istio's.
type ClusterSpec struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	// Primary names the cluster whose istiod serves this one: itself where it has its own; empty without a mesh.
	Primary string `json:"primary,omitempty"`
	// Config names the cluster that this one's istiod reads its configuration from; if empty, the cluster itself. A
	// cluster whose istiod reads another cluster runs a control plane and nothing else: it is external to the mesh.
	Config string `json:"config,omitempty"`
	// NoGateway says that no east-west gateway runs here: another cluster of the network has one.
	NoGateway bool `json:"no_gateway,omitempty"`
	// Istio names the version of Istio that is installed here; if empty, the bundle's own. See Options.Istios.
	Istio string `json:"istio,omitempty"`
}

// HasIstiod reports whether an istiod runs in the cluster.
func (s ClusterSpec) HasIstiod() bool { return s.Primary == s.Name }

// External reports whether the cluster runs a control plane for others and no part of the mesh itself.
func (s ClusterSpec) External() bool { return s.HasIstiod() && s.Config != "" && s.Config != s.Name }

// InMesh reports whether workloads of the mesh run in the cluster.
func (s ClusterSpec) InMesh() bool { return s.Primary != "" && !s.External() }

// Topology is the shape of a mesh. Everything that is installed is derived from it.
type Topology struct {
	Trust    Trust         `json:"trust"`
	MeshID   string        `json:"meshID"`
	Clusters []ClusterSpec `json:"clusters"`
	// CertificateLifetime is the lifetime of workload certificates; if zero, Istio's default of 24 h.
	CertificateLifetime time.Duration `json:"certificate_lifetime,omitempty"`
	// MultiRoot lets istiod and proxies accept a new set of roots while they run. It is off in Istio's defaults.
	MultiRoot bool `json:"multi_root,omitempty"`
}

// DefaultMeshID is the mesh of Istio's own guides.
const DefaultMeshID = "mesh1"

// Cluster returns the cluster of that name.
func (t Topology) Cluster(name string) (ClusterSpec, bool) {
	i := slices.IndexFunc(t.Clusters, func(c ClusterSpec) bool { return c.Name == name })
	if i < 0 {
		return ClusterSpec{}, false
	}
	return t.Clusters[i], true
}

// HasMesh reports whether there is a mesh, or only clusters.
func (t Topology) HasMesh() bool {
	return slices.ContainsFunc(t.Clusters, func(c ClusterSpec) bool { return c.Primary != "" })
}

// ConfigOf returns the name of the cluster from which the istiod that serves c reads its configuration.
func (t Topology) ConfigOf(c ClusterSpec) string {
	primary, _ := t.Cluster(c.Primary)
	if primary.Config != "" {
		return primary.Config
	}
	return c.Primary
}

// IsConfig reports whether an istiod reads its configuration from the cluster.
func (t Topology) IsConfig(c ClusterSpec) bool { return c.InMesh() && t.ConfigOf(c) == c.Name }

// IsRemote reports whether the cluster is in the mesh and has no istiod of its own.
func (t Topology) IsRemote(c ClusterSpec) bool { return c.InMesh() && !c.HasIstiod() }

// Serves reports whether the cluster's istiod serves other clusters, which must be able to reach it.
func (t Topology) Serves(primary ClusterSpec) bool {
	return slices.ContainsFunc(t.Clusters, func(c ClusterSpec) bool { return c.Name != primary.Name && c.Primary == primary.Name })
}

// Versioned reports whether a cluster names its version of Istio. Such a mesh is made for upgrades: it is exactly as istioctl
// install leaves one, with the tag default.
func (t Topology) Versioned() bool {
	return slices.ContainsFunc(t.Clusters, func(c ClusterSpec) bool { return c.Istio != "" })
}

// Networks lists the networks of the mesh in the order of the clusters.
func (t Topology) Networks() []string {
	var all []string
	for _, c := range t.Clusters {
		if c.InMesh() && !slices.Contains(all, c.Network) {
			all = append(all, c.Network)
		}
	}
	return all
}

// HasGateway reports whether an east-west gateway runs in the cluster: for the traffic of other networks,
// and for the clusters that its istiod serves.
func (t Topology) HasGateway(c ClusterSpec) bool {
	return c.InMesh() && (len(t.Networks()) > 1 && !c.NoGateway || c.HasIstiod() && t.Serves(c))
}

// Trusts reports whether workloads of two clusters trust each other as installed.
func (t Topology) Trusts(a, b ClusterSpec) bool {
	return t.Trust == SharedRoot || a.Primary == b.Primary
}

// Neighbors returns the positions, counted from 1, of the other clusters on the same network. Their pods are reached
// directly, by address.
func (t Topology) Neighbors(c ClusterSpec) []int {
	var all []int
	for i, other := range t.Clusters {
		// Without a mesh no cluster is in one, and all of them may be neighbors.
		if c.InMesh() == other.InMesh() && other.Name != c.Name && other.Network == c.Network {
			all = append(all, i+1)
		}
	}
	return all
}

// Validate returns every problem of the topology, joined.
func (t Topology) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("topology: "+format, args...)) }
	if !slices.Contains(Trusts(), t.Trust) {
		bad("trust is %q; use one of %v", t.Trust, Trusts())
	}
	if len(t.Clusters) == 0 {
		bad("it has no clusters")
	}
	seen := map[string]bool{}
	for _, c := range t.Clusters {
		if seen[c.Name] {
			bad("two clusters have the name %q: remote secrets, contexts and metrics tell clusters by it", c.Name)
		}
		seen[c.Name] = true
	}
	istiods := 0
	for _, c := range t.Clusters {
		if c.HasIstiod() {
			istiods++
		}
		primary, known := t.Cluster(c.Primary)
		config, knownConfig := t.Cluster(c.Config)
		switch {
		case c.Primary != "" && !known:
			bad("cluster %q has the primary %q, which is not one of the clusters", c.Name, c.Primary)
		case c.Primary != "" && !primary.HasIstiod():
			bad("cluster %q has the primary %q, which has no istiod: %q serves it", c.Name, c.Primary, primary.Primary)
		case c.Config != "" && !c.HasIstiod():
			bad("cluster %q names a config cluster and has no istiod that would read it", c.Name)
		case c.Config != "" && !knownConfig:
			bad("cluster %q has the config cluster %q, which is not one of the clusters", c.Name, c.Config)
		case c.External() && config.Primary != c.Name:
			bad("cluster %q reads its configuration from %q, which it does not serve", c.Name, c.Config)
		}
	}
	if networks := t.Networks(); len(networks) > 1 {
		for _, network := range networks {
			if !slices.ContainsFunc(t.Clusters, func(c ClusterSpec) bool { return c.Network == network && t.HasGateway(c) }) {
				others := slices.DeleteFunc(slices.Clone(networks), func(n string) bool { return n == network })
				bad("network %q has no east-west gateway: its services cannot be reached from %v", network, others)
			}
		}
	}
	if t.Trust == SeparateRoots && istiods == 1 {
		bad("trust is %s and one istiod signs for all clusters: roots can differ only between istiods", SeparateRoots)
	}
	return errors.Join(errs...)
}
