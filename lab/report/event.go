// Package report keeps what happened: events as they come, the run folder they are written to, and
// the ways they are shown (terminal lines, JSON lines, JUnit).
//
// An Event is the only thing the rest of eastwest hands over; sinks decide what becomes of it. A Timetable is made of
// events and of recorded calls. `go test ./lab/report` needs no cluster.
package report

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Event is one thing that happened, in the order it happened. Field names are stable: they are the
// JSON lines in a run folder and what `-o json` prints.
//
// A step belongs to the phase that runs; one without a phase is a part of setting a lab up. Steps may
// overlap. Whatever reads events must take those of a run that was cut off anywhere.
type Event struct {
	Time     time.Time     `json:"time"`
	Type     Type          `json:"type"`
	Scenario string        `json:"scenario,omitempty"`
	Phase    string        `json:"phase,omitempty"`   // one of the keys of titles
	Place    string        `json:"place,omitempty"`   // file:line or file:line:column of the step
	Cluster  string        `json:"cluster,omitempty"` // where one cluster alone is meant
	Name     string        `json:"name,omitempty"`    // the step in plain words; the scenario's or the phase's title
	Command  string        `json:"command,omitempty"` // what a person would type for the same
	Result   Result        `json:"result,omitempty"`
	Took     time.Duration `json:"-"`
	Seconds  float64       `json:"seconds,omitempty"` // Took, for JSON; filled by the sinks
	Wanted   string        `json:"wanted,omitempty"`
	Seen     string        `json:"seen,omitempty"`
	Try      string        `json:"try,omitempty"`
	Detail   string        `json:"detail,omitempty"` // more lines: output of a command, a table; a scenario's story

	// Properties of the run, on ScenarioStarted: provider, topology, versions.
	Properties map[string]string `json:"properties,omitempty"`
	// State of the mesh, on StateRead.
	State *State `json:"state,omitempty"`

	cleaned bool // by clean
}

// Type of an event.
type Type string

// The types of events. A step, phase, or scenario that ends has its Result; one that starts has none.
const (
	ScenarioStarted Type = "scenario-started"
	PhaseStarted    Type = "phase-started"
	StepStarted     Type = "step-started"
	StepEnded       Type = "step-ended"
	PhaseEnded      Type = "phase-ended"
	ScenarioEnded   Type = "scenario-ended"
	Note            Type = "note"
	// StateRead comes after the last step of the baseline and after each step that changed the mesh, on meshes that are made for
	// upgrades. Its name is the step in few words.
	StateRead Type = "state-read"
)

// Result of something that ended.
type Result string

// The results.
const (
	Passed  Result = "passed"
	Failed  Result = "failed"  // a check did not hold
	Errored Result = "errored" // it could not be carried out
	Skipped Result = "skipped" // with its reason in Seen
)

// Bad says whether the result is one that fails the whole.
func (r Result) Bad() bool { return r == Failed || r == Errored }

// Sink takes events. Emit must not block for long and must be safe for several callers at once.
//
// Every sink of this package redacts what it shows or writes: see Redact.
type Sink interface{ Emit(Event) }

// Multi hands each event to every sink, in this order. Sinks that are nil are left out.
func Multi(sinks ...Sink) Sink {
	return multi(slices.DeleteFunc(slices.Clone(sinks), func(s Sink) bool { return s == nil }))
}

type multi []Sink

func (m multi) Emit(e Event) {
	e = e.clean()
	for _, s := range m {
		s.Emit(e)
	}
}

// Recording is a sink that keeps the events, for what is made of them at the end: JUnit, Summarize.
// The zero value is ready.
type Recording struct {
	mu     sync.Mutex
	events []Event
}

var _ Sink = (*Recording)(nil)

// Emit keeps the event.
func (r *Recording) Emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e.clean())
}

// Events are those so far, in order.
func (r *Recording) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// clean is the event as it may be shown: redacted, with its time and seconds. An event that is clean
// already costs next to nothing.
func (e Event) clean() Event {
	if e.cleaned {
		return e
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Took > 0 {
		e.Seconds = math.Round(e.Took.Seconds()*1000) / 1000
	} else {
		e.Took = time.Duration(e.Seconds * float64(time.Second))
	}
	for _, text := range []*string{&e.Name, &e.Command, &e.Wanted, &e.Seen, &e.Try, &e.Detail} {
		*text = Redact(*text)
	}
	if e.Properties != nil {
		properties := make(map[string]string, len(e.Properties))
		for name, value := range e.Properties {
			properties[name] = Redact(value)
		}
		e.Properties = properties
	}
	e.State = e.State.clean()
	e.cleaned = true
	return e
}
