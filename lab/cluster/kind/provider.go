package kind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	kind "sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"
	kindexec "sigs.k8s.io/kind/pkg/exec"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Provider makes kind clusters.
type Provider struct {
	Home   string         // folder of all labs
	Bundle *bundle.Bundle // images of the mesh and, where it has one, the node image; only Create needs it
	Image  string         // the node image; the bundle's when empty, kind's own default where the bundle has none
	Range  string         // the lab's /16; a free one is found when empty
	Egress bool           // let the labs reach what Docker's containers reach
	// Published says that nodes pull the mesh's images: none is loaded into them.
	Published bool
	ID        string // of the lab that is made
	Nodes     int    // that are going to be made: what Check wants room for
	Progress  func(cluster, milestone string, since time.Duration)
}

var _ cluster.Provider = (*Provider)(nil)

// Check implements cluster.Provider.
func (p *Provider) Check(ctx context.Context) error {
	if err := Answers(ctx); err != nil {
		return err
	}
	if err := local(ctx); err != nil {
		return err
	}
	e, err := askEngine(ctx)
	if err != nil {
		return err
	}
	if err := e.reachable(); err != nil {
		return err
	}
	return disk(e.DockerRootDir, p.Nodes)
}

// Create implements cluster.Provider. Clusters of one lab may be created side by side.
func (p *Provider) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	if spec.Index < 1 || spec.Index > machine.MaxClusters {
		return nil, fmt.Errorf("cluster %s is number %d: a lab has room for %d", spec.Name, spec.Index, machine.MaxClusters)
	}
	if c, err := p.Open(spec.Lab, spec.Name); err == nil && c.Alive(ctx) == nil {
		return c, nil
	}
	return p.makeOrSweep(ctx, spec, p.make)
}

// makeOrSweep makes a node in its lab's network, and leaves nothing of it where that fails.
func (p *Provider) makeOrSweep(
	ctx context.Context,
	spec cluster.Spec,
	do func(context.Context, node) (cluster.Cluster, error),
) (cluster.Cluster, error) {
	n, err := p.plan(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := p.sweepNode(ctx, n); err != nil { // what a crash has left
		return nil, err
	}
	c, err := do(ctx, n)
	if err != nil {
		clean, cancel := wait.Timeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("making %s: %w", spec.Name, err), p.sweepNode(clean, n))
	}
	return c, nil
}

// plan fixes the lab's network, if that has not been done, writes it down and makes it.
func (p *Provider) plan(ctx context.Context, spec cluster.Spec) (node, error) {
	n := node{Place: machine.Place{Spec: spec}, Dir: nodeDir(p.Home, spec.Lab, spec.Name), ID: p.ID, Image: p.Image, Egress: p.Egress}
	if err := notOthers(ctx, n); err != nil {
		return n, err
	}
	unlock, err := machine.Lock(p.Home)
	if err != nil {
		return n, err
	}
	defer unlock()
	net, err := machine.Plan(p.Home, spec.Lab, p.ID, provider, p.Range, func(r netip.Prefix) (string, error) { return rangeTaken(ctx, r) })
	if err != nil {
		return n, err
	}
	n.Range = net.Range
	return n, makeNetwork(ctx, n)
}

// labelsOf has Docker print the lab of a thing that it lists.
const labelsOf = `{{.Label "` + cluster.ManagedByLabel + `"}} {{.Label "` + cluster.LabLabel + `"}} {{.Label "` + cluster.IDLabel + `"}}`

// labels is what that is for the lab of the node.
func (n node) labels() string { return strings.Join([]string{cluster.ManagedBy, n.Lab, n.ID}, " ") }

// notOthers returns an error if Docker has a cluster of that name that is no lab's.
func notOthers(ctx context.Context, n node) error {
	// Without the word a container without labels would look like none.
	found, err := docker(ctx, "ps", "--all", "--filter", "name=^"+n.container()+"$", "--format", "found "+labelsOf)
	if err != nil {
		return err
	}
	if found == "" || found == "found "+n.labels() {
		return nil
	}
	return fmt.Errorf(
		"there is a kind cluster %s that is not this lab's (container %s): choose another --name; eastwest leaves it alone",
		n.kindName(),
		n.container(),
	)
}

