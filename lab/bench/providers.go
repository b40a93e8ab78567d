package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// What MeasureProviders makes.
const (
	BareCluster = "one cluster"
	MeshOfTwo   = "two clusters with a mesh"
)

// Providers is one thing that was made by kind and embedded. The JSON names are stable.
type Providers struct {
	What     string `json:"what"` // BareCluster or MeshOfTwo
	Kind     Runs   `json:"kind"`
	Embedded Runs   `json:"embedded"`
	Ratio    Up     `json:"ratio"` // kind's medians as multiples of those of embedded; 0 of a figure that was not measured
}

// Runs are runs of the same and their median.
type Runs struct {
	Runs   []Up `json:"runs"`
	Median Up   `json:"median"`
}

// MeasureProviders makes and removes one cluster and a mesh of two, each by kind and embedded, one after another, that often.
// The one cluster is by kind's own command, as people have it who use kind alone; the mesh of two is by the provider kind. Told
// hears of each lab. With an error comes what was measured until then. The error is a *lab.SetupError where this machine
// cannot make both.
func MeasureProviders(
	ctx context.Context,
	home, name string,
	runs int,
	told func(round int, what, provider string, b Up),
) ([]Providers, error) {
	if err := prepareProviders(ctx, home, name); err != nil {
		return nil, err
	}
	all := []Providers{{What: BareCluster}, {What: MeshOfTwo}}
	for round := range runs {
		for i := range all {
			for _, provider := range turns(round) {
				if ctx.Err() != nil {
					return all, context.Cause(ctx)
				}
				b, err := MeasureUp(ctx, comparedOptions(home, name, provider, all[i].What))
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
		return []string{lab.Kind, lab.Embedded}
	}
	return []string{lab.Embedded, lab.Kind}
}

func comparedOptions(home, name, provider, what string) lab.Options {
	o := lab.Options{Home: home, Name: name, Provider: provider, Topology: lab.DefaultTopology()}
	if what == BareCluster {
		o.Topology.Kind, o.ClustersOnly, o.Wrap = scenario.Single, true, asBareKind
	}
	return o
}

// prepareProviders returns everything that the machine lacks for a comparison, or has Docker load the node image, so that
// no run has to.
func prepareProviders(ctx context.Context, home, name string) error {
	var problems []error
	for _, provider := range turns(0) {
		if err := lab.Check(ctx, comparedOptions(home, name, provider, MeshOfTwo)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", provider, err))
		}
	}
	b, err := lab.OpenBundle()
	if err != nil {
		problems = append(problems, err)
	} else if _, _, ok := b.KindNodeImage(); !ok {
		problems = append(problems, &lab.SetupError{Err: errors.New("the bundle has no part for kind: add it with `eastwest bundle " +
			"build --with kind`")})
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if _, err := (&kind.Provider{Lab: cluster.Lab{Home: home, Bundle: b}}).NodeImage(ctx); err != nil {
		return &lab.SetupError{Err: err}
	}
	return nil
}

// add puts a run to its provider's.
func (p *Providers) add(provider string, b Up) {
	to := &p.Embedded
	if provider == lab.Kind {
		to = &p.Kind
	}
	to.Runs = append(to.Runs, b)
	to.Median = Median(to.Runs)
	p.Ratio = figures(func(figure func(Up) float64) float64 {
		if figure(p.Embedded.Median) == 0 {
			return 0
		}
		return figure(p.Kind.Median) / figure(p.Embedded.Median)
	})
}
