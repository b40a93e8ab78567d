package verbs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// change is a fault that a verb makes, with what shows that it was made. Every verb that changes something has one, as
// TestEveryChangeIsPutBack holds, and putBack proves of each that fault.Restore leaves nothing of it.
type change struct {
	verb string
	name string      // of the subtest; the fault's sentence if empty
	do   fault.Fault // what the verb makes
	// after is done before it, for the verbs that take another one back.
	after fault.Fault
	// shows is a part of the difference from the baseline. It is empty for what leaves no difference: restarts, and verbs
	// that take another one back.
	shows string
	renew []observe.Workload // whose pods are other ones afterwards
	keeps []observe.Workload // whose pods are the same ones once everything is put back
	// fails is a part of the error of a change that fails half-way. cut ends the context of one that is interrupted.
	fails     string
	cut       func(context.Context, *mesh.Mesh) error // returns nil when it is time
	meanwhile func(*testing.T, *mesh.Mesh)
}

// must is for faults that are made from values which could be wrong.
func must(f fault.Fault, err error) fault.Fault {
	if err != nil {
		panic(err)
	}
	return f
}

func changes() []change {
	both := []string{a, b}
	namespace := fault.Object{Kind: "Namespace", Name: mesh.SystemNamespace}
	gateway := fault.Object{Kind: "gateways.networking.istio.io", Name: "cross-network-gateway", Namespace: mesh.SystemNamespace}
	service := fault.Object{Kind: "Service", Name: "echo-cluster-b", Namespace: mesh.AppNamespace}
	nobody := observe.Workload{App: "nobody", Cluster: b}
	check := func(c observe.Check) func(*testing.T, *mesh.Mesh) {
		return func(t *testing.T, m *mesh.Mesh) { t.Helper(); look(t, m, c, true) }
	}
	calls := observe.Call{From: clientA, To: echoB}
	fails := func(pattern string) observe.Check {
		return observe.Call{From: clientA, To: echoB, Count: 2, Fails: like(pattern)}
	}
	return []change{
		{verb: "apply", shows: "PeerAuthentication default", do: fault.Apply(both, "plain.yaml", []byte(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: production}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: v1
kind: Namespace
metadata: {name: production, labels: {more: "yes"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: of-no-list, namespace: production}
`))},
		{verb: "apply", name: "apply, half", shows: "labels of namespace half", fails: "Nothing",
			do: fault.Apply([]string{a}, "half.yaml", []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: half}
---
apiVersion: example.org/v1
kind: Nothing
metadata: {name: nothing, namespace: half}
`))},
		{verb: "block-port", do: fault.BlockPort(b, a, mesh.GatewayPort), shows: "port 15443", meanwhile: func(t *testing.T, m *mesh.Mesh) {
			look(t, m, observe.GatewaySees{From: clientA, To: echoB, Absent: true}, true)
			look(t, m, observe.Call{From: clientB, To: echoA}, true)
		}},
		{verb: "ca-certificates", do: fault.CACertificates([]string{a}, b), shows: "ConfigMap istio"},
		{verb: "certificate-lifetime", do: fault.CertificateLifetime(time.Hour, clientA), shows: "Deployment client",
			meanwhile: check(observe.Certificate{Of: []observe.Workload{clientA}, ExpiresWithin: time.Hour})},
		{verb: "continue-component", after: fault.StopComponent(b, "kube-scheduler"), do: fault.ContinueComponent(b, "kube-scheduler")},
		{verb: "create-cacerts", do: fault.CreateCACerts([]string{b}, fault.CACerts{Root: fault.OwnRoot}), shows: "Secret cacerts",
			meanwhile: check(observe.Fingerprints{In: both})},
		{verb: "create-remote-secret", do: fault.CreateRemoteSecret(a, b, mesh.RemoteSecret{Token: "wrong"}),
			shows:     "Secret istio-remote-secret-cluster-b",
			meanwhile: check(observe.RemoteClusters{In: a, Expect: map[string]string{b: "timeout"}})},
		{verb: "create-remote-secret", do: fault.CreateRemoteSecret(a, b, mesh.RemoteSecret{Name: "elsewhere"}),
			shows:     "Secret istio-remote-secret-elsewhere",
			meanwhile: check(observe.RemoteClusters{In: a, Expect: map[string]string{"elsewhere": "synced"}})},
		{verb: "delete", do: fault.Delete(both, service), shows: "Service echo-cluster-b",
			meanwhile: check(observe.DNS{From: clientA, Name: "echo-cluster-b.production.svc.cluster.local", Fails: true})},
		{verb: "delete", do: fault.DeleteIfThere(both, fault.Object{Kind: "Service", Name: "nobody", Namespace: mesh.AppNamespace})},
		{verb: "delete-cacerts", do: fault.DeleteCACerts([]string{b}), shows: "Secret cacerts"},
		{verb: "freeze", do: fault.Freeze(istiodA), shows: "is frozen", keeps: []observe.Workload{istiodA}, meanwhile: func(
			t *testing.T, m *mesh.Mesh,
		) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			member, err := m.Member(a)
			require.NoError(t, err)
			_, err = member.IstiodDebug(ctx, "/debug/clusterz")
			require.Error(t, err, "a frozen istiod answered")
			look(t, m, calls, true)
		}},
		{verb: "kill-component", do: fault.KillComponent(b, "kube-scheduler")},
		{verb: "label", shows: "labels of namespace istio-system",
			do: must(fault.Label([]string{a}, namespace, map[string]*string{"topology.istio.io/network": nil, "new": to("yes")}))},
		{verb: "mesh-config", do: must(fault.MeshConfig([]string{a}, map[string]any{"trustDomain": "a.example"})), shows: "ConfigMap istio"},
		{verb: "patch", shows: "Gateway cross-network-gateway", meanwhile: check(fails("UF")),
			do: must(fault.Patch([]string{b}, gateway, map[string]any{"spec": map[string]any{"selector": map[string]any{"istio": "nobody"}}}))},
		{verb: "reconnect", after: fault.Sever(a, b), do: fault.Reconnect(b, a), meanwhile: check(calls)},
		{verb: "restart", do: fault.Restart(echoA), renew: []observe.Workload{echoA}},
		{verb: "restart-istiod", do: fault.RestartIstiod([]string{a}), renew: []observe.Workload{istiodA}},
		{verb: "restart-workloads", do: fault.RestartWorkloads([]string{b}), renew: []observe.Workload{echoB, gatewayB}},
		{verb: "revoke-remote-secret", do: fault.RevokeRemoteSecret(a, b), shows: "Secret istio-remote-secret-cluster-b",
			meanwhile: func(t *testing.T, m *mesh.Mesh) {
				look(t, m, observe.RemoteClusters{In: a, Expect: map[string]string{b: observe.Absent}}, true)
				look(t, m, observe.Endpoints{SeenBy: clientA, Of: echoB, Count: to(0)}, true)
				look(t, m, fails("UH no_healthy_upstream"), true)
			}},
		{verb: "scale", do: fault.Scale(2, echoB), shows: "2 pods", meanwhile: check(observe.RolledOut{Of: []observe.Workload{echoB}})},
		{verb: "scale", do: fault.Scale(0, gatewayB), shows: "0 pods"},
		{verb: "scale", name: "scale, half", do: fault.Scale(2, echoB, nobody), shows: "Deployment echo", fails: "nobody"},
		{verb: "self-sign", do: fault.SelfSign(both), shows: "Secret istio-ca-secret",
			meanwhile: check(observe.Roots{Same: to(true), Is: observe.SelfSigned})},
		{verb: "self-sign", name: "self-sign, interrupted", do: fault.SelfSign(both), shows: "Secret cacerts", fails: "context canceled",
			cut: func(ctx context.Context, m *mesh.Mesh) error {
				member, err := m.Member(a)
				if err == nil {
					_, err = member.Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(ctx, mesh.CACerts, metav1.GetOptions{})
				}
				if apierrors.IsNotFound(err) {
					return nil
				}
				return wait.ErrTimeout // look again
			}},
		{verb: "set-env", do: fault.SetEnv(map[string]string{"NEW": "yes"}, echoA), shows: "Deployment echo"},
		{verb: "sever", do: fault.Sever(a, b), shows: "cut off", meanwhile: check(fails("no answer within"))},
		{verb: "spoil-cacerts", shows: "Secret cacerts",
			do: fault.SpoilCACerts([]string{b}, fault.Spoiled{Remove: []string{"root-cert.pem"}, OtherKey: true})},
		{verb: "spoil-cacerts", do: fault.SpoilCACerts([]string{b}, fault.Spoiled{MoveTo: "default"}),
			shows: "Secret cacerts in namespace default"},
		{verb: "stop-component", do: fault.StopComponent(b, "kube-scheduler"), shows: "kube-scheduler is stopped"},
		{verb: "thaw", after: fault.Freeze(echoB), do: fault.Thaw(echoB), keeps: []observe.Workload{echoB}, meanwhile: check(calls)},
		{verb: "unblock-port", after: fault.BlockPort(b, a, mesh.GatewayPort), do: fault.UnblockPort(b, a, mesh.GatewayPort),
			meanwhile: check(calls)},
	}
}

