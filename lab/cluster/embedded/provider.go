package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Provider makes embedded clusters. It keeps prepared images beside the labs in their home.
type Provider struct {
	cluster.Lab
	Settings Settings

	claim *host.Lock // of the lab's name; nil if it was not claimed
}

var (
	_ cluster.Seeder  = (*Provider)(nil)
	_ cluster.Claimer = (*Provider)(nil)
)

// Seeds implements cluster.Seeder.
func (p *Provider) Seeds() {}

// What a lab of two clusters needs. Check fails if there is less.
const (
	neededMiB     = 1024 // free on the disk
	neededInotify = 60   // inotify instances; a node with a mesh has been seen to use 27
)

// FreeBytes returns the free space, in bytes, of the disk that labs are on.
func (p *Provider) FreeBytes(context.Context) (uint64, error) { return host.FreeBytes(p.Home) }

// Kubernetes returns the version of the nodes that Create makes.
func (p *Provider) Kubernetes() string { return p.Bundle.Versions()["kubernetes"] }

// Check implements cluster.Provider.
func (p *Provider) Check(ctx context.Context) error {
	if err := host.Check(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.Home, 0o755); err != nil {
		return fmt.Errorf("making the folder of labs: %w", err)
	}
	free, err := p.FreeBytes(ctx)
	if err != nil {
		return err
	}
	if free>>20 < neededMiB {
		return fmt.Errorf("the disk is full: %s has %d MiB free, a lab needs %d MiB: make room, or set EASTWEST_HOME to another disk",
			p.Home, free>>20, neededMiB)
	}
	if p.Settings.Egress && !host.Forwards() {
		return errors.New("this machine does not forward packets, so no lab can have a way out: " +
			"run `sysctl -w net.ipv4.ip_forward=1`, or leave --egress out")
	}
	instances, limit, err := host.FreeInotify()
	if err != nil {
		return err
	}
	if instances < neededInotify {
		return fmt.Errorf("only %d of %d inotify instances are free, a lab needs %d: "+
			"remove a lab, or run `sysctl -w fs.inotify.max_user_instances=%d`", instances, limit, neededInotify, max(1024, 2*limit))
	}
	return nil
}

// Claim implements cluster.Claimer. A lock holds the name while a lab is made or removed, and the lab's processes hold it as
// long as they run.
func (p *Provider) Claim(ctx context.Context, lab string) (release func(), err error) {
	claim, err := machine.ClaimName(ctx, p.Home, lab, false)
	if err != nil {
		return nil, err
	}
	if err := p.foreign(lab); err != nil {
		claim.Release()
		return nil, err
	}
	p.claim = claim
	release = func() {
		p.claim = nil
		claim.Release()
	}
	if err := p.Delete(ctx, lab); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// Create implements cluster.Provider. Clusters of one lab may be created at the same time.
func (p *Provider) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	if err := machine.CheckIndex(spec); err != nil {
		return nil, err
	}
	if c, err := p.open(spec.Lab, spec.Name); err == nil && c.Alive(ctx) == nil {
		return c, nil
	}
	n, net, err := p.plan(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := p.sweepNode(ctx, spec.Lab, spec.Name); err != nil { // what a crash may have left
		return nil, err
	}
	if err := p.fill(ctx, n); err != nil {
		return nil, err
	}
	usable, err := p.start(ctx, n, net)
	if err != nil {
		sweep, cancel := wait.Timeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("starting %s: %w", spec.Name, err), p.stopNode(sweep, spec.Lab, spec.Name))
	}
	c, err := p.open(spec.Lab, spec.Name)
	if err != nil {
		return nil, err
	}
	c.usable = usable
	return c, nil
}

// plan chooses the lab's network, unless that has been done, writes it down and makes it.
func (p *Provider) plan(ctx context.Context, spec cluster.Spec) (node, network, error) {
	unlock, err := machine.LockRanges(ctx, p.Home)
	if err != nil {
		return node{}, network{}, err
	}
	defer unlock()
	nobody := func(netip.Prefix) (string, error) { return "", nil }
	planned, err := machine.Plan(p.Home, spec.Lab, "", provider, p.Settings.Range, nobody)
	if err != nil {
		return node{}, network{}, err
	}
	net := network{planned}
	if err := host.Bridge(net.bridge(), net.alias(), net.addresses().Bridge()); err != nil {
		return node{}, network{}, err
	}
	if err := host.NFT(ctx, hostRules(net, p.Settings.Egress)); err != nil {
		return node{}, network{}, err
	}
	return p.newNode(spec, net), net, nil
}

