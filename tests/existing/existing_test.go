// Package existing puts labs on clusters that are there already, and looks at all objects of these clusters before and
// after. The clusters are those of an embedded lab without a mesh, of which nothing but a kubeconfig is handed over.
// It needs root and a bundle: go test ./tests/existing
package existing

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// What the clusters are to those who own them.
const (
	east = "admin@east"
	west = "admin@west"
)

// eastwest is the command under test, built once.
var eastwest string

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

// foreign is a pair of clusters that another tool has made.
type foreign struct {
	kubeconfig string
	content    []byte
	clusters   map[string]user // by context
}

type user struct {
	kube    kubernetes.Interface
	dynamic dynamic.Interface
}

// handOver makes clusters and hands over a kubeconfig of them, in which they are called otherwise.
func handOver(t *testing.T, name string, topology scenario.Topology) foreign {
	t.Helper()
	l := labs.Up(t, lab.Options{Name: name, Provider: lab.Embedded, Topology: topology})
	theirs, err := clientcmd.LoadFromFile(l.Env().Kubeconfig)
	require.NoError(t, err)
	config := api.NewConfig()
	f := foreign{kubeconfig: filepath.Join(t.TempDir(), "config"), clusters: map[string]user{}}
	for in, cluster := range map[string]string{east: "cluster-a", west: "cluster-b", "the same as east": "cluster-a"} {
		of := theirs.Contexts[cluster]
		config.Clusters[in], config.AuthInfos[in] = theirs.Clusters[of.Cluster], theirs.AuthInfos[of.AuthInfo]
		config.Contexts[in] = &api.Context{Cluster: in, AuthInfo: in, Namespace: "shop"}
	}
	config.Clusters["nowhere"] = &api.Cluster{Server: nowhere(t, config.Clusters[east].Server), InsecureSkipTLSVerify: true}
	config.Contexts["nowhere"] = &api.Context{Cluster: "nowhere", AuthInfo: east}
	config.CurrentContext = "the same as east"
	require.NoError(t, clientcmd.WriteToFile(*config, f.kubeconfig))
	f.content, err = os.ReadFile(f.kubeconfig)
	require.NoError(t, err)
	for _, in := range []string{east, west} {
		config, err := clientcmd.NewNonInteractiveClientConfig(*config, in, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
		require.NoError(t, err)
		config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
		var u user
		u.kube, err = kubernetes.NewForConfig(config)
		require.NoError(t, err)
		u.dynamic, err = dynamic.NewForConfig(config)
		require.NoError(t, err)
		f.clusters[in] = u
	}
	t.Cleanup(func() {
		now, err := os.ReadFile(f.kubeconfig)
		assert.NoError(t, err)
		assert.Equal(t, string(f.content), string(now), "the user's kubeconfig is only read")
	})
	return f
}

// nowhere is an address of the same network that nobody has.
func nowhere(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	bytes := netip.MustParseAddr(u.Hostname()).As4()
	bytes[3] = 250
	u.Host = netip.AddrPortFrom(netip.AddrFrom4(bytes), 6443).String()
	return u.String()
}

// live gives the clusters somebody who uses them: a namespace in which an Istio would inject, and a pod that looks like
// one of the lab's.
func (f foreign) live(t *testing.T) {
	t.Helper()
	for _, u := range f.clusters {
		shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"istio-injection": "enabled"}}}
		_, err := u.kube.CoreV1().Namespaces().Create(t.Context(), shop, metav1.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, wait.Until(t.Context(), "the default account", wait.Options{}, func(ctx context.Context) error {
			_, err := u.kube.CoreV1().ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{})
			return err
		}))
		_, err = u.kube.CoreV1().Pods("shop").Create(t.Context(), web("web"), metav1.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, wait.Until(t.Context(), "the shop's pod", wait.Options{Within: time.Minute}, func(ctx context.Context) error {
			p, err := u.kube.CoreV1().Pods("shop").Get(ctx, "web", metav1.GetOptions{})
			if err == nil && p.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("it is %s", p.Status.Phase)
			}
			return err
		}))
	}
}

