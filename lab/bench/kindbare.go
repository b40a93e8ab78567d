package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// bareKind makes clusters as users of kind alone do, to compare others with: with kind's own command and, except for the
// network of pods, with its defaults. Everything carries the lab's labels, so kind.Provider can delete it. The bundle must
// have its part for kind.
type bareKind struct{ *kind.Provider }

// asBareKind returns a provider of bare clusters in place of a kind.Provider. It returns any other provider as it is.
func asBareKind(p cluster.Provider) cluster.Provider {
	if k, ok := p.(*kind.Provider); ok {
		return bareKind{k}
	}
	return p
}

// commandStep is the milestone at which kind's command starts. Everything before it is for the lab's labels.
const commandStep = "kind create cluster"

// Files of a bare node's folder.
const (
	bareFile       = "bare.json"
	bareConfig     = "kind.json"
	bareKubeconfig = "kubeconfig"
)

// bareNode is a node without eastwest's part inside: it has an API, can be asked for its usage, and be deleted. It is written
// down for other openers.
type bareNode struct {
	Prepared kind.Prepared `json:"node"`
	Cluster  string        `json:"cluster"` // its name in the lab
	CLI      string        `json:"cli"`     // kind's command
	Cgroup   string        `json:"cgroup"`  // of the container

	config *rest.Config
	tell   func(milestone string) // nil if it was opened
}

var (
	_ cluster.Provider = bareKind{}
	_ cluster.Cluster  = (*bareNode)(nil)
	_ cluster.Starting = (*bareNode)(nil)
)

// Create implements cluster.Provider.
func (p bareKind) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	tell := p.Milestones(spec.Name)
	err := p.CreateBy(ctx, spec, func(ctx context.Context, n kind.Prepared) error {
		c := &bareNode{Prepared: n, Cluster: spec.Name, CLI: p.Bundle.KindBin()}
		if err := c.write(); err != nil {
			return err
		}
		tell(commandStep)
		if err := c.runKind(ctx, "create", "--config", c.path(bareConfig), "--wait", "3m"); err != nil {
			return err
		}
		tell("node") // kind waits for that
		var err error
		if c.Cgroup, err = kind.ContainerCgroup(ctx, n.Container); err != nil {
			return err
		}
		return machine.WriteJSON(c.path(bareFile), c)
	})
	if err != nil {
		return nil, err
	}
	c, err := p.open(spec.Lab, spec.Name)
	if err != nil {
		return nil, err
	}
	c.tell = tell
	return c, nil
}

// Open implements cluster.Provider.
func (p bareKind) Open(lab, name string) (cluster.Cluster, error) {
	return cluster.Opened(p.open(lab, name))
}

func (p bareKind) open(lab, name string) (*bareNode, error) {
	c := &bareNode{}
	err := machine.ReadJSON(filepath.Join(kind.Dir(p.Home, lab, name), bareFile), c)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %s has no bare cluster %s", lab, name)
	}
	if err == nil {
		c.config, err = machine.Config(c.path(bareKubeconfig))
	}
	return c, err
}

func (c *bareNode) path(file string) string { return filepath.Join(c.Prepared.Dir, file) }

// write fills the node's folder with kind's configuration and with the network of pods: the bundle's node image has none.
func (c *bareNode) write() error {
	conflist := c.path(filepath.Base(kind.CNIFile))
	config := &v1alpha4.Cluster{
		TypeMeta: kind.ConfigType,
		Nodes: []v1alpha4.Node{{
			Role: v1alpha4.ControlPlaneRole, Image: c.Prepared.Image,
			ExtraMounts: []v1alpha4.Mount{{HostPath: conflist, ContainerPath: kind.CNIFile, Readonly: true}},
		}},
		Networking:           v1alpha4.Networking{PodSubnet: c.Prepared.Pods.String(), DisableDefaultCNI: true},
		KubeadmConfigPatches: []string{"kind: KubeletConfiguration\nfailCgroupV1: false # as in the nodes of labs\n"},
	}
	if err := machine.WriteJSON(c.path(bareConfig), config); err != nil { // JSON is YAML, too
		return err
	}
	return os.WriteFile(conflist, []byte(c.Prepared.CNI), 0o644)
}

// runKind runs kind's command on the node's cluster. If ctx or this process ends, so does the command, with everything that
// it has started. The command writes no kubeconfig except the node's.
func (c *bareNode) runKind(ctx context.Context, verb string, args ...string) error {
	named := []string{verb, "cluster", "--name", c.Prepared.Name, "--kubeconfig", c.path(bareKubeconfig)}
	cmd := host.Bound(ctx, c.CLI, slices.Concat(named, args)...)
	cmd.Env = append(os.Environ(), kind.NetworkEnv+"="+c.Prepared.Network, "KIND_EXPERIMENTAL_PROVIDER=docker")
	_, err := host.Output(ctx, cmd)
	if command := (*host.CommandError)(nil); errors.As(err, &command) {
		return kind.WithOutput(fmt.Errorf("running kind %s cluster: %w", verb, command.Err), command.Said)
	}
	return err
}

// Name implements cluster.Cluster.
func (c *bareNode) Name() string { return c.Cluster }

// RESTConfig implements cluster.Cluster.
func (c *bareNode) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the path of the administrator's kubeconfig.
func (c *bareNode) Kubeconfig() string { return c.path(bareKubeconfig) }

// Dial implements cluster.Cluster.
func (c *bareNode) Dial(context.Context, netip.AddrPort) (net.Conn, error) {
	return nil, fmt.Errorf("%s is a bare cluster: nothing in its node passes connections on", c.Cluster)
}

// Dump implements cluster.Cluster. A bare cluster has no evidence of its own.
func (c *bareNode) Dump(context.Context, string) error { return nil }

// Usage returns what the container's processes, including those of pods, have used.
func (c *bareNode) Usage() (host.CgroupUsage, error) { return host.Usage(c.Cgroup) }

// Usable implements cluster.Starting.
func (c *bareNode) Usable(ctx context.Context) error {
	config := c.RESTConfig()
	config.QPS = -1 // no limit: nobody else uses this API server
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	bounds := wait.Options{Within: 3 * time.Minute, Every: 100 * time.Millisecond}
	err = wait.Until(ctx, c.Cluster+" to be usable", bounds, func(ctx context.Context) error {
		node, err := api.CoreV1().Nodes().Get(ctx, c.Prepared.Container, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !machine.NodeReady(node) {
			return errors.New("the node is not Ready")
		}
		if _, err := api.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		dns, err := api.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(dns.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
			return c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue
		}) {
			return errors.New("CoreDNS is not available")
		}
		return nil
	})
	if err == nil && c.tell != nil {
		c.tell(cluster.Usable)
	}
	return err
}

// delete removes the cluster with kind's own command. Things that kind does not know of are left for kind.Provider.Delete.
func (c *bareNode) delete(ctx context.Context) error { return c.runKind(ctx, "delete") }
