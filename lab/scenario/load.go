package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxSize  = 1 << 20 // bytes; a real scenario has some 3,000
	maxDepth = 32      // nested lists and mappings; a real scenario has 6, a free patch perhaps 15
)

// content is what a file is to hold, in words for its problems.
type content struct {
	name   string
	fields string // those that every such file has
	copy   string // where there is one to begin with
	folder string // what is like it, in a folder
	large  string // what to do about a file that is too large
}

var (
	aScenario = content{
		name: "scenario", fields: "fields such as scenario:, title: and topology:", copy: "copy a scenario of the catalogue and change it", folder: "scenario.yaml",
		large: "put manifests into files beside the scenario, and check that this is a scenario at all",
	}
	aTopology = content{
		name: "topology", fields: "fields such as topology: and clusters:", copy: "copy an example of manifests/topologies and change it", folder: "topology.yaml",
		large: "check that this is a topology at all",
	}
)

// Load reads and checks a scenario file. An error in the file is a *Problems with all of them; a file
// that cannot be read is another error. Nothing but the file and its folder is looked at.
func Load(path string, v Vocabulary) (*Scenario, error) {
	data, size, err := read(path, aScenario)
	if err != nil {
		return nil, fmt.Errorf("reading scenario: %w", err)
	}
	if size > maxSize {
		return nil, tooLarge(path, size, aScenario)
	}
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("reading scenario: %w", err)
	}
	defer folder.Close()
	return parse(path, data, v, folder.FS())
}

// read returns the file's content and its size. A file over the limit is not read, nor is anything
// that is not a file: opening a pipe would wait forever.
func read(path string, of content) ([]byte, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file (a %s is a file, such as %s)", path, of.name, filepath.Join(path, of.folder))
	}
	if info.Size() > maxSize {
		return nil, info.Size(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1)) // it may have grown since
	return data, int64(len(data)), err
}

// Parse checks a scenario that is not, or not yet, a file. Names of files in it are checked for their
// form only; name is what the places of problems say.
func Parse(name string, data []byte, v Vocabulary) (*Scenario, error) {
	return parse(name, data, v, nil)
}

func parse(name string, data []byte, v Vocabulary, folder fs.FS) (*Scenario, error) {
	if len(data) > maxSize {
		return nil, tooLarge(name, int64(len(data)), aScenario)
	}
	l := &loader{file: name, of: aScenario, vocabulary: v, folder: folder}
	if root := l.document(data); root != nil {
		s := &Scenario{File: name}
		l.scenario(root, s)
		if len(l.problems) == 0 {
			return s, nil
		}
	}
	return nil, l.found()
}

// found is everything that is wrong with the file.
func (l *loader) found() *Problems {
	problems := &Problems{List: l.problems}
	problems.sort()
	return problems
}

func tooLarge(name string, size int64, of content) *Problems {
	return &Problems{List: []Problem{{
		Place:  Place{File: name, Line: 1, Column: 1},
		What:   "the file is too large",
		Wanted: fmt.Sprintf("at most %d bytes", maxSize),
		Seen:   fmt.Sprintf("%d bytes", size),
		Try:    of.large,
	}}}
}

// document parses the YAML, down to the mapping of the one document that the file holds.
func (l *loader) document(data []byte) *yaml.Node {
	if !l.text(data) {
		return nil
	}
	documents, err := parseYAML(data)
	if err != nil {
		l.syntax(err)
		return nil
	}
	if len(documents) > 1 {
		second := &documents[1]
		l.add(second, Problem{What: "a second YAML document", Wanted: "one document in the file",
			Seen: fmt.Sprintf("%d documents", len(documents)), Try: "remove the --- line, or make it a " + l.of.name + " of its own"})
	}
	var root *yaml.Node
	if len(documents) > 0 && len(documents[0].Content) > 0 {
		root = documents[0].Content[0]
	}
	if root == nil || isNull(root) {
		l.problems = append(l.problems, Problem{Place: Place{l.file, 1, 1}, What: "the file is empty",
			Wanted: "a " + l.of.name, Seen: fmt.Sprintf("%d bytes without content", len(data)), Try: l.of.copy})
		return nil
	}
	if root.Kind != yaml.MappingNode {
		l.add(root, Problem{What: "not a " + l.of.name, Wanted: l.of.fields, Seen: kindOf(root), Try: l.of.copy})
		return nil
	}
	switch key, _ := child(root, "scenario"); {
	case l.of == aTopology && key != nil:
		l.add(key, Problem{What: "not a topology but a scenario", Wanted: l.of.fields, Seen: "scenario:", Try: "eastwest run " + l.file})
		return nil
	case l.of == aScenario && isTopology(root):
		l.add(root, Problem{What: "not a scenario but a topology", Wanted: l.of.fields, Seen: "no scenario:", Try: "eastwest up -f " + l.file})
		return nil
	}
	l.plain(root)
	return root
}

