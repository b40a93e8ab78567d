package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

// world stands in for a lab: one mesh that is broken or not, and a memory of what was done to it. It shows what the engine
// does, and claims nothing about meshes. Tests run in bubbles of testing/synctest, where waiting takes no time.
type world struct {
	mu         sync.Mutex
	broken     bool
	flips      []flip
	done       []string // changes, restores and collections, in order
	changed    string
	checkpoint lab.Checkpoint
	adopted    bool // the engine was allowed to change a mesh of others

	leaveErr, restoreErr, checkpointErr error
}

// flip is a moment at which the mesh broke or healed.
type flip struct {
	at     time.Time
	broken bool
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, what)
}

func (w *world) set(broken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = broken
	w.flips = append(w.flips, flip{time.Now(), broken})
}

func (w *world) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

func (w *world) stage() stage {
	return stage{
		lab: "test", topology: lab.DefaultTopology(), adopt: func() { w.adopted = true },
		istio:  map[string]string{"cluster-a": "1.31-current", "cluster-b": "1.30-previous"},
		ledger: w, mesh: w, caller: w, ground: verb.Ground{Lab: "test"},
	}
}

// The ledger.

func (w *world) Changed() string                     { return w.changed }
func (w *world) Checkpoint() (lab.Checkpoint, error) { return w.checkpoint, w.checkpointErr }
func (w *world) Back() error                         { w.changed = ""; return nil }
func (w *world) Leave(c lab.Checkpoint) error {
	if w.leaveErr != nil {
		return w.leaveErr
	}
	w.changed, w.checkpoint = c.Scenario, c
	return nil
}

// The keeper.

func (w *world) Remember(context.Context, []observe.Named) (json.RawMessage, error) {
	return json.RawMessage(`"healthy"`), nil
}
func (w *world) Same(context.Context, json.RawMessage) bool { return !w.isBroken() }
func (w *world) Collect(_ context.Context, _ string) error  { w.note("collect"); return nil }
func (w *world) Restore(ctx context.Context, before json.RawMessage) error {
	w.note("restore " + string(before))
	if w.restoreErr != nil {
		return w.restoreErr
	}
	w.set(false)
	return ctx.Err() // it has time of its own after an interrupt
}

// The caller: every call fails while the mesh is broken.

func (w *world) Call(s scenario.Stream, earlier *traffic.Recording) (stream, error) {
	return &fakeStream{world: w, plan: s, earlier: earlier, began: time.Now()}, nil
}

type fakeStream struct {
	world        *world
	plan         scenario.Stream
	earlier      *traffic.Recording
	began, ended time.Time
	marks        []traffic.Mark
}

func (s *fakeStream) Mark(label string) time.Time {
	s.marks = append(s.marks, traffic.Mark{Label: label, At: time.Now()})
	return time.Now()
}

func (s *fakeStream) Stop() (*traffic.Recording, error) {
	if s.ended.IsZero() {
		s.ended = time.Now()
	}
	return s.Recording(), nil
}

func (s *fakeStream) Recording() *traffic.Recording {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	r := &traffic.Recording{
		Stream:        s.plan.Name,
		ExpectCluster: "cluster-b",
		Every:         time.Duration(s.plan.Every),
		Began:         s.began,
		Ended:         s.ended,
	}
	if r.Ended.IsZero() {
		r.Ended = time.Now()
	}
	r.Marks = slices.Clone(s.marks)
	for at := s.began; at.Add(time.Millisecond).Before(r.Ended); at = at.Add(r.Every) {
		call := traffic.Call{Start: at, End: at.Add(time.Millisecond), Issued: true, Code: 200, Cluster: "cluster-b"}
		broken := false
		for _, f := range s.world.flips {
			if !f.at.After(at) {
				broken = f.broken
			}
		}
		if broken {
			call.Code, call.Cluster, call.Err = 503, "", "CERTIFICATE_VERIFY_FAILED"
		}
		r.Calls = append(r.Calls, call)
	}
	if s.earlier != nil {
		return traffic.Join(s.earlier, r)
	}
	return r
}

// change is a fault of the tests, and the arguments of its verb.
type change struct {
	name        string
	do          func(ctx context.Context) error
	unavailable error
}

func (c *change) Change(verb.Ground) (fault.Fault, error)        { return c, nil }
func (c *change) String() string                                 { return c.name }
func (c *change) Command() string                                { return "" }
func (c *change) Available(*mesh.Mesh) error                     { return c.unavailable }
func (c *change) Inject(ctx context.Context, _ *mesh.Mesh) error { return c.do(ctx) }

// check is a check of the tests, and the arguments of its verb.
type check struct {
	name string
	look func(ctx context.Context) error
	n    int // looks so far
}

func (c *check) Check(verb.Ground) (observe.Check, error) { return c, nil }
func (c *check) String() string                           { return c.name }
func (c *check) Command() string                          { return "kubectl get " + c.name }
func (c *check) Look(ctx context.Context, _ *mesh.Mesh) (string, error) {
	c.n++
	return c.name + " seen", c.look(ctx)
}

