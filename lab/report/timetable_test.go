package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/traffic"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// upgrade is a run with two changes: one ends at 20 s, the other at 30 s. Reading the states takes 2 s.
func upgrade() []Event {
	state := func(gateway, tag, service string) *State {
		return &State{Clusters: []ClusterState{{
			Cluster:       "cluster-a",
			ControlPlanes: []ControlPlane{{"1-31", "1.31-bbb", true}, {"default", "1.30-aaa", true}},
			Proxies:       []ProxyCount{{"1.30-aaa", "default", 3}, {"1.31-bbb", "1-31", 1}},
			Gateway:       []ProxyCount{{gateway, "1-31", 1}},
			Tags:          map[string]string{"default": tag}, Injection: tag,
			Validation: []Webhook{{Name: "istiod-default-validator", Service: service, Gone: service == "istiod-1-30"},
				{Name: "istio-validator-1-31-istio-system", Service: "istiod-1-31", Labelled: true}},
			Roots: []InUse{{"AA:AA:AA:AA", 4}}, Issuers: []InUse{{"BB:BB:BB:BB", 3}, {"CC:CC:CC:CC", 1}},
		}}}
	}
	event := func(seconds float64, e Event) Event {
		e.Time, e.Scenario = at(seconds), "upgrade"
		return e
	}
	last := state("1.31-bbb", "1-31", "istiod-1-30")
	last.Clusters[0].Unread = map[string]string{"roots": "it is frozen"}
	return []Event{
		event(0, Event{Type: ScenarioStarted, Name: "Upgrade"}),
		event(0, Event{Type: PhaseStarted, Phase: "baseline"}),
		event(9, Event{Type: StepEnded, Phase: "baseline", Name: "a check", Result: Passed}),
		event(10, Event{Type: StateRead, Phase: "baseline", Name: "before", State: state("1.30-aaa", "default", "istiod")}),
		event(10, Event{Type: PhaseEnded, Phase: "baseline", Result: Passed}),
		event(11, Event{Type: StepStarted, Phase: "operate", Name: "make the gateway new", Command: "istioctl install"}),
		event(20, Event{Type: StepEnded, Phase: "operate", Name: "make the gateway new", Command: "istioctl install", Result: Passed,
			Seconds: 9}),
		event(22, Event{Type: StateRead, Phase: "operate", Name: "upgrade-gateway cluster-a 1-31",
			State: state("1.31-bbb", "default", "istiod")}),
		event(23, Event{Type: StepEnded, Phase: "operate", Name: "a check", Result: Passed, Seconds: 1}),
		event(24, Event{Type: StepStarted, Phase: "operate", Name: "move the tag", Command: "istioctl tag set"}),
		event(30, Event{Type: StepEnded, Phase: "operate", Name: "move the tag", Command: "istioctl tag set", Result: Failed, Seconds: 6}),
		event(32, Event{Type: StateRead, Phase: "operate", Name: "set-tag cluster-a default 1-31", State: last}),
		event(40, Event{Type: PhaseStarted, Phase: "undo"}),
		event(70, Event{Type: ScenarioEnded, Result: Failed, Seconds: 70}),
	}
}

// streamWith is a call each second that takes 100 ms, and others in place of those of the same second.
func streamWith(name string, others ...traffic.Call) *traffic.Recording {
	r := &traffic.Recording{Stream: name, ExpectCluster: "cluster-b", Every: time.Second, Began: at(0), Ended: at(40)}
	for second := range 40 {
		call := good(float64(second), float64(second)+0.1)
		for _, o := range others {
			if int(o.Start.Sub(noon).Seconds()) == second {
				call = o
			}
		}
		r.Calls = append(r.Calls, call)
	}
	return r
}

func good(start, end float64) traffic.Call {
	return traffic.Call{Start: at(start), End: at(end), Issued: true, Code: 200, Cluster: "cluster-b", Attempts: 1}
}

func lost(start, end float64) traffic.Call {
	return traffic.Call{Start: at(start), End: at(end), Issued: true, Code: 503, Err: "UC", Attempts: 1}
}

// lossesOf are the lost calls of a stream by state.
func lossesOf(t *Timetable, stream int) (all []int) {
	for _, s := range t.States {
		all = append(all, s.Streams[stream].Lost)
	}
	return all
}

