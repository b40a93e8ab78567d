package page

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Grid is many runs side by side: a row for each scenario, a column for each run.
type Grid struct {
	Columns  []Column
	Rows     []Row
	Failures []FailureGroup
}

// Column is one run of some scenarios, by one eastwest or by several at once, each with a part of them.
type Column struct {
	Began, Ended time.Time
	Folders      []string
	scenarios    map[string]bool
}

// Name is when the run began.
func (c Column) Name() string { return c.Began.UTC().Format("2006-01-02 15:04") }

// Day is when the run began, without the time.
func (c Column) Day() string { return c.Began.UTC().Format("2006-01-02") }

// Time is that of the day on which it began.
func (c Column) Time() string { return c.Began.UTC().Format("15:04") }

// State says how a scenario is over several runs.
type State string

// The states. A scenario that failed and then passed again is flaky, not failing.
const (
	StatePassed  State = "passed"
	StateFlaky   State = "flaky"
	StateFailing State = "failing" // it never passed, or failed the last two times
	StateSkipped State = "skipped" // it never ran
)

// Row is a scenario.
type Row struct {
	Scenario     string
	State        State
	Cells        []*Cell // one for each column; nil where it did not run
	Passed, Runs int     // without those that were skipped
}

// Cell is one run of a scenario.
type Cell struct {
	Result  report.Result
	Seconds float64
	Phase   string // in which it failed
	Group   int    // of its failure, counted from 1
	Dir     string
}

// Mark is the result as a sign.
func (c Cell) Mark() string {
	switch c.Result {
	case report.Passed:
		return "✓"
	case report.Skipped:
		return "–"
	}
	return "✗"
}

// Says is the result in words.
func (c Cell) Says() string {
	switch {
	case c.Result == report.Passed:
		return words.Seconds(time.Duration(c.Seconds * float64(time.Second)))
	case c.Phase != "":
		return fmt.Sprintf("%s in %s", c.Result, c.Phase)
	}
	return string(c.Result)
}

// FailureGroup are failures of the same step.
type FailureGroup struct {
	Number          int
	Scenario, Phase string
	report.Failure  // of the last one
	Dirs            []string
}

// NewGrid makes a grid of runs, of which it needs only the events.
func NewGrid(runs []Run) Grid {
	type one struct {
		report.Summary
		dir, group   string
		began, ended time.Time
	}
	var all []one
	for _, r := range runs {
		summaries := report.Summarize(r.Events)
		if len(summaries) == 0 {
			continue // it was cut off before it began
		}
		for _, s := range summaries {
			s.Scenario = cmp.Or(s.Scenario, nameOf(r.Dir))
			all = append(all, one{s, r.Dir, groupOf(r.Dir), r.Events[0].Time, r.Events[len(r.Events)-1].Time})
		}
	}
	slices.SortStableFunc(all, func(a, b one) int { return a.began.Compare(b.began) })
	var g Grid
	column := map[string]int{} // by folder
	cells := map[string]map[int]*Cell{}
	groups := map[string]int{}
	for _, run := range all {
		n, known := column[run.group]
		if !known || g.Columns[n].scenarios[run.Scenario] || run.began.After(g.Columns[n].Ended.Add(pause)) {
			n = g.columnFor(run.Scenario, run.began)
			column[run.group] = n
		}
		c := &g.Columns[n]
		c.scenarios[run.Scenario] = true
		if !slices.Contains(c.Folders, run.group) {
			c.Folders = append(c.Folders, run.group)
		}
		if run.ended.After(c.Ended) {
			c.Ended = run.ended
		}
		cell := &Cell{Result: run.Result, Seconds: run.Seconds, Dir: run.dir}
		if run.Result.Bad() {
			phase, failure := firstFailure(run.Summary)
			if failure == nil {
				failure = &report.Failure{Step: cmp.Or(run.Reason, "it did not end"), Result: run.Result}
			}
			failure.Step = cmp.Or(failure.Step, "the phase") // what it does by itself failed
			cell.Phase = phase
			key := strings.Join([]string{run.Scenario, phase, failure.Step}, "\n")
			if groups[key] == 0 {
				g.Failures = append(g.Failures, FailureGroup{Number: len(g.Failures) + 1, Scenario: run.Scenario, Phase: phase})
				groups[key] = len(g.Failures)
			}
			cell.Group = groups[key]
			group := &g.Failures[cell.Group-1]
			group.Failure, group.Dirs = *failure, append(group.Dirs, run.dir)
		}
		if cells[run.Scenario] == nil {
			cells[run.Scenario] = map[int]*Cell{}
		}
		cells[run.Scenario][n] = cell
	}
	for _, name := range sortedKeys(cells) {
		row := Row{Scenario: name}
		for n := range g.Columns {
			row.Cells = append(row.Cells, cells[name][n])
		}
		row.judge()
		g.Rows = append(g.Rows, row)
	}
	order := []State{StateFailing, StateFlaky, StatePassed, StateSkipped}
	slices.SortStableFunc(g.Rows, func(a, b Row) int { return slices.Index(order, a.State) - slices.Index(order, b.State) })
	return g
}

