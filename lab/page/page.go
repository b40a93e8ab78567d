// Package page shows runs as HTML: one file that can be sent, opened without a network, and printed. Run is one run of one scenario
// with its calls, its steps and its evidence; Grid is many of them side by side.
//
// A page is made of what a run folder holds, so that an old run and one that was killed can be shown too. Everything in it was
// redacted, and no text becomes markup: package html/template escapes all of it, and look.Policy forbids what would slip through.
package page

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Run is what a run folder holds of one run.
type Run struct {
	Dir        string
	Events     []report.Event
	Recordings []*traffic.Recording // sorted by their streams
}

// Load reads a run folder. One of a run that was killed has no recordings.
func Load(dir string) (Run, error) {
	events, err := report.Read(dir)
	if err != nil {
		return Run{}, err
	}
	recordings, err := report.Recordings(dir)
	return Run{Dir: dir, Events: events, Recordings: recordings}, err
}

//go:embed run.html
var runPage string

//go:embed plot.js
var plotScript string

// view is what the template shows.
type view struct {
	Title, Scenario string
	Result          report.Result
	Story           []string // three sentences
	Properties      [][2]string
	Plot            *plot // nil without calls
	Streams         []streamView
	Timetable       *report.Timetable // of an upgrade of Istio
	Who             []string          // who answered, in the order of their colors
	Phases          []phaseView
	Doctor          []stepView
	Mesh            template.HTML // pictures
	Files           []fileView    // the first ones
	FileCount       int           // of all
	Shown           []textFile
	Issue           string
	Failed          bool
	CutOff          bool // it did not come to its end
	Folder          string
}

// phaseView is a phase with its steps.
type phaseView struct {
	report.PhaseSummary
	Heading string
	Began   time.Time
	Steps   []stepView
	Logs    []string
	Open    bool
}

// stepView is a step, a note, or, where a phase failed without one, the phase.
type stepView struct {
	report.Event
	First bool // of what failed
	Logs  []string
}

