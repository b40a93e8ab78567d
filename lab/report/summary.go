package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Summary is one run of one scenario. The JSON names are stable.
type Summary struct {
	Scenario   string            `json:"scenario"`
	Title      string            `json:"title,omitempty"`
	Result     Result            `json:"result"`
	Reason     string            `json:"reason,omitempty"` // of a skip or of an error outside of the phases
	Seconds    float64           `json:"seconds"`
	Properties map[string]string `json:"properties,omitempty"`
	Phases     []PhaseSummary    `json:"phases"`
	Timetable  *Timetable        `json:"timetable,omitempty"` // of an upgrade of Istio
}

// PhaseSummary is one phase of a run.
type PhaseSummary struct {
	Phase    string    `json:"phase"`
	Title    string    `json:"title,omitempty"`
	Result   Result    `json:"result"`
	Reason   string    `json:"reason,omitempty"`
	Seconds  float64   `json:"seconds"`
	Steps    int       `json:"steps"`
	Skipped  int       `json:"skipped,omitempty"` // of the steps
	Failures []Failure `json:"failures,omitempty"`

	lines []string // the steps in plain words, for JUnit's output
}

// Failure is a step that failed.
type Failure struct {
	Place   string `json:"place,omitempty"` // file:line or file:line:column
	Step    string `json:"step"`
	Result  Result `json:"result"` // failed: a check did not hold; errored: it could not be carried out
	Cluster string `json:"cluster,omitempty"`
	Wanted  string `json:"wanted,omitempty"`
	Seen    string `json:"seen,omitempty"`
	Try     string `json:"try,omitempty"`
}

const interrupted = "interrupted: the run ended before this did"

// SummarizeFolder makes the summaries of a run folder whose events these are. The last scenario in it, which is the only one that its
// recordings are of, has a timetable if it upgrades Istio.
func SummarizeFolder(dir string, events []Event) ([]Summary, error) {
	all := Summarize(events)
	var err error
	if n := len(all); n > 0 {
		all[n-1].Timetable, err = TimetableIn(dir, events)
	}
	return all, err
}

// Summarize makes a summary per scenario of recorded events, in their order. A run or a phase that
// never ended is errored.
func Summarize(events []Event) []Summary {
	var all []*Summary
	var current *Summary
	var open bool // the last phase has not ended
	for _, e := range events {
		e = e.clean()
		if e.Type == ScenarioStarted {
			current = &Summary{
				Scenario: e.Scenario, Title: e.Name, Result: Errored, Reason: interrupted, Properties: e.Properties, Phases: []PhaseSummary{},
			}
			all, open = append(all, current), false
			continue
		}
		if current == nil {
			continue // setting the lab up
		}
		var phase *PhaseSummary
		if open {
			phase = &current.Phases[len(current.Phases)-1]
		}
		switch e.Type {
		case PhaseStarted:
			current.Phases = append(current.Phases, PhaseSummary{Phase: e.Phase, Title: e.Name, Result: Errored, Reason: interrupted})
			open = true
		case StepEnded:
			if phase != nil {
				phase.add(e)
			}
		case PhaseEnded:
			if phase != nil {
				phase.end(e)
			}
			open = false
		case ScenarioEnded:
			current.Result, current.Seconds, current.Reason = e.Result, e.Seconds, ""
			if e.Result != Passed {
				current.Reason = e.Seen
			}
			current = nil
		}
	}
	summaries := make([]Summary, len(all))
	for i, s := range all {
		summaries[i] = *s
	}
	return summaries
}

func (p *PhaseSummary) add(e Event) {
	p.Steps++
	line := fmt.Sprintf("%s: %s (%s)", e.Result, e.Name, seconds(e.Took))
	if e.Result == Skipped {
		p.Skipped++
		line = fmt.Sprintf("%s: %s: %s", e.Result, e.Name, e.Seen)
	}
	p.lines = append(p.lines, line)
	if e.Command != "" {
		p.lines = append(p.lines, "  $ "+strings.ReplaceAll(e.Command, "\n", "\n    "))
	}
	if e.Result.Bad() {
		p.Failures = append(p.Failures, failureOf(e))
	}
}

func (p *PhaseSummary) end(e Event) {
	p.Result, p.Seconds, p.Reason = e.Result, e.Seconds, ""
	if e.Result == Skipped {
		p.Reason = e.Seen
	}
	if e.Result.Bad() && len(p.Failures) == 0 {
		p.Failures = []Failure{failureOf(e)}
	}
}

func failureOf(e Event) Failure {
	return Failure{Place: e.Place, Step: e.Name, Result: e.Result, Cluster: e.Cluster, Wanted: e.Wanted, Seen: e.Seen, Try: e.Try}
}

// text is the failure in the form of the terminal.
func (f Failure) text(phase string) string {
	var b strings.Builder
	b.WriteString(headline(Event{Place: f.Place, Phase: phase, Cluster: f.Cluster, Name: f.Step, Result: f.Result}))
	for _, field := range [][2]string{{"wanted", f.Wanted}, {"seen", f.Seen}, {"try", f.Try}} {
		for i, line := range lines(field[1]) {
			name := field[0]
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "\n  %-7s %s", name, line)
		}
	}
	return b.String()
}

// JSON writes one indented object per scenario that was run.
func JSON(w io.Writer, all []Summary) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	for _, s := range all {
		if err := e.Encode(s); err != nil {
			return fmt.Errorf("writing summary of %s: %w", s.Scenario, err)
		}
	}
	return nil
}
