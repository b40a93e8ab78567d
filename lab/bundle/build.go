package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// BuildOptions say where and how to build.
type BuildOptions struct {
	Dir      string         // bundle folder; DefaultDir when empty
	Parallel int            // components built at once; the number of CPUs when zero
	Progress func(Progress) // told what happens, one call at a time; may be nil
	With     []string       // what only some labs need, too, of ExtraNames: see KindNodeImage, Istio
	Tools    bool           // kubectl and istioctl alone: see OpenTools
}

// Build makes the bundle that this command wants and returns it. What is there already is checked byte by byte and
// kept, so an interrupted build goes on where it stopped and a damaged bundle is repaired. A second Build in the same
// folder waits for the first. Failures of the machine are a *SetupError.
func Build(ctx context.Context, o BuildOptions) (*Bundle, error) {
	if o.Tools && len(o.With) == 0 {
		return build(ctx, o, toolRecipes())
	}
	with, err := extrasOf(o.With)
	if err != nil {
		return nil, err
	}
	if _, err := build(ctx, o, recipes(), with...); err != nil {
		return nil, err
	}
	dir, err := o.dir()
	if err != nil {
		return nil, err
	}
	return Open(dir) // with the extras that earlier builds have made
}

// dir returns the bundle folder.
func (o BuildOptions) dir() (string, error) {
	if o.Dir != "" {
		return filepath.Abs(o.Dir)
	}
	return DefaultDir()
}

