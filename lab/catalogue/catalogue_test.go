package catalogue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// fakeLabs stands in for labs and notes what becomes of them.
type fakeLabs struct {
	mu     sync.Mutex
	events []string
	up     map[string]scenario.Topology
	broken map[scenario.Trust]bool
	others []string // names of labs that another home has

	reserved map[int]bool
	run      func(ctx context.Context, l *fakeLab, s *scenario.Scenario) (engine.Verdict, error)
}

type fakeLab struct {
	all  *fakeLabs
	o    lab.Options
	left bool
}

func (f *fakeLabs) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, fmt.Sprintf(format, args...))
}

func (f *fakeLabs) make(_ context.Context, o lab.Options) (laneLab, error) {
	f.note("up %s %s", o.Name, o.Topology.Trust)
	if slices.Contains(f.others, o.Name) {
		return nil, &lab.SetupError{Err: &cluster.TakenError{Lab: o.Name}}
	}
	if f.broken[o.Topology.Trust] {
		return nil, errors.New("no machine")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up[o.Name] = o.Topology
	return &fakeLab{all: f, o: o}, nil
}

// reserve knows of no other run.
func (f *fakeLabs) reserve(_, _ string, after int) (int, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	number := after + 1
	for f.reserved[number] {
		number++
	}
	if f.reserved == nil {
		f.reserved = map[int]bool{}
	}
	f.reserved[number] = true
	return number, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.reserved, number)
	}, nil
}

func (f *fakeLabs) remove(ctx context.Context, _, name string) error {
	f.note("down %s", name)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.up, name)
	return ctx.Err()
}

func (l *fakeLab) Run(ctx context.Context, s *scenario.Scenario, o engine.RunOptions) (engine.Verdict, error) {
	l.all.note("run %s on %s", s.Name, l.o.Name)
	o.Sink.Emit(report.Event{Type: report.PhaseEnded, Phase: "healthy", Result: report.Passed, Took: time.Second})
	if l.all.run != nil {
		return l.all.run(ctx, l, s)
	}
	return engine.Verdict{Scenario: s.Name, Result: report.Passed}, nil
}

func (l *fakeLab) Suits(t scenario.Topology) bool {
	return !l.left && lab.SameTopology(l.o.Topology, t)
}
func (l *fakeLab) Close() {}

func someScenarios(words ...any) (all []*scenario.Scenario) {
	for i := 0; i < len(words); i += 2 {
		t := lab.DefaultTopology()
		t.Trust = words[i+1].(scenario.Trust)
		all = append(all, &scenario.Scenario{Name: words[i].(string), Topology: t})
	}
	return all
}

func runFakes(ctx context.Context, t *testing.T, f *fakeLabs, c Runner, all []*scenario.Scenario) (Tally, map[string]Ending) {
	t.Helper()
	f.up = map[string]scenario.Topology{}
	c.Prefix, c.Folder, c.up, c.down, c.reserve = "x", t.TempDir(), f.make, f.remove, f.reserve
	outcomes := map[string]Ending{}
	goOn := c.OnEnded
	c.OnEnded = func(o Ending) bool {
		outcomes[o.Scenario.Name] = o
		assert.Same(t, all[o.Index], o.Scenario)
		return goOn == nil || goOn(o)
	}
	tally, err := c.Run(ctx, all)
	require.NoError(t, err)
	require.Len(t, outcomes, len(all))
	require.Empty(t, f.up, "a lab is left")
	return tally, outcomes
}

func TestCatalogueUsesLabsAgain(t *testing.T) {
	f := &fakeLabs{}
	all := someScenarios("a", scenario.SharedRoot, "s", scenario.SelfSigned, "b", scenario.SharedRoot, "c", scenario.SharedRoot)
	tally, outcomes := runFakes(t.Context(), t, f, Runner{Lanes: 1, Times: map[string]time.Duration{"c": time.Minute}}, all)
	require.Equal(t, []string{ // the smallest group first, then the longest first
		"up x-1 self-signed", "run s on x-1", "down x-1",
		"up x-1 shared-root", "run c on x-1", "run a on x-1", "run b on x-1", "down x-1",
	}, f.events)
	require.Equal(t, 2, tally.Labs)
	require.Equal(t, []PhaseTime{{scenario.Healthy, time.Second, report.Passed}}, outcomes["a"].Phases)
	require.True(t, outcomes["a"].PutBack)
}

