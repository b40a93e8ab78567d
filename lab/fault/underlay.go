package fault

import (
	"context"
	"fmt"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// needsUnderlay returns an available function: nil if the machines below all these clusters may be touched.
func needsUnderlay(in ...string) func(*mesh.Mesh) error { return needsBelow[cluster.Underlay](in...) }

// needsBelow is needsUnderlay for any ability of clusters whose machines are ours.
func needsBelow[T any](in ...string) func(*mesh.Mesh) error {
	return func(m *mesh.Mesh) error {
		for _, name := range in {
			if _, err := below[T](m, name); err != nil {
				return err
			}
		}
		return nil
	}
}

func underlay(m *mesh.Mesh, name string) (cluster.Underlay, error) {
	return below[cluster.Underlay](m, name)
}

// below returns an ability that a cluster has if its machines are ours.
func below[T any](m *mesh.Mesh, name string) (ability T, err error) {
	member, err := m.Member(name)
	if err != nil {
		return ability, err
	}
	ability, ok := member.Cluster.(T)
	if !ok {
		return ability, fmt.Errorf("the machines below %s are not ours to touch: use the provider embedded or kind", name)
	}
	return ability, nil
}

// blocker drops packets between a cluster and a peer.
type blocker func(u cluster.Underlay, ctx context.Context, peer cluster.Cluster) (cluster.Heal, error)

func portBlocker(port uint16) blocker {
	return func(u cluster.Underlay, ctx context.Context, peer cluster.Cluster) (cluster.Heal, error) {
		return u.BlockPort(ctx, peer, port)
	}
}

// Sever drops every packet between two clusters.
func Sever(a, b string) Fault {
	return blocked(fmt.Sprintf("sever %s and %s", a, b), a, b, cluster.Underlay.Sever)
}

// BlockPort drops TCP packets from one cluster to a port of another.
func BlockPort(in, from string, port uint16) Fault {
	return blocked(fmt.Sprintf("block port %d of %s for %s", port, in, from), in, from, portBlocker(port))
}

func blocked(sentence, in, peer string, block blocker) Fault {
	return &change{
		sentence: sentence, in: []string{in, peer}, available: needsUnderlay(in, peer),
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			_, err := block.on(ctx, m, in, peer) // Heal takes it back
			return err
		},
	}
}

func (b blocker) on(ctx context.Context, m *mesh.Mesh, in, peer string) (cluster.Heal, error) {
	u, err := underlay(m, in)
	if err != nil {
		return nil, err
	}
	other, err := m.Member(peer)
	if err != nil {
		return nil, err
	}
	return b(u, ctx, other.Cluster)
}

// Reconnect takes back Sever, whichever of the two clusters came first there.
func Reconnect(a, b string) Fault {
	return unblocked(fmt.Sprintf("connect %s and %s again", a, b), cluster.Underlay.Sever, [2]string{a, b}, [2]string{b, a})
}

// UnblockPort takes back BlockPort.
func UnblockPort(in, from string, port uint16) Fault {
	return unblocked(fmt.Sprintf("open port %d of %s for %s again", port, in, from), portBlocker(port), [2]string{in, from})
}

// unblocked takes blocks back, each of a cluster and its peer. A block that is there already is replaced by an equal
// one whose heal takes both away: so it does not matter who made the first.
func unblocked(sentence string, block blocker, pairs ...[2]string) Fault {
	in := pairs[0][:]
	return &change{
		sentence: sentence, in: in, available: needsUnderlay(in...),
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			for _, pair := range pairs {
				heal, err := block.on(ctx, m, pair[0], pair[1])
				if err == nil {
					err = heal(ctx)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// StopComponent freezes a component of a cluster's node, such as kube-apiserver.
func StopComponent(in, component string) Fault {
	return onComponent(fmt.Sprintf("stop %s of %s", component, in), in, component, func(ctx context.Context, u cluster.Underlay) error {
		_, err := u.Stop(ctx, component) // Heal takes it back
		return err
	})
}

// ContinueComponent takes back StopComponent. It stops the component once more, for the heal.
func ContinueComponent(in, component string) Fault {
	return onComponent(fmt.Sprintf("let %s of %s go on", component, in), in, component, func(ctx context.Context, u cluster.Underlay) error {
		heal, err := u.Stop(ctx, component)
		if err != nil {
			return err
		}
		return heal(ctx)
	})
}

// KillComponent kills a component of a cluster's node, which its supervisor starts again.
func KillComponent(in, component string) Fault {
	return onComponent(fmt.Sprintf("kill %s of %s", component, in), in, component, func(ctx context.Context, u cluster.Underlay) error {
		return u.Kill(ctx, component)
	})
}

func onComponent(sentence, in, component string, do func(context.Context, cluster.Underlay) error) Fault {
	return &change{
		sentence: sentence, in: []string{in},
		available: func(m *mesh.Mesh) error {
			u, err := underlay(m, in)
			if err != nil {
				return err
			}
			if all := u.Components(); !slices.Contains(all, component) {
				return fmt.Errorf("no component %s in %s: there are %s", component, in, words.And(all))
			}
			return nil
		},
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			u, err := underlay(m, in)
			if err != nil {
				return err
			}
			return do(ctx, u)
		},
	}
}
