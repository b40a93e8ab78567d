// Package provider holds what every provider of clusters has to show, and a selection of Kubernetes' own conformance tests.
// EASTWEST_PROVIDER names the provider, embedded when it is empty. It needs what that provider needs, and a bundle:
// EASTWEST_PROVIDER=kind go test ./tests/provider
package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/forward"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const (
	labName    = "conformance"
	secondName = labName + "-2"
)

// How long things may take that make a lab unusable for its scenarios when they take longer.
const (
	againWithin   = 5 * time.Second  // up of a lab that is there
	addressWithin = 5 * time.Second  // a LoadBalancer's address
	refreshWithin = 10 * time.Second // a changed Secret in a running pod; the kubelet's own default is a minute and more
	backWithin    = 60 * time.Second // a component that was killed
)

// eastwest is the command under test, built once.
var eastwest labs.Command

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

// expectations is what a provider has to show, in the order in which it is shown: the labs are shared.
var expectations = []struct {
	name string
	show func(*testing.T, *suite)
}{
	{"create: both clusters run pods", create},
	{"create again: it is the same lab", createAgain},
	{"dial: a pod and a Service are reached from this machine", dial},
	{"dns: names of the cluster resolve, others are refused at once", dns},
	{"images: nothing is pulled, and what no node has is refused", images},
	{"load balancer: its address is reached from the other cluster and from this machine", loadBalancer},
	{"network separate: pods of the other cluster are not reached", separateNetworks},
	{"volume: a changed Secret reaches a running pod", volumeRefresh},
	{"projection: a Secret that comes later, a token and the pod's own name", projection},
	{"exec: output and exit code come back", execInPod},
	{"logs: what a container writes", logs},
	{"port-forward: a port of a pod's loopback", portForward},
	{"dump: evidence of every component", dump},
	{"underlay: a port is blocked and healed", underlayBlock},
	{"underlay: a link is severed and healed", underlaySever},
	{"underlay: a component is stopped, killed and back", underlayComponents},
	{"underlay: a pod is frozen and thawed", freezePod},
	{"underlay: a cluster is paused whole", pause},
	{"two labs at once: neither reaches the other", secondLab},
	{"network shared: pods of the other cluster are reached", sharedNetwork},
	{"delete: nothing of the lab is left, the other goes on", deleteSecond},
	{"ctrl-c: nothing is left of a lab that was not finished", interrupted},
	{"sigkill: down leaves nothing of a lab that was not finished", killed},
	{"delete: nothing is left", deleteFirst},
}

func TestProvider(t *testing.T) {
	s := &suite{provider: labs.NeedProvider(t), home: labs.Need(t)}
	s.sweep(t)
	t.Cleanup(func() { s.sweep(t) })
	for _, e := range expectations {
		if !t.Run(e.name, func(t *testing.T) { e.show(t, s) }) && s.first == nil {
			t.Fatal("without clusters there is nothing to look at")
		}
	}
}

// suite is the state that expectations share.
type suite struct {
	provider, home string
	first          *running // network separate
	second         *running // network shared
}

// running is a lab of two clusters, each with one pod that answers HTTP.
type running struct {
	*lab.Lab
	kube []kubernetes.Interface
	pods []*corev1.Pod
}

// sweep removes the suite's labs, whatever is left of them.
func (s *suite) sweep(t *testing.T) {
	for _, name := range []string{labName, secondName} {
		assert.NoError(t, s.down(name))
	}
}

// down removes a lab; one that is not there is no error.
func (s *suite) down(name string) error {
	err := lab.Down(context.Background(), s.home, name)
	var unknown *lab.UnknownLabError
	if errors.As(err, &unknown) {
		return nil
	}
	return err
}

func (s *suite) options(name string, network scenario.Network) lab.Options {
	return lab.Options{Home: s.home, Name: name, Provider: s.provider, Topology: scenario.Topology{Kind: scenario.NoMesh, Network: network}}
}

func (s *suite) up(t *testing.T, name string, network scenario.Network) *running {
	t.Helper()
	l, err := lab.Up(t.Context(), s.options(name, network))
	require.NoError(t, err)
	r := &running{Lab: l}
	for _, c := range l.Clusters {
		kube, err := kubernetes.NewForConfig(c.RESTConfig())
		require.NoError(t, err)
		r.kube = append(r.kube, kube)
		startPod(t, kube)
	}
	for _, kube := range r.kube {
		r.pods = append(r.pods, readyPod(t, kube))
	}
	return r
}