func web(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": "echo", "sidecar.istio.io/inject": "true"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{
				{Name: "app", Image: bundle.Hub + "/app:" + bundle.Tag, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"--port=8080"}},
			},
		},
	}
}

// byThemselves are kinds whose objects come, go and change whatever anybody does.
var byThemselves = []string{"events", "leases", "componentstatuses", "nodes/metrics", "ipaddresses"}

// state is every object of every kind, without what a cluster writes into it by itself.
func (u user) state(ctx context.Context) (map[string]string, error) {
	lists, err := u.kube.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, err
	}
	var mu sync.Mutex
	all := map[string]string{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains(byThemselves, r.Name) || strings.Contains(r.Name, "/") {
				continue
			}
			group.Go(func() error {
				list, err := u.dynamic.Resource(gv.WithResource(r.Name)).List(ctx, metav1.ListOptions{})
				if apierrors.IsNotFound(err) { // a kind that has just gone
					return nil
				}
				if err != nil {
					return fmt.Errorf("listing %s: %w", r.Name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, o := range list.Items {
					for _, field := range []string{"resourceVersion", "managedFields", "generation"} {
						unstructured.RemoveNestedField(o.Object, "metadata", field)
					}
					// A restart is seen by the pods.
					unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
					unstructured.RemoveNestedField(o.Object, "spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt")
					unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "control-plane.alpha.kubernetes.io/leader") // istiod's leases
					// A controller that is late writes endpoints a second time, without the moment at which they changed.
					unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "endpoints.kubernetes.io/last-change-trigger-time")
					if len(o.GetAnnotations()) == 0 {
						unstructured.RemoveNestedField(o.Object, "metadata", "annotations")
					}
					// one that has just become ready loses them
					if o.GetKind() == "Node" {
						unstructured.RemoveNestedField(o.Object, "spec", "taints")
					}
					// The address of a load balancer is nobody's but the owner's.
					if o.GetKind() != "Service" {
						unstructured.RemoveNestedField(o.Object, "status")
					}
					text, err := json.Marshal(o.Object)
					if err != nil {
						return err
					}
					all[gv.WithResource(r.Name).GroupResource().String()+" "+o.GetNamespace()+"/"+o.GetName()] = string(text)
				}
				return nil
			})
		}
	}
	return all, group.Wait()
}

// states are those of all clusters.
func (f foreign) states(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for in, u := range f.clusters {
		state, err := u.state(t.Context())
		require.NoError(t, err)
		require.Greater(t, len(state), 100, "a cluster has more objects than that")
		all[in] = state
	}
	return all
}

// withRestarts are kinds of which a restarted Deployment has others.
var withRestarts = []string{"pods", "replicasets.apps", "endpoints", "endpointslices.discovery.k8s.io"}

// exchange puts into the states what a restarted Deployment has now.
func (f foreign) exchange(t *testing.T, states map[string]map[string]string, deployment string) {
	t.Helper()
	has := func(key, _ string) bool {
		kind, name, _ := strings.Cut(key, " ")
		return slices.Contains(withRestarts, kind) && (name == deployment || strings.HasPrefix(name, deployment+"-"))
	}
	for in, u := range f.clusters {
		var now map[string]string
		require.NoError(
			t,
			wait.Until(
				t.Context(),
				"the end of the old pods of "+deployment,
				wait.Options{Every: time.Second},
				func(ctx context.Context) (err error) {
					if now, err = u.state(ctx); err != nil {
						return err
					}
					maps.DeleteFunc(now, func(key, text string) bool { return !has(key, text) })
					for key, text := range now {
						if strings.Contains(text, `"deletionTimestamp"`) {
							return fmt.Errorf("%s is there", key)
						}
					}
					return nil
				},
			),
		)
		require.NotEmpty(t, now)
		maps.DeleteFunc(states[in], has)
		maps.Copy(states[in], now)
	}
}

