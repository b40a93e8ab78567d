package strict

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// Reader reads one file. It never stops at the first problem, and it does not complain about what depends on a part that
// it could not read.
type Reader struct {
	// Ref looks a name up and returns what is wrong with it, nil if nothing is: Unknown, say. The kind is one of the
	// format's Refs. If Ref is nil, no names are looked up.
	Ref func(kind, name string) *Problem

	file     string
	format   *Format
	problems []Problem
	unread   int // how much stands in the file, or should, and is in no Go value
}

// NewReader makes a reader for a file of that format. The name of the file is what the places of problems say.
func NewReader(file string, format *Format) *Reader { return &Reader{file: file, format: format} }

// Read reads a file that needs no reader of its own: no names are looked up. v is a pointer. The error is a *Problems.
func Read(file string, data []byte, format *Format, v any) error {
	r := NewReader(file, format)
	if root := r.Document(data); root != nil {
		r.Decode(root, v, nil)
	}
	return r.Err()
}

// Err returns a *Problems with everything that is wrong with the file, or nil.
func (r *Reader) Err() error {
	if len(r.problems) == 0 {
		return nil
	}
	problems := &Problems{List: slices.Clone(r.problems)}
	problems.sort()
	return problems
}

// Place is where a node stands.
func (r *Reader) Place(n *yaml.Node) Place { return Place{r.file, max(1, n.Line), max(1, n.Column)} }

// Add reports a problem at a node.
func (r *Reader) Add(n *yaml.Node, p Problem) {
	p.Place = r.Place(n)
	r.problems = append(r.problems, p)
}

// Report reports a problem at a node and puts the path of its spot in front.
func (r *Reader) Report(n *yaml.Node, s Spot, p Problem) {
	p.What = s.say(p.What)
	r.Add(n, p)
}

// WrongType reports that a node is not of the kind that is wanted.
func (r *Reader) WrongType(n *yaml.Node, s Spot, wanted, try string) {
	r.unread++
	r.Report(n, s, Problem{What: "wrong type", Wanted: wanted, Seen: Describe(n), Try: try})
}

// Decode reads the root of a file into what v points to. done, if not nil, is called for each field of the struct, in the
// order of the struct, once the field is read, with its value in the file or nil. Decode returns the fields that the file
// has, if its root is a mapping.
func (r *Reader) Decode(root *yaml.Node, v any, done func(field string, value *yaml.Node)) map[string]Field {
	r.plain(root)
	into := reflect.ValueOf(v).Elem()
	if into.Kind() != reflect.Struct {
		r.Value(root, into, Spot{})
		return nil
	}
	if !r.IsMapping(root) {
		return nil
	}
	return r.structure(root, into, Spot{}, done)
}

// IsMapping reports a root that is no mapping, as those of files with fields are.
func (r *Reader) IsMapping(root *yaml.Node) bool {
	if root.Kind == yaml.MappingNode {
		return true
	}
	r.Add(root, Problem{What: "not a " + r.format.Name, Wanted: r.format.Fields, Seen: Describe(root), Try: r.format.Begin})
	return false
}

// Field is a key of a mapping with its value.
type Field struct{ Key, Value *yaml.Node }

// Fields returns the fields of a mapping in the order of the file. Keys that are no text, and those that stand there twice,
// are reported and left out.
func (r *Reader) Fields(n *yaml.Node, s Spot) []Field {
	var all []Field
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if isMerge(key) || key.Kind == yaml.AliasNode {
			r.unread++
			continue // plain has reported it
		}
		if key.Kind != yaml.ScalarNode || key.Value == "" {
			r.unread++
			r.Report(key, s, Problem{What: "a field without a name", Wanted: "a name and a colon", Seen: Describe(key)})
			continue
		}
		if line, twice := lines[key.Value]; twice {
			r.unread++
			r.Report(key, s, Problem{What: Quote(key.Value) + " twice", Wanted: "each field once",
				Seen: fmt.Sprintf("the first at line %d", line), Try: "remove one, or make one field of both"})
			continue
		}
		lines[key.Value] = key.Line
		all = append(all, Field{key, value})
	}
	return all
}

