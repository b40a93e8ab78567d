package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Node is a node seen from outside: its API through a kubeconfig, everything below the API through the control socket.
// The clusters of providers that make nodes embed it.
type Node struct {
	place      Place
	address    netip.Addr
	components []string
	kubeconfig string
	config     *rest.Config
	thaw       func(context.Context) error
	control
}

// NodeOptions say where a node is found.
type NodeOptions struct {
	Place      Place
	Address    netip.Addr // the node's own
	Dir        string     // the folder of its control socket
	Kubeconfig string     // the path of its administrator's kubeconfig
	Components []string   // the processes that Stop and Kill know
	// Thaw lets all processes of a frozen node run again. It does nothing to a node that is not frozen.
	Thaw func(context.Context) error
}

// OpenNode returns a node that was made before, whether it runs or not.
func OpenNode(o NodeOptions) (Node, error) {
	config, err := Config(o.Kubeconfig)
	if err != nil {
		return Node{}, fmt.Errorf("opening cluster %s: %w", o.Place.Name, err)
	}
	components := slices.Clone(o.Components)
	slices.Sort(components)
	return Node{
		place: o.Place, address: o.Address, components: components,
		kubeconfig: o.Kubeconfig, config: config, thaw: o.Thaw, control: control{o.Dir},
	}, nil
}

// RESTConfig implements cluster.Cluster.
func (n *Node) RESTConfig() *rest.Config { return rest.CopyConfig(n.config) }

// Kubeconfig returns the path of the administrator's kubeconfig.
func (n *Node) Kubeconfig() string { return n.kubeconfig }

// Name implements cluster.Cluster.
func (n *Node) Name() string { return n.place.Name }

// Dial implements cluster.Cluster.
func (n *Node) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return n.dial(ctx, addr)
}

// Status asks the node. An error means that it does not run.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	err := n.do(ctx, "GET", "/status", nil, &s)
	return s, err
}

// Alive returns nil if the node and its API server answer.
func (n *Node) Alive(ctx context.Context) error {
	ctx, cancel := wait.Timeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := n.Status(ctx); err != nil {
		return err
	}
	conn, err := n.Dial(ctx, netip.AddrPortFrom(n.address, APIPort))
	if err != nil {
		return fmt.Errorf("reaching the API server of %s: %w", n.Name(), err)
	}
	return conn.Close()
}

// Faults describes the faults by Stop, FreezePod, Sever and BlockPort that are in force, sorted.
func (n *Node) Faults(ctx context.Context) ([]string, error) {
	status, err := n.Status(ctx)
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, p := range status.Components {
		if p.Stopped {
			faults = append(faults, p.Name+" is stopped")
		}
	}
	for _, p := range status.Pods {
		if p.Frozen {
			faults = append(faults, "pod "+p.Name+" is frozen")
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
func (n *Node) Components() []string { return slices.Clone(n.components) }

// Stop implements cluster.Underlay.
func (n *Node) Stop(ctx context.Context, component string) (cluster.Heal, error) {
	if err := n.signal(ctx, component, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	heal := func(ctx context.Context) error { return n.signal(ctx, component, syscall.SIGCONT) }
	// A signal takes effect when the process runs next, which may be later on a busy machine.
	err := wait.Until(ctx, component+" of "+n.Name()+" to stop", wait.Options{Within: 10 * time.Second}, func(ctx context.Context) error {
		status, err := n.Status(ctx)
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
func (n *Node) Kill(ctx context.Context, component string) error {
	return n.signal(ctx, component, syscall.SIGKILL)
}

func (n *Node) signal(ctx context.Context, component string, sig syscall.Signal) error {
	return n.do(ctx, "POST", "/signal", signalOrder{component, int(sig)}, nil)
}

// Sever implements cluster.Underlay. The rules are in this cluster's node: they drop what comes from
// the peer and what goes to it.
func (n *Node) Sever(ctx context.Context, peer cluster.Cluster) (cluster.Heal, error) {
	return n.block(ctx, peer, 0)
}

// BlockPort implements cluster.Underlay.
func (n *Node) BlockPort(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	return n.block(ctx, peer, port)
}

// FreezePod implements cluster.PodFreezer.
func (n *Node) FreezePod(ctx context.Context, uid string) error {
	what := "pod " + uid + " of " + n.Name() + " to freeze"
	err := wait.Until(ctx, what, wait.Options{Within: 10 * time.Second}, func(ctx context.Context) error {
		return n.do(ctx, "POST", "/pods/"+uid+"/freeze", nil, nil)
	})
	if err != nil {
		return errors.Join(err, n.ThawPod(context.WithoutCancel(ctx), uid))
	}
	return nil
}

// ThawPod implements cluster.PodFreezer.
func (n *Node) ThawPod(ctx context.Context, uid string) error {
	return n.do(ctx, "POST", "/pods/"+uid+"/thaw", nil, nil)
}

// FrozenPods implements cluster.PodFreezer.
func (n *Node) FrozenPods(ctx context.Context) ([]string, error) {
	status, err := n.Status(ctx)
	var frozen []string
	for _, p := range status.Pods {
		if p.Frozen {
			frozen = append(frozen, p.UID)
		}
	}
	return frozen, err
}

// ours is implemented by every cluster that embeds a Node.
type ours interface{ node() *Node }

func (n *Node) node() *Node { return n }

func (n *Node) block(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	other, ok := peer.(ours)
	if !ok || other.node().place.Lab != n.place.Lab {
		return nil, fmt.Errorf("%s is not a cluster of lab %s", peer.Name(), n.place.Lab)
	}
	of := other.node()
	path := fmt.Sprintf("/blocks/%s-%d", peer.Name(), port)
	b := Block{Peer: peer.Name(), From: of.place.Ranges(of.address), Port: port}
	if err := n.do(ctx, "PUT", path, b, nil); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return n.do(ctx, "DELETE", path, nil, nil) }, nil
}

// HealAll implements cluster.Healer. The node itself knows its faults, so a process that has broken nothing can heal them.
func (n *Node) HealAll(ctx context.Context) error {
	if err := n.thaw(ctx); err != nil { // a frozen node does not answer
		return err
	}
	status, err := n.Status(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range status.Components {
		// The signal means nothing to a process that runs, and one that was just stopped may not show as stopped yet.
		if err := n.signal(ctx, p.Name, syscall.SIGCONT); p.Stopped {
			problems = append(problems, err)
		}
	}
	for _, p := range status.Pods {
		if err := n.ThawPod(ctx, p.UID); p.Frozen {
			problems = append(problems, err)
		}
	}
	for id := range status.Blocks {
		problems = append(problems, n.do(ctx, "DELETE", "/blocks/"+id, nil, nil))
	}
	return errors.Join(problems...)
}

// DumpStatus makes the folder dir and writes the node's status into it.
func (n *Node) DumpStatus(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	status, err := n.Status(ctx)
	if err != nil {
		return err
	}
	return WriteJSON(filepath.Join(dir, "status.json"), status)
}
