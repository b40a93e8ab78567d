package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Upgrades are upgrades of Istio, and wrong ones, with what each cost in calls. The JSON names are stable.
type Upgrades struct {
	Date     string            `json:"date"`
	Versions map[string]string `json:"versions"` // of the bundle's parts, the Istios among them
	Upgrades []Upgrade         `json:"upgrades"`
}

// Upgrade is one scenario.
type Upgrade struct {
	Scenario string        `json:"scenario"`
	Title    string        `json:"title"`
	Result   report.Result `json:"result"` // the worst of the runs
	Runs     []UpgradeRun  `json:"runs"`
}

// UpgradeRun is one run. The states and streams are in its timetable.
type UpgradeRun struct {
	OperateSeconds    float64           `json:"operate_seconds"` // of break, where the scenario has that
	Calls             int               `json:"calls"`
	Lost              int               `json:"lost"`
	LongestGapSeconds float64           `json:"longest_gap_seconds"` // of any stream in any state
	Streams           []UpgradeStream   `json:"streams"`
	Losses            []UpgradeLoss     `json:"losses"`
	Timetable         *report.Timetable `json:"timetable,omitempty"`
	Lab               string            `json:"lab,omitempty"`
	Result            report.Result     `json:"result"`
	Reason            string            `json:"reason,omitempty"` // why it did not pass
}

// UpgradeStream is a stream over all states.
type UpgradeStream struct {
	Stream            string  `json:"stream"`
	Calls             int     `json:"calls"`
	Lost              int     `json:"lost"`
	LongestGapSeconds float64 `json:"longest_gap_seconds"` // within a state
}

// UpgradeLoss is where a stream lost calls.
type UpgradeLoss struct {
	State   string `json:"state"`
	Stream  string `json:"stream"`
	Lost    int    `json:"lost"`
	Because string `json:"because,omitempty"`
}

// IsUpgrade reports whether `bench upgrade` runs a scenario when none is named: by its name, or because its topology names a version of
// Istio, as those do that show a wrong order.
func IsUpgrade(s *scenario.Scenario) bool {
	return strings.HasPrefix(s.Name, "upgrade-") ||
		slices.ContainsFunc(s.Topology.All(), func(c scenario.Cluster) bool { return c.Istio != "" })
}

func newUpgradeRun(e catalogue.Ending) UpgradeRun {
	r := UpgradeRun{
		Lab: e.Lab, Result: e.Verdict.Result, Reason: e.Verdict.Reason, Timetable: e.Timetable,
		Streams: []UpgradeStream{}, Losses: []UpgradeLoss{},
	}
	if e.Err != nil {
		r.Result, r.Reason = report.Errored, e.Err.Error()
	}
	for _, p := range e.Phases {
		if p.Phase == scenario.Operate || p.Phase == scenario.Break {
			r.OperateSeconds += p.Took.Seconds()
		}
	}
	if e.Timetable == nil {
		return r
	}
	for _, state := range e.Timetable.States {
		for _, s := range state.Streams {
			r.Calls, r.Lost = r.Calls+s.Calls, r.Lost+s.Lost
			r.LongestGapSeconds = max(r.LongestGapSeconds, s.LongestGapSeconds)
			i := slices.IndexFunc(r.Streams, func(u UpgradeStream) bool { return u.Stream == s.Stream })
			if i < 0 {
				i, r.Streams = len(r.Streams), append(r.Streams, UpgradeStream{Stream: s.Stream})
			}
			u := &r.Streams[i]
			u.Calls, u.Lost, u.LongestGapSeconds = u.Calls+s.Calls, u.Lost+s.Lost, max(u.LongestGapSeconds, s.LongestGapSeconds)
			if s.Lost > 0 {
				r.Losses = append(r.Losses, UpgradeLoss{State: state.Title(), Stream: s.Stream, Lost: s.Lost, Because: s.Because})
			}
		}
	}
	return r
}

