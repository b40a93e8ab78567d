package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// ran makes a run of a scenario that took a minute.
func ran(dir string, minute int, result report.Result) Run {
	at := time.Date(2026, 11, 30, 12, minute, 0, 0, time.UTC)
	scenario := dir[strings.LastIndexByte(dir, '/')+1:]
	step := report.Event{Type: report.StepEnded, Phase: "healthy", Name: "<b>the step</b>", Result: result, Wanted: "w", Seen: dir, Time: at}
	return Run{Dir: dir, Events: []report.Event{
		{Type: report.ScenarioStarted, Scenario: scenario, Time: at},
		{Type: report.PhaseStarted, Phase: "healthy", Time: at},
		step,
		{Type: report.PhaseEnded, Phase: "healthy", Result: result, Time: at},
		{Type: report.ScenarioEnded, Scenario: scenario, Result: result, Seconds: 60, Time: at.Add(time.Minute)},
	}}
}

func TestFlakyIsNotFailing(t *testing.T) {
	const p, f, e, s = report.Passed, report.Failed, report.Errored, report.Skipped
	for _, test := range []struct {
		results []report.Result
		state   State
		passed  int
	}{
		{[]report.Result{p, p}, StatePassed, 2},
		{[]report.Result{p, s}, StatePassed, 1},
		{[]report.Result{f}, StateFailing, 0},
		{[]report.Result{f, e}, StateFailing, 0},
		{[]report.Result{p, f}, StateFlaky, 1},
		{[]report.Result{f, p, p}, StateFlaky, 2},
		{[]report.Result{p, f, p}, StateFlaky, 2},
		{[]report.Result{p, p, f, f}, StateFailing, 2},
		{[]report.Result{p, f, s, f}, StateFailing, 1},
		{[]report.Result{s, s}, StateSkipped, 0},
	} {
		var runs []Run
		for i, r := range test.results {
			runs = append(runs, ran(fmt.Sprintf("runs/%d/x", i), 10*i, r))
		}
		g := NewGrid(runs)
		require.Len(t, g.Rows, 1)
		assert.Equalf(t, test.state, g.Rows[0].State, "%v", test.results)
		assert.Equalf(t, test.passed, g.Rows[0].Passed, "%v", test.results)
		assert.Lenf(t, g.Columns, len(test.results), "%v", test.results)
	}
}

func TestShardsAreOneRun(t *testing.T) {
	assert.Equal(t, "No scenario began in these runs.", NewGrid([]Run{{Dir: "cut/off"}}).Says())
	g := NewGrid([]Run{
		ran("one/shard-1/a", 0, report.Passed), ran("one/shard-2/b", 0, report.Failed), ran("one/shard-1/c", 1, report.Passed),
		ran("two/a", 30, report.Failed), ran("two/b", 31, report.Failed),
		{Dir: "cut/off"},
	})
	require.Len(t, g.Columns, 2)
	assert.Equal(t, []string{"one/shard-1", "one/shard-2"}, g.Columns[0].Folders)
	var text strings.Builder
	require.NoError(t, g.Text(&text))
	assert.Equal(t, `SCENARIO  STATE    PASSED  RUNS
b         failing  0 of 2  ✗✗
a         flaky    1 of 2  ✓✗
c         passed   1 of 1  ✓
3 scenarios in 2 runs: 1 failing, 1 flaky and 1 passed.
`, text.String())
	require.Len(t, g.Failures, 2, "equal failures are one group")
	assert.Equal(t, []string{"one/shard-2/b", "two/b"}, g.Failures[0].Dirs)
	assert.Equal(t, "two/b", g.Failures[0].Seen, "the last one is shown")
	var page strings.Builder
	require.NoError(t, g.HTML(&page))
	standsAlone(t, page.String())
	holds(t, page.String(), `<a class="bad" href="#failure-1" title="failed in healthy">✗ failed in healthy</a>`)
	holds(t, page.String(), "&lt;b&gt;the step&lt;/b&gt;")
	holds(t, page.String(), `<td class="flaky">flaky</td>`)
	holds(t, page.String(), `began (UTC)</th>`)
	holds(t, page.String(), `<span class="unseen">did not run</span>`)
}

// TestFolderThatIsUsedAgain has two runs of other scenarios in one folder.
func TestFolderThatIsUsedAgain(t *testing.T) {
	later := ran("out/c", 0, report.Passed)
	for i := range later.Events {
		later.Events[i].Time = later.Events[i].Time.Add(24 * time.Hour)
	}
	g := NewGrid([]Run{ran("out/a", 0, report.Passed), ran("out/b", 20, report.Passed), later})
	require.Len(t, g.Columns, 2)
	assert.Equal(t, []string{"out"}, g.Columns[0].Folders)
	assert.Equal(t, []string{"out"}, g.Columns[1].Folders)
	assert.Equal(t, "3 scenarios in 2 runs: 3 passed.", g.Says())
}

func TestWorkingDirectoryHasAName(t *testing.T) {
	t.Chdir(t.TempDir())
	unnamed := ran("./x", 0, report.Passed) // as by an older eastwest
	unnamed.Events[0].Scenario = ""
	unnamed.Dir = "."
	dir, err := os.Getwd()
	require.NoError(t, err)
	g := NewGrid([]Run{unnamed})
	assert.Equal(t, filepath.Base(dir), g.Rows[0].Scenario)
	assert.Equal(t, []string{".."}, g.Columns[0].Folders)
	v, err := viewOf(unnamed)
	require.NoError(t, err)
	assert.Equal(t, filepath.Base(dir), v.Scenario)
}

// TestMergeOfThirtyRunsIsFast reads and joins thirty runs of two scenarios as they were recorded, each in a folder of its own.
func TestMergeOfThirtyRunsIsFast(t *testing.T) {
	require.NoError(t, wait.Measure())
	began := time.Now()
	var all []Run
	for i := range 30 {
		for _, dir := range []string{passed, failed} {
			events, err := report.Read(dir)
			require.NoError(t, err)
			for n := range events {
				events[n].Time = events[n].Time.Add(time.Duration(i) * 24 * time.Hour)
			}
			all = append(all, Run{Dir: fmt.Sprintf("runs/%d/%s", i, dir), Events: events})
		}
	}
	g := NewGrid(all)
	var page strings.Builder
	require.NoError(t, g.HTML(&page))
	took := time.Since(began)
	t.Logf("%d bytes after %s", page.Len(), took)
	assert.Less(t, took, wait.Bound(2*time.Second))
	assert.Equal(t, "2 scenarios in 60 runs: 1 failing and 1 passed.", g.Says())
}