func TestLostCallsBelongToTheStateInWhichTheyStarted(t *testing.T) {
	for name, test := range map[string]struct {
		calls []traffic.Call
		want  []int
	}{
		"none":                                     {nil, []int{0, 0, 0, 0}},
		"before the first change":                  {[]traffic.Call{lost(3, 3.1)}, []int{1, 0, 0, 0}},
		"while the baseline was read":              {[]traffic.Call{lost(9.5, 9.6)}, []int{1, 0, 0, 0}},
		"in the first change":                      {[]traffic.Call{lost(12, 12.1)}, []int{0, 1, 0, 0}},
		"at the moment in which a change ends":     {[]traffic.Call{lost(20, 20.1)}, []int{0, 0, 1, 0}},
		"just before it":                           {[]traffic.Call{lost(19.999, 20.1)}, []int{0, 1, 0, 0}},
		"while a state is read and a gate is held": {[]traffic.Call{lost(21, 21.1), lost(22.5, 22.6)}, []int{0, 0, 2, 0}},
		"started in one and failed in the next":    {[]traffic.Call{lost(19, 27)}, []int{0, 1, 0, 0}},
		"started in one and failed after all":      {[]traffic.Call{lost(29, 38)}, []int{0, 0, 1, 0}},
		"after the last change":                    {[]traffic.Call{lost(30, 30.1), lost(39, 39.1)}, []int{0, 0, 0, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			table := TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b", test.calls...)})
			assert.Equal(t, test.want, lossesOf(table, 0))
			calls := 0
			for _, s := range table.States {
				calls += s.Streams[0].Calls
			}
			assert.Equal(t, 40, calls, "each call is in one state")
		})
	}
}

// TestKeptConnectionOfATimetable has a client that makes one call after the other: one hangs over both changes, and its next one is
// in the state after them.
func TestKeptConnectionOfATimetable(t *testing.T) {
	r := &traffic.Recording{Stream: "a-to-b-kept", ExpectCluster: "cluster-b", Began: at(0), Ended: at(40)}
	for second := range 15 {
		r.Calls = append(r.Calls, good(float64(second), float64(second)+0.5))
	}
	r.Calls = append(r.Calls, lost(15, 31), good(31.5, 32))
	table := TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b"), r})
	assert.Equal(t, []int{0, 1, 0, 0}, lossesOf(table, 1))
	assert.Equal(t, TimetableStream{Stream: "a-to-b-kept", Calls: 6, Lost: 1, LongestGapSeconds: 5.5, Because: "UC"},
		table.States[1].Streams[1], "the gap is cut where the state ends")
	assert.Equal(t, TimetableStream{Stream: "a-to-b-kept", LongestGapSeconds: 10}, table.States[2].Streams[1],
		"no call started: all of it is a gap")
	assert.Equal(t, "no calls", table.States[2].Streams[1].Text())
	assert.Equal(t, []string{"1 upgrade-gateway cluster-a 1-31: 1 of 6 calls of a-to-b-kept, UC"}, table.Losses())
}

