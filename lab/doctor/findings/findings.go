// Package findings documents everything that doctor can find. The texts are in findings.yaml; ids.go has a constant for each
// finding, so that the compiler knows their names. Its tests check the file and write ids.go and docs/findings.md:
// `go generate ./lab/doctor/findings`.
package findings

import (
	_ "embed" // for findings.yaml
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/words"
)

//go:generate go test . -run IsCurrent -args -update

//go:embed findings.yaml
var file []byte

// Severity says how bad a finding is.
type Severity string

// The severities. The exit code of eastwest doctor counts errors and warnings only.
const (
	Error   Severity = "error"   // calls fail, or will after the next restart or renewal
	Warning Severity = "warning" // something is about to go wrong, or is likely a mistake
	Info    Severity = "info"    // good to know, and harmless by itself
)

// Doc documents a finding. The JSON names are stable.
type Doc struct {
	ID       string       `yaml:"id" json:"id"`
	Severity Severity     `yaml:"severity" json:"severity"`
	Title    string       `yaml:"title" json:"title"`
	What     string       `yaml:"what" json:"what"`                     // what is read and compared
	Now      string       `yaml:"now" json:"now"`                       // the consequence
	Partly   *Partly      `yaml:"partly" json:"partly,omitempty"`       // the consequence where other gateways work
	Later    string       `yaml:"later" json:"later"`                   // what follows, and when
	Fix      string       `yaml:"fix" json:"fix"`                       //
	Disrupts string       `yaml:"disrupts" json:"disrupts"`             // whether the fix loses calls
	Needs    []facts.Part `yaml:"needs" json:"needs"`                   // what must be read to find it
	CausedBy []string     `yaml:"caused-by" json:"caused_by,omitempty"` // IDs of other findings
}

// Partly is the consequence of a broken gateway in a cluster that has other gateways that work.
type Partly struct {
	Severity Severity `yaml:"severity" json:"severity"` // that of the finding if the file gives none
	Now      string   `yaml:"now" json:"now"`
}

// ID is a documented finding; the constants are in ids.go. Its number is its place in All.
type ID int

// Doc returns the documentation of the finding.
func (i ID) Doc() Doc { return All()[i] }

// String returns the name of the finding, such as "disjoint-roots".
func (i ID) String() string { return i.Doc().ID }

// All returns all findings in the order of a report: what causes others comes before them. The caller must not change it.
var All = sync.OnceValue(func() []Doc {
	docs, err := parse(file)
	if err != nil {
		panic("doctor: " + err.Error()) // the file is embedded, and tests read the same bytes
	}
	return docs
})

// Find returns the finding of that name, if there is one.
func Find(name string) (ID, bool) {
	i := slices.IndexFunc(All(), func(d Doc) bool { return d.ID == name })
	return ID(i), i >= 0
}

var kebab = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// parse reads findings.yaml and returns all problems at once.
func parse(data []byte) ([]Doc, error) {
	var f struct {
		Groups   map[string][]string `yaml:"groups"`
		Findings []Doc               `yaml:"findings"`
	}
	if err := yaml.Load(data, &f, yaml.WithKnownFields()); err != nil {
		return nil, fmt.Errorf("reading findings.yaml: %w", err)
	}
	var errs []error
	wrong := func(id, format string, args ...any) {
		errs = append(errs, fmt.Errorf("findings.yaml: %s: "+format, append([]any{id}, args...)...))
	}
	place := map[string]int{}
	for i, d := range f.Findings {
		if !kebab.MatchString(d.ID) {
			wrong(fmt.Sprintf("finding %d", i+1), "id %q: wanted lower-case words joined by hyphens", d.ID)
		}
		if _, twice := place[d.ID]; twice {
			wrong(d.ID, "the id is used twice")
		}
		place[d.ID] = i
	}
	for name := range f.Groups {
		if _, both := place[name]; both {
			wrong(name, "it is a group and a finding")
		}
	}
	for i := range f.Findings {
		d := &f.Findings[i]
		causes, err := expand(d.CausedBy, f.Groups, nil)
		if err != nil {
			wrong(d.ID, "caused-by: %w", err)
		}
		d.CausedBy = words.Unique(causes)
		if d.Partly != nil && d.Partly.Severity == "" {
			d.Partly.Severity = d.Severity
		}
		for _, problem := range d.problems(place) {
			wrong(d.ID, "%s", problem)
		}
	}
	return f.Findings, errors.Join(errs...)
}

// expand replaces the groups in a list by what they contain.
func expand(list []string, groups map[string][]string, inside []string) (all []string, err error) {
	for _, name := range list {
		group, ok := groups[name]
		switch {
		case !ok:
			all = append(all, name)
		case slices.Contains(inside, name):
			return nil, fmt.Errorf("group %s contains itself", name)
		default:
			its, err := expand(group, groups, append(slices.Clone(inside), name))
			if err != nil {
				return nil, err
			}
			all = append(all, its...)
		}
	}
	return all, nil
}

// problems returns what is wrong with one finding. place has the places of all IDs.
func (d Doc) problems(place map[string]int) (all []string) {
	for _, text := range []struct{ field, value string }{
		{"title", d.Title}, {"what", d.What}, {"now", d.Now}, {"later", d.Later}, {"fix", d.Fix}, {"disrupts", d.Disrupts},
	} {
		if text.value == "" {
			all = append(all, text.field+" is missing")
		}
	}
	known := []Severity{Error, Warning, Info}
	if !slices.Contains(known, d.Severity) {
		all = append(all, fmt.Sprintf("severity %q: wanted one of %s", d.Severity, known))
	}
	if d.Partly != nil {
		if d.Partly.Now == "" {
			all = append(all, "partly: now is missing")
		}
		if !slices.Contains(known, d.Partly.Severity) {
			all = append(all, fmt.Sprintf("partly: severity %q: wanted one of %s", d.Partly.Severity, known))
		}
	}
	for _, p := range d.Needs {
		if !slices.Contains(facts.Parts(), p) {
			all = append(all, fmt.Sprintf("needs: there is no part %q: there are %s", p, facts.Parts()))
		}
	}
	for _, c := range d.CausedBy {
		switch at, ok := place[c]; {
		case !ok:
			all = append(all, fmt.Sprintf("caused-by: there is no finding or group %q", c))
		case at == place[d.ID]:
			all = append(all, "caused-by: it names itself")
		}
	}
	return all
}
