package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// noise is 40 kB that do not compress, the same each time.
func noise() string {
	b := make([]byte, 40_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return string(b)
}

// exported returns a bundle of two components, one of them with an image, and its file.
func exported(t *testing.T) (*Bundle, []component, string) {
	t.Helper()
	parts := []component{part("one", nil), part("two", nil)}
	parts[1].build = func(_ context.Context, b *bench) ([]Image, error) {
		// Two equal files are one blob.
		for _, name := range []string{"bin/two", "bin/twin"} {
			if err := b.put(name, noise()); err != nil {
				return nil, err
			}
		}
		return []Image{{Ref: "eastwest.local/two:v1", Archive: "bin/two", Digest: "sha256:00"}}, nil
	}
	b, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, parts)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "bundle.tar.zst")
	require.NoError(t, b.ExportFile(t.Context(), path))
	return b, parts, path
}

func requireNothingInstalled(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.Contains(t, []string{"lock", "tmp"}, e.Name())
	}
	requireNothingHalf(t, dir)
}

func TestExportAndImport(t *testing.T) {
	b, parts, path := exported(t)
	dir := t.TempDir()
	got, err := importFile(t.Context(), path, dir, parts)
	require.NoError(t, err)
	require.Equal(t, b.Digest(), got.Digest())
	require.Equal(t, b.Versions(), got.Versions())
	require.Equal(t, filepath.Join(got.Dir(), "bin", "two"), got.Images()[0].Archive)
	problems, err := got.Verify()
	require.NoError(t, err)
	require.Empty(t, problems)

	var seen watch
	_, err = build(t.Context(), BuildOptions{Dir: dir, Progress: seen.see}, parts)
	require.NoError(t, err)
	require.Equal(t, map[string]State{"one": Reused, "two": Reused}, seen.states, "a build finds what was imported")

	again := filepath.Join(t.TempDir(), "again")
	require.NoError(t, got.ExportFile(t.Context(), again))
	first, err := os.ReadFile(path)
	require.NoError(t, err)
	second, err := os.ReadFile(again)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second), "equal bundles give equal files")

	_, err = importFile(t.Context(), path, dir, parts)
	require.NoError(t, err, "importing twice changes nothing")
	requireNothingHalf(t, dir)
}

func TestImportRepairsADamagedBundle(t *testing.T) {
	b, parts, path := exported(t)
	overwrite(t, b.Bin("one"), "CONTENT of one")
	got, err := importFile(t.Context(), path, filepath.Dir(b.Dir()), parts)
	require.NoError(t, err)
	problems, err := got.Verify()
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestExportRefusesADamagedBundle(t *testing.T) {
	b, _, path := exported(t)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	overwrite(t, b.Bin("one"), "CONTENT of one")
	err = b.ExportFile(t.Context(), path)
	require.ErrorContains(t, err, "bin/one")
	_ = setupError(t, err)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after), "the file of before is kept")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)

	require.Error(t, b.ExportFile(t.Context(), filepath.Join(t.TempDir(), "no", "such", "folder")))
}

