package engine

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

// Explain writes what a scenario would do as a numbered plan, with the commands that a person would type
// for the same. It touches nothing.
func Explain(w io.Writer, s *scenario.Scenario) error {
	x := newExplainer(w, s)
	x.line("%s: %s", s.Name, s.Title)
	x.line("")
	for _, text := range strings.Split(strings.TrimSpace(s.Why), "\n") {
		x.line("  %s", strings.TrimSpace(text))
	}
	x.line("")
	if about := s.Istio.String(); about != "" {
		x.line("Only where every control plane is of Istio %s.", about)
	}
	x.line("On a lab with topology %s:", lab.Describe(s.Topology))
	if len(s.Traffic) > 0 {
		x.phase("traffic, from here to the end")
		for _, t := range s.Traffic {
			kind := "a connection for each call"
			if t.Connections == scenario.Reused {
				kind = "connections that are kept"
			}
			if t.AnswerAfter > 0 {
				kind += fmt.Sprintf(", answered after %s", t.AnswerAfter)
			}
			x.number("%s: %s calls %s every %s, %s", t.Name, t.From, t.To, t.Every, kind)
		}
	}
	x.expect(string(Baseline)+": the mesh is healthy", s.Healthy)
	for _, phase := range s.Phases() {
		switch {
		case phase.Fix != nil:
			x.phase("wrong fix: " + phase.Fix.Fix + " (the mesh must stay broken)")
			x.steps(phase.Steps)
			x.steps(phase.Fix.StillBroken)
		case phase.Later != nil:
			x.phase("later: " + phase.Later.When)
			x.steps(phase.Steps)
			x.expect("then", phase.Later.Then())
		case phase.Within > 0:
			x.expect(string(phase.Phase), scenario.Expect{Within: phase.Within, Expect: phase.Steps})
		default:
			x.phase(string(phase.Phase))
			x.steps(phase.Steps)
		}
	}
	return x.err
}

type explainer struct {
	w      io.Writer
	ground verb.Ground
	next   int
	err    error // the first of writing or of a step that cannot say what it is
}

func newExplainer(w io.Writer, s *scenario.Scenario) *explainer {
	return &explainer{w: w, ground: verb.Ground{Shape: s.Topology, Dir: filepath.Dir(s.File), Traffic: s.Traffic}}
}

func (x *explainer) line(format string, a ...any) {
	if _, err := fmt.Fprintln(x.w, strings.TrimRight(fmt.Sprintf(format, a...), " ")); err != nil && x.err == nil {
		x.err = err
	}
}

func (x *explainer) number(format string, a ...any) {
	x.next++
	x.line("  %2d. "+format, append([]any{x.next}, a...)...)
}

func (x *explainer) phase(title string) {
	x.line("")
	x.line("%s", title)
}

func (x *explainer) expect(title string, e scenario.Expect) {
	x.phase(fmt.Sprintf("%s, all of these together within %s", title, time.Duration(e.Within)))
	x.steps(e.Expect)
}

func (x *explainer) steps(steps []scenario.Step) {
	for _, step := range x.ready(steps) {
		if step.Change != nil {
			x.number("%s", step)
		} else {
			x.number("check: %s", step)
		}
		x.commands(step.Command())
	}
}

// ready makes steps ready; those that cannot be are left out and are the explainer's error.
func (x *explainer) ready(steps []scenario.Step) (all []verb.Step) {
	for _, s := range steps {
		step, err := x.ground.Step(s)
		if err != nil {
			x.err = cmp.Or(x.err, err)
			continue
		}
		all = append(all, step)
	}
	return all
}

// commands writes commands, one to a line.
func (x *explainer) commands(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			x.line("      $ %s", line)
		}
	}
}

// LookAround writes what a person who stands in the middle of the scenario can look at on a lab: the first hints, the calls
// of its traffic, which nobody makes meanwhile, and the commands of the diagnosis with what they show.
func LookAround(w io.Writer, s *scenario.Scenario, lab string) error {
	x := newExplainer(w, s)
	x.ground.Lab = lab
	for i, hint := range s.Hints {
		if i < 2 { // the last ones give the answer away
			x.line("  %s", strings.Join(strings.Fields(hint), " "))
		}
	}
	for i, t := range s.Traffic {
		if i == 0 {
			x.line("  # nobody calls meanwhile: what logs and counters are to show has to be called by hand")
		}
		x.line("  %s", observe.Call{
			From: observe.Workload{App: t.From.Name, Cluster: t.From.Cluster}, To: observe.Workload{App: t.To.Name, Cluster: t.To.Cluster},
		}.Command())
	}
	for _, step := range x.ready(s.Diagnose) {
		if step.Command() == "" {
			continue
		}
		x.line("  # %s", step)
		for line := range strings.Lines(step.Command()) {
			x.line("  %s", strings.TrimRight(line, "\n"))
		}
	}
	return x.err
}
