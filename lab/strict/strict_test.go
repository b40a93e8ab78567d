package strict

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// A menu has every kind of field once.
type menu struct {
	Name    string            `yaml:"name" required:"true" name:"kebab" doc:"The menu's name."`
	Day     string            `yaml:"day" enum:"monday,friday" doc:"When it is served."`
	Chef    string            `yaml:"chef" ref:"person" doc:"Who cooks."`
	Price   float64           `yaml:"price" min:"1" max:"99.5" doc:"What it costs."`
	Seats   *uint8            `yaml:"seats" min:"1" doc:"For how many."`
	Delta   int               `yaml:"delta" doc:"More or less."`
	Vegan   bool              `yaml:"vegan" doc:"Without animals."`
	Takes   Duration          `yaml:"takes" min:"1m" max:"2h" doc:"How long it takes."`
	Rests   time.Duration     `yaml:"rests" doc:"How long it rests."`
	Share   Percent           `yaml:"share" doc:"Of all guests."`
	Like    *regexp.Regexp    `yaml:"like" doc:"What guests say."`
	Table   table             `yaml:"table" ref:"table" doc:"Where."`
	Courses []course          `yaml:"courses" least:"1" most:"3" doc:"One after the other."`
	With    people            `yaml:"with" ref:"person" doc:"Who helps."`
	Prices  map[string]int    `yaml:"prices" keys:"person" min:"2" doc:"Other prices."`
	Notes   map[string]string `yaml:"notes" doc:"Anything else."`
	Free    any               `yaml:"free" doc:"Free YAML."`
	extra
	Place  Place  `yaml:"-"`
	hidden string //nolint:unused // a file cannot set it
}

type extra struct {
	More string `yaml:"more" doc:"A field of an embedded struct."`
}

type people []string

// A table is written 3-window.
type table struct{ number, side string }

func (t *table) UnmarshalText(text []byte) error {
	var ok bool
	if t.number, t.side, ok = strings.Cut(string(text), "-"); !ok {
		return Problem{What: "not a table", Wanted: "a number and a side", Try: "3-window"}
	}
	if t.side == "moon" {
		return errors.New("there is no such side")
	}
	return nil
}

type course struct {
	Dish string `yaml:"dish" required:"true" example:"soup"`
	Hot  *bool  `yaml:"hot"`
}

func (course) FieldDocs() map[string]string {
	return map[string]string{"dish": "What is served: soup, say.", "hot": "Whether it is hot."}
}

func (c course) Validate() error {
	if c.Dish == "ice" && c.Hot != nil && *c.Hot {
		return errors.Join(
			At("hot", errors.New("ice is cold")),
			At("hot.very.9", Problem{What: "it melts", Try: "a bowl"}),
			errors.New("nobody eats that"),
		)
	}
	return nil
}

var menus = Format{
	Name: "menu", Fields: "fields such as name:", File: "menu.yaml", Begin: "ask the chef", Shrink: "leave courses out",
	Forms: map[string]Form{"kebab": {Pattern: regexp.MustCompile(`^[a-z-]+$`), Most: 10, What: "a name", Wanted: "small letters"}},
	Refs: map[string]Form{
		"person": {Pattern: regexp.MustCompile(`^[A-Z][a-z]+$`), What: "a person", Wanted: "a name like Ann", Examples: []string{"Ann"}},
		"table":  {Wanted: "a table, like 3-window"},
	},
}

func read(text string) (menu, error) {
	var m menu
	r := NewReader("m.yaml", &menus)
	r.Ref = func(kind, name string) *Problem {
		if kind == "person" && name != "Ann" && name != "Bob" {
			p := Unknown(kind, name, []string{"Ann", "Bob"})
			return &p
		}
		return nil
	}
	if root := r.Document([]byte(text)); root != nil {
		r.Decode(root, &m, nil)
	}
	return m, r.Err()
}

