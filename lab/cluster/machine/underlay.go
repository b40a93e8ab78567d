package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Underlay is the outside's end of a node: what a provider's cluster does by the control socket.
type Underlay struct {
	place      Place
	node       netip.Addr
	components []string
	control
}

// NewUnderlay returns the end of the node with the control socket in dir, whose own address is node.
func NewUnderlay(p Place, node netip.Addr, dir string, components []string) Underlay {
	slices.Sort(components)
	return Underlay{p, node, components, control{dir}}
}

// Name implements cluster.Cluster.
func (u *Underlay) Name() string { return u.place.Name }

// Dial implements cluster.Cluster.
func (u *Underlay) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return u.dial(ctx, addr)
}

// Status asks the node; an error means that it does not run.
func (u *Underlay) Status(ctx context.Context) (Status, error) {
	var s Status
	err := u.do(ctx, "GET", "/status", nil, &s)
	return s, err
}

// Alive returns nil if the node and its API server answer.
func (u *Underlay) Alive(ctx context.Context) error {
	ctx, cancel := wait.Timeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := u.Status(ctx); err != nil {
		return err
	}
	conn, err := u.Dial(ctx, netip.AddrPortFrom(u.node, APIPort))
	if err != nil {
		return fmt.Errorf("reaching the API server of %s: %w", u.Name(), err)
	}
	return conn.Close()
}

// Faults names what Stop, Sever and BlockPort have left in force, sorted.
func (u *Underlay) Faults(ctx context.Context) ([]string, error) {
	status, err := u.Status(ctx)
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, p := range status.Components {
		if p.Stopped {
			faults = append(faults, p.Name+" is stopped")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(status.Blocks)) {
		b := status.Blocks[id]
		what := "cut off from " + b.Peer
		if b.Port != 0 {
			what = fmt.Sprintf("port %d is blocked for %s", b.Port, b.Peer)
		}
		faults = append(faults, what)
	}
	slices.Sort(faults)
	return faults, nil
}

// Components implements cluster.Underlay.
func (u *Underlay) Components() []string { return slices.Clone(u.components) }

// Stop implements cluster.Underlay.
func (u *Underlay) Stop(ctx context.Context, component string) (cluster.Heal, error) {
	if err := u.signal(ctx, component, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	heal := func(ctx context.Context) error { return u.signal(ctx, component, syscall.SIGCONT) }
	// A signal is sent at once and felt when the process runs next, which is later on a busy machine.
	err := wait.Until(ctx, component+" of "+u.Name()+" to stop", wait.Options{Within: 10 * time.Second}, func(ctx context.Context) error {
		status, err := u.Status(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(status.Components, func(p host.ProcessState) bool { return p.Name == component && p.Stopped }) {
			return errors.New("it still runs")
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, heal(context.WithoutCancel(ctx)))
	}
	return heal, nil
}

// Kill implements cluster.Underlay.
func (u *Underlay) Kill(ctx context.Context, component string) error {
	return u.signal(ctx, component, syscall.SIGKILL)
}

func (u *Underlay) signal(ctx context.Context, component string, sig syscall.Signal) error {
	return u.do(ctx, "POST", "/signal", signalOrder{component, int(sig)}, nil)
}

// Sever implements cluster.Underlay. The rules stand in this cluster's node: they drop what comes from
// the peer and what goes to it.
func (u *Underlay) Sever(ctx context.Context, peer cluster.Cluster) (cluster.Heal, error) {
	return u.block(ctx, peer, 0)
}

// BlockPort implements cluster.Underlay.
func (u *Underlay) BlockPort(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	return u.block(ctx, peer, port)
}

// ours is every cluster that has an Underlay of this package.
type ours interface{ underlay() *Underlay }

func (u *Underlay) underlay() *Underlay { return u }

func (u *Underlay) block(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	other, ok := peer.(ours)
	if !ok || other.underlay().place.Lab != u.place.Lab {
		return nil, fmt.Errorf("%s is not a cluster of lab %s", peer.Name(), u.place.Lab)
	}
	of := other.underlay()
	path := fmt.Sprintf("/blocks/%s-%d", peer.Name(), port)
	b := Block{Peer: peer.Name(), From: of.place.Ranges(of.node), Port: port}
	if err := u.do(ctx, "PUT", path, b, nil); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return u.do(ctx, "DELETE", path, nil, nil) }, nil
}

// HealAll takes back what Stop, Sever and BlockPort have done. What is to be healed the node knows, so a process that
// did not break anything can do it. A frozen node cannot be asked: thaw it first.
func (u *Underlay) HealAll(ctx context.Context) error {
	status, err := u.Status(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range status.Components {
		// Whether it shows as stopped yet or not: it means nothing to one that runs.
		if err := u.signal(ctx, p.Name, syscall.SIGCONT); p.Stopped {
			problems = append(problems, err)
		}
	}
	for id := range status.Blocks {
		problems = append(problems, u.do(ctx, "DELETE", "/blocks/"+id, nil, nil))
	}
	return errors.Join(problems...)
}
