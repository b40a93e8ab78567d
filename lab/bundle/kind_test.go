package bundle

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

// withNode is a bundle of one component, and what is made of it for kind alone.
func withNode(built *atomic.Int32) (base []component, kind extra) {
	base = []component{part("one", nil)}
	node := part("node", nil)
	node.last = true
	node.build = func(_ context.Context, b *bench) ([]Image, error) {
		built.Add(1)
		for _, c := range append(slices.Clone(base), kind.components[0]) {
			if _, ok := b.store.recorded(c); !ok {
				return nil, os.ErrNotExist
			}
		}
		return []Image{{Ref: "eastwest.local/node:v1", Archive: "kind/node.tar", Digest: "sha256:00"}}, b.put("kind/node.tar", noise())
	}
	return base, extra{name: kindPart, holds: "for kind", components: []component{part("tool", nil), node}}
}

func TestWhatIsForKindAloneChangesNothingElse(t *testing.T) {
	var built atomic.Int32
	base, kind := withNode(&built)
	dir := t.TempDir()
	plain, err := build(t.Context(), BuildOptions{Dir: dir}, base)
	require.NoError(t, err)
	_, _, ok := plain.KindNodeImage()
	require.False(t, ok)

	b, err := build(t.Context(), BuildOptions{Dir: dir, Parallel: 4}, base, kind)
	require.NoError(t, err)
	require.Equal(t, plain.Digest(), b.Digest())
	require.Equal(t, plain.Dir(), b.Dir())
	require.Empty(t, b.Images(), "nodes without Docker would unpack it")
	archive, ref, ok := b.KindNodeImage()
	require.True(t, ok)
	require.Equal(t, "eastwest.local/node:v1", ref)
	require.FileExists(t, archive)
	require.Len(t, b.Parts(), 3)

	_, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind)
	require.NoError(t, err)
	require.EqualValues(t, 1, built.Load(), "a second build has nothing to do")

	// Damage keeps nobody from the rest.
	require.NoError(t, os.Chmod(archive, 0o644))
	require.NoError(t, os.Truncate(archive, 1))
	b, err = open(dir, base, kind)
	require.NoError(t, err)
	_, _, ok = b.KindNodeImage()
	require.False(t, ok)
	root := b.extra(kindPart).root
	require.ErrorContains(t, b.KindProblem(), "the part of the bundle for kind in "+root+" is damaged: kind/node.tar: wanted ")
	problems, err := b.Verify()
	require.NoError(t, err)
	require.Len(t, problems, 1)
	require.Equal(t, "kind/node.tar", problems[0].Path)
	b, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind)
	require.NoError(t, err)
	require.EqualValues(t, 2, built.Load())
	_, _, ok = b.KindNodeImage()
	require.True(t, ok)
	require.NoError(t, b.KindProblem())

	manifest := filepath.Join(b.extra(kindPart).root, manifestName)
	require.NoError(t, os.Chmod(manifest, 0o644))
	require.NoError(t, os.WriteFile(manifest, []byte("{"), 0o644))
	b, err = open(dir, base, kind)
	require.NoError(t, err)
	require.ErrorContains(t, b.KindProblem(), "is damaged: "+manifestName)
	var setup *SetupError
	require.ErrorAs(t, b.KindProblem(), &setup)
	require.Contains(t, setup.Try, "`eastwest bundle build --with kind`")
	_, err = b.Verify()
	require.ErrorContains(t, err, "is damaged: "+manifestName)
	b, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind)
	require.NoError(t, err)
	require.EqualValues(t, 2, built.Load())
	require.NoError(t, b.KindProblem())
}