const (
	podName   = "app"
	namespace = "default"
	podPort   = 8080
)

// startPod runs the lab's app. It mounts a Secret that is there, and projects one that is not there yet.
func startPod(t *testing.T, kube kubernetes.Interface) {
	t.Helper()
	core := kube.CoreV1()
	_, err := core.Secrets(namespace).Create(t.Context(), secret("changing", "old"), metav1.CreateOptions{})
	require.NoError(t, err)
	optional := true
	_, err = core.Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName, Labels: map[string]string{"app": podName}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: podName, Image: labs.AppImage(), ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"--port", fmt.Sprint(podPort)},
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1,
					ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(podPort)}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "changing", MountPath: "/changing"}, {Name: "projected", MountPath: "/projected"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "changing", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "changing"}}},
				{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}, Optional: &optional}},
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "conformance", Path: "token"}},
					{
						DownwardAPI: &corev1.DownwardAPIProjection{
							Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
						},
					},
				}}}},
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

func secret(name, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": value}}
}

func readyPod(t *testing.T, kube kubernetes.Interface) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	require.NoError(t, wait.Until(t.Context(), "the pod to be ready", wait.Options{}, func(ctx context.Context) (err error) {
		if pod, err = kube.CoreV1().Pods(namespace).Get(ctx, podName, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("phase %s", pod.Status.Phase)
	}))
	return pod
}

// kubectl runs the bundle's kubectl on one cluster of the lab and returns what it says.
func (r *running) kubectl(t *testing.T, cluster int, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(r.Env().BinDir, "kubectl"),
		append([]string{"--kubeconfig", r.Env().Kubeconfig, "--context", r.Clusters[cluster].Name()}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *running) inPod(t *testing.T, cluster int, command ...string) (string, error) {
	t.Helper()
	return r.kubectl(t, cluster, append([]string{"exec", podName, "--"}, command...)...)
}

// curl calls a URL from the pod of a cluster and returns what curl says.
func (r *running) curl(t *testing.T, cluster int, url string) (string, error) {
	t.Helper()
	return r.inPod(t, cluster, "curl", "-sS", "--max-time", "3", url)
}

func (r *running) podAddress(t *testing.T, cluster int) netip.AddrPort {
	t.Helper()
	addr, err := netip.ParseAddr(r.pods[cluster].Status.PodIP)
	require.NoError(t, err)
	return netip.AddrPortFrom(addr, podPort)
}

func create(t *testing.T, s *suite) {
	begin := time.Now()
	s.first = s.up(t, labName, scenario.SeparateNetworks)
	t.Logf("two clusters with a ready pod each: %s", time.Since(begin).Round(100*time.Millisecond))
	for i, c := range s.first.Clusters {
		nodes, err := s.first.kube[i].CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.NotEmpty(t, nodes.Items)
		require.Contains(t, nodes.Items[0].Name, c.Name(), "the lab's kubeconfig and Create speak of the same cluster")
		out, err := s.first.kubectl(t, i, "get", "nodes", "-o", "name")
		require.NoError(t, err, out)
		require.Contains(t, out, nodes.Items[0].Name)
	}
	require.NotEqual(t, s.first.Clusters[0].RESTConfig().Host, s.first.Clusters[1].RESTConfig().Host)
}

func createAgain(t *testing.T, s *suite) {
	begin := time.Now()
	again, err := lab.Up(t.Context(), s.options(labName, scenario.SeparateNetworks))
	require.NoError(t, err)
	defer again.Close()
	require.Less(t, time.Since(begin), wait.Bound(againWithin))
	for i, c := range again.Clusters {
		require.Equal(t, s.first.Clusters[i].RESTConfig().Host, c.RESTConfig().Host)
		require.Equal(t, s.first.pods[i].UID, readyPod(t, s.first.kube[i]).UID, "the cluster was made anew")
	}
}

func dial(t *testing.T, s *suite) {
	answersHTTP(t, func(ctx context.Context) (net.Conn, error) {
		return s.first.Clusters[0].Dial(ctx, s.first.podAddress(t, 0))
	})
	api, err := s.first.kube[0].CoreV1().Services(namespace).Get(t.Context(), "kubernetes", metav1.GetOptions{})
	require.NoError(t, err)
	conn, err := s.first.Clusters[0].Dial(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(api.Spec.ClusterIP), 443))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, err = s.first.Clusters[0].Dial(t.Context(), netip.AddrPortFrom(s.first.podAddress(t, 0).Addr(), 9))
	require.Error(t, err, "nobody listens there")
}

