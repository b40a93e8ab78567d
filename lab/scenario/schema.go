package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schema is the JSON Schema of scenario files with these verbs, indented and always the same for the
// same table. It is draft-07: the common YAML language server supports nothing newer. It fails where
// Check does.
func Schema(v Vocabulary) ([]byte, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	root := structureSchema(reflect.TypeFor[Scenario](), "")
	definitions := object{}
	for _, verb := range v {
		definitions = append(definitions, member{"verb-" + verb.Name, verbSchema(verb)})
	}
	for _, phase := range Phases() {
		definitions = append(definitions, member{"step-in-" + string(phase), stepSchema(v, phase)})
	}
	head := object{
		{"$schema", "http://json-schema.org/draft-07/schema#"},
		{"title", "eastwest scenario"},
		{"description", "A failure (or a planned change) of a multi-cluster Istio mesh: how to cause it, what it looks like, how to find it, what does not help, and what heals it."},
	}
	root = append(root,
		member{"oneOf", []object{{{"required", []string{"break"}}}, {{"required", []string{"operate"}}}}},
		member{"anyOf", []object{{{"required", []string{"healthy"}}}, {{"required", []string{"always"}}}}},
		member{"dependencies", object{{"break", []string{"symptoms", "recover", "healthy"}}}},
		member{"definitions", definitions})
	return indented(append(head, root...))
}

func indented(o object) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(o); err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return out.Bytes(), nil
}

// Check says what is wrong with the table itself: order, names, phases, and arguments that no file
// can hold or that nobody described. It looks at the types of this package too.
func (v Vocabulary) Check() error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	checkType(reflect.TypeFor[Scenario](), "scenario", nil, complain)
	checkType(reflect.TypeFor[topologyFile](), "topology", nil, complain)
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
		checkType(reflect.TypeOf(verb.New()).Elem(), "verb "+verb.Name, nil, complain)
	}
	return errors.Join(wrong...)
}

// checkType walks the type of arguments. outer are the structs around it: one inside itself has no end.
func checkType(t reflect.Type, where string, outer []reflect.Type, complain func(string, ...any)) {
	switch t {
	case durationType, percentType, patternType, appType, placeType, stepType:
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		checkType(t.Elem(), where, outer, complain)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			complain("%s: a map whose keys are no texts: %s", where, t)
		}
		checkType(t.Elem(), where, outer, complain)
	case reflect.Struct:
		if slices.Contains(outer, t) {
			complain("%s: %s contains itself", where, t)
			return
		}
		outer = append(slices.Clone(outer), t)
		for _, f := range reflect.VisibleFields(t) {
			name := f.Tag.Get("yaml")
			inside := where + ": " + f.Name
			switch {
			case !f.IsExported() || name == "-" || f.Anonymous && name == "":
				continue
			case name == "":
				complain("%s: no yaml tag", inside)
			case strings.TrimSpace(f.Tag.Get("doc")) == "":
				complain("%s: no description", inside)
			}
			for _, tag := range []string{"ref", "keys"} {
				if kind := f.Tag.Get(tag); kind != "" && !slices.Contains(refs, kind) {
					complain("%s: unknown %s %q", inside, tag, kind)
				}
			}
			if _, known := nameForms[f.Tag.Get("name")]; !known && f.Tag.Get("name") != "" {
				complain("%s: unknown form of name %q", inside, f.Tag.Get("name"))
			}
			for _, tag := range []string{"least", "most"} {
				if text := f.Tag.Get(tag); text != "" {
					if _, err := strconv.Atoi(text); err != nil || f.Type.Kind() != reflect.Slice {
						complain("%s: cannot read %s %q of a list", inside, tag, text)
					}
				}
			}
			for _, tag := range []string{"min", "max"} {
				text := f.Tag.Get(tag)
				_, noNumber := strconv.ParseFloat(text, 64)
				_, noDuration := time.ParseDuration(text)
				if text != "" && (f.Type == durationType && noDuration != nil || f.Type != durationType && noNumber != nil) {
					complain("%s: cannot read %s %q", inside, tag, text)
				}
			}
			checkType(f.Type, inside, outer, complain)
		}
	case reflect.Interface:
		if t.NumMethod() > 0 {
			complain("%s: no file can hold %s", where, t)
		}
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	default:
		complain("%s: no file can hold %s", where, t)
	}
}