// same waits until all objects are what they were: definitions leave an APIService for a moment.
func (f foreign) same(t *testing.T, before map[string]map[string]string) {
	t.Helper()
	for in, u := range f.clusters {
		require.NoError(
			t,
			wait.Until(
				t.Context(),
				"the objects of "+in+" to be what they were",
				wait.Options{Within: 30 * time.Second, Every: time.Second},
				func(ctx context.Context) error {
					now, err := u.state(ctx)
					if err != nil {
						return err
					}
					if differences := differences(before[in], now); len(differences) > 0 {
						return fmt.Errorf("%s", strings.Join(differences, "\n"))
					}
					return nil
				},
			),
		)
	}
}

func differences(before, now map[string]string) (all []string) {
	names := maps.Clone(before)
	maps.Copy(names, now)
	for name := range names {
		switch {
		case now[name] == "":
			all = append(all, "gone: "+name)
		case before[name] == "":
			all = append(all, "new: "+name)
		case before[name] != now[name]:
			all = append(all, "other: "+name+"\n  was "+before[name]+"\n  is  "+now[name])
		}
	}
	slices.Sort(all)
	return all
}

// execute runs the command as a process of its own.
func (f foreign) execute(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, eastwest, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=", "NO_COLOR=1")
	start := time.Now()
	data, err := cmd.CombinedOutput()
	t.Logf("eastwest %s (%s):\n%s", strings.Join(args, " "), time.Since(start).Round(time.Millisecond), data)
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

func (f foreign) up(t *testing.T, name string, more ...string) (string, int) {
	t.Helper()
	return f.execute(t, append([]string{"up", "--name", name, "--provider", "existing", "--kubeconfig", f.kubeconfig}, more...)...)
}

// However an up ends that does not come to its end, nothing of it is left.
func TestUpThatFailsLeavesNothing(t *testing.T) {
	t.Parallel() // each test has clusters of its own, and this one, which waits most, begins first
	labs.Need(t)
	f := handOver(t, "existing-failing-foreign", scenario.Topology{Kind: scenario.NoMesh})
	const name = "existing-failing"
	t.Cleanup(func() { _ = exec.Command(eastwest, "down", name).Run() })
	up := func() *exec.Cmd {
		cmd := exec.Command(eastwest, "up", "--name", name, "--provider", "existing",
			"--kubeconfig", f.kubeconfig, "--context", east, "--context", west)
		cmd.Env = append(os.Environ(), "KUBECONFIG=")
		return cmd
	}
	untilIstiodIsAskedFor := func(t *testing.T) {
		t.Helper()
		bound := wait.Options{Within: 2 * time.Minute}
		require.NoError(t, wait.Until(t.Context(), "istiod to be asked for", bound, func(ctx context.Context) error {
			_, err := f.clusters[west].kube.AppsV1().Deployments("istio-system").Get(ctx, "istiod", metav1.GetOptions{})
			return err
		}))
	}

	t.Run("interrupted", func(t *testing.T) {
		before := f.states(t)
		cmd := up()
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		untilIstiodIsAskedFor(t)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait() // its exit code tells
		require.Equal(t, 130, cmd.ProcessState.ExitCode(), out.String())
		f.same(t, before)
	})

	t.Run("killed", func(t *testing.T) {
		before := f.states(t)
		cmd := up()
		require.NoError(t, cmd.Start())
		untilIstiodIsAskedFor(t)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		_, code := f.execute(t, "down", name)
		require.Equal(t, 0, code)
		f.same(t, before)
	})

	t.Run("without images", func(t *testing.T) {
		labs.Nightly(t)
		before := f.states(t)
		out, code := f.up(t, name, "--context", east, "--context", west, "--hub", "registry.invalid/eastwest", "--tag", "1")
		require.Equal(t, 3, code)
		require.Regexp(t, "cluster-[ab] cannot pull registry.invalid/eastwest/pilot:1: ", out)
		require.Contains(t, out, "the registry has to have it (--hub, --tag)")
		f.same(t, before)
	})

	t.Run("without load balancers", func(t *testing.T) {
		labs.Nightly(t)
		f.takeAddresses(t, east)
		before := f.states(t)
		byThen := min(wait.Bound(time.Minute), 3*time.Minute).Round(time.Second) // everything else is ready
		out, code := f.up(t, name, "--context", east, "--context", west, "--timeout", byThen.String())
		require.Equal(t, 3, code)
		require.Contains(t, out, "cluster-a: wait for the east-west gateway's address")
		require.Contains(t, out, "nothing in this cluster serves type LoadBalancer")
		require.Contains(t, out, "MetalLB")
		f.same(t, before)
	})
}

// takeAddresses takes all addresses that the cluster has for load balancers.
func (f foreign) takeAddresses(t *testing.T, in string) {
	t.Helper()
	services := f.clusters[in].kube.CoreV1().Services("default")
	none := false
	for i := range 260 {
		taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("taken-%d", i)}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: &none, Ports: []corev1.ServicePort{{Port: 80}},
		}}
		_, err := services.Create(t.Context(), taken, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	last := 0
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			"all addresses to be taken",
			wait.Options{Within: 2 * time.Minute, Every: time.Second, InARow: 3},
			func(ctx context.Context) error {
				list, err := services.List(ctx, metav1.ListOptions{})
				if err != nil {
					return err
				}
				with := 0
				for _, s := range list.Items {
					with += len(s.Status.LoadBalancer.Ingress)
				}
				grown := with > last
				if last = with; grown || with < 250 {
					return fmt.Errorf("%d are", with)
				}
				return nil
			},
		),
	)
}

