// Package bundle holds everything that a lab runs: the Kubernetes, etcd, containerd and Istio binaries, and the
// container images, pinned and built from source into one content-addressed folder.
//
// Build makes the bundle (about 12 minutes on two cores the first time, nothing afterwards); Open finds the one that
// this command wants. Building needs Go, gcc with libseccomp, pip, and the host tools that go into the proxy image:
// scripts/deps.sh installs them. It takes 3 GiB in the bundle folder, and Go's own caches grow by about 11 GiB. Export
// writes the bundle to one file that Import takes on a machine without network.
//
// The folder looks like this:
//
//	DIR/lock                      held by whoever builds or imports
//	DIR/blobs/sha256/<digest>     every file once
//	DIR/components/<key>.json     a finished component: its files and their digests
//	DIR/<bundle key>/manifest.json, bin/, images/    hard links to the blobs
//	DIR/<kind key>/manifest.json, bin/, kind/        the same for what only labs of the provider kind need, if it was built
//	DIR/<part key>/manifest.json, bin/, images/      the same for each further version of Istio, if it was built
//	DIR/<tools key>/manifest.json, bin/              the same for kubectl and istioctl, if they were built alone
//
// A key is a hash of pins (go.mod, go.sum, versions, recipe), so a changed pin builds anew and never overwrites what a
// running lab uses. The digest is a hash of the files themselves.
//
// Rebuilding changes no digest, but for the node image of kind: Docker writes times into it, and its Debian is the stable
// release as it is on that day. It is as its record says wherever it is handed to.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Hub and Tag name the Istio images of the bundle: Hub/pilot:Tag, Hub/proxyv2:Tag, Hub/app:Tag. They are what the
// mesh must be installed with (values.global.hub and values.global.tag) and what the bundle's istioctl defaults to.
// The second half of Tag is the commit of the pinned istio.io/istio; a test holds the two together.
const (
	Hub = "eastwest.local"
	Tag = "1.31-eed52ebb66ad"
)

// EnvDir names the environment variable that moves the bundle folder.
const EnvDir = "EASTWEST_BUNDLE"

// DefaultDir returns the bundle folder: $EASTWEST_BUNDLE, or eastwest/bundle in the user's cache folder.
func DefaultDir() (string, error) {
	if dir := os.Getenv(EnvDir); dir != "" {
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", &SetupError{
			What: "no folder for the bundle is known",
			Err:  err,
			Try:  "set " + EnvDir + " to a folder with 4 GiB of free space",
		}
	}
	return filepath.Join(cache, "eastwest", "bundle"), nil
}

// Bundle is a complete bundle on disk. Its files are read-only and shared: never write to them.
type Bundle struct {
	root     string // DIR/<bundle key>
	manifest manifest
	of       extra   // which part of another bundle it is; without a name where it is none
	extras   []found // beside it
}

// Image is a container image of the bundle.
type Image struct {
	Ref     string `json:"ref"`     // "eastwest.local/pilot:…", as a pod names it
	Archive string `json:"archive"` // absolute path of the archive: OCI layout, loadable by Docker too, layers uncompressed
	Digest  string `json:"digest"`  // of the image's OCI manifest, "sha256:…"

}

// IstioProxy says whose Envoy the proxyv2 image holds. Upstream Envoy lacks Istio's own filters, so with it the mesh
// has to be installed without telemetry, metadata exchange and the ALPN filter.
type IstioProxy struct {
	Upstream bool   `json:"upstream"`
	Version  string `json:"version"` // of Envoy
}

// Open returns the bundle of this command's pins in dir. Where there is none, or one that lacks files, the error is a
// *SetupError that says how to get one. Open looks at sizes only: Verify reads every byte.
func Open(dir string) (*Bundle, error) { return open(dir, recipes(), extras()...) }

// OpenTools returns a bundle that has at least kubectl and istioctl: the one of Open, or where that was never built, what
// Build has made with Tools.
func OpenTools(dir string) (*Bundle, error) {
	return openOr(dir, recipes(), toolRecipes(), extras()...)
}

// openOr opens the bundle of components, or where it was never built, the one of others.
func openOr(dir string, components, others []component, extras ...extra) (*Bundle, error) {
	if _, err := read(dir, extra{components: components}); errors.Is(err, fs.ErrNotExist) {
		return open(dir, others)
	}
	return open(dir, components, extras...)
}

