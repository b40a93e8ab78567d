package mesh

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// twoMembers returns a mesh without real clusters. It can write and render files.
func twoMembers(t *testing.T, trust Trust) *Mesh {
	t.Helper()
	m := &Mesh{Topology: twoClusters(trust), Lab: "test", dir: t.TempDir()}
	for _, spec := range m.Clusters {
		m.Members = append(m.Members, &Member{Cluster: named{name: spec.Name}, Spec: spec, mesh: m})
	}
	return m
}

// istio returns the Istio of the bundle. Rendering needs its istioctl.
func istio(t *testing.T) Istio {
	t.Helper()
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	b, err := bundle.Open(dir)
	if err != nil {
		t.Skipf("rendering needs the bundle's istioctl: %v", err)
	}
	return FromBundle(b)
}

func as[T any](t *testing.T, objects []object, kind, name string) T {
	t.Helper()
	for _, o := range objects {
		if o.Kind == kind && o.Name == name {
			var out T
			require.NoError(t, json.Unmarshal(o.JSON, &out))
			return out
		}
	}
	require.FailNow(t, "not rendered", "%s %s is not among %v", kind, name, objects)
	panic("unreachable")
}

type deployment struct {
	Spec struct {
		Replicas *int32
		Template corev1.PodTemplateSpec
	}
}

func TestRenderedMesh(t *testing.T) {
	m := twoMembers(t, SharedRoot)
	o := Options{Istio: istio(t), Cache: t.TempDir()}
	require.True(t, o.Istio.UpstreamEnvoy, "the bundle holds Envoy's own release today; this test knows only that")
	r, err := m.Members[1].render(t.Context(), o, netip.Addr{})
	require.NoError(t, err)

	require.NotEmpty(t, r.definitions)
	for _, crd := range r.definitions {
		require.Equal(t, "CustomResourceDefinition", crd.Kind)
	}

	d := as[deployment](t, r.control, "Deployment", Istiod)
	istiod := d.Spec.Template.Spec.Containers[0]
	require.Equal(t, bundle.Hub+"/pilot:"+bundle.Tag, istiod.Image)
	require.Zero(t, istiod.ReadinessProbe.InitialDelaySeconds)
	require.EqualValues(t, 1, istiod.ReadinessProbe.PeriodSeconds)
	env := map[string]string{}
	for _, e := range istiod.Env {
		env[e.Name] = e.Value
	}
	require.Equal(t, "cluster-b", env["CLUSTER_ID"])
	require.Equal(t, "false", env["PILOT_ENABLE_METADATA_EXCHANGE"])
	require.Equal(t, "false", env["PILOT_ENABLE_ALPN_FILTER"])
	require.Equal(t, "20ms", env["PILOT_DEBOUNCE_AFTER"])

	g := as[deployment](t, r.gatewayPods, "Deployment", Gateway)
	require.Equal(t, "gateway", g.Spec.Template.Annotations["inject.istio.io/templates"])
	require.Equal(t, "eastwestgateway", g.Spec.Template.Labels["istio"])
	require.Equal(t, "network-b", g.Spec.Template.Labels["topology.istio.io/network"])
	s := as[corev1.Service](t, r.gateway, "Service", Gateway)
	require.Equal(t, corev1.ServiceTypeLoadBalancer, s.Spec.Type)
	var ports []int32
	for _, p := range s.Spec.Ports {
		ports = append(ports, p.Port)
	}
	require.Equal(t, []int32{15021, 15443, 15012, 15017}, ports)

	// The template of the injector is text in a ConfigMap.
	injector := as[corev1.ConfigMap](t, r.control, "ConfigMap", "istio-sidecar-injector")
	var values struct {
		Global struct {
			ImagePullPolicy, Network, MeshID string
			MultiCluster                     struct{ ClusterName string }
			Proxy                            struct{ ReadinessPeriodSeconds, ReadinessInitialDelaySeconds int }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(injector.Data["values"]), &values))
	require.Equal(t, "IfNotPresent", values.Global.ImagePullPolicy)
	require.Equal(t, "network-b", values.Global.Network)
	require.Equal(t, "mesh1", values.Global.MeshID)
	require.Equal(t, "cluster-b", values.Global.MultiCluster.ClusterName)
	require.Equal(t, 1, values.Global.Proxy.ReadinessPeriodSeconds)
	require.Zero(t, values.Global.Proxy.ReadinessInitialDelaySeconds)

	var meshConfig struct {
		AccessLogFormat string
		DefaultConfig   struct {
			ProxyStatsMatcher struct{ InclusionSuffixes []string }
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(as[corev1.ConfigMap](t, r.control, "ConfigMap", "istio").Data["mesh"]), &meshConfig))
	require.Contains(t, meshConfig.AccessLogFormat, "%ENVIRONMENT(ISTIO_META_CLUSTER_ID)%")
	require.Contains(t, meshConfig.DefaultConfig.ProxyStatsMatcher.InclusionSuffixes, "ssl.fail_verify_error")

	for _, objects := range [][]object{r.control, r.gateway, r.gatewayPods, r.services, r.rules, r.workloads, r.myPod, r.exposed} {
		for _, o := range objects {
			require.False(t, strings.Contains(string(o.JSON), `"imagePullPolicy":"Always"`), "%s may pull", o)
			require.False(t, placeholder.Match(o.JSON), "%s has a name that nobody filled in", o)
		}
	}

	// The second time the result comes from the cache: istioctl is not needed.
	o.Istio.Istioctl = filepath.Join(t.TempDir(), "gone")
	again, err := m.Members[1].render(t.Context(), o, netip.Addr{})
	require.NoError(t, err)
	require.Equal(t, r, again)
	o.Istio.Digest = "another bundle"
	_, err = m.Members[1].render(t.Context(), o, netip.Addr{})
	require.ErrorContains(t, err, "rendering Istio's manifests")
	require.ErrorContains(t, err, "gone")
}

