package fault

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	discoveryfake "k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

const a, b = "cluster-a", "cluster-b"

// node is a cluster that keeps what was done to the machines below it.
type node struct {
	cluster.Cluster // nothing of it is used but the name
	name            string

	mu     sync.Mutex
	blocks map[string]bool
	killed []string
}

func (n *node) Name() string { return n.name }

func (n *node) Components() []string { return []string{"etcd", "kube-apiserver"} }

func (n *node) block(what string) (cluster.Heal, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocks[what] = true
	return func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.blocks, what)
		return nil
	}, nil
}

func (n *node) Stop(_ context.Context, component string) (cluster.Heal, error) {
	return n.block("stopped " + component)
}

func (n *node) Kill(_ context.Context, component string) error {
	n.killed = append(n.killed, component)
	return nil
}

func (n *node) Sever(_ context.Context, peer cluster.Cluster) (cluster.Heal, error) {
	return n.block("severed " + peer.Name())
}

func (n *node) BlockPort(_ context.Context, peer cluster.Cluster, port uint16) (cluster.Heal, error) {
	return n.block("port for " + peer.Name())
}

func (n *node) HealAll(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.blocks)
	return nil
}

// meshOf is a mesh of two clusters that hold the objects, in client-go's fake of an API server. It knows Services,
// ConfigMaps, Secrets and Namespaces.
func meshOf(t *testing.T, objects ...runtime.Object) *mesh.Mesh {
	t.Helper()
	m := &mesh.Mesh{Lab: "test"}
	for _, name := range []string{a, b} {
		kube := fake.NewClientset(objects...)
		discovery := kube.Discovery().(*discoveryfake.FakeDiscovery)
		discovery.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "services", SingularName: "service", ShortNames: []string{"svc"}, Kind: "Service", Namespaced: true, Verbs: metav1.Verbs{"get"}},
			{Name: "configmaps", SingularName: "configmap", Kind: "ConfigMap", Namespaced: true, Verbs: metav1.Verbs{"get"}},
			{Name: "secrets", SingularName: "secret", Kind: "Secret", Namespaced: true, Verbs: metav1.Verbs{"get"}},
			{Name: "namespaces", SingularName: "namespace", ShortNames: []string{"ns"}, Kind: "Namespace", Verbs: metav1.Verbs{"get"}},
		}}}
		dynamic := dynamicfake.NewSimpleDynamicClient(scheme.Scheme, objects...)
		dynamic.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			patch := action.(clienttesting.PatchActionImpl)
			if patch.GetPatchType() != types.ApplyPatchType {
				return false, nil, nil
			}
			o := &unstructured.Unstructured{} // the fake itself applies only to what is there
			if err := o.UnmarshalJSON(patch.GetPatch()); err != nil {
				return true, nil, err
			}
			return true, o, dynamic.Tracker().Create(patch.GetResource(), o, patch.GetNamespace())
		})
		m.Members = append(m.Members, &mesh.Member{
			Cluster: &node{name: name, blocks: map[string]bool{}}, Spec: mesh.ClusterSpec{Name: name}, Kube: kube, Dynamic: dynamic,
		})
	}
	return m
}

// get returns an object of the first cluster, nil if it is not there.
func get(t *testing.T, m *mesh.Mesh, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	client, err := observe.Resource(m.Members[0], kind, namespace)
	require.NoError(t, err)
	o, err := client.Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return o
}

func service(labels map[string]string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: "echo", Namespace: "production", Labels: labels},
		Spec:       corev1.ServiceSpec{ExternalName: "x"},
	}
}

var echoService = Object{Kind: "Service", Name: "echo", Namespace: "production"}

