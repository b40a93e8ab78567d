package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// Place is where something stands in a file. Lines and columns count from 1, columns in characters.
type Place struct {
	File         string
	Line, Column int
}

// String returns "file:line:column", or as much of it as is known.
func (p Place) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing that is wrong with a file. It may be the error of a Validate method, which leaves out Place: the
// reader fills in the place of the struct, or of the field that At names.
type Problem struct {
	Place  Place
	What   string // the path to the field, then what is wrong: "break: sever: unknown cluster"
	Wanted string // what may stand there
	Seen   string // what stands there
	Try    string // what to do about it; it may have several lines
}

// String returns a line for the place and the problem, and below it one for each of wanted, seen and try.
func (p Problem) String() string {
	var b strings.Builder
	if p.Place != (Place{}) {
		fmt.Fprintf(&b, "%s: ", p.Place)
	}
	b.WriteString(p.What)
	for _, part := range [][2]string{{"wanted", p.Wanted}, {"seen", p.Seen}, {"try", p.Try}} {
		if part[1] != "" {
			fmt.Fprintf(&b, "\n  %-7s %s", part[0], strings.ReplaceAll(part[1], "\n", "\n          "))
		}
	}
	return b.String()
}

func (p Problem) Error() string { return p.String() }

// Problems is everything that is wrong with a file, sorted by place.
type Problems struct{ List []Problem }

// shown bounds the text of the error: a file with more problems than this is not what it is taken for.
const shown = 50

func (p *Problems) Error() string {
	var b strings.Builder
	for i, one := range p.List {
		if i == shown {
			fmt.Fprintf(&b, "\nand %d more problems", len(p.List)-shown)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.String())
	}
	return b.String()
}

func (p *Problems) sort() {
	slices.SortStableFunc(p.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
}

// At gives an error of a Validate method the place of a field. The field may be a path, with the indexes of lists
// counting from 0: "clusters.2.primary". If the file lacks a part of the path, the place is that of the part before it.
func At(field string, err error) error { return &fieldError{field, err} }

type fieldError struct {
	field string
	error
}

func (e *fieldError) Unwrap() error { return e.error }

// Unknown is the problem of a name that is none of the known ones. It proposes the one that is most like it.
func Unknown(kind, name string, known []string) Problem {
	return Problem{What: fmt.Sprintf("unknown %s %s", kind, Quote(name)), Wanted: Choice(known), Try: DidYouMean(name, known)}
}

// DidYouMean proposes the name that is most like a misspelled one. It returns nothing if none is like it.
func DidYouMean(name string, known []string) string {
	if like := words.Near(name, known); like != "" {
		return fmt.Sprintf("did you mean %s?", like)
	}
	return ""
}

// Choice joins what may stand somewhere: "a, b or c". It names at most a dozen and counts the rest.
func Choice(all []string) string {
	const most = 12
	switch n := len(all); {
	case n == 0:
		return "nothing"
	case n > most:
		return fmt.Sprintf("%s … (%d in all)", strings.Join(all[:most], ", "), n)
	}
	return words.Or(all)
}

// Quote quotes a value of a file and shortens it to a part of a line.
func Quote(value string) string {
	const most = 60 // characters
	runes := []rune(value)
	if len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", value)
}
