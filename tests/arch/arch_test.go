// Package arch holds the rules that the repository as a whole keeps: which package may import which, that every package
// says what it is, and what no file may contain. It reads the source only: `go test ./tests/arch`.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/eastwest-lab/eastwest"
	root   = "../.."
)

// rule is what a package imports of this repository, no more and no less: a permission that nobody uses is how arrows
// grow. Arrows point downward only: a package knows what it is made of and never who uses it.
type rule struct {
	imports []string
	why     string
}

// rules is the map of packages. A new package gets its place here before it gets its code.
var rules = map[string]rule{
	"lab/cmd/eastwest": {
		imports: []string{
			"lab", "lab/bench", "lab/bundle", "lab/catalogue", "lab/doctor", "lab/engine", "lab/host", "lab/page", "lab/report",
			"lab/scenario", "lab/strict", "lab/verb", "lab/wait", "lab/words", "scenarios",
		},
		why: "the command is flags, texts and exit codes; what it does is in the packages below it",
	},
	"scenarios": {why: "the catalogue is files; its test runs them through package catalogue"},
	"lab/catalogue": {
		imports: []string{"lab", "lab/cluster", "lab/engine", "lab/report", "lab/scenario", "lab/wait"},
		why:     "it runs many scenarios and knows nothing of what is in one",
	},
	"lab/bench": {
		imports: []string{
			"lab", "lab/catalogue", "lab/cluster", "lab/cluster/kind", "lab/cluster/machine", "lab/engine", "lab/fault", "lab/host", "lab/mesh",
			"lab/observe", "lab/report", "lab/scenario", "lab/traffic", "lab/verb", "lab/wait", "lab/words",
		},
		why: "a benchmark makes labs and takes parts of them away: nothing but the command needs it",
	},
	"lab/engine": {
		imports: []string{
			"lab", "lab/fault", "lab/mesh", "lab/observe", "lab/report", "lab/scenario", "lab/strict", "lab/traffic", "lab/verb", "lab/wait",
			"lab/words",
		},
		why: "the engine runs one scenario on one lab: which verbs there are and how a lab is made is known below it",
	},
	"lab/verb": {
		imports: []string{
			"lab/doctor", "lab/fault", "lab/mesh", "lab/observe", "lab/scenario", "lab/strict", "lab/traffic", "lab/wait", "lab/words",
		},
		why: "a verb becomes a change or a check: it knows neither labs nor the engine",
	},
	"lab": {
		imports: []string{
			"lab/bundle", "lab/cluster", "lab/cluster/embedded", "lab/cluster/existing", "lab/cluster/kind", "lab/cluster/machine",
			"lab/host", "lab/mesh", "lab/scenario", "lab/wait", "lab/words",
		},
		why: "package lab is the life of a lab: clusters, a mesh on them, and what is written down of both. What is done to a mesh " +
			"stands above it",
	},
	"lab/scenario": {
		imports: []string{"lab/strict", "lab/words"},
		why:     "a scenario is data: it can be checked where no cluster can be made",
	},
	"lab/strict/fielddocs": {why: "it reads source and writes source"},
	"lab/strict":           {imports: []string{"lab/words"}, why: "it reads files and does not know what they are about"},
	"lab/report": {
		imports: []string{"lab/traffic", "lab/words"},
		why:     "a report is made of what is in a run folder, events and recorded calls: any run can be shown again",
	},
	"lab/page": {
		imports: []string{"lab/look", "lab/report", "lab/traffic", "lab/words"},
		why:     "a page is made of a run folder: events, recordings and evidence, whoever made them",
	},
	"lab/look":    {why: "it is how pages look, whatever they show"},
	"lab/pki":     {imports: []string{"lab/words"}, why: "certificates know nothing of clusters"},
	"lab/host":    {imports: []string{"lab/wait"}, why: "the machine's package knows nothing of Kubernetes"},
	"lab/wait":    {imports: []string{"lab/words"}, why: "everybody waits with it"},
	"lab/words":   {why: "everybody writes sentences with it"},
	"lab/bundle":  {imports: []string{"lab/words", "scripts/components"}, why: "the bundle is built before there is any lab"},
	"lab/cluster": {imports: []string{"lab/bundle"}, why: "it says what clusters and their providers are; package lab chooses one"},
	"lab/cluster/machine": {
		imports: []string{"lab/cluster", "lab/host", "lab/wait"},
		why:     "it is what nodes of every kind have below Kubernetes, and knows none of the kinds",
	},
	"lab/cluster/kind": {
		imports: []string{"lab/bundle", "lab/cluster", "lab/cluster/machine", "lab/host", "lab/wait", "lab/words"},
		why:     "a provider makes Kubernetes and knows nothing of Istio",
	},
	"lab/cluster/embedded": {
		imports: []string{"lab/cluster", "lab/cluster/machine", "lab/host", "lab/pki", "lab/wait", "lab/words"},
		why:     "a provider makes Kubernetes and knows nothing of Istio",
	},
	"lab/cluster/forward": {why: "it reaches ports of pods of any cluster, and knows neither labs nor Istio"},
	"lab/cluster/existing": {
		imports: []string{"lab/cluster", "lab/cluster/forward", "lab/wait"},
		why:     "a provider takes Kubernetes that is there and knows nothing of Istio",
	},
	"lab/mesh": {
		imports: []string{"lab/bundle", "lab/cluster", "lab/cluster/forward", "lab/host", "lab/pki", "lab/wait", "lab/words", "manifests"},
		why:     "a mesh is installed on any cluster: never import a provider, ask the cluster by type assertion",
	},
	"lab/fault": {
		imports: []string{"lab/cluster", "lab/mesh", "lab/observe", "lab/pki", "lab/strict", "lab/wait", "lab/words"},
		why:     "a fault changes a mesh, and Restore puts it back: it may look whether a change is done, and knows nothing of calls",
	},
	"lab/observe": {
		imports: []string{"lab/cluster", "lab/mesh", "lab/pki", "lab/report", "lab/strict", "lab/traffic", "lab/wait", "lab/words"},
		why:     "a check reads and changes nothing: it may call, the way that traffic does",
	},
	"lab/doctor": {
		imports: []string{"lab/doctor/exam", "lab/doctor/findings", "lab/doctor/gather", "lab/look", "lab/mesh", "lab/observe", "lab/words"},
		why:     "doctor reads any clusters through their kubeconfigs: it needs no lab, and only joins the packages below it",
	},
	"lab/doctor/gather": {
		imports: []string{"lab/cluster", "lab/doctor/facts", "lab/mesh", "lab/observe", "lab/pki", "lab/wait", "lab/words"},
		why:     "it reads clusters into facts, and leaves it to lab/doctor/exam what they mean",
	},
	"lab/doctor/exam": {
		imports: []string{"lab/doctor/facts", "lab/doctor/findings", "lab/pki", "lab/words"},
		why:     "it judges facts and asks nobody: see TestExaminationAsksNobody",
	},
	"lab/doctor/findings": {
		imports: []string{"lab/doctor/facts", "lab/words"},
		why:     "findings are documented where no cluster is",
	},
	"lab/doctor/facts": {imports: []string{"lab/pki"}, why: "facts are data: they can be kept, sent and examined elsewhere"},
	"lab/traffic": {
		imports: []string{"lab/wait", "lab/words"},
		why:     "traffic is calls over time, recorded now and judged later",
	},
	"manifests":                      {why: "manifests are files"},
	"scripts/components":             {why: "components are pins"},
	"scripts/runtime":                {why: "it becomes runc: it is built alone, by scripts/docker-up"},
	"scripts/components/pause":       {why: "the pause image holds this program alone"},
	"scripts/components/conformance": {why: "it is Kubernetes' tests and knows nothing of labs"},
}