// TestEveryChangeIsPutBack keeps the table complete: a verb that may not stand in phase diagnose changes something.
func TestEveryChangeIsPutBack(t *testing.T) {
	var wanted, seen []string
	for _, v := range verb.Table() {
		if !slices.Contains(v.Phases, scenario.Diagnose) && !slices.Equal(v.Phases, []scenario.Phase{scenario.Always}) {
			wanted = append(wanted, v.Name)
		}
	}
	for _, c := range slices.Concat(changes(), upgrades()) {
		seen = append(seen, c.verb)
	}
	require.NotEmpty(t, wanted)
	require.ElementsMatch(t, wanted, slices.Compact(slices.Sorted(slices.Values(seen))))
}

// putBack makes each change, sees it, and has it put back from the baseline alone.
func putBack(t *testing.T, m *mesh.Mesh, all []change) {
	for _, c := range all {
		name := c.name
		if name == "" {
			name = c.do.String()
		}
		t.Run(name, func(t *testing.T) {
			require.NoError(t, wait.Measure()) // what else runs here comes and goes
			require.NoError(t, c.do.Available(m))
			before, err := observe.TakeBaseline(t.Context(), m, fault.Names(c.do)...)
			require.NoError(t, err)
			if c.after != nil {
				require.NoError(t, c.after.Inject(t.Context(), m))
			}
			pods, kept := podsOf(t, m, c.renew), podsOf(t, m, c.keeps)
			c.inject(t, m)
			now, err := before.RereadBroken(t.Context(), m)
			require.NoError(t, err)
			if c.shows != "" {
				require.Contains(t, strings.Join(before.Diff(now), "\n"), c.shows)
			} else {
				require.NoError(t, c.settles(t.Context(), m, before))
			}
			for pod := range podsOf(t, m, c.renew) {
				require.NotContains(t, pods, pod, "a pod from before")
			}
			if c.meanwhile != nil {
				c.meanwhile(t, m)
			}
			require.NoError(t, fault.Restore(t.Context(), m, before))
			now, err = before.Reread(t.Context(), m)
			require.NoError(t, err)
			require.Empty(t, before.Diff(now))
			require.Equal(t, kept, podsOf(t, m, c.keeps), "restarted for nothing")
		})
	}
}