// Write writes the page of a run.
func Write(w io.Writer, run Run) error {
	doing := fmt.Sprintf("writing the page of %s", run.Dir)
	v, err := viewOf(run)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	script := template.JS(plotScript)
	t, err := template.New("run").Funcs(template.FuncMap{
		"style":   look.Style,
		"script":  func() template.JS { return script },
		"policy":  func() string { return look.Policy(script) },
		"seconds": func(s float64) string { return words.Seconds(time.Duration(s * float64(time.Second))) },
		"clock":   func(t time.Time) string { return t.UTC().Format("15:04:05.0") },
		"percent": words.Percent,
		"data":    data,
		"color":   look.Color,
	}).Parse(runPage)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// data is JSON for a <script> that is not run. Encoding it escapes <, > and &, so that nothing in it ends the script.
func data(of any) (template.JS, error) {
	text, err := json.Marshal(of)
	return template.JS(text), err
}

func viewOf(run Run) (view, error) {
	var clean report.Recording // what was written by an older eastwest is redacted by the rules of today
	for _, e := range run.Events {
		clean.Emit(e)
	}
	run.Events = clean.Events()
	run.Recordings = slices.Clone(run.Recordings)
	for i, r := range run.Recordings {
		run.Recordings[i] = withoutSecrets(r)
	}
	summaries := report.Summarize(run.Events)
	if len(summaries) == 0 {
		return view{}, errors.New("no scenario began in this run")
	}
	s := summaries[len(summaries)-1]
	v := view{Scenario: s.Scenario, Title: s.Title, Result: s.Result, Failed: s.Result.Bad(), Folder: nameOf(run.Dir)}
	if v.CutOff = cutOff(run.Events); v.CutOff {
		timeOpen(&s, run.Events)
	}
	for _, name := range sortedKeys(s.Properties) {
		v.Properties = append(v.Properties, [2]string{name, s.Properties[name]})
	}
	if v.Scenario == "" {
		v.Scenario = v.Folder // old runs do not name it
	}
	kept, err := readEvidence(run.Dir)
	if err != nil {
		return view{}, err
	}
	v.Files, v.FileCount, v.Shown = kept.files, kept.count, kept.shown
	v.Phases = phasesOf(run.Events, s, kept.logs)
	for _, p := range v.Phases {
		for _, step := range p.Steps {
			if strings.HasPrefix(step.Command, "eastwest doctor") {
				v.Doctor = append(v.Doctor, step)
			}
		}
	}
	v.Plot, v.Streams = plotOf(run)
	v.Timetable = report.TimetableOf(run.Events, run.Recordings)
	if v.Plot != nil {
		v.Who = v.Plot.Who
	}
	if v.Mesh, err = look.Pictures(meshesOf(run.Events, kept)); err != nil {
		return view{}, err
	}
	v.Story = storyOf(s, v)
	v.Issue = issueOf(s, v)
	return v, nil
}

// withoutSecrets returns a recording whose texts are redacted. Most of them are the same in many calls.
func withoutSecrets(r *traffic.Recording) *traffic.Recording {
	known := map[string]string{}
	redact := func(text string) string {
		clean, ok := known[text]
		if !ok {
			clean = report.Redact(text)
			known[text] = clean
		}
		return clean
	}
	c := *r
	c.Stream, c.From, c.URL, c.ExpectCluster = redact(r.Stream), redact(r.From), redact(r.URL), redact(r.ExpectCluster)
	c.Marks, c.Calls = slices.Clone(r.Marks), slices.Clone(r.Calls)
	for i := range c.Marks {
		c.Marks[i].Label = redact(c.Marks[i].Label)
	}
	for i := range c.Calls {
		call := &c.Calls[i]
		call.Err, call.Cluster, call.Pod = redact(call.Err), redact(call.Cluster), redact(call.Pod)
	}
	return &c
}

// cutOff says whether the last scenario has no end.
func cutOff(events []report.Event) bool {
	for _, e := range slices.Backward(events) {
		switch e.Type {
		case report.ScenarioEnded:
			return false
		case report.ScenarioStarted:
			return true
		}
	}
	return false
}

// timeOpen gives a run that was cut off, and the phase in which it was, the time up to the last thing that is known of it.
func timeOpen(s *report.Summary, events []report.Event) {
	until := events[len(events)-1].Time
	open := false
	var began, phase time.Time
	for _, e := range events {
		switch e.Type {
		case report.ScenarioStarted:
			began, open = e.Time, false
		case report.PhaseStarted:
			phase, open = e.Time, true
		case report.PhaseEnded:
			open = false
		}
	}
	s.Seconds = until.Sub(began).Seconds()
	if n := len(s.Phases); open && n > 0 {
		s.Phases[n-1].Seconds = until.Sub(phase).Seconds()
	}
}

// phasesOf returns the phases with what belongs to each. What happened before the first is none of a scenario.
func phasesOf(events []report.Event, s report.Summary, all []logLine) []phaseView {
	var phases []phaseView
	began := map[string]time.Time{} // steps that have not ended
	failed := false
	for _, e := range events {
		if e.Type == report.PhaseStarted && len(phases) < len(s.Phases) {
			summary := s.Phases[len(phases)]
			phases = append(phases, phaseView{
				PhaseSummary: summary, Heading: report.PhaseTitle(summary.Phase), Began: e.Time, Open: summary.Result.Bad(),
			})
			continue
		}
		if len(phases) == 0 {
			continue
		}
		p := &phases[len(phases)-1]
		key := e.Place + "\n" + e.Name
		switch e.Type {
		case report.StepStarted:
			began[key] = e.Time
		case report.StepEnded, report.Note:
			step := stepView{Event: e}
			from, waited := began[key]
			delete(began, key)
			if e.Result.Bad() {
				step.First, failed = !failed, true
				if !waited {
					from = e.Time.Add(-momentBefore)
				}
				step.Logs = excerpt(all, from, e.Time, 20)
			} else if waited {
				step.Logs = excerpt(all, from, e.Time, 6)
			}
			p.Steps = append(p.Steps, step)
		case report.PhaseEnded:
			if e.Result.Bad() && !slices.ContainsFunc(p.Steps, func(s stepView) bool { return s.Result.Bad() }) {
				e.Name = cmp.Or(e.Name, "the phase") // no step of it failed
				p.Steps = append(p.Steps, stepView{Event: e, First: !failed})
				failed = true
			}
			p.Logs = excerpt(all, p.Began, e.Time, 12)
		}
	}
	if !failed && s.Result.Bad() && len(phases) > 0 { // it was cut off, or failed outside of a step
		last := &phases[len(phases)-1]
		last.Open = true
		last.Steps = append(last.Steps, stepView{
			Event: report.Event{Name: "the run", Result: s.Result, Seen: s.Reason}, First: true,
		})
	}
	return phases
}

// momentBefore is how far logs go back from a check that failed.
const momentBefore = 10 * time.Second