func TestAppsAreReachedByCluster(t *testing.T) {
	m := twoMembers(t, SharedRoot)
	o := Options{Istio: Istio{Hub: "hub", Tag: "tag"}}
	workloads, err := m.Members[0].write(m.Members[0].values(o), "workloads.yaml", []string{"apps/workloads.yaml"})
	require.NoError(t, err)
	for _, app := range []string{"client", "echo"} {
		d := as[deployment](t, workloads, "Deployment", app)
		pod := d.Spec.Template
		require.Equal(t, app, pod.Spec.ServiceAccountName)
		require.Equal(t, "cluster-a", pod.Labels[ClusterLabel])
		require.Equal(t, "hub/app:tag", pod.Spec.Containers[0].Image)
		require.Equal(t, corev1.PullIfNotPresent, pod.Spec.Containers[0].ImagePullPolicy)
		require.Contains(t, pod.Spec.Containers[0].Args, "--cluster=cluster-a")
		require.Contains(t, pod.Spec.Containers[0].Args, "--grpc=17070")
		require.Equal(t, "17070", pod.Annotations["traffic.sidecar.istio.io/excludeInboundPorts"])
	}
	a := m.Members[0]
	services, err := a.write(a.values(o), "services.yaml", []string{"apps/services.yaml"}, "apps/services-of-cluster.yaml")
	require.NoError(t, err)
	for _, name := range []string{"echo-cluster-a", "echo-cluster-a-fresh", "echo-cluster-b", "echo-cluster-b-fresh"} {
		s := as[corev1.Service](t, services, "Service", name)
		require.Equal(t, strings.TrimSuffix(strings.TrimPrefix(name, "echo-"), "-fresh"), s.Spec.Selector[ClusterLabel])
	}
	require.Equal(t, "http://echo-cluster-b-fresh.production.svc.cluster.local/", URL("echo", "cluster-b", true))
	require.Equal(t, "http://echo.production.svc.cluster.local/", URL("echo", "", false))
}

func TestExpandNamesWhatIsMissing(t *testing.T) {
	_, err := expand("apps/my-pod.yaml", map[string]string{"HUB": "h", "TAG": "t"})
	require.EqualError(t, err, "filling in manifests/apps/my-pod.yaml: no value for CLUSTER, APP, CLUSTER")
}

func TestDecodeTellsTheDocument(t *testing.T) {
	objects, err := decode([]byte("---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n"))
	require.NoError(t, err)
	require.Len(t, objects, 1)
	_, err = decode([]byte("apiVersion: v1\nkind: Namespace\n"))
	require.ErrorContains(t, err, "document 1: it needs apiVersion, kind and metadata.name")
	_, err = decode([]byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\na: [\n"))
	require.ErrorContains(t, err, "document 2")
}

func TestObjectsKnowTheirPath(t *testing.T) {
	for want, o := range map[string]object{
		"/api/v1/namespaces/n/configmaps/x": {
			APIVersion: "v1", Kind: "ConfigMap", Namespace: "n", Name: "x",
		},
		"/api/v1/namespaces/x": {
			APIVersion: "v1", Kind: "Namespace", Name: "x",
		},
		"/apis/networking.istio.io/v1/namespaces/n/gateways/x": {
			APIVersion: "networking.istio.io/v1", Kind: "Gateway", Namespace: "n", Name: "x",
		},
		"/apis/security.istio.io/v1/namespaces/n/authorizationpolicies/x": {
			APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Namespace: "n", Name: "x",
		},
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/x": {
			APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: "x",
		},
		"/apis/networking.k8s.io/v1/namespaces/n/ingresses/x": {
			APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Namespace: "n", Name: "x",
		},
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/x": {
			APIVersion: "admissionregistration.k8s.io/v1", Kind: "MutatingWebhookConfiguration", Name: "x",
		},
		"/apis/networking.k8s.io/v1/namespaces/n/networkpolicies/x": {
			APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Namespace: "n", Name: "x",
		},
		"/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/x": {
			APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice", Namespace: "n", Name: "x",
		},
		"/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers/x": {
			APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler", Namespace: "n", Name: "x",
		},
		"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-thing": {
			APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: "istio-thing",
		},
	} {
		require.Equal(t, want, o.path())
	}
}

