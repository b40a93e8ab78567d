package scenarios

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

const doctorTable = "doctor.md"

// TestDoctorTableIsCurrent holds doctor.md to what scenarios want doctor to find and to what it found.
func TestDoctorTableIsCurrent(t *testing.T) {
	all := load(t)
	results := map[string]verb.Diagnosed{}
	data, err := os.ReadFile("doctor.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &results))
	for _, s := range all {
		_, asks := verb.Finds(s)
		assert.True(t, asks, "%s: its diagnosis does not ask doctor", s.File)
		// With two versions of Istio each takes a lab and minutes of its own: what doctor finds there is held by the scenario alone,
		// until somebody runs make doctor for it.
		if len(s.Topology.OtherIstios()) == 0 {
			assert.Contains(t, results, s.Name, "doctor.json: make doctor writes it")
		}
	}
	for name := range results {
		assert.FileExists(t, name+"/scenario.yaml", "doctor.json has %s: take it out", name)
	}
	text := confusion(all, results)
	if *update {
		require.NoError(t, os.WriteFile(doctorTable, []byte(text), 0o644))
	}
	current, err := os.ReadFile(doctorTable)
	require.NoError(t, err)
	require.True(t, string(current) == text, "%s is not what the files say; run `make generate`", doctorTable)
}

// confusion is the table of scenarios and findings.
func confusion(all []*scenario.Scenario, results map[string]verb.Diagnosed) string {
	var columns []string // findings that are wanted or were blamed, in their order
	for _, k := range doctor.Findings() {
		if slices.ContainsFunc(all, func(s *scenario.Scenario) bool {
			finds, _ := verb.Finds(s)
			return finds == k.ID || results[s.Name].Blamed[k.ID] > 0
		}) {
			columns = append(columns, k.ID)
		}
	}
	rows := slices.Clone(all) // the healthy ones last
	slices.SortStableFunc(rows, func(a, b *scenario.Scenario) int { return place(columns, a) - place(columns, b) })
	var b strings.Builder
	b.WriteString(`# What doctor finds in each scenario

<!-- Written by ` + "`make generate`" + ` from the scenario files and doctor.json, which ` + "`make doctor`" + ` writes. -->

Each scenario was broken, examined by ` + "`eastwest doctor`" + `, and put back. A row is a scenario, a column a finding: the number tells in
how many runs it was blamed, as an error or a warning that follows from nothing else. What the scenario says is the cause is in bold.
What was told as an effect of it stands in the last column. Where there are no runs, nobody has written them down yet.

`)
	for i, id := range columns {
		fmt.Fprintf(&b, "%d. %s\n", i+1, id)
	}
	head := []string{"scenario", "runs"}
	for i := range columns {
		head = append(head, fmt.Sprint(i+1))
	}
	head = append(head, "nothing", "effects")
	b.WriteString("\n")
	row(&b, head...)
	row(&b, slices.Repeat([]string{"---"}, len(head))...)
	for _, s := range rows {
		r := results[s.Name]
		finds, _ := verb.Finds(s)
		cells := []string{fmt.Sprintf("[%s](%[1]s/scenario.yaml)", s.Name), fmt.Sprint(r.Runs)}
		cell := func(wanted bool, n int) {
			switch {
			case wanted && r.Runs == 0:
				cells = append(cells, "**?**")
			case wanted:
				cells = append(cells, fmt.Sprintf("**%d**", n))
			case n > 0:
				cells = append(cells, fmt.Sprint(n))
			default:
				cells = append(cells, "")
			}
		}
		most := 0
		for _, id := range columns {
			cell(finds == id, r.Blamed[id])
			most = max(most, r.Blamed[id])
		}
		cell(finds == doctor.Nothing, r.Runs-most)
		var effects []string
		for _, k := range doctor.Findings() {
			if r.Effects[k.ID] > 0 {
				effects = append(effects, k.ID)
			}
		}
		row(&b, append(cells, strings.Join(effects, ", "))...)
	}
	return b.String()
}

func place(columns []string, s *scenario.Scenario) int {
	finds, _ := verb.Finds(s)
	if i := slices.Index(columns, finds); i >= 0 {
		return i
	}
	return len(columns)
}