func TestGoodFile(t *testing.T) {
	m, err := read(`
name: noon
day: friday
chef: Ann
price: 9.5
seats: 8
delta: -3
vegan: true
takes: 1h30m
rests: 5m
share: 12.5
like: ^good
table: 3-window
courses: [{dish: soup, hot: true}, {dish: ice}]
with: Bob
prices: {Ann: 5}
notes: {a: b}
free: {a: [1, 1.5, x, true, ~, 0x10]}
more: m
`)
	require.NoError(t, err)
	seats, hot := uint8(8), true
	like := m.Like
	require.Equal(t, "^good", like.String())
	m.Like = nil
	assert.Equal(t, menu{
		Name: "noon", Day: "friday", Chef: "Ann", Price: 9.5, Seats: &seats, Delta: -3, Vegan: true, Takes: Duration(90 * time.Minute),
		Rests: 5 * time.Minute,
		Share: 12.5, Table: table{"3", "window"}, Courses: []course{{"soup", &hot}, {"ice", nil}}, With: people{"Bob"},
		Prices: map[string]int{"Ann": 5},
		Notes:  map[string]string{"a": "b"}, Free: map[string]any{"a": []any{int64(1), 1.5, "x", true, nil, int64(16)}}, extra: extra{"m"},
		Place: Place{"m.yaml", 2, 1},
	}, m)
}

// Every problem of a file at once, with its place and what to do.
func TestBadFile(t *testing.T) {
	_, err := read(`nam: noon
day: fryday
chef: Eve
price: 100
seats: 300
delta: 1e3
vegan: yes
takes: 5
rests: soon
share: 7%
like: "("
table: 3-moon
courses: [soup, {dish: ice, hot: true}, {}, {dish: a}]
with: [Ann, Ann, bob]
prices: {Eve: 1, Ann: 1}
notes: [a]
free: {a: .nan, a: 1}
more: 7
`)
	require.EqualError(t, err, `m.yaml:1:1: unknown field "nam"
  wanted  name, day, chef, price, seats, delta, vegan, takes, rests, share, like, table … (18 in all)
  try     did you mean name?
m.yaml:2:6: day: unknown value "fryday"
  wanted  monday or friday
  try     did you mean friday?
m.yaml:3:7: chef: unknown person "Eve"
  wanted  Ann or Bob
m.yaml:4:8: price: out of range
  wanted  1 to 99.5
  seen    100
m.yaml:5:8: seats: out of range
  wanted  0 to 255
  seen    300
m.yaml:6:8: delta: wrong type
  wanted  a whole number in decimal digits
  seen    the number 1e3
m.yaml:7:8: vegan: wrong type
  wanted  true or false
  seen    the text "yes"
m.yaml:8:8: takes: a duration without a unit
  wanted  a time with its unit, more than zero, like 50ms, 30s or 1m30s
  seen    5
  try     5s or 5ms
m.yaml:9:8: rests: not a duration
  wanted  a time with its unit, more than zero, like 50ms, 30s or 1m30s
  seen    "soon"
m.yaml:10:8: share: a percentage is a plain number
  wanted  a number from 0 to 100
  seen    "7%"
  try     7
m.yaml:11:7: like: not a regular expression
  wanted  a regular expression (Go's syntax)
  seen    missing closing ): `+"`(`"+`
  try     put \ before a character that is meant as it is, and the whole into '…'
m.yaml:12:8: table: there is no such side
  seen    "3-moon"
m.yaml:13:11: courses: wrong type
  wanted  fields: dish, hot
  seen    the text "soup"
  try     {dish: soup}
m.yaml:13:17: courses: nobody eats that
m.yaml:13:29: courses: hot: ice is cold
m.yaml:13:29: courses: hot: it melts
  try     a bowl
m.yaml:13:41: courses: dish is missing
  wanted  What is served: soup, say
  try     add dish:
m.yaml:13:45: courses: too many
  wanted  at most 3
  seen    4
m.yaml:14:13: with: "Ann" twice
  wanted  each once
  try     remove one
m.yaml:14:18: with: not a person
  wanted  a name like Ann
  seen    "bob"
m.yaml:15:10: prices: unknown person "Eve"
  wanted  Ann or Bob
m.yaml:15:23: prices: Ann: out of range
  wanted  at least 2
  seen    1
m.yaml:16:8: notes: wrong type
  wanted  names with their values
  seen    a list
m.yaml:17:11: free: a: wrong type
  wanted  a finite number
  seen    the number .nan
m.yaml:17:17: free: "a" twice
  wanted  each field once
  seen    the first at line 17
  try     remove one, or make one field of both
m.yaml:18:7: more: wrong type
  wanted  text
  seen    the number 7
  try     put it into quotes: "7"`)
}

