package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// loader fills Go values from YAML nodes and collects what is wrong. It never stops at the first
// problem, and what depends on a part that could not be read is not complained about.
type loader struct {
	file       string
	of         content
	vocabulary Vocabulary
	folder     fs.FS // beside the scenario; nil when there is none to look at
	problems   []Problem
	unread     int // how much stands in the file, or should, and is in no Go value

	// What refs may name; nil while it is not known.
	clusters, apps, services, streams []string
	knownNamespaces                   []string
}

// spot is where the loader is: the words that lead there, for messages, the phase of the steps, and
// the key whose value is read (nil for an item of a list). What is missing in a mapping is reported
// at its key: the place of its first field says less.
type spot struct {
	path  string
	phase Phase
	key   *yaml.Node
}

// in is the value of a key.
func (s spot) in(key *yaml.Node) spot {
	path := key.Value
	if s.path != "" {
		path = s.path + ": " + path
	}
	return spot{path, s.phase, key}
}

// item is one of a list.
func (s spot) item() spot { return spot{s.path, s.phase, nil} }

func (s spot) say(what string) string {
	if s.path == "" {
		return what
	}
	return s.path + ": " + what
}

func (l *loader) place(n *yaml.Node) Place {
	return Place{l.file, max(1, n.Line), max(1, n.Column)}
}

func (l *loader) add(n *yaml.Node, p Problem) {
	p.Place = l.place(n)
	l.problems = append(l.problems, p)
}

func (l *loader) wrong(n *yaml.Node, s spot, what, wanted, seen, try string) {
	l.add(n, Problem{What: s.say(what), Wanted: wanted, Seen: seen, Try: try})
}

// field is one exported field of a struct that the file may have.
type field struct {
	index    []int // for FieldByIndex
	name     string
	tag      reflect.StructTag
	required bool
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for _, f := range reflect.VisibleFields(t) { // with those of structs without a tag, as if they stood here
		if name := f.Tag.Get("yaml"); name != "" && name != "-" && f.IsExported() {
			fields = append(fields, field{f.Index, name, f.Tag, f.Tag.Get("required") == "true"})
		}
	}
	return fields
}

// pair is a key of a mapping with its value.
type pair struct{ key, value *yaml.Node }

// pairs are the fields of a mapping; keys that are no text, and those that stand there twice, are
// reported and left out.
func (l *loader) pairs(n *yaml.Node, s spot) []pair {
	var all []pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" || key.Kind == yaml.AliasNode {
			l.unread++
			continue // reported already
		}
		if key.Kind != yaml.ScalarNode || key.Value == "" {
			l.unread++
			l.wrong(key, s, "a field without a name", "a name and a colon", kindOf(key), "")
			continue
		}
		if line, twice := lines[key.Value]; twice {
			l.unread++
			l.wrong(key, s, fmt.Sprintf("%s twice", short(key.Value)), "each field once", fmt.Sprintf("the first at line %d", line), "remove one, or make one field of both")
			continue
		}
		lines[key.Value] = key.Line
		all = append(all, pair{key, value})
	}
	return all
}

// scenarioFields decodes the top of the file in the order of the struct, so that names are known
// before the steps that refer to them. It returns the nodes of the keys that are there.
func (l *loader) scenarioFields(root *yaml.Node, s *Scenario) map[string]*yaml.Node {
	s.Place = l.place(root)
	return l.fields(root, reflect.ValueOf(s).Elem(), spot{}, func(name string, n *yaml.Node) {
		switch name {
		case "topology":
			l.clusters = clusterNames(n)
		case "apps":
			l.apps, l.services = appNames(n)
		case "traffic":
			l.streams = streamNames(n)
		}
	})
}

// appNames are the apps and services that steps may name. One that is itself wrong counts too: its own
// report is enough. Nil when the list cannot be read.
func appNames(n *yaml.Node) (apps, services []string) {
	if n == nil {
		return []string{}, []string{}
	}
	if n.Kind != yaml.SequenceNode {
		return nil, nil
	}
	for _, item := range n.Content {
		name, _, _ := strings.Cut(item.Value, "@")
		apps, services = append(apps, item.Value), append(services, name)
	}
	return unique(apps), unique(services)
}