// makeNetwork makes the lab's Docker network, or finds it.
func makeNetwork(ctx context.Context, n node) error {
	name, a := networkName(n.Lab), n.Addresses()
	found, err := docker(ctx, "network", "ls", "--filter", "name=^"+name+"$", "--format", "found "+labelsOf)
	if err != nil {
		return err
	}
	switch found {
	case "found " + n.labels():
		return nil
	case "":
	default:
		return fmt.Errorf(
			"there is a Docker network %s that is not this lab's: choose another --name, or remove it with `docker network rm %[1]s`",
			name,
		)
	}
	_, err = docker(ctx, append([]string{
		"network", "create", "--driver", "bridge", "--subnet", a.Bridge().Masked().String(), "--gateway", a.Bridge().Addr().String(),
		"--ip-range", a.Assigned().String(),
	}, append(labelFlags(n.Lab, n.ID), name)...)...)
	if err != nil && strings.Contains(err.Error(), "overlaps") {
		return fmt.Errorf("the range %s is taken by a Docker network: choose another with --range: %w", n.Range, err)
	}
	return err
}

// milestones returns what tells how far a cluster is whose making begins now.
func (p *Provider) milestones(cluster string) (tell func(milestone string)) {
	begin := time.Now()
	return func(milestone string) {
		if p.Progress != nil {
			p.Progress(cluster, milestone, time.Since(begin))
		}
	}
}

// make is the story of a node.
func (p *Provider) make(ctx context.Context, n node) (cluster.Cluster, error) {
	tell := p.milestones(n.Name)
	image, err := p.NodeImage(ctx)
	if err != nil {
		return nil, err
	}
	tell("node image")
	if err := label(ctx, n, image); err != nil {
		return nil, err
	}
	mounts, err := n.write()
	if err != nil {
		return nil, err
	}
	log := &watcher{tell: tell}
	kinds := newKinds(log)
	if err := create(ctx, kinds, log, n, mounts); err != nil {
		return nil, err
	}
	if n.Address, err = address(ctx, n); err != nil {
		return nil, err
	}
	if err := writeKubeconfig(ctx, kinds, n); err != nil {
		return nil, err
	}
	if !p.Published {
		if err := p.loadImages(ctx, kinds, n); err != nil {
			return nil, err
		}
	}
	tell("api")
	if err := machine.WriteJSON(n.path(nodeFile), n); err != nil { // now with its address: it can be opened
		return nil, err
	}
	c, err := p.Open(n.Lab, n.Name)
	if err != nil {
		return nil, err
	}
	c.tell = tell
	return c, nil
}

// newKinds is kind itself, on Docker.
func newKinds(log *watcher) *kind.Provider {
	return kind.NewProvider(kind.ProviderWithDocker(), kind.ProviderWithLogger(log))
}

// NodeImage returns the name of the node image that is asked for, once Docker has it, where it stays.
func (p *Provider) NodeImage(ctx context.Context) (string, error) {
	image, archive := p.Image, ""
	if image == "" {
		if err := p.Bundle.KindProblem(); err != nil {
			return "", err
		}
		image = defaults.Image
		if file, ref, ok := p.Bundle.KindNodeImage(); ok {
			image, archive = ref, file
		}
	}
	labs := filepath.Join(p.Home, "labs")
	if err := os.MkdirAll(labs, 0o755); err != nil {
		return "", fmt.Errorf("making the folder of labs: %w", err)
	}
	lock := flock.New(filepath.Join(labs, ".kind-image.lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another eastwest that gets the same node image: %w", err)
	}
	defer func() { _ = lock.Unlock() }()
	if _, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", image); err == nil {
		return image, nil
	}
	if archive != "" {
		_, err := docker(ctx, "load", "--input", archive)
		return image, err
	}
	if _, err := docker(ctx, "pull", "--quiet", image); err != nil {
		return "", fmt.Errorf(
			"getting the node image %s: %w: `eastwest bundle build --with kind` makes one that needs no registry, --kind-image names another",
			image,
			err,
		)
	}
	return image, nil
}

// label makes the node's own image: the same one, with labels that its containers inherit.
func label(ctx context.Context, n node, image string) error {
	id, err := docker(ctx, append(append([]string{"create"}, labelFlags(n.Lab, n.ID)...), image)...)
	if err != nil {
		return err
	}
	_, err = docker(ctx, "commit", id, n.imageName())
	_, gone := docker(context.WithoutCancel(ctx), "rm", "--force", "--volumes", id)
	if err := errors.Join(err, gone); err != nil {
		return fmt.Errorf("giving the node image the lab's labels: %w", err)
	}
	return nil
}

// networkEnv is kind's only way to be told the network, and the whole process has one environment.
const networkEnv = "KIND_EXPERIMENTAL_DOCKER_NETWORK"

// turn is held by who may set it.
var turn = make(chan struct{}, 1)

