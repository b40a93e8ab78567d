package machine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// inside is a node seen from inside whose kernel and processes are variables.
type inside struct {
	mu      sync.Mutex
	rules   string // the last that were loaded
	refuse  error  // of the kernel
	stopped bool   // the one component
	thawed  int
	pod     []host.PodProcess // the processes of one pod
}

// podUID is the UID of the pod.
const podUID = "0a1b2c3d-0000-4000-8000-0123456789ab"

func (i *inside) server(p Place, dir string) *Server {
	return &Server{
		Place: p, Dir: dir,
		Processes: func() []host.ProcessState { return []host.ProcessState{{Name: "etcd", PID: 7, Stopped: i.stopped}} },
		Signal: func(component string, sig syscall.Signal) error {
			if component != "etcd" {
				return errors.New("no such component")
			}
			i.stopped = sig == syscall.SIGSTOP
			return nil
		},
		PodProcesses: func() []host.PodProcess { return slices.Clone(i.pod) },
		SignalProcess: func(pid int, sig syscall.Signal) error {
			at := slices.IndexFunc(i.pod, func(p host.PodProcess) bool { return p.PID == pid })
			i.pod[at].Stopped = sig == syscall.SIGSTOP
			return nil
		},
		NFT: func(_ context.Context, rules string) error {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.refuse == nil {
				i.rules = rules
			}
			return i.refuse
		},
	}
}

// startNode starts the server of a node and opens the node.
func startNode(t *testing.T, lab string, index int) (*inside, *Node) {
	t.Helper()
	name := "cluster-" + string(rune('a'+index-1))
	p := Place{Spec: cluster.Spec{Lab: lab, Name: name, Index: index}, Range: netip.MustParsePrefix("10.201.0.0/16")}
	dir := t.TempDir()
	i := &inside{}
	server := i.server(p, dir)
	require.NoError(t, server.Apply(t.Context()))
	require.NoError(t, server.Serve(t.Context()))
	config := api.NewConfig()
	config.Clusters["x"] = &api.Cluster{Server: "https://10.201.0.11:6443"}
	config.Contexts["x"] = &api.Context{Cluster: "x"}
	config.CurrentContext = "x"
	kubeconfig := filepath.Join(dir, "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, kubeconfig))
	n, err := OpenNode(NodeOptions{
		Place: p, Address: p.Addresses().Node(index).Addr(), Dir: dir, Kubeconfig: kubeconfig, Components: []string{"kubelet", "etcd"},
		Thaw: func(context.Context) error { i.thawed++; return nil },
	})
	require.NoError(t, err)
	return i, &n
}

func TestNodeIsBrokenAndHealedFromOutside(t *testing.T) {
	a, outside := startNode(t, "demo", 1)
	_, peer := startNode(t, "demo", 2)
	require.Equal(t, []string{"etcd", "kubelet"}, outside.Components())
	require.Equal(t, "https://10.201.0.11:6443", outside.RESTConfig().Host)

	_, err := outside.Stop(t.Context(), "etcd")
	require.NoError(t, err)
	_, err = outside.Sever(t.Context(), asCluster{peer})
	require.NoError(t, err)
	heal, err := outside.BlockPort(t.Context(), asCluster{peer}, 15443)
	require.NoError(t, err)
	faults, err := outside.Faults(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"cut off from cluster-b", "etcd is stopped", "port 15443 is blocked for cluster-b"}, faults)
	require.Contains(t, a.rules, "tcp dport 15443")
	require.Contains(t, a.rules, "10.201.0.12/32", "the peer's own address")

	require.NoError(t, heal(t.Context()))
	require.NotContains(t, a.rules, "15443")
	require.NoError(t, outside.HealAll(t.Context()))
	faults, err = outside.Faults(t.Context())
	require.NoError(t, err)
	require.Empty(t, faults)
	require.NotContains(t, a.rules, "10.201.0.12/32")
	require.Equal(t, 1, a.thawed)

	require.ErrorContains(t, outside.Kill(t.Context(), "no-such"), "no such component")
	_, stranger := startNode(t, "other", 2)
	_, err = outside.Sever(t.Context(), asCluster{stranger})
	require.ErrorContains(t, err, "is not a cluster of lab demo")
}

// A frozen node does not answer, so nothing else may come before it is thawed.
func TestNodeThatCannotBeThawedIsNotAsked(t *testing.T) {
	_, n := startNode(t, "demo", 1)
	n.thaw = func(context.Context) error { return errors.New("no cgroup") }
	n.control.dir = t.TempDir()
	require.EqualError(t, n.HealAll(t.Context()), "no cgroup")
}

