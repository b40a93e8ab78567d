// Package words turns values into the words of a sentence: lists, counts, shares, times and shortened texts, as every
// message and table of eastwest writes them. It imports nothing of this repository and needs nothing to run.
package words

import (
	"fmt"
	"strings"
	"time"
)

// And joins a list into a phrase: "a", "a and b", "a, b and c".
func And(list []string) string { return join(list, "and") }

// Or joins a list into a choice: "a", "a or b", "a, b or c".
func Or(list []string) string { return join(list, "or") }

func join(list []string, last string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " " + last + " " + list[len(list)-1]
}

// Unique returns the list without repetitions, in the order in which each word came first.
func Unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	var unique []string
	for _, w := range list {
		if !seen[w] {
			seen[w] = true
			unique = append(unique, w)
		}
	}
	return unique
}

// Some is And for a list that may be long: it names the first most and counts the rest, "a, b and 7 more".
func Some(list []string, most int) string {
	if len(list) <= most {
		return And(list)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// Plural counts things: "1 call", "2 calls". It knows no plurals but those with an s.
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// FirstLine returns a text up to its first line break.
func FirstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// Short folds white space and cuts a text to at most that many bytes, with three dots where something is missing.
func Short(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:max(most-3, 0)], "") + "..."
}

// Percent writes a share, given in percent, with one decimal. It never rounds a loss away, nor the last good call: only
// exactly 0 and exactly 100 are written so.
func Percent(p float64) string {
	switch {
	case p == 0 || p == 100:
		return fmt.Sprintf("%.0f %%", p)
	case p > 99.9:
		p = 99.9
	case p < 0.1:
		p = 0.1
	}
	return fmt.Sprintf("%.1f %%", p)
}

// Seconds writes a duration for people: "3.2 s", and from 100 s on "1m41s".
func Seconds(d time.Duration) string {
	if d >= 100*time.Second {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// Duration writes a duration as people write it into a file: "10m", not "10m0s".
func Duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Age writes a time span as people say it, in its largest unit: "40 s", "5 min", "7 h", "3 days". It ignores the sign.
func Age(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// Near returns the candidate that is most like name, if one is so like it that a slip of the keyboard explains the
// difference, and "" if none is.
func Near(name string, candidates []string) string {
	best, limit := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		// Names of very different length cannot be near: do not pay for the comparison.
		if len(name)-len(c) >= limit || len(c)-len(name) >= limit {
			continue
		}
		if d := distance(name, c); d < limit {
			best, limit = c, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete, replace or swap with a neighbor to turn a into b
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

// Row writes one row of a Markdown table. A bar inside a cell does not end the cell, and a line break becomes a space.
func Row(cells ...string) string {
	escaped := make([]string, len(cells))
	for i, c := range cells {
		escaped[i] = strings.ReplaceAll(strings.ReplaceAll(c, "|", `\|`), "\n", " ")
	}
	return "| " + strings.Join(escaped, " | ") + " |\n"
}