// open opens the bundle of components, with the extras that have been built.
func open(dir string, components []component, extras ...extra) (*Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	b, err := read(dir, extra{components: components})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &SetupError{
			What: "there is no bundle for this version of eastwest in " + dir,
			Try:  "run `eastwest bundle build`, or `eastwest bundle import FILE`",
		}
	}
	if err != nil {
		return nil, err
	}
	if err := b.look(); err != nil {
		return nil, err
	}
	b.extras = find(dir, extras)
	return b, nil
}

func read(dir string, e extra) (*Bundle, error) {
	b := &Bundle{root: filepath.Join(dir, bundleKey(e.components)), of: e}
	data, err := os.ReadFile(filepath.Join(b.root, manifestName))
	if err != nil {
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	if err := json.Unmarshal(data, &b.manifest); err != nil {
		return nil, b.damaged(Problem{Path: manifestName, Seen: err.Error()})
	}
	return b, nil
}

func (b *Bundle) damaged(p Problem) error {
	return &SetupError{
		What: fmt.Sprintf("%s in %s is damaged: %s", b.of.what(), b.root, p),
		Try:  fmt.Sprintf("run `%s`, which makes only the damaged parts again", buildCommand(b.of.name)),
	}
}

// Digest returns the content digest of the bundle, "sha256:…": equal for equal files, wherever and whenever they were
// built. What only some labs need does not count: the others are the same with and without it.
func (b *Bundle) Digest() string { return b.manifest.Digest }

// Dir returns the folder that holds bin and images.
func (b *Bundle) Dir() string { return b.root }

// BinDir returns the folder of the binaries, fit for PATH.
func (b *Bundle) BinDir() string { return filepath.Join(b.root, "bin") }

// CNIDir returns the folder of the CNI plugins: host-local, loopback, portmap, ptp.
func (b *Bundle) CNIDir() string { return filepath.Join(b.root, "bin", "cni") }

// Bin returns the absolute path of a binary such as "kubelet" or "istioctl". It does not look whether there is one.
func (b *Bundle) Bin(name string) string { return filepath.Join(b.BinDir(), name) }

// Images returns the images, sorted by Ref.
func (b *Bundle) Images() []Image {
	images := slices.Clone(b.manifest.Images)
	for i := range images {
		images[i].Archive = filepath.Join(b.root, images[i].Archive)
	}
	return images
}

// IstioProxy tells which Envoy the proxy image holds.
func (b *Bundle) IstioProxy() IstioProxy { return b.manifest.IstioProxy }

// Versions returns what the bundle holds: "kubernetes" → "v1.36.1" and so on.
func (b *Bundle) Versions() map[string]string { return maps.Clone(b.manifest.Versions) }

// Part is what one component brought into the bundle.
type Part struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Files   []File `json:"files"`
}

// Parts returns the components, in the order in which they are built.
func (b *Bundle) Parts() []Part {
	parts := make([]Part, len(b.manifest.Components))
	for i, r := range b.manifest.Components {
		parts[i] = Part{Name: r.Name, Version: r.Version, Files: slices.Clone(r.Files)}
	}
	for _, f := range b.extras {
		if f.bundle != nil {
			parts = append(parts, f.bundle.Parts()...)
		}
	}
	return parts
}

// Verify hashes every file and returns those that are missing or differ, sorted by path, those of the extras after the others.
// The error is of reading.
func (b *Bundle) Verify() ([]Problem, error) {
	problems, err := verify(b.root, b.manifest.Files)
	if err != nil {
		return problems, err
	}
	for _, f := range b.extras {
		if f.problem != nil {
			return problems, f.problem
		}
		if f.bundle == nil {
			continue
		}
		more, err := f.bundle.Verify()
		for i := range more {
			more[i].With = f.name
		}
		if problems = append(problems, more...); err != nil {
			return problems, err
		}
	}
	return problems, nil
}

// Repair returns the command that makes whole what has these problems.
func Repair(problems []Problem) string {
	var with []string
	for _, name := range ExtraNames() {
		if slices.ContainsFunc(problems, func(p Problem) bool { return p.With == name }) {
			with = append(with, name)
		}
	}
	return buildCommand(with...)
}