// A struct that knows what was not read of it is validated in any case.
type patient struct {
	A      string `yaml:"a" doc:"One of two."`
	B      string `yaml:"b" doc:"The other."`
	Items  []int  `yaml:"items" doc:"Items."`
	unread bool
}

func (p *patient) Unread() { p.unread = true }

func (p patient) Validate() error {
	var errs []error
	if p.A == "" && p.B == "" && !p.unread {
		errs = append(errs, errors.New("neither a nor b"))
	}
	if len(p.Items) > 1 {
		errs = append(errs, At("items.1", errors.New("one is enough")))
	}
	return errors.Join(errs...)
}

func TestUnread(t *testing.T) {
	for text, want := range map[string]string{
		"items: [1]":       "m.yaml:1:1: neither a nor b",
		"items: [1, 2]":    "m.yaml:1:1: neither a nor b\nm.yaml:1:12: items: one is enough",
		"a: x\nitems: [3]": "",
	} {
		err := Read("m.yaml", []byte(text), &menus, new(patient))
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, want)
	}
	err := Read("m.yaml", []byte("a: [x]\nitems: [1, 2]"), &menus, new(patient))
	require.ErrorContains(t, err, "one is enough")
	require.NotContains(t, err.Error(), "neither", "a is there, and wrong")
}

