package page

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// plot is what plot.js draws. Its times are milliseconds since Began.
type plot struct {
	Began   time.Time    `json:"began"`
	To      int64        `json:"to"`
	Who     []string     `json:"who"`   // who answered
	Texts   []string     `json:"texts"` // why calls were lost, and pods
	Phases  []span       `json:"phases"`
	Faults  []span       `json:"faults"` // the changes, good and bad ones
	Streams []plotStream `json:"streams"`
}

type span struct {
	Label string `json:"label"`
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Bad   bool   `json:"bad,omitempty"`  // it failed
	Mend  bool   `json:"mend,omitempty"` // it repairs
}

// plotStream is a stream. Twenty thousand calls have to fit into a file: Calls holds three numbers for each, which are the time since
// the start of the call before, how long it took, and its index in Kinds.
type plotStream struct {
	Name   string  `json:"name"`
	Path   string  `json:"path"`
	Figure string  `json:"figure"`
	Kinds  []kind  `json:"kinds"`
	Calls  []int64 `json:"calls"`
}

// kind is what calls have in common. Its numbers are indexes, or -1 for nothing.
type kind struct {
	Outcome traffic.Outcome `json:"outcome"`
	Who     int             `json:"who"`
	Pod     int             `json:"pod"`
	Why     int             `json:"why"`
	Try     int             `json:"try,omitempty"` // where it was answered only then
}

// streamView is a stream in numbers.
type streamView struct {
	Name, From, URL, Expect string
	All                     traffic.Stats
	Phases                  []phaseStats
	Recovery                time.Duration // from the start of the repair to the first of several answers in a row
	Recovered               bool
	Repaired                bool // there was a repair to recover by
}

type phaseStats struct {
	Phase string
	traffic.Stats
}

// Again says when the stream was answered again.
func (s streamView) Again() string {
	switch {
	case s.Recovered:
		return words.Seconds(s.Recovery)
	case s.Repaired:
		return "not within the run"
	}
	return "no repair"
}

// Gap is the longest time without an answer.
func (s streamView) Gap() string { return words.Seconds(s.All.LongestGap) }

// Gap is the longest time without an answer in a phase.
func (p phaseStats) Gap() string { return words.Seconds(p.LongestGap) }

func plotOf(run Run) (*plot, []streamView) {
	if len(run.Recordings) == 0 {
		return nil, nil
	}
	began, ended := run.Recordings[0].Began, run.Recordings[0].Ended
	for _, r := range run.Recordings {
		if r.Began.Before(began) {
			began = r.Began
		}
		if r.Ended.After(ended) {
			ended = r.Ended
		}
	}
	at := func(t time.Time) int64 { return t.Sub(began).Milliseconds() }
	p := &plot{Began: began, To: max(at(ended), 1), Who: []string{}, Texts: []string{}, Phases: []span{}, Faults: []span{}}
	for _, r := range run.Recordings {
		for _, c := range r.Calls {
			if c.Cluster != "" && !slices.Contains(p.Who, c.Cluster) {
				p.Who = append(p.Who, c.Cluster)
			}
		}
	}
	slices.Sort(p.Who) // the same cluster has the same color on every page of a mesh
	for i, m := range run.Recordings[0].Marks {
		s := span{Label: m.Label, From: at(m.At), To: p.To}
		if i+1 < len(run.Recordings[0].Marks) {
			s.To = at(run.Recordings[0].Marks[i+1].At)
		}
		s.Bad = slices.ContainsFunc(run.Events, func(e report.Event) bool {
			return e.Type == report.PhaseEnded && e.Phase == m.Label && e.Result.Bad()
		})
		p.Phases = append(p.Phases, s)
	}
	p.Faults = append(p.Faults, changes(run.Events, at, p.To)...)
	texts := map[string]int{}
	index := func(text string) int {
		if text == "" {
			return -1
		}
		i, known := texts[text]
		if !known {
			i = len(p.Texts)
			texts[text] = i
			p.Texts = append(p.Texts, words.Short(text, 400))
		}
		return i
	}
	var streams []streamView
	for _, r := range run.Recordings {
		view := streamOf(r)
		streams = append(streams, view)
		s := plotStream{
			Name: r.Stream, Path: view.From + " → " + view.Expect, Kinds: []kind{}, Calls: []int64{},
			Figure: fmt.Sprintf("%s, %d lost, longest gap %s", words.Plural(view.All.Calls, "call"), view.All.Lost, view.Gap()),
		}
		window, last := r.All(), int64(0)
		kinds := map[kind]int{}
		for _, c := range r.Calls {
			outcome, why := window.Outcome(c)
			k := kind{Outcome: outcome, Who: slices.Index(p.Who, c.Cluster), Pod: index(c.Pod), Why: index(why)}
			if c.Attempts > 1 {
				k.Try = c.Attempts
			}
			number, known := kinds[k]
			if !known {
				number = len(s.Kinds)
				kinds[k] = number
				s.Kinds = append(s.Kinds, k)
			}
			took := p.To - at(c.Start)
			if !c.End.IsZero() {
				took = c.Latency().Milliseconds()
			}
			s.Calls = append(s.Calls, at(c.Start)-last, took, int64(number))
			last = at(c.Start)
		}
		p.Streams = append(p.Streams, s)
	}
	return p, streams
}

func streamOf(r *traffic.Recording) streamView {
	v := streamView{
		Name: r.Stream, From: r.From, URL: r.URL, Expect: cmp.Or(r.ExpectCluster, "any cluster"), All: r.All().Stats(),
	}
	for i, m := range r.Marks {
		to := r.Ended
		if i+1 < len(r.Marks) {
			to = r.Marks[i+1].At
		}
		v.Phases = append(v.Phases, phaseStats{m.Label, r.Between(m.At, to).Stats()})
	}
	v.Recovery, v.Recovered, v.Repaired = r.Recovery()
	return v
}

// changes are the steps that change the mesh: those have a beginning and a command. The undoing has none: it puts back what differs.
func changes(events []report.Event, at func(time.Time) int64, to int64) (all []span) {
	open := map[string]time.Time{}
	for _, e := range events {
		if e.Phase == "" || e.Phase == "baseline" {
			continue
		}
		key := e.Phase + "\n" + e.Place + "\n" + e.Name
		switch e.Type {
		case report.StepStarted:
			if e.Command != "" || e.Phase == "undo" { // what has none, such as a proof that the mesh is not healthy, only looks
				open[key] = e.Time
			}
		case report.StepEnded:
			if from, ok := open[key]; ok && at(from) < to {
				all = append(all, span{
					Label: e.Phase + ": " + e.Name, From: max(at(from), 0), To: min(at(e.Time), to),
					Bad: e.Result.Bad(), Mend: e.Phase == "recover" || e.Phase == "undo",
				})
			}
			delete(open, key)
		}
	}
	return all
}