// parseYAML returns the documents of a file, each a node with one child unless it is empty.
func parseYAML(data []byte) ([]yaml.Node, error) {
	var documents []yaml.Node
	err := yaml.Load(data, &documents, yaml.WithAllDocuments(), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	return documents, err
}

// text reports the first byte that cannot stand in such a file: YAML's own reader has no place for it.
func (l *loader) text(data []byte) bool {
	place := Place{File: l.file, Line: 1, Column: 1}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			l.problems = append(l.problems, Problem{Place: place, What: "the file is not UTF-8 text",
				Wanted: "UTF-8", Seen: fmt.Sprintf("byte 0x%02x at offset %d", data[i], i),
				Try: fmt.Sprintf("iconv -f LATIN1 -t UTF-8 %s", l.file)})
			return false
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
			l.problems = append(l.problems, Problem{Place: place, What: "a control character",
				Wanted: "text", Seen: fmt.Sprintf("%U at offset %d", r, i), Try: "delete the character"})
			return false
		case r == '\n', r == '\r' && !bytes.HasPrefix(data[i+1:], []byte("\n")):
			place.Line++
			place.Column = 1
		case r != '\uFEFF' || i > 0: // a byte order mark has no width
			place.Column++
		}
		i += n
	}
	return true
}

// syntax turns the YAML library's error into a problem.
func (l *loader) syntax(err error) {
	p := Problem{Place: Place{File: l.file, Line: 1, Column: 1}, What: "not YAML: " + err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		p.What = "not YAML: " + load.Message
		if load.Mark.Line > 0 {
			p.Place.Line, p.Place.Column = load.Mark.Line, max(1, load.Mark.Column)
		}
		if load.ContextMsg != "" {
			p.Seen = load.ContextMsg
			if load.ContextMark.Line > 0 && load.ContextMark != load.Mark {
				p.Seen += fmt.Sprintf(" that starts at line %d, column %d", load.ContextMark.Line, load.ContextMark.Column)
			}
		}
		p.Try = l.advice(load.Message)
	}
	l.problems = append(l.problems, p)
}

// advice is what to do about the messages that people meet.
func (l *loader) advice(message string) string {
	switch {
	case strings.Contains(message, "max depth"):
		return fmt.Sprintf("a %s nests lists and mappings at most %d deep", l.of.name, maxDepth)
	case strings.Contains(message, "mapping values are not allowed"):
		return `a text with ": " in it needs quotes; a field needs a space after its colon`
	case strings.Contains(message, "cannot start any token"):
		return "indent with spaces, never tabs; a text that starts with a special character needs quotes"
	case strings.Contains(message, "expected ',' or"):
		return "close the bracket or brace, or put a comma between the items"
	case strings.Contains(message, "did not find expected key"):
		return "indent the fields of one mapping alike"
	case strings.Contains(message, "unexpected end of stream"):
		return "close the quote"
	}
	return ""
}

// plain refuses what would make the file say something else than what stands there.
func (l *loader) plain(n *yaml.Node) {
	refuse := func(what, try string) {
		l.add(n, Problem{What: what, Wanted: "plain YAML: what stands there is what is meant", Try: try})
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse(fmt.Sprintf("the alias *%s", n.Value), "write the value out")
	case n.Anchor != "":
		refuse(fmt.Sprintf("the anchor &%s", n.Anchor), "remove it, and write the value out where it is used")
	case n.Style&yaml.TaggedStyle != 0:
		refuse(fmt.Sprintf("the tag %s", n.ShortTag()), "remove it; put a text that looks like a number into quotes")
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.Kind == yaml.ScalarNode && child.ShortTag() == "!!merge" {
			l.add(child, Problem{What: "the merge key <<", Wanted: "plain YAML: what stands there is what is meant", Try: "write the fields out"})
		}
		l.plain(child)
	}
}