func TestEverythingIsLabeled(t *testing.T) {
	secret, err := newSecret("x", "Opaque", nil, nil, nil)
	require.NoError(t, err)
	secret, err = secret.labeled(cluster.Labels("demo", "7c1f"))
	require.NoError(t, err)
	var s corev1.Secret
	require.NoError(t, json.Unmarshal(secret.JSON, &s))
	require.Equal(t, map[string]string{
		"app.kubernetes.io/managed-by": "eastwest", "eastwest.dev/lab": "demo", "eastwest.dev/lab-id": "7c1f",
	}, s.Labels)
}

func TestRemoteSecretIsAKubeconfig(t *testing.T) {
	o, err := newRemoteSecret("cluster-b", "https://10.0.0.2:6443", "a-token", []byte("a CA"))
	require.NoError(t, err)
	var s corev1.Secret
	require.NoError(t, json.Unmarshal(o.JSON, &s))
	require.Equal(t, "istio-remote-secret-cluster-b", s.Name)
	require.Equal(t, SystemNamespace, s.Namespace)
	require.Equal(t, corev1.SecretTypeOpaque, s.Type)
	require.Equal(t, "true", s.Labels["istio/multiCluster"])
	require.Equal(t, "cluster-b", s.Annotations["networking.istio.io/cluster"])
	config, err := clientcmd.RESTConfigFromKubeConfig(s.Data["cluster-b"])
	require.NoError(t, err)
	require.Equal(t, "https://10.0.0.2:6443", config.Host)
	require.Equal(t, "a-token", config.BearerToken)
	require.Equal(t, []byte("a CA"), config.CAData)
}

func TestSharedTrustHasOneRoot(t *testing.T) {
	for trust, same := range map[Trust]bool{SharedRoot: true, SeparateRoots: false} {
		m := twoMembers(t, trust)
		a, err := m.CA("cluster-a")
		require.NoError(t, err)
		b, err := m.CA("cluster-b")
		require.NoError(t, err)
		require.Equal(t, same, a.Root().Equal(b.Root()), "%s", trust)
		require.NotEqual(t, a.Name(), b.Name())
		again, err := m.CA("cluster-a")
		require.NoError(t, err)
		require.True(t, a.Certificate().Equal(again.Certificate()), "a CA is made once")
	}
	_, err := twoMembers(t, SelfSigned).CA("cluster-a")
	require.ErrorContains(t, err, "the lab has no CA for cluster-a")
}

func TestKeysAreForTheOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "ca-key.pem")
	require.NoError(t, writeFile(path, []byte("x"), 0o600))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file stays behind")
}

func TestAnswersAreRead(t *testing.T) {
	fields := echoFields(strings.Join([]string{
		"[0] Url=http://echo/", "[0] ActiveRequests=0", "[0] StatusCode=200",
		"[0 body] Cluster=cluster-b", "[0 body] Hostname=echo-1",
		"[0 body] RequestHeader=X-Forwarded-Client-Cert:By=spiffe://cluster.local/ns/production/sa/echo;Hash=ab;Subject=\"\";" +
			"URI=spiffe://cluster.local/ns/production/sa/client",
	}, "\n"))
	require.Equal(t, "200", fields["StatusCode"])
	require.Equal(t, "cluster-b", fields["Cluster"])
	server, client := identities(fields["X-Forwarded-Client-Cert"])
	require.Equal(t, "spiffe://cluster.local/ns/production/sa/echo", server)
	require.Equal(t, "spiffe://cluster.local/ns/production/sa/client", client)

	fields = echoFields("[0] StatusCode=503\n[0 body] upstream connect error, reset reason: remote connection failure")
	require.Equal(t, "503", fields["StatusCode"])
	require.Contains(t, fields[""], "remote connection failure")

	server, client = identities("")
	require.Empty(t, server+client)
}
