package scenario

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// Verb is one word that a step may have.
type Verb struct {
	Name   string     // kebab-case
	Doc    string     // one or two sentences; editors show it
	Phases []Phase    // where it may stand; the checks of `still-broken` count as Symptoms
	New    func() any // returns a pointer to new arguments
}

// Vocabulary is the table of verbs, sorted by name.
//
// A verb's arguments are usually a struct. Package strict says which fields it may have, and what their tags mean. Names in
// it may refer to (tags ref and keys) a cluster, an app of the scenario ("client@cluster-a"), a service ("echo": an app's
// name), an app-or-service, a workload (any app in a cluster of the scenario: istiod@cluster-a), a stream, a file beside
// the scenario, or a namespace. Names may have the form (tag name) kebab, topology, cluster, network or version.
type Vocabulary []Verb

// Find returns the verb of that name.
func (v Vocabulary) Find(name string) (Verb, bool) {
	i, ok := slices.BinarySearchFunc(v, name, func(verb Verb, name string) int { return strings.Compare(verb.Name, name) })
	if !ok {
		return Verb{}, false
	}
	return v[i], true
}

// names returns the names of all verbs.
func (v Vocabulary) names() []string {
	names := make([]string, len(v))
	for i, verb := range v {
		names[i] = verb.Name
	}
	return names
}

// in returns the names of the verbs that may stand in a phase.
func (v Vocabulary) in(phase Phase) []string {
	var names []string
	for _, verb := range v {
		if slices.Contains(verb.Phases, phase) {
			names = append(names, verb.Name)
		}
	}
	return names
}

// format is the format of scenarios with these verbs.
func (v Vocabulary) format() *strict.Format { return newLoader("", v, nil).format }

// Check returns what is wrong with the table itself: order, names, phases, and arguments that no file can hold or that
// nobody has described. It checks the types of this package too.
func (v Vocabulary) Check() error {
	format := v.format()
	wrong := []error{
		format.Check(reflect.TypeFor[Scenario](), "scenario"),
		format.Check(reflect.TypeFor[topologyFile](), "topology"),
	}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for i, verb := range v {
		if i > 0 && v[i-1].Name >= verb.Name {
			complain("verb %s: stands after %s: sort the table by name", verb.Name, v[i-1].Name)
		}
		if !kebab.MatchString(verb.Name) {
			complain("verb %q: not a name of small letters, digits and hyphens", verb.Name)
		}
		if strings.TrimSpace(verb.Doc) == "" {
			complain("verb %s: no description", verb.Name)
		}
		if len(verb.Phases) == 0 {
			complain("verb %s: may stand in no phase", verb.Name)
		}
		for _, phase := range verb.Phases {
			if !slices.Contains(Phases(), phase) {
				complain("verb %s: unknown phase %q", verb.Name, phase)
			}
		}
		if verb.New == nil || reflect.TypeOf(verb.New()) == nil || reflect.TypeOf(verb.New()).Kind() != reflect.Pointer {
			complain("verb %s: New makes no pointer", verb.Name)
			continue
		}
		wrong = append(wrong, format.Check(reflect.TypeOf(verb.New()).Elem(), "verb "+verb.Name))
	}
	return errors.Join(wrong...)
}

// Schema returns the JSON Schema of scenario files with these verbs. It fails where Check does.
func Schema(v Vocabulary) ([]byte, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	format := v.format()
	definitions := strict.Object{}
	for _, verb := range v {
		schema := append(strict.Object{{Name: "description", Value: verb.Doc}}, format.ArgumentsSchema(reflect.TypeOf(verb.New()).Elem())...)
		definitions = append(definitions, strict.Member{Name: "verb-" + verb.Name, Value: schema})
	}
	for _, phase := range Phases() {
		definitions = append(definitions, strict.Member{Name: "step-in-" + string(phase), Value: stepSchema(v, phase)})
	}
	root := append(format.Schema(reflect.TypeFor[Scenario]()),
		strict.Member{Name: "oneOf", Value: []strict.Object{required("break"), required("operate")}},
		strict.Member{Name: "anyOf", Value: []strict.Object{required("healthy"), required("always")}},
		strict.Member{Name: "dependencies", Value: strict.Object{{Name: "break", Value: []string{"symptoms", "recover", "healthy"}}}},
		strict.Member{Name: "definitions", Value: definitions})
	return strict.SchemaFile("eastwest scenario",
		"A failure (or a planned change) of a multi-cluster Istio mesh: how to cause it, what it looks like, how to find it, "+
			"what does not help, and what heals it.", root)
}

func required(field string) strict.Object {
	return strict.Object{{Name: "required", Value: []string{field}}}
}

// stepSchema is one verb of those that may stand in the phase. It is a mapping of exactly one property rather than a list of
// alternatives: editors then complete the verbs, and say what is wrong.
func stepSchema(v Vocabulary, phase Phase) strict.Object {
	verbs := strict.Object{}
	for _, name := range v.in(phase) {
		verbs = append(verbs, strict.Member{Name: name, Value: strict.Object{{Name: "$ref", Value: "#/definitions/verb-" + name}}})
	}
	return strict.Object{
		{Name: "description", Value: fmt.Sprintf("One verb that may stand in %s.", phase)},
		{Name: "type", Value: "object"}, {Name: "minProperties", Value: 1}, {Name: "maxProperties", Value: 1},
		{Name: "additionalProperties", Value: false},
		{Name: "properties", Value: verbs},
	}
}
