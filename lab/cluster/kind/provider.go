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
	cluster.Lab
	Settings Settings
}

var _ cluster.Claimer = (*Provider)(nil)

// Check implements cluster.Provider.
func (p *Provider) Check(ctx context.Context) error {
	if err := Available(ctx).Err(); err != nil {
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
	return disk(e.DockerRootDir, len(p.Clusters))
}

// Claim implements cluster.Claimer. Everybody who uses this Docker shares its names, perhaps from other machines, so Docker
// decides: a volume holds the name. Docker makes a volume of one name once, and whoever asks for it again gets the one that is
// there, with the labels of its first maker. The volume is one of the lab's things, which Delete removes.
func (p *Provider) Claim(ctx context.Context, lab string) (release func(), err error) {
	release = func() {}
	if _, err := os.Stat(machine.Dir(p.Home, lab, provider)); err == nil { // left behind by a crash, with its own claim
		if err := p.Delete(ctx, lab); err != nil {
			return nil, err
		}
	}
	claim := node{Place: machine.Place{Spec: cluster.Spec{Lab: lab}}, ID: p.ID}
	if err := machine.WriteJSON(claimFile(p.Home, lab), machine.Network{Lab: lab, ID: p.ID}); err != nil {
		return nil, fmt.Errorf("writing down the claim of the lab's name: %w", err)
	}
	err = claim.take(ctx)
	if err == nil {
		return release, nil
	}
	var left error
	if taken := (*cluster.TakenError)(nil); errors.As(err, &taken) {
		left = os.RemoveAll(machine.Dir(p.Home, lab, provider)) // Docker has nothing of this lab
	} else {
		clean, cancel := wait.Timeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		left = p.Delete(clean, lab)
	}
	_ = os.Remove(filepath.Dir(machine.Dir(p.Home, lab, provider))) // only if it is empty
	return nil, errors.Join(err, left)
}

// claimFile is where the id of a lab is written down before anything of it is made in Docker.
func claimFile(home, lab string) string {
	return filepath.Join(machine.Dir(home, lab, provider), "claim.json")
}

// take takes the name of the node's lab, or returns a *cluster.TakenError.
func (n node) take(ctx context.Context) error {
	name := networkName(n.Lab)
	if _, err := docker(ctx, slices.Concat([]string{"volume", "create"}, labelFlags(n.Lab, n.ID), []string{name})...); err != nil {
		return fmt.Errorf("taking the lab's name in Docker: %w", err)
	}
	found, err := inspect[struct{ Labels map[string]string }](ctx, "volume", name)
	if err != nil {
		return fmt.Errorf("taking the lab's name in Docker: %w", err)
	}
	taken := &cluster.TakenError{Lab: n.Lab, Where: "in this Docker"}
	for _, v := range found {
		if !n.owns(v.Labels) {
			taken.Seen = fmt.Sprintf("the volume %s, which holds the name, is not this lab's (if its home is gone: `docker volume rm %[1]s`)", name)
			return taken
		}
	}
	// Labs that an earlier version has made have no volume.
	for _, t := range []things{containers, networks} {
		all, err := t.ids(ctx, filters(n.Lab, "")...)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			taken.Seen = fmt.Sprintf("Docker has it (`docker %s` shows %s)", t.list, all[0])
			if _, err := docker(ctx, "volume", "rm", name); err != nil {
				return err
			}
			return taken
		}
	}
	return nil
}

