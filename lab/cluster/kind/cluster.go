package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Node is a kind cluster of a lab. Stop of a component of the control plane need not last: the kubelet may start again what
// has long not answered its probes. A stopped API server was still stopped after 150 s. Kill is followed by the kubelet's
// back-off, which grows to minutes where a component is killed again and again.
type Node struct {
	node
	machine.Underlay
	config *rest.Config
	tell   func(milestone string) // nil for one that was opened
}

var (
	_ cluster.Cluster     = (*Node)(nil)
	_ cluster.Underlay    = (*Node)(nil)
	_ cluster.Starting    = (*Node)(nil)
	_ cluster.Advertiser  = (*Node)(nil)
	_ cluster.Pauser      = (*Node)(nil)
	_ cluster.Healer      = (*Node)(nil)
	_ cluster.ImageLoader = (*Node)(nil)
)

func newCluster(n node) (*Node, error) {
	config, err := machine.Config(n.path(kubeconfig))
	if err != nil {
		return nil, fmt.Errorf("opening cluster %s: %w", n.Spec.Name, err)
	}
	return &Node{node: n, Underlay: machine.NewUnderlay(n.Place, n.Address, n.Dir, components), config: config}, nil
}

// RESTConfig implements cluster.Cluster.
func (c *Node) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Node) Kubeconfig() string { return c.path(kubeconfig) }

// APIServer implements cluster.Advertiser.
func (c *Node) APIServer() string { return c.apiServer() }

// Container is the node's name in Docker.
func (c *Node) Container() string { return c.container() }

// Usage is what the node's processes, pods included, use.
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
	err := wait.Until(
		ctx,
		c.Spec.Name+" to be usable",
		wait.Options{Within: 3 * time.Minute, Every: 100 * time.Millisecond},
		func(ctx context.Context) error {
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
		},
	)
	if err != nil && ctx.Err() == nil {
		if said, jerr := docker(ctx, "exec", c.container(), "journalctl", "--no-pager", "--output=cat", "--lines=3",
			"--unit=eastwest"); jerr == nil {
			err = fmt.Errorf("%w; the part of eastwest in the node says: %s", err, said)
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

// podLogs is the command that prints the end of the logs of one of Kubernetes' own pods, earlier containers included.
func podLogs(container, pod string) []string {
	return []string{"exec", container, "sh", "-c", "tail -q -n 2000 /var/log/pods/kube-system_" + pod + "-*/*/*.log"}
}

// Dump implements cluster.Cluster: the node's status, its journal, the logs of each component, and what Docker knows.
func (c *Node) Dump(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var problems []error
	if status, err := c.Status(ctx); err != nil {
		problems = append(problems, err)
	} else {
		problems = append(problems, machine.WriteJSON(filepath.Join(dir, "status.json"), status))
	}
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

func (c *Node) unpause(ctx context.Context) error {
	paused, err := c.paused(ctx)
	if err == nil && paused {
		_, err = docker(ctx, "unpause", c.container())
	}
	return err
}

func (c *Node) paused(ctx context.Context) (paused bool, err error) {
	text, err := docker(ctx, "inspect", "--format", "{{.State.Paused}}", c.container())
	if err != nil {
		return false, err
	}
	return paused, json.Unmarshal([]byte(text), &paused)
}

// HealAll implements cluster.Healer.
func (c *Node) HealAll(ctx context.Context) error {
	if err := c.unpause(ctx); err != nil { // a paused node could not be asked
		return err
	}
	return c.Underlay.HealAll(ctx)
}
