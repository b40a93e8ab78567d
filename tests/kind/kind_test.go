//go:build integration

// Package kind tests the provider kind on this machine: real clusters without a mesh. It needs a Docker Engine and the
// bundle's node image: go test -tags integration ./tests/kind
package kind

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const (
	labName = "kind-test"
	podPort = 8080
)

var command string

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &command))
}

// need skips the test where there is no Docker, or no node image that needs no registry.
func need(t *testing.T) (home string) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	if err := kind.Answers(t.Context()); err != nil {
		t.Skip(err)
	}
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	b, err := bundle.Open(dir)
	require.NoError(t, err)
	if _, _, ok := b.KindNodeImage(); !ok {
		t.Skip("the bundle has no node image for kind: eastwest bundle build --with kind")
	}
	home, err = lab.Home()
	require.NoError(t, err)
	return home
}

// docker returns the lines that a docker command prints.
func docker(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.Fields(string(out))
}

// left lists what Docker has of a lab.
func left(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	for _, list := range [][]string{{"ps", "--all"}, {"image", "ls"}, {"network", "ls"}} {
		all = append(all, docker(t, append(list, "--quiet", "--filter", "label="+cluster.LabLabel+"="+name)...)...)
	}
	return all
}

func options(home, name string) lab.Options {
	return lab.Options{Home: home, Name: name, Provider: lab.Kind, Topology: scenario.Topology{Kind: scenario.NoMesh}}
}

// startPod runs the lab's app and returns its address once it is ready.
func startPod(t *testing.T, kube kubernetes.Interface) netip.Addr {
	t.Helper()
	_, err := kube.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Labels: map[string]string{"app": "app"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: bundle.Hub + "/app:" + bundle.Tag, ImagePullPolicy: corev1.PullNever, Args: []string{"--port", fmt.Sprint(podPort)},
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(podPort)}}},
		}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	var addr netip.Addr
	require.NoError(t, wait.Until(t.Context(), "the pod to be ready", wait.Options{Within: time.Minute}, func(ctx context.Context) error {
		pod, err := kube.CoreV1().Pods("default").Get(ctx, "app", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				addr, err = netip.ParseAddr(pod.Status.PodIP)
				return err
			}
		}
		return fmt.Errorf("phase %s", pod.Status.Phase)
	}))
	return addr
}

// curl calls a URL from the pod of a cluster.
func curl(t *testing.T, l *lab.Lab, in, url string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(l.Env().BinDir, "kubectl"), "--kubeconfig", l.Env().Kubeconfig, "--context", in,
		"exec", "app", "--", "curl", "-sS", "--max-time", "4", url).CombinedOutput()
	return string(out), err
}

func TestTwoClusters(t *testing.T) {
	home := need(t)
	l, err := lab.Up(t.Context(), options(home, labName))
	require.NoError(t, err)
	t.Cleanup(func() {
		l.Close()
		require.NoError(t, lab.Down(context.Background(), home, labName))
	})
	a, b := l.Clusters[0].(*kind.Node), l.Clusters[1].(*kind.Node)
	var pods []netip.Addr
	var kube []kubernetes.Interface
	for _, c := range l.Clusters {
		k, err := kubernetes.NewForConfig(c.RESTConfig())
		require.NoError(t, err)
		kube, pods = append(kube, k), append(pods, startPod(t, k))
	}

	t.Run("everything carries the lab's labels", func(t *testing.T) {
		nodes := docker(t, "ps", "--quiet", "--filter", "label="+cluster.LabLabel+"="+labName, "--filter", "label="+cluster.IDLabel)
		require.Len(t, nodes, 2)
		require.Len(t, left(t, labName), 2+2+1, "two nodes, their images and a network")
	})

	t.Run("a pod is dialed through its node", func(t *testing.T) {
		conn, err := a.Dial(t.Context(), netip.AddrPortFrom(pods[0], podPort))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	})

	t.Run("pod ranges are not routed to each other, and nothing leaves", func(t *testing.T) {
		for _, url := range []string{fmt.Sprintf("http://%s:%d/", pods[1], podPort), "http://198.51.100.1/"} {
			_, err := curl(t, l, "cluster-a", url)
			require.Error(t, err, url)
		}
		out, err := curl(t, l, "cluster-b", fmt.Sprintf("http://%s:%d/", pods[1], podPort))
		require.NoError(t, err, out)
		require.NotContains(t, docker(t, "exec", a.Container(), "ip", "route"), "default")
	})

	t.Run("a LoadBalancer is reached from the other cluster, until the port is blocked or the link severed", func(t *testing.T) {
		services := kube[1].CoreV1().Services("default")
		_, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "app"},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(podPort)}},
		}}, metav1.CreateOptions{})
		require.NoError(t, err)
		var url string
		require.NoError(t, wait.Until(t.Context(), "an address for the Service", wait.Options{Within: 5 * time.Second}, func(ctx context.Context) error {
			s, err := services.Get(ctx, "app", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(s.Status.LoadBalancer.Ingress) == 0 {
				return errors.New("no address yet")
			}
			url = "http://" + s.Status.LoadBalancer.Ingress[0].IP + "/"
			return nil
		}))
		answers := func(t *testing.T) {
			t.Helper()
			require.NoError(t, wait.Until(t.Context(), "an answer", wait.Options{Within: 10 * time.Second}, func(context.Context) error {
				out, err := curl(t, l, "cluster-a", url)
				if err != nil {
					return errors.New(out)
				}
				return nil
			}))
		}
		answers(t)
		for what, do := range map[string]func() (cluster.Heal, error){
			"block":       func() (cluster.Heal, error) { return b.BlockPort(t.Context(), a, 80) },
			"sever":       func() (cluster.Heal, error) { return a.Sever(t.Context(), b) },
			"sever there": func() (cluster.Heal, error) { return b.Sever(t.Context(), a) },
			"pause":       func() (cluster.Heal, error) { return b.Pause(t.Context()) },
		} {
			heal, err := do()
			require.NoError(t, err, what)
			_, err = curl(t, l, "cluster-a", url)
			require.Error(t, err, what)
			require.NoError(t, heal(t.Context()))
			require.NoError(t, heal(t.Context()), "healing twice is allowed")
			answers(t)
		}
	})

	t.Run("components stop, go on, and come back", func(t *testing.T) {
		_, err := a.Stop(t.Context(), "kube-apiserver")
		require.NoError(t, err)
		faults, err := a.Faults(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"kube-apiserver is stopped"}, faults)
		require.NoError(t, a.HealAll(t.Context()))
		for _, component := range []string{"kubelet", "kube-scheduler"} {
			require.NoError(t, a.Kill(t.Context(), component))
			require.NoError(t, wait.Until(t.Context(), component+" to be there again", wait.Options{Within: 90 * time.Second}, func(ctx context.Context) error {
				status, err := a.Status(ctx)
				if err != nil {
					return err
				}
				for _, c := range status.Components {
					if c.Name == component && c.PID == 0 {
						return errors.New("it does not run")
					}
				}
				return nil
			}))
		}
		require.ErrorContains(t, a.Kill(t.Context(), "no-such"), "there are [containerd etcd")
	})

	t.Run("evidence", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, a.Dump(t.Context(), dir))
		journal, err := os.ReadFile(filepath.Join(dir, "journal.log"))
		require.NoError(t, err)
		require.Contains(t, string(journal), "kubelet")
	})

	t.Run("up again is the same lab", func(t *testing.T) {
		again, err := lab.Up(t.Context(), options(home, labName))
		require.NoError(t, err)
		defer again.Close()
		require.Equal(t, a.RESTConfig().Host, again.Clusters[0].RESTConfig().Host)
	})

	t.Run("a lab of that name from another home, and a range that is taken, are refused", func(t *testing.T) {
		_, err := lab.Up(t.Context(), options(t.TempDir(), labName))
		require.ErrorContains(t, err, "was made with another EASTWEST_HOME")
		o := options(home, labName+"-2")
		taken, err := netip.ParseAddrPort(strings.TrimPrefix(a.RESTConfig().Host, "https://"))
		require.NoError(t, err)
		prefix, err := taken.Addr().Prefix(16)
		require.NoError(t, err)
		o.Range = prefix.String()
		_, err = lab.Up(t.Context(), o)
		require.ErrorContains(t, err, "is taken by lab "+labName)
		require.Empty(t, left(t, o.Name))
		require.NoError(t, a.Alive(t.Context()))
	})
}