// comesBack makes a Secret again while the mesh is put back, once it was deleted. An istiod does that if it starts between
// the moment when cacerts is away and the one when it is there again.
func comesBack(t *testing.T, m *mesh.Mesh) {
	before, err := observe.TakeBaseline(t.Context(), m)
	require.NoError(t, err)
	member, err := m.Member(a)
	require.NoError(t, err)
	secrets := member.Kube.CoreV1().Secrets(mesh.SystemNamespace)
	own := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: observe.SelfSignedSecret}}
	made, err := secrets.Create(t.Context(), own, metav1.CreateOptions{})
	require.NoError(t, err)
	events, err := secrets.Watch(t.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=" + own.Name, ResourceVersion: made.ResourceVersion,
	})
	require.NoError(t, err)
	defer events.Stop()
	again := make(chan error, 1)
	go func() {
		err := errors.New("the watch ended before the Secret was deleted")
		for e := range events.ResultChan() {
			if e.Type == apiwatch.Deleted {
				_, err = secrets.Create(t.Context(), own, metav1.CreateOptions{})
				break
			}
		}
		again <- err
	}()
	require.NoError(t, fault.Restore(t.Context(), m, before))
	events.Stop()
	require.NoError(t, <-again)
	now, err := before.Reread(t.Context(), m)
	require.NoError(t, err)
	require.Empty(t, before.Diff(now))
}

// settles waits until nothing differs from the baseline: a Deployment counts the pods that are still going.
func (c change) settles(ctx context.Context, m *mesh.Mesh, before observe.Baseline) error {
	return wait.Until(ctx, "no difference after "+c.do.String(), wait.Options{}, func(ctx context.Context) error {
		now, err := before.Reread(ctx, m)
		if err == nil && len(before.Diff(now)) > 0 {
			err = &observe.Mismatch{Wanted: "no difference", Seen: strings.Join(before.Diff(now), "; ")}
		}
		return err
	})
}

func (c change) inject(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if c.cut != nil {
		watching := make(chan error, 1)
		go func() {
			watching <- wait.Until(t.Context(), "the moment to interrupt", wait.Options{}, func(ctx context.Context) error { return c.cut(ctx, m) })
			cancel()
		}()
		defer func() { require.NoError(t, <-watching) }()
	}
	if err := c.do.Inject(ctx, m); c.fails != "" {
		require.ErrorContains(t, err, c.fails)
	} else {
		require.NoError(t, err)
	}
}

// podsOf returns the names of the workloads' Ready pods.
func podsOf(t *testing.T, m *mesh.Mesh, of []observe.Workload) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, w := range of {
		member, err := m.Member(w.Cluster)
		require.NoError(t, err)
		pods, err := member.ReadyPods(t.Context(), w.App)
		require.NoError(t, err)
		for _, p := range pods {
			names[p.Name] = true
		}
	}
	return names
}

func unavailable(t *testing.T, m *mesh.Mesh) {
	require.ErrorContains(t, fault.StopComponent(b, "nobody").Available(m), "no component")
	require.ErrorContains(t, fault.RevokeRemoteSecret("cluster-c", a).Available(m), "cluster-c")
	nobody := fault.Object{Kind: "Service", Name: "nobody", Namespace: mesh.AppNamespace}
	require.ErrorContains(t, fault.Delete([]string{a}, nobody).Inject(t.Context(), m), "not found")
}
