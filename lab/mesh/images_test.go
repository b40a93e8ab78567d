package mesh

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// images returns the images of all containers in an object, however deep they are.
func images(value any) (all []string) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			if image, ok := inner.(string); ok && name == "image" {
				all = append(all, image)
			}
			all = append(all, images(inner)...)
		}
	case []any:
		for _, inner := range v {
			all = append(all, images(inner)...)
		}
	}
	return all
}

// If a registry is named, every image comes from it, in every cluster of every topology.
func TestEveryImageIsOfTheHub(t *testing.T) {
	published := istio(t)
	published.Hub, published.Tag = "registry.example/istio", "1.2.3"
	cache := t.TempDir()
	a, b := ClusterSpec{Name: "cluster-a", Network: "network-a"}, ClusterSpec{Name: "cluster-b", Network: "network-b"}
	of := func(c ClusterSpec, primary, config string) ClusterSpec {
		c.Primary, c.Config = primary, config
		return c
	}
	for name, clusters := range map[string][]ClusterSpec{
		"multi-primary":  {of(a, "cluster-a", ""), of(b, "cluster-b", "")},
		"primary-remote": {of(a, "cluster-a", ""), of(b, "cluster-a", "")},
		"external": {
			of(a, "external", ""), of(b, "external", ""),
			{Name: "external", Network: "network-a", Primary: "external", Config: "cluster-a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Mesh{Topology: Topology{MeshID: DefaultMeshID, Trust: SharedRoot, Clusters: clusters}, Lab: "test", dir: t.TempDir()}
			require.NoError(t, m.Validate())
			for _, spec := range clusters {
				m.Members = append(m.Members, &Member{Cluster: named{name: spec.Name}, Spec: spec, mesh: m})
			}
			seen := map[string]bool{}
			for _, c := range m.Members {
				r, err := c.render(t.Context(), Options{Istio: published, Cache: cache}, netip.MustParseAddr("10.1.1.1"))
				require.NoError(t, err)
				for _, objects := range [][]object{
					r.control, r.gateway, r.gatewayPods, r.ingress, r.ingressPods, r.services, r.rules, r.exposed, r.istiod, r.workloads, r.myPod,
				} {
					for _, o := range objects {
						require.NotContains(t, string(o.JSON), bundle.Hub+"/", o)
						require.NotContains(t, string(o.JSON), bundle.Tag, o)
						var content any
						require.NoError(t, json.Unmarshal(o.JSON, &content))
						for _, image := range images(content) {
							if seen[image] = true; image == "auto" {
								continue // the injector puts its proxy there
							}
							require.True(t, strings.HasPrefix(image, published.Hub+"/"), "%s: %s", o, image)
							require.True(t, strings.HasSuffix(image, ":"+published.Tag), "%s: %s", o, image)
						}
						if o.Kind == "ConfigMap" && o.Name == "istio-sidecar-injector" {
							var values struct{ Global struct{ Hub, Tag string } }
							require.NoError(t, json.Unmarshal([]byte(as[corev1.ConfigMap](t, objects, o.Kind, o.Name).Data["values"]), &values))
							require.Equal(t, published.Hub, values.Global.Hub)
							require.Equal(t, published.Tag, values.Global.Tag)
						}
					}
				}
			}
			require.True(t, seen[published.Image("pilot")] && seen[published.Image("app")] && seen["auto"], "%v", seen)
			files, err := filepath.Glob(filepath.Join(m.dir, "*", "*"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, file := range files {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				require.NotContains(t, string(text), bundle.Hub, file)
			}
		})
	}
}

// waitingFor returns a pod of istiod that waits for its image.
func waitingFor(reason string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "istiod-1", Namespace: SystemNamespace, Labels: map[string]string{"app": Istiod}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "discovery", Image: "registry.invalid/istio/pilot:1",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "no such host"}},
		}}},
	}
}

func TestImageThatCannotBePulledEndsTheWait(t *testing.T) {
	for reason, within := range map[string]time.Duration{
		"ErrImagePull": pullPatience, "ImagePullBackOff": pullPatience, "ContainerCreating": UsuallyWithin,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := twoMembers(t, SharedRoot).Members[0]
			c.Kube = fake.NewClientset(waitingFor(reason))
			defer c.pods.close()
			start := time.Now()
			err := c.AwaitReady(t.Context(), Istiod)
			require.InDelta(t, within.Seconds(), time.Since(start).Seconds(), 1, reason)
			var pull *PullError
			if within == UsuallyWithin {
				require.ErrorIs(t, err, wait.ErrTimeout)
				require.NotErrorAs(t, err, &pull)
				return
			}
			require.ErrorAs(t, err, &pull)
			require.EqualError(t, err, "waiting for a Ready pod of istiod: cluster-a cannot pull registry.invalid/istio/pilot:1: no such host")
		})
	}
}

// A pull may take longer than other waits.
func TestImageThatIsBeingPulledIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := twoMembers(t, SharedRoot)
		m.pulls = true
		c, kube := m.Members[0], fake.NewClientset(waitingFor("ContainerCreating"))
		c.Kube = kube
		defer c.pods.close()
		time.AfterFunc(2*UsuallyWithin, func() {
			ready := waitingFor("")
			ready.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
			_, err := kube.CoreV1().Pods(ready.Namespace).Update(t.Context(), ready, metav1.UpdateOptions{})
			assert.NoError(t, err)
		})
		require.NoError(t, c.AwaitReady(t.Context(), Istiod))
	})
}

// If ctx ends before that, the error names the image, too.
func TestImageThatCouldNotBePulledInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := twoMembers(t, SharedRoot).Members[0]
		c.Kube = fake.NewClientset(waitingFor("ErrImagePull"))
		defer c.pods.close()
		ctx, cancel := context.WithTimeout(t.Context(), pullPatience/2)
		defer cancel()
		err := c.AwaitReady(ctx, Istiod)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var pull *PullError
		require.ErrorAs(t, err, &pull)
	})
}