// answersHTTP makes a call over a connection to the app.
func answersHTTP(t *testing.T, connect func(context.Context) (net.Conn, error)) {
	t.Helper()
	conn, err := connect(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "200 OK")
	require.Contains(t, string(answer), "Hostname="+podName)
}

func dns(t *testing.T, s *suite) {
	service(t, s.first.kube[0], "by-name", corev1.ServiceTypeClusterIP)
	for _, name := range []string{"by-name", "by-name." + namespace + ".svc.cluster.local"} {
		require.NoError(t, wait.Until(t.Context(), name+" to answer", wait.Options{Within: 10 * time.Second}, func(context.Context) error {
			out, err := s.first.curl(t, 0, "http://"+name+"/")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}))
	}
	out, err := s.first.curl(t, 0, "http://no-such."+namespace+".svc.cluster.local/")
	require.Error(t, err, out)
	require.Contains(t, out, "curl: (6)", "wanted the answer that there is no such name, before curl gives up waiting for any")
	// Of the world, too: a cluster that reaches nothing else must not wait for its name servers.
	const patienceOfCoreDNS = 2 * time.Second
	fastest := time.Hour // of a few: it would wait each time, and a busy machine does not
	for tries := 0; tries < 5 && fastest >= patienceOfCoreDNS; tries++ {
		begin := time.Now()
		out, err = s.first.curl(t, 0, "http://world.example/")
		fastest = min(fastest, time.Since(begin))
		require.Error(t, err, out)
		require.Contains(t, out, "curl: (6)")
	}
	require.Less(t, fastest, patienceOfCoreDNS, out)
}

// pulls tells how often a cluster's kubelets have asked a registry for an image.
func pulls(t *testing.T, kube kubernetes.Interface) (count int) {
	t.Helper()
	nodes, err := kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, node := range nodes.Items {
		text, err := kube.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", node.Name, "proxy/metrics").DoRaw(t.Context())
		require.NoError(t, err)
		require.Contains(t, string(text), `kubelet_runtime_operations_total{operation_type="create_container"}`, "the kubelet counts otherwise")
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, `kubelet_runtime_operations_total{operation_type="pull_image"}`); ok {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				require.NoError(t, err)
				count += n
			}
		}
	}
	return count
}

func images(t *testing.T, s *suite) {
	for i, kube := range s.first.kube {
		require.Zero(t, pulls(t, kube), "of %s", s.first.Clusters[i].Name())
	}
	const name = "no-such-image"
	kube := s.first.kube[0]
	pods := kube.CoreV1().Pods(namespace)
	_, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: name, Image: "registry.k8s.io/pause:0.0-" + name, ImagePullPolicy: corev1.PullIfNotPresent}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			"the pull to be refused",
			wait.Options{Within: 20 * time.Second, Every: 500 * time.Millisecond},
			func(ctx context.Context) error {
				pod, err := pods.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				for _, c := range pod.Status.ContainerStatuses {
					if w := c.State.Waiting; w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") {
						return nil
					}
				}
				return fmt.Errorf("seen %v", pod.Status.ContainerStatuses)
			},
		),
	)
	require.NotZero(t, pulls(t, kube), "pulls are not counted")
	require.NoError(t, pods.Delete(t.Context(), name, metav1.DeleteOptions{}))
}

// service exposes the pod of a cluster.
func service(t *testing.T, kube kubernetes.Interface, name string, kind corev1.ServiceType) {
	t.Helper()
	_, err := kube.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Type: kind, Selector: map[string]string{"app": podName},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(podPort)}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// balanced is the address that the second cluster's LoadBalancer has been given.
func (s *suite) balanced(t *testing.T) string {
	t.Helper()
	var address string
	require.NoError(
		t,
		wait.Until(t.Context(), "an address for the Service", wait.Options{Within: addressWithin}, func(ctx context.Context) error {
			service, err := s.first.kube[1].CoreV1().Services(namespace).Get(ctx, "balanced", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(service.Status.LoadBalancer.Ingress) == 0 {
				return errors.New("no address yet")
			}
			address = service.Status.LoadBalancer.Ingress[0].IP
			return nil
		}),
	)
	return address
}

func loadBalancer(t *testing.T, s *suite) {
	service(t, s.first.kube[1], "balanced", corev1.ServiceTypeLoadBalancer)
	address := s.balanced(t)
	s.reached(t)
	answersHTTP(t, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address+":80")
	})
}

