package mesh

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// What a cluster is given before its start is what the installation would apply, for every kind of cluster.
func TestDefinitionsAreThoseOfTheInstallation(t *testing.T) {
	cache := t.TempDir()
	path, err := istio(t).Definitions(t.Context(), cache)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var list []metav1.PartialObjectMetadata
	require.NoError(t, json.Unmarshal(data, &list))
	seals := map[string]string{}
	for _, o := range list {
		seals[o.Name] = o.Annotations[sealAnnotation]
	}
	require.Contains(t, seals, "gateways.networking.istio.io")

	for range 2 { // the second time it comes from the cache, with other white space
		r, err := twoMembers(t, SharedRoot).Members[0].render(t.Context(), Options{Istio: istio(t), Cache: cache}, netip.Addr{})
		require.NoError(t, err)
		require.Len(t, r.definitions, len(seals))
		for _, o := range r.definitions {
			seal, err := o.seal()
			require.NoError(t, err)
			require.Equal(t, seals[o.Name], seal, o.Name)
		}
	}
}

// Only what is missing, was applied from something else, or has been changed since is applied.
func TestDefinitionsThatAreThereAreNotApplied(t *testing.T) {
	of := func(name, text string) object {
		o := object{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: name}
		o.JSON = json.RawMessage(`{"metadata": {"name": "` + name + `"}, "spec": "` + text + `"}`)
		return o
	}
	same, changed, missing, touched := of("same", "a < b"), of("changed", "new"), of("missing", "new"), of("touched", "new")
	var there metav1.PartialObjectMetadataList
	for _, o := range []object{same, of("changed", "old"), touched} {
		seal, err := o.seal()
		require.NoError(t, err)
		there.Items = append(there.Items, metav1.PartialObjectMetadata{
			ObjectMeta: metav1.ObjectMeta{Name: o.Name, Generation: 1, Annotations: map[string]string{sealAnnotation: seal}},
		})
	}
	there.Items[2].Generation = 2 // somebody has patched it
	var mu sync.Mutex
	applied := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(there)
			return
		}
		var o metav1.PartialObjectMetadata
		data, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(data, &o)
		mu.Lock()
		defer mu.Unlock()
		applied[o.Name] = o.Annotations[sealAnnotation]
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	m := twoMembers(t, SharedRoot).Members[0]
	var err error
	m.raw, err = rawClient(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	require.NoError(t, m.define(t.Context(), []object{same, changed, missing, touched}))
	require.Len(t, applied, 3)
	for _, o := range []object{changed, missing, touched} {
		seal, err := o.seal()
		require.NoError(t, err)
		require.Equal(t, seal, applied[o.Name], "it says what it was applied from")
	}
}
