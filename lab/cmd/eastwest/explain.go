package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

// planJSON is what `explain -o json` prints of a scenario; its names are stable.
type planJSON struct {
	Scenario    string      `json:"scenario"`
	Title       string      `json:"title"`
	Why         string      `json:"why"`
	File        string      `json:"file"`
	Topology    string      `json:"topology"`
	BlastRadius []string    `json:"blast_radius,omitempty"`
	Phases      []phaseJSON `json:"phases"`
}

// phaseJSON is one phase of a plan.
type phaseJSON struct {
	Phase  string     `json:"phase"`
	Title  string     `json:"title,omitempty"`
	Within float64    `json:"within_seconds,omitempty"` // in which all steps have to hold together
	Steps  []stepJSON `json:"steps"`
}

// stepJSON is one step of a phase.
type stepJSON struct {
	Place   string `json:"place"`
	Check   bool   `json:"check"` // it only looks
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

func newExplainCommand() *cobra.Command {
	var (
		flags  topologyFlags
		output outputFormat
	)
	cmd := &cobra.Command{
		Use:   "explain NAME|FILE | -f FILE | --topology KIND",
		Short: "Explain in plain words what a scenario does or how a topology is made, with the commands that do the same by hand",
		Long: `Explain prints the numbered plan of a scenario, or the numbered steps of making a lab with a topology of the lesson
(--topology) or of a file (-f). It touches no lab and needs none.`,
		Example: `  eastwest explain mismatched-root-ca
  eastwest explain --topology primary-remote --network shared`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !flags.given() {
				return takes(1, 1, "NAME or FILE")(cmd, args)
			}
			if len(args) > 0 {
				return fmt.Errorf("the scenario %s and flags of a topology: wanted one of the two", args[0])
			}
			return nil
		},
		ValidArgsFunction: completeOneScenario,
		RunE: func(cmd *cobra.Command, args []string) error {
			explain := func(w io.Writer) error { return nil }
			if flags.given() {
				t, err := flags.topology()
				if err != nil {
					return err
				}
				if output.json() {
					return usagef("--output json: wanted a scenario, seen a topology, whose steps are text")
				}
				explain = func(w io.Writer) error { return engine.ExplainTopology(w, t) }
			} else {
				loaded, err := loadScenarios(args)
				if err != nil {
					return err
				}
				if output.json() {
					plan, err := planOf(loaded[0])
					if err != nil {
						return err
					}
					return printJSON(cmd.OutOrStdout(), plan)
				}
				explain = func(w io.Writer) error { return engine.Explain(w, loaded[0]) }
			}
			return onPage(cmd, explain)
		},
	}
	flags.addTo(cmd)
	output.addTo(cmd)
	return cmd
}

// onPage writes a text to standard output: laid out for a terminal, and as it is otherwise.
func onPage(cmd *cobra.Command, write func(io.Writer) error) error {
	page := report.NewPage(cmd.OutOrStdout(), report.Detect(cmd.OutOrStdout(), os.Getenv))
	if err := write(page); err != nil {
		return err
	}
	return page.Flush()
}

// planOf returns the plan of a scenario in the order in which it is carried out.
func planOf(s *scenario.Scenario) (planJSON, error) {
	plan := planJSON{
		Scenario: s.Name, Title: s.Title, Why: s.Why, File: s.File, Topology: lab.Describe(s.Topology), BlastRadius: s.Radius,
	}
	ground := verb.Ground{Shape: s.Topology, Dir: filepath.Dir(s.File), Traffic: s.Traffic}
	add := func(phase, title string, within strict.Duration, steps []scenario.Step) error {
		p := phaseJSON{Phase: phase, Title: title, Within: time.Duration(within).Seconds(), Steps: []stepJSON{}}
		for _, step := range steps {
			ready, err := ground.Step(step)
			if err != nil {
				return err
			}
			p.Steps = append(p.Steps, stepJSON{
				Place: step.Place.String(), Check: ready.Change == nil, Text: ready.String(), Command: ready.Command(),
			})
		}
		plan.Phases = append(plan.Phases, p)
		return nil
	}
	if err := add(string(engine.Baseline), "", s.Healthy.Within, s.Healthy.Expect); err != nil {
		return plan, err
	}
	for _, phase := range s.Phases() {
		title, steps := "", phase.Steps
		switch {
		case phase.Fix != nil:
			title, steps = phase.Fix.Fix, slices.Concat(steps, phase.Fix.StillBroken)
		case phase.Later != nil:
			title, steps = phase.Later.When, slices.Concat(steps, phase.Later.Then().Expect)
		}
		if err := add(string(phase.Phase), title, phase.Within, steps); err != nil {
			return plan, err
		}
	}
	return plan, nil
}
