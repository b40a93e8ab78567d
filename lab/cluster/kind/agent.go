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

// agentEnv hands the part inside its node file.
const agentEnv = "EASTWEST_KIND_NODE"

// components are the processes of a node that can be stopped and killed. The kubelet starts those of the control plane
// and kube-proxy again, systemd the others.
var components = []string{"containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"}

// units are those of them that systemd starts, controlPlane those that kubeadm has the kubelet start.
var (
	units        = []string{"containerd", "kubelet"}
	controlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
)

// adminConf is where kubeadm writes the administrator's kubeconfig.
const adminConf = "/etc/kubernetes/admin.conf"

// Supervise turns this process into the part inside a node if it was started as one, and then never returns. Programs
// that create kind clusters call it before anything else.
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

// agent is the node seen from inside.
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
		Place: a.Place, Dir: inside, Signal: send, SocketMode: 0o666, // the user of Docker need not be root; the folder is the user's
		Processes: func() []host.ProcessState { return host.Processes(components) },
		NFT:       host.NFT,
		Complete:  a.complete,
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

// setUpNetwork gives the node its routes: to the Services' range, so that the kernel looks at what no rule has caught
// (see machine.Rules), and to the pods of the clusters on its network. A sealed node has no other.
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
	// Without a limit every question is refused, not one a second (icmp(7)).
	return errors.Join(host.Seal(), host.Sysctl("net/ipv4/icmp_ratelimit", "0"), host.NFT(ctx, a.sealedDNS()))
}

// sealedDNS refuses what CoreDNS and containerd ask the name server that kind gives a node, which is Docker's and knows
// the world, or takes seconds to say nothing: starting proxies and pods with a wrong image wait for the answer.
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
		type filter hook output priority -110; # before Docker's own, which sends them elsewhere
		ip daddr %[1]s udp dport 53 reject with icmp port-unreachable
		ip daddr %[1]s tcp dport 53 reject with tcp reset
	}
}
`, n.Addresses().Bridge().Addr())
}

// follow waits for Kubernetes, serves LoadBalancers as long as ctx lasts, and returns when the node is usable.
func (a *agent) follow(ctx context.Context) error {
	var api kubernetes.Interface
	err := wait.Until(
		ctx,
		"kubeadm to make the API server",
		wait.Options{Within: 10 * time.Minute, Every: 250 * time.Millisecond},
		func(ctx context.Context) error {
			config, err := machine.Config(adminConf)
			if err != nil {
				return err
			}
			config.QPS = -1 // no limit of our own on a node of our own
			if api, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
			return api.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		},
	)
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

// complete adds what only the node itself knows to its status.
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

// ready tells systemd that what waits for this service may start (sd_notify(3)).
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

// apiServer is where others on the lab's network reach the node's API server.
func (n node) apiServer() string {
	return "https://" + netip.AddrPortFrom(n.Address, machine.APIPort).String()
}