// build makes the bundle of components and then the extras, one after another: they may be made of the bundle.
func build(ctx context.Context, o BuildOptions, components []component, extras ...extra) (*Bundle, error) {
	dir, err := o.dir()
	if err != nil {
		return nil, fmt.Errorf("building bundle: %w", err)
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU()
	}
	p := newReporter(o.Progress)
	defer p.beat()()
	s := store(dir)
	unlock, err := s.hold(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p.doing("checking what is there")

	sets := [][]component{components}
	for _, e := range extras {
		sets = append(sets, e.components)
	}
	missing := make([][]component, len(sets))
	for i, set := range sets {
		if missing[i], err = s.check(set, p); err != nil {
			return nil, err
		}
	}
	if all := slices.Concat(missing...); len(all) > 0 {
		if err := s.preflight(ctx, all); err != nil {
			return nil, err
		}
	}
	for i, set := range sets {
		if err := s.make(ctx, missing[i], o.Parallel, p); err != nil {
			return nil, err
		}
		p.doing("completing the bundle")
		if err := s.publish(set); err != nil {
			return nil, s.explain("", fmt.Errorf("completing bundle: %w", err))
		}
	}
	return open(dir, components, extras...)
}

// hold takes the folder's lock, which the kernel frees when its holder dies, and clears what a killed build left.
func (s store) hold(ctx context.Context, p *reporter) (unlock func(), err error) {
	if err := os.MkdirAll(string(s), 0o755); err != nil {
		return nil, &SetupError{What: "making the bundle folder", Err: err, Try: "set " + EnvDir + " to a folder that you may write to"}
	}
	lock := flock.New(s.lock())
	got, err := lock.TryLock()
	if err == nil && !got {
		p.tell(Progress{State: Waiting, Detail: "another eastwest builds or imports in " + string(s)})
		_, err = lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", s.lock(), err)
	}
	unlock = func() { _ = lock.Unlock() }
	if err := os.RemoveAll(s.tmp()); err != nil {
		unlock()
		return nil, fmt.Errorf("clearing %s: %w", s.tmp(), err)
	}
	if err := os.MkdirAll(s.tmp(), 0o755); err != nil {
		unlock()
		return nil, s.explain("", fmt.Errorf("making %s: %w", s.tmp(), err))
	}
	return unlock, nil
}

// check hashes what earlier builds finished and returns the components that have to be built. A damaged blob is
// removed: bundles made of it lose nothing that was good, and publish links them anew.
func (s store) check(components []component, p *reporter) (missing []component, err error) {
	for _, c := range components {
		p.tell(Progress{Component: c.name, State: Waiting})
	}
	for _, c := range components {
		r, ok := s.recorded(c)
		if !ok {
			missing = append(missing, c)
			continue
		}
		blobs := make([]File, len(r.Files))
		for i, f := range r.Files {
			blobs[i] = File{Path: filepath.Join("blobs", "sha256", f.SHA256), Size: f.Size, SHA256: f.SHA256}
		}
		bad, err := verify(string(s), blobs)
		if err != nil {
			return nil, err
		}
		if len(bad) == 0 {
			p.tell(Progress{Component: c.name, State: Reused})
			continue
		}
		for _, b := range bad {
			if err := os.Remove(filepath.Join(string(s), b.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("removing damaged %s: %w", b.Path, err)
			}
		}
		if err := os.Remove(s.note(c.key())); err != nil {
			return nil, fmt.Errorf("forgetting damaged %s: %w", c.name, err)
		}
		p.tell(Progress{Component: c.name, State: Waiting, Detail: "was damaged"})
		missing = append(missing, c)
	}
	return missing, nil
}

// preflight finds everything that is missing before the first minute is spent.
func (s store) preflight(ctx context.Context, missing []component) error {
	var lacks, packages, ways []string
	seen := map[string]bool{}
	for _, c := range missing {
		for _, t := range c.tools {
			if seen[t.name] {
				continue
			}
			seen[t.name] = true
			if lack := t.find(ctx); lack != "" {
				lacks = append(lacks, fmt.Sprintf("%s (for %s): %s", t.name, c.name, lack))
				if t.way != "" && !slices.Contains(ways, t.way) {
					ways = append(ways, t.way)
				}
				if t.debian != "" {
					packages = append(packages, t.debian)
				}
			}
		}
	}
	if len(lacks) > 0 {
		if len(packages) > 0 {
			slices.Sort(packages)
			ways = append([]string{"scripts/deps.sh, or by hand: apt-get install " + strings.Join(slices.Compact(packages), " ")}, ways...)
		}
		return &SetupError{What: "this machine lacks what building the bundle needs", Missing: lacks, Try: strings.Join(ways, "; ")}
	}
	needed := needs(missing)
	if free, err := freeBytes(string(s)); err == nil && free < needed {
		return &SetupError{
			What: fmt.Sprintf("building the bundle in %s needs %s of free disk, %s are free there", s, size(needed), size(free)),
			Try:  "free some space, or set " + EnvDir + " to a folder on another disk",
		}
	}
	return nil
}

func needs(components []component) (bytes int64) {
	for _, c := range components {
		bytes += c.space
	}
	return bytes
}

// make builds components side by side, in the order of the table, which has the long ones first, and then what is made of the
// others.
func (s store) make(ctx context.Context, missing []component, parallel int, p *reporter) error {
	if i := slices.IndexFunc(missing, func(c component) bool { return c.last }); i > 0 {
		if err := s.make(ctx, missing[:i], parallel, p); err != nil {
			return err
		}
		missing = missing[i:]
	}
	return s.makeGroups(ctx, grouped(missing), parallel, p)
}

// take moves the files of out into the blobs and then writes the record, which makes the component finished.
func (s store) take(c component, out string, images []Image) error {
	r := record{Name: c.name, Key: c.key(), Images: images}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := s.adopt(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(out, path)
		f.Path = filepath.ToSlash(rel)
		r.Files = append(r.Files, f)
		return err
	})
	if err != nil {
		return err
	}
	if len(r.Files) == 0 {
		return errors.New("it left no files")
	}
	return s.record(r)
}

func (s store) record(r record) error {
	data, err := jsonLines(r)
	if err != nil {
		return err
	}
	return s.writeFile(s.note(r.Key), data)
}

// adopt renames a finished file to its blob; File.Path is left empty.
func (s store) adopt(path string) (File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	sum, err := hashFile(path)
	if err != nil {
		return File{}, err
	}
	mode := fs.FileMode(0o444)
	if info.Mode()&0o100 != 0 {
		mode = 0o555
	}
	if err := os.Chmod(path, mode); err != nil {
		return File{}, err
	}
	if err := os.MkdirAll(s.blobs(), 0o755); err != nil {
		return File{}, err
	}
	return File{Mode: mode, Size: info.Size(), SHA256: sum}, os.Rename(path, s.blob(sum))
}

// publish makes DIR/<bundle key> from the records, unless it is there and whole.
func (s store) publish(components []component) error {
	records := make([]record, len(components))
	for i, c := range components {
		r, ok := s.recorded(c)
		if !ok {
			return fmt.Errorf("component %s is not finished", c.name)
		}
		records[i] = r
	}
	m := assemble(components, records)
	target := s.root(m.Key)
	if s.linked(m, target) {
		return nil
	}
	next, err := os.MkdirTemp(s.tmp(), "bundle-")
	if err != nil {
		return err
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return err
	}
	for _, f := range m.Files {
		path := filepath.Join(next, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Link(s.blob(f.SHA256), path); err != nil {
			return err
		}
	}
	data, err := jsonLines(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(next, manifestName), data, 0o444); err != nil {
		return err
	}
	if err := syncDisk(string(s)); err != nil { // after a power cut a manifest must not promise what was never written
		return err
	}
	// Exchanging leaves no moment without the folder for a lab that runs from it.
	err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(next, target)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(next)
}

// linked tells whether target holds exactly m, each file being its blob.
func (s store) linked(m manifest, target string) bool {
	data, err := os.ReadFile(filepath.Join(target, manifestName))
	want, werr := jsonLines(m)
	if err != nil || werr != nil || string(data) != string(want) {
		return false
	}
	for _, f := range m.Files {
		here, err := os.Lstat(filepath.Join(target, f.Path))
		blob, berr := os.Lstat(s.blob(f.SHA256))
		if err != nil || berr != nil || !os.SameFile(here, blob) {
			return false
		}
	}
	return true
}

func syncDisk(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
