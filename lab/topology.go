package lab

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/discovery"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// DefaultTopology returns the topology of the lesson.
func DefaultTopology() scenario.Topology {
	return scenario.Topology{Kind: scenario.MultiPrimary, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot}
}

// meshTopology returns the mesh that a topology asks for.
func meshTopology(t scenario.Topology) (mesh.Topology, error) {
	if err := t.Validate(); err != nil {
		return mesh.Topology{}, err
	}
	m := mesh.Topology{
		Trust: mesh.Trust(cmp.Or(t.Trust, scenario.SharedRoot)), MeshID: mesh.DefaultMeshID,
		CertificateLifetime: time.Duration(t.CertificateLifetime), MultiRoot: t.MultiRoot,
	}
	for _, c := range t.All() {
		m.Clusters = append(m.Clusters, mesh.ClusterSpec{
			Name: c.Name, Network: c.Network, Primary: c.Primary, Config: c.Config, NoGateway: c.NoGateway(), Istio: c.Istio.Other(),
		})
	}
	return m, m.Validate()
}

// readByOthers lists the clusters whose API servers are read by istiods of other clusters.
func readByOthers(m mesh.Topology) []string {
	var all []string
	for _, c := range m.Clusters {
		if c.InMesh() && slices.ContainsFunc(m.Clusters, func(other mesh.ClusterSpec) bool { return other.HasIstiod() && other.Name != c.Name }) {
			all = append(all, c.Name)
		}
	}
	return all
}

// Plan returns the mesh that a topology asks for and the steps of installing it, in an order in which a person could
// carry them out. It touches nothing.
func Plan(t scenario.Topology) (mesh.Topology, []mesh.Step, error) {
	wanted, err := meshTopology(t)
	if err != nil {
		return wanted, nil, err
	}
	o := mesh.Options{Lab: DefaultName, Topology: wanted}
	if b, err := openBundle(false); err == nil { // a few settings depend on the Envoy in the bundle
		o.Istio = mesh.FromBundle(b)
	}
	steps, err := mesh.Plan(o)
	return wanted, steps, err
}

// SameTopology reports whether two topologies ask for the same mesh. Where in a file they are, and in which words, does
// not matter.
func SameTopology(a, b scenario.Topology) bool {
	x, errX := meshTopology(a)
	y, errY := meshTopology(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// Describe returns a topology in one line: its kind, network and trust.
func Describe(t scenario.Topology) string {
	text := fmt.Sprintf("%s, network %s, trust %s", t.Kind, t.Network, t.Trust)
	if t.Kind == "" {
		text = fmt.Sprintf("%s, trust %s", cmp.Or(t.Name, strings.Join(t.Clusters(), ", ")), t.Trust)
	}
	if t.MultiRoot {
		text += ", multi-root"
	}
	if len(t.OtherIstios()) > 0 {
		text += ", istio " + words.And(asTexts(t.Istios()))
	}
	return text
}

func asTexts[T ~string](all []T) []string {
	list := make([]string, len(all))
	for i, v := range all {
		list[i] = string(v)
	}
	return list
}

// willHaveKubernetes returns an error if a cluster has to have another version than the provider's nodes. Only some providers
// know that before the nodes are there.
func willHaveKubernetes(p cluster.Provider, t scenario.Topology) error {
	knows, ok := p.(interface{ Kubernetes() string })
	if !ok {
		return nil
	}
	for _, c := range t.Members {
		if version := knows.Kubernetes(); c.Kubernetes != "" && c.Kubernetes != version {
			return wrongKubernetes(c, "the bundle has", version)
		}
	}
	return nil
}

// hasKubernetes returns an error if a cluster has another version than it has to have.
func (l *Lab) hasKubernetes() error {
	for i, c := range l.Topology.Members {
		if c.Kubernetes == "" {
			continue
		}
		api, err := discovery.NewDiscoveryClientForConfig(l.Clusters[i].RESTConfig())
		if err != nil {
			return err
		}
		seen, err := api.ServerVersion()
		if err != nil {
			return fmt.Errorf("asking %s for its version: %w", c.Name, err)
		}
		if seen.GitVersion != c.Kubernetes {
			return wrongKubernetes(c, "its API server is", seen.GitVersion)
		}
	}
	return nil
}

func wrongKubernetes(c scenario.Cluster, has, version string) error {
	return fmt.Errorf("%s: cluster %s: wanted Kubernetes %s, %s %s: write %[5]s, or leave kubernetes: out",
		c.Place, c.Name, c.Kubernetes, has, version)
}