func TestStatesOfATimetable(t *testing.T) {
	table := TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b", lost(12, 12.1))})
	var titles []string
	for i, s := range table.States {
		titles = append(titles, s.Title())
		if i > 0 {
			assert.Equal(t, table.States[i-1].To, s.From, "no time is in two states or in none")
		}
	}
	assert.Equal(t, []string{"before", "1 upgrade-gateway cluster-a 1-31", "2 set-tag cluster-a default 1-31 (failed)", "after"}, titles)
	assert.Equal(t, at(40), table.States[3].To, "the undoing is no part of it")
	assert.Equal(t, at(20), table.States[1].To, "reading the state is no part of the change")
	assert.InDelta(t, 9, table.States[1].Seconds, 0, "nor is the check before it")
	rows := map[string][]string{}
	for _, r := range table.Rows() {
		for _, c := range r.Cells {
			text := c.Text
			if c.Changed {
				text = "> " + text
			}
			if c.Bad {
				text = "! " + text
			}
			rows[r.Group+" "+r.Name] = append(rows[r.Group+" "+r.Name], text)
		}
	}
	planes, proxies := "1-31: 1.31, default: 1.30", "3 × 1.30 by default, 1 × 1.31 by 1-31"
	issuers := "3 × BB:BB:BB:BB, 1 × CC:CC:CC:CC"
	assert.Equal(t, map[string][]string{
		"cluster-a control planes": {planes, planes, planes, ""},
		"cluster-a proxies":        {proxies, proxies, proxies, ""},
		"cluster-a gateway":        {"1 × 1.30 by 1-31", "> 1 × 1.31 by 1-31", "1 × 1.31 by 1-31", ""},
		"cluster-a tags":           {"default → default", "default → default", "> default → 1-31", ""},
		"cluster-a new pods":       {"default", "default", "> 1-31", ""},
		"cluster-a validation":     {"istiod", "istiod", "! > istiod-1-30 (gone)", ""},
		"cluster-a roots":          {"AA:AA:AA:AA", "AA:AA:AA:AA", "> not read", ""},
		"cluster-a issuers":        {issuers, issuers, issuers, ""},
		"calls a-to-b": {
			"10 calls, 0 lost, gap 1.00 s", "! 10 calls, 1 lost, gap 2.00 s", "10 calls, 0 lost, gap 1.00 s",
			"10 calls, 0 lost, gap 1.00 s",
		},
	}, rows)
	assert.Equal(t, []string{"2 set-tag cluster-a default 1-31 (failed): roots of cluster-a: it is frozen"}, table.Unread())
}

func TestVersionsOfATimetableStayDistinct(t *testing.T) {
	events := upgrade()
	events[3].State.Clusters[0].ControlPlanes[0].Version = "1.30-other"
	for _, r := range TimetableOf(events, nil).Rows() {
		if r.Name == "control planes" {
			assert.Equal(t, "1-31: 1.30-other, default: 1.30-aaa", r.Cells[0].Text)
		}
	}
}

func TestTimetableOfOtherRuns(t *testing.T) {
	assert.Nil(t, TimetableOf(nil, nil))
	assert.Nil(t, TimetableOf(recorded(t), nil), "no mesh that is made for upgrades")
	killed := TimetableOf(upgrade()[:9], nil) // it has no recordings
	require.Len(t, killed.States, 3)
	assert.Equal(t, "1 change, and no calls are recorded", killed.Says())
	assert.Equal(t, at(23), killed.States[2].To, "the last that is known")
}

func TestTimetableOfATerminal(t *testing.T) {
	quiet := TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b")})
	var out bytes.Buffer
	require.NoError(t, quiet.Write(&out, false))
	assert.Equal(t, "upgrade: 2 changes, 40 calls, 0 lost\n", out.String())
	out.Reset()
	require.NoError(t, TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b", lost(12, 12.1))}).Write(&out, false))
	golden(t, "timetable.txt", out.String())
	golden(t, "timetable.md", TimetableOf(upgrade(), []*traffic.Recording{streamWith("a-to-b", lost(12, 12.1))}).Markdown())
	for line := range strings.Lines(out.String()) {
		assert.Equal(t, strings.TrimRight(line, " \n"), strings.TrimRight(line, "\n"), "no blanks at the end")
	}
}

// TestTimetableOfAFolder takes the way through the files of a run.
func TestTimetableOfAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	folder, err := NewFolder(dir)
	require.NoError(t, err)
	events := upgrade()
	events[11].State.Clusters[0].Unread["roots"] = "-----BEGIN PRIVATE KEY-----\n" +
		"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----"
	for _, e := range events {
		folder.Emit(e)
	}
	require.NoError(t, folder.Close())
	require.NoError(t, streamWith("a-to-b", lost(12, 12.1)).Save(filepath.Join(dir, "traffic-a-to-b.json")))
	read, err := Read(dir)
	require.NoError(t, err)
	all, err := SummarizeFolder(dir, read)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, []int{0, 1, 0, 0}, lossesOf(all[0].Timetable, 0))
	var out bytes.Buffer
	require.NoError(t, JSON(&out, all))
	var parsed struct {
		Timetable struct {
			States []struct {
				Label   string
				Streams []struct {
					Lost              int
					LongestGapSeconds float64
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &parsed))
	assert.Equal(t, 1, parsed.Timetable.States[1].Streams[0].Lost)
	file, err := os.ReadFile(filepath.Join(dir, eventsFile))
	require.NoError(t, err)
	assert.NotContains(t, string(file)+out.String(), "MIIEvQ")
}