// MeasureUpgrades runs each scenario that often. The catalogue's OnEnded is called for each run, too. What was measured before ctx
// ended is in the result.
func MeasureUpgrades(ctx context.Context, c catalogue.Runner, all []*scenario.Scenario, runs int) (Upgrades, error) {
	b, err := lab.OpenBundle()
	if err != nil {
		return Upgrades{}, err
	}
	var list []*scenario.Scenario
	for range runs {
		list = append(list, all...)
	}
	result := Upgrades{Date: time.Now().Format(time.DateOnly), Versions: b.Versions(), Upgrades: make([]Upgrade, len(all))}
	for i, s := range all {
		result.Upgrades[i] = Upgrade{Scenario: s.Name, Title: s.Title, Result: report.Passed, Runs: []UpgradeRun{}}
	}
	if previous, err := b.Istio(string(scenario.Previous)); err == nil { // what is missing, a lab says
		result.Versions["istioctl-previous"] = previous.Tag
	}
	told := c.OnEnded
	c.OnEnded = func(e catalogue.Ending) bool {
		one := &result.Upgrades[e.Index%len(all)]
		run := newUpgradeRun(e)
		one.Runs = append(one.Runs, run)
		one.Result = worse(one.Result, run.Result)
		return told == nil || told(e)
	}
	_, err = c.Run(ctx, list)
	return result, err
}

// sums are the calls of all runs, and the longest gap of any.
func (u Upgrade) sums() (calls, lost int, gap float64) {
	for _, r := range u.Runs {
		calls, lost, gap = calls+r.Calls, lost+r.Lost, max(gap, r.LongestGapSeconds)
	}
	return calls, lost, gap
}

// where says in which state which stream lost how many calls, over all runs.
func (u Upgrade) where() string {
	var all []UpgradeLoss
	for _, r := range u.Runs {
		for _, l := range r.Losses {
			i := slices.IndexFunc(all, func(o UpgradeLoss) bool { return o.State == l.State && o.Stream == l.Stream })
			if i < 0 {
				all = append(all, l)
				continue
			}
			all[i].Lost += l.Lost
		}
	}
	var texts []string
	for _, l := range all {
		texts = append(texts, fmt.Sprintf("%s: %d of %s", l.State, l.Lost, l.Stream))
	}
	return strings.Join(texts, "; ")
}

// Rows are the measurements as a table, with its head.
func (u Upgrades) Rows() [][]string {
	rows := [][]string{{"scenario", "runs", "result", "operate", "calls", "lost", "longest gap", "lost in"}}
	for _, one := range u.Upgrades {
		calls, lost, gap := one.sums()
		operate := medianOf(one.Runs, func(r UpgradeRun) float64 { return r.OperateSeconds })
		rows = append(rows, []string{
			one.Scenario, fmt.Sprint(len(one.Runs)), string(one.Result), fmt.Sprintf("%.1f s", operate), fmt.Sprint(calls), fmt.Sprint(lost),
			fmt.Sprintf("%.1f s", gap), cmp.Or(one.where(), "–"),
		})
	}
	return rows
}

// Markdown is the measurements for documents: all scenarios in a table, and below it the timetable of the last run of each. Link is
// where a scenario's files are, with %s for its name.
func (u Upgrades) Markdown(m Machine, link string) string {
	var out strings.Builder
	var versions []string
	for _, part := range []string{"istioctl-previous", "istioctl", "envoy", "kubernetes"} {
		if v := u.Versions[part]; v != "" {
			versions = append(versions, part+" "+v)
		}
	}
	fmt.Fprintf(&out, "- %s, %s\n", u.Date, words.And(versions))
	fmt.Fprintf(&out, "- Machine: %s, %d MiB of memory, Linux %s\n\n", words.Plural(m.CPUs, "CPU"), m.MemoryMiB, m.Kernel)
	for i, row := range u.Rows() {
		if i > 0 {
			row[0] = fmt.Sprintf("["+"%s]("+link+")", row[0], row[0])
		}
		out.WriteString(words.Row(row...))
		if i == 0 {
			out.WriteString("| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |\n")
		}
	}
	for _, one := range u.Upgrades {
		for _, r := range slices.Backward(one.Runs) {
			if r.Timetable != nil {
				fmt.Fprintf(&out, "\n### %s\n\n%s.\n\n%s", one.Scenario, strings.TrimSuffix(one.Title, "."), r.Timetable.Markdown())
				break
			}
		}
	}
	return out.String()
}