// reached shows that the first cluster reaches the second one's LoadBalancer.
func (s *suite) reached(t *testing.T) {
	t.Helper()
	out, err := s.first.curl(t, 0, "http://"+s.balanced(t)+"/")
	require.NoError(t, err, out)
	require.Contains(t, out, "Hostname="+podName)
}

func (s *suite) notReached(t *testing.T, why string) {
	t.Helper()
	out, err := s.first.curl(t, 0, "http://"+s.balanced(t)+"/")
	require.Error(t, err, "%s, and it answers: %s", why, out)
	noAnswer(t, out)
}

// noAnswer shows that it was curl that got none, and not kubectl that could not run it.
func noAnswer(t *testing.T, out string) {
	t.Helper()
	require.Regexp(t, `curl: \((7|28)\)`, out, "7 is a refusal, 28 silence")
}

func separateNetworks(t *testing.T, s *suite) {
	url := fmt.Sprintf("http://%s/", s.first.podAddress(t, 1))
	out, err := s.first.curl(t, 1, url)
	require.NoError(t, err, "its own cluster has to reach it: %s", out)
	out, err = s.first.curl(t, 0, url)
	require.Error(t, err, "the other cluster reaches it: %s", out)
	noAnswer(t, out)
}

func volumeRefresh(t *testing.T, s *suite) {
	value := s.contains(t, "/changing/value", "old")
	_, err := s.first.kube[0].CoreV1().Secrets(namespace).Update(t.Context(), secret("changing", "new"), metav1.UpdateOptions{})
	require.NoError(t, err)
	begin := time.Now()
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			"the new Secret in the pod",
			wait.Options{Within: refreshWithin, Every: 200 * time.Millisecond},
			func(context.Context) error {
				return value("new")
			},
		),
	)
	t.Logf("after %s", time.Since(begin).Round(100*time.Millisecond))
}

// contains shows that a file of the first pod has a content, and returns the same question for other contents.
func (s *suite) contains(t *testing.T, file, content string) func(string) error {
	t.Helper()
	look := func(content string) error {
		out, err := s.first.inPod(t, 0, "cat", file)
		if err != nil || out != content {
			return fmt.Errorf("%s holds %q (%v)", file, out, err)
		}
		return nil
	}
	if content != "" {
		require.NoError(t, look(content))
	}
	return look
}

func projection(t *testing.T, s *suite) {
	s.contains(t, "/projected/name", podName)
	token, err := s.first.inPod(t, 0, "cat", "/projected/token")
	require.NoError(t, err, token)
	require.Len(t, strings.Split(token, "."), 3, "it is no token: %s", token)
	out, err := s.first.inPod(t, 0, "cat", "/projected/value")
	require.Error(t, err, "the Secret is not there yet: %s", out)
	_, err = s.first.kube[0].CoreV1().Secrets(namespace).Create(t.Context(), secret("late", "here"), metav1.CreateOptions{})
	require.NoError(t, err)
	look := s.contains(t, "/projected/value", "")
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			"the late Secret in the pod",
			wait.Options{Within: refreshWithin, Every: 200 * time.Millisecond},
			func(context.Context) error {
				return look("here")
			},
		),
	)
}

func execInPod(t *testing.T, s *suite) {
	for i := range s.first.Clusters {
		out, err := s.first.inPod(t, i, "sh", "-c", "echo out; echo err >&2; exit 7")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, out)
		require.Equal(t, 7, exit.ExitCode(), out)
		require.Contains(t, out, "out\n")
		require.Contains(t, out, "err\n")
	}
}

func logs(t *testing.T, s *suite) {
	const word = "written-by-the-conformance-suite"
	out, err := s.first.inPod(t, 0, "sh", "-c", "echo "+word+" > /proc/1/fd/1")
	require.NoError(t, err, out)
	require.NoError(t, wait.Until(t.Context(), "the word in the log", wait.Options{Within: 5 * time.Second}, func(context.Context) error {
		if out, err := s.first.kubectl(t, 0, "logs", podName); err != nil || !strings.Contains(out, word) {
			return fmt.Errorf("the log is %q (%v)", out, err)
		}
		return nil
	}))
	out, err = s.first.kubectl(t, 1, "logs", podName)
	require.NoError(t, err, out)
	require.NotContains(t, out, word, "both clusters give one log")
}