// create has kind make the cluster. kind takes no context: when ctx ends, the node is removed under its hands until it
// gives up.
func create(ctx context.Context, kinds *kind.Provider, log *watcher, n node, mounts []v1alpha4.Mount) error {
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	log.onceStarted(func() { <-turn })
	if err := os.Setenv(networkEnv, networkName(n.Lab)); err != nil {
		log.started()
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer log.started()
		done <- kinds.Create(n.kindName(), kind.CreateWithV1Alpha4Config(n.config(mounts)),
			kind.CreateWithKubeconfigPath(n.path("kind.kubeconfig")))
	}()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for ended := ctx.Done(); ; {
		select {
		case err := <-done:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return explain(err)
		case <-ended:
			ended = nil
		case <-again.C:
			if ctx.Err() != nil {
				_ = n.removeContainer(context.WithoutCancel(ctx)) // again, until it is gone
			}
		}
	}
}

// explain adds what the command that kind ran has said, and what to do where that is known.
func explain(err error) error {
	command := kindexec.RunErrorForError(err)
	if command == nil {
		return err
	}
	return withOutput(err, string(command.Output))
}

// withOutput adds the end of what was said to an error, and what to do where that is known.
func withOutput(err error, output string) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	said := strings.Join(lines[max(0, len(lines)-12):], "\n")
	if strings.Contains(said, "unable to apply caps") {
		return fmt.Errorf(
			"this machine does not let Docker give containers all capabilities: start it with scripts/docker-up, which asks for those that "+
				"there are: %w: %s",
			err,
			said,
		)
	}
	return fmt.Errorf("%w: %s", err, said)
}

// address asks Docker where the node is on the lab's network.
func address(ctx context.Context, n node) (netip.Addr, error) {
	text, err := docker(
		ctx,
		"inspect",
		"--format",
		fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", networkName(n.Lab)),
		n.container(),
	)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, fmt.Errorf("asking Docker for the address of %s: %w", n.container(), err)
	}
	return addr, nil
}

// writeKubeconfig writes the administrator's kubeconfig under the cluster's name. It holds the address of the node, which
// other clusters reach as well, so that a remote secret that istioctl makes of it is right.
func writeKubeconfig(ctx context.Context, kinds *kind.Provider, n node) error {
	text, err := kinds.KubeConfig(n.kindName(), false)
	if err != nil {
		return explain(err)
	}
	of, err := clientcmd.Load([]byte(text))
	if err != nil {
		return fmt.Errorf("reading the kubeconfig of %s: %w", n.kindName(), err)
	}
	current := of.Contexts[of.CurrentContext]
	if current == nil || of.Clusters[current.Cluster] == nil || of.AuthInfos[current.AuthInfo] == nil {
		return fmt.Errorf("the kubeconfig of %s has no context %q", n.kindName(), of.CurrentContext)
	}
	c := api.NewConfig()
	c.Clusters[n.Name], c.AuthInfos[n.Name+"-admin"] = of.Clusters[current.Cluster], of.AuthInfos[current.AuthInfo]
	c.Clusters[n.Name].Server = n.apiServer()
	c.Contexts[n.Name] = &api.Context{Cluster: n.Name, AuthInfo: n.Name + "-admin"}
	c.CurrentContext = n.Name
	if err := clientcmd.WriteToFile(*c, n.path(kubeconfig)); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", n.Name, err)
	}
	return reachable(ctx, n)
}

// reachable waits until this machine reaches the node's API server by its own address.
func reachable(ctx context.Context, n node) error {
	config, err := machine.Config(n.path(kubeconfig))
	if err != nil {
		return err
	}
	return machine.APIAnswers(ctx, config)
}

// loadImages gives the node the mesh's images that its own image lacks.
func (p *Provider) loadImages(ctx context.Context, kinds *kind.Provider, n node) error {
	has, err := docker(ctx, "exec", n.container(), "ctr", "--namespace=k8s.io", "images", "ls", "--quiet")
	if err != nil {
		return fmt.Errorf("listing the images of the node: %w", err)
	}
	to, err := kindNode(kinds, n)
	if err != nil {
		return err
	}
	for _, image := range p.Bundle.Images() {
		if !strings.HasPrefix(image.Ref, bundle.Hub+"/") || strings.Contains("\n"+has+"\n", "\n"+image.Ref+"\n") {
			continue
		}
		if err := loadImage(to, image.Archive); err != nil {
			return err
		}
	}
	return nil
}

// kindNode is kind's own idea of the node.
func kindNode(kinds *kind.Provider, n node) (nodes.Node, error) {
	all, err := kinds.ListNodes(n.kindName())
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("kind cluster %s: wanted one node, seen %d", n.kindName(), len(all))
	}
	return all[0], nil
}