// TestImportRefusesDamagedFiles flips a bit at many places and cuts the file at many places.
func TestImportRefusesDamagedFiles(t *testing.T) {
	_, parts, path := exported(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := filepath.Join(t.TempDir(), "damaged")
	dir := t.TempDir()
	refused := func(content []byte) error {
		require.NoError(t, os.WriteFile(damaged, content, 0o600))
		_, err := importFile(t.Context(), damaged, dir, parts)
		if err != nil {
			_ = setupError(t, err)
			requireNothingInstalled(t, dir)
		}
		return err
	}
	const places = 200
	for i := range places {
		at := len(whole) * i / places
		flipped := bytes.Clone(whole)
		flipped[at] ^= 0x10
		require.Error(t, refused(flipped), "bit flipped in byte %d of %d", at, len(whole))
		require.Error(t, refused(whole[:at]), "cut at byte %d of %d", at, len(whole))
	}
	require.ErrorContains(t, refused(whole[:len(whole)-1]), "is not a whole bundle")
	require.ErrorContains(t, refused([]byte("no bundle at all")), "is not a whole bundle")
	_, err = importFile(t.Context(), filepath.Join(t.TempDir(), "none"), dir, parts)
	_ = setupError(t, err)
}

func TestImportRefusesAnotherVersionsBundle(t *testing.T) {
	_, parts, path := exported(t)
	parts[0].inputs = []string{"another pin"}
	dir := t.TempDir()
	_, err := importFile(t.Context(), path, dir, parts)
	require.ErrorContains(t, err, "another version of eastwest")
	_ = setupError(t, err)
	requireNothingInstalled(t, dir)
}

// TestImportRefusesLies imports files that are well-formed, but whose manifest and content do not belong together.
func TestImportRefusesLies(t *testing.T) {
	b, parts, path := exported(t)
	type member struct{ name, content string }
	in, err := os.Open(path)
	require.NoError(t, err)
	defer in.Close()
	z, err := zstd.NewReader(in)
	require.NoError(t, err)
	defer z.Close()
	var members []member
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		members = append(members, member{h.Name, string(data)})
	}
	contents := map[string]string{}
	for i, f := range b.manifest.Files {
		contents[f.SHA256] = members[i+1].content
	}
	// rewritten is the file with another manifest, in which everything else follows from the records.
	rewritten := func(change func(r []record)) []member {
		var m manifest
		require.NoError(t, json.Unmarshal([]byte(members[0].content), &m))
		change(m.Components)
		m = assemble(parts, m.Components)
		data, err := jsonLines(m)
		require.NoError(t, err)
		out := []member{{members[0].name, string(data)}}
		for _, f := range m.Files {
			content, ok := contents[f.SHA256]
			if !ok {
				content = members[1].content
			}
			out = append(out, member{f.Path, content})
		}
		return out
	}
	require.True(t, slices.Equal(members, rewritten(func([]record) {})), "the lies below differ in nothing but what they name")
	for name, members := range map[string][]member{
		"other content": append(append([]member(nil), members[:len(members)-1]...), member{members[len(members)-1].name,
			"x" + noise()[1:]}),
		"one too many":            append(append([]member(nil), members...), member{"bin/more", "more"}),
		"one too few":             members[:len(members)-1],
		"other order":             {members[0], members[2], members[1], members[3]},
		"no manifest":             members[1:],
		"a path outside":          rewritten(func(r []record) { r[0].Files[0].Path = "../../outside" }),
		"an absolute path":        rewritten(func(r []record) { r[0].Files[0].Path = "/tmp/outside" }),
		"the manifest's own path": rewritten(func(r []record) { r[0].Files[0].Path = manifestName }),
		"a path twice":            rewritten(func(r []record) { r[0].Files[0].Path = "bin/two" }),
		"a bad digest":            rewritten(func(r []record) { r[0].Files[0].SHA256 = "../../outside" }),
		"an image outside":        rewritten(func(r []record) { r[1].Images[0].Archive = "../../outside" }),
		"another component":       rewritten(func(r []record) { r[0].Name = "other" }),
		"another key":             rewritten(func(r []record) { r[0].Key = "../../outside" }),
		"one component too many":  {{members[0].name, strings.TrimSuffix(members[0].content, "\n ]\n}\n") + ", {}]}"}},
		"a lost component":        {{members[0].name, strings.Replace(members[0].content, `"components": [`, `"components": [], "was": [`, 1)}},
		"other digest": append([]member{{members[0].name, strings.Replace(members[0].content, b.Digest(),
			"sha256:"+strings.Repeat("0", 64), 1)}}, members[1:]...),
		"no JSON": {{members[0].name, "{"}},
	} {
		t.Run(name, func(t *testing.T) {
			lie := filepath.Join(t.TempDir(), "lie")
			f, err := os.Create(lie)
			require.NoError(t, err)
			z, err := zstd.NewWriter(f)
			require.NoError(t, err)
			tw := tar.NewWriter(z)
			for _, m := range members {
				require.NoError(t, tw.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.content)), Mode: 0o444}))
				_, err := tw.Write([]byte(m.content))
				require.NoError(t, err)
			}
			require.NoError(t, tw.Close())
			require.NoError(t, z.Close())
			require.NoError(t, f.Close())
			dir := t.TempDir()
			_, err = importFile(t.Context(), lie, dir, parts)
			require.ErrorContains(t, err, "is not a whole bundle")
			_ = setupError(t, err)
			requireNothingInstalled(t, dir)
		})
	}
}

func TestImportNeedsSpace(t *testing.T) {
	_, parts, path := exported(t)
	dir := smallDisk(t, "16k")
	_, err := importFile(t.Context(), path, dir, parts)
	require.ErrorContains(t, err, "of free disk")
	_ = setupError(t, err)
	requireNothingInstalled(t, dir)
}

func TestExportToAFullDisk(t *testing.T) {
	b, _, _ := exported(t)
	dir := smallDisk(t, "4k")
	err := b.ExportFile(t.Context(), filepath.Join(dir, "file"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	_ = setupError(t, err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestImportCanBeCanceled(t *testing.T) {
	_, parts, path := exported(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := importFile(ctx, path, dir, parts)
	require.ErrorIs(t, err, context.Canceled)
	requireNothingInstalled(t, dir)
}
