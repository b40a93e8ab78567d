package mesh

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// record keeps which steps ended, in order.
type record struct {
	mu    sync.Mutex
	ended []string
}

func (r *record) step(name string, err error) func(context.Context) error {
	return func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = append(r.ended, name)
		return err
	}
}

func TestPlanKeepsTheOrder(t *testing.T) {
	var r record
	var p plan
	a := p.add("a", "", "", r.step("a", nil))
	b := p.add("b", "", "", r.step("b", nil), a)
	c := p.add("c", "", "", r.step("c", nil), a, nil) // nil is a step that a topology lacks
	p.add("d", "", "", r.step("d", nil), b, c)
	require.NoError(t, p.run(t.Context(), nil))
	require.Len(t, r.ended, 4)
	require.Equal(t, "a", r.ended[0])
	require.Equal(t, "d", r.ended[3])
}

func TestPlanOverlapsWhatDoesNotDepend(t *testing.T) {
	var p plan
	var both sync.WaitGroup
	both.Add(2)
	meet := func(ctx context.Context) error {
		both.Done()
		met := make(chan struct{})
		go func() { both.Wait(); close(met) }()
		select {
		case <-met:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.add("east", "cluster-a", "", meet)
	p.add("west", "cluster-b", "", meet)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, p.run(ctx, nil), "two steps that need each other's company must run at the same time")
}

func TestPlanStopsAtTheFirstError(t *testing.T) {
	var r record
	var p plan
	broken := errors.New("no route")
	began, canceled := make(chan struct{}), make(chan struct{})
	a := p.add("create cacerts", "cluster-b", "", func(ctx context.Context) error {
		<-began
		return r.step("a", broken)(ctx)
	})
	p.add("after it", "", "", r.step("b", nil), a)
	p.add("beside it", "", "", func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		close(canceled)
		return ctx.Err()
	})
	var mu sync.Mutex
	states := map[string]State{}
	err := p.run(t.Context(), func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		states[s.Name] = s.State
	})
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "cluster-b: create cacerts: no route")
	var step *StepError
	require.ErrorAs(t, err, &step)
	require.Equal(t, "cluster-b", step.Step.Cluster)
	<-canceled
	require.Equal(t, []string{"a"}, r.ended, "a step after a failed one must not begin")
	require.Equal(t, Failed, states["create cacerts"])
	require.NotContains(t, states, "after it")
}

func TestPlanEndsWithItsContext(t *testing.T) {
	var p plan
	ctx, cancel := context.WithCancelCause(t.Context())
	p.add("wait", "", "", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
	why := errors.New("interrupted")
	cancel(why)
	require.ErrorIs(t, p.run(ctx, nil), why)
}

func TestInstallationIsOrderedByTrust(t *testing.T) {
	o := Options{Lab: "x", Dir: t.TempDir(), Topology: twoClusters(t, SharedRoot), Istio: Istio{UpstreamEnvoy: true}}
	steps, err := Plan(o)
	require.NoError(t, err)
	names := func(cluster string) (names []string) {
		for _, s := range steps {
			require.Equal(t, Planned, s.State)
			if s.Cluster == cluster {
				names = append(names, s.Name)
			}
		}
		return names
	}
	before := func(names []string, first, second string) {
		t.Helper()
		require.Contains(t, names, first)
		require.Contains(t, names, second)
		require.Less(t, slices.Index(names, first), slices.Index(names, second), "%s must come before %s", first, second)
	}
	for _, cluster := range []string{"cluster-a", "cluster-b"} {
		n := names(cluster)
		before(n, "create the namespaces", "create cacerts")
		before(n, "create cacerts", "install istiod") // afterwards is a fault of its own: late-cacerts
		before(n, "wait for istiod", "start the apps")
		before(n, "wait for istiod", "install the east-west gateway")
	}
	require.Contains(t, names("cluster-a"), "create remote secret for cluster-b")
	require.Contains(t, names("cluster-b"), "create remote secret for cluster-a")

	o.Topology = twoClusters(t, SelfSigned)
	steps, err = Plan(o)
	require.NoError(t, err)
	require.NotContains(t, names("cluster-a"), "create cacerts")

	single, err := NewTopology(Single, "", "", "cluster-a")
	require.NoError(t, err)
	o.Topology = single
	steps, err = Plan(o)
	require.NoError(t, err)
	require.NotContains(t, names("cluster-a"), "install the east-west gateway", "one network needs no gateway")

	none, err := NewTopology(None, "", "", "cluster-a", "cluster-b")
	require.NoError(t, err)
	o.Topology = none
	steps, err = Plan(o)
	require.NoError(t, err)
	require.Empty(t, steps)
}

func TestTopologyTellsAllProblemsAtOnce(t *testing.T) {
	_, err := NewTopology("ring", "wormhole", "blind", "cluster-a", "cluster-a")
	for _, text := range []string{`kind is "ring"; use one of [none single multi-primary]`, `network is "wormhole"`, `trust is "blind"`, `cluster "cluster-a" is there twice`} {
		require.ErrorContains(t, err, text)
	}
	_, err = NewTopology(MultiPrimary, "", "", "cluster-a")
	require.ErrorContains(t, err, "at least two clusters")
	_, err = NewTopology(Single, "", "")
	require.ErrorContains(t, err, "no clusters")
}

func twoClusters(t *testing.T, trust Trust) Topology {
	t.Helper()
	topology, err := NewTopology(MultiPrimary, Separate, trust, "cluster-a", "cluster-b")
	require.NoError(t, err)
	return topology
}
