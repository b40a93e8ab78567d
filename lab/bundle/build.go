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
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// BuildOptions say where and how to build.
type BuildOptions struct {
	Dir      string         // bundle folder; DefaultDir when empty
	Parallel int            // components built at once; the number of CPUs when zero
	Progress func(Progress) // told what happens, one call at a time; may be nil
	WithKind bool           // what kind clusters without a registry need, too: see KindNodeImage
	Tools    bool           // kubectl and istioctl alone: see OpenTools
}

// Progress is a step of one component, or of the whole build where Component is empty.
type Progress struct {
	Component string
	State     State
	Done      int           // Go packages compiled so far
	Total     int           // Go packages in all; 0 while unknown
	Took      time.Duration // since the component was begun
	Detail    string        // what is being done right now
}

// State of a component.
type State string

// The states, in the order in which a component passes them. Reused and Done are the good ends.
const (
	Waiting     State = "waiting"     // for its turn; for the whole build: another build in the same folder
	Downloading State = "downloading" // sources
	Building    State = "building"
	Packing     State = "packing" // an image
	Done        State = "done"
	Reused      State = "reused" // it was there and its files are what they should be
	Failed      State = "failed"
)

// Build makes the bundle that this command wants and returns it. What is there already is checked byte by byte and
// kept, so an interrupted build goes on where it stopped and a damaged bundle is repaired. A second Build in the same
// folder waits for the first. Failures of the machine are a *SetupError.
func Build(ctx context.Context, o BuildOptions) (*Bundle, error) {
	switch {
	case o.WithKind:
		return build(ctx, o, recipes(), kindRecipes())
	case o.Tools:
		return build(ctx, o, toolRecipes())
	}
	if _, err := build(ctx, o, recipes()); err != nil {
		return nil, err
	}
	dir, err := o.dir()
	if err != nil {
		return nil, err
	}
	return Open(dir) // with what earlier builds have made for kind
}

// dir returns the bundle folder.
func (o BuildOptions) dir() (string, error) {
	if o.Dir != "" {
		return filepath.Abs(o.Dir)
	}
	return DefaultDir()
}

// build makes the sets of components one after another: the first is the bundle, and a later one may be made of it.
func build(ctx context.Context, o BuildOptions, components []component, extra ...[]component) (*Bundle, error) {
	dir, err := o.dir()
	if err != nil {
		return nil, fmt.Errorf("building bundle: %w", err)
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU()
	}
	p := newReporter(o.Progress)
	s := store(dir)
	unlock, err := s.hold(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()

	sets := append([][]component{components}, extra...)
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
		if err := s.publish(set); err != nil {
			return nil, s.explain("", fmt.Errorf("completing bundle: %w", err))
		}
	}
	return open(dir, components, extra...)
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

// make builds components: the groups side by side, in the order of the table, which has the long ones first, and then
// what is made of the others.
func (s store) make(ctx context.Context, missing []component, parallel int, p *reporter) error {
	if i := slices.IndexFunc(missing, func(c component) bool { return c.last }); i > 0 {
		if err := s.make(ctx, missing[:i], parallel, p); err != nil {
			return err
		}
		missing = missing[i:]
	}
	var groups [][]component
	place := map[string]int{}
	for _, c := range missing {
		i, ok := place[c.group]
		if !ok || c.group == "" {
			i = len(groups)
			place[c.group] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], c)
	}
	// The first failure ends the others; theirs are only echoes of it.
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(parallel)
	for _, group := range groups {
		all.Go(func() error {
			for _, c := range group {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := s.makeOne(ctx, c, p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return all.Wait()
}

// makeOne builds one component in a folder of its own and takes its files over when all of them are there.
func (s store) makeOne(ctx context.Context, c component, p *reporter) (err error) {
	start := time.Now()
	tell := func(pr Progress) {
		pr.Component, pr.Took = c.name, time.Since(start)
		p.tell(pr)
	}
	dir, err := os.MkdirTemp(s.tmp(), c.name+"-")
	if err != nil {
		return s.explain(c.name, err)
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil && rerr != nil {
			err = fmt.Errorf("building %s: %w", c.name, rerr)
		}
		if err != nil {
			tell(Progress{State: Failed, Detail: firstLine(err)})
		} else {
			tell(Progress{State: Done})
		}
	}()
	tell(Progress{State: Building})
	b := &bench{store: s, component: c.name, tmp: dir, out: filepath.Join(dir, "out"), tell: tell}
	if err := os.Mkdir(b.out, 0o755); err != nil {
		return s.explain(c.name, err)
	}
	images, err := c.build(ctx, b)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("building %s: %w", c.name, cause)
		}
		return s.explain(c.name, err)
	}
	if err := s.take(c, b.out, images); err != nil {
		return s.explain(c.name, err)
	}
	return nil
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

// explain turns failures that are the machine's into a SetupError and gives the others their component.
func (s store) explain(component string, err error) error {
	var setup *SetupError
	if errors.As(err, &setup) {
		if setup.Component == "" {
			setup.Component = component
		}
		return setup
	}
	if full(err) {
		return &SetupError{
			Component: component, What: "the disk is full" + s.fullest(), Err: err,
			Try: "free some space, or set " + EnvDir + " (results) and GOMODCACHE (sources) to folders on another disk; what is finished is kept",
		}
	}
	if component == "" {
		return err
	}
	return fmt.Errorf("building %s: %w", component, err)
}

// full tells whether a disk or quota ran out, for us or for a command that we ran.
func full(err error) bool {
	return err != nil && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), "no space left on device"))
}

// fullest tells how much is free where building writes: results and Go's sources. (Go works on without its build
// cache when that one's disk is full.)
func (s store) fullest() string {
	dirs := []string{string(s)}
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		dirs = append(dirs, dir)
	} else if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "go", "pkg", "mod"))
	}
	var parts []string
	for _, dir := range dirs {
		if free, err := freeBytes(dir); err == nil {
			parts = append(parts, fmt.Sprintf("%s: %s free", dir, size(free)))
		}
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// freeBytes returns what an ordinary user may still write to the disk of dir.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("asking for free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

func syncDisk(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// size writes a number of bytes for people: "1.4 GiB", "320 MiB".
func size(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20)
}