// pause is more than what lies between two scenarios of one run, in which a lab may be made anew. A folder that got another run
// later has two.
const pause = time.Hour

// nameOf returns the name of a folder, also of the one that is the working directory.
func nameOf(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return filepath.Base(dir)
}

// groupOf returns the folder in which a run folder lies.
func groupOf(dir string) string {
	if base := filepath.Base(dir); base == "." || base == ".." {
		return filepath.Join(dir, "..")
	}
	return filepath.Dir(dir)
}

// columnFor returns the column of a run: that of another one that goes on at the same time and has other scenarios, which is another
// part of the same, or a new one.
func (g *Grid) columnFor(scenario string, began time.Time) int {
	if n := len(g.Columns) - 1; n >= 0 && !g.Columns[n].scenarios[scenario] && began.Before(g.Columns[n].Ended) {
		return n
	}
	g.Columns = append(g.Columns, Column{Began: began, Ended: began, scenarios: map[string]bool{}})
	return len(g.Columns) - 1
}

func (r *Row) judge() {
	var bad []bool
	for _, c := range r.Cells {
		if c != nil && c.Result != report.Skipped {
			bad = append(bad, c.Result.Bad())
		}
	}
	r.Runs = len(bad)
	for _, b := range bad {
		if !b {
			r.Passed++
		}
	}
	switch n := len(bad); {
	case n == 0:
		r.State = StateSkipped
	case r.Passed == n:
		r.State = StatePassed
	case r.Passed == 0, bad[n-1] && bad[n-2]:
		r.State = StateFailing
	default:
		r.State = StateFlaky
	}
}

// Narrow says whether there is no room for words in the cells.
func (g Grid) Narrow() bool { return len(g.Columns) > 8 }

// Count is how many scenarios are in a state.
func (g Grid) Count(state State) (n int) {
	for _, r := range g.Rows {
		if r.State == state {
			n++
		}
	}
	return n
}

// Says is the grid in a sentence.
func (g Grid) Says() string {
	if len(g.Rows) == 0 {
		return "No scenario began in these runs."
	}
	var parts []string
	for _, s := range []State{StateFailing, StateFlaky, StatePassed, StateSkipped} {
		if n := g.Count(s); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return fmt.Sprintf("%s in %s: %s.", words.Plural(len(g.Rows), "scenario"), words.Plural(len(g.Columns), "run"), words.And(parts))
}

// Text writes the grid for a terminal: the runs as signs, the oldest first.
func (g Grid) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tSTATE\tPASSED\tRUNS")
	for _, r := range g.Rows {
		signs := ""
		for _, c := range r.Cells {
			if c == nil {
				signs += " "
			} else {
				signs += c.Mark()
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%d of %d\t%s\n", r.Scenario, r.State, r.Passed, r.Runs, strings.TrimRight(signs, " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, g.Says())
	return err
}

//go:embed grid.html
var gridPage string

// HTML writes the grid as a page.
func (g Grid) HTML(w io.Writer) error {
	t, err := template.New("grid").Funcs(template.FuncMap{
		"style":  look.Style,
		"policy": func() string { return look.Policy() },
	}).Parse(gridPage)
	if err == nil {
		err = t.Execute(w, g)
	}
	if err != nil {
		return fmt.Errorf("writing the grid of runs: %w", err)
	}
	return nil
}
