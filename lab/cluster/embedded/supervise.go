package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"k8s.io/client-go/kubernetes"
)

// Environment variables of a supervisor.
const (
	supervisorEnv = "EASTWEST_NODE"       // path of the node file
	stageEnv      = "EASTWEST_NODE_STAGE" // empty in the first life of the process, see firstLife
	prepareStage  = "prepare"             // not a node: unpack the bundle's images and exit
	seedStage     = "seed"                // not a node: make a seed and exit
)

// Files that a supervisor inherits.
const (
	goFD   = 3 // one byte arrives when the link is there; end of file means that the parent has died
	tellFD = 4 // takes milestones as JSON lines; closed when the node is usable
	// claimFD holds the claim of the lab's name until the process is in the lab's cgroup: if the parent was killed, whoever
	// claims the name next has to find it there. It is closed already where there was no claim.
	claimFD = 5
)

// milestone is one line that a supervisor writes for its parent while it starts.
type milestone struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // since the supervisor was started
	Error   string  `json:"error,omitempty"`
}

// Supervise does nothing unless this process was started as the supervisor of a node. Then it runs the node and never
// returns. Programs that make embedded clusters call it before anything else.
func Supervise() {
	file := os.Getenv(supervisorEnv)
	if file == "" {
		return
	}
	tell := os.NewFile(tellFD, "tell")
	if err := supervise(file, tell); err != nil {
		_ = json.NewEncoder(tell).Encode(milestone{Name: "failed", Error: err.Error()})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func supervise(file string, tell *os.File) error {
	var n node
	if err := machine.ReadJSON(file, &n); err != nil {
		return err
	}
	if os.Getenv(stageEnv) == "" {
		return n.firstLife(file)
	}
	if err := wait.Measure(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	files, err := n.files()
	if err != nil {
		return err
	}
	root := host.Root{
		Dir: n.path("root"), ReadOnly: append([]string{n.Bundle}, n.archiveFolders()...),
		Writable: map[string]string{"/var": n.path("var"), n.Dir: n.Dir},
		Files:    files,
		Masks: map[string]string{ // kubelet: pkg/kubelet/cm setupKernelTunables
			"/proc/sys/vm/overcommit_memory": "1", "/proc/sys/vm/panic_on_oom": "0",
			"/proc/sys/kernel/panic": "10", "/proc/sys/kernel/panic_on_oops": "1",
			"/proc/sys/kernel/keys/root_maxkeys": "1000000", "/proc/sys/kernel/keys/root_maxbytes": "25000000",
		},
	}
	if err := root.Enter(); err != nil {
		return fmt.Errorf("building the node's root: %w", err)
	}
	if err := unix.Sethostname([]byte(n.hostName())); err != nil {
		return fmt.Errorf("naming the node: %w", err)
	}
	init, err := host.NewInit(n.path("logs"))
	if err != nil {
		return err
	}
	go init.Reap(ctx, sigchld)
	s := &supervisor{node: n, init: init, begin: time.Now(), tell: tell}
	s.control = machine.Server{
		Place: n.Place, Dir: n.Dir, Processes: init.States, Signal: init.Signal, NFT: s.nft,
		PodProcesses: host.PodProcesses, SignalProcess: unix.Kill,
	}
	switch os.Getenv(stageEnv) {
	case prepareStage:
		return s.prepare(ctx)
	case seedStage:
		return s.makeSeed(ctx)
	default:
		return s.run(ctx)
	}
}

// firstLife joins the node's cgroup and a new cgroup namespace, and then executes this program again. A cgroup
// namespace belongs to a thread; only executing puts the whole process into it.
func (n node) firstLife(file string) error {
	if _, err := os.NewFile(goFD, "go").Read(make([]byte, 1)); err != nil {
		return errors.New("the process that started this node has died")
	}
	if err := host.JoinCgroup(nodeCgroup(n.Lab, n.Name)); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("making a cgroup namespace: %w", err)
	}
	unix.CloseOnExec(goFD)
	unix.CloseOnExec(claimFD)
	stage := "node"
	switch filepath.Base(file) {
	case prepareFile:
		stage = prepareStage
	case seedNodeFile:
		stage = seedStage
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), stageEnv+"="+stage))
}

// supervisor runs a node, from inside.
type supervisor struct {
	node
	init    *host.Init
	control machine.Server
	begin   time.Time
	tell    *os.File
}

func (s *supervisor) milestone(name string) {
	if s.tell != nil {
		_ = json.NewEncoder(s.tell).Encode(milestone{Name: name, Seconds: time.Since(s.begin).Seconds()})
	}
}

// run is the story of a node.
func (s *supervisor) run(ctx context.Context) error {
	if err := s.setUpNetwork(ctx); err != nil {
		return fmt.Errorf("setting up the node's network: %w", err)
	}
	unix.CloseOnExec(tellFD)
	for _, name := range []string{etcd, apiServer, containerd} {
		if err := s.init.Keep(ctx, s.command(name)); err != nil {
			return err
		}
	}
	if err := s.control.Serve(ctx); err != nil {
		return err
	}
	if err := s.plant(ctx); err != nil {
		return fmt.Errorf("putting prepared objects into etcd: %w", err)
	}
	config, err := machine.Config(s.path("pki", "admin.conf"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no client-side limit
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := machine.APIAnswers(ctx, config); err != nil {
		return err
	}
	s.milestone("api")
	for _, name := range []string{kubeletName, controllerManager, scheduler, kubeProxy} {
		if err := s.init.Keep(ctx, s.command(name)); err != nil {
			return err
		}
	}
	go s.LoadBalancers(ctx, api)
	if err := s.becomeUsable(ctx, api); err != nil {
		return err
	}
	s.milestone(cluster.Usable)
	s.tell.Close()
	<-ctx.Done()
	return nil
}

// setUpNetwork gives the node its address, but no way out: there is no default route, and what kube-proxy's rules do
// not catch is rejected.
func (s *supervisor) setUpNetwork(ctx context.Context) error {
	a := s.Addresses()
	if err := host.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := host.SetUp("lo", netip.Prefix{}); err != nil {
		return err
	}
	if err := host.SetUp("eth0", a.Node(s.Index)); err != nil {
		return err
	}
	// A packet to a Service is rewritten only after the kernel has found a route for it, so the range of Services needs
	// some route. Where it leads does not matter: see machine.Rules.
	if err := host.LinkRoute("eth0", a.Services(s.Index)); err != nil {
		return err
	}
	if s.Egress {
		if err := host.Route("eth0", netip.Prefix{}, a.Bridge().Addr()); err != nil {
			return err
		}
	}
	for _, k := range s.Neighbors {
		if err := host.Route("eth0", a.Pods(k), a.Node(k).Addr()); err != nil {
			return err
		}
	}
	return s.control.Apply(ctx)
}

// nft loads rules into the node's network namespace.
func (s *supervisor) nft(ctx context.Context, rules string) error {
	path, err := exec.LookPath("nft")
	if err != nil {
		return err
	}
	return s.init.Run(ctx, host.Command{Name: "nft", Path: path, Args: []string{"-f"}}, rules)
}

// becomeUsable applies what every cluster has, and waits until pods can be made and names resolve.
func (s *supervisor) becomeUsable(ctx context.Context, api kubernetes.Interface) error {
	ctx, cancel := wait.Timeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.applyCoreDNS(ctx, api); err != nil {
		return fmt.Errorf("applying CoreDNS: %w", err)
	}
	return s.Usable(ctx, api, s.hostName(), s.milestone)
}