func portForward(t *testing.T, s *suite) {
	f := forward.New(s.first.Clusters[0].RESTConfig(), s.first.kube[0])
	defer f.Close()
	pod := s.first.pods[0]
	answersHTTP(t, func(ctx context.Context) (net.Conn, error) {
		return f.Dial(ctx, forward.Pod{UID: string(pod.UID), Namespace: namespace, Name: podName}, podPort)
	})
}

func dump(t *testing.T, s *suite) {
	for _, c := range s.first.Clusters {
		dir := t.TempDir()
		require.NoError(t, c.Dump(t.Context(), dir))
		var names []string
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Size() > 0 {
				names = append(names, path)
			}
			return err
		}))
		all := strings.Join(names, "\n")
		for _, component := range []string{"etcd", "kube-apiserver", "kubelet", "containerd"} {
			require.Contains(t, all, component, "nothing of it in the evidence of %s", c.Name())
		}
	}
}

// underlay skips the expectation where a cluster has none.
func (s *suite) underlay(t *testing.T, i int) cluster.Underlay {
	t.Helper()
	u, ok := s.first.Clusters[i].(cluster.Underlay)
	if !ok {
		t.Skipf("clusters of the provider %s offer no underlay: their machines are not ours", s.provider)
	}
	return u
}

func underlayBlock(t *testing.T, s *suite) {
	heal, err := s.underlay(t, 1).BlockPort(t.Context(), s.first.Clusters[0], 80)
	require.NoError(t, err)
	s.notReached(t, "the port is blocked")
	require.NoError(t, heal(t.Context()))
	s.reached(t)
}

func underlaySever(t *testing.T, s *suite) {
	u := s.underlay(t, 0)
	heal, err := u.Sever(t.Context(), s.first.Clusters[1])
	require.NoError(t, err)
	s.notReached(t, "the link is severed")
	require.NoError(t, heal(t.Context()))
	require.NoError(t, heal(t.Context()), "healing twice is allowed")
	s.reached(t)

	healer, ok := u.(cluster.Healer)
	if !ok {
		return
	}
	_, err = u.Sever(t.Context(), s.first.Clusters[1])
	require.NoError(t, err)
	s.notReached(t, "the link is severed")
	require.NoError(t, healer.HealAll(t.Context()))
	s.reached(t)
}

// answers tells whether the first cluster's API does, within a second on a machine of usual speed.
func (s *suite) answers(ctx context.Context) error {
	ctx, cancel := wait.Timeout(ctx, time.Second)
	defer cancel()
	_, err := s.first.kube[0].CoreV1().Pods(namespace).Get(ctx, podName, metav1.GetOptions{})
	return err
}

func underlayComponents(t *testing.T, s *suite) {
	const api = "kube-apiserver"
	u := s.underlay(t, 0)
	require.IsNonDecreasing(t, u.Components())
	require.Contains(t, u.Components(), api)

	heal, err := u.Stop(t.Context(), api)
	require.NoError(t, err)
	require.Error(t, s.answers(t.Context()), "a stopped API server answered")
	require.NoError(t, heal(t.Context()))
	require.NoError(t, wait.Until(t.Context(), "the API server to answer", wait.Options{}, s.answers))

	// A watch ends with the process that serves it.
	events, err := s.first.kube[0].CoreV1().Pods(namespace).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=none"})
	require.NoError(t, err)
	defer events.Stop()
	require.NoError(t, u.Kill(t.Context(), api))
	select {
	case event, open := <-events.ResultChan():
		require.True(t, !open || event.Type == watch.Error, "wanted the end of the watch, seen %v", event)
	case <-time.After(wait.Bound(10 * time.Second)):
		t.Fatal("the API server was killed, and a watch on it goes on")
	}
	require.NoError(t, wait.Until(t.Context(), "the API server to be there again", wait.Options{Within: backWithin}, s.answers))

	err = u.Kill(t.Context(), "no-such")
	require.Error(t, err)
	require.Contains(t, err.Error(), api, "the error does not tell what there is")
}

func freezePod(t *testing.T, s *suite) {
	f, ok := s.first.Clusters[1].(cluster.PodFreezer)
	if !ok {
		t.Skipf("pods of the provider %s cannot be frozen: their machines are not ours", s.provider)
	}
	frozen := func(want ...string) {
		t.Helper()
		uids, err := f.FrozenPods(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, uids)
	}
	uid := string(s.first.pods[1].UID)
	frozen()
	require.NoError(t, f.FreezePod(t.Context(), uid))
	frozen(uid)
	s.notReached(t, "the pod is frozen")
	require.NoError(t, f.ThawPod(t.Context(), uid))
	frozen()
	s.reached(t)

	require.NoError(t, f.FreezePod(t.Context(), uid))
	again, err := lab.Open(s.home, labName) // as another process does
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, again.Clusters[1].(cluster.Healer).HealAll(t.Context()))
	frozen()
	s.reached(t)
}