func (p *Provider) newNode(spec cluster.Spec, net network) node {
	n := node{
		Place: machine.Place{Spec: spec, Range: net.Range}, Dir: p.nodeDir(spec.Lab, spec.Name),
		Bin: p.Bundle.BinDir(), CNI: p.Bundle.CNIDir(), Bundle: p.Bundle.Dir(),
		Restrict: !host.CanLowerOOMScore(), Egress: p.Settings.Egress,
	}
	for _, image := range p.Bundle.Images() {
		switch {
		case strings.Contains(image.Ref, "/pause:"):
			n.Pause = image.Ref
		case strings.Contains(image.Ref, "/coredns:"):
			n.CoreDNS = image.Ref
		}
	}
	return n
}

// fill makes the node's folder: certificates, kubeconfigs and a copy of the prepared images.
func (p *Provider) fill(ctx context.Context, n node) error {
	prepared, err := p.Prepare(ctx)
	if err != nil {
		return fmt.Errorf("preparing images: %w", err)
	}
	if err := os.MkdirAll(n.path("var", "lib"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(n.path("root"), 0o755); err != nil {
		return err
	}
	if err := makeCertificates(n); err != nil {
		return fmt.Errorf("making certificates of %s: %w", n.Name, err)
	}
	if err := linkTree(prepared, n.path("var", "lib", "containerd")); err != nil {
		return fmt.Errorf("sharing prepared images with %s: %w", n.Name, err)
	}
	if err := p.shareSeed(ctx, n); err != nil {
		return err
	}
	return machine.WriteJSON(n.path(nodeFile), n)
}

const (
	nodeFile    = "node.json"
	prepareFile = "prepare.json"
)

// start starts the supervisor and waits until the API answers. The channel gets one value when the node is usable, or
// cannot become so.
func (p *Provider) start(ctx context.Context, n node, net network) (<-chan error, error) {
	return p.supervise(ctx, n, n.path(nodeFile), "api", func(pid int) error {
		return host.VethToProcess(net.bridge(), net.veth(n.Index), net.alias(), pid)
	})
}

// supervise starts this program as the supervisor that the file describes. It calls connect for what only the parent
// can give to the supervisor, and waits for the milestone until. The channel gets one value when the node is usable, or
// cannot become so. If ctx ends before that, the supervisor is killed.
func (p *Provider) supervise(ctx context.Context, n node, file, until string, connect func(pid int) error) (<-chan error, error) {
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer goWrite.Close()
	tellRead, tellWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, goRead.Close())
	}
	log, err := os.OpenFile(n.path("supervisor.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, errors.Join(err, goRead.Close(), tellRead.Close(), tellWrite.Close())
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"eastwest-node", n.Lab, n.Name} // what ps shows
	cmd.Env = []string{supervisorEnv + "=" + file, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOGC=50"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{goRead, tellWrite}
	if p.claim != nil { // until the process is in the lab's cgroup, where others see it
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.claim.File())
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // so that Ctrl-C at the terminal reaches this process only
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	err = cmd.Start()
	goRead.Close()
	tellWrite.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the supervisor: %w", err), tellRead.Close())
	}
	go func() { _ = cmd.Wait() }() // reap it if it ends before this process
	reached, usable := make(chan struct{}), make(chan error, 1)
	go func() {
		defer tellRead.Close()
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		err := p.follow(ctx, n, tellRead, until, reached)
		// First stop watching ctx: whoever waits for the node may cancel ctx as soon as it is usable.
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		usable <- err
	}()
	if err := connect(cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	if _, err := goWrite.Write([]byte{1}); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	select {
	case <-reached:
		return usable, nil
	case err := <-usable:
		usable <- err // for Usable
		return usable, err
	}
}

// follow reads a supervisor's milestones until the node is usable, or cannot become so.
func (p *Provider) follow(ctx context.Context, n node, tells io.Reader, until string, reached chan<- struct{}) error {
	for lines := bufio.NewScanner(tells); lines.Scan(); {
		var m milestone
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		if m.Error != "" {
			return fmt.Errorf("%s (logs: %s)", m.Error, n.path("logs"))
		}
		if p.Progress != nil {
			p.Progress(n.Name, m.Name, time.Duration(m.Seconds*float64(time.Second)))
		}
		switch m.Name {
		case cluster.Usable:
			return nil
		case until:
			close(reached)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("the supervisor ended before the node was usable; its last line of output: %s (logs: %s)",
		lastLine(n.path("supervisor.log")), n.path("logs"))
}

// lastLine returns the last line of a log, or "none".
func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil || len(data) == 0 {
		return "none"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// Delete implements cluster.Provider. If the lab of that name on this machine is another home's, only this home's files go:
// a lab of this home has ended before the other one could be made.
func (p *Provider) Delete(ctx context.Context, lab string) error {
	if p.claim == nil {
		claim, err := machine.ClaimName(ctx, p.Home, lab, true)
		if err != nil {
			return err
		}
		defer claim.Release()
	}
	unlock, err := machine.Lock(p.Home)
	if err != nil {
		return err
	}
	defer unlock()
	var taken *cluster.TakenError
	if err := p.foreign(lab); errors.As(err, &taken) {
		return os.RemoveAll(p.labDir(lab))
	} else if err != nil {
		return err
	}
	var problems []error
	problems = append(problems, p.stopNode(ctx, lab, ""))
	net := network{machine.Network{Lab: lab}}
	noTable := fmt.Sprintf("table inet %[1]s {}\ndelete table inet %[1]s\n", net.table()) // deleting one that is not there is an error
	problems = append(problems, host.DeleteLinks(net.alias()), host.NFT(ctx, noTable), os.RemoveAll(p.labDir(lab)))
	return errors.Join(problems...)
}

// foreign returns a *cluster.TakenError if a lab of that name runs on this machine that was made with another home. Names of
// cgroups and links are the machine's, and names of labs a home's. The caller has claimed the name.
func (p *Provider) foreign(lab string) error {
	pids, err := host.CgroupProcesses(labCgroup(lab))
	if err != nil || len(pids) == 0 {
		return err
	}
	taken := &cluster.TakenError{Lab: lab, Seen: fmt.Sprintf("it runs (%d processes, %d among them)", len(pids), pids[0])}
	told := false
	for _, pid := range pids {
		file, ok := host.Environment(pid, supervisorEnv)
		home, _, ours := strings.Cut(file, "/"+machine.Dir("", lab, provider)+"/")
		if !ok || !ours {
			continue
		}
		if sameFolder(home, p.Home) {
			return nil
		}
		taken.Home, told = home, true
	}
	if told {
		return taken
	}
	// Its supervisors have ended, and what they ran is about to. Labs of this home are written down before they start.
	if _, err := os.Stat(p.labDir(lab)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return taken
}

// sameFolder reports whether two paths lead to one folder.
func sameFolder(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// sweepNode ends the processes of one node and removes its folder.
func (p *Provider) sweepNode(ctx context.Context, lab, name string) error {
	if err := p.stopNode(ctx, lab, name); err != nil {
		return err
	}
	return os.RemoveAll(p.nodeDir(lab, name))
}

// stopNode kills every process of a node, or of all nodes if name is empty, and removes its cgroups. The cgroup tells
// which processes those are: a process id that was written down could be another process by now.
func (p *Provider) stopNode(ctx context.Context, lab, name string) error {
	cgroup := nodeCgroup(lab, name)
	if name == "" {
		cgroup = labCgroup(lab)
	}
	if err := host.KillCgroup(ctx, cgroup); err != nil {
		return fmt.Errorf("ending the processes of %s: %w", strings.TrimSuffix(lab+"/"+name, "/"), err)
	}
	return host.RemoveCgroup(ctx, cgroup)
}

// Open returns a cluster that has been created, whether it is running or not.
func (p *Provider) Open(lab, name string) (cluster.Cluster, error) {
	return cluster.Opened(p.open(lab, name))
}

func (p *Provider) open(lab, name string) (*Node, error) {
	var n node
	if err := machine.ReadJSON(filepath.Join(p.nodeDir(lab, name), nodeFile), &n); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lab %s has no cluster %s", lab, name)
		}
		return nil, err
	}
	return newCluster(n)
}

// linkTree copies a folder or a file. Files become hard links, except databases (*.db), which are copied because they are
// written to.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			if err := os.Mkdir(target, info.Mode().Perm()); err != nil {
				return err
			}
			if err := os.Chmod(target, info.Mode()); err != nil { // Mkdir drops sticky bits and applies the umask
				return err
			}
			return os.Lchown(target, int(st.Uid), int(st.Gid))
		case strings.HasSuffix(path, ".db"):
			return copyFile(path, target)
		default:
			err := os.Link(path, target)
			if errors.Is(err, syscall.EXDEV) {
				return fmt.Errorf("%s and %s are on different disks: set EASTWEST_HOME to one folder for both", from, to)
			}
			return err
		}
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
