package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// group is the components whose programs one run of the Go command builds. What the programs share is then loaded and compiled
// once, and one is linked while the Go command compiles for the next.
type group struct {
	from       goModule // without a name where the components have no programs
	components []component

	store     store
	progress  *reporter
	dir       string // private, removed afterwards
	module    workspace
	benches   []*bench // of the components
	processes int      // compilers and linkers at once

	compilation *compilation
	listed      chan struct{}   // closed when compilation is there
	begin       <-chan struct{} // closed when compiling may begin; nil for the first group
	basics      func()          // called when the standard library is compiled
}

// grouped returns the groups of components, in the order in which the components stand.
func grouped(components []component) []*group {
	var groups []*group
	for _, c := range components {
		i := slices.IndexFunc(groups, func(g *group) bool { return c.from.name != "" && g.from == c.from })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{from: c.from, listed: make(chan struct{})})
		}
		groups[i].components = append(groups[i].components, c)
	}
	return groups
}

// name is the group's name in messages.
func (g *group) name() string {
	if len(g.components) == 1 {
		return g.components[0].name
	}
	return g.from.name
}

// programs returns the main packages of all components.
func (g *group) programs() []string {
	var all []string
	for _, c := range g.components {
		all = append(all, c.programs...)
	}
	return all
}

// makeGroups builds groups in their order, as many at once as parallel says. Meanwhile it downloads for those that wait.
func (s store) makeGroups(ctx context.Context, groups []*group, parallel int, p *reporter) (err error) {
	p.expect(len(slices.DeleteFunc(slices.Clone(groups), func(g *group) bool { return g.from.name == "" })))
	basics := make(chan struct{})
	closeBasics := sync.OnceFunc(func() { close(basics) })
	for i, g := range groups {
		g.store, g.progress = s, p
		if err := g.open(); err != nil {
			return s.explain(g.name(), err)
		}
		defer g.remove(&err)
		// The first group gets all CPUs, the others what it leaves. They begin when the standard library is compiled: two runs of the
		// Go command that need a package at the same time compile it twice.
		g.processes, g.begin, g.basics = (runtime.NumCPU()+1)/2, basics, func() {}
		if i == 0 {
			g.processes, g.begin, g.basics = runtime.NumCPU(), nil, closeBasics
		}
	}

	// The first failure ends the others; theirs are only echoes of it.
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return downloadAll(ctx, groups) })
	slots := make(chan struct{}, parallel)
	for _, g := range groups {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return all.Wait()
		}
		all.Go(func() error {
			defer g.basics()
			err := g.make(ctx)
			if err == nil { // otherwise nothing begins: ctx ends only after this function
				<-slots
			}
			return err
		})
	}
	return all.Wait()
}

// downloadAll downloads the sources of all groups, and what else their components need, in the order in which they are built.
func downloadAll(ctx context.Context, groups []*group) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(3) // the Go command downloads many modules at once itself
	for _, g := range groups {
		all.Go(func() error { return g.list(ctx) })
		for i, c := range g.components {
			if c.download != nil {
				all.Go(func() error {
					b := g.benches[i]
					if err := c.download(ctx, b); err != nil {
						return g.fail(ctx, err, c)
					}
					close(b.downloaded)
					return nil
				})
			}
		}
	}
	return all.Wait()
}

// open makes the group's folders.
func (g *group) open() (err error) {
	if g.dir, err = os.MkdirTemp(g.store.tmp(), g.name()+"-"); err != nil {
		return err
	}
	if g.from.name != "" {
		if g.module, err = g.from.open(filepath.Join(g.dir, "go")); err != nil {
			return err
		}
	}
	for _, c := range g.components {
		tmp := filepath.Join(g.dir, "components", c.name)
		b := &bench{store: g.store, module: g.module, tmp: tmp, out: filepath.Join(tmp, "out"), downloaded: make(chan struct{})}
		b.tell = func(p Progress) {
			p.Component = c.name
			g.progress.tell(p)
		}
		if c.download == nil {
			close(b.downloaded)
		}
		if err := os.MkdirAll(b.out, 0o755); err != nil {
			return err
		}
		g.benches = append(g.benches, b)
	}
	return nil
}

