// Package embedded tests what is special to the embedded provider, on this machine: real clusters without a mesh. What every
// provider has to show is in tests/provider.
// It needs root and a bundle: go test ./tests/embedded
package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

const (
	labName = "embedded-test"
	podPort = 8080
)

// two is a running lab of two clusters, each with one pod that answers HTTP.
type two struct {
	*lab.Lab
	kube []kubernetes.Interface
}

func up(t *testing.T, o lab.Options) two {
	t.Helper()
	o.Topology = scenario.Topology{Kind: scenario.NoMesh}
	l := labs.Up(t, o)
	made := two{Lab: l}
	for _, c := range l.Clusters {
		kube, err := kubernetes.NewForConfig(c.RESTConfig())
		require.NoError(t, err)
		made.kube = append(made.kube, kube)
		startPod(t, kube)
	}
	return made
}

// startPod runs the lab's app and waits until it is ready.
func startPod(t *testing.T, kube kubernetes.Interface) {
	t.Helper()
	_, err := kube.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Labels: map[string]string{"app": "app"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: labs.AppImage(), ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"--port", fmt.Sprint(podPort)},
			ReadinessProbe: &corev1.Probe{
				PeriodSeconds: 1,
				ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(podPort)}},
			},
		}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, wait.Until(t.Context(), "the pod to be ready", wait.Options{}, func(ctx context.Context) error {
		pod, err := kube.CoreV1().Pods("default").Get(ctx, "app", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("phase %s", pod.Status.Phase)
	}))
}

// curl calls a URL from the pod of a cluster and returns what curl says.
func (l two) curl(t *testing.T, cluster, url string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(l.Env().BinDir, "kubectl"), "--kubeconfig", l.Env().Kubeconfig, "--context", cluster,
		"exec", "app", "--", "curl", "-sS", "--max-time", "4", url)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// service makes a Service of the first cluster's pod and returns its URL.
func (l two) service(t *testing.T, name string) string {
	t.Helper()
	made, err := l.kube[0].CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "app"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(podPort)}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return "http://" + made.Spec.ClusterIP + "/"
}

// answers waits until a call from the first cluster's pod is answered.
func (l two) answers(t *testing.T, url string) {
	t.Helper()
	require.NoError(t, wait.Until(t.Context(), "an answer of "+url, wait.Options{Every: 200 * time.Millisecond}, func(context.Context) error {
		if out, err := l.curl(t, "cluster-a", url); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
}

// leaving is how many packets wanted to leave the lab, by the lab's own counter on this machine.
func (l two) leaving(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput()
	require.NoError(t, err, string(out))
	_, table, found := strings.Cut(string(out), `comment "eastwest lab `+l.Name+`"`)
	require.True(t, found, "the lab has no rules:\n%s", out)
	_, counter, found := strings.Cut(table, "counter leaving {")
	require.True(t, found, "the lab has no counter:\n%s", out)
	return strings.Join(strings.Fields(counter)[:2], " ") // "packets 0"
}

// outside is a host of the test's own that only a lab with a way out can reach.
func outside(t *testing.T) string {
	t.Helper()
	const ns, address = "eastwest-test-outside", "198.51.100.1"
	taken, err := host.RangeTaken(netip.MustParsePrefix(address + "/24"))
	require.NoError(t, err)
	require.Empty(t, taken, "the test's own range is in use on this machine")
	run := func(args ...string) {
		out, err := exec.Command("ip", args...).CombinedOutput()
		require.NoError(t, err, "ip %v: %s", args, out)
	}
	_ = exec.Command("ip", "netns", "delete", ns).Run()
	run("netns", "add", ns)
	t.Cleanup(func() { run("netns", "delete", ns) })
	run("link", "add", "ewt-outside", "type", "veth", "peer", "name", "eth0", "netns", ns)
	run("address", "add", "198.51.100.2/24", "dev", "ewt-outside")
	run("link", "set", "ewt-outside", "up")
	run("-n", ns, "address", "add", address+"/24", "dev", "eth0")
	run("-n", ns, "link", "set", "eth0", "up")
	run("-n", ns, "route", "add", "default", "via", "198.51.100.2")
	listening := make(chan net.Listener, 1)
	go func() { // a thread in that namespace, given back to nobody
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer file.Close()
			err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			if err == nil {
				l, _ := net.Listen("tcp", address+":80")
				listening <- l
				return
			}
		}
		listening <- nil
	}()
	listener := <-listening
	require.NotNil(t, listener)
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "outside") }),
		ReadHeaderTimeout: time.Second,
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + address + "/"
}

