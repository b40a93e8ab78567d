package mesh

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// An installation in place deletes nothing of the version before it: both have objects of the same names.
func TestVersionsHaveTheSameObjects(t *testing.T) {
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	b, err := bundle.Open(dir)
	if err != nil {
		t.Skipf("rendering needs the bundle's istioctl: %v", err)
	}
	file := filepath.Join(t.TempDir(), "istio.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: istio, namespace: istio-system}
spec: {profile: minimal, hub: hub.invalid, tag: "1"}
`), 0o644))
	var paths [][]string
	for _, version := range bundle.IstioVersions() {
		v, err := b.Istio(version)
		if err != nil {
			t.Skip(err)
		}
		objects, err := FromVersion(v).render(t.Context(), "", file)
		require.NoError(t, err)
		var names []string
		for _, o := range objects {
			names = append(names, o.path())
		}
		slices.Sort(names)
		paths = append(paths, names)
	}
	for _, other := range paths[1:] {
		require.Equal(t, paths[0], other)
	}
}

func TestReleaseNames(t *testing.T) {
	require.Equal(t, "istiod", IstiodOf(""))
	require.Equal(t, "istiod", IstiodOf(DefaultRevision))
	require.Equal(t, "istiod-1-31", IstiodOf("1-31"))
	require.True(t, IsIstiod("istiod-1-31"))
	require.False(t, IsIstiod("istiodx"))
	require.Equal(t, `istioctl install --context=cluster-a -y --revision=1-31 `+
		`$(printf -- '-f %s ' "$(dirname "$KUBECONFIG")"/mesh/cluster-a/current-1-31/istiod/*.yaml)`, Release{Revision: "1-31"}.InstallCommand("cluster-a"))
	require.Contains(t, Release{Istio: "previous"}.GatewayCommand("cluster-b"), "istioctl-previous install --context=cluster-b -y $(")
}

func TestNewerVersions(t *testing.T) {
	m := &Mesh{options: Options{Istio: Istio{Tag: "1.31-eed52ebb66ad"}, Istios: map[string]Istio{"previous": {Tag: "1.30-9739e10eb9d7"}}}}
	require.True(t, m.hasNewer(Istio{Tag: "1.30-9739e10eb9d7"}))
	require.False(t, m.hasNewer(Istio{Tag: "1.31-eed52ebb66ad"}))
	require.False(t, m.hasNewer(Istio{Tag: "1.32.0"}))
}