// Create implements cluster.Provider. Clusters of one lab may be created side by side.
func (p *Provider) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	if err := machine.CheckIndex(spec); err != nil {
		return nil, err
	}
	if c, err := p.open(spec.Lab, spec.Name); err == nil && c.Alive(ctx) == nil {
		return c, nil
	}
	tell := p.Milestones(spec.Name)
	err := p.makeOrSweep(ctx, spec, func(ctx context.Context, n node) error {
		tell("node image")
		return p.make(ctx, n, tell)
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

// Prepared is a node that is about to be made.
type Prepared struct {
	Name      string // kind's name of the cluster
	Container string // Docker's name of the node
	Dir       string // the folder of the node's files, which is empty
	Image     string // its node image: containers made from it carry the lab's labels
	Network   string // its lab's Docker network
	Pods      netip.Prefix
	CNI       string // a file that tells containerd how to give pods addresses; see CNIFile
}

// CreateBy creates a cluster in another way than kind's library does, to compare it with others: do makes it. If do fails,
// nothing of the cluster is left. Delete removes it as any other, but Open does not know it.
func (p *Provider) CreateBy(ctx context.Context, spec cluster.Spec, do func(context.Context, Prepared) error) error {
	return p.makeOrSweep(ctx, spec, func(ctx context.Context, n node) error {
		if err := os.MkdirAll(n.Dir, 0o700); err != nil {
			return err
		}
		return do(ctx, Prepared{
			Name: n.kindName(), Container: n.container(), Dir: n.Dir, Image: n.imageName(), Network: networkName(n.Lab),
			Pods: n.Addresses().Pods(n.Index), CNI: n.CNIConfig(),
		})
	})
}

// makeOrSweep makes a node on its lab's network. If that fails, nothing of the node is left.
func (p *Provider) makeOrSweep(ctx context.Context, spec cluster.Spec, do func(context.Context, node) error) error {
	n, err := p.plan(ctx, spec)
	if err != nil {
		return err
	}
	if err := p.sweepNode(ctx, n); err != nil { // left behind by a crash
		return err
	}
	err = func() error {
		image, err := p.NodeImage(ctx)
		if err != nil {
			return err
		}
		if err := label(ctx, n, image); err != nil {
			return err
		}
		if err := do(ctx, n); err != nil {
			return err
		}
		return os.WriteFile(n.path(finished), nil, 0o644)
	}()
	if err != nil {
		clean, cancel := wait.Timeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return errors.Join(fmt.Errorf("making %s: %w", spec.Name, err), p.sweepNode(clean, n))
	}
	return nil
}

// plan plans the lab's network, if that has not been done yet, and makes it.
func (p *Provider) plan(ctx context.Context, spec cluster.Spec) (node, error) {
	n := node{
		Place: machine.Place{Spec: spec}, Dir: Dir(p.Home, spec.Lab, spec.Name),
		ID: p.ID, Image: p.Settings.Image, Egress: p.Settings.Egress,
	}
	if err := notOthers(ctx, n); err != nil {
		return n, err
	}
	unlock, err := machine.LockRanges(ctx, p.Home)
	if err != nil {
		return n, err
	}
	defer unlock()
	refused := map[netip.Prefix]bool{}
	byDocker := func(r netip.Prefix) (string, error) {
		if refused[r] {
			return "a Docker network", nil
		}
		return rangeTaken(ctx, r)
	}
	for {
		net, err := machine.Plan(p.Home, spec.Lab, p.ID, provider, p.Settings.Range, byDocker)
		if err != nil {
			return n, err
		}
		n.Range = net.Range
		err = makeNetwork(ctx, n)
		if p.Settings.Range != "" || !errors.Is(err, errOverlaps) {
			return n, err
		}
		// Somebody whose networks this Docker has as well was quicker.
		refused[n.Range] = true
		if err := machine.ForgetNetwork(p.Home, spec.Lab, provider); err != nil {
			return n, err
		}
	}
}

// owns reports whether labels are those of the node's lab.
func (n node) owns(labels map[string]string) bool {
	return labels[cluster.ManagedByLabel] == cluster.ManagedBy && labels[cluster.LabLabel] == n.Lab && labels[cluster.IDLabel] == n.ID
}

// notOthers returns an error if Docker has a container with the node's name that is not the lab's.
func notOthers(ctx context.Context, n node) error {
	ids, err := containers.ids(ctx, "--filter", "name=^"+n.container()+"$")
	if err != nil || len(ids) == 0 {
		return err
	}
	found, err := inspect[container](ctx, "container", ids...)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range found {
		if !n.owns(c.Config.Labels) {
			return fmt.Errorf("there is a kind cluster %s that is not this lab's (container %s): "+
				"choose another --name; eastwest leaves it alone", n.kindName(), n.container())
		}
	}
	return nil
}

var errOverlaps = errors.New("taken by a Docker network")

// makeNetwork makes the lab's Docker network, or finds it.
func makeNetwork(ctx context.Context, n node) error {
	name, a := networkName(n.Lab), n.Addresses()
	ids, err := networks.ids(ctx, "--filter", "name=^"+name+"$")
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		found, err := inspect[network](ctx, "network", ids...)
		if err != nil {
			return err
		}
		for _, net := range found {
			if !n.owns(net.Labels) {
				return fmt.Errorf("there is a Docker network %s that is not this lab's: "+
					"choose another --name, or remove it with `docker network rm %[1]s`", name)
			}
		}
		return nil
	}
	_, err = docker(ctx, slices.Concat([]string{
		"network", "create", "--driver", "bridge", "--subnet", a.Bridge().Masked().String(), "--gateway", a.Bridge().Addr().String(),
		"--ip-range", a.Assigned().String(),
	}, labelFlags(n.Lab, n.ID), []string{name})...)
	if err != nil && strings.Contains(err.Error(), "overlaps") {
		return fmt.Errorf("the range %s is %w: choose another with --range: %w", n.Range, errOverlaps, err)
	}
	return err
}

// make is the story of a node.
func (p *Provider) make(ctx context.Context, n node, tell func(milestone string)) error {
	mounts, err := n.write()
	if err != nil {
		return err
	}
	log := &watcher{tell: tell}
	kinds := newKinds(log)
	if err := create(ctx, kinds, log, n, mounts); err != nil {
		return err
	}
	if n.Address, err = address(ctx, n); err != nil {
		return err
	}
	if err := writeKubeconfig(ctx, kinds, n); err != nil {
		return err
	}
	if !p.Settings.Images.Published() {
		if err := p.loadImages(ctx, kinds, n); err != nil {
			return err
		}
	}
	tell("api")
	return machine.WriteJSON(n.path(nodeFile), n) // now with its address, so that it can be opened
}

// newKinds returns kind's library on Docker.
func newKinds(log *watcher) *kind.Provider {
	return kind.NewProvider(kind.ProviderWithDocker(), kind.ProviderWithLogger(log))
}

// NodeImage returns the name of the node image. If Docker does not have it, NodeImage loads or pulls it. It stays there.
func (p *Provider) NodeImage(ctx context.Context) (string, error) {
	image, archive := p.Settings.Image, ""
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
	if _, err := inspect[struct{}](ctx, "image", image); err == nil {
		return image, nil
	}
	if archive != "" {
		_, err := docker(ctx, "load", "--input", archive)
		return image, err
	}
	if _, err := docker(ctx, "pull", "--quiet", image); err != nil {
		return "", fmt.Errorf("getting the node image %s: %w: `eastwest bundle build --with kind` makes one that needs no registry, "+
			"--kind-image names another", image, err)
	}
	return image, nil
}

// label makes the node's own image: a copy of the node image with labels, which its containers inherit.
func label(ctx context.Context, n node, image string) error {
	id, err := docker(ctx, append(append([]string{"create"}, labelFlags(n.Lab, n.ID)...), image)...)
	if err != nil {
		return err
	}
	_, err = docker(ctx, "commit", id, n.imageName())
	_, problem := docker(context.WithoutCancel(ctx), "rm", "--force", "--volumes", id)
	if err := errors.Join(err, problem); err != nil {
		return fmt.Errorf("giving the node image the lab's labels: %w", err)
	}
	return nil
}

// NetworkEnv is the environment variable that names the Docker network. kind has no other setting for it.
const NetworkEnv = "KIND_EXPERIMENTAL_DOCKER_NETWORK"

// turn holds a value while a goroutine may set NetworkEnv: the whole process has one environment.
var turn = make(chan struct{}, 1)

// create makes the cluster with kind's library, which takes no context: when ctx ends, create removes the node again and
// again until kind gives up.
func create(ctx context.Context, kinds *kind.Provider, log *watcher, n node, mounts []v1alpha4.Mount) error {
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	log.onceStarted(func() { <-turn })
	if err := os.Setenv(NetworkEnv, networkName(n.Lab)); err != nil {
		log.started()
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer log.started()
		done <- kinds.Create(n.kindName(),
			kind.CreateWithV1Alpha4Config(n.config(mounts)), kind.CreateWithKubeconfigPath(n.path("kind.kubeconfig")))
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

// explain adds the output of the command that kind ran to an error, and what to do if that is known.
func explain(err error) error {
	command := kindexec.RunErrorForError(err)
	if command == nil {
		return err
	}
	return WithOutput(err, string(command.Output))
}

// WithOutput adds the end of the output of kind to an error, and what to do if that is known.
func WithOutput(err error, output string) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	said := strings.Join(lines[max(0, len(lines)-12):], "\n")
	if strings.Contains(said, "unable to apply caps") {
		return fmt.Errorf("this machine does not let Docker give containers all capabilities: "+
			"start it with scripts/docker-up, which asks only for those that exist here: %w: %s", err, said)
	}
	return fmt.Errorf("%w: %s", err, said)
}

// address returns the node's address on the lab's network.
func address(ctx context.Context, n node) (netip.Addr, error) {
	c, err := inspectContainer(ctx, n.container())
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(c.NetworkSettings.Networks[networkName(n.Lab)].IPAddress)
	if err != nil {
		return addr, fmt.Errorf("asking Docker for the address of %s: %w", n.container(), err)
	}
	return addr, nil
}

// writeKubeconfig writes the administrator's kubeconfig, whose context, cluster and user are named after the cluster. Other
// clusters reach the address in it as well, so a remote secret that istioctl makes of it works.
func writeKubeconfig(ctx context.Context, kinds *kind.Provider, n node) error {
	text, err := kinds.KubeConfig(n.kindName(), false)
	if err != nil {
		return explain(err)
	}
	original, err := clientcmd.Load([]byte(text))
	if err != nil {
		return fmt.Errorf("reading the kubeconfig of %s: %w", n.kindName(), err)
	}
	current := original.Contexts[original.CurrentContext]
	if current == nil || original.Clusters[current.Cluster] == nil || original.AuthInfos[current.AuthInfo] == nil {
		return fmt.Errorf("the kubeconfig of %s has no context %q", n.kindName(), original.CurrentContext)
	}
	c := api.NewConfig()
	c.Clusters[n.Name], c.AuthInfos[n.Name+"-admin"] = original.Clusters[current.Cluster], original.AuthInfos[current.AuthInfo]
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

// loadImages loads those images of the mesh into the node that its node image lacks.
func (p *Provider) loadImages(ctx context.Context, kinds *kind.Provider, n node) error {
	has, err := docker(ctx, "exec", n.container(), "ctr", "--namespace=k8s.io", "images", "ls", "--quiet")
	if err != nil {
		return fmt.Errorf("listing the images of the node: %w", err)
	}
	to, err := kindNode(kinds, n)
	if err != nil {
		return err
	}
	for _, image := range slices.Concat(p.Bundle.Images(), p.Images) {
		if !strings.HasPrefix(image.Ref, bundle.Hub+"/") || strings.Contains("\n"+has+"\n", "\n"+image.Ref+"\n") {
			continue
		}
		if err := loadImage(to, image.Archive); err != nil {
			return err
		}
	}
	return nil
}

// kindNode returns the node as kind's library knows it.
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

// loadImage loads the images of an archive into a node.
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

// removeContainer removes the node's container, if there is one with the lab's labels. Others may have one of that name.
func (n node) removeContainer(ctx context.Context) error {
	return n.remove(ctx, containers, "name=^"+n.container()+"$")
}

// remove removes the things that match a filter and have the lab's labels.
func (n node) remove(ctx context.Context, t things, filter string) error {
	ours, err := t.ids(ctx, append(filters(n.Lab, n.ID), "--filter", filter)...)
	if err != nil || len(ours) == 0 {
		return err
	}
	_, err = docker(ctx, append(strings.Fields(t.remove), ours...)...)
	if gone(err) { // somebody else was quicker
		return nil
	}
	return err
}

// gone reports whether Docker has answered that a thing does not exist.
func gone(err error) bool { return err != nil && strings.Contains(err.Error(), "No such ") }

// sweepNode removes everything of one node.
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
	if err := Available(ctx).Err(); err != nil {
		return err
	}
	dir := machine.Dir(p.Home, lab, provider)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // our labs are written down before they are made; one of that name in Docker is another home's
	}
	ids, err := p.ids(lab)
	if err != nil {
		return err
	}
	commands, looks, err := p.unfinished(lab)
	if err != nil {
		return err
	}
	commands = append(commands, networkName(lab)) // and that of the volume
	bounds := wait.Options{Within: time.Minute, Every: 200 * time.Millisecond, InARow: looks}
	err = wait.Until(ctx, "everything of lab "+lab+" to be gone from Docker", bounds, func(ctx context.Context) error {
		left, err := leftovers(ctx, lab, ids...)
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
		if pids := host.Commands("docker", commands...); len(pids) > 0 {
			problems = append(problems, fmt.Errorf("commands that make its nodes still run (processes %v)", pids))
		}
		return errors.Join(problems...)
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// ids returns the ids that the lab's things in Docker may have: that of its claim, and that of its network.
func (p *Provider) ids(lab string) (ids []string, err error) {
	var claim machine.Network
	for _, read := range []func() (machine.Network, error){
		func() (machine.Network, error) { return claim, machine.ReadJSON(claimFile(p.Home, lab), &claim) },
		func() (machine.Network, error) { return machine.ReadNetwork(p.Home, lab, provider) },
	} {
		switch n, err := read(); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !slices.Contains(ids, n.ID):
			ids = append(ids, n.ID)
		}
	}
	return ids, nil
}

// unfinished returns the names of the lab's containers that a killed process was making, and how often in a row nothing of
// the lab must be found before it is gone. The docker command that makes a container goes on when the process that started
// it is killed. If the command is killed as well, Docker may still be making a container that its lists do not show yet.
func (p *Provider) unfinished(lab string) (containers []string, looks int, err error) {
	folders, err := os.ReadDir(machine.Dir(p.Home, lab, provider))
	if err != nil {
		return nil, 0, err
	}
	done := false
	looks = 15 // the command that makes the volume goes on, too
	for _, folder := range folders {
		name := folder.Name()
		if !folder.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(Dir(p.Home, lab, name), finished)); err != nil {
			containers = append(containers, node{Place: machine.Place{Spec: cluster.Spec{Lab: lab, Name: name}}}.container())
			continue
		}
		done = true
	}
	if done && len(containers) == 0 {
		looks = 1
	}
	return containers, looks, nil
}

// Open implements cluster.Provider.
func (p *Provider) Open(lab, name string) (cluster.Cluster, error) {
	return cluster.Opened(p.open(lab, name))
}

func (p *Provider) open(lab, name string) (*Node, error) {
	var n node
	if err := machine.ReadJSON(filepath.Join(Dir(p.Home, lab, name), nodeFile), &n); err != nil {
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
