package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// What BenchProviders makes.
const (
	BareCluster = "one cluster"
	MeshOfTwo   = "two clusters with a mesh"
)

// ProvidersBench is one thing that was made by kind and embedded. The JSON names are stable.
type ProvidersBench struct {
	What     string    `json:"what"` // BareCluster or MeshOfTwo
	Kind     BenchRuns `json:"kind"`
	Embedded BenchRuns `json:"embedded"`
	Ratio    Bench     `json:"ratio"` // kind's medians as multiples of those of embedded; 0 of a figure that was not measured
}

// BenchRuns are runs of the same and their median.
type BenchRuns struct {
	Runs   []Bench `json:"runs"`
	Median Bench   `json:"median"`
}

// BenchProviders makes and removes one cluster and a mesh of two, each by kind and embedded, one after another, that often.
// The one cluster is by kind's own command, as people have it who use kind alone; the mesh of two is by the provider kind. Told
// hears of each lab. With an error comes what was measured until then. The error is a *SetupError where this machine
// cannot make both.
func BenchProviders(ctx context.Context, home, name string, runs int, told func(round int, what, provider string, b Bench)) ([]ProvidersBench, error) {
	if err := prepareProviders(ctx, home, name); err != nil {
		return nil, err
	}
	all := []ProvidersBench{{What: BareCluster}, {What: MeshOfTwo}}
	for round := range runs {
		for i := range all {
			for _, provider := range turns(round) {
				if ctx.Err() != nil {
					return all, context.Cause(ctx)
				}
				b, err := BenchUp(ctx, comparedOptions(home, name, provider, all[i].What))
				if err != nil {
					return all, fmt.Errorf("measuring %s by %s: %w", all[i].What, provider, err)
				}
				all[i].add(provider, b)
				told(round, all[i].What, provider, b)
			}
		}
	}
	return all, nil
}

// turns is the order in a round: neither provider always finds the machine as the other has left it.
func turns(round int) []string {
	if round%2 == 0 {
		return []string{Kind, Embedded}
	}
	return []string{Embedded, Kind}
}

func comparedOptions(home, name, provider, what string) Options {
	o := Options{Home: home, Name: name, Provider: provider, Topology: DefaultTopology()}
	if what == BareCluster {
		o.Topology.Kind, o.bare = scenario.Single, true
	}
	return o
}

// prepareProviders returns everything that the machine lacks for a comparison, or has Docker load the node image, so that
// no run has to.
func prepareProviders(ctx context.Context, home, name string) error {
	var problems []error
	for _, provider := range turns(0) {
		if err := Check(ctx, comparedOptions(home, name, provider, MeshOfTwo)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", provider, err))
		}
	}
	b, err := openBundle(false)
	if err != nil {
		problems = append(problems, err)
	} else if _, _, ok := b.KindNodeImage(); !ok {
		problems = append(problems, &SetupError{Err: errors.New("the bundle has no part for kind: add it with `eastwest bundle build --with kind`")})
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if _, err := (&kind.Provider{Home: home, Bundle: b}).NodeImage(ctx); err != nil {
		return &SetupError{Err: err}
	}
	return nil
}

// add puts a run to its provider's.
func (p *ProvidersBench) add(provider string, b Bench) {
	to := &p.Embedded
	if provider == Kind {
		to = &p.Kind
	}
	to.Runs = append(to.Runs, b)
	to.Median = Median(to.Runs)
	p.Ratio = figures(func(figure func(Bench) float64) float64 {
		if figure(p.Embedded.Median) == 0 {
			return 0
		}
		return figure(p.Kind.Median) / figure(p.Embedded.Median)
	})
}