func pause(t *testing.T, s *suite) {
	p, ok := s.first.Clusters[0].(cluster.Pauser)
	if !ok {
		t.Skipf("clusters of the provider %s cannot be paused", s.provider)
	}
	heal, err := p.Pause(t.Context())
	require.NoError(t, err)
	require.Error(t, s.answers(t.Context()), "a paused cluster answered")
	require.NoError(t, heal(t.Context()))
	require.NoError(t, wait.Until(t.Context(), "the API server to answer", wait.Options{}, s.answers))
}

func secondLab(t *testing.T, s *suite) {
	s.second = s.up(t, secondName, scenario.SharedNetwork)
	host := s.second.Clusters[0].RESTConfig().Host
	require.NotContains(t, []string{s.first.Clusters[0].RESTConfig().Host, s.first.Clusters[1].RESTConfig().Host}, host)
	out, err := s.first.curl(t, 0, strings.Replace(host, "https", "http", 1))
	require.Error(t, err, "one lab reaches the other: %s", out)
	noAnswer(t, out)
	out, err = s.first.curl(t, 0, fmt.Sprintf("http://%s/", s.second.podAddress(t, 0)))
	require.Error(t, err, "one lab reaches pods of the other: %s", out)
	noAnswer(t, out)
}

// needSecond fails where an expectation before this one has left no second lab.
func (s *suite) needSecond(t *testing.T) {
	t.Helper()
	require.NotNil(t, s.second, "there is no second lab")
}

func sharedNetwork(t *testing.T, s *suite) {
	s.needSecond(t)
	for from := range s.second.Clusters {
		out, err := s.second.curl(t, from, fmt.Sprintf("http://%s/", s.second.podAddress(t, 1-from)))
		require.NoError(t, err, out)
		require.Contains(t, out, "Hostname="+podName)
	}
}

func deleteSecond(t *testing.T, s *suite) {
	s.needSecond(t)
	s.second.Close()
	require.NotEmpty(t, labs.Left(t, s.home, secondName), "the test does not see what a lab has on this machine")
	require.NoError(t, lab.Down(t.Context(), s.home, secondName))
	require.Empty(t, labs.Left(t, s.home, secondName))
	var unknown *lab.UnknownLabError
	require.ErrorAs(t, lab.Down(t.Context(), s.home, secondName), &unknown)
	s.reached(t)
}

// begun tells that something of the second lab is there, and not only its folder: it is far from its end then, on a busy
// machine as well.
func (s *suite) begun(t *testing.T) func() bool {
	return func() bool {
		return slices.ContainsFunc(labs.Left(t, s.home, secondName), func(thing string) bool { return !filepath.IsAbs(thing) })
	}
}

func (s *suite) upArgs() []string {
	return []string{"up", "--provider", s.provider, "--name", secondName, "--topology", string(scenario.NoMesh)}
}

func interrupted(t *testing.T, s *suite) {
	code := eastwest.When(t, s.begun(t), os.Interrupt, s.upArgs()...)
	require.Equal(t, 130, code)
	require.Empty(t, labs.Left(t, s.home, secondName))
	require.Equal(t, lab.State(""), eastwest.State(t, secondName))
}

func killed(t *testing.T, s *suite) {
	code := eastwest.When(t, s.begun(t), syscall.SIGKILL, s.upArgs()...)
	require.NotZero(t, code, "it was complete")
	require.NotEmpty(t, labs.Left(t, s.home, secondName), "it was killed before it had begun: nothing is shown")
	require.NotEqual(t, lab.Running, eastwest.State(t, secondName))
	out, code := eastwest.Run(t, "down", secondName)
	require.Zero(t, code, out)
	require.Empty(t, labs.Left(t, s.home, secondName))
}

func deleteFirst(t *testing.T, s *suite) {
	s.first.Close()
	require.NotEmpty(t, labs.Left(t, s.home, labName), "the test does not see what a lab has on this machine")
	require.NoError(t, lab.Down(t.Context(), s.home, labName))
	require.Empty(t, labs.Left(t, s.home, labName))
}