func TestTwoClusters(t *testing.T) {
	l := up(t, lab.Options{Name: labName})
	a, b := l.Clusters[0], l.Clusters[1]

	t.Run("nothing leaves", func(t *testing.T) {
		out, err := l.curl(t, "cluster-a", outside(t))
		require.Error(t, err, "the lab reached an outside host: %s", out)
		require.Contains(t, out, "curl: (7)", "wanted an error at once, not a time-out")
		require.Equal(t, "packets 0", l.leaving(t))
	})

	t.Run("a Service address that nobody serves gives an error", func(t *testing.T) {
		start := time.Now()
		out, err := l.curl(t, "cluster-a", "http://"+l.serviceAddress(t)+"/")
		require.Error(t, err, "something answered: %s", out)
		require.Less(t, time.Since(start), wait.Bound(3*time.Second), out)
		require.Equal(t, "packets 0", l.leaving(t))
	})

	t.Run("no process is in the root of a node's v2 cgroups", func(t *testing.T) {
		all, err := host.Hierarchies()
		require.NoError(t, err)
		sys := fmt.Sprintf("/proc/%d/root/sys/fs/cgroup", labs.Supervisor(t, l.Name, "cluster-a"))
		for _, h := range all {
			if !h.V2 {
				continue
			}
			root := sys
			if len(all) > 1 {
				root = filepath.Join(sys, filepath.Base(h.Path))
			}
			there, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
			require.NoError(t, err)
			require.Empty(t, strings.Fields(string(there)), "with them, and controllers for its children, it would take no pod")
			kind, err := os.ReadFile(filepath.Join(root, "cgroup.type"))
			require.NoError(t, err)
			require.Equal(t, "domain", strings.TrimSpace(string(kind)))
			parts, err := os.ReadFile(filepath.Join(root, "supervisor", "cgroup.procs"))
			require.NoError(t, err)
			require.NotEmpty(t, strings.Fields(string(parts)))
		}
	})

	t.Run("what is severed is told", func(t *testing.T) {
		heal, err := a.(cluster.Underlay).Sever(t.Context(), b)
		require.NoError(t, err)
		faults, err := a.(*embedded.Node).Faults(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"cut off from cluster-b"}, faults)
		require.NoError(t, heal(t.Context()))
		faults, err = a.(*embedded.Node).Faults(t.Context())
		require.NoError(t, err)
		require.Empty(t, faults)
	})

	t.Run("the API server listens on the lab's bridge only", func(t *testing.T) {
		host := strings.TrimPrefix(a.RESTConfig().Host, "https://")
		require.NoError(t, a.(*embedded.Node).Alive(t.Context()))
		address := netip.MustParseAddrPort(host)
		require.True(t, address.Addr().IsPrivate())
		_, err := a.Dial(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), address.Port()))
		require.Error(t, err, "it listens on loopback too")
	})

	t.Run("components come back", func(t *testing.T) {
		for _, component := range []string{"etcd", "kube-apiserver", "kubelet"} {
			require.NoError(t, a.(cluster.Underlay).Kill(t.Context(), component))
			require.NoError(
				t,
				wait.Until(t.Context(), component+" to be there again", wait.Options{Within: 60 * time.Second}, func(ctx context.Context) error {
					status, err := a.(*embedded.Node).Status(ctx)
					if err != nil {
						return err
					}
					for _, c := range status.Components {
						if c.Name == component && (c.PID == 0 || c.Starts < 2) {
							return fmt.Errorf("%+v", c)
						}
					}
					_, err = l.kube[0].CoreV1().Pods("default").Get(ctx, "app", metav1.GetOptions{})
					return err
				}),
			)
		}
		heal, err := a.(cluster.Underlay).Stop(t.Context(), "kube-apiserver")
		require.NoError(t, err)
		faults, err := a.(*embedded.Node).Faults(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"kube-apiserver is stopped"}, faults)
		require.NoError(t, heal(t.Context()))
		faults, err = a.(*embedded.Node).Faults(t.Context())
		require.NoError(t, err)
		require.Empty(t, faults)
		require.ErrorContains(t, a.(cluster.Underlay).Kill(t.Context(), "no-such"), "there are [containerd etcd")
	})

	t.Run("Services outlive kube-proxy", func(t *testing.T) {
		before, after := l.service(t, "before"), ""
		l.answers(t, before)
		require.NoError(t, a.(cluster.Underlay).Kill(t.Context(), "kube-proxy"))
		after = l.service(t, "after")
		l.answers(t, after) // so the kube-proxy that has started again has written all that it knows
		out, err := l.curl(t, "cluster-a", before)
		require.NoError(t, err, out)
	})

	t.Run("the clusters have no UID in common", func(t *testing.T) {
		first, second := uids(t, a), uids(t, b)
		for uid, name := range first {
			require.Empty(t, second[uid], "it is also the UID of %s", name)
		}
		for _, name := range []string{
			"namespaces /kube-system", "clusterroles /cluster-admin", "apiservices /v1.apps", "flowschemas /exempt", "nodes /cluster-a-node",
		} {
			require.Contains(t, slices.Collect(maps.Values(first)), name)
		}
	})

	t.Run("what new clusters share has no certificate, key or address in it", func(t *testing.T) {
		home, err := lab.Home()
		require.NoError(t, err)
		seeds, err := filepath.Glob(filepath.Join(home, "prepared", "seed-*.json"))
		require.NoError(t, err)
		require.NotEmpty(t, seeds)
		for _, seed := range seeds {
			data, err := os.ReadFile(seed)
			require.NoError(t, err)
			var pairs []struct{ Key, Value []byte }
			require.NoError(t, json.Unmarshal(data, &pairs))
			for _, pair := range pairs {
				for _, text := range []string{"-----BEGIN", "LS0tLS1CRUdJTi", "eyJhbGciOi", "10.201.0.", "eastwest-prepare", home} {
					require.NotContains(t, string(pair.Value), text, "%s of %s", pair.Key, seed)
				}
			}
		}
	})

	t.Run("a lab of that name from another home is left alone", func(t *testing.T) {
		_, err := lab.Up(t.Context(), lab.Options{Home: t.TempDir(), Name: labName, Topology: l.Topology})
		require.ErrorContains(t, err, "was made with another EASTWEST_HOME")
		require.NoError(t, a.(*embedded.Node).Alive(t.Context()))
	})

	t.Run("a range that is taken is refused", func(t *testing.T) {
		home, err := lab.Home()
		require.NoError(t, err)
		address := netip.MustParseAddrPort(strings.TrimPrefix(a.RESTConfig().Host, "https://")).Addr()
		taken, err := address.Prefix(16)
		require.NoError(t, err)
		its := lab.Settings{"range": {taken.String()}}
		_, err = lab.Up(t.Context(), lab.Options{Home: home, Name: labName + "-3", Topology: l.Topology, Settings: its})
		require.ErrorContains(t, err, "is taken by lab "+labName)
		var unknown *lab.UnknownLabError
		require.ErrorAs(t, lab.Down(t.Context(), home, labName+"-3"), &unknown, "the refused lab has left something")
	})
}

