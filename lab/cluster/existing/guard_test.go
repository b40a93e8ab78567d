package existing

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

var ours = cluster.Labels("demo", "7c1f")

// inCluster are the objects of a cluster, with their labels.
var inCluster = map[string]map[string]string{
	"/api/v1/namespaces/production":                                          ours,
	"/api/v1/namespaces/istio-system":                                        cluster.Labels("demo", "another"),
	"/api/v1/namespaces/shop":                                                nil,
	"/api/v1/namespaces/shop/secrets/theirs":                                 nil,
	"/api/v1/namespaces/shop/secrets/moved":                                  ours,
	"/apis/rbac.authorization.k8s.io/v1/clusterroles/view":                   nil,
	"/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod":                 ours,
	"/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod-of-somebody":     {"app.kubernetes.io/part-of": "istio"},
	"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.istio": cluster.Labels("demo", ""),
}

func guardOf(id string) *guard {
	return &guard{
		info: info{Lab: "demo", ID: id, Context: "kind-east"}, namespaces: map[string]bool{},
		labels: func(_ context.Context, path string) (map[string]string, bool, error) {
			labels, found := inCluster[path]
			return labels, found, nil
		},
	}
}

const (
	labeled = `{"metadata":{"name":"new","labels":{` +
		`"app.kubernetes.io/managed-by":"eastwest","eastwest.dev/lab":"demo","eastwest.dev/lab-id":"7c1f"}}}`
	bare = `{"metadata":{"name":"new"}}`
)

func TestGuardLetsOnlyOurOwnBeWritten(t *testing.T) {
	for _, c := range []struct {
		what, method, path, body string
		refused                  string
	}{
		{"reads", "GET", "/api/v1/namespaces/shop/secrets/theirs", "", ""},
		{"a dry run", "POST", "/api/v1/namespaces/shop/pods?dryRun=All", bare, ""},
		{"a question about rights", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", ""},
		{"a connection to a pod", "POST", "/api/v1/namespaces/shop/pods/web/portforward", "", ""},
		{"anything in a namespace of ours", "POST", "/api/v1/namespaces/production/pods", bare, ""},
		{"a part of it", "PATCH", "/apis/apps/v1/namespaces/production/deployments/echo/scale", `{"spec":{}}`, ""},
		{"all of a kind in it", "DELETE", "/api/v1/namespaces/production/pods", "", ""},
		{
			"a namespace of another lab of that name", "POST", "/api/v1/namespaces/istio-system/secrets", bare,
			"would not carry the labels of lab demo",
		},
		{
			"their object", "DELETE", "/api/v1/namespaces/shop/secrets/theirs", "",
			`secrets/theirs in namespace shop of context "kind-east" is not of lab demo (it has no label of a lab)`,
		},
		{"their object, taken over", "PATCH", "/api/v1/namespaces/shop/secrets/theirs?force=true", labeled, "is not of lab demo"},
		{
			"their object, made again", "POST", "/api/v1/namespaces/shop/secrets", strings.Replace(labeled, "new", "theirs", 1),
			"is not of lab demo",
		},
		{"our object among theirs", "DELETE", "/api/v1/namespaces/shop/secrets/moved", "", ""},
		{"a new object of ours among theirs", "POST", "/api/v1/namespaces/shop/secrets", labeled, ""},
		{"a new object without labels", "POST", "/api/v1/namespaces/shop/secrets", bare, "would not carry"},
		{"a new object without a name", "POST", "/api/v1/namespaces/shop/secrets", `{"metadata":{"generateName":"x-"}}`, "would not carry"},
		{"all of a kind of theirs", "DELETE", "/api/v1/namespaces/shop/secrets", "", "one by one"},
		{"a namespace of theirs", "DELETE", "/api/v1/namespaces/shop", "", "is not of lab demo"},
		{"a namespace of ours", "DELETE", "/api/v1/namespaces/production", "", ""},
		{"a new namespace of ours", "PATCH", "/api/v1/namespaces/new?fieldManager=eastwest", labeled, ""},
		{"a role of theirs", "PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view", labeled, "is not of lab demo"},
		{"a role of ours", "PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod", bare, ""},
		{"an object that is not there", "DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/gone", "", ""},
		{
			"an object of a lab without an id", "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.istio", "",
			"it is of lab demo with the id ",
		},
		{
			"an Istio that was not adopted", "DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod-of-somebody", "",
			"is not of lab demo",
		},
		{"not an object", "POST", "/debug/flags/v", "5", "not an object"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r, err := http.NewRequest(c.method, "https://10.0.0.1:6443"+c.path, strings.NewReader(c.body))
			require.NoError(t, err)
			refusal, err := guardOf("7c1f").refuses(r)
			require.NoError(t, err)
			if c.refused == "" {
				require.Empty(t, refusal)
			} else {
				require.Contains(t, refusal, c.refused)
			}
			sent, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, c.body, string(sent), "the guard has read the body, and it still has to be sent")
		})
	}
}