var refs = []string{"app", "app-or-service", "cluster", "file", "namespace", "service", "stream"}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(bytes.TrimSpace(value.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	appPattern      = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?@[a-z0-9]+(-[a-z0-9]+)*$`
	servicePattern  = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?(@[a-z0-9]+(-[a-z0-9]+)*)?$`
)

func verbSchema(verb Verb) object {
	t := reflect.TypeOf(verb.New()).Elem()
	o := append(object{{"description", verb.Doc}}, valueSchema(t, "", "")...)
	if t.Kind() == reflect.Struct && !slices.ContainsFunc(fieldsOf(t), func(f field) bool { return f.required }) {
		o[slices.IndexFunc(o, func(m member) bool { return m.name == "type" })].value = []string{"object", "null"}
	}
	return o
}

// stepSchema is one verb of those that may stand in the phase: a mapping of exactly one property
// rather than a list of alternatives, since editors then complete the verbs and name what is wrong.
func stepSchema(v Vocabulary, phase Phase) object {
	verbs := object{}
	for _, name := range v.in(phase) {
		verbs = append(verbs, member{name, object{{"$ref", "#/definitions/verb-" + name}}})
	}
	return object{
		{"description", fmt.Sprintf("One verb that may stand in %s.", phase)},
		{"type", "object"}, {"minProperties", 1}, {"maxProperties", 1}, {"additionalProperties", false},
		{"properties", verbs},
	}
}

func structureSchema(t reflect.Type, phase Phase) object {
	properties := object{}
	required := []string{}
	for _, f := range fieldsOf(t) {
		inside := phase
		if p := f.tag.Get("phase"); p != "" {
			inside = Phase(p)
		}
		value := valueSchema(t.FieldByIndex(f.index).Type, f.tag, inside)
		properties = append(properties, member{f.name, append(object{{"description", f.tag.Get("doc")}}, value...)})
		if f.required {
			required = append(required, f.name)
		}
	}
	o := object{{"type", "object"}, {"additionalProperties", false}, {"properties", properties}}
	if len(required) > 0 {
		o = append(o, member{"required", required})
	}
	if t == topologyType || t == topologyFileType {
		o = append(o, topologyRules)
	}
	return o
}

// topologyRules is what Topology.Validate says of its fields.
var topologyRules = member{"oneOf", []object{
	{{"required", []string{"kind"}}, {"not", object{{"required", []string{"clusters"}}}}},
	{{"required", []string{"clusters"}}, {"not", object{{"anyOf", []object{{{"required", []string{"kind"}}}, {{"required", []string{"network"}}}}}}}},
}}

var (
	topologyType     = reflect.TypeFor[Topology]()
	topologyFileType = reflect.TypeFor[topologyFile]()
)

// valueSchema describes a type; the tag is that of the field around it and speaks of each value in it.
func valueSchema(t reflect.Type, tag reflect.StructTag, phase Phase) object {
	switch t {
	case durationType:
		return object{{"type", "string"}, {"pattern", durationPattern}, {"examples", []string{"50ms", "30s", "1m30s"}}}
	case percentType:
		return object{{"type", "number"}, {"minimum", 0}, {"maximum", 100}}
	case patternType:
		return object{{"type", "string"}, {"format", "regex"}}
	case appType:
		return textSchema(tag, "app")
	case stepType:
		return object{{"$ref", "#/definitions/step-in-" + string(phase)}}
	case streamsType:
		return object{{"type", "object"}, {"propertyNames", object{{"pattern", kebabPattern}}}, {"additionalProperties", structureSchema(t.Elem(), phase)}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return valueSchema(t.Elem(), tag, phase)
	case reflect.Struct:
		return structureSchema(t, phase)
	case reflect.Slice:
		item := valueSchema(t.Elem(), tag, phase)
		many := object{{"type", "array"}, {"items", item}}
		low, high := bound(tag, "least", strconv.Atoi), bound(tag, "most", strconv.Atoi)
		if low == nil && (tag.Get("required") == "true" || tag.Get("ref") != "" || phase == Break && t.Elem() == stepType) {
			low = new(1)
		}
		if low != nil {
			many = append(many, member{"minItems", *low})
		}
		if high != nil {
			many = append(many, member{"maxItems", *high})
		}
		if tag.Get("ref") != "" {
			many = append(many, member{"uniqueItems", true})
		}
		if t.Name() != "" {
			return object{{"anyOf", []object{item, many}}}
		}
		return many
	case reflect.Map:
		o := object{{"type", "object"}, {"additionalProperties", valueSchema(t.Elem(), tag, phase)}}
		if tag.Get("required") == "true" {
			o = append(o, member{"minProperties", 1})
		}
		if keys := tag.Get("keys"); keys != "" {
			o = append(o, member{"propertyNames", textSchema("", keys)})
		}
		return o
	case reflect.Interface:
		return object{} // free YAML
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.String:
		return textSchema(tag, "")
	}
	o := object{{"type", "integer"}}
	if t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64 {
		o = object{{"type", "number"}}
	}
	if low := bound(tag, "min", parseNumber); low != nil {
		o = append(o, member{"minimum", *low})
	}
	if high := bound(tag, "max", parseNumber); high != nil {
		o = append(o, member{"maximum", *high})
	}
	return o
}

// textSchema describes a text by its tag; ref is what it refers to when the tag does not say.
func textSchema(tag reflect.StructTag, ref string) object {
	o := object{{"type", "string"}}
	if enum := tag.Get("enum"); enum != "" {
		return append(o, member{"enum", strings.Split(enum, ",")})
	}
	if form, named := nameForms[tag.Get("name")]; named {
		return append(o, member{"pattern", form.pattern.String()}, member{"maxLength", form.most})
	}
	if named := tag.Get("ref"); named != "" {
		ref = named
	}
	switch ref {
	case "cluster":
		form := nameForms["cluster"]
		return append(o, member{"pattern", form.pattern.String()}, member{"maxLength", form.most}, member{"examples", []string{"cluster-a", "cluster-b"}})
	case "app":
		return append(o, member{"pattern", appPattern}, member{"examples", []string{"client@cluster-a", "echo@cluster-b"}})
	case "app-or-service":
		return append(o, member{"pattern", servicePattern}, member{"examples", []string{"echo@cluster-b", "echo"}})
	case "service":
		return append(o, member{"pattern", labelPattern})
	case "namespace":
		return append(o, member{"pattern", namespacePattern})
	case "stream":
		return append(o, member{"pattern", kebabPattern})
	}
	if tag.Get("required") == "true" {
		return append(o, member{"minLength", 1})
	}
	return o
}
