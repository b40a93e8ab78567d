package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
)

// maxManifest bounds what Import reads before it knows anything about a file.
const maxManifest = 4 << 20

// Export writes the bundle as one file: a zstd-compressed tar, the manifest first, then each file in the manifest's
// order; and then the same for each of its extras. Equal bundles give equal files.
func (b *Bundle) Export(ctx context.Context, w io.Writer) error {
	// Beyond the fastest level the file shrinks little and the time doubles.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.NumCPU()))
	if err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	defer z.Close()
	tw := tar.NewWriter(z)
	if err := b.exportTo(ctx, tw); err != nil {
		return err
	}
	for _, f := range b.extras {
		if f.problem != nil { // whoever built it misses it elsewhere
			return f.problem
		}
		if f.bundle == nil {
			continue
		}
		if err := f.bundle.exportTo(ctx, tw); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	return nil
}

func (b *Bundle) exportTo(ctx context.Context, tw *tar.Writer) error {
	data, err := jsonLines(b.manifest)
	if err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	h := &tar.Header{Name: b.of.prefix() + manifestName, Mode: 0o444, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	if _, err := tw.Write(data); err != nil {
		return fmt.Errorf("exporting bundle: %w", err)
	}
	for _, f := range b.manifest.Files {
		if err := b.exportFile(ctx, tw, f); err != nil {
			return fmt.Errorf("exporting %s: %w", f.Path, err)
		}
	}
	return nil
}

// ExportFile writes Export to a file, in one step: a failed or interrupted export leaves what was there before.
func (b *Bundle) ExportFile(ctx context.Context, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".eastwest-export-")
	if err != nil {
		return &SetupError{What: "writing the bundle file", Err: err, Try: "a file in a folder that you may write to"}
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone once renamed
	err = b.Export(ctx, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if full(err) {
		return &SetupError{What: "the disk of " + path + " is full", Err: err, Try: "a file on another disk"}
	}
	return err
}

func (b *Bundle) exportFile(ctx context.Context, tw *tar.Writer, f File) error {
	in, err := os.Open(filepath.Join(b.root, f.Path))
	if err != nil {
		return err
	}
	defer in.Close()
	header := &tar.Header{Name: b.of.prefix() + f.Path, Mode: int64(f.Mode), Size: f.Size, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	// What is handed to a class must not be damaged: the digest is checked on the way.
	h := sha256.New()
	if err := copyAll(ctx, io.MultiWriter(tw, h), in); err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA256 {
		return b.damaged(Problem{Path: f.Path, Wanted: "sha256:" + f.SHA256, Seen: "sha256:" + sum})
	}
	return nil
}

// Import takes a file of Export into the bundle folder dir and returns the bundle. Every file is checked against its
// digest before anything is installed. It needs no network and no tools.
func Import(ctx context.Context, path, dir string) (*Bundle, error) {
	return importFile(ctx, path, dir, recipes(), extras()...)
}

func importFile(ctx context.Context, path, dir string, components []component, extras ...extra) (*Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("importing bundle: %w", err)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, &SetupError{What: "reading the bundle file", Err: err, Try: "a file that `eastwest bundle export FILE` wrote"}
	}
	defer in.Close()
	s := store(dir)
	unlock, err := s.hold(ctx, newReporter(nil))
	if err != nil {
		return nil, err
	}
	defer unlock()
	staged, err := os.MkdirTemp(s.tmp(), "import-")
	if err != nil {
		return nil, s.explain("", fmt.Errorf("importing bundle: %w", err))
	}
	defer os.RemoveAll(staged) //nolint:errcheck // the next holder of the lock clears it
	all, err := s.unpack(ctx, in, components, extras, staged)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("importing %s: %w", path, cause)
		}
		err = s.explain("", err)
		var setup *SetupError
		if errors.As(err, &setup) {
			return nil, setup
		}
		return nil, &SetupError{What: path + " is not a whole bundle", Err: err, Try: "copy or export the file again"}
	}
	err = s.install(all, staged)
	for _, u := range all {
		if err == nil {
			err = s.publish(u.components)
		}
	}
	if err != nil {
		return nil, s.explain("", fmt.Errorf("importing %s: %w", path, err))
	}
	return open(dir, components, extras...)
}

// unpacked is the bundle of a file, or an extra, with the recipes that it is made by.
type unpacked struct {
	manifest
	components []component
}

// unpack checks the whole file into the folder staged, where each file is named by its digest. The file holds the bundle of
// components first, and then any of the extras, in their order.
func (s store) unpack(ctx context.Context, in io.Reader, components []component, extras []extra, staged string) ([]unpacked, error) {
	z, err := zstd.NewReader(in)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	tr := tar.NewReader(z)
	h, err := tr.Next()
	if err != nil {
		return nil, err
	}
	var all []unpacked
	set := extra{components: components}
	for {
		m, err := s.unpackSet(ctx, tr, h, set, staged)
		if err != nil {
			return nil, err
		}
		all = append(all, unpacked{manifest: m, components: set.components})
		if h, err = tr.Next(); err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(extras, func(e extra) bool { return h.Name == e.prefix()+manifestName })
		if i < 0 {
			return nil, errors.New("it holds more than its manifest names")
		}
		set, extras = extras[i], extras[i+1:]
	}
	_, err = io.Copy(io.Discard, z) // to the checksum at the end
	return all, err
}

// unpackSet takes the manifest, whose header has been read, and its files.
func (s store) unpackSet(ctx context.Context, tr *tar.Reader, h *tar.Header, set extra, staged string) (manifest, error) {
	m, err := readManifest(tr, h, set)
	if err != nil {
		return m, err
	}
	var total int64
	for _, f := range m.Files {
		total += f.Size
	}
	if free, err := freeBytes(string(s)); err == nil && free < total {
		return m, &SetupError{
			What: fmt.Sprintf("importing the bundle into %s needs %s of free disk, %s are free there", s, size(total), size(free)),
			Try:  "free some space, or set " + EnvDir + " to a folder on another disk",
		}
	}
	for _, f := range m.Files {
		if err := unpackFile(ctx, tr, f, set.prefix(), filepath.Join(staged, f.SHA256)); err != nil {
			return m, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return m, nil
}

// install takes over what unpack staged: blobs first, then the records that promise them.
func (s store) install(all []unpacked, staged string) error {
	if err := os.MkdirAll(s.blobs(), 0o755); err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, m := range all {
		for _, f := range m.Files {
			if taken[f.SHA256] {
				continue
			}
			taken[f.SHA256] = true
			if err := os.Rename(filepath.Join(staged, f.SHA256), s.blob(f.SHA256)); err != nil {
				return err
			}
		}
	}
	for _, m := range all {
		for _, r := range m.Components {
			if err := s.record(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// readManifest reads the first entry and refuses what is not this command's bundle or does not fit together, before
// anything is written. It believes nothing but the files' digests: the rest must be what we would write ourselves.
func readManifest(tr *tar.Reader, h *tar.Header, set extra) (manifest, error) {
	var m manifest
	components, prefix := set.components, set.prefix()
	if h.Name != prefix+manifestName || h.Size > maxManifest {
		return m, fmt.Errorf("wanted %s first, seen %s of %d bytes", prefix+manifestName, h.Name, h.Size)
	}
	data, err := io.ReadAll(tr)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("reading %s: %w", manifestName, err)
	}
	if want := bundleKey(components); m.Key != want {
		return m, &SetupError{
			What: fmt.Sprintf(
				"the file holds the bundle of another version of eastwest: wanted %s for %s/%s, seen %s for %s",
				want,
				runtime.GOOS,
				runtime.GOARCH,
				m.Key,
				m.Platform,
			),
			Try: "export it with the same version of eastwest that imports it",
		}
	}
	if len(m.Components) != len(components) {
		return m, fmt.Errorf("%s names %d components, wanted %d", manifestName, len(m.Components), len(components))
	}
	names := map[string]bool{}
	for i, r := range m.Components {
		if r.Name != components[i].name || r.Key != components[i].key() {
			return m, fmt.Errorf("%s names component %q, wanted %q", manifestName, r.Name, components[i].name)
		}
		for _, f := range r.Files {
			sum, err := hex.DecodeString(f.SHA256)
			if !filepath.IsLocal(f.Path) || filepath.Clean(f.Path) == manifestName || names[f.Path] || err != nil || len(sum) != sha256.Size {
				return m, fmt.Errorf("%s names a file %q with digest %q", manifestName, f.Path, f.SHA256)
			}
			names[f.Path] = true
		}
		for _, image := range r.Images {
			if !names[image.Archive] {
				return m, fmt.Errorf("%s names an image in %q, which it does not list", manifestName, image.Archive)
			}
		}
	}
	m = assemble(components, m.Components)
	if ours, err := jsonLines(m); err != nil || !bytes.Equal(ours, data) {
		return m, errors.Join(fmt.Errorf("%s contradicts itself", manifestName), err)
	}
	return m, nil
}

func unpackFile(ctx context.Context, tr *tar.Reader, f File, prefix, to string) error {
	h, err := tr.Next()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if h.Name != prefix+f.Path || h.Size != f.Size {
		return fmt.Errorf("wanted %d bytes, seen %s with %d", f.Size, h.Name, h.Size)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = copyAll(ctx, io.MultiWriter(out, sum), tr)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if seen := hex.EncodeToString(sum.Sum(nil)); seen != f.SHA256 {
		return fmt.Errorf("wanted sha256:%s, seen sha256:%s", f.SHA256, seen)
	}
	return os.Chmod(to, f.Mode.Perm()&0o555)
}

// copyAll copies until the end, an error, or the end of ctx.
func copyAll(ctx context.Context, to io.Writer, from io.Reader) error {
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
