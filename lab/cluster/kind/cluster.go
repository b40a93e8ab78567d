package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Node is a kind cluster of a lab. Stop of a component of the control plane need not last: the kubelet may restart a
// component that fails its probes for long. A stopped API server was still stopped after 150 s. After Kill, the kubelet
// waits before it starts the component again. If a component is killed again and again, that time grows to minutes.
type Node struct {
	node
	machine.Node
	tell func(milestone string) // nil if the cluster was opened
}

var (
	_ cluster.Cluster     = (*Node)(nil)
	_ cluster.Underlay    = (*Node)(nil)
	_ cluster.Starting    = (*Node)(nil)
	_ cluster.Advertiser  = (*Node)(nil)
	_ cluster.Pauser      = (*Node)(nil)
	_ cluster.PodFreezer  = (*Node)(nil)
	_ cluster.Healer      = (*Node)(nil)
	_ cluster.ImageLoader = (*Node)(nil)
)

func newCluster(n node) (*Node, error) {
	seen, err := machine.OpenNode(machine.NodeOptions{
		Place: n.Place, Address: n.Address, Dir: n.Dir, Kubeconfig: n.path(kubeconfig), Components: components, Thaw: n.unpause,
	})
	if err != nil {
		return nil, err
	}
	return &Node{node: n, Node: seen}, nil
}

// APIServer implements cluster.Advertiser.
func (c *Node) APIServer() string { return c.apiServer() }

// Container returns the node's name in Docker.
func (c *Node) Container() string { return c.container() }

// Usage returns what the node's processes, including those of pods, have used.
func (c *Node) Usage() (host.CgroupUsage, error) {
	ctx, cancel := wait.Timeout(context.Background(), 3*time.Second)
	defer cancel()
	status, err := c.Status(ctx)
	if err != nil || status.Usage == nil {
		return host.CgroupUsage{}, err
	}
	return *status.Usage, nil
}

// Usable implements cluster.Starting.
func (c *Node) Usable(ctx context.Context) error {
	bounds := wait.Options{Within: 3 * time.Minute, Every: 100 * time.Millisecond}
	err := wait.Until(ctx, c.Spec.Name+" to be usable", bounds, func(ctx context.Context) error {
		status, err := c.Status(ctx)
		switch {
		case err != nil:
			return err
		case status.Problem != "":
			return wait.Permanent(errors.New(status.Problem))
		case !status.Usable:
			return errors.New("the node, the default ServiceAccount or CoreDNS is not there yet")
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		log := []string{"exec", c.container(), "journalctl", "--no-pager", "--output=cat", "--lines=3", "--unit=eastwest"}
		if end, lerr := docker(ctx, log...); lerr == nil {
			err = fmt.Errorf("%w; the log of eastwest's service in the node ends with: %s", err, end)
		}
	}
	if err == nil && c.tell != nil {
		c.tell(cluster.Usable)
	}
	return err
}

// LoadImage implements cluster.ImageLoader.
func (c *Node) LoadImage(_ context.Context, archive string) error {
	to, err := kindNode(newKinds(&watcher{tell: func(string) {}}), c.node)
	if err != nil {
		return err
	}
	return loadImage(to, archive)
}

// podLogs returns the docker command that prints the end of the logs of a pod in kube-system, including earlier containers.
func podLogs(container, pod string) []string {
	return []string{"exec", container, "sh", "-c", "tail -q -n 2000 /var/log/pods/kube-system_" + pod + "-*/*/*.log"}
}

// Dump implements cluster.Cluster: the node's status, its journal, the logs of each component, and Docker's view of it.
func (c *Node) Dump(ctx context.Context, dir string) error {
	problems := []error{c.DumpStatus(ctx, dir)}
	sources := map[string][]string{
		"journal.log": {"exec", c.container(), "journalctl", "--no-pager"},
		"console.log": {"logs", c.container()},
		"docker.json": {"inspect", c.container()},
		"coredns.log": podLogs(c.container(), "coredns"),
	}
	for _, component := range components {
		if slices.Contains(units, component) {
			sources[component+".log"] = []string{"exec", c.container(), "journalctl", "--no-pager", "--unit", component}
		} else {
			sources[component+".log"] = podLogs(c.container(), component)
		}
	}
	for file, args := range sources {
		text, err := docker(ctx, args...)
		problems = append(problems, err, os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o644))
	}
	return errors.Join(problems...)
}

// Pause implements cluster.Pauser.
func (c *Node) Pause(ctx context.Context) (cluster.Heal, error) {
	if paused, err := c.paused(ctx); err != nil || paused {
		return c.unpause, err
	}
	if _, err := docker(ctx, "pause", c.container()); err != nil {
		return nil, err
	}
	return c.unpause, nil
}

// unpause lets a paused node run again.
func (n node) unpause(ctx context.Context) error {
	paused, err := n.paused(ctx)
	if err == nil && paused {
		_, err = docker(ctx, "unpause", n.container())
	}
	return err
}

func (n node) paused(ctx context.Context) (bool, error) {
	c, err := inspectContainer(ctx, n.container())
	return c.State.Paused, err
}
