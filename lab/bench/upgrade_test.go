package bench

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// upgradeEnding is a run of so many seconds that loses calls of the second stream in its first change.
func upgradeEnding(seconds float64, lost int, result report.Result) catalogue.Ending {
	streams := func(lost int, gap float64) []report.TimetableStream {
		second := report.TimetableStream{Stream: "kept", Calls: 50, Lost: lost, LongestGapSeconds: gap}
		if lost > 0 {
			second.Because = "UC"
		}
		return []report.TimetableStream{{Stream: "fresh", Calls: 100, LongestGapSeconds: 0.1}, second}
	}
	return catalogue.Ending{
		Verdict: engine.Verdict{Result: result}, Lab: "bench-1",
		Phases: []catalogue.PhaseTime{{Phase: engine.Baseline, Took: time.Minute}, {Phase: scenario.Operate, Took: time.Duration(seconds * 1e9)}},
		Timetable: &report.Timetable{States: []report.TimetableState{
			{Label: "before", Streams: streams(0, 0.2)},
			{Number: 1, Label: "upgrade-gateway cluster-a 1-31", Streams: streams(lost, 1.5)},
			{Number: 2, Label: "after", Streams: streams(0, 0.2)},
		}},
	}
}

func TestUpgradesAreMeasuredByState(t *testing.T) {
	run := newUpgradeRun(upgradeEnding(12, 2, report.Failed))
	run.Timetable = nil
	require.Equal(t, UpgradeRun{
		OperateSeconds: 12, Calls: 450, Lost: 2, LongestGapSeconds: 1.5, Lab: "bench-1", Result: report.Failed,
		Streams: []UpgradeStream{{"fresh", 300, 0, 0.1}, {"kept", 150, 2, 1.5}},
		Losses:  []UpgradeLoss{{"1 upgrade-gateway cluster-a 1-31", "kept", 2, "UC"}},
	}, run)
	none := newUpgradeRun(catalogue.Ending{Err: errors.New("no machine")})
	require.Equal(t, report.Errored, none.Result)
	require.Equal(t, "no machine", none.Reason)
}

func TestUpgradesAsATable(t *testing.T) {
	u := Upgrades{Date: "2026-11-30", Versions: map[string]string{"istioctl": "1.31", "kubernetes": "v1.36"}, Upgrades: []Upgrade{
		{Scenario: "upgrade-by-revision", Title: "A | title", Result: report.Failed, Runs: []UpgradeRun{
			newUpgradeRun(upgradeEnding(10, 1, report.Failed)), newUpgradeRun(upgradeEnding(20, 2, report.Failed)),
			newUpgradeRun(upgradeEnding(30, 0, report.Passed)),
		}},
		{Scenario: "data-plane-first", Title: "Another.", Result: report.Errored, Runs: []UpgradeRun{newUpgradeRun(catalogue.Ending{})}},
	}}
	require.Equal(t, [][]string{
		{"scenario", "runs", "result", "operate", "calls", "lost", "longest gap", "lost in"},
		{"upgrade-by-revision", "3", "failed", "20.0 s", "1350", "3", "1.5 s", "1 upgrade-gateway cluster-a 1-31: 3 of kept"},
		{"data-plane-first", "1", "errored", "0.0 s", "0", "0", "0.0 s", "–"},
	}, u.Rows())
	text := u.Markdown(Machine{CPUs: 2, MemoryMiB: 8000, Kernel: "6.1"}, "../scenarios/%s/scenario.yaml")
	require.True(t, strings.HasPrefix(text,
		"- 2026-11-30, istioctl 1.31 and kubernetes v1.36\n- Machine: 2 CPUs, 8000 MiB of memory, Linux 6.1\n"), text)
	require.Contains(t, text, "\n| [upgrade-by-revision](../scenarios/upgrade-by-revision/scenario.yaml) | 3 | failed | 20.0 s |")
	require.Contains(t, text, "\n### upgrade-by-revision\n\nA | title.\n\n|  |  | before | 1 upgrade-gateway cluster-a 1-31 | after |\n")
	require.NotContains(t, text, "### data-plane-first", "it has no timetable")
	require.NotContains(t, text, "1 lost", "the timetable is that of the last run")
}

func TestWhichScenariosAreUpgrades(t *testing.T) {
	previous := scenario.Topology{Kind: scenario.MultiPrimary, Istio: scenario.Previous}
	one := scenario.Topology{Members: []scenario.Cluster{{Name: "cluster-a"}, {Name: "cluster-b", Istio: scenario.Current}}}
	other := scenario.Topology{Kind: scenario.MultiPrimary}
	require.True(t, IsUpgrade(&scenario.Scenario{Name: "data-plane-first", Topology: previous}))
	require.True(t, IsUpgrade(&scenario.Scenario{Name: "mixed", Topology: one}))
	require.True(t, IsUpgrade(&scenario.Scenario{Name: "upgrade-in-place", Topology: other}))
	require.False(t, IsUpgrade(&scenario.Scenario{Name: "late-upgrade-", Topology: other}))
}
