package observe

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestFactsHaveNames(t *testing.T) {
	for name, f := range map[string]Fact{
		"Secret cacerts":                              ObjectFact("", "", "Secret", "istio-system", "cacerts"),
		"Secret cacerts in namespace default":         ObjectFact("", "", "Secret", "default", "cacerts"),
		"Service echo in namespace production":        ObjectFact("", "", "Service", "production", "echo"),
		"Deployment istiod in namespace istio-system": ObjectFact("", "apps", "Deployment", "istio-system", "istiod"),
		"ClusterRole istiod":                          ObjectFact("", "rbac.authorization.k8s.io", "ClusterRole", "", "istiod"),
		"labels of namespace production":              ObjectFact("", "", "Namespace", "", "production"),
		"trust in use: echo in namespace production":  {Topic: ProxyTrust, Namespace: "production", Name: "echo"},
		"trust in use: istiod":                        {Topic: IstiodRoot},
		"trust in use: istiod's own certificate":      {Topic: IstiodCertificate},
		"address of the east-west gateway":            {Topic: GatewayAddress},
		"faults of the underlay":                      {Topic: UnderlayFaults},
	} {
		require.Equal(t, name, f.String())
		require.Equal(t, f.Topic == ProxyTrust || f.Topic == IstiodRoot || f.Topic == IstiodCertificate, f.IsTrust(), name)
	}
	f := ObjectFact("cluster-a", "", "Secret", "istio-system", "cacerts")
	require.True(t, f.IsObject("Secret", "istio-system", "cacerts"))
	require.False(t, f.IsObject("Secret", "default", "cacerts"))
}

func TestBaselineDiff(t *testing.T) {
	cacerts := ObjectFact("cluster-a", "", "Secret", "istio-system", "cacerts")
	trust := Fact{Cluster: "cluster-a", Topic: ProxyTrust, Namespace: "production", Name: "echo"}
	service := func(name string) Fact { return ObjectFact("cluster-b", "", "Service", "production", name) }
	was := Baseline{facts: map[Fact]string{cacerts: "1", trust: "old", service("echo"): "2"}}
	now := Baseline{facts: map[Fact]string{cacerts: "1", trust: "new", service("other"): "3"}}
	require.Empty(t, was.Diff(was))
	require.Equal(t, []string{
		"cluster-a: trust in use: echo in namespace production: was old, is new",
		"cluster-b: Service echo in namespace production: was 2, is nothing",
		"cluster-b: Service other in namespace production: was nothing, is 3",
	}, was.Diff(now))
	require.Equal(t, "3 facts of 2 clusters, 1 of them about the certificates in use", was.String())
	require.Equal(t, digest(map[string]string{"a": "1", "b": "2"}), digest(map[string]string{"b": "2", "a": "1"}))
	require.NotEqual(t, digest("a"), digest("b"))
}

// An object of one name may be of two kinds that are called the same, in two groups.
func TestBaselineTellsGroupsApart(t *testing.T) {
	istio := ObjectFact("cluster-a", "networking.istio.io", "Gateway", "istio-system", "x")
	kubernetes := ObjectFact("cluster-a", "gateway.networking.k8s.io", "Gateway", "istio-system", "x")
	was := Baseline{facts: map[Fact]string{istio: "1", kubernetes: "2"}}
	now := Baseline{facts: map[Fact]string{istio: "1"}}
	differences := was.Differences(now)
	require.Len(t, differences, 1)
	require.Equal(t, kubernetes, differences[0].Fact)
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	require.NoError(t, err)
	o := &unstructured.Unstructured{}
	require.NoError(t, o.UnmarshalJSON(data))
	return o
}

// baselineOf is what a baseline of cluster-a knows of objects.
func baselineOf(t *testing.T, texts ...string) Baseline {
	t.Helper()
	b := Baseline{facts: map[Fact]string{}, objects: map[Fact]*unstructured.Unstructured{}}
	r := reader{record: func(f Fact, is string, o *unstructured.Unstructured) {
		f.Cluster = "cluster-a"
		b.facts[f], b.objects[f] = is, o
	}}
	for _, text := range texts {
		r.object(object(t, text))
	}
	return b
}

