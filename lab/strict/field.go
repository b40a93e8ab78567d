package strict

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// field is one field of a struct that a file may have.
type field struct {
	index    []int // for FieldByIndex
	name     string
	tag      reflect.StructTag
	typ      reflect.Type
	outer    reflect.Type // the struct that declares it
	required bool
}

// fieldsOf returns the fields of a struct, those of embedded structs without a tag among them.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		outer := t
		if last := len(f.Index) - 1; last > 0 {
			outer = t.FieldByIndex(f.Index[:last]).Type
		}
		fields = append(fields, field{f.Index, name, f.Tag, f.Type, outer, f.Tag.Get("required") == "true"})
	}
	return fields
}

// namesOf returns the names of a struct's fields.
func namesOf(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t) {
		names = append(names, f.name)
	}
	return names
}

// doc says what the field is.
func (f field) doc() string {
	if doc := f.tag.Get("doc"); doc != "" {
		return doc
	}
	if described, ok := reflect.Zero(f.outer).Interface().(interface{ FieldDocs() map[string]string }); ok {
		return described.FieldDocs()[f.name]
	}
	return ""
}

// summary is the beginning of doc: what is said before the details.
func (f field) summary() string {
	doc := strings.TrimSuffix(f.doc(), ".")
	for _, end := range []string{". ", ": ", "; "} {
		doc, _, _ = strings.Cut(doc, end)
	}
	return doc
}

// shape is advice for a node that stands where the fields of a struct should: how to write what may be meant.
func (r *Reader) shape(n *yaml.Node, t reflect.Type, s Spot) string {
	put := func(text string) string {
		if s.key == nil {
			return text
		}
		return s.key.Value + ": " + text
	}
	var required []field
	for _, f := range fieldsOf(t) {
		if f.required {
			required = append(required, f)
		}
		// A word that only one field has.
		enum := f.tag.Get("enum")
		if enum == "" || n.Kind != yaml.ScalarNode {
			continue
		}
		if like := words.Near(n.Value, strings.Split(enum, ",")); like != "" {
			return put(fmt.Sprintf("{%s: %s}", f.name, like))
		}
	}
	if len(required) == 1 && takes(required[0].typ, n) {
		return put(fmt.Sprintf("{%s: %s}", required[0].name, flow(n)))
	}
	if len(required) == 0 {
		return ""
	}
	text := "- " // an item of a list
	if s.key != nil {
		text = s.key.Value + ":\n  "
	}
	lines := make([]string, len(required))
	for i, f := range required {
		lines[i] = fmt.Sprintf("%s: %s  # %s", f.name, r.format.example(f), f.summary())
	}
	return text + strings.Join(lines, "\n  ")
}

// takes reports whether a node looks like a value of the type.
func takes(t reflect.Type, n *yaml.Node) bool {
	switch {
	case t.Kind() == reflect.Slice:
		return n.Kind == yaml.SequenceNode || n.Kind == yaml.ScalarNode && t.Name() != "" && !isNull(n)
	case t.Kind() == reflect.Map, t.Kind() == reflect.Struct && !isText(t):
		return false
	}
	return n.Kind == yaml.ScalarNode && !isNull(n)
}

// flow writes a node on one line, roughly: what is long or deep is left out.
func flow(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && len(n.Value) <= 60 && !strings.Contains(n.Value, "\n") {
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 || strings.ContainsAny(n.Value, "#{}[],") ||
			n.Value != "" && strings.Contains("&*!|>'\"%@`?:-", n.Value[:1]) {
			return Quote(n.Value)
		}
		return n.Value
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > 5 {
		return "[ … ]"
	}
	items := make([]string, len(n.Content))
	for i, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "[ … ]"
		}
		items[i] = flow(item)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// Example is a struct as a file may have it, on one line, with what is required: "{in: cluster-a}".
func (f *Format) Example(t reflect.Type) string {
	var fields []string
	for _, one := range fieldsOf(t) {
		if one.required {
			fields = append(fields, one.name+": "+f.example(one))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// example is a value that a field may have.
func (f *Format) example(one field) string {
	if example := one.tag.Get("example"); example != "" {
		return example
	}
	if enum := one.tag.Get("enum"); enum != "" {
		first, _, _ := strings.Cut(enum, ",")
		return first
	}
	if form, ok := f.Refs[one.tag.Get("ref")]; ok && len(form.Examples) > 0 {
		return form.Examples[0]
	}
	t := one.typ
	for t.Kind() == reflect.Pointer && t != regexpType {
		t = t.Elem()
	}
	switch {
	case t == durationType, t == timeType:
		return "30s"
	case t == regexpType, isText(t):
		return "…"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "[ … ]"
	case reflect.Map, reflect.Struct, reflect.Interface:
		return "{ … }"
	case reflect.Bool:
		return "true"
	case reflect.String:
		return "…"
	}
	if least := one.tag.Get("min"); least != "" {
		return least
	}
	return "1"
}