// TestKindClusterOfTheUser stands for every cluster that is not ours: what kind calls like one of the lab's stays.
func TestKindClusterOfTheUser(t *testing.T) {
	home := need(t)
	const name = labName + "-user"
	image := docker(t, "image", "ls", "--quiet")
	if len(image) == 0 {
		t.Skip("Docker has no image yet to stand for the user's cluster")
	}
	container := name + "-cluster-a-control-plane"
	docker(t, "create", "--name", container, "--label", "io.x-k8s.kind.cluster="+name+"-cluster-a", image[0], "true")
	t.Cleanup(func() {
		out, err := exec.Command("docker", "rm", container).CombinedOutput()
		require.NoError(t, err, "it has not been left alone: %s", out)
	})
	_, err := lab.Up(t.Context(), options(home, name))
	require.ErrorContains(t, err, "that is not this lab's")
	require.Empty(t, left(t, name))
}

// TestNothingIsLeft interrupts the making of a lab and kills it, each while kind is at work: the library in our process, and
// kind's own command.
func TestNothingIsLeft(t *testing.T) {
	home := need(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		upName := fmt.Sprintf("%s-%d", labName, sig)
		leavesNothing(t, home, sig, upName, "up", "--name", upName, "--provider", lab.Kind, "--topology", "none")
		if os.Geteuid() == 0 { // it compares with embedded
			leavesNothing(t, home, sig, "", "bench", "providers", "--runs", "1")
		}
	}
}

// leavesNothing sends a command a signal once it has made a node of a lab. A lab without a name is called after the process.
func leavesNothing(t *testing.T, home string, sig syscall.Signal, name string, args ...string) {
	t.Helper()
	t.Run(args[0]+" "+sig.String(), func(t *testing.T) {
		up := exec.CommandContext(t.Context(), command, args...)
		require.NoError(t, up.Start())
		if name == "" {
			name = fmt.Sprintf("bench-%d", up.Process.Pid)
		}
		require.NoError(t, wait.Until(t.Context(), "a node to be there", wait.Options{Within: 2 * time.Minute}, func(context.Context) error {
			if len(docker(t, "ps", "--quiet", "--filter", "label="+cluster.LabLabel+"="+name)) == 0 {
				return errors.New("none yet")
			}
			return nil
		}))
		require.NoError(t, up.Process.Signal(sig))
		require.Error(t, up.Wait())
		if sig == syscall.SIGKILL {
			require.NoError(t, lab.Down(t.Context(), home, name))
		}
		require.Empty(t, left(t, name))
		var unknown *lab.UnknownLabError
		require.ErrorAs(t, lab.Down(t.Context(), home, name), &unknown)
	})
}