func TestALabOnClustersThatAreThere(t *testing.T) {
	t.Parallel()
	labs.Need(t)
	f := handOver(t, "existing-foreign", scenario.Topology{Kind: scenario.NoMesh})
	f.live(t)
	before := f.states(t)

	t.Run("what cannot be is told before anything is made", func(t *testing.T) {
		for _, c := range []struct {
			contexts []string
			problem  string
		}{
			{[]string{east, "east"}, `there is no context "east" in the kubeconfig: there are admin@east, admin@west, nowhere, the same as east`},
			{[]string{east}, "wanted a --context for each of cluster-a, cluster-b"},
			{[]string{east, "the same as east"}, `contexts "admin@east" and "the same as east" are the same cluster`},
			{[]string{east, "nowhere"}, `context "nowhere": asking the API server https://`},
		} {
			var args []string
			for _, in := range c.contexts {
				args = append(args, "--context", in)
			}
			start := time.Now()
			out, code := f.up(t, "existing-refused", args...)
			require.Equal(t, 3, code)
			require.Contains(t, out, c.problem)
			require.Less(t, time.Since(start), wait.Bound(15*time.Second))
		}
		f.same(t, before)
		out, _ := f.execute(t, "list")
		require.NotContains(t, out, "existing-refused")
	})

	t.Run("what is there and not ours is left alone", func(t *testing.T) {
		u := f.clusters[west]
		_, err := u.kube.CoreV1().
			Namespaces().
			Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "istio-reader-clusterrole-istio-system", Labels: cluster.Labels("existing-refused", "another")},
		}
		_, err = u.kube.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, wait.Until(t.Context(), "what comes with a namespace", wait.Options{}, func(ctx context.Context) error {
			_, err := u.kube.CoreV1().ConfigMaps("istio-system").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			if err == nil {
				_, err = u.kube.CoreV1().ServiceAccounts("istio-system").Get(ctx, "default", metav1.GetOptions{})
			}
			return err
		}))
		with := f.states(t)
		out, code := f.up(t, "existing-refused", "--context", east, "--context", west)
		require.Equal(t, 3, code)
		require.Contains(t, out, `Namespace istio-system in cluster-b, context "admin@west" (no lab's)`)
		require.Contains(
			t,
			out,
			`ClusterRole istio-reader-clusterrole-istio-system in cluster-b, context "admin@west" (of lab existing-refused, id another)`,
		)
		require.NotContains(t, out, "in cluster-a, context")
		f.same(t, with)
		require.NoError(t, u.kube.RbacV1().ClusterRoles().Delete(t.Context(), role.Name, metav1.DeleteOptions{}))
		require.NoError(t, u.kube.CoreV1().Namespaces().Delete(t.Context(), "istio-system", metav1.DeleteOptions{}))
		f.same(t, before)
	})

	const name = "existing-test"
	t.Cleanup(func() { // where a check below ends it
		down := exec.Command(eastwest, "down", name)
		if out, _ := down.CombinedOutput(); down.ProcessState.ExitCode() == 3 {
			t.Errorf("eastwest down %s: %s", name, out)
		}
	})
	out, code := f.up(t, name, "--context", east, "--context", west)
	require.Equal(t, 0, code)
	require.Contains(t, out, "cluster-a → cluster-b: answered by echo-")
	require.Contains(t, out, "cluster-b → cluster-a: answered by echo-")

	t.Run("it is like any lab", func(t *testing.T) {
		out, code := f.up(t, name, "--context", east, "--context", west)
		require.Equal(t, 0, code, "it is there and works")
		out, code = f.execute(t, "up", "--name", name) // what it was made with is known
		require.Equal(t, 0, code, out)
		out, code = f.execute(t, "status", name)
		require.Equal(t, 0, code)
		require.Contains(t, out, east)
		out, code = f.execute(t, "env", "--name", name)
		require.Equal(t, 0, code)
		require.Contains(t, out, filepath.Join("labs", name, "kubeconfig"))
		out, code = f.up(t, name, "--context", west, "--context", east)
		require.Equal(t, 2, code)
		require.Contains(t, out, "with --context admin@east,admin@west")
	})

	t.Run("everything carries its labels", func(t *testing.T) {
		for in, u := range f.clusters {
			now, err := u.state(t.Context())
			require.NoError(t, err)
			for name, text := range now {
				_, namespaced, _ := strings.Cut(name, " ")
				namespace, _, _ := strings.Cut(namespaced, "/")
				if before[in][name] != "" || namespace == "istio-system" || namespace == "production" || strings.HasPrefix(name, "apiservices") ||
					strings.HasPrefix(name, "ipaddresses") {
					continue // its objects have objects of their own, which Kubernetes makes
				}
				require.Contains(t, text, `"`+cluster.IDLabel+`":"`, "%s: %s", in, name)
			}
		}
	})

	t.Run("others do not notice it", func(t *testing.T) {
		for in, u := range f.clusters {
			now, err := u.state(t.Context())
			require.NoError(t, err)
			for name, text := range before[in] {
				require.Equal(t, text, now[name], "%s: %s", in, name)
			}
			pod, err := u.kube.CoreV1().Pods("shop").Create(t.Context(), web("another"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			require.NoError(t, err)
			require.Len(t, pod.Spec.Containers, 1, "the lab's webhook is for its own namespaces")
			require.Empty(t, pod.Spec.InitContainers)
		}
	})

	t.Run("scenarios", func(t *testing.T) {
		_, code := f.execute(t, "run", "--provider", "existing", "--name", name, "--verbose", "mismatched-root-ca")
		require.Equal(t, 0, code)
		out, code := f.execute(t, "run", "--name", name, below(t))
		require.Equal(t, 0, code, "what needs the machines below is skipped, with its reason")
		require.Contains(t, out, "the machines below cluster-a are not ours to touch")
	})

	t.Run("definitions that others use by now stay", func(t *testing.T) {
		u := f.clusters[east]
		kind := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"}
		entry := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": map[string]any{"name": "bank", "namespace": "shop"},
			"spec": map[string]any{
				"hosts":      []any{"bank.example"},
				"ports":      []any{map[string]any{"number": int64(443), "name": "https", "protocol": "TLS"}},
				"resolution": "DNS",
			},
		}}
		_, err := u.dynamic.Resource(kind).Namespace("shop").Create(t.Context(), entry, metav1.CreateOptions{})
		require.NoError(t, err)
		out, code := f.execute(t, "down", name)
		require.Equal(t, 3, code)
		require.Contains(t, out, "nothing was deleted")
		require.Contains(t, out, "serviceentries.networking.istio.io/bank in namespace shop")
		_, err = u.kube.CoreV1().Namespaces().Get(t.Context(), "production", metav1.GetOptions{})
		require.NoError(t, err)
		require.NoError(t, u.dynamic.Resource(kind).Namespace("shop").Delete(t.Context(), "bank", metav1.DeleteOptions{}))
	})

	_, code = f.execute(t, "down", name)
	require.Equal(t, 0, code)
	f.same(t, before)
}