// goFile is a parsed source file of the repository.
type goFile struct {
	path string // slashes, from the top level
	ast  *ast.File
}

func (f goFile) pkg() string  { return path.Dir(f.path) }
func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// walk calls do for every file that belongs to the repository.
func walk(t *testing.T, do func(file string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == ".git" || name == "bin" || name == ".cache" || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && name != ".git" { // in a worktree it is a file
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			do(filepath.ToSlash(rel))
		}
		return nil
	}))
}

func parse(t *testing.T) (*token.FileSet, []goFile) {
	t.Helper()
	set := token.NewFileSet()
	var all []goFile
	walk(t, func(file string) {
		if !strings.HasSuffix(file, ".go") || strings.Contains(file, "/testdata/") {
			return
		}
		parsed, err := parser.ParseFile(set, filepath.Join(root, file), nil, parser.ParseComments)
		require.NoError(t, err)
		all = append(all, goFile{path: file, ast: parsed})
	})
	require.NotEmpty(t, all)
	return set, all
}

func TestPackagesImportDownwardOnly(t *testing.T) {
	_, files := parse(t)
	seen, used := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		if f.isTest() || strings.HasPrefix(f.path, "tests/") {
			continue // tests may use whatever shows that something works
		}
		seen[f.pkg()] = true
		r, known := rules[f.pkg()]
		if !assert.Truef(
			t,
			known,
			"%s: package %s has no place in the map of packages: give it one in %s",
			f.path,
			f.pkg(),
			"tests/arch/arch_test.go",
		) {
			continue
		}
		for _, i := range f.ast.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
				assert.Containsf(t, r.imports, ours, "%s imports %s, but %s", f.path, ours, r.why)
				used[f.pkg()+" "+ours] = true
			}
		}
	}
	for pkg, r := range rules {
		for _, i := range r.imports {
			assert.Truef(t, used[pkg+" "+i], "%s may import %s and does not: take it out of the map", pkg, i)
		}
		if _, err := os.Stat(filepath.Join(root, pkg)); err == nil && !seen[pkg] {
			entries, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
			require.NoError(t, err)
			assert.Emptyf(t, entries, "%s is in the map but none of its files were read", pkg)
		}
	}
}

