package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

// change is the one implementation of Fault; the constructors of this package fill it in.
type change struct {
	sentence  string
	commands  []string
	in        []string // the clusters that must be in the mesh
	objects   []Object // those that are changed in each of them, where they can be named before
	available func(m *mesh.Mesh) error
	inject    func(ctx context.Context, m *mesh.Mesh) (Undo, error)
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

func (c *change) Inject(ctx context.Context, m *mesh.Mesh) (Undo, error) { return c.inject(ctx, m) }

// Names returns the objects that a fault changes, as far as it can name them: a baseline that is to restore them
// has to know them.
func Names(f Fault) []observe.Named {
	c, ok := f.(*change)
	if !ok {
		return nil
	}
	var all []observe.Named
	for _, cluster := range c.in {
		for _, o := range c.objects {
			all = append(all, observe.Named{Cluster: cluster, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name})
		}
	}
	return all
}

// each does the same in several clusters at once. When it fails in one it is taken back in the others.
func each(in []string, do func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) (Undo, error)) func(context.Context, *mesh.Mesh) (Undo, error) {
	return func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
		undos := make([]Undo, len(in))
		group, groupCtx := errgroup.WithContext(ctx)
		for i, name := range in {
			group.Go(func() error {
				member, err := m.Member(name)
				if err == nil {
					undos[i], err = do(groupCtx, m, member)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			})
		}
		err := group.Wait()
		undo := together(undos) // not before: the undos come from the group
		if err != nil {
			return nil, takeBack(ctx, undo, err)
		}
		return undo, nil
	}
}

// patience bounds waits that a healthy cluster ends within seconds, and the taking back of half a change,
// whose own context may be over.
const patience = 90 * time.Second

// takeBack takes back the half of a change that failed.
func takeBack(ctx context.Context, undo Undo, because error) error {
	if undo == nil {
		return because
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(because, undo(ctx))
}

// together makes one Undo of several that may run side by side; nil if none of them does anything.
func together(undos []Undo) Undo {
	if !slices.ContainsFunc(undos, func(u Undo) bool { return u != nil }) {
		return nil
	}
	return func(ctx context.Context) error {
		var group errgroup.Group
		for _, undo := range undos {
			if undo != nil {
				group.Go(func() error { return undo(ctx) })
			}
		}
		return group.Wait()
	}
}

// commandsIn is one command per cluster.
func commandsIn(in []string, command func(cluster string) string) []string {
	lines := make([]string, len(in))
	for i, name := range in {
		lines[i] = command(name)
	}
	return lines
}

// and joins names into a sentence.
func and(names []string) string { return strings.Join(names, " and ") }
