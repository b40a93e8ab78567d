package lab

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// Explain writes what a scenario would do as a numbered plan, with the commands that a person would type
// for the same. It touches nothing.
func Explain(w io.Writer, s *scenario.Scenario) error {
	x := &explainer{w: w, run: &run{scenario: s, env: env{dir: filepath.Dir(s.File)}}}
	x.line("%s: %s", s.Name, s.Title)
	x.line("")
	for _, text := range strings.Split(strings.TrimSpace(s.Why), "\n") {
		x.line("  %s", strings.TrimSpace(text))
	}
	x.line("")
	x.line("On a lab with topology %s:", describe(s.Topology))
	if len(s.Traffic) > 0 {
		x.phase("traffic, from here to the end")
		for _, t := range s.Traffic {
			kind := "a connection for each call"
			if t.Connections == scenario.Reused {
				kind = "connections that are kept"
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
	w    io.Writer
	run  *run
	next int
	err  error // the first of writing or of a step that cannot say what it is
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
	for _, step := range steps {
		thing, err := x.run.thing(step)
		if err != nil {
			if x.err == nil {
				x.err = fmt.Errorf("%s: %s: %w", step.Place, step.Verb, err)
			}
			continue
		}
		var command string
		switch thing := thing.(type) {
		case fault.Fault:
			x.number("%s", thing)
			command = thing.Command()
		case observe.Check:
			x.number("check: %s", thing)
			command = thing.Command()
		}
		for _, line := range strings.Split(command, "\n") {
			if line != "" {
				x.line("      $ %s", line)
			}
		}
	}
}
