package mesh

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// record keeps the order in which steps ended.
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

// When the time is over, the error is that of the step that was waiting: it says what for.
func TestPlanTellsWhatItWaitedForWhenTimeRunsOut(t *testing.T) {
	var p plan
	address := p.add("wait for an address", "cluster-b", "", func(ctx context.Context) error {
		return wait.Until(ctx, "an address", wait.Options{}, func(context.Context) error { return errors.New("nobody gives any") })
	})
	p.add("after it", "", "", func(context.Context) error { return nil }, address)
	why := errors.New("time is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer cancel()
	err := p.run(ctx, nil)
	require.ErrorIs(t, err, why)
	require.EqualError(t, err, "cluster-b: wait for an address: waiting for an address: time is over; last seen: nobody gives any")
}

func TestInstallationIsOrderedByTrust(t *testing.T) {
	o := Options{Lab: "x", Dir: t.TempDir(), Topology: twoClusters(SharedRoot), Istio: Istio{UpstreamEnvoy: true}}
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

	o.Topology = twoClusters(SelfSigned)
	steps, err = Plan(o)
	require.NoError(t, err)
	require.NotContains(t, names("cluster-a"), "create cacerts")

	o.Topology = Topology{Trust: SharedRoot, Clusters: []ClusterSpec{{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"}}}
	steps, err = Plan(o)
	require.NoError(t, err)
	require.NotContains(t, names("cluster-a"), "install the east-west gateway", "one network needs no gateway")

	o.Topology.Clusters[0].Primary = ""
	steps, err = Plan(o)
	require.NoError(t, err)
	require.Empty(t, steps)
}

func TestRemotesWaitForTheirIstiod(t *testing.T) {
	for _, test := range []struct {
		name   string
		serves string // where the istiod is
		of     []ClusterSpec
		order  []string // cluster: step
	}{
		{"primary and remote", "cluster-a", []ClusterSpec{
			{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"},
			{Name: "cluster-b", Network: "network-a", Primary: "cluster-a"},
		}, []string{
			"cluster-a: create cacerts", "cluster-a: wait for the east-west gateway's address", "cluster-b: install the remote profile",
			"cluster-a: create remote secret for cluster-b", "cluster-a: expose istiod", "cluster-a: wait for the east-west gateway",
			"cluster-b: wait for injection from cluster-a", "cluster-b: start the apps",
		}},
		{"external control plane", "external", []ClusterSpec{
			{Name: "cluster-a", Network: "network-a", Primary: "external"},
			{Name: "cluster-b", Network: "network-b", Primary: "external"},
			{Name: "external", Network: "network-x", Primary: "external", Config: "cluster-a"},
		}, []string{
			"external: create cacerts", "external: wait for the ingress gateway's address", "external: expose istiod",
			"cluster-a: install the remote profile",
			"external: give istiod access to its config cluster", "external: install istiod", "external: create remote secret for cluster-b",
			"cluster-a: expose services", "cluster-a: install the east-west gateway", "cluster-b: install the east-west gateway",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			steps, err := Plan(Options{Lab: "x", Dir: t.TempDir(), Topology: Topology{Trust: SharedRoot, Clusters: test.of}})
			require.NoError(t, err)
			var names []string
			for _, s := range steps {
				names = append(names, s.Cluster+": "+s.Name)
			}
			last := -1
			for _, name := range test.order {
				i := slices.Index(names, name)
				require.Greater(t, i, last, "%s is missing or too early in\n%s", name, strings.Join(names, "\n"))
				last = i
			}
			for _, c := range test.of {
				if c.Name != test.serves {
					require.NotContains(t, names, c.Name+": install istiod")
					require.NotContains(t, names, c.Name+": create cacerts", "no istiod reads it there")
				}
			}
		})
	}
}

func TestTopologyTellsAllProblemsAtOnce(t *testing.T) {
	for _, test := range []struct {
		of   Topology
		says []string
	}{
		{Topology{Trust: "blind"}, []string{`trust is "blind"`, "no clusters"}},
		{Topology{Trust: SeparateRoots, Clusters: []ClusterSpec{
			{Name: "a", Network: "n", Primary: "a"}, {Name: "a", Network: "n", Primary: "b"}, {Name: "c", Network: "n", Primary: "nobody"},
		}}, []string{`two clusters have the name "a"`, `the primary "nobody"`}},
		{Topology{Trust: SeparateRoots, Clusters: []ClusterSpec{
			{Name: "a", Network: "n", Primary: "a"}, {Name: "b", Network: "n", Primary: "a"}, {Name: "c", Network: "n", Primary: "b"},
		}}, []string{`the primary "b", which has no istiod: "a" serves it`, "one istiod signs for all clusters"}},
		{Topology{Trust: SharedRoot, Clusters: []ClusterSpec{
			{Name: "a", Network: "n", Primary: "x"}, {Name: "b", Network: "n", Primary: "x", Config: "a"},
			{Name: "x", Network: "n", Primary: "x", Config: "nobody"}, {Name: "y", Network: "n", Primary: "y", Config: "a"},
		}}, []string{
			`"b" names a config cluster and has no istiod`, `config cluster "nobody"`,
			`"y" reads its configuration from "a", which it does not serve`,
		}},
		{Topology{Trust: SharedRoot, Clusters: []ClusterSpec{
			{Name: "a", Network: "n1", Primary: "a"}, {Name: "b", Network: "n2", Primary: "b", NoGateway: true},
		}}, []string{`network "n2" has no east-west gateway`}},
	} {
		err := test.of.Validate()
		for _, text := range test.says {
			require.ErrorContains(t, err, text)
		}
	}
	require.NoError(t, twoClusters(SharedRoot).Validate())
}

func twoClusters(trust Trust) Topology {
	return Topology{Trust: trust, MeshID: DefaultMeshID, Clusters: []ClusterSpec{
		{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"}, {Name: "cluster-b", Network: "network-b", Primary: "cluster-b"},
	}}
}
