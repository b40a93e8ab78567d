package strict

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

func (r *Reader) scalar(n *yaml.Node, v reflect.Value, s Spot) {
	switch k := v.Kind(); {
	case k == reflect.String:
		wanted := "text"
		if enum := s.tag.Get("enum"); enum != "" {
			wanted = Choice(strings.Split(enum, ","))
		}
		if text, ok := r.isText(n, s, wanted); ok {
			v.SetString(text)
			r.checkText(n, s)
		}
	case k == reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			r.WrongType(n, s, "true or false", "")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case v.CanInt(), v.CanUint():
		r.integer(n, v, s)
	case v.CanFloat():
		f, ok := number(n)
		if !ok {
			r.WrongType(n, s, "a number", "")
			return
		}
		v.SetFloat(f)
		r.checkBounds(n, f, s)
	default:
		r.Report(n, s, Problem{What: fmt.Sprintf("no file can hold the type of this field: %s", v.Type())})
	}
}

// isText returns a node that is text, and reports one that is not.
func (r *Reader) isText(n *yaml.Node, s Spot, wanted string) (string, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n.Value, true
	}
	try := ""
	choice := s.tag.Get("enum") != "" || s.tag.Get("ref") != ""
	if n.Kind == yaml.ScalarNode && !isNull(n) && !choice { // a text that YAML takes for something else
		try = "put it into quotes: " + Quote(n.Value)
	}
	r.WrongType(n, s, wanted, try)
	return "", false
}

func (r *Reader) integer(n *yaml.Node, v reflect.Value, s Spot) {
	f, ok := number(n)
	low, high := 0.0, math.Pow(2, float64(v.Type().Bits()))-1
	if v.CanInt() {
		low, high = -math.Pow(2, float64(v.Type().Bits()-1)), math.Pow(2, float64(v.Type().Bits()-1))-1
	}
	var err error
	switch {
	case !ok || f != math.Trunc(f):
		r.WrongType(n, s, "a whole number", "")
		return
	case f < low || f > high:
		r.Report(n, s, Problem{What: "out of range", Wanted: fmt.Sprintf("%.0f to %.0f", low, high), Seen: n.Value})
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
	if err != nil { // 1e3 or 0x10: a whole number, but not as people count
		r.WrongType(n, s, "a whole number in decimal digits", "")
		return
	}
	r.checkBounds(n, f, s)
}

// number reads a finite number.
func number(n *yaml.Node) (float64, bool) {
	if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func (r *Reader) duration(n *yaml.Node, v reflect.Value, s Spot) {
	const wanted = "a time with its unit, more than zero, like 50ms, 30s or 1m30s"
	if f, ok := number(n); ok && f > 0 {
		r.Report(n, s, Problem{What: "a duration without a unit", Wanted: wanted, Seen: n.Value, Try: fmt.Sprintf("%ss or %[1]sms", n.Value)})
		return
	}
	if n.Kind != yaml.ScalarNode || isNull(n) {
		r.WrongType(n, s, wanted, "")
		return
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || d <= 0 {
		r.Report(n, s, Problem{What: "not a duration", Wanted: wanted, Seen: Quote(n.Value)})
		return
	}
	low, high := bound(s.tag, "min", time.ParseDuration), bound(s.tag, "max", time.ParseDuration)
	if low != nil && d < *low || high != nil && d > *high {
		r.Report(n, s, Problem{What: "out of range", Wanted: bounds(s.tag), Seen: n.Value})
		return
	}
	v.SetInt(int64(d))
}

func (r *Reader) percent(n *yaml.Node, v reflect.Value, s Spot) {
	const wanted = "percent: a number from 0 to 100"
	f, ok := number(n)
	switch {
	case ok && f >= 0 && f <= 100:
		v.SetFloat(f)
	case n.Kind == yaml.ScalarNode && strings.HasSuffix(n.Value, "%"):
		r.Report(n, s, Problem{What: "a percentage is a plain number", Wanted: "a number from 0 to 100", Seen: Quote(n.Value),
			Try: strings.TrimSpace(strings.TrimSuffix(n.Value, "%"))})
	case ok:
		r.Report(n, s, Problem{What: "out of range", Wanted: wanted, Seen: n.Value})
	default:
		r.WrongType(n, s, wanted, "")
	}
}

func (r *Reader) pattern(n *yaml.Node, v reflect.Value, s Spot) {
	const wanted = "a regular expression (Go's syntax)"
	text, ok := r.isText(n, s, wanted)
	if !ok {
		return
	}
	compiled, err := regexp.Compile(text)
	switch {
	case err != nil:
		r.Report(n, s, Problem{What: "not a regular expression", Wanted: wanted, Seen: strings.TrimPrefix(err.Error(), "error parsing regexp: "),
			Try: `put \ before a character that is meant as it is, and the whole into '…'`})
	default:
		v.Set(reflect.ValueOf(compiled))
	}
}

// ownText reads a type that reads itself from text.
func (r *Reader) ownText(n *yaml.Node, v reflect.Value, s Spot) {
	wanted := "text"
	if form, ok := r.format.Refs[s.tag.Get("ref")]; ok && form.Wanted != "" {
		wanted = form.Wanted
	}
	text, ok := r.isText(n, s, wanted)
	if !ok || !r.checkText(n, s) {
		return
	}
	fresh := reflect.New(v.Type())
	reader, ok := fresh.Interface().(encoding.TextUnmarshaler)
	if !ok {
		return // Value has asked
	}
	if err := reader.UnmarshalText([]byte(text)); err != nil {
		p := Problem{What: err.Error(), Seen: Quote(text)}
		errors.As(err, &p)
		r.Report(n, s, p)
		return
	}
	v.Set(fresh.Elem())
}

// free reads any YAML: maps, lists, texts, numbers and booleans.
func (r *Reader) free(n *yaml.Node, s Spot) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for _, f := range r.Fields(n, s) {
			m[f.Key.Value] = r.free(f.Value, s.In(f.Key))
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, r.free(item, s))
		}
		return list
	case yaml.ScalarNode:
		return r.freeScalar(n, s)
	}
	return nil
}

