package mesh

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// guest is a cluster with other users.
type guest struct{ named }

func (guest) Context() string { return "kind-east" }
func (guest) Adopt()          {}

// If the cluster has other users, istiod and its webhook are restricted to the lab's namespaces.
func TestMeshAmongOthersKeepsToItself(t *testing.T) {
	for _, kind := range []string{"istio-sidecar-injector", "istio-sidecar-injector-" + IngressNamespace} {
		t.Run(kind, func(t *testing.T) {
			m := twoMembers(t, SharedRoot)
			c := m.Members[1]
			o := Options{Istio: istio(t), Cache: t.TempDir(), Shared: true}
			if kind != "istio-sidecar-injector" { // the gateway in front of an external istiod has a control plane of its own
				m.Clusters = []ClusterSpec{
					{Name: "cluster-a", Network: "network-a", Primary: "cluster-b"},
					{Name: "cluster-b", Network: "network-a", Primary: "cluster-b", Config: "cluster-a"},
				}
				for i, spec := range m.Clusters {
					m.Members[i].Spec = spec
				}
			}
			r, err := c.render(t.Context(), o, netip.Addr{})
			require.NoError(t, err)
			hooks := as[struct {
				Webhooks []struct {
					Name              string
					NamespaceSelector metav1.LabelSelector
				}
			}](t, append(r.control, r.ingress...), "MutatingWebhookConfiguration", kind)
			require.Len(t, hooks.Webhooks, 4)
			for _, h := range hooks.Webhooks {
				require.Equal(t, map[string]string{cluster.LabLabel: "test"}, h.NamespaceSelector.MatchLabels, h.Name)
				require.NotEmpty(t, h.NamespaceSelector.MatchExpressions, "%s: Istio's own conditions stay", h.Name)
			}
			settings := as[struct{ Data map[string]string }](t, append(r.ingress, r.control...), "ConfigMap", "istio")
			require.Contains(t, settings.Data["mesh"], "discoverySelectors:\n- matchLabels:\n    "+cluster.LabLabel+": test")
		})
	}
}

// Preflight looks for every object that Install makes.
func TestEverythingThatIsMadeIsLookedFor(t *testing.T) {
	m := twoMembers(t, SharedRoot)
	o := Options{Istio: istio(t), Cache: t.TempDir(), Shared: true}
	objects, err := m.Members[0].makes(t.Context(), o)
	require.NoError(t, err)
	var names []string
	for _, o := range objects {
		names = append(names, o.String())
		require.NotEmpty(t, o.path())
	}
	for _, name := range []string{
		"Namespace istio-system", "Namespace production", "Secret istio-system/cacerts", "Secret istio-system/istio-remote-secret-cluster-b",
		"Secret istio-system/istio-reader-service-account-istio-remote-secret-token",
		"CustomResourceDefinition gateways.networking.istio.io",
		"MutatingWebhookConfiguration istio-sidecar-injector", "ValidatingWebhookConfiguration istio-validator-istio-system",
		"ClusterRole istiod-clusterrole-istio-system", "ClusterRoleBinding istio-reader-clusterrole-istio-system",
		"Deployment istio-system/istiod",
		"Deployment istio-system/istio-eastwestgateway", "Gateway istio-system/cross-network-gateway", "Deployment production/echo",
		"DestinationRule production/echo-fresh", "Pod production/my-pod",
	} {
		require.Contains(t, names, name)
	}
}

func TestAdoptionMakesNothingOfIstios(t *testing.T) {
	m := twoMembers(t, SharedRoot)
	m.Adopted = true
	objects, err := m.Members[0].makes(t.Context(), Options{Istio: istio(t), Cache: t.TempDir()})
	require.NoError(t, err)
	require.NotEmpty(t, objects)
	for _, o := range objects {
		if o.Kind == "Namespace" {
			require.Equal(t, AppNamespace, o.Name)
		} else {
			require.Equal(t, AppNamespace, o.Namespace, o.String())
		}
	}
	written, err := filepath.Glob(filepath.Join(m.dir, "*", "*.yaml"))
	require.NoError(t, err)
	for _, file := range written {
		require.Contains(t, []string{"namespaces.yaml", "services.yaml", "rules.yaml", "workloads.yaml", "my-pod.yaml"}, filepath.Base(file))
	}
	_, err = m.CA("cluster-a")
	require.ErrorIs(t, err, ErrAdopted)
}

func TestWhatAMeshCovers(t *testing.T) {
	m := twoMembers(t, SharedRoot)
	m.id = "7c1f"
	at := func(namespace, name string, labels map[string]string) metav1.Object {
		return &metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}
	}
	ours, istios := cluster.Labels("test", "7c1f"), map[string]string{"app.kubernetes.io/part-of": "istio"}
	for _, c := range []struct {
		what            string
		object          metav1.Object
		covered, adopts bool
	}{
		{"an app", at("production", "echo", nil), true, true},
		{"Istio's namespace", at("", "istio-system", nil), true, true},
		{"a pod of others", at("shop", "echo", nil), false, false},
		{"a namespace of others", at("", "shop", nil), false, false},
		{"a Secret that was moved there", at("shop", "cacerts", ours), true, true},
		{"a role", at("", "istiod-clusterrole-istio-system", ours), true, true},
		{"a role of another lab", at("", "istiod-clusterrole-istio-system", cluster.Labels("test", "another")), false, false},
		{"a role of an Istio that is there", at("", "istiod-clusterrole-istio-system", istios), false, true},
	} {
		m.Members[0].Cluster = guest{}
		m.Adopted = false
		require.Equal(t, c.covered, m.Members[0].Covers(c.object), c.what)
		m.Adopted = true
		require.Equal(t, c.adopts, m.Members[0].Covers(c.object), c.what)
		m.Members[0].Cluster = named{}
		require.True(t, m.Members[0].Covers(c.object), "the lab's own cluster: %s", c.what)
	}
}
