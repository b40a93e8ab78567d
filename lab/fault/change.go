package fault

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

// change is the one implementation of Fault; the constructors of this package fill it in.
type change struct {
	sentence  string
	commands  []string
	in        []string // the clusters that must be in the mesh
	objects   []Object // what it changes in each of them, where that is known before; see Names
	available func(m *mesh.Mesh) error
	inject    func(ctx context.Context, m *mesh.Mesh) error
}

var _ Fault = (*change)(nil)

func (c *change) String() string { return c.sentence }

func (c *change) Command() string { return strings.Join(c.commands, "\n") }

func (c *change) Available(m *mesh.Mesh) error {
	for _, name := range c.in {
		if _, err := m.Member(name); err != nil {
			return err
		}
	}
	if c.available == nil {
		return nil
	}
	return c.available(m)
}

func (c *change) Inject(ctx context.Context, m *mesh.Mesh) error { return c.inject(ctx, m) }

// Names returns the objects that a fault changes and that not every baseline knows. A baseline that Restore is to
// take this fault back with must have been taken with these names.
func Names(f Fault) []observe.Named {
	c, ok := f.(*change)
	if !ok {
		return nil
	}
	var named []observe.Named
	for _, cluster := range c.in {
		for _, o := range c.objects {
			named = append(named, observe.Named{Cluster: cluster, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name})
		}
	}
	return named
}

// injectIn returns an inject function that does the same in several clusters at once.
func injectIn(in []string, do func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error) func(context.Context, *mesh.Mesh) error {
	return func(ctx context.Context, m *mesh.Mesh) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, name := range in {
			group.Go(func() error {
				member, err := m.Member(name)
				if err == nil {
					err = do(ctx, m, member)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			})
		}
		return group.Wait()
	}
}

// commandsIn returns one command per cluster.
func commandsIn(in []string, command func(cluster string) string) []string {
	lines := make([]string, len(in))
	for i, name := range in {
		lines[i] = command(name)
	}
	return lines
}