func TestCatalogueMakesALabAnewThatIsNotPutBack(t *testing.T) {
	f := &fakeLabs{run: func(_ context.Context, l *fakeLab, s *scenario.Scenario) (engine.Verdict, error) {
		v := engine.Verdict{Result: report.Failed}
		switch s.Name {
		case "a":
			l.left = true
		case "b":
			v.Result = report.Errored
		}
		return v, nil
	}}
	_, outcomes := runFakes(
		t.Context(),
		t,
		f,
		Runner{Lanes: 1},
		someScenarios("a", scenario.SharedRoot, "b", scenario.SharedRoot, "c", scenario.SharedRoot),
	)
	up := "up x-1 shared-root"
	require.Equal(t, []string{up, "run a on x-1", "down x-1", up, "run b on x-1", "down x-1", up, "run c on x-1", "down x-1"}, f.events)
	require.False(t, outcomes["a"].PutBack)
	require.True(t, outcomes["c"].PutBack)
}

// A name that another home has, such as one that a run there has left when it was killed, is left to it.
func TestCatalogueLeavesNamesOfOthersAlone(t *testing.T) {
	f := &fakeLabs{others: []string{"x-1", "x-2"}}
	_, outcomes := runFakes(t.Context(), t, f, Runner{Lanes: 1}, someScenarios("a", scenario.SharedRoot))
	require.NoError(t, outcomes["a"].Err)
	up := " shared-root"
	require.Equal(t, []string{"up x-1" + up, "up x-2" + up, "up x-3" + up, "run a on x-3", "down x-3"}, f.events)
	require.Empty(t, f.reserved)
}

func TestCatalogueTellsWhatCouldNotBeSetUp(t *testing.T) {
	f := &fakeLabs{broken: map[scenario.Trust]bool{scenario.SelfSigned: true}}
	all := someScenarios("a", scenario.SelfSigned, "b", scenario.SelfSigned, "c", scenario.SelfSigned, "d", scenario.SharedRoot)
	_, outcomes := runFakes(t.Context(), t, f, Runner{Lanes: 1}, all)
	require.EqualError(t, outcomes["a"].Err, "making lab x-1 for a: no machine")
	require.EqualError(t, outcomes["b"].Err, "making lab x-1 for b: no machine")
	require.EqualError(t, outcomes["c"].Err, "not tried again after 2 labs of the same topology: making lab x-1 for b: no machine")
	require.NoError(t, outcomes["d"].Err)
}

func TestCatalogueRunsSideBySide(t *testing.T) {
	var meet sync.WaitGroup
	meet.Add(2)
	f := &fakeLabs{run: func(context.Context, *fakeLab, *scenario.Scenario) (engine.Verdict, error) {
		meet.Done()
		meet.Wait() // comes to an end only if both run at once
		return engine.Verdict{Result: report.Passed}, nil
	}}
	tally, outcomes := runFakes(t.Context(), t, f, Runner{Lanes: 4}, someScenarios("a", scenario.SharedRoot, "b", scenario.SharedRoot))
	require.Equal(t, 2, tally.Lanes, "no more than scenarios")
	require.NotEqual(t, outcomes["a"].Lab, outcomes["b"].Lab)
}

func TestCatalogueEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	f := &fakeLabs{run: func(ctx context.Context, _ *fakeLab, _ *scenario.Scenario) (engine.Verdict, error) {
		cancel(why)
		return engine.Verdict{Result: report.Errored}, context.Cause(ctx)
	}}
	_, outcomes := runFakes(ctx, t, f, Runner{Lanes: 1}, someScenarios("a", scenario.SharedRoot, "b", scenario.SharedRoot))
	require.ErrorIs(t, outcomes["a"].Err, why)
	require.ErrorIs(t, outcomes["b"].Err, why)
	require.Equal(t, []string{"up x-1 shared-root", "run a on x-1", "down x-1"}, f.events)
}

func TestCatalogueStopsWhenTold(t *testing.T) {
	_, outcomes := runFakes(t.Context(), t, &fakeLabs{}, Runner{Lanes: 1, OnEnded: func(Ending) bool { return false }},
		someScenarios("a", scenario.SharedRoot, "b", scenario.SharedRoot))
	require.NoError(t, outcomes["a"].Err)
	require.ErrorIs(t, outcomes["b"].Err, ErrNotRun)
}

func TestQueueSharesTheLargestGroupLast(t *testing.T) {
	q := newQueue(someScenarios("a", scenario.SharedRoot, "b", scenario.SharedRoot, "s", scenario.SelfSigned, "c", scenario.SharedRoot), nil)
	var order []string
	take := func(lane, group int) int {
		j, ok := q.take(lane, group)
		require.True(t, ok)
		order = append(order, j.scenario.Name)
		return j.group
	}
	first, second := take(0, -1), take(1, -1)
	take(0, first)
	take(1, second)
	_, ok := q.take(0, second)
	require.False(t, ok)
	require.Equal(t, []string{"s", "a", "b", "c"}, order)
	require.Less(t, slices.Index(order, "s"), 1)
}

func TestFoldersOfOneScenarioDiffer(t *testing.T) {
	q := newQueue(someScenarios("a", scenario.SharedRoot, "a", scenario.SharedRoot), nil)
	require.Equal(t, []string{"a", "a-2"}, []string{q.jobs[0].folder, q.jobs[1].folder})
}

func TestMeasurements(t *testing.T) {
	m, err := ParseMeasurements(
		"m.json",
		[]byte(`{"a": {"seconds": 1.5, "istio": "1", "envoy": "2", "kubernetes": "3", "date": "2026-11-24"}}`),
	)
	require.NoError(t, err)
	require.Equal(t, map[string]time.Duration{"a": 1500 * time.Millisecond}, m.Times())
	for text, want := range map[string]string{
		`{"a": {"second": 1}}`:                        `reading m.json: json: unknown field "second"`,
		`{"a": {"seconds": 1, "date": "today"}}`:      `m.json: a: wanted seconds and a date, seen 1 and "today"`,
		`{"a": {"seconds": 0, "date": "2026-11-24"}}`: `m.json: a: wanted seconds and a date, seen 0 and "2026-11-24"`,
	} {
		_, err := ParseMeasurements("m.json", []byte(text))
		require.ErrorContains(t, err, want)
	}
}

func TestPlainTextsOfTwoRunsAreEqual(t *testing.T) {
	for _, two := range [][2]string{
		{"5 × 503 from echo-58774b8c6-28bhr in 1.2s at 10.202.16.2:15443", "4 × 503 from echo-6d5ccc9764-frdtw in 980ms at 10.201.8.11:15443"},
		{"[2026-11-29T12:40:01.058236Z] warn", "[2026-11-29T11:22:33.5Z] warn"},
		{`signed by "x" (SHA-256 E3:F1:0B:22…)`, `signed by "x" (SHA-256 5B:B0:11:5A…)`},
		{"request 72d28a74-5f9e-471c-b4fc-811b244d856a", "request 0872f343-9b5c-41ef-8a76-91da2c4a1636"},
	} {
		require.Equal(t, Plain(two[0]), Plain(two[1]))
	}
	require.NotEqual(t, Plain("CERTIFICATE_VERIFY_FAILED"), Plain("SAN_MATCHER"))
	require.Contains(t, Plain("CERTIFICATE_VERIFY_FAILED in cluster-a"), "CERTIFICATE_VERIFY_FAILED in cluster-a")
}
