package bench

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func TestScenarioRunsAreMeasuredByPhase(t *testing.T) {
	ending := func(seconds float64, result report.Result) catalogue.Ending {
		took := time.Duration(seconds * float64(time.Second))
		return catalogue.Ending{Verdict: engine.Verdict{Seconds: 2 * seconds, Result: result}, Phases: []catalogue.PhaseTime{
			{
				Phase:  engine.Baseline,
				Took:   took,
				Result: report.Passed,
			}, {Phase: scenario.Operate, Took: took, Result: report.Passed}, {Phase: engine.Undoing, Took: took, Result: report.Passed},
		}}
	}
	runs := []ScenarioRun{
		newScenarioRun(ending(1, report.Passed)), newScenarioRun(ending(3, report.Passed)), newScenarioRun(ending(9, report.Failed)),
		newScenarioRun(catalogue.Ending{Err: errors.New("no machine")}),
	}
	require.Equal(t, ScenarioRun{Seconds: 2, BaselineSeconds: 1, BreakSeconds: 1, UndoSeconds: 1, Result: report.Passed}, runs[0])
	require.Equal(t, ScenarioRun{Result: report.Errored, Reason: "no machine"}, runs[3])
	require.Equal(t, ScenarioRun{Seconds: 4, BaselineSeconds: 2, BreakSeconds: 2, UndoSeconds: 2}, medianRun(runs), "of those that passed")
	require.Zero(t, medianRun(nil))
	require.Equal(t, report.Errored, worse(worse(report.Passed, report.Errored), report.Failed))

	b := Catalogue{
		Versions: map[string]string{"istioctl": "1.31", "envoy": "1.38", "kubernetes": "v1.36.1"},
		Scenarios: []ScenarioBench{
			{Scenario: "a", Result: report.Passed, Median: ScenarioRun{Seconds: 1.26}},
			{Scenario: "b", Result: report.Passed, Median: ScenarioRun{Seconds: 5}},
			{Scenario: "c", Result: report.Failed, Median: ScenarioRun{Seconds: 99}},
		},
	}
	slowest, ok := b.Slowest()
	require.True(t, ok)
	require.Equal(t, "b", slowest.Scenario)
	require.InDelta(t, 3.13, b.MedianSeconds(), 0.001)
	day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	require.Equal(t, catalogue.Measurements{
		"a": {Seconds: 1.3, Istio: "1.31", Envoy: "1.38", Kubernetes: "1.36.1", Date: "2026-11-24"},
		"b": {Seconds: 5, Istio: "1.31", Envoy: "1.38", Kubernetes: "1.36.1", Date: "2026-11-24"},
		"c": {Seconds: 7},
	}, b.Into(catalogue.Measurements{"a": {Seconds: 8}, "c": {Seconds: 7}}, day))
}
