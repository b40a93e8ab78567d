package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/report"
)

func TestBenchUpgradePrintsWhereCallsWereLost(t *testing.T) {
	run := bench.UpgradeRun{
		OperateSeconds: 93, Calls: 300, Lost: 1, LongestGapSeconds: 1.2, Result: report.Failed, Timetable: &report.Timetable{},
		Streams: []bench.UpgradeStream{{Stream: "fresh", Calls: 200, LongestGapSeconds: 0.2},
			{Stream: "kept", Calls: 100, Lost: 1, LongestGapSeconds: 1.2}},
		Losses: []bench.UpgradeLoss{{State: "4 restart client@cluster-a", Stream: "kept", Lost: 1, Because: "UC"}},
	}
	u := bench.Upgrades{Upgrades: []bench.Upgrade{
		{Scenario: "upgrade-by-revision", Result: report.Failed, Runs: []bench.UpgradeRun{run, {Result: report.Errored, Reason: "no machine"}}},
	}}
	var out strings.Builder
	require.NoError(t, printBenchUpgrade(&out, u))
	require.Equal(t, `SCENARIO             RUNS  RESULT  OPERATE  CALLS  LOST  LONGEST GAP
upgrade-by-revision  2     failed  46.5 s   300    1     1.2 s

upgrade-by-revision, run 1:
  fresh: 200 calls, 0 lost, longest gap 0.2 s
  kept: 100 calls, 1 lost, longest gap 1.2 s
  lost in 4 restart client@cluster-a: 1 of kept: UC

upgrade-by-revision, run 2:
  there is no timetable: no machine
`, out.String())
}

func TestWriteBetween(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o644)) }
	write("# A\n<!-- upgrades: begin -->\nold\n<!-- upgrades: end -->\nrest\n")
	for range 2 { // again and again
		require.NoError(t, writeBetween(file, upgradeMark, "new\n"))
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "# A\n<!-- upgrades: begin -->\nnew\n<!-- upgrades: end -->\nrest\n", string(text))
	}
	require.ErrorContains(t, writeBetween(file, soakMark, "new\n"), "seen not both")
	write("<!-- upgrades: end -->\n<!-- upgrades: begin -->\n")
	require.ErrorContains(t, writeBetween(file, upgradeMark, "new\n"), "seen not both")
}

func TestUpgradeScenariosOfTheCatalogue(t *testing.T) {
	all, err := upgradeScenarios(nil)
	require.NoError(t, err)
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	require.Contains(t, names, "upgrade-by-revision")
	require.NotContains(t, names, "late-cacerts")
}
