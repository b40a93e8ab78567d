package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// lines are those of a text without the empty ones around it; none for an empty text.
func lines(text string) []string {
	text = strings.Trim(text, "\n")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// wrap breaks a line between words. The spaces that it begins with are kept on every part.
func wrap(line string, width int) []string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	var parts []string
	part := ""
	for word := range strings.FieldsSeq(line) {
		if part != "" && utf8.RuneCountInString(indent+part)+1+utf8.RuneCountInString(word) > width {
			parts = append(parts, indent+part)
			part = ""
		}
		if part != "" {
			part += " "
		}
		part += word
	}
	return append(parts, indent+part)
}

// pad fills a text up to width characters (fmt counts them too, but cuts nothing).
func pad(text string, width int) string {
	if missing := width - utf8.RuneCountInString(text); missing > 0 {
		return text + strings.Repeat(" ", missing)
	}
	return text
}

// seconds is a time as people read it.
func seconds(d time.Duration) string {
	if d >= 100*time.Second {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func sortedNames(m map[string]string) []string {
	return slices.Sorted(maps.Keys(m))
}

// splitPlace takes "file:line:column" apart; line and column are 0 where they are not known.
func splitPlace(place string) (file string, line, column int) {
	file = place
	numbers := []int{}
	for range 2 {
		i := strings.LastIndexByte(file, ':')
		if i < 0 {
			break
		}
		n, err := strconv.Atoi(file[i+1:])
		if err != nil {
			break
		}
		file, numbers = file[:i], append([]int{n}, numbers...)
	}
	switch len(numbers) {
	case 2:
		return file, numbers[0], numbers[1]
	case 1:
		return file, numbers[0], 0
	}
	return file, 0, 0
}

// PhaseTitle says in a learner's words what a phase is for; "" where the phase is none of a scenario's.
func PhaseTitle(phase string) string { return titles[phase] }
