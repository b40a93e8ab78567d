package scenario

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// scenarioFormat lacks its Types, which depend on a Vocabulary.
var scenarioFormat = strict.Format{
	Name:   "scenario",
	Fields: "fields such as scenario:, title: and topology:",
	File:   "scenario.yaml",
	Begin:  "eastwest new NAME writes one to begin with",
	Shrink: "put manifests into files beside the scenario, and check that this is a scenario at all",
	Forms:  forms,
	Refs:   refs,
}

var topologyFormat = strict.Format{
	Name:   "topology",
	Fields: "fields such as topology: and clusters:",
	File:   "topology.yaml",
	Begin:  "copy an example of manifests/topologies and change it",
	Shrink: "check that this is a topology at all",
	Forms:  forms,
	Refs:   refs,
}

var (
	kebab     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	label     = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)                           // of Kubernetes Services (RFC 1035)
	namespace = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)                        // RFC 1123
	app       = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?@[a-z0-9]+(-[a-z0-9]+)*$`)    // client@cluster-a
	appOrName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?(@[a-z0-9]+(-[a-z0-9]+)*)?$`) // or echo
	version   = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`)
)

// longestCluster is how long the name of a cluster may be. With what the lab makes of it, such as a host name and the
// Service echo-NAME-fresh, it stays within the 63 characters of a label.
const longestCluster = 40

// forms are what the tag name may ask for.
var forms = map[string]strict.Form{
	"kebab": {Pattern: kebab, Most: 63, What: "a name",
		Wanted: "small letters, digits and hyphens, at most 63, like remote-secret-revoked"},
	"topology": {Pattern: kebab, Most: 63, What: "a topology's name",
		Wanted: "small letters, digits and hyphens, at most 63, like three-primaries"},
	"cluster": {Pattern: kebab, Most: longestCluster, What: "a cluster's name",
		Wanted: "small letters, digits and hyphens, at most 40, like cluster-a"},
	"network": {Pattern: kebab, Most: 63, What: "a network's name",
		Wanted: "small letters, digits and hyphens, at most 63, like network-a"},
	"version": {Pattern: version, Most: 63, What: "a version", Wanted: "a whole version, like v1.36.1"},
}

const anApp = "an app and its cluster, like client@cluster-a"

// refs are what the tags ref and keys may ask for. What is wrong with the form of most of them, names.check says.
var refs = map[string]strict.Form{
	"app": {Pattern: app, Wanted: anApp, Examples: []string{"client@cluster-a", "echo@cluster-b"}},
	"app-or-service": {Pattern: appOrName, Wanted: anApp + ", or a service, like echo",
		Examples: []string{"echo@cluster-b", "echo"}},
	"cluster":   {Pattern: kebab, Most: longestCluster, Examples: []string{"cluster-a", "cluster-b"}},
	"file":      {},
	"namespace": {Pattern: namespace, What: "a namespace", Wanted: "small letters, digits and hyphens"},
	"service":   {Pattern: label},
	"stream":    {Pattern: kebab},
	"workload":  {Pattern: app, Wanted: anApp, Examples: []string{"client@cluster-a", "echo@cluster-b"}},
}

// types are the types of scenarios that have a notation of their own.
func (l *loader) types() map[reflect.Type]strict.Type {
	return map[reflect.Type]strict.Type{
		reflect.TypeFor[Step](): {
			Read: l.step,
			Schema: func(at strict.Spot) strict.Object {
				return strict.Object{{Name: "$ref", Value: "#/definitions/step-in-" + at.Tag("phase")}}
			},
		},
		reflect.TypeFor[[]Stream](): {
			Read: l.traffic,
			Schema: func(at strict.Spot) strict.Object {
				return strict.Object{
					{Name: "type", Value: "object"},
					{Name: "propertyNames", Value: strict.Object{{Name: "pattern", Value: kebab.String()}}},
					{Name: "additionalProperties", Value: l.format.StructSchema(reflect.TypeFor[Stream](), at)},
				}
			},
		},
	}
}

// traffic reads streams by name.
func (l *loader) traffic(n *yaml.Node, v reflect.Value, s strict.Spot) {
	if n.Kind != yaml.MappingNode {
		l.WrongType(n, s, "streams by name, like a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}", "")
		return
	}
	var streams []Stream
	for _, f := range l.Fields(n, s) {
		if !kebab.MatchString(f.Key.Value) {
			l.Report(
				f.Key,
				s,
				strict.Problem{What: "not a stream's name", Wanted: "small letters, digits and hyphens, like a-to-b", Seen: strict.Quote(f.Key.Value)},
			)
		}
		stream := Stream{Name: f.Key.Value, Connections: Fresh}
		l.Value(f.Value, reflect.ValueOf(&stream).Elem(), s.In(f.Key))
		stream.Place = l.Place(f.Key)
		streams = append(streams, stream)
	}
	v.Set(reflect.ValueOf(streams))
}

// step reads a verb with its arguments.
func (l *loader) step(n *yaml.Node, v reflect.Value, s strict.Spot) {
	const wanted = "one verb with its arguments, like - restart-istiod: {in: cluster-a}"
	if n.Kind != yaml.MappingNode {
		try := ""
		if verb, known := l.vocabulary.Find(n.Value); known && n.Kind == yaml.ScalarNode {
			try = "- " + l.example(verb)
		}
		l.Report(n, s, strict.Problem{What: "not a step", Wanted: wanted, Seen: strict.Describe(n), Try: try})
		return
	}
	fields := l.Fields(n, s)
	if len(fields) == 0 {
		if len(n.Content) == 0 {
			l.Report(n, s, strict.Problem{What: "an empty step", Wanted: wanted})
		}
		return
	}
	if len(fields) > 1 {
		words := make([]string, len(fields))
		for i, f := range fields {
			words[i] = f.Key.Value
		}
		l.Report(fields[1].Key, s, strict.Problem{What: "more than one verb in a step", Wanted: "one verb per step",
			Seen: strings.Join(words, ", "),
			Try:  "start the second with a dash of its own; indent what belongs to the first"})
	}
	for _, f := range fields {
		l.verb(f, v, s)
	}
}

// verb reads one verb of a step into v.
func (l *loader) verb(f strict.Field, v reflect.Value, s strict.Spot) {
	phase := Phase(s.Tag("phase"))
	here := l.vocabulary.in(phase)
	verb, known := l.vocabulary.Find(f.Key.Value)
	if !known {
		p := strict.Unknown("verb", f.Key.Value, here)
		if p.Try == "" { // perhaps a verb of another phase
			p.Try = strict.DidYouMean(f.Key.Value, l.vocabulary.names())
		}
		l.Report(f.Key, s, p)
		return
	}
	if !slices.Contains(verb.Phases, phase) {
		phases := make([]string, len(verb.Phases))
		for i, phase := range verb.Phases {
			phases[i] = string(phase)
		}
		l.Report(f.Key, s, strict.Problem{What: verb.Name + " cannot stand here",
			Wanted: fmt.Sprintf("%s in %s", verb.Name, strict.Choice(phases)),
			Seen:   fmt.Sprintf("%s in %s", verb.Name, phase), Try: "here may stand: " + strict.Choice(here)})
	}
	args := reflect.ValueOf(verb.New())
	inside := s.In(f.Key)
	if args.Kind() != reflect.Pointer || args.IsNil() {
		l.Report(f.Key, inside, strict.Problem{What: "the table of verbs makes no pointer"})
		return
	}
	if f.Value.Kind == yaml.ScalarNode && args.Elem().Kind() == reflect.Struct {
		// restart: istiod, for restart-istiod: {in: cluster-a}
		if meant, is := l.vocabulary.Find(verb.Name + "-" + f.Value.Value); is {
			l.WrongType(f.Value, inside, "the arguments of "+verb.Name, fmt.Sprintf("did you mean %s?", l.example(meant)))
			return
		}
	}
	l.Arguments(f, args.Elem(), inside)
	v.Set(reflect.ValueOf(Step{Verb: verb.Name, Args: args.Interface(), Place: l.Place(f.Key)}))
}

// example is a step with a verb: "restart-istiod: {in: cluster-a}".
func (l *loader) example(verb Verb) string {
	return verb.Name + ": " + l.format.Example(reflect.TypeOf(verb.New()).Elem())
}
