package bundle

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

const previousPart = "istio-previous"

// withPrevious is the part of another Istio, in small.
func withPrevious() extra {
	pilot := part("pilot-previous", nil)
	pilot.contains = map[string]string{"envoy": "1.37.0"}
	pilot.build = func(_ context.Context, b *bench) ([]Image, error) {
		return []Image{{Ref: Hub + "/pilot:1.30", Archive: "images/pilot.tar", Digest: "sha256:00"}}, b.put("images/pilot.tar", noise())
	}
	return extra{name: previousPart, holds: "with Istio 1.30", components: []component{pilot, part("istioctl", nil)}}
}

func truncated(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, os.Truncate(path, 1))
}

func TestIstioOfAnExtra(t *testing.T) {
	var built atomic.Int32
	base, kind := withNode(&built)
	previous := withPrevious()
	dir := t.TempDir()
	plain, err := build(t.Context(), BuildOptions{Dir: dir}, base)
	require.NoError(t, err)
	b, err := open(dir, base, kind, previous)
	require.NoError(t, err)
	_, err = b.Istio(Previous)
	require.ErrorContains(t, err, "has no Istio "+IstioTag(Previous))
	require.Equal(t, "run `eastwest bundle build --with istio-previous`", setupError(t, err).Try)
	_, err = b.Istio("oldest")
	require.ErrorContains(t, err, `"oldest" in the bundle: wanted current or previous`)
	current, err := b.Istio(Current)
	require.NoError(t, err)
	require.Equal(t, Istio{Version: Current, Tag: Tag, Istioctl: plain.Bin("istioctl"), Images: []Image{}, Digest: plain.Digest()}, current)

	// It needs no other extra, and a build without it leaves it there.
	_, err = build(t.Context(), BuildOptions{Dir: dir}, base, previous)
	require.NoError(t, err)
	_, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind)
	require.NoError(t, err)
	b, err = open(dir, base, kind, previous)
	require.NoError(t, err)
	require.Equal(t, plain.Digest(), b.Digest())
	require.Equal(t, plain.Versions(), b.Versions())
	require.Len(t, b.Parts(), 5)
	istio, err := b.Istio(Previous)
	require.NoError(t, err)
	require.FileExists(t, istio.Istioctl)
	require.Equal(t, IstioTag(Previous), istio.Tag)
	require.Equal(t, IstioProxy{Upstream: true, Version: "1.37.0"}, istio.Proxy)
	require.Len(t, istio.Images, 1)
	require.FileExists(t, istio.Images[0].Archive)
	require.NotEqual(t, b.Digest(), istio.Digest)

	// Damage keeps nobody from the rest, and its way is told.
	truncated(t, istio.Istioctl)
	b, err = open(dir, base, kind, previous)
	require.NoError(t, err)
	require.NoError(t, b.KindProblem())
	_, err = b.Istio(Current)
	require.NoError(t, err)
	_, err = b.Istio(Previous)
	require.ErrorContains(t, err, "the part of the bundle with Istio 1.30 in "+b.extra(previousPart).root+" is damaged: bin/istioctl: wanted ")
	require.Contains(t, setupError(t, err).Try, "`eastwest bundle build --with istio-previous`")
	problems, err := b.Verify()
	require.NoError(t, err)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].String(), "istio-previous/bin/istioctl: wanted ")
	require.Equal(t, "eastwest bundle build --with istio-previous", Repair(problems))
	archive, _, _ := b.KindNodeImage()
	truncated(t, archive)
	problems, err = b.Verify()
	require.NoError(t, err)
	require.Len(t, problems, 2)
	require.Equal(t, "eastwest bundle build --with kind,istio-previous", Repair(problems))
	require.Equal(t, "eastwest bundle build", Repair([]Problem{{Path: "bin/one"}}))

	b, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind, previous)
	require.NoError(t, err)
	problems, err = b.Verify()
	require.NoError(t, err)
	require.Empty(t, problems)
	_, err = b.Istio(Previous)
	require.NoError(t, err)

	manifest := filepath.Join(b.extra(previousPart).root, manifestName)
	require.NoError(t, os.Chmod(manifest, 0o644))
	require.NoError(t, os.WriteFile(manifest, []byte("{"), 0o644))
	b, err = open(dir, base, kind, previous)
	require.NoError(t, err)
	_, err = b.Istio(Previous)
	require.Contains(t, setupError(t, err).Try, "`eastwest bundle build --with istio-previous`")
	require.NoError(t, b.KindProblem())
	require.ErrorContains(t, b.ExportFile(t.Context(), filepath.Join(t.TempDir(), "file")), "is damaged: "+manifestName)
}

