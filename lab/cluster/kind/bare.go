package kind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Bare makes clusters as people do who use kind alone, to compare others with: by kind's own command and, but for the
// network of pods, with its defaults. All of it carries the lab's labels, and Provider deletes it. The bundle must have its
// part for kind.
type Bare struct{ *Provider }

var _ cluster.Provider = Bare{}

// CommandStep is the milestone at which kind's command starts. What was made before it is for the lab's labels.
const CommandStep = "kind create cluster"

// Files of a bare node's folder.
const (
	bareFile   = "bare.json"
	kindConfig = "kind.json"
)

// BareNode is a node without eastwest's part inside: it can be asked what it uses and be deleted, and whatever else needs
// that part fails.
type BareNode struct {
	*Node
	cli    string // kind's command
	cgroup string // of the container
}

var (
	_ cluster.Cluster  = (*BareNode)(nil)
	_ cluster.Starting = (*BareNode)(nil)
)

// bare is what another process needs to find a bare node again.
type bare struct {
	node
	CLI    string `json:"cli"`
	Cgroup string `json:"cgroup"`
}

// Create implements cluster.Provider.
func (p Bare) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	return p.makeOrSweep(ctx, spec, p.make)
}

func (p Bare) make(ctx context.Context, n node) (cluster.Cluster, error) {
	tell := p.milestones(n.Name)
	image, err := p.NodeImage(ctx)
	if err != nil {
		return nil, err
	}
	if err := label(ctx, n, image); err != nil {
		return nil, err
	}
	if err := n.writeBare(); err != nil {
		return nil, err
	}
	b := bare{node: n, CLI: p.Bundle.KindBin()}
	tell(CommandStep)
	if err := n.runKind(ctx, b.CLI, "create", "--config", n.path(kindConfig), "--wait", "3m"); err != nil {
		return nil, err
	}
	tell("node") // that is what kind waits for
	if b.Cgroup, err = containerCgroup(ctx, n); err != nil {
		return nil, err
	}
	if err := machine.WriteJSON(n.path(bareFile), b); err != nil {
		return nil, err
	}
	c, err := p.Open(n.Lab, n.Name)
	if err != nil {
		return nil, err
	}
	c.tell = tell
	return c, nil
}

// writeBare fills the node's folder with what kind is told, and with the network of pods: the bundle's node image has none.
func (n node) writeBare() error {
	conflist := n.path(filepath.Base(cniFile))
	config := &v1alpha4.Cluster{
		TypeMeta: configType,
		Nodes: []v1alpha4.Node{{
			Role: v1alpha4.ControlPlaneRole, Image: n.imageName(),
			ExtraMounts: []v1alpha4.Mount{{HostPath: conflist, ContainerPath: cniFile, Readonly: true}},
		}},
		Networking:           v1alpha4.Networking{PodSubnet: n.Addresses().Pods(n.Index).String(), DisableDefaultCNI: true},
		KubeadmConfigPatches: []string{"kind: KubeletConfiguration\nfailCgroupV1: false # as in the nodes of labs\n"},
	}
	if err := machine.WriteJSON(n.path(kindConfig), config); err != nil { // JSON is YAML, too
		return err
	}
	return os.WriteFile(conflist, []byte(n.CNIConfig()), 0o644)
}

// runKind runs kind's command on the node's cluster. The command ends with this process, and with ctx together with what it
// has started; it writes no kubeconfig but the node's.
func (n node) runKind(ctx context.Context, cli, verb string, args ...string) error {
	cmd := exec.CommandContext(
		ctx,
		cli,
		slices.Concat([]string{verb, "cluster", "--name", n.kindName(), "--kubeconfig", n.path(kubeconfig)}, args)...)
	cmd.Env = append(os.Environ(), networkEnv+"="+networkName(n.Lab), "KIND_EXPERIMENTAL_PROVIDER=docker")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread ends that started the command
	defer runtime.UnlockOSThread()
	_, err := host.Output(ctx, cmd)
	if command := (*host.CommandError)(nil); errors.As(err, &command) {
		return withOutput(fmt.Errorf("running kind %s cluster: %w", verb, command.Err), command.Said)
	}
	return err
}

// containerCgroup asks Docker for the node's container and returns its cgroup.
func containerCgroup(ctx context.Context, n node) (string, error) {
	text, err := docker(ctx, "inspect", "--format", "{{.State.Pid}} {{.Id}}", n.container())
	if err != nil {
		return "", err
	}
	first, id, _ := strings.Cut(text, " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return "", fmt.Errorf("asking Docker for the process of %s: %w", n.container(), err)
	}
	return host.ContainerCgroup(pid, id)
}

// Open returns a cluster whose making by kind's command has ended.
func (p Bare) Open(lab, name string) (*BareNode, error) {
	var b bare
	if err := machine.ReadJSON(filepath.Join(nodeDir(p.Home, lab, name), bareFile), &b); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lab %s has no bare cluster %s", lab, name)
		}
		return nil, err
	}
	c, err := newCluster(b.node)
	if err != nil {
		return nil, err
	}
	return &BareNode{Node: c, cli: b.CLI, cgroup: b.Cgroup}, nil
}

// Usage is what the container's processes, pods included, use.
func (c *BareNode) Usage() (host.CgroupUsage, error) { return host.Usage(c.cgroup) }

// Usable implements cluster.Starting.
func (c *BareNode) Usable(ctx context.Context) error {
	config := c.RESTConfig()
	config.QPS = -1 // a question more or less is no matter to a server of our own
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	err = wait.Until(
		ctx,
		c.Spec.Name+" to be usable",
		wait.Options{Within: 3 * time.Minute, Every: 100 * time.Millisecond},
		func(ctx context.Context) error {
			node, err := api.CoreV1().Nodes().Get(ctx, c.Container(), metav1.GetOptions{})
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
		},
	)
	if err == nil && c.tell != nil {
		c.tell(cluster.Usable)
	}
	return err
}

// Delete removes the cluster by kind's own command. What it knows nothing of is for Provider.Delete.
func (c *BareNode) Delete(ctx context.Context) error { return c.runKind(ctx, c.cli, "delete") }
