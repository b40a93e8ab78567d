package bench

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// Catalogue is what running scenarios took. The JSON names are stable.
type Catalogue struct {
	Versions    map[string]string `json:"versions"` // of the bundle's parts, Istio, Envoy and Kubernetes among them
	Lanes       int               `json:"lanes"`    // scenarios that ran side by side
	Labs        int               `json:"labs"`     // that were made
	WallSeconds float64           `json:"wall_seconds"`
	Scenarios   []ScenarioBench   `json:"scenarios"`
}

// ScenarioBench is the measurement of one scenario.
type ScenarioBench struct {
	Scenario string        `json:"scenario"`
	Topology string        `json:"topology"`
	Result   report.Result `json:"result"` // the worst of the runs
	Runs     []ScenarioRun `json:"runs"`
	Median   ScenarioRun   `json:"median"` // of each figure, over the runs that passed, and the texts of the last; no result and no reason
}

// ScenarioRun is one run. A phase that the scenario has not, or did not come to, took no time.
type ScenarioRun struct {
	Seconds           float64       `json:"seconds"`
	BaselineSeconds   float64       `json:"baseline_seconds"`
	BreakSeconds      float64       `json:"break_seconds"` // of operate, where the scenario has that
	SymptomsSeconds   float64       `json:"symptoms_seconds"`
	DiagnoseSeconds   float64       `json:"diagnose_seconds"`
	LaterSeconds      float64       `json:"later_seconds"`
	WrongFixesSeconds float64       `json:"wrong_fixes_seconds"`
	RecoverSeconds    float64       `json:"recover_seconds"`
	HealthySeconds    float64       `json:"healthy_seconds"`
	AlwaysSeconds     float64       `json:"always_seconds"`
	UndoSeconds       float64       `json:"undo_seconds"`
	Symptoms          []string      `json:"symptoms,omitempty"` // what their checks saw; see catalogue.Plain
	Lab               string        `json:"lab,omitempty"`
	Result            report.Result `json:"result,omitempty"`
	Reason            string        `json:"reason,omitempty"` // why it did not pass
}

// figures are the times, in the order of the phases.
func (r *ScenarioRun) figures() []*float64 {
	return []*float64{
		&r.Seconds, &r.BaselineSeconds, &r.BreakSeconds, &r.SymptomsSeconds, &r.DiagnoseSeconds, &r.LaterSeconds, &r.WrongFixesSeconds,
		&r.RecoverSeconds, &r.HealthySeconds, &r.AlwaysSeconds, &r.UndoSeconds,
	}
}

func newScenarioRun(e catalogue.Ending) ScenarioRun {
	r := ScenarioRun{Seconds: e.Verdict.Seconds, Lab: e.Lab, Result: e.Verdict.Result, Reason: e.Verdict.Reason}
	if e.Err != nil {
		r.Result, r.Reason = report.Errored, e.Err.Error()
	}
	for _, seen := range e.Symptoms {
		r.Symptoms = append(r.Symptoms, catalogue.Plain(seen))
	}
	of := map[scenario.Phase]*float64{
		engine.Baseline: &r.BaselineSeconds, scenario.Break: &r.BreakSeconds, scenario.Operate: &r.BreakSeconds,
		scenario.Symptoms: &r.SymptomsSeconds,
		scenario.Diagnose: &r.DiagnoseSeconds, scenario.LaterOn: &r.LaterSeconds, scenario.WrongFixes: &r.WrongFixesSeconds,
		scenario.Recover: &r.RecoverSeconds, scenario.Healthy: &r.HealthySeconds, scenario.Always: &r.AlwaysSeconds,
		engine.Undoing: &r.UndoSeconds,
	}
	for _, p := range e.Phases {
		if figure := of[p.Phase]; figure != nil {
			*figure += p.Took.Seconds()
		}
	}
	return r
}

func medianRun(runs []ScenarioRun) ScenarioRun {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r ScenarioRun) bool { return r.Result != report.Passed })
	var median ScenarioRun
	if len(runs) > 0 {
		median.Symptoms = runs[len(runs)-1].Symptoms
	}
	for i, figure := range median.figures() {
		*figure = medianOf(runs, func(r ScenarioRun) float64 { return *r.figures()[i] })
	}
	return median
}

// medianOf is zero without runs.
func medianOf[T any](runs []T, figure func(T) float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	all := make([]float64, len(runs))
	for i, r := range runs {
		all[i] = figure(r)
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// MeasureScenarios runs each scenario that often, in lanes, and measures that. The catalogue's OnEnded is called
// for each run, too. What was measured before ctx ended is in the result.
func MeasureScenarios(ctx context.Context, c catalogue.Runner, all []*scenario.Scenario, runs int) (Catalogue, error) {
	b, err := lab.OpenBundle()
	if err != nil {
		return Catalogue{}, err
	}
	var list []*scenario.Scenario
	for range runs {
		list = append(list, all...)
	}
	result := Catalogue{Versions: b.Versions(), Scenarios: make([]ScenarioBench, len(all))}
	for i, s := range all {
		result.Scenarios[i] = ScenarioBench{Scenario: s.Name, Topology: lab.Describe(s.Topology), Result: report.Passed, Runs: []ScenarioRun{}}
	}
	told := c.OnEnded
	c.OnEnded = func(e catalogue.Ending) bool {
		one := &result.Scenarios[e.Index%len(all)]
		run := newScenarioRun(e)
		one.Runs = append(one.Runs, run)
		one.Result = worse(one.Result, run.Result)
		return told == nil || told(e)
	}
	tally, err := c.Run(ctx, list)
	for i := range result.Scenarios {
		result.Scenarios[i].Median = medianRun(result.Scenarios[i].Runs)
	}
	result.Lanes, result.Labs, result.WallSeconds = tally.Lanes, tally.Labs, tally.Took.Seconds()
	return result, err
}

func worse(a, b report.Result) report.Result {
	order := []report.Result{report.Passed, report.Skipped, report.Failed, report.Errored}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// MedianSeconds is that of the medians of the scenarios that passed.
func (b Catalogue) MedianSeconds() float64 {
	return medianOf(b.passed(), func(s ScenarioBench) float64 { return s.Median.Seconds })
}

// Slowest is the scenario with the largest median; none where none passed.
func (b Catalogue) Slowest() (ScenarioBench, bool) {
	passed := b.passed()
	if len(passed) == 0 {
		return ScenarioBench{}, false
	}
	return slices.MaxFunc(passed, func(a, b ScenarioBench) int { return cmp.Compare(a.Median.Seconds, b.Median.Seconds) }), true
}

func (b Catalogue) passed() (all []ScenarioBench) {
	for _, s := range b.Scenarios {
		if s.Result == report.Passed {
			all = append(all, s)
		}
	}
	return all
}

// Into returns known with what was measured now in it: of scenarios that passed in every run.
func (b Catalogue) Into(known catalogue.Measurements, day time.Time) catalogue.Measurements {
	all := maps.Clone(known)
	if all == nil {
		all = catalogue.Measurements{}
	}
	for _, s := range b.passed() {
		all[s.Scenario] = catalogue.Measurement{
			Seconds: float64(int(s.Median.Seconds*10+0.5)) / 10, Istio: b.Versions["istioctl"], Envoy: b.Versions["envoy"],
			Kubernetes: strings.TrimPrefix(b.Versions["kubernetes"], "v"), Date: day.Format(time.DateOnly), Symptoms: s.Median.Symptoms,
		}
	}
	return all
}