func TestPatchMerges(t *testing.T) {
	m := meshOf(t, service(nil))
	f, err := Patch([]string{a, b}, echoService, map[string]any{"spec": map[string]any{"externalName": nil, "type": "ExternalName"}})
	require.NoError(t, err)
	require.NoError(t, f.Available(m))
	require.NoError(t, f.Inject(t.Context(), m))
	spec := get(t, m, "svc", "production", "echo").Object["spec"].(map[string]any)
	require.Equal(t, "ExternalName", spec["type"])
	require.NotContains(t, spec, "externalName")
	require.Equal(t, []observe.Named{
		{Cluster: a, Kind: "Service", Namespace: "production", Name: "echo"},
		{Cluster: b, Kind: "Service", Namespace: "production", Name: "echo"},
	}, Names(f))
	require.Contains(t, f.Command(), `kubectl patch Service echo -n production --context=cluster-a --type=merge -p '{"spec":`)

	f, err = Patch([]string{a}, Object{Kind: "Service", Name: "nobody", Namespace: "production"}, map[string]any{})
	require.NoError(t, err)
	require.ErrorContains(t, f.Inject(t.Context(), m), `cluster-a: services "nobody" not found`)
	_, err = Patch([]string{a}, echoService, func() {})
	require.Error(t, err, "that is not JSON")
}

func TestPatchQuotesForTheShell(t *testing.T) {
	f, err := Patch([]string{a}, echoService, map[string]any{"data": "it's"})
	require.NoError(t, err)
	require.Equal(t, `kubectl patch Service echo -n production --context=cluster-a --type=merge -p '{"data":"it'"'"'s"}'`, f.Command())
}

func TestLabelSetsAndRemoves(t *testing.T) {
	m := meshOf(t, service(map[string]string{"old": "yes", "stays": "yes"}))
	yes := "yes"
	f, err := Label([]string{a}, echoService, map[string]*string{"old": nil, "new": &yes})
	require.NoError(t, err)
	require.NoError(t, f.Inject(t.Context(), m))
	require.Equal(t, map[string]string{"new": "yes", "stays": "yes"}, get(t, m, "Service", "production", "echo").GetLabels())
	require.Equal(t, "kubectl label --overwrite Service echo -n production --context=cluster-a new=yes old-", f.Command())
}

func TestDelete(t *testing.T) {
	m := meshOf(t, service(nil))
	require.NoError(t, Delete([]string{a}, echoService).Inject(t.Context(), m))
	require.Nil(t, get(t, m, "Service", "production", "echo"))
	require.ErrorContains(t, Delete([]string{a}, echoService).Inject(t.Context(), m), `services "echo" not found`)

	f := DeleteIfThere([]string{a, b}, echoService)
	require.NoError(t, f.Inject(t.Context(), m), "in one it is gone, in the other it is there")
	require.NoError(t, f.Inject(t.Context(), m))
	require.Equal(t, "delete Service/echo in namespace production if it is there in cluster-a and cluster-b", f.String())
	require.Contains(t, f.Command(), "kubectl delete --ignore-not-found Service echo -n production --context=cluster-a")
	require.Len(t, Names(f), 2, "it may be there")
	err := DeleteIfThere([]string{a}, Object{Kind: "Nothing", Name: "x"}).Inject(t.Context(), m)
	require.ErrorContains(t, err, "Nothing", "an unknown kind is a mistake")
}

