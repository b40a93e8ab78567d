package page

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/eastwest-lab/eastwest/lab/report"
)

// upgraded is a run in which a state was read before the break and after each of its steps.
func upgraded(t *testing.T, control string) Run {
	t.Helper()
	run := load(t, passed)
	var events []report.Event
	state := func(after report.Event, phase, label, revision string) {
		events = append(events, report.Event{Type: report.StateRead, Time: after.Time, Phase: phase, Name: label,
			State: &report.State{Clusters: []report.ClusterState{{
				Cluster: "cluster-a", ControlPlanes: []report.ControlPlane{{Revision: control, Version: "1.30-abc", Ready: true}},
				Injection: revision,
			}}}})
	}
	open := false
	for _, e := range run.Events {
		if e.Type == report.PhaseEnded && e.Phase == "baseline" {
			state(e, "baseline", "before", "default")
		}
		events = append(events, e)
		switch {
		case e.Type == report.StepStarted:
			open = e.Phase == "break"
		case e.Type == report.StepEnded && open:
			state(e, "break", "set-tag cluster-a default 1-31", "1-31")
			open = false
		}
	}
	run.Events = events
	return run
}

func TestTimetableOfAPage(t *testing.T) {
	run := upgraded(t, "default")
	text := pageOf(t, run)
	table := report.TimetableOf(run.Events, run.Recordings)
	require.Greater(t, len(table.States), 3)
	require.NotZero(t, table.Lost())
	holds(t, text, `<h2 id="timetable">`)
	holds(t, text, `<th scope="col">before</th><th scope="col">1 set-tag cluster-a default 1-31</th>`)
	holds(t, text, `<tr><th scope="row">new pods</th><td>default</td><td><b>1-31</b></td><td>1-31</td>`)
	holds(t, text, `<tr><th scope="row">control planes</th><td>default: 1.30</td><td>default: 1.30</td>`)
	for _, sentence := range table.Losses() {
		holds(t, text, html.EscapeString(sentence))
	}
	holds(t, text, html.EscapeString(table.Markdown())) // to copy for an issue
	_, section, _ := strings.Cut(text, `<h2 id="timetable">`)
	section, _, _ = strings.Cut(section, "<h2 ")
	assert.Contains(t, section, `<div class="wide" tabindex="0" role="region" aria-label=`, "it can be scrolled with the keyboard")
	for _, tag := range []string{"table", "thead", "tbody", "tr", "th", "td", "b"} {
		assert.Equal(t, strings.Count(section, "</"+tag+">"), strings.Count(section, "<"+tag+">")+strings.Count(section, "<"+tag+" "), tag)
	}
	rows := strings.Count(section, "<tr>")
	assert.Equal(t, len(table.Rows())+1+2, rows, "the head, and the names of two groups")
	holdsNot(t, pageOf(t, load(t, passed)), `id="timetable"`)
}

func TestTimetableIsOnlyText(t *testing.T) {
	const hostile = `</td><script>alert(1)</script>`
	text := pageOf(t, upgraded(t, hostile))
	holds(t, text, html.EscapeString(hostile))
	holdsNot(t, text, hostile)
	holdsNot(t, text[:strings.LastIndex(text, "<script>")], "<script>alert")
}

func TestStatesAreNoSteps(t *testing.T) {
	with, err := viewOf(upgraded(t, "default"))
	require.NoError(t, err)
	without, err := viewOf(load(t, passed))
	require.NoError(t, err)
	require.Equal(t, without.Story, with.Story)
	require.Equal(t, len(without.Phases), len(with.Phases))
	for i, p := range with.Phases {
		assert.Equal(t, len(without.Phases[i].Steps), len(p.Steps), p.Phase)
	}
	require.True(t, slices.Equal(without.Plot.Faults, with.Plot.Faults))
}