// fields reads a mapping into a struct; see Decode.
func (r *Reader) fields(n *yaml.Node, v reflect.Value, s Spot, done func(string, *yaml.Node)) map[string]Field {
	known := fieldsOf(v.Type())
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	present, meant := map[string]Field{}, map[string]Field{}
	for _, f := range r.Fields(n, s) {
		name := f.Key.Value
		if slices.Contains(names, name) {
			present[name] = f
			continue
		}
		r.unread++
		r.Report(f.Key, s, Unknown("field", name, names))
		meant[words.Near(name, names)] = f
	}
	for _, f := range known {
		in, there := present[f.name]
		at := s.at(n)
		_, misspelled := meant[f.name]
		switch {
		case !there && f.required && !misspelled: // a slip is one problem, not two
			r.unread++
			wanted := strings.TrimSuffix(f.doc(), ".")
			r.Report(at, s, Problem{What: f.name + " is missing", Wanted: wanted, Try: "add " + f.name + ":"})
		case there && f.required && IsEmpty(in.Value):
			r.unread++
			r.Report(in.Key, s, Problem{What: f.name + " is empty", Wanted: strings.TrimSuffix(f.doc(), ".")})
		case there:
			r.Value(in.Value, v.FieldByIndex(f.index), s.in(in.Key, f.tag))
		}
		if done != nil {
			if !there {
				in = meant[f.name]
			}
			done(f.name, in.Value)
		}
	}
	return present
}

var (
	placeType    = reflect.TypeFor[Place]()
	durationType = reflect.TypeFor[Duration]()
	timeType     = reflect.TypeFor[time.Duration]()
	percentType  = reflect.TypeFor[Percent]()
	regexpType   = reflect.TypeFor[*regexp.Regexp]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isText reports whether values of the type read themselves from text.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// Value reads a node into v. Where it reports a problem, v may hold anything.
func (r *Reader) Value(n *yaml.Node, v reflect.Value, s Spot) {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		r.unread++ // plain has reported it
		return
	}
	t := v.Type()
	if own, has := r.format.Types[t]; has {
		own.Read(n, v, s)
		return
	}
	switch {
	case t == durationType, t == timeType:
		r.duration(n, v, s)
	case t == percentType:
		r.percent(n, v, s)
	case t == regexpType:
		r.pattern(n, v, s)
	case isText(t):
		r.ownText(n, v, s)
	default:
		r.kind(n, v, s)
	}
}

// kind reads a node into a value by the kind of its type.
func (r *Reader) kind(n *yaml.Node, v reflect.Value, s Spot) {
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		before := len(r.problems)
		r.Value(n, fresh.Elem(), s)
		if len(r.problems) == before {
			v.Set(fresh)
		}
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			r.WrongType(n, s, "fields: "+strings.Join(namesOf(v.Type()), ", "), r.shape(n, v.Type(), s))
			return
		}
		r.structure(n, v, s, nil)
	case reflect.Slice:
		r.list(n, v, s)
	case reflect.Map:
		r.mapping(n, v, s)
	case reflect.Interface:
		if free := r.free(n, s); free != nil {
			v.Set(reflect.ValueOf(free))
		}
	default:
		r.scalar(n, v, s)
	}
}

func (r *Reader) list(n *yaml.Node, v reflect.Value, s Spot) {
	t := v.Type()
	items := n.Content
	switch {
	case n.Kind == yaml.ScalarNode && !isNull(n) && t.Name() != "":
		items = []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		item := " … "
		if n.Kind == yaml.ScalarNode && takes(t.Elem(), n) {
			item = flow(n)
		}
		r.WrongType(n, s, "a list", fmt.Sprintf("put it into a list: [%s]", item))
		return
	}
	ref := s.tag.Get("ref")
	if len(items) == 0 && ref != "" && s.tag.Get("least") == "" {
		r.Report(n, s, Problem{What: "an empty list", Wanted: "at least one " + ref, Try: "leave the field out if none is meant"})
	}
	r.checkLength(n, items, s)
	seen := map[string]bool{}
	v.Set(reflect.MakeSlice(t, 0, len(items)))
	for _, item := range items {
		if ref != "" && item.Kind == yaml.ScalarNode && seen[item.Value] {
			r.Report(item, s, Problem{What: Quote(item.Value) + " twice", Wanted: "each once", Try: "remove one"})
		}
		seen[item.Value] = true
		one := reflect.New(t.Elem()).Elem()
		r.Value(item, one, s.item())
		v.Set(reflect.Append(v, one))
	}
}

