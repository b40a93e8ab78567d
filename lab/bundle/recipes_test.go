package bundle

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

func TestRecipesAreDistinct(t *testing.T) {
	names, keys := map[string]bool{}, map[string]bool{}
	for _, c := range append(everything(), conformanceRecipes()...) {
		require.False(t, names[c.name], c.name)
		require.False(t, keys[c.key()], c.name)
		names[c.name], keys[c.key()] = true, true
		require.NotEmpty(t, c.version, c.name)
		require.NotEmpty(t, c.tools, c.name)
		require.Positive(t, c.space, c.name)
	}
	require.Equal(t, bundleKey(recipes()), bundleKey(recipes()))
}

// everything is the bundle with all of its extras.
func everything() []component {
	all := recipes()
	for _, e := range extras() {
		all = append(all, e.components...)
	}
	return all
}

// TestGroups holds what one run of the Go command builds, and that none of its programs overwrites another.
func TestGroups(t *testing.T) {
	var names []string
	for _, g := range grouped(append(everything(), conformanceRecipes()...)) {
		programs := map[string]bool{}
		for _, p := range g.programs() {
			if p == pauseProgram && programs[mainName(p)] {
				continue // two images of one program
			}
			require.False(t, programs[mainName(p)], p)
			programs[mainName(p)] = true
		}
		names = append(names, fmt.Sprintf("%s %d", g.name(), len(programs)))
	}
	require.Equal(t, []string{
		"istio 5", "kubernetes 6", "coredns 1", "containerd 3", "etcd 1", "runc 1", "cni 4", "pause 1",
		"local-path-provisioner 1", "kubeadm 1", "kind 1", "kind-node 0", "istio-previous 3", "conformance 2",
	}, names)
}

// TestTheCommandHasIstiosVersions holds the command's own dependencies to the versions that the pinned Istio is built with, so
// that the bundle's build has most of the command's packages compiled, and the other way round.
func TestTheCommandHasIstiosVersions(t *testing.T) {
	// No package of these is compiled for both, or nothing big is made of it.
	apart := []string{
		"cel.dev/expr", "github.com/envoyproxy/go-control-plane/envoy", "github.com/mattn/go-runewidth",
		"github.com/santhosh-tekuri/jsonschema/v6", "github.com/spiffe/go-spiffe/v2", "golang.org/x/crypto",
	}
	pin := regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`)
	files, err := components.Module("istio")
	require.NoError(t, err)
	istio := map[string]string{}
	for _, m := range pin.FindAllStringSubmatch(files["go.mod"], -1) {
		istio[m[1]] = m[2]
	}
	own, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	shared := 0
	for _, m := range pin.FindAllStringSubmatch(string(own), -1) {
		want, ok := istio[m[1]]
		if !ok || slices.Contains(apart, m[1]) {
			continue
		}
		shared++
		require.Equal(t, want, m[2], "%s: go get it at the version of scripts/components/istio/go.mod, or add it to apart", m[1])
	}
	require.Greater(t, shared, 50)
}

// TestKubernetesReplacements holds every staging module to the version of Kubernetes: kubernetes requires them at v0.0.0. Its
// tests are those of that version.
func TestKubernetesReplacements(t *testing.T) {
	kubernetes := pinned("kubernetes", "k8s.io/kubernetes")
	want := "v0" + strings.TrimPrefix(kubernetes, "v1")
	for _, module := range []string{"kubernetes", "conformance"} {
		require.Equal(t, kubernetes, pinned(module, "k8s.io/kubernetes"))
		files, err := components.Module(module)
		require.NoError(t, err)
		replaced := regexp.MustCompile(`(?m)^\t(k8s\.io/\S+) => (\S+) (\S+)$`).FindAllStringSubmatch(files["go.mod"], -1)
		require.Greater(t, len(replaced), 30)
		for _, r := range replaced {
			require.Equal(t, r[1]+" "+want, r[2]+" "+r[3])
		}
	}
}

func TestKubernetesFlags(t *testing.T) {
	flags := kubernetesFlags("v1.36.1")
	for _, want := range []string{"component-base/version.gitVersion=v1.36.1", "component-base/version.gitMinor=36",
		"client-go/pkg/version.gitVersion=v1.36.1"} {
		require.Contains(t, flags, want)
	}
}

func TestLayerIsSortedAndReproducible(t *testing.T) {
	layer := func() []byte {
		tr := newTree()
		tr.accounts()
		tr.text("/b/c/d", "text")
		tr.text("/b/c/d", "the first entry of a path stays")
		tr.symlink("/b/a", "c/d")
		var out bytes.Buffer
		require.NoError(t, tr.write(&out))
		return out.Bytes()
	}
	first := layer()
	require.True(t, bytes.Equal(first, layer()))
	root := t.TempDir()
	unpack(t, bytes.NewReader(first), root)
	data, err := os.ReadFile(filepath.Join(root, "b", "a"))
	require.NoError(t, err)
	require.Equal(t, "text", string(data))
	info, err := os.Stat(filepath.Join(root, "tmp"))
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|os.ModeSticky|0o777, info.Mode())
}

// unpack writes the folders, files and links of a tar below root.
func unpack(t *testing.T, r io.Reader, root string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		path := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			require.NoError(t, os.MkdirAll(path, 0o755))
			require.NoError(t, os.Chmod(path, h.FileInfo().Mode()))
		case tar.TypeSymlink:
			require.NoError(t, os.Symlink(h.Linkname, path))
		default:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, h.FileInfo().Mode())
			require.NoError(t, err)
			_, err = io.Copy(f, tr)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
	}
}

// TestArchiveIsReadByOthers reads an archive with the library's reader of Docker archives, layer digests and all.
func TestArchiveIsReadByOthers(t *testing.T) {
	dir := t.TempDir()
	b := &bench{tmp: dir, out: filepath.Join(dir, "out"), tell: func(Progress) {}}
	one, two := newTree(), newTree()
	one.text("/one", "1")
	two.text("/two", "2")
	image, err := b.image(t.Context(), "eastwest.local/pair:v1", v1.Config{User: "1337", Entrypoint: []string{"/two"}}, one, two)
	require.NoError(t, err)
	require.Equal(t, "images/pair.tar", image.Archive)

	read, err := tarball.ImageFromPath(filepath.Join(b.out, image.Archive), nil)
	require.NoError(t, err)
	layers, err := read.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 2)
	config, err := read.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "1337", config.Config.User)
	require.Equal(t, "linux", config.OS)
	root := t.TempDir()
	for i, l := range layers {
		id, err := l.DiffID()
		require.NoError(t, err)
		require.Equal(t, config.RootFS.DiffIDs[i], id)
		r, err := l.Uncompressed()
		require.NoError(t, err)
		unpack(t, r, root)
		require.NoError(t, r.Close())
	}
	require.FileExists(t, filepath.Join(root, "one"))
	require.FileExists(t, filepath.Join(root, "two"))
}