// streamNames are the streams that steps may name, as appNames.
func streamNames(n *yaml.Node) []string {
	if n == nil {
		return []string{}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
	}
	return unique(names)
}

// unique drops the words that stood there before. The result is never nil.
func unique(words []string) []string {
	all := []string{}
	seen := map[string]bool{}
	for _, word := range words {
		if !seen[word] {
			seen[word] = true
			all = append(all, word)
		}
	}
	return all
}

// fields decodes a mapping into a struct. done, if any, is called after each field of the struct, in
// its order, with its value in the file or nil. It returns the keys that are there.
func (l *loader) fields(n *yaml.Node, v reflect.Value, s spot, done func(name string, value *yaml.Node)) map[string]*yaml.Node {
	fields := fieldsOf(v.Type())
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	present := map[string]pair{}
	keys := map[string]*yaml.Node{}
	for _, p := range l.pairs(n, s) {
		if !slices.Contains(names, p.key.Value) {
			l.unread++
			l.unknown(p.key, s, "field", p.key.Value, names)
			continue
		}
		present[p.key.Value] = p
		keys[p.key.Value] = p.key
	}
	for _, f := range fields {
		p, there := present[f.name]
		var inside spot
		if there {
			inside = s.in(p.key)
			if phase := f.tag.Get("phase"); phase != "" {
				inside.phase = Phase(phase)
			}
		}
		at := n
		if s.key != nil {
			at = s.key
		}
		switch {
		case !there && f.required:
			l.unread++
			l.wrong(at, s, fmt.Sprintf("%s is missing", f.name), strings.TrimSuffix(f.tag.Get("doc"), "."), "", fmt.Sprintf("add %s:", f.name))
		case there && f.required && isEmpty(p.value):
			l.unread++
			l.wrong(p.key, s, fmt.Sprintf("%s is empty", f.name), strings.TrimSuffix(f.tag.Get("doc"), "."), "", "")
		case there:
			l.value(p.value, v.FieldByIndex(f.index), f.tag, inside)
		}
		if done != nil {
			done(f.name, p.value)
		}
	}
	return keys
}

// unknown reports a word that is not in the list, with the one that is most like it.
func (l *loader) unknown(n *yaml.Node, s spot, kind, name string, known []string) {
	p := Problem{What: s.say(fmt.Sprintf("unknown %s %s", kind, short(name))), Wanted: list(known)}
	if len(known) == 0 {
		p.Wanted = fmt.Sprintf("a %s of the scenario, which has none", kind)
	}
	if like := near(name, known); like != "" {
		p.Try = fmt.Sprintf("did you mean %s?", like)
	}
	l.add(n, p)
}

var (
	placeType    = reflect.TypeFor[Place]()
	durationType = reflect.TypeFor[Duration]()
	percentType  = reflect.TypeFor[Percent]()
	patternType  = reflect.TypeFor[Pattern]()
	appType      = reflect.TypeFor[App]()
	stepType     = reflect.TypeFor[Step]()
	streamsType  = reflect.TypeFor[[]Stream]()
)