func (g *group) remove(err *error) {
	if rerr := os.RemoveAll(g.dir); *err == nil && rerr != nil {
		*err = fmt.Errorf("building %s: %w", g.name(), rerr)
	}
}

// fail tells that components have failed, and returns the reason for people.
func (g *group) fail(ctx context.Context, err error, components ...component) error {
	name := g.name()
	if len(components) == 1 {
		name = components[0].name
	}
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("building %s: %w", name, cause)
	} else {
		err = g.store.explain(name, err)
	}
	for _, c := range components {
		g.progress.tell(Progress{Component: c.name, State: Failed, Detail: words.FirstLine(err.Error())})
	}
	return err
}

// list downloads the sources that the group's programs are made of, and nothing else of the module graph, and finds out what has
// to be compiled.
func (g *group) list(ctx context.Context) error {
	defer close(g.listed)
	if g.from.name == "" {
		return nil
	}
	g.tell(Progress{State: Downloading, Detail: "module " + g.from.name})
	var out bytes.Buffer
	err := g.module.run(ctx, &out, func(line string) bool {
		what, ok := strings.CutPrefix(line, "go: downloading ")
		if ok {
			g.tell(Progress{State: Downloading, Detail: what})
		}
		return ok
	}, append([]string{"list", "-deps", "-json=ImportPath,Dir,Standard,GoFiles,CgoFiles,Imports,ImportMap", "-tags", g.from.tags},
		g.programs()...)...)
	if err != nil {
		return g.fail(ctx, err, g.components...)
	}
	var list []*goPackage
	for d := json.NewDecoder(&out); ; {
		p := &goPackage{}
		err := d.Decode(p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return g.fail(ctx, fmt.Errorf("reading the list of packages: %w", err), g.components...)
		}
		list = append(list, p)
	}
	g.compilation = newCompilation(g.from.name, g.module.programs(), list, g.components)
	g.progress.listed(g.compilation)
	return nil
}

// make compiles the group's programs and makes its components of them.
func (g *group) make(ctx context.Context) (err error) {
	defer g.remove(&err)
	if g.from.name != "" {
		if err := g.compile(ctx); err != nil {
			return err
		}
	}
	g.basics()
	for i, c := range g.components {
		if err := g.makeOne(ctx, c, g.benches[i]); err != nil {
			return err
		}
	}
	return nil
}

// compile compiles and links, when the sources are there.
func (g *group) compile(ctx context.Context) error {
	for _, wait := range []<-chan struct{}{g.listed, g.begin} {
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if g.compilation == nil {
		return ctx.Err() // listing has failed, and told so
	}
	to := g.module.programs() + string(filepath.Separator)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return g.fail(ctx, err, g.components...)
	}
	g.progress.start(g.compilation)
	err := g.module.run(ctx, io.Discard, func(line string) bool {
		if g.progress.line(g.compilation, line) {
			if g.progress.standard(g.compilation) {
				g.basics()
			}
			return true
		}
		return strings.HasPrefix(line, "go: downloading ")
	}, append([]string{"build", "-v", "-trimpath", "-buildvcs=false", "-p", strconv.Itoa(g.processes),
		"-tags", g.from.tags, "-ldflags", g.from.ldflags, "-o", to}, g.programs()...)...)
	if err != nil {
		return g.fail(ctx, err, g.components...)
	}
	g.progress.finish(g.compilation)
	return nil
}

// makeOne makes a component of its programs and takes its files over when all of them are there.
func (g *group) makeOne(ctx context.Context, c component, b *bench) error {
	g.progress.tell(Progress{Component: c.name, State: Building})
	select {
	case <-b.downloaded:
	case <-ctx.Done():
		return g.fail(ctx, ctx.Err(), c)
	}
	images, err := c.build(ctx, b)
	if err == nil {
		err = g.store.take(c, b.out, images)
	}
	if err != nil {
		return g.fail(ctx, err, c)
	}
	g.progress.tell(Progress{Component: c.name, State: Done})
	return nil
}

// tell tells the same of all components.
func (g *group) tell(p Progress) {
	for _, c := range g.components {
		p.Component = c.name
		g.progress.tell(p)
	}
}
