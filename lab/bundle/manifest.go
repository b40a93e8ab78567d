package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
)

const manifestName = "manifest.json"

// manifest describes a complete bundle. It holds no times and no machine's paths: equal bundles have equal manifests.
type manifest struct {
	Digest     string            `json:"digest"`
	Key        string            `json:"key"`
	Platform   string            `json:"platform"` // "linux/amd64"
	IstioProxy IstioProxy        `json:"istioProxy"`
	Versions   map[string]string `json:"versions"`
	Images     []Image           `json:"images"` // Archive is relative here
	Files      []File            `json:"files"`  // sorted by path
	Components []record          `json:"components"`
}

// File is one file of the bundle.
type File struct {
	Path   string      `json:"path"` // below the bundle's folder, with slashes
	Mode   fs.FileMode `json:"mode"` // 0555 for programs, 0444 for data
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"`
}

// Problem is a file that is not what the manifest says.
type Problem struct {
	Component string `json:"component,omitempty"`
	With      string `json:"with,omitempty"` // which part it is in, as BuildOptions.With has it; empty for the bundle itself
	Path      string `json:"path"`
	Wanted    string `json:"wanted,omitempty"`
	Seen      string `json:"seen"`
}

func (p Problem) String() string {
	path := extra{name: p.With}.prefix() + p.Path // there are two of bin/istioctl
	if p.Wanted == "" {
		return path + ": " + p.Seen
	}
	return fmt.Sprintf("%s: wanted %s, seen %s", path, p.Wanted, p.Seen)
}

// look compares what can be seen without reading the file.
func (f File) look(root string) *Problem {
	info, err := os.Lstat(filepath.Join(root, f.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Problem{Path: f.Path, Seen: "missing"}
	case err != nil:
		return &Problem{Path: f.Path, Seen: err.Error()}
	case !info.Mode().IsRegular():
		return &Problem{Path: f.Path, Seen: "not a regular file"}
	case info.Size() != f.Size:
		return &Problem{Path: f.Path, Wanted: fmt.Sprintf("%d bytes", f.Size), Seen: fmt.Sprintf("%d bytes", info.Size())}
	}
	return nil
}

// verify hashes files in parallel.
func verify(root string, files []File) ([]Problem, error) {
	found := make([]*Problem, len(files))
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i, f := range files {
		group.Go(func() error {
			if found[i] = f.look(root); found[i] != nil {
				return nil
			}
			sum, err := hashFile(filepath.Join(root, f.Path))
			if err == nil && sum != f.SHA256 {
				found[i] = &Problem{Path: f.Path, Wanted: "sha256:" + f.SHA256, Seen: "sha256:" + sum}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("verifying bundle: %w", err)
	}
	var problems []Problem
	for _, p := range found {
		if p != nil {
			problems = append(problems, *p)
		}
	}
	return problems, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, f, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// contentDigest is the digest of a set of files: their paths, modes and contents.
func contentDigest(files []File) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %o %s\n", f.SHA256, f.Mode, f.Path)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// assemble makes the manifest of finished components.
func assemble(components []component, records []record) manifest {
	m := manifest{
		Key: bundleKey(components), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Versions: map[string]string{}, Images: []Image{}, Components: records,
	}
	for i, r := range records {
		m.Components[i].Version = components[i].version
		m.Files = append(m.Files, r.Files...)
		m.Images = append(m.Images, r.Images...)
		m.Versions[r.Name] = components[i].version
		maps.Copy(m.Versions, components[i].contains)
	}
	if envoy := m.Versions["envoy"]; envoy != "" {
		m.IstioProxy = IstioProxy{Upstream: true, Version: envoy}
	}
	slices.SortFunc(m.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(m.Images, func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) })
	m.Digest = contentDigest(m.Files)
	return m
}

// hashOf is the hash of a value's JSON.
func hashOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("bundle: hashing " + fmt.Sprintf("%T", v) + ": " + err.Error()) // only plain structs come here
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// jsonLines is JSON as it lies on disk.
func jsonLines(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}