// value decodes one node into v, whose zero value it leaves where it reports a problem.
func (l *loader) value(n *yaml.Node, v reflect.Value, tag reflect.StructTag, s spot) {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		l.unread++ // reported by plain
		return
	}
	switch v.Type() {
	case durationType:
		l.duration(n, v, tag, s)
		return
	case percentType:
		l.percent(n, v, s)
		return
	case patternType:
		l.pattern(n, v, s)
		return
	case appType:
		l.app(n, v, tag, s)
		return
	case stepType:
		l.step(n, v, s)
		return
	case streamsType:
		l.traffic(n, v, s)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		before := len(l.problems)
		l.value(n, fresh.Elem(), tag, s)
		if len(l.problems) == before {
			v.Set(fresh)
		}
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			l.wrongType(n, s, "fields: "+strings.Join(namesOf(v.Type()), ", "), "")
			return
		}
		l.structure(n, v, s)
	case reflect.Slice:
		items := n.Content
		switch {
		case n.Kind == yaml.ScalarNode && !isNull(n) && v.Type().Name() != "":
			items = []*yaml.Node{n}
		case n.Kind != yaml.SequenceNode:
			l.wrongType(n, s, "a list", "put it into a list: [ … ]")
			return
		}
		names := tag.Get("ref") != "" || v.Type().Elem() == appType
		if len(items) == 0 && tag.Get("ref") != "" {
			l.wrong(n, s, "an empty list", "at least one "+tag.Get("ref"), "", "leave the field out if none is meant")
		}
		l.checkLength(n, items, tag, s)
		seen := map[string]bool{}
		v.Set(reflect.MakeSlice(v.Type(), 0, len(items)))
		for _, item := range items {
			if names && item.Kind == yaml.ScalarNode && seen[item.Value] {
				l.wrong(item, s, fmt.Sprintf("%s twice", short(item.Value)), "each once", "", "remove one")
			}
			seen[item.Value] = true
			one := reflect.New(v.Type().Elem()).Elem()
			l.value(item, one, tag, s.item())
			v.Set(reflect.Append(v, one))
		}
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			l.wrongType(n, s, "names with their values", "")
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, p := range l.pairs(n, s) {
			if keys := tag.Get("keys"); keys != "" && !l.ref(p.key, keys, p.key.Value, s) {
				continue
			}
			one := reflect.New(v.Type().Elem()).Elem()
			before := len(l.problems)
			l.value(p.value, one, tag, s.in(p.key))
			if len(l.problems) == before {
				v.SetMapIndex(reflect.ValueOf(p.key.Value).Convert(v.Type().Key()), one)
			}
		}
	case reflect.Interface:
		if free := l.free(n, s); free != nil {
			v.Set(reflect.ValueOf(free))
		}
	default:
		l.scalar(n, v, tag, s)
	}
}

func namesOf(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t) {
		names = append(names, f.name)
	}
	return names
}

func (l *loader) structure(n *yaml.Node, v reflect.Value, s spot) {
	if f := v.FieldByName("Place"); f.IsValid() && f.Type() == placeType {
		f.Set(reflect.ValueOf(l.place(n)))
	}
	before, unread := len(l.problems), l.unread
	l.fields(n, v, s, nil)
	switch x := v.Addr().Interface().(type) {
	case *Cluster:
		x.unread = l.unread > unread
	case *Topology, *topologyFile: // what it says of its clusters does not wait for the last letter of each
		l.validate(n, v, s, l.unread == unread)
	default:
		if len(l.problems) == before {
			l.validate(n, v, s, true)
		}
	}
}

// validate calls the struct's own method. What it says of the struct itself counts only if all of that
// was read: what it misses may be there, and wrong.
func (l *loader) validate(n *yaml.Node, v reflect.Value, s spot, whole bool) {
	validator, ok := v.Addr().Interface().(interface{ Validate() error })
	if !ok {
		return
	}
	err := validator.Validate()
	if err == nil {
		return
	}
	errs := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		at, inside := n, s
		if s.key != nil {
			at = s.key
		}
		var field *fieldError
		if errors.As(err, &field) {
			at, inside = follow(n, at, s, field.field)
		} else if !whole {
			continue
		}
		p := Problem{What: err.Error()}
		errors.As(err, &p)
		p.What = inside.say(p.What)
		l.add(at, p)
	}
}

// follow is where a path of At leads from a struct, which is itself reported at another node.
func follow(n, at *yaml.Node, s spot, path string) (*yaml.Node, spot) {
	for word := range strings.SplitSeq(path, ".") {
		if n.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(word)
			if err != nil || i >= len(n.Content) {
				break
			}
			n = n.Content[i]
			at = n
			continue
		}
		key, value := child(n, word)
		if key == nil {
			break
		}
		at, s, n = key, s.in(key), value
	}
	return at, s
}