// uids are the UIDs of all objects of a cluster that can be listed, each with its resource and name.
func uids(t *testing.T, c cluster.Cluster) map[string]string {
	t.Helper()
	kinds, err := discovery.NewDiscoveryClientForConfig(c.RESTConfig())
	require.NoError(t, err)
	lists, err := kinds.ServerPreferredResources()
	require.NoError(t, err)
	config := c.RESTConfig()
	config.QPS = -1
	client, err := metadata.NewForConfig(config)
	require.NoError(t, err)
	found := map[string]string{}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(t, err)
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Name == "componentstatuses" { // which are no objects
				continue
			}
			objects, err := client.Resource(group.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err, r.Name)
			for _, o := range objects.Items {
				require.NotEmpty(t, o.UID, "%s %s", r.Name, o.Name)
				found[string(o.UID)] = r.Name + " " + o.Namespace + "/" + o.Name
			}
		}
	}
	return found
}

// TestEgress is the other half of "nothing leaves": the same call goes out, and is counted, when the lab
// is told to let it.
func TestEgress(t *testing.T) {
	const setting = "/proc/sys/net/ipv4/ip_forward"
	before, err := os.ReadFile(setting)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.WriteFile(setting, before, 0o644)) })
	require.NoError(t, os.WriteFile(setting, []byte("0"), 0o644))
	home, err := lab.Home()
	require.NoError(t, err)
	o := lab.Options{
		Home: home, Name: labName + "-out", Topology: scenario.Topology{Kind: scenario.NoMesh},
		Settings: lab.Settings{"egress": {"true"}},
	}
	_, err = lab.Up(t.Context(), o)
	require.ErrorContains(t, err, "sysctl -w net.ipv4.ip_forward=1")
	require.NoError(t, os.WriteFile(setting, []byte("1"), 0o644))
	l := up(t, o)
	out, err := l.curl(t, "cluster-a", outside(t))
	require.NoError(t, err, out)
	require.Equal(t, "outside", out)
	require.NotEqual(t, "packets 0", l.leaving(t))
}

// serviceAddress is an address of cluster-a's Service range that no Service has.
func (l two) serviceAddress(t *testing.T) string {
	t.Helper()
	api, err := l.kube[0].CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	require.NoError(t, err)
	b := netip.MustParseAddr(api.Spec.ClusterIP).As4()
	return netip.AddrFrom4([4]byte{b[0], b[1], b[2] + 7, 250}).String()
}