func TestExportCarriesWhatIsForKindAlone(t *testing.T) {
	var built atomic.Int32
	base, kind := withNode(&built)
	b, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, base, kind)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "bundle.tar.zst")
	require.NoError(t, b.ExportFile(t.Context(), path))

	dir := t.TempDir()
	got, err := importFile(t.Context(), path, dir, base, kind)
	require.NoError(t, err)
	archive, _, ok := got.KindNodeImage()
	require.True(t, ok)
	data, err := os.ReadFile(archive)
	require.NoError(t, err)
	require.Equal(t, noise(), string(data))
	problems, err := got.Verify()
	require.NoError(t, err)
	require.Empty(t, problems)
	_, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind)
	require.NoError(t, err)
	require.EqualValues(t, 1, built.Load(), "a build finds what was imported")

	// A cut anywhere is seen, also where the part for kind begins, and nothing is installed.
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range 40 {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(path, whole[:len(whole)*i/40], 0o600))
		_, err := importFile(t.Context(), path, dir, base, kind)
		_ = setupError(t, err)
		requireNothingInstalled(t, dir)
	}
}

func TestWithoutDockerTheWayIsTold(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	node := part("node", nil)
	node.tools = []tool{toolDocker}
	_, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, []component{node})
	setup := setupError(t, err)
	require.Contains(t, setup.Try, "scripts/docker-up")
	require.NotContains(t, setup.Try, "apt-get")
	require.Len(t, setup.Missing, 1)
}

func TestKindRecipes(t *testing.T) {
	all := kindRecipes()
	require.True(t, all[len(all)-1].last, "the node is made of the others")
	require.Equal(t, pinned("kubernetes", "k8s.io/kubernetes"), pinned("kubeadm", "k8s.io/kubernetes"))
}

// TestJoinedArchive holds what kind and containerd look for: the list of names first, one descriptor for each name, and
// each layer once.
func TestJoinedArchive(t *testing.T) {
	dir := t.TempDir()
	b := &bench{tmp: dir, out: filepath.Join(dir, "out"), tell: func(Progress) {}}
	below, one, two := newTree(), newTree(), newTree()
	below.text("/below", "0")
	one.text("/one", "1")
	two.text("/two", "2")
	first, err := b.image(t.Context(), "registry.k8s.io/pause:3.10.1", v1.Config{}, below, one)
	require.NoError(t, err)
	second, err := b.image(t.Context(), "eastwest.local/app:v2", v1.Config{}, below, two)
	require.NoError(t, err)
	first.Archive, second.Archive = filepath.Join(b.out, first.Archive), filepath.Join(b.out, second.Archive)
	to := filepath.Join(dir, "all.tar")
	require.NoError(t, joinArchives(to, []archived{
		{Image: first, names: []string{first.Ref, "registry.k8s.io/pause:3.10", "docker.io/kindest/kindnetd:v1"}},
		{Image: second, names: []string{second.Ref}},
	}))

	var order []string
	var repositories map[string]map[string]string
	var index v1.IndexManifest
	require.NoError(t, eachEntry(to, func(h *tar.Header, r io.Reader) error {
		order = append(order, h.Name)
		switch h.Name {
		case "repositories":
			return json.NewDecoder(r).Decode(&repositories)
		case "index.json":
			return json.NewDecoder(r).Decode(&index)
		}
		return nil
	}))
	require.Equal(t, "repositories", order[0])
	require.Contains(t, repositories["registry.k8s.io/pause"], "3.10")
	require.Contains(t, repositories["registry.k8s.io/pause"], "3.10.1")
	require.Contains(t, repositories["docker.io/kindest/kindnetd"], "v1")
	require.Contains(t, repositories["eastwest.local/app"], "v2")
	var names []string
	for _, m := range index.Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"])
	}
	require.Equal(
		t,
		[]string{"registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10", "docker.io/kindest/kindnetd:v1", "eastwest.local/app:v2"},
		names,
	)
	blobs := slices.DeleteFunc(slices.Clone(order), func(name string) bool {
		return !strings.HasPrefix(name, "blobs/sha256/") || strings.HasSuffix(name, "/")
	})
	slices.Sort(blobs)
	require.Len(t, slices.Compact(slices.Clone(blobs)), len(blobs), "nothing is there twice")
	require.Len(t, blobs, 2+2+3, "manifests, settings, layers")
}
