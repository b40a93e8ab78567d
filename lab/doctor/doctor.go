// Package doctor finds out what is wrong between clusters that share a mesh: trust, discovery, the paths between networks, and
// what should be the same in all clusters. It needs kubeconfigs of the clusters and no lab.
//
// Four packages do the work: gather reads clusters into facts, exam judges facts and asks nobody, findings documents what can be
// found. This package joins them, prints reports, and makes doctor a check of scenarios. `go test -short ./lab/doctor/...` needs
// no cluster.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/eastwest-lab/eastwest/lab/doctor/exam"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/doctor/gather"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Target is a cluster to examine.
type Target = gather.Target

// Options say what is read from the clusters.
type Options = gather.Options

// Report says what was found.
type Report = exam.Report

// Examine reads clusters and examines them, without changing anything.
func Examine(ctx context.Context, targets []Target, o Options) Report {
	return exam.Examine(gather.Gather(ctx, targets, o))
}

// Probe is Examine with calls between the clusters, for which it creates pods and Services, and removes them again.
func Probe(ctx context.Context, targets []Target, o Options) (Report, error) {
	f := gather.Gather(ctx, targets, o)
	var err error
	if f.Calls, err = gather.Probe(ctx, targets, o); err != nil {
		return Report{}, err
	}
	return exam.Examine(f), nil
}

// Findings returns the documentation of everything that can be found, in the order of a report.
func Findings() []findings.Doc { return findings.All() }

// Targets returns the clusters of a mesh.
func Targets(m *mesh.Mesh) []Target {
	targets := make([]Target, len(m.Members))
	for i, member := range m.Members {
		targets[i] = Target{Name: member.Name(), Config: member.RESTConfig()}
	}
	return targets
}

// FromKubeconfig returns clusters by the contexts of a kubeconfig. If file is empty, it reads the files that kubectl would read.
func FromKubeconfig(file string, contexts []string) ([]Target, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	all, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	var targets []Target
	for _, name := range contexts {
		if all.Contexts[name] == nil {
			known := cmp.Or(words.And(slices.Sorted(maps.Keys(all.Contexts))), "none")
			from := words.And(rules.GetLoadingPrecedence())
			return nil, fmt.Errorf("the kubeconfig %s has no context %q: it has %s; --kubeconfig chooses another file", from, name, known)
		}
		config, err := clientcmd.NewNonInteractiveClientConfig(*all, name, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("reading context %s of the kubeconfig: %w", name, err)
		}
		targets = append(targets, Target{Name: name, Config: config})
	}
	return targets, nil
}