func TestListAtTheTop(t *testing.T) {
	var courses []course
	require.NoError(t, Read("m.yaml", []byte("- dish: soup\n- dish: ice\n"), &menus, &courses))
	assert.Len(t, courses, 2)
	require.EqualError(t, Read("m.yaml", []byte("- dish: &a soup\n- *a\n- dihs: x\n"), &menus, &courses), `m.yaml:1:9: the anchor &a
  wanted  plain YAML: what stands there is what is meant
  try     remove it, and write the value out where it is used
m.yaml:2:3: the alias *a
  wanted  plain YAML: what stands there is what is meant
  try     write the value out
m.yaml:3:3: unknown field "dihs"
  wanted  dish or hot
  try     did you mean dish?`)
	require.ErrorContains(
		t,
		Read("m.yaml", []byte("- a"), &menus, new(menu)),
		"m.yaml:1:1: not a menu\n  wanted  fields such as name:\n  seen    a list\n  try     ask the chef",
	)
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	_, err := menus.ReadFile(filepath.Join(dir, "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = menus.ReadFile(dir)
	require.ErrorContains(t, err, "is not a file (a menu is a file, such as "+filepath.Join(dir, "menu.yaml"))
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err = menus.ReadFile(pipe)
	require.ErrorContains(t, err, "is not a file", "and nobody waits for a writer")
	large := filepath.Join(dir, "large.yaml")
	require.NoError(t, os.WriteFile(large, make([]byte, MaxSize+1), 0o644))
	_, err = menus.ReadFile(large)
	var problems *Problems
	require.ErrorAs(t, err, &problems)
	require.EqualError(
		t,
		err,
		large+":1:1: the file is too large\n  wanted  at most 1048576 bytes\n  seen    1048577 bytes\n  try     leave courses out",
	)
}

func TestTexts(t *testing.T) {
	assert.Equal(t, "f:1:2", Place{"f", 1, 2}.String())
	assert.Equal(t, "f:1", Place{File: "f", Line: 1}.String())
	assert.Equal(t, "f", Place{File: "f"}.String())
	for d, want := range map[time.Duration]string{time.Minute: "1m", time.Hour: "1h", 90 * time.Second: "1m30s",
		50 * time.Millisecond: "50ms", 20 * time.Minute: "20m"} {
		assert.Equal(t, want, Duration(d).String())
		again, err := time.ParseDuration(want)
		require.NoError(t, err)
		assert.Equal(t, d, again)
	}
	assert.Equal(t, "99.9 %", Percent(99.9).String())
	assert.Equal(t, "nothing", Choice(nil))
	assert.Equal(t, "w\n  try     a\n          b", Problem{What: "w", Try: "a\nb"}.String(), "lines of one part stand below each other")
	assert.Equal(t, `"`+strings.Repeat("é", 60)+`"…`, Quote(strings.Repeat("é", 99)))
}

func TestExample(t *testing.T) {
	type all struct {
		A string    `yaml:"a" required:"true" ref:"person"`
		B Duration  `yaml:"b" required:"true"`
		C []course  `yaml:"c" required:"true"`
		D course    `yaml:"d" required:"true"`
		E *int      `yaml:"e" required:"true" min:"7"`
		F bool      `yaml:"f" required:"true"`
		G table     `yaml:"g" required:"true"`
		H string    `yaml:"h" required:"true" enum:"x,y"`
		I string    `yaml:"i"`
		J [2]string `yaml:"-"`
	}
	assert.Equal(t, "{a: Ann, b: 30s, c: [ … ], d: { … }, e: 7, f: true, g: …, h: x}", menus.Example(reflect.TypeFor[all]()))
}

// Whatever stands in a file, the reader returns, and every problem has a place.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", "\xff", "name: a\ncourses: [{dish: ice, hot: true}]", "a: &a [*a]", "? {a: b}\n: c", "<<: *x", "[[[[", "takes: 1h", "like: (",
		"table: a-b", "with: ~",
		"free: {a: {b: [1, ~]}}", "a:\n\tb: c", "prices: {Ann: 5, Ann: 6}", "seats: 0x10", "price: .inf", "- a", "name: !!str x",
		"---\n---\na: b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := read(string(data))
		if err == nil {
			if m.Name == "" || m.Place.Line < 1 || m.Seats != nil && *m.Seats < 1 {
				t.Fatalf("accepted: %+v", m)
			}
			return
		}
		var problems *Problems
		if !errors.As(err, &problems) || len(problems.List) == 0 {
			t.Fatalf("not a list of problems: %v", err)
		}
		for _, p := range problems.List {
			if p.Place.File == "" || p.Place.Line < 1 || p.Place.Column < 1 || p.What == "" {
				t.Fatalf("a problem without a place: %#v", p)
			}
		}
	})
}

// A type may have a notation of its own, and knows the tags of the fields around it.
func TestTypes(t *testing.T) {
	type shout string
	type outer struct {
		Inner struct {
			Word shout `yaml:"word" doc:"d"`
		} `yaml:"inner" voice:"loud" doc:"d"`
	}
	format := menus
	format.Types = map[reflect.Type]Type{reflect.TypeFor[shout](): {
		Read: func(n *yaml.Node, v reflect.Value, at Spot) { v.SetString(at.Tag("voice") + " " + n.Value) },
		Schema: func(at Spot) Object {
			return Object{{"const", at.Tag("voice")}}
		},
	}}
	var o outer
	require.NoError(t, Read("m.yaml", []byte("inner: {word: hey}"), &format, &o))
	assert.Equal(t, shout("loud hey"), o.Inner.Word)
	schema, err := format.Schema(reflect.TypeFor[outer]()).MarshalJSON()
	require.NoError(t, err)
	assert.Contains(t, string(schema), `"word":{"description":"d","const":"loud"}`)
}
