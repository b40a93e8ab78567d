package docs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/words"
)

var update = flag.Bool("update", false, "write generated pages anew")

const (
	verbsPage = "docs/verbs.md"
	schema    = "scenarios/schema.json"          // TestSchemaIsCurrent holds it to the table of verbs
	more      = "tests/docs/testdata/verbs.yaml" // examples of verbs that the catalogue does not use
)

// TestVerbsPageIsCurrent holds the page of verbs to the schema, and each example on it to a file that the loader reads.
func TestVerbsPageIsCurrent(t *testing.T) {
	out, code := eastwest.Run(t, "lint", filepath.Join(root, more))
	require.Zero(t, code, out)
	text := verbsDocument(t)
	if *update {
		require.NoError(t, os.WriteFile(filepath.Join(root, verbsPage), []byte(text), 0o644))
	}
	require.True(t, read(t, verbsPage) == text, "%s is not what the schema says: run `make generate`", verbsPage)
}

// TestEachChangeSaysWhatItWaitsFor holds the table on the page about reliability to the verbs that change something.
func TestEachChangeSaysWhatItWaitsFor(t *testing.T) {
	_, table, found := strings.Cut(read(t, "docs/reliability.md"), "| verb | returns when |\n| --- | --- |\n")
	require.True(t, found)
	var rows, changes []string
	for line := range strings.Lines(table) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
		rows = append(rows, name)
	}
	for _, v := range verb.Table() {
		if _, ok := v.New().(verb.Changer); ok {
			changes = append(changes, v.Name)
		}
	}
	require.Equal(t, changes, rows)
}

// node is a value of the schema. Unlike a map it keeps the order of its fields.
type node struct{ *yaml.Node }

func (n node) fields() (names []string) {
	for i := 0; n.Node != nil && i+1 < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
	}
	return names
}

// at returns the value below these names, one inside the other; an empty node if there is none.
func (n node) at(names ...string) node {
	for _, name := range names {
		i := slices.Index(n.fields(), name)
		if i < 0 {
			return node{}
		}
		n = node{n.Content[2*i+1]}
	}
	return n
}

func (n node) there() bool { return n.Node != nil }

func (n node) text() string {
	if n.Node == nil {
		return ""
	}
	return n.Value
}

func (n node) items() (all []string) {
	if n.Node != nil {
		for _, item := range n.Content {
			all = append(all, item.Value)
		}
	}
	return all
}

func quoted(all []string) []string {
	var quoted []string
	for _, s := range all {
		quoted = append(quoted, "`"+s+"`")
	}
	return quoted
}

// typeOf says in words what a field takes.
func typeOf(n node) string {
	if either := n.at("anyOf"); either.there() {
		return typeOf(node{either.Content[0]}) + ", or a list"
	}
	if values := n.at("enum").items(); len(values) > 0 {
		return words.Or(quoted(values))
	}
	low, high := n.at("minimum").text(), n.at("maximum").text()
	number := func(kind string) string {
		switch {
		case low == "0" && high == "100" && kind == "number":
			return "percent"
		case low != "" && high != "":
			return fmt.Sprintf("%s from %s to %s", kind, low, high)
		case low != "":
			return fmt.Sprintf("%s, at least %s", kind, low)
		}
		return kind
	}
	switch kind := n.at("type").text(); kind {
	case "array":
		return "list of " + typeOf(n.at("items"))
	case "boolean":
		return "`true` or `false`"
	case "integer":
		return number("whole number")
	case "number":
		return number(kind)
	case "object":
		if inside := n.at("additionalProperties"); inside.there() && inside.Kind == yaml.MappingNode {
			if what := typeOf(inside); what != "text" {
				return "mapping of names to " + what
			}
			return "mapping of names to texts"
		}
		return "fields"
	case "string":
		examples := n.at("examples").items()
		switch {
		case n.at("format").text() == "regex":
			return "pattern"
		case slices.Contains(examples, "1m30s"):
			return "duration"
		case slices.Contains(examples, "cluster-a"):
			return "cluster"
		case slices.Contains(examples, "client@cluster-a"):
			return "app"
		case slices.Contains(examples, "echo"):
			return "app or service"
		}
		return "text"
	}
	return "any YAML"
}

// fieldRows are the rows of a table of fields; those inside a field come after it, as field.inside.
func fieldRows(b *strings.Builder, outer string, n node) {
	required := n.at("required").items()
	for _, name := range n.at("properties").fields() {
		field := n.at("properties", name)
		must := ""
		if slices.Contains(required, name) {
			must = "yes"
		}
		doc := field.at("description").text()
		if d := field.at("default").text(); d != "" {
			doc += " Default: `" + d + "`."
		}
		b.WriteString(words.Row("`"+outer+name+"`", typeOf(field), must, doc))
		if field.at("properties").there() {
			fieldRows(b, outer+name+".", field)
		}
	}
}

// example is a step of a scenario file.
type example struct{ scenario, step string }

