package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// Node is an embedded cluster.
type Node struct {
	node
	machine.Node
	usable <-chan error // gets one value when the node is usable, or cannot become so; nil if the node was opened
}

var (
	_ cluster.Cluster     = (*Node)(nil)
	_ cluster.Underlay    = (*Node)(nil)
	_ cluster.Starting    = (*Node)(nil)
	_ cluster.Pauser      = (*Node)(nil)
	_ cluster.PodFreezer  = (*Node)(nil)
	_ cluster.Healer      = (*Node)(nil)
	_ cluster.ImageLoader = (*Node)(nil)
)

func newCluster(n node) (*Node, error) {
	seen, err := machine.OpenNode(machine.NodeOptions{
		Place: n.Place, Address: n.ip(), Dir: n.Dir, Kubeconfig: n.path("pki", "admin.conf"), Components: componentNames(),
		// A frozen supervisor cannot answer, so this is done from outside.
		Thaw: func(context.Context) error { return host.ThawCgroup(nodeCgroup(n.Lab, n.Name)) },
	})
	if err != nil {
		return nil, err
	}
	return &Node{node: n, Node: seen}, nil
}

// Usage returns what the node's processes, including those of pods, have used.
func (c *Node) Usage() (host.CgroupUsage, error) { return host.Usage(nodeCgroup(c.Lab, c.Spec.Name)) }

// ProgramSeconds returns the CPU seconds that the node's running processes have used, summed by program.
func (c *Node) ProgramSeconds() (map[string]float64, error) {
	return host.ProgramSeconds(nodeCgroup(c.Lab, c.Spec.Name))
}

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

// Dump implements cluster.Cluster. It writes the status of the node and copies the logs of the components and of the
// supervisor.
func (c *Node) Dump(ctx context.Context, dir string) error {
	problems := []error{c.DumpStatus(ctx, dir)}
	logs, err := filepath.Glob(c.path("logs", "*.log*"))
	for _, log := range append(logs, c.path("supervisor.log")) {
		problems = append(problems, copyFile(log, filepath.Join(dir, filepath.Base(log))))
	}
	return errors.Join(append(problems, err)...)
}

// Pause implements cluster.Pauser. The supervisor is frozen too, so it cannot be asked to do this.
func (c *Node) Pause(ctx context.Context) (cluster.Heal, error) {
	cgroup := nodeCgroup(c.Lab, c.Spec.Name)
	if err := host.FreezeCgroup(ctx, cgroup); err != nil {
		return nil, errors.Join(fmt.Errorf("freezing %s: %w", c.Spec.Name, err), host.ThawCgroup(cgroup))
	}
	return func(context.Context) error { return host.ThawCgroup(cgroup) }, nil
}
