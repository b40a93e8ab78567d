package bundle

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// linkWeight is what linking a program takes, as a share of what compiling all its packages takes.
const linkWeight = 0.03

// compilation is what one run of the Go command has to do and has done. Work is counted in bytes of source: the time that the
// compiler takes for a package follows it well enough for an estimate.
type compilation struct {
	name     string
	folder   string // that the programs are built into
	packages map[string]*goPackage
	programs []*goProgram
	tallies  []*tally

	total, done float64
	worked      float64 // of done: what this run has compiled and linked itself. The rest was in Go's cache.
	count       int     // packages done
	standard    int     // packages of the standard library that are not done
	running     bool
	detail      string // the package that was begun last
}

// goPackage is a package to compile, as `go list` tells of it.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
	ImportMap  map[string]string // where a package of the standard library imports a copy that it holds

	size    float64
	done    bool
	tallies []*tally // of the components whose programs need it
}

// goProgram is a program to link.
type goProgram struct {
	pkg    *goPackage
	weight float64
	linked bool
}

// tally is what a compilation does for one component.
type tally struct {
	component   string
	done, total int // packages
}

// newCompilation plans the programs of components, main packages, from the list of all packages that they are made of.
func newCompilation(name, folder string, list []*goPackage, components []component) *compilation {
	c := &compilation{name: name, folder: folder, packages: map[string]*goPackage{}}
	for _, p := range list {
		for _, file := range append(p.GoFiles, p.CgoFiles...) {
			if info, err := os.Stat(filepath.Join(p.Dir, file)); err == nil {
				p.size += float64(info.Size())
			}
		}
		c.packages[p.ImportPath] = p
		c.total += p.size
		if p.Standard {
			c.standard++
		}
	}
	for _, of := range components {
		t := &tally{component: of.name}
		c.tallies = append(c.tallies, t)
		seen := map[*goPackage]bool{}
		for _, path := range of.programs {
			program := &goProgram{pkg: c.packages[path]}
			for p := range c.needs(path, map[*goPackage]bool{}) {
				program.weight += linkWeight * p.size
				if !seen[p] {
					seen[p] = true
					p.tallies = append(p.tallies, t)
					t.total++
				}
			}
			c.total += program.weight
			c.programs = append(c.programs, program)
		}
	}
	return c
}

// needs adds a package and what it imports, directly or not, to seen.
func (c *compilation) needs(path string, seen map[*goPackage]bool) map[*goPackage]bool {
	p := c.packages[path]
	if p == nil || seen[p] {
		return seen
	}
	seen[p] = true
	for _, i := range p.Imports {
		c.needs(p.imported(i), seen)
	}
	return seen
}

// compile notes that the compiler was started for a package: what the package imports is done then, here or in an earlier run. It
// returns false where path is no package of the compilation.
func (c *compilation) compile(path string) bool {
	p := c.packages[path]
	if p == nil {
		return false
	}
	if !p.done {
		c.worked += p.size
	}
	c.complete(p)
	c.detail = path
	return true
}

// complete marks a package and everything that it imports as done.
func (c *compilation) complete(p *goPackage) {
	if p == nil || p.done {
		return
	}
	p.done = true
	c.done += p.size
	c.count++
	if p.Standard {
		c.standard--
	}
	for _, t := range p.tallies {
		t.done++
	}
	for _, i := range p.Imports {
		c.complete(c.packages[p.imported(i)])
	}
}

// imported returns the path of the package that an import in a source file stands for.
func (p *goPackage) imported(path string) string {
	if to, ok := p.ImportMap[path]; ok {
		return to
	}
	return path
}

// look finds out which programs are linked.
func (c *compilation) look() {
	for _, p := range c.programs {
		if p.linked {
			continue
		}
		if _, err := os.Stat(filepath.Join(c.folder, mainName(p.pkg.ImportPath))); err == nil {
			c.link(p)
		}
	}
}

func (c *compilation) link(p *goProgram) {
	if !p.linked {
		p.linked = true
		c.done += p.weight
		c.worked += p.weight
	}
}

// finish notes that everything is done.
func (c *compilation) finish() {
	for _, p := range c.packages {
		c.complete(p)
	}
	for _, p := range c.programs {
		c.link(p)
	}
	c.running, c.detail = false, ""
}

// status says what is being done: "441 of 2272 packages, linking kubelet".
func (c *compilation) status() string {
	text := fmt.Sprintf("%d of %d packages", c.count, len(c.packages))
	var linking []string
	for _, p := range c.programs {
		if p.pkg.done && !p.linked {
			linking = append(linking, mainName(p.pkg.ImportPath))
		}
	}
	if len(linking) == 0 {
		return text
	}
	return text + ", linking " + words.And(linking)
}