func TestApply(t *testing.T) {
	m := meshOf(t)
	f := Apply([]string{a}, "two.yaml", []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: half, labels: {own: "yes"}}
---
apiVersion: example.org/v1
kind: Nothing
metadata: {name: nothing, namespace: half}
`))
	require.NoError(t, f.Available(m))
	require.ErrorContains(t, f.Inject(t.Context(), m), "cluster-a: applying Nothing nothing: ")
	half := get(t, m, "Namespace", "", "half")
	require.NotNil(t, half, "what was done stays, for Restore")
	require.Equal(t, map[string]string{"own": "yes", cluster.ManagedByLabel: cluster.ManagedBy, cluster.LabLabel: "test"}, half.GetLabels())
	require.Equal(t, []observe.Named{
		{Cluster: a, Kind: "Namespace", Namespace: "default", Name: "half"},
		{Cluster: a, Kind: "Nothing.example.org", Namespace: "half", Name: "nothing"},
	}, Names(f))

	require.ErrorContains(t, Apply([]string{a}, "bad.yaml", []byte("a: [")).Available(m), "reading bad.yaml: ")
	require.ErrorContains(t, f.Available(&mesh.Mesh{}), a, "the cluster is not in the mesh")
}

// A Secret's type cannot be changed: putting such an object back makes it anew.
func TestPutMakesAnewWhatCannotBeChanged(t *testing.T) {
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "production"}, Type: "before",
	}
	m := meshOf(t, secret)
	client, err := observe.Resource(m.Members[0], "Secret", "production")
	require.NoError(t, err)
	before := get(t, m, "Secret", "production", "s")

	require.NoError(t, put(t.Context(), client, before), "it is as it was")
	require.NoError(t, client.Delete(t.Context(), "s", metav1.DeleteOptions{}))
	require.NoError(t, put(t.Context(), client, before))
	require.NotNil(t, get(t, m, "Secret", "production", "s"))

	refuse := true
	dynamic := m.Members[0].Dynamic.(*dynamicfake.FakeDynamicClient)
	dynamic.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		if refuse {
			return true, nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "s", nil)
		}
		return false, nil, nil
	})
	require.NoError(t, put(t.Context(), client, before))
	var verbs []string
	for _, action := range dynamic.Actions() {
		if action.GetResource().Resource == "secrets" {
			verbs = append(verbs, action.GetVerb())
		}
	}
	require.Equal(t, []string{"update", "delete", "create"}, verbs[len(verbs)-3:])

	dynamic.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no")
	})
	require.ErrorContains(t, put(t.Context(), client, before), "no")
}

func TestPutSecretReplacesTheWhole(t *testing.T) {
	m := meshOf(t)
	secret := func(key string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{key: []byte("x")}}
	}
	for _, key := range []string{"one", "two"} { // created, then replaced
		require.NoError(t, putSecret(t.Context(), m.Members[0], secret(key)))
		is, err := m.Members[0].Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(t.Context(), "s", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, map[string][]byte{key: []byte("x")}, is.Data)
	}
}

func TestUnderlay(t *testing.T) {
	m := meshOf(t)
	blocks := func(member int) map[string]bool { return m.Members[member].Cluster.(*node).blocks }
	do := func(f Fault) {
		t.Helper()
		require.NoError(t, f.Available(m))
		require.NoError(t, f.Inject(t.Context(), m))
	}
	for _, reconnect := range []Fault{Reconnect(a, b), Reconnect(b, a)} {
		do(Sever(a, b))
		require.Equal(t, map[string]bool{"severed cluster-b": true}, blocks(0))
		do(reconnect)
		require.Empty(t, blocks(0))
		require.Empty(t, blocks(1))
	}
	do(BlockPort(b, a, 15443))
	require.Equal(t, map[string]bool{"port for cluster-a": true}, blocks(1))
	do(UnblockPort(b, a, 15443))
	require.Empty(t, blocks(1))
	do(StopComponent(a, "etcd"))
	require.Equal(t, map[string]bool{"stopped etcd": true}, blocks(0))
	do(ContinueComponent(a, "etcd"))
	require.Empty(t, blocks(0))
	do(KillComponent(a, "etcd"))
	require.Equal(t, []string{"etcd"}, m.Members[0].Cluster.(*node).killed)

	do(Sever(a, b))
	do(StopComponent(b, "etcd"))
	require.NoError(t, Heal(t.Context(), m))
	require.Empty(t, blocks(0))
	require.Empty(t, blocks(1))

	require.EqualError(t, StopComponent(a, "nobody").Available(m), "no component nobody in cluster-a: there are etcd and kube-apiserver")
	m.Members[1].Cluster = struct{ cluster.Cluster }{}
	const notOurs = "the machines below cluster-b are not ours to touch: use the provider embedded or kind"
	require.ErrorContains(t, Sever(a, b).Available(m), notOurs)
	require.EqualError(t, Freeze(observe.Workload{App: "echo", Cluster: b}).Available(m), notOurs)
	require.EqualError(t, Thaw(observe.Workload{App: "echo", Cluster: b}).Available(m), notOurs)
}