func TestExportCarriesEachExtra(t *testing.T) {
	var built atomic.Int32
	base, kind := withNode(&built)
	previous := withPrevious()
	for name, with := range map[string][]extra{
		"none": nil, "kind": {kind}, "previous": {previous}, "both": {kind, previous},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, base, with...)
			require.NoError(t, err)
			path := filepath.Join(t.TempDir(), "bundle.tar.zst")
			require.NoError(t, b.ExportFile(t.Context(), path))

			dir := t.TempDir()
			got, err := importFile(t.Context(), path, dir, base, kind, previous)
			require.NoError(t, err)
			require.Equal(t, b.Digest(), got.Digest())
			require.Equal(t, b.Parts(), got.Parts())
			problems, err := got.Verify()
			require.NoError(t, err)
			require.Empty(t, problems)
			again := filepath.Join(t.TempDir(), "again")
			require.NoError(t, got.ExportFile(t.Context(), again))
			first, err := hashFile(path)
			require.NoError(t, err)
			second, err := hashFile(again)
			require.NoError(t, err)
			require.Equal(t, first, second, "equal bundles give equal files")

			// A command that knows an extra less refuses the file rather than losing it.
			if len(with) > 0 {
				_, err = importFile(t.Context(), path, t.TempDir(), base, with[:len(with)-1]...)
				require.ErrorContains(t, err, "more than its manifest names")
			}

			// What the file lacks stays as it was.
			_, err = build(t.Context(), BuildOptions{Dir: dir}, base, kind, previous)
			require.NoError(t, err)
			got, err = importFile(t.Context(), path, dir, base, kind, previous)
			require.NoError(t, err)
			require.Len(t, got.Parts(), 5)
		})
	}
}

func TestBuildRefusesUnknownExtras(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	_, err := Build(t.Context(), BuildOptions{Dir: dir, With: []string{kindPart, "istio-next"}})
	require.ErrorContains(t, err, `there is no part "istio-next": wanted kind, istio-previous`)
	require.NoDirExists(t, dir)
	var names []string
	for _, e := range extras() {
		names = append(names, e.name)
	}
	require.Equal(t, names, ExtraNames())
	one, err := extrasOf([]string{previousPart})
	require.NoError(t, err)
	require.Len(t, one, 1)
}

// TestTagsFollowThePins holds each tag to the commit of the pinned Istio: images of two commits must not share a name.
func TestTagsFollowThePins(t *testing.T) {
	require.Equal(t, []string{Current, Previous}, IstioVersions())
	require.Equal(t, Tag, IstioTag(Current))
	require.Empty(t, IstioTag("oldest"))
	seen := map[string]bool{}
	for _, v := range istioVersions {
		require.Equal(t, v.commit(), v.tag[strings.LastIndex(v.tag, "-")+1:], "change the tag of %s with the pin of %s", v.name, v.module)
		for _, own := range []string{v.module, v.tag, v.envoy.version, v.envoy.sha256} {
			require.False(t, seen[own], "%s is in two rows", own)
			seen[own] = true
		}
	}
}

// TestOtherVersionsChangeNoKey changes every row but the first, and adds one: the bundle and what is made of it stay.
func TestOtherVersionsChangeNoKey(t *testing.T) {
	whole, kind := bundleKey(recipes()), bundleKey(kindRecipes())
	before := istioVersions
	t.Cleanup(func() { istioVersions = before })
	istioVersions = []istioVersion{before[0]}
	for _, v := range append(before[1:], istioVersion{name: "oldest", module: previousPart}) {
		v.tag, v.envoy = "0.1-aaaaaaaaaaaa", envoyRelease{version: "0.1", sha256: "00"}
		istioVersions = append(istioVersions, v)
	}
	require.Equal(t, whole, bundleKey(recipes()))
	require.Equal(t, kind, bundleKey(kindRecipes()))

	istioVersions = []istioVersion{before[0]}
	istioVersions[0].envoy.sha256 = "00"
	require.NotEqual(t, whole, bundleKey(recipes()), "its own row does change it")
}

// TestIstiosShareWhatTheyAreCompiledOf holds the pins of other versions of Istio to those of the current one, so that most of
// what they are made of is compiled once. Where a pin is raised, the one that it replaces goes into exclude.
func TestIstiosShareWhatTheyAreCompiledOf(t *testing.T) {
	pin := regexp.MustCompile(`(?m)^\t(\S+) (v\S+) // indirect$`)
	pins := func(v istioVersion) map[string]string {
		files, err := components.Module(v.module)
		require.NoError(t, err)
		all := map[string]string{}
		for _, m := range pin.FindAllStringSubmatch(files["go.mod"], -1) {
			all[m[1]] = m[2]
		}
		return all
	}
	// Istio does not compile with those of another of its versions.
	apart := regexp.MustCompile(`^(istio\.io|k8s\.io|sigs\.k8s\.io|helm\.sh)/`)
	want := pins(current())
	for _, v := range istioVersions[1:] {
		shared := 0
		for module, version := range pins(v) {
			if want[module] == "" || apart.MatchString(module) {
				continue
			}
			shared++
			require.Equal(t, want[module], version, "%s of %s: scripts/components/istio has another", module, v.module)
		}
		require.Greater(t, shared, 100)
	}
}
