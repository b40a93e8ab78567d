package kind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// agentEnv names the node file for the part of eastwest inside the node.
const agentEnv = "EASTWEST_KIND_NODE"

// components are the processes of a node that can be stopped and killed. If they end, the kubelet starts those of the
// control plane and kube-proxy again, and systemd the others.
var components = []string{
	"containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet",
}

// units are the components that systemd starts, controlPlane those that the kubelet starts from kubeadm's manifests.
var (
	units        = []string{"containerd", "kubelet"}
	controlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
)

// adminConf is the path of the administrator's kubeconfig, which kubeadm writes.
const adminConf = "/etc/kubernetes/admin.conf"

// Supervise turns this process into the part of eastwest inside a node if it was started as that, and then never returns.
// Programs that create kind clusters call it before anything else.
func Supervise() {
	file := os.Getenv(agentEnv)
	if file == "" {
		return
	}
	if err := serve(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// agent is the part of eastwest inside a node.
type agent struct {
	node
	mu      sync.Mutex
	usable  bool
	problem string
}

func serve(file string) error {
	a := &agent{}
	if err := machine.ReadJSON(file, &a.node); err != nil {
		return err
	}
	if err := wait.Measure(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := a.setUpNetwork(ctx); err != nil {
		return fmt.Errorf("setting up the node's network: %w", err)
	}
	server := &machine.Server{
		Place: a.Place, Dir: inside, Signal: send, SocketMode: 0o666, // not for root alone: the user's folder keeps others out
		Processes: func() []host.ProcessState { return host.Processes(components) },
		NFT:       host.NFT,
		Complete:  a.complete,

		PodProcesses: host.PodProcesses, SignalProcess: unix.Kill,
	}
	if err := server.Apply(ctx); err != nil {
		return err
	}
	if err := server.Serve(ctx); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	if err := a.follow(ctx); err != nil {
		a.mu.Lock()
		a.problem = err.Error()
		a.mu.Unlock()
		fmt.Fprintln(os.Stderr, err)
	}
	<-ctx.Done()
	return nil
}

// setUpNetwork gives the node its routes: to the range of Services, so that packets to a Service that does not exist reach
// the rules against them (see machine.Rules), and to the pods of other clusters on the network. A sealed node has no other
// routes.
func (a *agent) setUpNetwork(ctx context.Context) error {
	plan := a.Addresses()
	if err := host.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := host.LinkRoute(machine.Link, plan.Services(a.Index)); err != nil {
		return err
	}
	if err := host.AddAddress(machine.Link, plan.Gateway(a.Index)); err != nil {
		return err
	}
	for _, k := range a.Neighbors {
		if err := host.Route(machine.Link, plan.Pods(k), plan.Gateway(k)); err != nil {
			return err
		}
	}
	if a.Egress {
		return nil
	}
	// With its default limit, the kernel would refuse only one DNS query a second (icmp(7)).
	return errors.Join(host.Seal(), host.Sysctl("net/ipv4/icmp_ratelimit", "0"), host.NFT(ctx, a.sealedDNS()))
}

// sealedDNS returns rules that refuse the DNS queries of CoreDNS and containerd to the name server that kind gives a node,
// which is Docker's. It would resolve names of the internet or take seconds to fail, and proxies that start and pods with
// a wrong image wait for its answer.
func (n node) sealedDNS() string {
	return fmt.Sprintf(`table ip eastwest-sealed {}
delete table ip eastwest-sealed
table ip eastwest-sealed {
	chain dns {
		type filter hook prerouting priority dstnat - 10;
		ip daddr %[1]s udp dport 53 reject with icmp port-unreachable
		ip daddr %[1]s tcp dport 53 reject with tcp reset
	}
	chain own {
		type filter hook output priority -110; # before Docker's rules, which redirect them
		ip daddr %[1]s udp dport 53 reject with icmp port-unreachable
		ip daddr %[1]s tcp dport 53 reject with tcp reset
	}
}
`, n.Addresses().Bridge().Addr())
}

// follow waits for Kubernetes, starts LoadBalancers, which run until ctx ends, and returns when the node is usable.
func (a *agent) follow(ctx context.Context) error {
	var api kubernetes.Interface
	bounds := wait.Options{Within: 10 * time.Minute, Every: 250 * time.Millisecond}
	err := wait.Until(ctx, "kubeadm to make the API server", bounds, func(ctx context.Context) error {
		config, err := machine.Config(adminConf)
		if err != nil {
			return err
		}
		config.QPS = -1 // no limit: nobody else uses this API server
		if api, err = kubernetes.NewForConfig(config); err != nil {
			return err
		}
		return api.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	go a.LoadBalancers(ctx, api)
	if err := a.Usable(ctx, api, a.container(), func(string) {}); err != nil {
		return err
	}
	a.mu.Lock()
	a.usable = true
	a.mu.Unlock()
	return nil
}

// complete fills in the fields of the status that only nodes of kind have.
func (a *agent) complete(s *machine.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Usable, s.Problem = a.usable, a.problem
	if usage, err := host.Usage(""); err == nil { // in a cgroup namespace that is the node
		s.Usage = &usage
	}
}

func send(component string, sig syscall.Signal) error {
	if !slices.Contains(components, component) {
		return fmt.Errorf("no component %q: there are %v", component, components)
	}
	for _, p := range host.Processes([]string{component}) {
		if p.PID != 0 {
			return unix.Kill(p.PID, sig)
		}
	}
	return fmt.Errorf("%s does not run at this moment", component)
}

// ready tells systemd to start the units that wait for this service (sd_notify(3)).
func ready() error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	if name, abstract := strings.CutPrefix(socket, "@"); abstract {
		socket = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling systemd that the rules are there: %w", err)
	}
	_, err = conn.Write([]byte("READY=1"))
	return err
}

// apiServer returns the URL of the node's API server on the lab's network.
func (n node) apiServer() string {
	return "https://" + netip.AddrPortFrom(n.Address, machine.APIPort).String()
}
