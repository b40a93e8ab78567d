package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file. A Validate method may return it as its error: its place
// is then that of the struct, or of the field that At names.
type Problem struct {
	Place  Place
	What   string // where in the file, then what is wrong: "break: sever: unknown cluster"
	Wanted string // what may stand there
	Seen   string // what does
	Try    string // what to do about it
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Place != (Place{}) {
		fmt.Fprintf(&b, "%s: ", p.Place)
	}
	b.WriteString(p.What)
	for _, line := range [][2]string{{"wanted", p.Wanted}, {"seen", p.Seen}, {"try", p.Try}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "\n  %-7s %s", line[0], line[1])
		}
	}
	return b.String()
}

func (p Problem) Error() string { return p.String() }

// Problems is the error of Load, Parse, LoadTopology and ParseTopology: everything that is wrong with a file, sorted by place.
type Problems struct{ List []Problem }

// shown bounds the error text: a file with more problems than this is not a scenario.
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

// At wraps an error that a Validate method returns, so that it is shown at the place of the field
// with that name in the file rather than at its struct. The name may be a path with places of lists,
// from 0: clusters.2.primary. What of it is not in the file is left out.
func At(field string, err error) error { return &fieldError{field, err} }

type fieldError struct {
	field string
	error
}

func (e *fieldError) Unwrap() error { return e.error }

// near returns the candidate that is most like name, if one is so like it that a slip explains the
// difference.
func near(name string, candidates []string) string {
	best, at := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		// Names of very different length cannot be near: do not pay for the comparison.
		if len(name)-len(c) >= at || len(c)-len(name) >= at {
			continue
		}
		if d := distance(name, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with a neighbor to make b of a
// (the optimal string alignment distance).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// list joins words for a sentence: "a, b or c", at most a dozen of them.
func list(words []string) string {
	const most = 12
	switch n := len(words); {
	case n == 0:
		return "nothing"
	case n == 1:
		return words[0]
	case n > most:
		return fmt.Sprintf("%s … (%d in all)", strings.Join(words[:most], ", "), n)
	default:
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
}

// short quotes a value of the file for one line of a message.
func short(value string) string {
	const most = 60
	runes := []rune(value)
	if len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", value)
}