// What the kernel refuses is not in force, and a server that takes over knows only what is.
func TestFaultsOutliveTheServer(t *testing.T) {
	a, outside := startNode(t, "demo", 1)
	_, peer := startNode(t, "demo", 2)
	_, err := outside.Sever(t.Context(), asCluster{peer})
	require.NoError(t, err)
	a.refuse = errors.New("nft: no such family")
	_, err = outside.BlockPort(t.Context(), asCluster{peer}, 15443)
	require.ErrorContains(t, err, "no such family")

	next := &inside{}
	server := next.server(outside.place, outside.control.dir)
	require.NoError(t, server.Apply(t.Context()))
	require.Contains(t, next.rules, "10.201.0.12/32")
	require.NotContains(t, next.rules, "15443")
}

// A pod is frozen as a whole, and shows as frozen to a server that takes over and to a process that has not frozen it.
func TestPodIsFrozen(t *testing.T) {
	a, outside := startNode(t, "demo", 1)
	a.pod = []host.PodProcess{{Pod: podUID, PID: 8}, {Pod: podUID, PID: 9}}
	frozen := func(want ...string) {
		t.Helper()
		uids, err := outside.FrozenPods(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, uids)
	}
	frozen()
	require.NoError(t, outside.FreezePod(t.Context(), podUID))
	require.True(t, a.pod[0].Stopped && a.pod[1].Stopped)
	frozen(podUID)
	faults, err := outside.Faults(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"pod " + podUID + " is frozen"}, faults, "no folder of logs tells its name")
	next := a.server(outside.place, outside.control.dir)
	require.NoError(t, next.Serve(t.Context()))
	frozen(podUID)

	a.pod = append(a.pod, host.PodProcess{Pod: podUID, PID: 10}) // of a container that was started anew
	frozen(podUID)
	require.NoError(t, outside.ThawPod(t.Context(), podUID))
	frozen()
	require.NoError(t, outside.FreezePod(t.Context(), podUID))
	require.NoError(t, outside.HealAll(t.Context()))
	frozen()

	a.pod = nil
	require.NoError(t, outside.ThawPod(t.Context(), podUID), "the pod is gone")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, outside.FreezePod(ctx, podUID), "no process of it runs in this node")
}

// A component that runs in a pod, as kube-proxy does on kind, is a fault of its own.
func TestStoppedComponentIsNoFrozenPod(t *testing.T) {
	a, outside := startNode(t, "demo", 1)
	a.pod = []host.PodProcess{{Pod: podUID, PID: 7, Stopped: true}, {Pod: podUID, PID: 8}}
	a.stopped = true
	faults, err := outside.Faults(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"etcd is stopped"}, faults)
}

func TestPodsHaveTheNamesOfTheirLogs(t *testing.T) {
	logs := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(logs, "production_echo-58774b8c6-xpk97_"+podUID), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(logs, "something-else"), 0o755))
	require.Equal(t, map[string]string{podUID: "production/echo-58774b8c6-xpk97"}, podNames(logs))
	require.Empty(t, podNames(filepath.Join(logs, "none")))
}

func TestDialGoesThroughTheNode(t *testing.T) {
	_, n := startNode(t, "demo", 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = conn.Write([]byte("hello"))
			_ = conn.Close()
		}
	}()
	conn, err := n.Dial(t.Context(), netip.MustParseAddrPort(listener.Addr().String()))
	require.NoError(t, err)
	seen := make([]byte, 5)
	_, err = conn.Read(seen)
	require.NoError(t, err)
	require.Equal(t, "hello", string(seen))
	require.NoError(t, conn.Close())
	require.NoError(t, listener.Close())
	_, err = n.Dial(t.Context(), netip.MustParseAddrPort(listener.Addr().String()))
	require.ErrorContains(t, err, "refused")
}

func TestStatusIsDumped(t *testing.T) {
	_, n := startNode(t, "demo", 1)
	dir := filepath.Join(t.TempDir(), "evidence")
	require.NoError(t, n.DumpStatus(t.Context(), dir))
	data, err := os.ReadFile(filepath.Join(dir, "status.json"))
	require.NoError(t, err)
	require.Contains(t, string(data), `"cluster": "cluster-a"`)
}

func TestSettings(t *testing.T) {
	require.NoError(t, Settings{}.Check())
	require.NoError(t, Settings{Range: "10.77.0.0/16"}.Check())
	for _, text := range []string{"x", "10.77.0.0/8", "10.77.1.0/16", "8.8.0.0/16", "fd00::/16"} {
		require.ErrorContains(t, Settings{Range: text}.Check(), "--range", text)
	}
}

// asCluster is a node as its provider's cluster.
type asCluster struct{ *Node }

// Dump implements cluster.Cluster.
func (asCluster) Dump(context.Context, string) error { return nil }