// No step of these tests has a place: a step is known by its index.

func (w *world) change(name string, do func(ctx context.Context) error) scenario.Step {
	return scenario.Step{Verb: name, Args: &change{name: name, do: func(ctx context.Context) error {
		w.note(name)
		if do == nil {
			return nil
		}
		return do(ctx)
	}}}
}

func (w *world) breaks() scenario.Step {
	return w.change("break", func(context.Context) error { w.set(true); return nil })
}

func (w *world) heals(name string) scenario.Step {
	return w.change(name, func(context.Context) error { w.set(false); return nil })
}

func looks(name string, look func(ctx context.Context) error) scenario.Step {
	return scenario.Step{Verb: name, Args: &check{name: name, look: look}}
}

func holds(context.Context) error { return nil }

func never(context.Context) error {
	return &observe.Mismatch{Wanted: "this", Seen: "that", Try: "something"}
}

func hangs(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }

func (w *world) healthyCheck() scenario.Step {
	return looks("healthy", func(context.Context) error {
		if w.isBroken() {
			return &observe.Mismatch{Wanted: "a healthy mesh", Seen: "a broken one"}
		}
		return nil
	})
}

func (w *world) brokenCheck() scenario.Step {
	return looks("broken", func(context.Context) error {
		if !w.isBroken() {
			return &observe.Mismatch{Wanted: "a broken mesh", Seen: "a healthy one"}
		}
		return nil
	})
}

// calls is the step with the real verb calls.
func calls(t *testing.T, args string) scenario.Step {
	t.Helper()
	v, ok := verb.Table().Find("calls")
	require.True(t, ok)
	s, err := scenario.Parse("s.yaml", []byte(`
scenario: s
title: t
why: w
topology: {kind: multi-primary}
apps: [client@cluster-a, echo@cluster-b]
traffic: {a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}}
operate: []
symptoms: {within: 1s, expect: [{calls: `+args+`}]}
healthy: {within: 1s, expect: [{calls: {stream: a-to-b, success: {at-least: 100}}}]}
`), scenario.Vocabulary{v})
	require.NoError(t, err)
	step := s.Symptoms.Expect[0]
	step.Place = strict.Place{}
	return step
}

// story is a scenario, built in Go, that passes.
func (w *world) story(t *testing.T) *scenario.Scenario {
	t.Helper()
	within := strict.Duration(10 * time.Second)
	return &scenario.Scenario{
		Name: "story", Title: "a story", Topology: lab.DefaultTopology(), File: t.TempDir() + "/story.yaml",
		Traffic:  []scenario.Stream{{Name: "a-to-b", Every: strict.Duration(50 * time.Millisecond), To: scenario.App{Cluster: "cluster-b"}}},
		Break:    []scenario.Step{w.breaks()},
		Symptoms: scenario.Expect{Within: within, Expect: []scenario.Step{w.brokenCheck(), calls(t, "{stream: a-to-b, success: {at-most: 0}}")}},
		Diagnose: []scenario.Step{looks("diagnosis", holds)},
		Recover:  []scenario.Step{w.heals("recover")},
		Healthy: scenario.Expect{
			Within: within,
			Expect: []scenario.Step{w.healthyCheck(), calls(t, "{stream: a-to-b, success: {at-least: 100}}")},
		},
		Always: []scenario.Step{calls(t, "{stream: a-to-b, lost: {at-least: 1}}")},
	}
}

// outcome is what a run left.
type outcome struct {
	Verdict
	err    error
	phases []string // those that were begun
	events []report.Event
}

// sinkFunc is a function that is a sink.
type sinkFunc func(report.Event)

func (f sinkFunc) Emit(e report.Event) { f(e) }

func (w *world) run(ctx context.Context, t *testing.T, st stage, s *scenario.Scenario, o RunOptions) (out outcome) {
	t.Helper()
	folder, err := report.NewFolder(t.TempDir() + "/run")
	require.NoError(t, err)
	if o.Folder == nil {
		o.Folder = folder
	}
	outer := o.Sink
	var mu sync.Mutex
	o.Sink = sinkFunc(func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		out.events = append(out.events, e)
		if e.Type == report.PhaseStarted {
			out.phases = append(out.phases, e.Phase)
		}
		if outer != nil {
			outer.Emit(e)
		}
	})
	out.Verdict, out.err = st.run(ctx, s, o)
	return out
}

func (o outcome) path() string { return strings.Join(o.phases, " ") }

// ended returns how the last event of a step with that name ended.
func (o outcome) ended(name string) (last report.Event) {
	for _, e := range o.events {
		if e.Type == report.StepEnded && e.Name == name {
			last = e
		}
	}
	return last
}

func (o outcome) notes() string {
	var all []string
	for _, e := range o.events {
		if e.Type == report.Note {
			all = append(all, fmt.Sprintf("%s: %s", e.Name, e.Detail))
		}
	}
	return strings.Join(all, "\n")
}

var errTest = errors.New("nothing works")