// TestExaminationAsksNobody keeps clients of anything out of doctor's examination, and out of the packages of this repository
// that it is made of: it is a function of facts.
func TestExaminationAsksNobody(t *testing.T) {
	_, files := parse(t)
	visited := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		if visited[pkg] {
			return
		}
		visited[pkg] = true
		for _, f := range files {
			if f.pkg() != pkg || f.isTest() {
				continue
			}
			for _, i := range f.ast.Imports {
				imported := strings.Trim(i.Path.Value, `"`)
				if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
					visit(ours)
				}
				for _, client := range []string{"k8s.io/", "sigs.k8s.io/", "istio.io/", "net/http", "os/exec"} {
					assert.Falsef(t, strings.HasPrefix(imported, client), "%s imports %s: what is to be judged is read by lab/doctor/gather",
						f.path, imported)
				}
			}
		}
	}
	visit("lab/doctor/exam")
	assert.Greater(t, len(visited), 3)
}

// TestMapHasNoCycles holds the map itself: the compiler would find a cycle only once both imports were written.
func TestMapHasNoCycles(t *testing.T) {
	var visit func(pkg string, path []string)
	visit = func(pkg string, path []string) {
		require.NotContainsf(t, path, pkg, "cycle: %v → %s", path, pkg)
		for _, i := range rules[pkg].imports {
			visit(i, append(slices.Clone(path), pkg))
		}
	}
	for pkg := range rules {
		visit(pkg, nil)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, files := parse(t)
	documented := map[string]bool{}
	for _, f := range files {
		documented[f.pkg()] = documented[f.pkg()] || f.ast.Doc != nil
	}
	for pkg, ok := range documented {
		assert.Truef(t, ok, "package %s has no comment that says what it is, what it needs and how to run it", pkg)
	}
}

func TestNamesOfPackagesSayWhatIsInThem(t *testing.T) {
	_, files := parse(t)
	for _, f := range files {
		for _, word := range strings.Split(f.pkg(), "/") {
			assert.NotContainsf(t, []string{"util", "utils", "common", "helper", "helpers", "base", "types", "misc", "shared"}, word,
				"%s: %q says nothing: name it after what it holds, or give the code to its caller", f.path, word)
		}
	}
}

func TestWaitsAreBounded(t *testing.T) {
	set, files := parse(t)
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
				assert.NotEqualf(
					t,
					"Sleep",
					s.Sel.Name,
					"%s: wait with lab/wait or a watch, which have a bound and tell what they saw",
					set.Position(s.Pos()),
				)
			}
			return true
		})
	}
}

func TestLibraryCodeIsNotTestCode(t *testing.T) {
	_, files := parse(t)
	for _, f := range files {
		if f.isTest() || strings.HasPrefix(f.path, "tests/") || f.pkg() == "scripts/components/conformance" { // tests, as a program
			continue
		}
		for _, i := range f.ast.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			assert.Falsef(
				t,
				p == "testing" || strings.HasPrefix(p, "github.com/stretchr/testify"),
				"%s imports %s: library code returns errors",
				f.path,
				p,
			)
		}
	}
}

// ofOneMachine finds home and work folders of people and of build machines.
var ofOneMachine = regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(work|root|Users|home)/[A-Za-z0-9._-]+`)

// accounts are home folders that are meant: an example's, and those inside the images of the bundle.
var accounts = []string{"/home/you", "/home/istio-proxy", "/home/application"}

func TestNoPathsOfOneMachine(t *testing.T) {
	walk(t, func(file string) {
		data, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		for i, line := range strings.Split(string(data), "\n") {
			for _, found := range ofOneMachine.FindAllString(line, -1) {
				if found = found[strings.Index(found, "/"):]; !slices.Contains(accounts, found) {
					t.Errorf("%s:%d: %s is a path of one machine", file, i+1, found)
				}
			}
		}
	})
}

// TestTopLevelIsFixed keeps the top level a short list that a newcomer can read.
func TestTopLevelIsFixed(t *testing.T) {
	allowed := []string{
		"go.mod", "go.sum", "lab", "scenarios", "tests", "manifests", "scripts", "docs", "workshops",
		"Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "bin",
	}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "_") {
			assert.Containsf(t, allowed, name, "%s: what it holds belongs into one of the folders that are there", name)
		}
	}
}

// TestLinesAreShort keeps lines at a length that is read at one look. What stands in a raw string is data.
func TestLinesAreShort(t *testing.T) {
	const most = 140 // characters
	set, files := parse(t)
	for _, f := range files {
		raw := map[int]bool{}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && strings.HasPrefix(l.Value, "`") {
				for line := set.Position(l.Pos()).Line; line <= set.Position(l.End()).Line; line++ {
					raw[line] = true
				}
			}
			return true
		})
		data, err := os.ReadFile(filepath.Join(root, f.path))
		require.NoError(t, err)
		for i, line := range strings.Split(string(data), "\n") {
			if n := utf8.RuneCountInString(line); n > most && !raw[i+1] {
				t.Errorf("%s:%d: a line of %d characters: break it, or move its comment above it: wanted at most %d", f.path, i+1, n, most)
			}
		}
	}
}
