package strict

import (
	"reflect"
	"regexp"

	"go.yaml.in/yaml/v4"
)

// Format is one kind of file.
type Format struct {
	Name   string // what messages call such a file: "scenario"
	Fields string // for a file that holds something else: "fields such as scenario:, title: and topology:"
	File   string // the usual name of such a file: "scenario.yaml"
	Begin  string // what to do about an empty file
	Shrink string // what to do about a file that is too large

	Forms map[string]Form       // what the tag name may ask for
	Refs  map[string]Form       // what the tags ref and keys may ask for
	Types map[reflect.Type]Type // types that have a notation of their own
}

// Form is how names of one kind are written.
type Form struct {
	Pattern  *regexp.Regexp
	Most     int      // characters; any number if 0
	What     string   // "a cluster's name"; empty for a Ref whose names are looked up without a check of their form
	Wanted   string   // the pattern in words
	Examples []string // editors propose them
}

// fits reports whether the name has the form.
func (f Form) fits(name string) bool {
	return f.Pattern.MatchString(name) && (f.Most == 0 || len(name) <= f.Most)
}

// Type is a type that has a notation of its own.
type Type struct {
	// Read sets v to what the node says, or reports what is wrong with the node.
	Read func(n *yaml.Node, v reflect.Value, at Spot)
	// Schema describes what Read accepts.
	Schema func(at Spot) Object
}

// Spot is a place inside the structure of a file: the fields that lead there and their tags.
type Spot struct {
	path  string
	key   *yaml.Node // whose value is read; nil for an item of a list, and at the top
	tag   reflect.StructTag
	outer *Spot
}

// In is the value of a key.
func (s Spot) In(key *yaml.Node) Spot { return s.in(key, "") }

func (s Spot) in(key *yaml.Node, tag reflect.StructTag) Spot {
	path := key.Value
	if s.path != "" {
		path = s.path + ": " + path
	}
	return Spot{path, key, tag, &s}
}

// item is an item of a list. The tags of the list speak of each of its items.
func (s Spot) item() Spot { return Spot{s.path, nil, s.tag, s.outer} }

// Tag returns a tag of the field, or of the nearest field around it that has the tag.
func (s Spot) Tag(name string) string {
	for at := &s; at != nil; at = at.outer {
		if value := at.tag.Get(name); value != "" {
			return value
		}
	}
	return ""
}

// say puts the path in front of what is said.
func (s Spot) say(what string) string {
	if s.path == "" {
		return what
	}
	return s.path + ": " + what
}

// at is the node that speaks for the whole spot. What is missing in a mapping is reported at the mapping's key: the place
// of its first field says less.
func (s Spot) at(n *yaml.Node) *yaml.Node {
	if s.key != nil {
		return s.key
	}
	return n
}