// below is a scenario that takes something away below Kubernetes.
func below(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "severed.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`scenario: severed
title: The clusters cannot reach each other
why: It needs the machines below the clusters.
topology: {kind: multi-primary, network: separate, trust: shared-root}
apps: [client@cluster-a, echo@cluster-b]
traffic:
  a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}
break:
- sever: {between: [cluster-a, cluster-b]}
symptoms:
  within: 10s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}, for: 2s}
recover:
- reconnect: {between: [cluster-a, cluster-b]}
healthy:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-least: 100}}
`), 0o644))
	return file
}

// The Istio of an embedded lab stands in for one that somebody else has installed.
func TestAnIstioThatIsThereIsAdopted(t *testing.T) {
	t.Parallel()
	labs.Need(t)
	f := handOver(t, "existing-adopted-foreign", lab.DefaultTopology())
	for _, u := range f.clusters { // where the lab's own apps are, others cannot be
		require.NoError(t, u.kube.CoreV1().Namespaces().Delete(t.Context(), "production", metav1.DeleteOptions{}))
	}
	for _, u := range f.clusters {
		require.NoError(t, wait.Until(t.Context(), "the end of the apps", wait.Options{Within: 2 * time.Minute}, func(ctx context.Context) error {
			_, err := u.kube.CoreV1().Namespaces().Get(ctx, "production", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("they are there: %w", err)
		}))
	}
	before := f.states(t)

	const name = "existing-adopted"
	out, code := f.up(t, name, "--context", east, "--context", west)
	require.Equal(t, 3, code)
	require.Contains(t, out, "Namespace istio-system in cluster-a")
	require.Contains(t, out, "--adopt")
	f.same(t, before)

	out, code = f.up(t, name, "--adopt", "--context", west, "--context", east)
	require.Equal(t, 3, code)
	require.Contains(t, out, `istiod calls the cluster "cluster-b", and scenarios call it cluster-a`)
	f.same(t, before)

	t.Cleanup(func() { _ = exec.Command(eastwest, "down", name).Run() })
	out, code = f.up(t, name, "--adopt", "--context", east, "--context", west)
	require.Equal(t, 0, code)
	require.Contains(t, out, "cluster-a → cluster-b: answered by echo-")

	out, code = f.execute(t, "run", "--name", name, "--adopt", "cross-cluster-call")
	require.Equal(t, 2, code)
	require.Contains(t, out, "does not say how far it reaches")
	out, code = f.execute(t, "run", "--name", name, "authz-foreign-principal")
	require.Equal(t, 2, code)
	require.Contains(t, out, "authz-foreign-principal: ", "the plan")
	require.Contains(t, out, "say --adopt")
	out, code = f.execute(t, "run", "--name", name, "--adopt", "authz-foreign-principal")
	require.Equal(t, 0, code)
	require.Contains(t, out, "✓ authz-foreign-principal")
	out, code = f.execute(t, "run", "--name", name, "--adopt", "mismatched-root-ca")
	require.Equal(t, 0, code, "what cannot be done is skipped, with its reason")
	require.Contains(t, out, "the keys of its CAs are its owner's")

	f.exchange(t, before, "istio-system/"+mesh.Istiod) // the scenario has restarted it
	_, code = f.execute(t, "down", name)
	require.Equal(t, 0, code)
	f.same(t, before)
}