func TestBaselineRoundTrip(t *testing.T) {
	was := baselineOf(t,
		`{apiVersion: v1, kind: Service, metadata: {name: echo, namespace: production, uid: "1", resourceVersion: "2"},
			spec: {ports: [{port: 80, targetPort: 8080}]}, status: {}}`,
		`{apiVersion: v1, kind: Secret, metadata: {name: cacerts, namespace: istio-system}, data: {"ca-key.pem":"a2V5"}}`,
		`{apiVersion: v1, kind: Secret, metadata: {name: cacerts, namespace: default}, data: {}}`,
		`{apiVersion: v1, kind: Namespace, metadata: {name: production, labels: {a: "b"}}, spec: {finalizers: ["kubernetes"]}}`,
		`{apiVersion: apps/v1, kind: Deployment, metadata: {name: echo, namespace: production},
			spec: {replicas: 1}, status: {replicas: 1, updatedReplicas: 1, readyReplicas: 1}}`,
		`{apiVersion: v1, kind: Pod, metadata: {name: my-pod, namespace: production}}`,
	)
	was.named = []Named{{Cluster: "cluster-a", Kind: "ConfigMap", Namespace: "production", Name: "other"}}
	deployment := ObjectFact("cluster-a", "apps", "Deployment", "production", "echo")
	cacerts := ObjectFact("cluster-a", "", "Secret", "istio-system", "cacerts")
	want := []Fact{
		deployment, cacerts, ObjectFact("cluster-a", "", "Secret", "default", "cacerts"),
		ObjectFact("cluster-a", "", "Service", "production", "echo"), ObjectFact("cluster-a", "", "Namespace", "", "production"),
	}
	require.Len(t, was.facts, len(want), "no Pod")
	for _, f := range want {
		require.True(t, was.Has(f), f.String())
	}
	trust := Fact{Cluster: "cluster-b", Topic: ProxyTrust, Namespace: "production", Name: "echo"}
	was.facts[trust] = "roots"

	data, err := json.Marshal(was)
	require.NoError(t, err)
	require.NotContains(t, string(data), "resourceVersion")
	var read Baseline
	require.NoError(t, json.Unmarshal(data, &read))
	require.Equal(t, was, read)
	require.Empty(t, was.Differences(read))
	require.True(t, read.Has(deployment))
	deployment.Cluster = "cluster-b"
	require.False(t, read.Has(deployment))
	again, err := json.Marshal(read)
	require.NoError(t, err)
	require.JSONEq(t, string(data), string(again))

	differences := read.Differences(Baseline{})
	require.Len(t, differences, 6)
	require.Equal(t, trust, differences[5].Fact)
	require.False(t, differences[5].ObjectChanged())
	require.Equal(t, cacerts, differences[1].Fact)
	require.Equal(t, map[string]any{"ca-key.pem": "a2V5"}, differences[1].Before.Object["data"])
	require.True(t, differences[1].ObjectChanged())
	require.Equal(t, differences[1].Before, differences[1].Object())
}

// What another version has written down may mean something else: a mesh is not put back from a guess.
func TestBaselineRefusesOtherFormats(t *testing.T) {
	for _, text := range []string{
		`{"facts":[{"cluster":"cluster-a","what":"Secret cacerts","is":"1"}]}`, // of before there were versions
		`{"format":3,"facts":[]}`,
	} {
		require.ErrorContains(t, json.Unmarshal([]byte(text), new(Baseline)), "wanted format 4, seen")
	}
	require.ErrorContains(t, json.Unmarshal([]byte(`[]`), new(Baseline)), "reading a baseline")
}

func TestOnlyPodsOfADeploymentDiffer(t *testing.T) {
	deployment := func(replicas, ready string) Baseline {
		return baselineOf(t, fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: echo, namespace: production}, "+
			"spec: {replicas: %s}, status: {replicas: 1, updatedReplicas: 1, readyReplicas: %s}}", replicas, ready))
	}
	pods := deployment("1", "1").Differences(deployment("1", "0"))
	require.Len(t, pods, 1)
	require.False(t, pods[0].ObjectChanged())
	itself := deployment("1", "1").Differences(deployment("2", "1"))
	require.Len(t, itself, 1)
	require.True(t, itself[0].ObjectChanged())
}

// What a cluster writes into objects by itself is no change.
func TestContent(t *testing.T) {
	same := func(a, b string) {
		t.Helper()
		require.Equal(t, content(object(t, a)), content(object(t, b)))
	}
	other := func(a, b string) {
		t.Helper()
		require.NotEqual(t, content(object(t, a)), content(object(t, b)))
	}
	deployment := func(metadata, replicas, template string) string {
		return fmt.Sprintf("{kind: Deployment, metadata: {name: echo%s}, spec: {replicas: %s, template: {metadata: {labels: {app: echo}%s}}}}",
			metadata, replicas, template)
	}
	plain := deployment("", "1", "")
	same(plain, deployment(", annotations: {deployment.kubernetes.io/revision: '2'}, generation: 3", "1",
		", annotations: {kubectl.kubernetes.io/restartedAt: now}"))
	same(plain, strings.TrimSuffix(plain, "}")+", status: {replicas: 1}}")
	other(plain, deployment("", "0", ""))
	other(plain, deployment("", "1", ", annotations: {sidecar.istio.io/inject: 'false'}"))
	other(plain, deployment(", annotations: {topology.istio.io/x: other}", "1", ""))
	webhook := func(kind, policy, bundle string) string {
		return fmt.Sprintf("{kind: %s, metadata: {name: istio}, webhooks: [{name: x, failurePolicy: %s, clientConfig: {caBundle: %s}}]}",
			kind, policy, bundle)
	}
	const mutating, validating = "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"
	same(webhook(mutating, "Fail", "YQ=="), webhook(mutating, "Fail", "Yg=="))
	other(webhook(mutating, "Fail", "YQ=="), webhook(mutating, "Ignore", "YQ=="))
	same(webhook(validating, "Fail", "YQ=="), webhook(validating, "Ignore", "Yg=="))
	other(`{kind: ConfigMap, metadata: {name: istio}, data: {mesh: "a"}}`, `{kind: ConfigMap, metadata: {name: istio}, data: {mesh: "b"}}`)
	other(`{kind: Secret, metadata: {name: s}, type: Opaque}`, `{kind: Secret, metadata: {name: s}, type: kubernetes.io/tls}`)
}
