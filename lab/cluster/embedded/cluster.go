package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Node is an embedded cluster.
type Node struct {
	node
	control
	config *rest.Config
	usable <-chan error // ends when the node is usable; nil for one that was opened, which was usable before
}

var (
	_ cluster.Cluster     = (*Node)(nil)
	_ cluster.Underlay    = (*Node)(nil)
	_ cluster.Starting    = (*Node)(nil)
	_ cluster.Pauser      = (*Node)(nil)
	_ cluster.Healer      = (*Node)(nil)
	_ cluster.ImageLoader = (*Node)(nil)
)

func newCluster(n node) (*Node, error) {
	config, err := clientcmd.BuildConfigFromFlags("", n.path("pki", "admin.conf"))
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of %s: %w", n.Spec.Name, err)
	}
	return &Node{node: n, control: control{n.Dir}, config: config}, nil
}

// Name implements cluster.Cluster.
func (c *Node) Name() string { return c.Spec.Name }

// RESTConfig implements cluster.Cluster.
func (c *Node) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Node) Kubeconfig() string { return c.path("pki", "admin.conf") }

// Dial implements cluster.Cluster.
func (c *Node) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return c.dial(ctx, addr)
}

// Status asks the supervisor; an error means that it does not run.
func (c *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, "GET", "/status", nil, &s)
	return s, err
}

// Faults names what Stop, Sever and BlockPort have left in force, sorted.
func (c *Node) Faults(ctx context.Context) ([]string, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, p := range status.Components {
		if p.Stopped {
			faults = append(faults, p.Name+" is stopped")
		}
	}
	for _, id := range sortedKeys(status.Blocks) {
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

// Usage is what the node's processes, pods included, use.
func (c *Node) Usage() (host.CgroupUsage, error) { return host.Usage(nodeCgroup(c.Lab, c.Spec.Name)) }

// Usable implements cluster.Starting.
func (c *Node) Usable(ctx context.Context) error {
	if c.usable == nil {
		return nil
	}
	select {
	case err := <-c.usable:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Alive returns nil if the supervisor and the API server answer.
func (c *Node) Alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := c.Status(ctx); err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(c.ip(), 6443).String())
	if err != nil {
		return fmt.Errorf("reaching the API server of %s: %w", c.Name(), err)
	}
	return conn.Close()
}

// Dump implements cluster.Cluster: the logs of the components and of the supervisor, and its status.
func (c *Node) Dump(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var problems []error
	if status, err := c.Status(ctx); err != nil {
		problems = append(problems, err)
	} else {
		problems = append(problems, writeJSON(filepath.Join(dir, "status.json"), status))
	}
	logs, err := filepath.Glob(c.path("logs", "*.log*"))
	for _, log := range append(logs, c.path("supervisor.log")) {
		problems = append(problems, copyFile(log, filepath.Join(dir, filepath.Base(log))))
	}
	return errors.Join(append(problems, err)...)
}

// Components implements cluster.Underlay.
func (c *Node) Components() []string { return componentNames() }

// Stop implements cluster.Underlay.
func (c *Node) Stop(ctx context.Context, component string) (cluster.Heal, error) {
	if err := c.signal(ctx, component, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	heal := func(ctx context.Context) error { return c.signal(ctx, component, syscall.SIGCONT) }
	// A signal is sent at once and felt when the process runs next, which is later on a busy machine.
	err := wait.Until(ctx, component+" of "+c.Name()+" to stop", wait.Options{Within: 10 * time.Second}, func(ctx context.Context) error {
		status, err := c.Status(ctx)
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
func (c *Node) Kill(ctx context.Context, component string) error {
	return c.signal(ctx, component, syscall.SIGKILL)
}

func (c *Node) signal(ctx context.Context, component string, sig syscall.Signal) error {
	return c.do(ctx, "POST", "/signal", signalOrder{component, int(sig)}, nil)
}

// Pause implements cluster.Pauser. The supervisor is frozen with all it supervises, so this is done from outside.
func (c *Node) Pause(ctx context.Context) (cluster.Heal, error) {
	cgroup := nodeCgroup(c.Lab, c.Spec.Name)
	if err := host.FreezeCgroup(ctx, cgroup); err != nil {
		return nil, errors.Join(fmt.Errorf("freezing %s: %w", c.Name(), err), host.ThawCgroup(cgroup))
	}
	return func(context.Context) error { return host.ThawCgroup(cgroup) }, nil
}

// Sever implements cluster.Underlay. The rules stand in this cluster's node: they drop what comes from
// the peer and what goes to it.
func (c *Node) Sever(ctx context.Context, peer cluster.Cluster) (cluster.Heal, error) {
	return c.block(ctx, peer, 0)
}

// BlockPort implements cluster.Underlay.
func (c *Node) BlockPort(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	return c.block(ctx, peer, port)
}

func (c *Node) block(ctx context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	other, ok := peer.(*Node)
	if !ok || other.Lab != c.Lab {
		return nil, fmt.Errorf("%s is not an embedded cluster of lab %s", peer.Name(), c.Lab)
	}
	path := fmt.Sprintf("/blocks/%s-%d", peer.Name(), port)
	b := block{Peer: peer.Name(), From: other.addresses().Of(other.Index), Port: port}
	if err := c.do(ctx, "PUT", path, b, nil); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return c.do(ctx, "DELETE", path, nil, nil) }, nil
}

// HealAll implements cluster.Healer. What is to be healed the supervisor knows, so a process that did not break
// anything can do it.
func (c *Node) HealAll(ctx context.Context) error {
	if err := host.ThawCgroup(nodeCgroup(c.Lab, c.Spec.Name)); err != nil { // a frozen supervisor could not be asked
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range status.Components {
		// Whether it shows as stopped yet or not: it means nothing to one that runs.
		if err := c.signal(ctx, p.Name, syscall.SIGCONT); p.Stopped {
			problems = append(problems, err)
		}
	}
	for id := range status.Blocks {
		problems = append(problems, c.do(ctx, "DELETE", "/blocks/"+id, nil, nil))
	}
	return errors.Join(problems...)
}