func TestGuardWithoutALabRefusesEverything(t *testing.T) {
	r, err := http.NewRequest("DELETE", "https://10.0.0.1:6443/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.istio", nil)
	require.NoError(t, err)
	refusal, err := guardOf("").refuses(r)
	require.NoError(t, err)
	require.Contains(t, refusal, "no lab")
}

func TestGuardOfAnAdoptedMesh(t *testing.T) {
	g := guardOf("7c1f")
	g.adopted.Store(true)
	for path, refused := range map[string]bool{
		"/api/v1/namespaces/istio-system/secrets/cacerts":                        false,
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod-of-somebody":     false,
		"/api/v1/namespaces/istio-system":                                        true,
		"/api/v1/namespaces/shop/secrets/theirs":                                 true,
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/view":                   true,
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.istio": true,
	} {
		r, err := http.NewRequest("DELETE", "https://10.0.0.1:6443"+path, nil)
		require.NoError(t, err)
		refusal, err := g.refuses(r)
		require.NoError(t, err)
		require.Equal(t, refused, refusal != "", "%s: %s", path, refusal)
	}
}

// A proxy in front of many clusters serves each below a path of its own.
func TestGuardBehindAProxy(t *testing.T) {
	g := guardOf("7c1f")
	g.prefix = "/k8s/clusters/c-1"
	r, err := http.NewRequest("DELETE", "https://rancher.example/k8s/clusters/c-1/api/v1/namespaces/shop", nil)
	require.NoError(t, err)
	refusal, err := g.refuses(r)
	require.NoError(t, err)
	require.Contains(t, refusal, "namespaces/shop of context")
}

func TestRefusalIsAnAnswer(t *testing.T) {
	next := roundTripper(func(*http.Request) (*http.Response, error) {
		t.Error("the request was sent")
		return nil, io.EOF
	})
	r, err := http.NewRequest("DELETE", "https://10.0.0.1:6443/api/v1/namespaces/shop", nil)
	require.NoError(t, err)
	res, err := guardOf("7c1f").wrap(next).RoundTrip(r)
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Contains(t, string(body), `"reason":"Forbidden"`)
	require.Contains(t, string(body), "is not of lab demo")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOrderOfRemoval(t *testing.T) {
	of := func(group, resource, namespace, name string, owners ...metav1.OwnerReference) object {
		return object{
			schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource},
			metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: owners},
		}
	}
	const admission, rbac = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	var order [][]string
	for _, wave := range waves([]object{
		of("apiextensions.k8s.io", "customresourcedefinitions", "", "gateways.networking.istio.io"),
		of(rbac, "clusterroles", "", "istiod"),
		of("", "namespaces", "", "istio-system"),
		of("", "secrets", "istio-system", "cacerts"),
		of("", "secrets", "default", "cacerts"),
		of("discovery.k8s.io", "endpointslices", "default", "echo-1", metav1.OwnerReference{Kind: "Service", Name: "echo"}),
		of(admission, "mutatingwebhookconfigurations", "", "istio-sidecar-injector"),
	}) {
		var names []string
		for _, o := range wave {
			names = append(names, o.String())
		}
		order = append(order, names)
	}
	require.Equal(t, [][]string{
		{"mutatingwebhookconfigurations.admissionregistration.k8s.io/istio-sidecar-injector"},
		{"namespaces/istio-system"},
		{"clusterroles.rbac.authorization.k8s.io/istiod", "secrets/cacerts in namespace default"},
		{"customresourcedefinitions.apiextensions.k8s.io/gateways.networking.istio.io"},
	}, order)
}