// child is a field of a mapping with its key; nil when it is not there.
func child(n *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func (l *loader) scalar(n *yaml.Node, v reflect.Value, tag reflect.StructTag, s spot) {
	kind := n.ShortTag()
	switch k := v.Kind(); {
	case k == reflect.String:
		if n.Kind == yaml.ScalarNode && kind == "!!str" {
			v.SetString(n.Value)
			l.checkText(n, n.Value, tag, s)
			return
		}
		if enum := tag.Get("enum"); enum != "" {
			l.wrongType(n, s, list(strings.Split(enum, ",")), "")
			return
		}
		l.wrongType(n, s, "text", quoted(n))
	case k == reflect.Bool:
		if n.Kind != yaml.ScalarNode || kind != "!!bool" {
			l.wrongType(n, s, "true or false", "")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case v.CanInt(), v.CanUint():
		f, ok := number(n)
		low, high := 0.0, math.Pow(2, float64(v.Type().Bits()))-1
		if v.CanInt() {
			low, high = -math.Pow(2, float64(v.Type().Bits()-1)), math.Pow(2, float64(v.Type().Bits()-1))-1
		}
		var err error
		switch {
		case !ok || f != math.Trunc(f):
			l.wrongType(n, s, "a whole number", "")
			return
		case f < low || f > high:
			l.wrong(n, s, "out of range", fmt.Sprintf("%.0f to %.0f", low, high), n.Value, "")
			return
		case v.CanInt():
			var i int64
			i, err = strconv.ParseInt(n.Value, 10, v.Type().Bits())
			v.SetInt(i)
		default:
			var i uint64
			i, err = strconv.ParseUint(n.Value, 10, v.Type().Bits())
			v.SetUint(i)
		}
		if err != nil { // 1e3, 0x10: a number, but not written as one counts
			l.wrongType(n, s, "a whole number in decimal digits", "")
			return
		}
		l.checkBounds(n, f, tag, s)
	case v.CanFloat():
		f, ok := number(n)
		if !ok {
			l.wrongType(n, s, "a number", "")
			return
		}
		v.SetFloat(f)
		l.checkBounds(n, f, tag, s)
	default:
		l.wrong(n, s, fmt.Sprintf("the table of verbs has a type that no file can hold: %s", v.Type()), "", "", "")
	}
}

// number reads a finite number.
func number(n *yaml.Node) (float64, bool) {
	if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func (l *loader) wrongType(n *yaml.Node, s spot, wanted, try string) {
	l.unread++
	l.wrong(n, s, "wrong type", wanted, kindOf(n), try)
}

// quoted is the advice for a text that YAML takes for something else.
func quoted(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		return fmt.Sprintf("put it into quotes: %s", short(n.Value))
	}
	return ""
}

func (l *loader) duration(n *yaml.Node, v reflect.Value, tag reflect.StructTag, s spot) {
	const wanted = "a time with its unit, more than zero, like 50ms, 30s or 1m30s"
	if f, ok := number(n); ok && f > 0 {
		l.wrong(n, s, "a duration without a unit", wanted, n.Value, fmt.Sprintf("%ss or %sms", n.Value, n.Value))
		return
	}
	if n.Kind != yaml.ScalarNode || isNull(n) {
		l.wrongType(n, s, wanted, "")
		return
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || d <= 0 {
		l.wrong(n, s, "not a duration", wanted, short(n.Value), "")
		return
	}
	low, high := bound(tag, "min", time.ParseDuration), bound(tag, "max", time.ParseDuration)
	if low != nil && d < *low || high != nil && d > *high {
		l.wrong(n, s, "out of range", bounds(tag), n.Value, "")
		return
	}
	v.SetInt(int64(d))
}

func (l *loader) percent(n *yaml.Node, v reflect.Value, s spot) {
	f, ok := number(n)
	switch {
	case ok && f >= 0 && f <= 100:
		v.SetFloat(f)
	case n.Kind == yaml.ScalarNode && strings.HasSuffix(n.Value, "%"):
		l.wrong(n, s, "a percentage is a plain number", "a number from 0 to 100", short(n.Value), strings.TrimSpace(strings.TrimSuffix(n.Value, "%")))
	case ok:
		l.wrong(n, s, "out of range", "percent: a number from 0 to 100", n.Value, "")
	default:
		l.wrongType(n, s, "percent: a number from 0 to 100", "")
	}
}

func (l *loader) pattern(n *yaml.Node, v reflect.Value, s spot) {
	const wanted = "a regular expression (Go's syntax)"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		l.wrongType(n, s, wanted, quoted(n))
		return
	}
	compiled, err := regexp.Compile(n.Value)
	if err != nil {
		l.wrong(n, s, "not a regular expression", wanted, strings.TrimPrefix(err.Error(), "error parsing regexp: "), `put \ before a character that is meant as it is, and the whole into '…'`)
		return
	}
	v.Set(reflect.ValueOf(Pattern{compiled}))
}

// The forms of names, for the loader and the schema.
const (
	labelPattern     = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`    // of Kubernetes Services (RFC 1035)
	namespacePattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$` // RFC 1123
	kebabPattern     = `^[a-z0-9]+(-[a-z0-9]+)*$`
)

var (
	label     = regexp.MustCompile(labelPattern)
	namespace = regexp.MustCompile(namespacePattern)
	kebab     = regexp.MustCompile(kebabPattern)
)

// nameForm is what the tag name asks for.
type nameForm struct {
	pattern      *regexp.Regexp
	most         int // characters
	what, wanted string
}

var nameForms = map[string]nameForm{
	"kebab":    {kebab, 63, "a name", "small letters, digits and hyphens, at most 63, like remote-secret-revoked"},
	"topology": {kebab, 63, "a topology's name", "small letters, digits and hyphens, at most 63, like three-primaries"},
	// With what the lab makes of it, such as a host name and the Service echo-NAME-fresh, it stays within 63.
	"cluster": {kebab, 40, "a cluster's name", "small letters, digits and hyphens, at most 40, like cluster-a"},
	"network": {kebab, 63, "a network's name", "small letters, digits and hyphens, at most 63, like network-a"},
	"version": {regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`), 63, "a version", "a whole version, like v1.36.1"},
}

// app reads "client@cluster-a", or "echo" where a service may stand. In the list of apps itself only
// the cluster has to exist already.
func (l *loader) app(n *yaml.Node, v reflect.Value, tag reflect.StructTag, s spot) {
	ref := tag.Get("ref")
	wanted := "an app and its cluster, like client@cluster-a"
	switch ref {
	case "app-or-service":
		wanted += ", or a service, like echo"
	case "service":
		wanted = "a service, like echo"
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		l.wrongType(n, s, wanted, "")
		return
	}
	name, cluster, at := strings.Cut(n.Value, "@")
	formed := label.MatchString(name) && (at && ref != "service" && cluster != "" || !at && (ref == "service" || ref == "app-or-service"))
	if !formed {
		l.wrong(n, s, "not an app", wanted, short(n.Value), "")
		return
	}
	if at && !l.ref(n, "cluster", cluster, s) {
		return
	}
	if ref != "" && !l.ref(n, ref, n.Value, s) {
		return
	}
	v.Set(reflect.ValueOf(App{Name: name, Cluster: cluster, Place: l.place(n)}))
}

func (l *loader) traffic(n *yaml.Node, v reflect.Value, s spot) {
	if n.Kind != yaml.MappingNode {
		l.wrongType(n, s, "streams by name, like a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}", "")
		return
	}
	var streams []Stream
	for _, p := range l.pairs(n, s) {
		inside := s.in(p.key)
		if !kebab.MatchString(p.key.Value) {
			l.wrong(p.key, s, "not a stream's name", "small letters, digits and hyphens, like a-to-b", short(p.key.Value), "")
		}
		stream := Stream{Name: p.key.Value, Connections: Fresh}
		l.value(p.value, reflect.ValueOf(&stream).Elem(), "", inside)
		stream.Place = l.place(p.key)
		streams = append(streams, stream)
	}
	v.Set(reflect.ValueOf(streams))
}

func (l *loader) step(n *yaml.Node, v reflect.Value, s spot) {
	const wanted = "one verb with its arguments, like - restart-istiod: {in: cluster-a}"
	if n.Kind != yaml.MappingNode {
		try := ""
		if _, known := l.vocabulary.Find(n.Value); known && n.Kind == yaml.ScalarNode {
			try = fmt.Sprintf("- %s: {}", n.Value)
		}
		l.wrong(n, s, "not a step", wanted, kindOf(n), try)
		return
	}
	pairs := l.pairs(n, s)
	if len(pairs) == 0 {
		if len(n.Content) == 0 {
			l.wrong(n, s, "an empty step", wanted, "", "")
		}
		return
	}
	if len(pairs) > 1 {
		words := make([]string, len(pairs))
		for i, p := range pairs {
			words[i] = p.key.Value
		}
		l.wrong(pairs[1].key, s, "more than one verb in a step", "one verb per step",
			strings.Join(words, ", "), "start the second with a dash of its own; indent what belongs to the first")
	}
	for _, p := range pairs {
		verb, known := l.vocabulary.Find(p.key.Value)
		switch {
		case !known:
			// Only the words of this phase are worth proposing, unless the slip is in one of another.
			p0 := Problem{What: s.say("unknown verb " + short(p.key.Value)), Wanted: list(l.vocabulary.in(s.phase))}
			like := near(p.key.Value, l.vocabulary.in(s.phase))
			if like == "" {
				like = near(p.key.Value, l.vocabulary.names())
			}
			if like != "" {
				p0.Try = fmt.Sprintf("did you mean %s?", like)
			}
			l.add(p.key, p0)
			continue
		case !slices.Contains(verb.Phases, s.phase):
			phases := make([]string, len(verb.Phases))
			for i, phase := range verb.Phases {
				phases[i] = string(phase)
			}
			l.wrong(p.key, s, fmt.Sprintf("%s cannot stand here", verb.Name), fmt.Sprintf("%s in %s", verb.Name, list(phases)), verb.Name+" in "+string(s.phase),
				"here may stand: "+list(l.vocabulary.in(s.phase)))
		}
		args := reflect.ValueOf(verb.New())
		inside := s.in(p.key)
		if args.Kind() != reflect.Pointer || args.IsNil() {
			l.wrong(p.key, inside, "the table of verbs makes no pointer", "", "", "")
			continue
		}
		if isNull(p.value) && args.Elem().Kind() == reflect.Struct {
			// A verb without arguments.
			l.structure(&yaml.Node{Kind: yaml.MappingNode, Line: p.key.Line, Column: p.key.Column}, args.Elem(), inside)
		} else {
			l.value(p.value, args.Elem(), "", inside)
		}
		v.Set(reflect.ValueOf(Step{Verb: verb.Name, Args: args.Interface(), Place: l.place(p.key)}))
	}
}

// names are all verbs; in those that may stand in a phase.
func (v Vocabulary) names() []string {
	names := make([]string, len(v))
	for i, verb := range v {
		names[i] = verb.Name
	}
	return names
}

func (v Vocabulary) in(phase Phase) []string {
	var names []string
	for _, verb := range v {
		if slices.Contains(verb.Phases, phase) {
			names = append(names, verb.Name)
		}
	}
	return names
}

// free reads any YAML, for verbs that hand it on (a patch): maps, lists, texts, numbers and booleans.
func (l *loader) free(n *yaml.Node, s spot) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for _, p := range l.pairs(n, s) {
			m[p.key.Value] = l.free(p.value, s.in(p.key))
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, l.free(item, s))
		}
		return list
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return nil
		case "!!bool":
			return strings.EqualFold(n.Value, "true")
		case "!!int":
			if i, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
				return i
			}
			l.wrongType(n, s, "a whole number of 64 bits", "")
			return nil
		case "!!float":
			if f, ok := number(n); ok {
				return f
			}
			l.wrongType(n, s, "a finite number", "")
			return nil
		}
		return n.Value
	}
	return nil
}

// checkLength reports a list that is shorter or longer than its tags allow.
func (l *loader) checkLength(n *yaml.Node, items []*yaml.Node, tag reflect.StructTag, s spot) {
	low, high := bound(tag, "least", strconv.Atoi), bound(tag, "most", strconv.Atoi)
	switch {
	case low != nil && len(items) < *low:
		l.wrong(n, s, "too few", fmt.Sprintf("at least %d", *low), strconv.Itoa(len(items)), "")
	case high != nil && len(items) > *high:
		l.wrong(items[*high], s, "too many", fmt.Sprintf("at most %d", *high), strconv.Itoa(len(items)), "")
	}
}

// checkBounds reports a number outside of what its tags allow.
func (l *loader) checkBounds(n *yaml.Node, f float64, tag reflect.StructTag, s spot) {
	low, high := bound(tag, "min", parseNumber), bound(tag, "max", parseNumber)
	if low != nil && f < *low || high != nil && f > *high {
		l.wrong(n, s, "out of range", bounds(tag), n.Value, "")
	}
}

// checkText applies the tags that speak of texts: enum, name, ref.
func (l *loader) checkText(n *yaml.Node, value string, tag reflect.StructTag, s spot) {
	if enum := tag.Get("enum"); enum != "" {
		if words := strings.Split(enum, ","); !slices.Contains(words, value) {
			l.unknown(n, s, "value", value, words)
			return
		}
	}
	if form, named := nameForms[tag.Get("name")]; named && (!form.pattern.MatchString(value) || len(value) > form.most) {
		l.wrong(n, s, "not "+form.what, form.wanted, short(value), "")
	}
	if ref := tag.Get("ref"); ref != "" {
		l.ref(n, ref, value, s)
	}
}

// ref says whether the name exists in the scenario, and reports it when it does not.
func (l *loader) ref(n *yaml.Node, kind, name string, s spot) bool {
	var known []string
	switch kind {
	case "cluster":
		known = l.clusters
	case "app":
		known = l.apps
	case "service":
		known = l.services
	case "app-or-service":
		kind = "app"
		if known = l.apps; !strings.Contains(name, "@") {
			kind, known = "service", l.services
		}
	case "stream":
		known = l.streams
	case "namespace":
		if !namespace.MatchString(name) {
			l.wrong(n, s, "not a namespace", "small letters, digits and hyphens", short(name), "")
			return false
		}
		known = l.namespaces()
	case "file":
		return l.refFile(n, name, s)
	default:
		l.wrong(n, s, fmt.Sprintf("the table of verbs refers to an unknown kind of name: %s", kind), "", "", "")
		return false
	}
	if known == nil || slices.Contains(known, name) {
		return true
	}
	l.unknown(n, s, kind, name, known)
	return false
}

// refFile holds names of files to the scenario's own folder: they come from strangers.
func (l *loader) refFile(n *yaml.Node, name string, s spot) bool {
	const wanted = "a file beside the scenario"
	if !fs.ValidPath(name) || name == "." || strings.Contains(name, `\`) {
		l.wrong(n, s, "not a file of the scenario's folder", wanted, short(name), "a plain name, like manifest.yaml")
		return false
	}
	if l.folder == nil {
		return true
	}
	info, err := fs.Stat(l.folder, name) // a root: a link that leads out of the folder is an error
	if err == nil && info.Mode().IsRegular() {
		return true
	}
	p := Problem{What: s.say("no such file"), Wanted: wanted, Seen: short(name)}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.Seen = err.Error()
	}
	var names []string
	if entries, err := fs.ReadDir(l.folder, path.Dir(name)); err == nil {
		for _, e := range entries {
			names = append(names, path.Join(path.Dir(name), e.Name()))
		}
	}
	if like := near(name, names); like != "" {
		p.Try = fmt.Sprintf("did you mean %s?", like)
	}
	l.add(n, p)
	return false
}

func parseNumber(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

// bound reads a tag that bounds a value; nil when there is none.
func bound[T any](tag reflect.StructTag, name string, read func(string) (T, error)) *T {
	value, err := read(tag.Get(name))
	if err != nil {
		return nil // no bound; Vocabulary.Check finds one that cannot be read
	}
	return &value
}

func bounds(tag reflect.StructTag) string {
	low, high := tag.Get("min"), tag.Get("max")
	switch {
	case low == "":
		return "at most " + high
	case high == "":
		return "at least " + low
	}
	return low + " to " + high
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// isEmpty: nothing, an empty text, an empty list or no fields.
func isEmpty(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return isNull(n) || strings.TrimSpace(n.Value) == ""
	case yaml.AliasNode:
		return false
	}
	return len(n.Content) == 0
}

// kindOf says in words what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the boolean " + n.Value
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	return "the text " + short(n.Value)
}