func (r *Reader) freeScalar(n *yaml.Node, s Spot) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return i
		}
		r.WrongType(n, s, "a whole number of 64 bits", "")
		return nil
	case "!!float":
		if f, ok := number(n); ok {
			return f
		}
		r.WrongType(n, s, "a finite number", "")
		return nil
	}
	return n.Value
}

// checkLength reports a list that is shorter or longer than its tags allow.
func (r *Reader) checkLength(n *yaml.Node, items []*yaml.Node, s Spot) {
	low, high := bound(s.tag, "least", strconv.Atoi), bound(s.tag, "most", strconv.Atoi)
	switch {
	case low != nil && len(items) < *low:
		r.Report(n, s, Problem{What: "too few", Wanted: fmt.Sprintf("at least %d", *low), Seen: strconv.Itoa(len(items))})
	case high != nil && len(items) > *high:
		r.Report(items[*high], s, Problem{What: "too many", Wanted: fmt.Sprintf("at most %d", *high), Seen: strconv.Itoa(len(items))})
	}
}

// checkBounds reports a number outside of what its tags allow.
func (r *Reader) checkBounds(n *yaml.Node, f float64, s Spot) {
	low, high := bound(s.tag, "min", parseNumber), bound(s.tag, "max", parseNumber)
	if low != nil && f < *low || high != nil && f > *high {
		r.Report(n, s, Problem{What: "out of range", Wanted: bounds(s.tag), Seen: n.Value})
	}
}

// checkText applies the tags that are about texts: enum, name and ref.
func (r *Reader) checkText(n *yaml.Node, s Spot) bool {
	if enum := s.tag.Get("enum"); enum != "" {
		if all := strings.Split(enum, ","); !slices.Contains(all, n.Value) {
			r.Report(n, s, Unknown("value", n.Value, all))
			return false
		}
	}
	ok := true
	if form, named := r.format.Forms[s.tag.Get("name")]; named && !form.fits(n.Value) {
		r.Report(n, s, Problem{What: "not " + form.What, Wanted: form.Wanted, Seen: Quote(n.Value)})
		ok = false
	}
	if ref := s.tag.Get("ref"); ref != "" {
		ok = r.checkRef(n, ref, s) && ok
	}
	return ok
}

// checkRef looks a name up, and reports what is wrong with it.
func (r *Reader) checkRef(n *yaml.Node, kind string, s Spot) bool {
	form, known := r.format.Refs[kind]
	switch {
	case !known:
		r.Report(n, s, Problem{What: "there is no such kind of name: " + kind})
		return false
	case form.What != "" && !form.fits(n.Value):
		r.Report(n, s, Problem{What: "not " + form.What, Wanted: form.Wanted, Seen: Quote(n.Value)})
		return false
	case r.Ref == nil:
		return true
	}
	p := r.Ref(kind, n.Value)
	if p == nil {
		return true
	}
	r.Report(n, s, *p)
	return false
}

func parseNumber(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

// bound reads a tag that bounds a value. It returns nil if there is none.
func bound[T any](tag reflect.StructTag, name string, read func(string) (T, error)) *T {
	value, err := read(tag.Get(name))
	if err != nil {
		return nil // Format.Check finds a bound that cannot be read
	}
	return &value
}

// bounds says in words what the tags min and max allow.
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
