package strict

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Check returns what is wrong with a type that files are to be read into: fields that no file can hold, that nobody has
// described, or whose tags cannot be read. The errors begin with where.
func (f *Format) Check(t reflect.Type, where string) error {
	c := checker{format: f}
	c.check(t, where, nil)
	return errors.Join(c.wrong...)
}

type checker struct {
	format *Format
	wrong  []error
}

func (c *checker) complain(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Errorf(format, args...))
}

// check walks a type. outer are the structs around it: a struct inside itself has no end.
func (c *checker) check(t reflect.Type, where string, outer []reflect.Type) {
	if _, own := c.format.Types[t]; own || t == placeType || t == regexpType || isText(t) {
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		c.check(t.Elem(), where, outer)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			c.complain("%s: a map whose keys are no texts: %s", where, t)
		}
		c.check(t.Elem(), where, outer)
	case reflect.Struct:
		if slices.Contains(outer, t) {
			c.complain("%s: %s contains itself", where, t)
			return
		}
		c.fields(t, where, append(slices.Clone(outer), t))
	case reflect.Interface:
		if t.NumMethod() > 0 {
			c.complain("%s: no file can hold %s", where, t)
		}
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	default:
		c.complain("%s: no file can hold %s", where, t)
	}
}

func (c *checker) fields(t reflect.Type, where string, outer []reflect.Type) {
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name == "" && f.IsExported() && !f.Anonymous {
			c.complain("%s: %s: no yaml tag", where, f.Name)
		}
	}
	for _, f := range fieldsOf(t) {
		inside := where + ": " + t.FieldByIndex(f.index).Name
		if strings.TrimSpace(f.doc()) == "" {
			c.complain("%s: no description", inside)
		}
		c.tags(f, inside)
		c.check(f.typ, inside, outer)
	}
}

// tags finds tags that cannot be read.
func (c *checker) tags(f field, where string) {
	for _, tag := range []string{"ref", "keys"} {
		kind := f.tag.Get(tag)
		if _, known := c.format.Refs[kind]; kind != "" && !known {
			c.complain("%s: unknown %s %q", where, tag, kind)
		}
	}
	if name := f.tag.Get("name"); name != "" {
		if _, known := c.format.Forms[name]; !known {
			c.complain("%s: unknown form of name %q", where, name)
		}
	}
	for _, tag := range []string{"least", "most"} {
		if text := f.tag.Get(tag); text != "" {
			if _, err := strconv.Atoi(text); err != nil || f.typ.Kind() != reflect.Slice {
				c.complain("%s: cannot read %s %q of a list", where, tag, text)
			}
		}
	}
	isDuration := f.typ == durationType || f.typ == timeType
	for _, tag := range []string{"min", "max"} {
		text := f.tag.Get(tag)
		_, noNumber := strconv.ParseFloat(text, 64)
		_, noDuration := time.ParseDuration(text)
		if text != "" && (isDuration && noDuration != nil || !isDuration && noNumber != nil) {
			c.complain("%s: cannot read %s %q", where, tag, text)
		}
	}
}
