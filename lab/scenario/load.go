package scenario

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// Load reads and checks a scenario file. The error is a *strict.Problems with everything that is wrong with the file, or
// another error if the file cannot be read. Load looks at nothing but the file and its folder.
func Load(path string, v Vocabulary) (*Scenario, error) {
	data, err := scenarioFormat.ReadFile(path)
	if problems, ok := err.(*strict.Problems); ok {
		return nil, problems
	}
	if err != nil {
		return nil, fmt.Errorf("reading scenario: %w", err)
	}
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("reading scenario: %w", err)
	}
	defer folder.Close()
	return parse(path, data, v, folder.FS())
}

// Parse checks a scenario that is not, or not yet, a file. Names of files in it are checked for their form only. The places
// of problems say name.
func Parse(name string, data []byte, v Vocabulary) (*Scenario, error) {
	return parse(name, data, v, nil)
}

func parse(name string, data []byte, v Vocabulary, folder fs.FS) (*Scenario, error) {
	l := newLoader(name, v, folder)
	s := &Scenario{File: name}
	if root := l.Document(data); root != nil {
		l.scenario(root, s)
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

// loader reads a scenario. It knows the words of steps, and what the names in them may refer to.
type loader struct {
	*strict.Reader
	format     *strict.Format
	file       string
	vocabulary Vocabulary
	names      names
}

// newLoader makes a loader. The folder is the one that the file is in, nil if there is none to look at.
func newLoader(file string, v Vocabulary, folder fs.FS) *loader {
	format := scenarioFormat
	l := &loader{format: &format, file: file, vocabulary: v, names: names{file: file, folder: folder}}
	format.Types = l.types()
	l.Reader = strict.NewReader(file, &format)
	l.Ref = l.names.check
	return l
}

// scenario reads the whole file and checks what no field alone shows.
func (l *loader) scenario(root *yaml.Node, s *Scenario) {
	if isTopology(root) {
		l.Add(
			root,
			strict.Problem{What: "not a scenario but a topology", Wanted: scenarioFormat.Fields, Seen: "no scenario:",
				Try: "eastwest up -f " + l.file},
		)
		return
	}
	// Fields are read in the order of the struct, so that names are known before the steps that refer to them.
	fields := l.Decode(root, s, func(name string, n *yaml.Node) {
		switch name {
		case "topology":
			l.names.clusters = clusterNames(n)
		case "apps":
			l.names.apps, l.names.services = appNames(n)
		case "traffic":
			l.names.streams = streamNames(n)
		}
	})
	if fields == nil {
		return
	}
	l.checkPhases(root, fields)
	l.checkRadius(root, fields["blast-radius"].Key, s.Radius, s)
	if s.Later != nil {
		at := fields["later"].Key
		l.checkRadius(at, at, s.Later.Radius, s)
	}
	if at := fields["istio"].Value; at != nil {
		s.Istio.Place = l.Place(at)
	}
	s.Topology.setDefaults()
	if name := fields["scenario"].Key; name != nil && s.Name != "" && filepath.Base(l.file) == scenarioFormat.File && l.names.folder != nil {
		if folder := folderName(l.file); folder != s.Name {
			l.Add(name, strict.Problem{What: "the scenario is not named like its folder", Wanted: folder, Seen: s.Name,
				Try: "rename one of the two: eastwest run finds a scenario by its folder"})
		}
	}
}

// checkPhases wants exactly one of break and operate, and the phases that go with it.
func (l *loader) checkPhases(root *yaml.Node, fields map[string]strict.Field) {
	const one = "exactly one: break for a failure, operate for a planned change"
	broken, operated := fields["break"].Key, fields["operate"].Key
	switch {
	case broken != nil && operated != nil:
		later, earlier := operated, broken
		if operated.Line < broken.Line {
			later, earlier = broken, operated
		}
		l.Add(later, strict.Problem{What: "both break and operate", Wanted: one,
			Seen: fmt.Sprintf("the other one at line %d", earlier.Line), Try: "split the scenario, or move the steps into one of the two"})
	case broken == nil && operated == nil:
		l.Add(root, strict.Problem{What: "neither break nor operate", Wanted: one, Try: "operate: [] for a scenario that only looks"})
	case broken != nil:
		for _, phase := range []Phase{Symptoms, Recover, Healthy} {
			if fields[string(phase)].Key == nil {
				l.Add(broken, strict.Problem{What: fmt.Sprintf("break without %s", phase),
					Wanted: "a broken mesh shows symptoms, is recovered, and is proven healthy again",
					Try:    fmt.Sprintf("add %s:", phase)})
			}
		}
	case fields["healthy"].Key == nil && fields["always"].Key == nil:
		l.Add(operated, strict.Problem{What: "operate without a judgement",
			Wanted: "healthy or always: a change that nothing judges proves nothing", Try: "add always:"})
	}
}

// checkRadius wants streams that can show a blast radius, and words that do not contradict each other.
func (l *loader) checkRadius(root, at *yaml.Node, r Radius, s *Scenario) {
	if len(r) == 0 {
		return
	}
	if at == nil {
		at = root
	}
	if len(r) > 1 && (slices.Contains(r, Nowhere) || slices.Contains(r, OneWay) && slices.Contains(r, BothWays)) {
		l.Add(at, strict.Problem{What: "blast-radius contradicts itself",
			Wanted: "none alone, and one of one-way and both-ways", Seen: strings.Join(r, ", ")})
	}
	across, inside := map[string]bool{}, false
	for _, t := range s.Traffic {
		switch {
		case t.AnswerAfter > 0: // a blast radius is not judged by long calls
		case t.From.Cluster == t.To.Cluster:
			inside = true
		case t.To.Cluster != "":
			across[t.From.Cluster] = true
		}
	}
	if l.Err() == nil && (len(across) < 2 || !inside) {
		l.Add(at, strict.Problem{What: "blast-radius cannot be seen",
			Wanted: "streams across the border in both directions, and inside of a cluster, each to echo@ one cluster", Try: "add them to traffic:"})
	}
}

func folderName(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		abs = file
	}
	return filepath.Base(filepath.Dir(abs))
}