// loadImage gives a node the images of an archive.
func loadImage(to nodes.Node, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	err = nodeutils.LoadImageArchive(to, file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("loading %s into %s: %w", archive, to, explain(err))
	}
	return nil
}

// removeContainer removes the node's container, if there is one with the lab's labels: the name alone could be anybody's.
func (n node) removeContainer(ctx context.Context) error {
	return n.remove(ctx, containers, "name=^"+n.container()+"$")
}

// remove removes what of a sort of things matches a filter and has the lab's labels.
func (n node) remove(ctx context.Context, t thing, filter string) error {
	ours, err := docker(ctx, slices.Concat(strings.Fields(t.list), []string{"--filter", filter}, filters(n.Lab, n.ID))...)
	if err != nil || ours == "" {
		return err
	}
	_, err = docker(ctx, append(strings.Fields(t.remove), strings.Fields(ours)...)...)
	if err != nil && strings.Contains(err.Error(), "No such ") { // somebody else was quicker
		err = nil
	}
	return err
}

// sweepNode removes what is left of one node.
func (p *Provider) sweepNode(ctx context.Context, n node) error {
	if err := n.removeContainer(ctx); err != nil {
		return err
	}
	if err := n.remove(ctx, images, "reference="+n.imageName()); err != nil {
		return err
	}
	return os.RemoveAll(n.Dir)
}

// Delete implements cluster.Provider.
func (p *Provider) Delete(ctx context.Context, lab string) error {
	unlock, err := machine.Lock(p.Home)
	if err != nil {
		return err
	}
	defer unlock()
	if err := Answers(ctx); err != nil {
		return err
	}
	dir := machine.Dir(p.Home, lab, provider)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		// Names are this Docker's, homes are the users'. Labs of ours are written down before anything is made.
		left, err := leftovers(ctx, lab, "")
		if err != nil || len(left) == 0 {
			return err
		}
		return fmt.Errorf( //nolint:revive,staticcheck // a name
			"Docker has a lab %s that was made with another EASTWEST_HOME: choose another --name, or remove it where it was made",
			lab,
		)
	}
	net, err := machine.ReadNetwork(p.Home, lab, provider)
	if errors.Is(err, fs.ErrNotExist) { // it is written down before anything is made
		return os.RemoveAll(dir)
	}
	if err != nil {
		return err
	}
	nodes, looks, err := p.unfinished(lab)
	if err != nil {
		return err
	}
	err = wait.Until(
		ctx,
		"everything of lab "+lab+" to be gone from Docker",
		wait.Options{Within: time.Minute, Every: 200 * time.Millisecond, InARow: looks},
		func(ctx context.Context) error {
			left, err := leftovers(ctx, lab, net.ID)
			if err != nil {
				return err
			}
			var problems []error
			for _, command := range left {
				_, err := docker(ctx, command...)
				problems = append(problems, err)
			}
			if len(left) > 0 {
				problems = append(problems, fmt.Errorf("%d kinds of things were there", len(left)))
			}
			if pids := host.Commands("docker", nodes...); len(pids) > 0 {
				problems = append(problems, fmt.Errorf("commands that make its nodes still run (processes %v)", pids))
			}
			return errors.Join(problems...)
		},
	)
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unfinished lists the containers of a lab whose making was cut off by a kill, and how often in a row nothing is to be
// seen of the lab before it is gone. The docker command that makes a container outlives whoever has started it, and where
// that command has been killed, too, Docker may go on for a while with what is not in its lists yet.
func (p *Provider) unfinished(lab string) (containers []string, looks int, err error) {
	folders, err := os.ReadDir(machine.Dir(p.Home, lab, provider))
	if err != nil {
		return nil, 0, err
	}
	looks = 1
	for _, folder := range folders {
		name := folder.Name()
		if !folder.IsDir() {
			continue
		}
		_, err := p.Open(lab, name)
		_, bareErr := Bare{p}.Open(lab, name)
		if err != nil && bareErr != nil {
			containers = append(containers, node{Place: machine.Place{Spec: cluster.Spec{Lab: lab, Name: name}}}.container())
			looks = 15
		}
	}
	return containers, looks, nil
}

// Open returns a cluster that was created before, whether it runs or not.
func (p *Provider) Open(lab, name string) (*Node, error) {
	var n node
	if err := machine.ReadJSON(filepath.Join(nodeDir(p.Home, lab, name), nodeFile), &n); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lab %s has no cluster %s", lab, name)
		}
		return nil, err
	}
	if !n.Address.IsValid() {
		return nil, fmt.Errorf("cluster %s of lab %s was never made to its end", name, lab)
	}
	return newCluster(n)
}
