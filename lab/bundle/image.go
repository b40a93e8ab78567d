package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is a file of a layer: copied from the host (from), made here (data), or a symbolic link (link).
type entry struct {
	path string // in the image, absolute
	mode int64
	from string
	data []byte
	link string
	dir  bool
	uid  int // and gid
}

// tree collects the entries of one layer. A path that is added twice keeps its first entry.
type tree struct{ entries map[string]entry }

func newTree() *tree { return &tree{entries: map[string]entry{}} }

func (t *tree) add(e entry) {
	e.path = path.Clean(e.path)
	if _, ok := t.entries[e.path]; !ok {
		t.entries[e.path] = e
	}
}

func (t *tree) program(at, from string) { t.add(entry{path: at, mode: 0o755, from: from}) }
func (t *tree) text(at, data string)    { t.add(entry{path: at, mode: 0o644, data: []byte(data)}) }
func (t *tree) symlink(at, to string)   { t.add(entry{path: at, mode: 0o777, link: to}) }
func (t *tree) folder(at string, mode int64) {
	t.add(entry{path: at, mode: mode, dir: true})
}

// write makes the layer's tar: sorted, owned by root, with one time, so that equal files give equal bytes.
func (t *tree) write(w io.Writer) error {
	for p := range t.entries { // parents first, unless they were added with modes of their own
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			t.folder(dir, 0o755)
		}
	}
	entries := make([]entry, 0, len(t.entries))
	for _, e := range t.entries {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := e.write(tw); err != nil {
			return fmt.Errorf("adding %s: %w", e.path, err)
		}
	}
	return tw.Close()
}

func (e entry) write(tw *tar.Writer) error {
	h := &tar.Header{
		Name:    strings.TrimPrefix(e.path, "/"),
		Mode:    e.mode,
		Uid:     e.uid,
		Gid:     e.uid,
		ModTime: time.Unix(0, 0),
		Format:  tar.FormatPAX,
	}
	switch {
	case e.dir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return tw.WriteHeader(h)
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		return tw.WriteHeader(h)
	case e.from == "":
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(e.data)
		return err
	}
	f, err := os.Open(e.from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// layer is an uncompressed layer in a file. Layers stay uncompressed because they are imported far more often than sent.
type layer struct {
	file string
	hash v1.Hash
	size int64
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// layer takes the tar that write makes, such as a tree's, as a layer into the bench's private folder.
func (b *bench) layer(write func(io.Writer) error) (*layer, error) {
	f, err := os.CreateTemp(b.tmp, "layer-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if err := write(io.MultiWriter(f, h)); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &layer{file: f.Name(), hash: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, size: info.Size()}, f.Close()
}

// image assembles an image of layers, writes its archive to out/images and returns what the manifest says of it.
func (b *bench) image(ctx context.Context, ref string, config v1.Config, trees ...*tree) (Image, error) {
	b.tell(Progress{State: Packing, Detail: ref})
	var layers []v1.Layer
	for _, t := range trees {
		if err := ctx.Err(); err != nil {
			return Image{}, err
		}
		l, err := b.layer(t.write)
		if err != nil {
			return Image{}, fmt.Errorf("writing layer of %s: %w", ref, err)
		}
		layers = append(layers, l)
	}
	return b.imageOf(ref, config, layers...)
}

// imageOf is image for layers that are there.
func (b *bench) imageOf(ref string, config v1.Config, layers ...v1.Layer) (Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range layers {
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCIUncompressedLayer,
			History: v1.History{CreatedBy: "eastwest bundle build"}}); err != nil {
			return Image{}, fmt.Errorf("adding layer to %s: %w", ref, err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return Image{}, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", runtime.GOARCH, v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return Image{}, err
	}
	name := path.Base(strings.SplitN(ref, ":", 2)[0])
	rel := path.Join("images", name+".tar")
	to := filepath.Join(b.out, rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return Image{}, err
	}
	digest, err := writeArchive(to, ref, img, layers)
	if err != nil {
		return Image{}, fmt.Errorf("writing archive of %s: %w", ref, err)
	}
	return Image{Ref: ref, Archive: rel, Digest: digest}, nil
}

// writeArchive writes an OCI layout as a tar, with Docker's manifest.json beside the index: containerd, Podman and
// Docker of any age load it.
func writeArchive(to, ref string, img v1.Image, layers []v1.Layer) (digest string, err error) {
	config, err := img.RawConfigFile()
	if err != nil {
		return "", err
	}
	configHash, err := img.ConfigName()
	if err != nil {
		return "", err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return "", err
	}
	hash, err := img.Digest()
	if err != nil {
		return "", err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Digest: hash, Size: int64(len(manifest)),
			Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Annotations: map[string]string{
				"io.containerd.image.name":          ref,
				"org.opencontainers.image.ref.name": ref[strings.LastIndex(ref, ":")+1:],
			},
		}},
	})
	if err != nil {
		return "", err
	}
	docker := []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{Config: blob(configHash), RepoTags: []string{ref}}}
	all := newTree()
	all.folder("/blobs/sha256", 0o755)
	all.text("/oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	all.text("/index.json", string(index))
	all.text("/"+blob(configHash), string(config))
	all.text("/"+blob(hash), string(manifest))
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return "", err
		}
		docker[0].Layers = append(docker[0].Layers, blob(h))
		all.add(entry{path: "/" + blob(h), mode: 0o644, from: l.(*layer).file})
	}
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(docker); err != nil {
		return "", err
	}
	all.text("/manifest.json", buf.String())
	f, err := os.Create(to)
	if err != nil {
		return "", err
	}
	if err := all.write(f); err != nil {
		_ = f.Close()
		return "", err
	}
	return hash.String(), f.Close()
}
