package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// storyOf tells a run in three sentences: what it was and how it ended, what the calls saw, and what decided.
func storyOf(s report.Summary, v view) []string {
	took := words.Seconds(time.Duration(s.Seconds * float64(time.Second)))
	title := strings.TrimSuffix(cmp.Or(s.Title, "a scenario without a title"), ".")
	bad, failure := firstFailure(s)
	var first, last string
	switch {
	case s.Result == report.Passed:
		steps := 0
		for _, p := range s.Phases {
			steps += p.Steps
		}
		first = fmt.Sprintf("%s passed in %s: %s.", v.Scenario, took, title)
		last = fmt.Sprintf("All %s held, with %s.", words.Plural(len(s.Phases), "phase"), words.Plural(steps, "step"))
	case s.Result == report.Skipped:
		first = fmt.Sprintf("%s was skipped: %s.", v.Scenario, title)
		last = fmt.Sprintf("The reason: %s.", strings.TrimSuffix(cmp.Or(s.Reason, "it gave none"), "."))
	case failure == nil:
		first = fmt.Sprintf("%s %s after %s: %s.", v.Scenario, ending(s.Result, s.Reason), took, title)
		last = part("Reason", s.Reason, 500)
	default:
		first = fmt.Sprintf("%s %s in phase %s after %s: %s.", v.Scenario, ending(failure.Result, failure.Seen), bad, took, title)
		last = part("Wanted", failure.Wanted, 200)
		if last == "" {
			last = part("Step", failure.Step, 200)
		}
		last = strings.TrimSpace(last + " " + part("Seen", words.FirstLine(failure.Seen), 300))
		if v.CutOff {
			last = strings.TrimSpace(last + " The run was cut off before it ended.")
		}
	}
	return []string{first, callsSentence(v.Streams), last}
}

// ending says how a run ended that did not pass.
func ending(result report.Result, why string) string {
	switch {
	case result == report.Failed:
		return "failed"
	case strings.HasPrefix(why, "interrupted:"):
		return "was interrupted"
	}
	return "could not be carried out"
}

// part is a sentence of one thing that is known, or nothing.
func part(what, text string, most int) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s.", what, strings.TrimSuffix(words.Short(text, most), "."))
}

func firstFailure(s report.Summary) (phase string, f *report.Failure) {
	for _, p := range s.Phases {
		if len(p.Failures) > 0 {
			return p.Phase, &p.Failures[0]
		}
	}
	return "", nil
}

func callsSentence(streams []streamView) string {
	if len(streams) == 0 {
		return "It recorded no calls."
	}
	calls, lost, still := 0, 0, 0
	worst, slowest := streams[0], streams[0]
	recovered := true
	for _, s := range streams {
		calls, lost, still = calls+s.All.Calls, lost+s.All.Lost, still+s.All.LostAtStandstill
		if s.All.LongestGap > worst.All.LongestGap {
			worst = s
		}
		if s.Recovery > slowest.Recovery {
			slowest = s
		}
		recovered = recovered && s.Recovered
	}
	text := fmt.Sprintf("Of %s on %s %d were lost", words.Plural(calls, "call"), words.Plural(len(streams), "stream"), lost)
	if still > 0 {
		text += fmt.Sprintf(" (%d while this machine stood still)", still)
	}
	text += fmt.Sprintf("; the longest time without an answer was %s, on %s", words.Seconds(worst.All.LongestGap), worst.Name)
	if recovered && lost > 0 {
		text += fmt.Sprintf("; every stream was answered again %s after the repair began", words.Seconds(slowest.Recovery))
	}
	return text + "."
}

// issueOf is the run as Markdown, to paste into an issue.
func issueOf(s report.Summary, v view) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n", v.Scenario, s.Result)
	for _, sentence := range v.Story {
		fmt.Fprintf(&b, "%s\n", inline(sentence))
	}
	if len(v.Properties) > 0 {
		b.WriteString("\n")
		for _, p := range v.Properties {
			fmt.Fprintf(&b, "- %s: %s\n", inline(p[0]), inline(p[1]))
		}
	}
	b.WriteString("\n| phase | result | seconds | steps |\n|---|---|--:|--:|\n")
	for _, p := range s.Phases {
		fmt.Fprintf(&b, "| %s | %s | %.1f | %d |\n", inline(p.Phase), p.Result, p.Seconds, p.Steps)
	}
	for _, p := range v.Phases {
		for _, step := range p.Steps {
			if !step.Result.Bad() {
				continue
			}
			var text strings.Builder
			for _, field := range [][2]string{
				{"place", step.Place}, {"step", step.Name}, {"command", step.Command}, {"wanted", step.Wanted}, {"seen", step.Seen},
				{"try", step.Try},
			} {
				if field[1] != "" {
					fmt.Fprintf(&text, "%-8s %s\n", field[0], strings.ReplaceAll(field[1], "\n", "\n         "))
				}
			}
			for _, line := range step.Logs[max(0, len(step.Logs)-8):] {
				fmt.Fprintf(&text, "log      %s\n", line)
			}
			fmt.Fprintf(&b, "\nFailed in phase %s:\n\n%s", inline(p.Phase), fenced(text.String()))
		}
	}
	if len(v.Streams) > 0 {
		b.WriteString("\n| stream | calls | lost | longest gap | recovered after |\n|---|--:|--:|--:|--:|\n")
		for _, s := range v.Streams {
			fmt.Fprintf(&b, "| %s | %d | %d | %s | %s |\n", inline(s.Name), s.All.Calls, s.All.Lost, words.Seconds(s.All.LongestGap), s.Again())
		}
	}
	if v.Timetable != nil {
		fmt.Fprintf(&b, "\n%s", v.Timetable.Markdown())
	}
	fmt.Fprintf(&b, "\nTo see it again:\n\n%s", fenced("eastwest run "+v.Scenario+"\n"))
	return b.String()
}

// fenced is a block of code whose fence is longer than any in the text.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "text\n" + text + fence + "\n"
}

// inline makes a text fit into a line of Markdown and into a cell of its tables.
func inline(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
