package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// needsUnderlay says why the machines below a cluster cannot be touched.
func needsUnderlay(in ...string) func(*mesh.Mesh) error {
	return func(m *mesh.Mesh) error {
		for _, name := range in {
			if _, err := underlay(m, name); err != nil {
				return err
			}
		}
		return nil
	}
}

func underlay(m *mesh.Mesh, name string) (cluster.Underlay, error) {
	member, err := m.Member(name)
	if err != nil {
		return nil, err
	}
	u, ok := member.Cluster.(cluster.Underlay)
	if !ok {
		return nil, fmt.Errorf("the machines below %s are not ours to touch: use the provider embedded or kind", name)
	}
	return u, nil
}

// Sever drops every packet between two clusters.
func Sever(a, b string) Fault {
	return link(fmt.Sprintf("sever %s and %s", a, b), a, b, cluster.Underlay.Sever, undoable)
}

// Reconnect takes back Sever, whichever of the two clusters came first there.
func Reconnect(a, b string) Fault {
	here, there := link("", a, b, cluster.Underlay.Sever, healNow), link("", b, a, cluster.Underlay.Sever, healNow)
	return &change{
		sentence: fmt.Sprintf("connect %s and %s again", a, b), in: []string{a, b}, available: needsUnderlay(a, b),
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			if _, err := here.Inject(ctx, m); err != nil {
				return nil, err
			}
			return there.Inject(ctx, m)
		},
	}
}

// BlockPort drops TCP packets from one cluster to a port of another.
func BlockPort(in, from string, port uint16) Fault {
	return link(fmt.Sprintf("block port %d of %s for %s", port, in, from), in, from, onPort(port), undoable)
}

// UnblockPort takes back BlockPort.
func UnblockPort(in, from string, port uint16) Fault {
	return link(fmt.Sprintf("open port %d of %s for %s again", port, in, from), in, from, onPort(port), healNow)
}

type blocker func(cluster.Underlay, context.Context, cluster.Cluster) (cluster.Heal, error)

func onPort(port uint16) blocker {
	return func(u cluster.Underlay, ctx context.Context, peer cluster.Cluster) (cluster.Heal, error) {
		return u.BlockPort(ctx, peer, port)
	}
}

// What becomes of the heal that a block returns: it is kept to take the block back, or used at once. A
// block that is there already is replaced by an equal one, so both work whoever made it.
func undoable(_ context.Context, heal cluster.Heal) (Undo, error) { return Undo(heal), nil }
func healNow(ctx context.Context, heal cluster.Heal) (Undo, error) {
	return nil, heal(ctx)
}

func link(sentence, in, peer string, block blocker, then func(context.Context, cluster.Heal) (Undo, error)) Fault {
	return &change{
		sentence: sentence, in: []string{in, peer}, available: needsUnderlay(in, peer),
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			u, err := underlay(m, in)
			if err != nil {
				return nil, err
			}
			other, err := m.Member(peer)
			if err != nil {
				return nil, err
			}
			heal, err := block(u, ctx, other.Cluster)
			if err != nil {
				return nil, err
			}
			return then(ctx, heal)
		},
	}
}

// StopComponent freezes a component of a cluster's node, such as kube-apiserver.
func StopComponent(in, component string) Fault {
	return onComponent(fmt.Sprintf("stop %s of %s", component, in), in, component, undoable)
}

// ContinueComponent takes back StopComponent.
func ContinueComponent(in, component string) Fault {
	return onComponent(fmt.Sprintf("let %s of %s go on", component, in), in, component, healNow)
}

func onComponent(sentence, in, component string, then func(context.Context, cluster.Heal) (Undo, error)) Fault {
	return &change{
		sentence: sentence, in: []string{in}, available: hasComponent(in, component),
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			u, err := underlay(m, in)
			if err != nil {
				return nil, err
			}
			heal, err := u.Stop(ctx, component)
			if err != nil {
				return nil, err
			}
			return then(ctx, heal)
		},
	}
}

// KillComponent kills a component of a cluster's node, which its supervisor starts again.
func KillComponent(in, component string) Fault {
	return &change{
		sentence: fmt.Sprintf("kill %s of %s", component, in), in: []string{in}, available: hasComponent(in, component),
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			u, err := underlay(m, in)
			if err != nil {
				return nil, err
			}
			return nil, u.Kill(ctx, component)
		},
	}
}

func hasComponent(in, component string) func(*mesh.Mesh) error {
	return func(m *mesh.Mesh) error {
		u, err := underlay(m, in)
		if err != nil {
			return err
		}
		if !slices.Contains(u.Components(), component) {
			return errors.New("no component " + component + " in " + in + fmt.Sprintf(": there are %v", u.Components()))
		}
		return nil
	}
}