// scenario decodes the whole file and checks what no field alone shows.
func (l *loader) scenario(root *yaml.Node, s *Scenario) {
	fields := l.scenarioFields(root, s)
	broken, operated := fields["break"], fields["operate"]
	switch {
	case broken != nil && operated != nil:
		later, earlier := operated, broken
		if operated.Line < broken.Line {
			later, earlier = broken, operated
		}
		l.add(later, Problem{What: "both break and operate", Wanted: "exactly one: break for a failure, operate for a planned change",
			Seen: fmt.Sprintf("the other one at line %d", earlier.Line), Try: "split the scenario, or move the steps into one of the two"})
	case broken == nil && operated == nil:
		l.add(root, Problem{What: "neither break nor operate", Wanted: "exactly one: break for a failure, operate for a planned change",
			Try: "operate: [] for a scenario that only looks"})
	case broken != nil:
		if !isEmpty(broken) {
			break
		}
		l.add(broken, Problem{What: "break has no steps", Wanted: "what breaks the mesh", Try: "operate: [] for a scenario that only looks"})
	}
	if broken != nil && operated == nil {
		for _, phase := range []Phase{Symptoms, Recover, Healthy} {
			if fields[string(phase)] == nil {
				l.add(broken, Problem{What: fmt.Sprintf("break without %s", phase),
					Wanted: "a broken mesh shows symptoms, is recovered, and is proven healthy again",
					Try:    fmt.Sprintf("add %s:", phase)})
			}
		}
	}
	if operated != nil && broken == nil && fields["healthy"] == nil && fields["always"] == nil {
		l.add(operated, Problem{What: "operate without a judgement", Wanted: "healthy or always: a change that nothing judges proves nothing", Try: "add always:"})
	}
	l.checkRadius(root, fields["blast-radius"], s.Radius, s)
	if s.Later != nil {
		at := fields["later"]
		l.checkRadius(at, at, s.Later.Radius, s)
	}
	s.Topology.setDefaults()
	if name := fields["scenario"]; name != nil && s.Name != "" && filepath.Base(l.file) == "scenario.yaml" && l.folder != nil {
		if folder := folderName(l.file); folder != s.Name {
			l.add(name, Problem{What: "the scenario is not named like its folder", Wanted: folder, Seen: s.Name,
				Try: "rename one of the two: eastwest run finds a scenario by its folder"})
		}
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
		l.add(at, Problem{What: "blast-radius contradicts itself", Wanted: "none alone, and one of one-way and both-ways", Seen: strings.Join(r, ", ")})
	}
	across, inside := map[string]bool{}, false
	for _, t := range s.Traffic {
		if t.From.Cluster == t.To.Cluster {
			inside = true
		} else if t.To.Cluster != "" {
			across[t.From.Cluster] = true
		}
	}
	if len(l.problems) == 0 && (len(across) < 2 || !inside) {
		l.add(at, Problem{What: "blast-radius cannot be seen", Wanted: "streams across the border in both directions, and inside of a cluster, each to echo@ one cluster", Try: "add them to traffic:"})
	}
}

func folderName(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		abs = file
	}
	return filepath.Base(filepath.Dir(abs))
}

// What Kubernetes and the lab make themselves; production is where the lab's apps run (package mesh).
var ownNamespaces = []string{"default", "istio-system", "kube-node-lease", "kube-public", "kube-system", "production"}

var namespaceLine = regexp.MustCompile(`(?m)^\s*(?:-\s+)?namespace:\s*["']?([a-z0-9-]+)|^kind:\s*["']?Namespace["']?\s*\n(?:.*\n)*?\s+name:\s*["']?([a-z0-9-]+)`)

// namespaces are all that a step may name: the lab's own and those that a manifest beside the
// scenario speaks of. Nil when there is no folder to look at.
func (l *loader) namespaces() []string {
	if l.folder == nil {
		return nil
	}
	if l.knownNamespaces != nil {
		return l.knownNamespaces
	}
	known := slices.Clone(ownNamespaces)
	files, err := fs.Glob(l.folder, "*.y*ml")
	if err != nil {
		files = nil // only a bad pattern fails, and this one is good
	}
	for _, file := range files {
		if file == filepath.Base(l.file) {
			continue
		}
		if info, err := fs.Stat(l.folder, file); err != nil || info.Size() > maxSize {
			continue
		}
		data, err := fs.ReadFile(l.folder, file)
		if err != nil {
			continue // a step that names the file reports it
		}
		for _, m := range namespaceLine.FindAllSubmatch(data, -1) {
			known = append(known, string(m[1])+string(m[2]))
		}
	}
	slices.Sort(known)
	l.knownNamespaces = slices.Compact(known)
	return l.knownNamespaces
}