// examples returns an example of each verb: of those in the catalogue the longest that fits on a line, or that of the file of
// other examples.
func examples(t *testing.T) map[string]example {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "scenarios/*/scenario.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	best := map[string]example{}
	for _, file := range append(files, filepath.Join(root, more)) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var document yaml.Node
		require.NoError(t, yaml.Unmarshal(text, &document))
		lines := strings.Split(string(text), "\n")
		var visit func(n *yaml.Node)
		visit = func(n *yaml.Node) {
			if n.Kind == yaml.SequenceNode {
				for _, item := range n.Content {
					if item.Kind != yaml.MappingNode || len(item.Content) != 2 {
						continue
					}
					verb := item.Content[0].Value
					step := strings.TrimSpace(lines[item.Line-1])
					if !strings.HasPrefix(step, "- "+verb+":") || last(item) > item.Line || len(step) > 120 {
						continue
					}
					old, there := best[verb]
					if file == filepath.Join(root, more) && there {
						continue
					}
					if len(step) > len(old.step) {
						best[verb] = example{scenario: filepath.Base(filepath.Dir(file)), step: step}
					}
				}
			}
			for _, inside := range n.Content {
				visit(inside)
			}
		}
		visit(&document)
	}
	return best
}

// last is the last line of a node.
func last(n *yaml.Node) int {
	line := n.Line
	for _, inside := range n.Content {
		line = max(line, last(inside))
	}
	return line
}

func verbsDocument(t *testing.T) string {
	t.Helper()
	var file yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(read(t, schema)), &file))
	definitions := node{file.Content[0]}.at("definitions")
	in := func(phase string) []string { return definitions.at("step-in-"+phase, "properties").fields() }
	var changes, checks []string
	for _, name := range definitions.fields() {
		verb, ok := strings.CutPrefix(name, "verb-")
		switch {
		case !ok:
		case slices.Contains(in("diagnose"), verb):
			checks = append(checks, verb)
		default:
			changes = append(changes, verb)
		}
	}
	require.NotEmpty(t, changes)
	require.NotEmpty(t, checks)
	var phases []string // of every change
	for _, name := range definitions.fields() {
		if phase, ok := strings.CutPrefix(name, "step-in-"); ok && slices.Contains(in(phase), changes[0]) {
			phases = append(phases, phase)
		}
	}
	shown := examples(t)

	var b strings.Builder
	b.WriteString(`# Verbs

<!-- Written by ` + "`make generate`" + ` from the table of verbs, the scenarios, and tests/docs/testdata/verbs.yaml. -->

A step of a [scenario](scenarios.md) is one verb with its fields. An editor that knows the [schema](../scenarios/schema.json) completes
both, and ` + "`eastwest lint`" + ` names what is wrong.

- [Changes](#changes) may stand in ` + words.And(quoted(phases)) + `.
- [Checks](#checks) may stand there, too: a check between two changes has to hold before the next one. They may also stand in
  ` + words.And(quoted([]string{"symptoms", "diagnose", "healthy"})) + `, and ` + words.And(quoted(in("always"))) + ` in ` + "`always`" + `.

| type | what it is |
| --- | --- |
| app | a workload and its cluster, such as ` + "`client@cluster-a`" + ` |
| app or service | an app, or a service that several clusters have, such as ` + "`echo`" + ` |
| cluster | a cluster of the scenario's topology, such as ` + "`cluster-a`" + ` |
| duration | a number with its unit, such as ` + "`500ms`, `30s` or `1m30s`" + ` |
| pattern | a regular expression in Go's syntax |
| percent | a number from 0 to 100 |
| "…, or a list" | one value, or several in brackets |

`)
	for _, group := range []struct {
		title string
		verbs []string
	}{{"Changes", changes}, {"Checks", checks}} {
		fmt.Fprintf(&b, "## %s\n\n| verb | what it does |\n| --- | --- |\n", group.title)
		for _, verb := range group.verbs {
			first, _, _ := strings.Cut(definitions.at("verb-"+verb, "description").text(), ". ")
			b.WriteString(words.Row(fmt.Sprintf("[%s](#%[1]s)", verb), strings.TrimSuffix(first, ".")))
		}
		for _, verb := range group.verbs {
			n := definitions.at("verb-" + verb)
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", verb, n.at("description").text())
			var own []string // phases, where they differ from the group's
			for _, phase := range []string{"symptoms", "diagnose", "healthy", "always"} {
				if slices.Contains(in(phase), verb) != slices.Contains(in(phase), group.verbs[0]) {
					own = append(own, phase)
				}
			}
			if len(own) > 0 {
				fmt.Fprintf(&b, "It may stand in %s as well.\n\n", words.And(quoted(own)))
			}
			b.WriteString("| field | type | required | meaning |\n| --- | --- | --- | --- |\n")
			fieldRows(&b, "", n)
			e, ok := shown[verb]
			if !assert.True(t, ok, "no example of %s fits on a line: write one into %s", verb, more) {
				continue
			}
			fmt.Fprintf(&b, "\n```yaml\n%s\n```\n", e.step)
			if e.scenario != "testdata" {
				fmt.Fprintf(&b, "\nFrom [%s](../scenarios/%[1]s/scenario.yaml).\n", e.scenario)
			}
		}
		if group.title == "Changes" {
			b.WriteString("\n")
		}
	}
	return b.String()
}
