package lab

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// The providers by name.
const (
	Auto     = "auto"
	Embedded = "embedded"
	Kind     = "kind"
	Existing = "existing"
)

// Providers lists what --provider takes.
func Providers() []string { return []string{Auto, Embedded, Kind, Existing} }

// provider is what package lab needs of a provider beyond making clusters: finding those that are there.
type provider interface {
	cluster.Provider
	// Open returns a cluster that was created before, whether it runs or not.
	Open(lab, name string) (cluster.Cluster, error)
}

// newProvider is the one place that knows providers by name.
func newProvider(name, home string, b *bundle.Bundle, o Options) (provider, error) {
	switch name {
	case Embedded:
		return embeddedProvider{&embedded.Provider{Home: home, Bundle: b, Range: o.Range, Egress: o.Egress, Progress: o.milestone()}}, nil
	case Kind:
		p := &kind.Provider{
			Home:      home,
			Bundle:    b,
			Image:     o.KindImage,
			Range:     o.Range,
			Egress:    o.Egress,
			Published: o.Images.Published(),
			ID:        o.id,
			Nodes:     len(o.Topology.Clusters()),
			Progress:  o.milestone(),
		}
		if o.Bare {
			return bareKindProvider{kind.Bare{Provider: p}}, nil
		}
		return kindProvider{p}, nil
	case Existing:
		return existingProvider{&existing.Provider{
			Home: home, Kubeconfig: o.Existing.Kubeconfig, Contexts: o.Existing.Contexts, APIServers: o.Existing.APIServers,
			Clusters: o.Topology.Clusters(), Read: readByOthers(o.Topology), ID: o.id,
		}}, nil
	default:
		return nil, fmt.Errorf("unknown provider %q: there are %v", name, Providers())
	}
}

// milestone hands on how far a cluster is; nil if nobody wants to know.
func (o Options) milestone() func(cluster, milestone string, since time.Duration) {
	if o.Progress == nil {
		return nil
	}
	return func(cluster, milestone string, since time.Duration) {
		o.Progress(Progress{Cluster: cluster, Step: milestone, Since: since, Took: since})
	}
}

// ChooseProvider turns "auto" into a provider that works here.
func ChooseProvider(ctx context.Context, name string) (string, error) {
	if name != Auto && name != "" {
		return name, nil
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		return Embedded, nil
	}
	err := kind.Answers(ctx)
	if err == nil {
		return Kind, nil
	}
	return "", &SetupError{Err: fmt.Errorf(`no provider works here:
  embedded needs Linux and root: run with sudo
  kind needs Docker: %w
  existing needs clusters and the names of their contexts: --provider existing --context …`, err)}
}

type embeddedProvider struct{ *embedded.Provider }

func (p embeddedProvider) Open(lab, name string) (cluster.Cluster, error) {
	return p.Provider.Open(lab, name)
}

type kindProvider struct{ *kind.Provider }

func (p kindProvider) Open(lab, name string) (cluster.Cluster, error) {
	return p.Provider.Open(lab, name)
}

type bareKindProvider struct{ kind.Bare }

func (p bareKindProvider) Open(lab, name string) (cluster.Cluster, error) {
	return p.Bare.Open(lab, name)
}

type existingProvider struct{ *existing.Provider }

func (p existingProvider) Open(lab, name string) (cluster.Cluster, error) {
	return p.Provider.Open(lab, name)
}

// readByOthers lists the clusters whose API servers istiods of other clusters read.
func readByOthers(t scenario.Topology) []string {
	m, err := meshTopology(t)
	if err != nil {
		return nil // which is told elsewhere
	}
	var all []string
	for _, of := range m.Clusters {
		if of.InMesh() && slices.ContainsFunc(m.Clusters, func(in mesh.ClusterSpec) bool { return in.HasIstiod() && in.Name != of.Name }) {
			all = append(all, of.Name)
		}
	}
	return all
}

// Contexts lists those of a kubeconfig; of what kubectl takes if it is empty.
func Contexts(kubeconfig string) ([]string, error) { return existing.Contexts(kubeconfig) }