func (r *Reader) mapping(n *yaml.Node, v reflect.Value, s Spot) {
	t := v.Type()
	if n.Kind != yaml.MappingNode {
		r.WrongType(n, s, "names with their values", "")
		return
	}
	v.Set(reflect.MakeMap(t))
	for _, f := range r.Fields(n, s) {
		if keys := s.tag.Get("keys"); keys != "" && !r.checkRef(f.Key, keys, s) {
			continue
		}
		one := reflect.New(t.Elem()).Elem()
		before := len(r.problems)
		r.Value(f.Value, one, s.in(f.Key, s.tag))
		if len(r.problems) == before {
			v.SetMapIndex(reflect.ValueOf(f.Key.Value).Convert(t.Key()), one)
		}
	}
}

// structure reads a mapping into a struct and validates it.
func (r *Reader) structure(n *yaml.Node, v reflect.Value, s Spot, done func(string, *yaml.Node)) map[string]Field {
	if f := v.FieldByName("Place"); f.IsValid() && f.Type() == placeType {
		f.Set(reflect.ValueOf(r.Place(n)))
	}
	before, unread := len(r.problems), r.unread
	present := r.fields(n, v, s, done)
	partial, ok := v.Addr().Interface().(interface{ Unread() })
	if ok && r.unread > unread {
		partial.Unread()
	}
	if ok || len(r.problems) == before {
		r.validate(n, v, s)
	}
	return present
}

// Arguments reads the value of a key into a struct, for a key that may stand alone: nothing counts as no fields.
func (r *Reader) Arguments(f Field, v reflect.Value, s Spot) {
	n := f.Value
	if isNull(n) && v.Kind() == reflect.Struct && !isText(v.Type()) {
		n = &yaml.Node{Kind: yaml.MappingNode, Line: f.Key.Line, Column: f.Key.Column}
	}
	r.Value(n, v, s)
}

// validate calls the struct's own method.
func (r *Reader) validate(n *yaml.Node, v reflect.Value, s Spot) {
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
		at, inside := s.at(n), s
		var field *fieldError
		if errors.As(err, &field) {
			at, inside = follow(n, at, s, field.field)
		}
		p := Problem{What: err.Error()}
		errors.As(err, &p)
		r.Report(at, inside, p)
	}
}

// follow returns where a path of At leads from a struct. The struct itself is reported at the node at.
func follow(n, at *yaml.Node, s Spot, path string) (*yaml.Node, Spot) {
	for word := range strings.SplitSeq(path, ".") {
		if n.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(word)
			if err != nil || i < 0 || i >= len(n.Content) {
				break
			}
			n = n.Content[i]
			at = n
			continue
		}
		f := Child(n, word)
		if f.Key == nil {
			break
		}
		at, s, n = f.Key, s.In(f.Key), f.Value
	}
	return at, s
}

// Child returns a field of a mapping. Both of its nodes are nil if the mapping does not have it.
func Child(n *yaml.Node, name string) Field {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == name {
			return Field{n.Content[i], n.Content[i+1]}
		}
	}
	return Field{}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// IsEmpty reports whether a node is nothing, an empty text, a list without items or a mapping without fields.
func IsEmpty(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return isNull(n) || strings.TrimSpace(n.Value) == ""
	case yaml.AliasNode:
		return false
	}
	return len(n.Content) == 0
}

// Describe says in words what a node is.
func Describe(n *yaml.Node) string {
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
	return "the text " + Quote(n.Value)
}
