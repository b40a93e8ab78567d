package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Object is a JSON object whose members keep their order.
type Object []Member

// Member is a member of an Object.
type Member struct {
	Name  string
	Value any
}

// MarshalJSON writes the members in order.
func (o Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.Name)
		if err != nil {
			return nil, err
		}
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.Value); err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(bytes.TrimSpace(value.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// SchemaFile writes a schema with its title and description, indented: always the same for the same members. It is
// draft-07, since the YAML language server that editors have in common supports nothing newer.
func SchemaFile(title, description string, members Object) ([]byte, error) {
	head := Object{{"$schema", "http://json-schema.org/draft-07/schema#"}, {"title", title}, {"description", description}}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(append(head, members...)); err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return out.Bytes(), nil
}

// Schema describes what a Reader accepts for a type. Names that are looked up are described by their form alone.
func (f *Format) Schema(t reflect.Type) Object { return f.schema(t, Spot{}) }

// schema describes a type at a spot, whose tag speaks of each value in it.
func (f *Format) schema(t reflect.Type, s Spot) Object {
	if own, has := f.Types[t]; has {
		return own.Schema(s)
	}
	switch {
	case t == durationType, t == timeType:
		return Object{{"type", "string"}, {"pattern", durationPattern}, {"examples", []string{"50ms", "30s", "1m30s"}}}
	case t == percentType:
		return Object{{"type", "number"}, {"minimum", 0}, {"maximum", 100}}
	case t == regexpType:
		return Object{{"type", "string"}, {"format", "regex"}}
	case isText(t):
		return f.textSchema(s.tag)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return f.schema(t.Elem(), s)
	case reflect.Struct:
		return f.StructSchema(t, s)
	case reflect.Slice:
		return f.listSchema(t, s)
	case reflect.Map:
		o := Object{{"type", "object"}, {"additionalProperties", f.schema(t.Elem(), s)}}
		if s.tag.Get("required") == "true" {
			o = append(o, Member{"minProperties", 1})
		}
		if keys := s.tag.Get("keys"); keys != "" {
			o = append(o, Member{"propertyNames", f.formSchema(f.Refs[keys])})
		}
		return o
	case reflect.Interface:
		return Object{} // free YAML
	case reflect.Bool:
		return Object{{"type", "boolean"}}
	case reflect.String:
		return f.textSchema(s.tag)
	}
	return numberSchema(t, s.tag)
}

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`

// StructSchema describes a struct. A struct with a method SchemaRules adds what Validate finds out about it.
func (f *Format) StructSchema(t reflect.Type, s Spot) Object {
	properties := Object{}
	required := []string{}
	for _, one := range fieldsOf(t) {
		value := f.schema(one.typ, Spot{tag: one.tag, outer: &s})
		properties = append(properties, Member{one.name, append(Object{{"description", one.doc()}}, value...)})
		if one.required {
			required = append(required, one.name)
		}
	}
	o := Object{{"type", "object"}, {"additionalProperties", false}, {"properties", properties}}
	if len(required) > 0 {
		o = append(o, Member{"required", required})
	}
	if ruled, ok := reflect.Zero(t).Interface().(interface{ SchemaRules() Object }); ok {
		o = append(o, ruled.SchemaRules()...)
	}
	return o
}

// ArgumentsSchema is the schema of what Reader.Arguments reads: nothing is enough where nothing is required.
func (f *Format) ArgumentsSchema(t reflect.Type) Object {
	o := f.Schema(t)
	if t.Kind() != reflect.Struct || isText(t) {
		return o
	}
	for _, one := range fieldsOf(t) {
		if one.required {
			return o
		}
	}
	for i := range o {
		if o[i].Name == "type" {
			o[i].Value = []string{"object", "null"}
		}
	}
	return o
}

func (f *Format) listSchema(t reflect.Type, s Spot) Object {
	item := f.schema(t.Elem(), s)
	many := Object{{"type", "array"}, {"items", item}}
	low, high := bound(s.tag, "least", strconv.Atoi), bound(s.tag, "most", strconv.Atoi)
	ref := s.tag.Get("ref") != ""
	switch {
	case low != nil && *low > 0:
		many = append(many, Member{"minItems", *low})
	case low == nil && (ref || s.tag.Get("required") == "true"):
		many = append(many, Member{"minItems", 1})
	}
	if high != nil {
		many = append(many, Member{"maxItems", *high})
	}
	if ref {
		many = append(many, Member{"uniqueItems", true})
	}
	if t.Name() != "" {
		return Object{{"anyOf", []Object{item, many}}}
	}
	return many
}

func numberSchema(t reflect.Type, tag reflect.StructTag) Object {
	o := Object{{"type", "integer"}}
	if t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64 {
		o = Object{{"type", "number"}}
	}
	if low := bound(tag, "min", parseNumber); low != nil {
		o = append(o, Member{"minimum", *low})
	}
	if high := bound(tag, "max", parseNumber); high != nil {
		o = append(o, Member{"maximum", *high})
	}
	return o
}

// textSchema describes a text by the tags of its field.
func (f *Format) textSchema(tag reflect.StructTag) Object {
	if enum := tag.Get("enum"); enum != "" {
		return Object{{"type", "string"}, {"enum", strings.Split(enum, ",")}}
	}
	if form, named := f.Forms[tag.Get("name")]; named {
		return f.formSchema(form)
	}
	if form, ref := f.Refs[tag.Get("ref")]; ref && form.Pattern != nil {
		return f.formSchema(form)
	}
	if tag.Get("required") == "true" {
		return Object{{"type", "string"}, {"minLength", 1}}
	}
	return Object{{"type", "string"}}
}

func (f *Format) formSchema(form Form) Object {
	o := Object{{"type", "string"}, {"pattern", form.Pattern.String()}}
	if form.Most > 0 {
		o = append(o, Member{"maxLength", form.Most})
	}
	if len(form.Examples) > 0 {
		o = append(o, Member{"examples", form.Examples})
	}
	return o
}
