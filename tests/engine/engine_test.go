// Package engine runs scenarios that go wrong, on a real lab, and looks at what the engine makes of them:
// the verdict, the evidence, and a mesh that is what it was. It needs root and a bundle: go test ./tests/engine
package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const labName = "engine-test"

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

const head = `
title: A test of the engine
why: It shows what the engine does when something goes wrong.
topology: {kind: multi-primary, network: separate, trust: shared-root}
apps: [client@cluster-a, echo@cluster-a, client@cluster-b, echo@cluster-b]
traffic:
  a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}
`

const mismatch = `
break:
- create-cacerts: {in: cluster-b, root: own}
- restart-istiod: {in: cluster-b}
- restart: {apps: echo@cluster-b}
`

const healthy = `
healthy:
  within: 5s
  expect:
  - calls: {stream: a-to-b, success: {at-least: 100}}
`

func parse(t *testing.T, name, text string) *scenario.Scenario {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".yaml")
	require.NoError(t, os.WriteFile(file, []byte("scenario: "+name+head+text), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "changes.yaml"), []byte(changes), 0o644))
	s, err := scenario.Load(file, verb.Table())
	require.NoError(t, err)
	return s
}

// changes are objects that nobody knows before; the policy keeps everybody from putting Secrets right.
const changes = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: production}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-secrets}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}
  validations:
  - {expression: "object.metadata.namespace != 'istio-system'"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-secrets}
spec: {policyName: no-secrets, validationActions: [Deny]}
---
apiVersion: v1
kind: Secret
metadata: {name: cacerts, namespace: default, labels: {app.kubernetes.io/managed-by: eastwest}}
data: {ca-cert.pem: ""}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: extra, namespace: production}
---
apiVersion: v1
kind: Namespace
metadata: {name: extra}
`

func run(
	ctx context.Context,
	t *testing.T,
	l *lab.Lab,
	s *scenario.Scenario,
	o engine.RunOptions,
) (engine.Verdict, *report.Recording, error) {
	t.Helper()
	folder, err := report.NewFolder(filepath.Join(t.TempDir(), "run"))
	require.NoError(t, err)
	var events report.Recording
	o.Folder, o.Sink = folder, report.Multi(folder, &events)
	verdict, err := engine.Run(ctx, l, s, o)
	require.NoError(t, folder.Close())
	return verdict, &events, err
}

// asWritten returns a reason with bounds of time as they are written in the file, without the patience of this machine.
func asWritten(reason string) string {
	return regexp.MustCompile(` × [0-9.]+`).ReplaceAllString(reason, "")
}

func TestScenariosThatGoWrong(t *testing.T) {
	home := labs.Need(t)
	o := lab.Options{Home: home, Name: labName, Topology: lab.DefaultTopology()}
	l := labs.Up(t, o)
	before, err := observe.TakeBaseline(t.Context(), l.Mesh)
	require.NoError(t, err)
	asBefore := func(t *testing.T) {
		t.Helper()
		now, err := observe.TakeBaseline(t.Context(), l.Mesh)
		require.NoError(t, err)
		require.Empty(t, before.Diff(now), "the mesh is not what it was")
	}

	t.Run("a symptom that does not come fails, with evidence, and the fault is undone", func(t *testing.T) {
		s := parse(t, "no-symptom", `
break:
- create-cacerts: {in: cluster-b, root: own}
symptoms:
  within: 2s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- create-cacerts: {in: cluster-b, root: shared}
`+healthy)
		verdict, events, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "no-symptom.yaml:")
		require.Contains(t, asWritten(verdict.Reason), "wanted calls of a-to-b: success at most 0 %, within 2s; seen success 100 %")
		for _, file := range []string{"cluster-a", "cluster-b"} {
			entries, err := os.ReadDir(filepath.Join(verdict.Folder, "evidence", file))
			require.NoError(t, err)
			require.NotEmpty(t, entries)
		}
		requireNoKeys(t, verdict.Folder)
		require.NotEmpty(t, events.Events())
		asBefore(t)
	})

	t.Run("a recovery that does not heal fails: the health check can fail", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "no-recovery", mismatch+`
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- restart-istiod: {in: cluster-b}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "healthy: calls of a-to-b")
		asBefore(t)
	})

	t.Run("a wrong fix that heals is no wrong fix", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "right-fix", `
break:
- scale: {apps: echo@cluster-b, replicas: 0}
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
wrong-fixes:
- fix: Start it again
  why: It is right, and called wrong here.
  do:
  - scale: {apps: echo@cluster-b, replicas: 1}
  still-broken:
  - dns: {from: client@cluster-a, name: echo-cluster-b.production.svc.cluster.local}
recover:
- scale: {apps: echo@cluster-b, replicas: 1}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "every healthy check holds")
		asBefore(t)
	})

	const everywhere = `
  b-to-a: {from: client@cluster-b, to: echo@cluster-a, every: 100ms}
  inside-a: {from: client@cluster-a, to: echo@cluster-a, every: 100ms}
  inside-b: {from: client@cluster-b, to: echo@cluster-b, every: 100ms}
`
	t.Run("a blast radius that is another one fails", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "radius", everywhere+`
break:
- scale: {apps: echo@cluster-b, replicas: 0}
blast-radius: one-way
symptoms:
  within: 5s
  expect:
  - call: {from: [client@cluster-a, client@cluster-b], to: echo@cluster-b, fails: 'no healthy upstream'}
recover:
- scale: {apps: echo@cluster-b, replicas: 1}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(
			t,
			asWritten(verdict.Reason),
			"wanted the blast radius is one-way, within 5s; seen inside and one-way: a-to-b 0 %, b-to-a 100 %, inside-a 100 %, inside-b 0 %",
		)
		asBefore(t)
	})

	t.Run("what breaks later is brought about, and its blast radius proven", func(t *testing.T) {
		labs.Nightly(t)
		later := func(radius string) *scenario.Scenario {
			return parse(t, "later", everywhere+`
break:
- label: {in: cluster-b, kind: Namespace, name: production, labels: {broken: "yes"}}
blast-radius: none
symptoms:
  within: 10s
  expect:
  - call: {from: client@cluster-a, to: echo@cluster-b}
later:
  when: the pods of cluster B go away
  why: Until then they serve.
  do:
  - scale: {apps: echo@cluster-b, replicas: 0}
  within: 5s
  blast-radius: [`+radius+`]
  expect:
  - call: {from: client@cluster-a, to: echo@cluster-b, fails: 'no healthy upstream'}
recover:
- scale: {apps: echo@cluster-b, replicas: 1}
`+healthy)
		}
		verdict, events, err := run(t.Context(), t, l, later("inside, one-way"), engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		require.True(
			t,
			slices.ContainsFunc(events.Events(), func(e report.Event) bool { return e.Phase == "later" && e.Type == report.PhaseEnded }),
		)
		asBefore(t)
		verdict, _, err = run(t.Context(), t, l, later("both-ways"), engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "later: the blast radius is both-ways")
		asBefore(t)
	})

	t.Run("health that does not need the recovery is none", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "no-need", `
break:
- label: {in: cluster-b, kind: Namespace, name: production, labels: {broken: "yes"}}
symptoms:
  within: 5s
  expect:
  - object: {in: cluster-b, kind: Namespace, name: production, path: '{.metadata.labels.broken}', is: "yes"}
recover:
- label: {in: cluster-b, kind: Namespace, name: production, remove: broken}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "recover: without the recovery: wanted the mesh to stay broken; seen every healthy check holds")
		asBefore(t)
	})

	t.Run("what this lab cannot do skips before anything happens", func(t *testing.T) {
		s := parse(t, "cannot", `
break:
- stop-component: {in: cluster-a, component: no-such-component}
symptoms:
  within: 1s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- continue-component: {in: cluster-a, component: no-such-component}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Skipped, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "no-such-component")
		asBefore(t)
	})

	t.Run("a Ctrl-C in the middle undoes", func(t *testing.T) {
		s := parse(t, "interrupted", mismatch+`
symptoms:
  within: 60s
  expect:
  - calls: {stream: a-to-b, success: {at-least: 100}, for: 30s}
recover:
- create-cacerts: {in: cluster-b, root: shared}
`+healthy)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 8*time.Second, context.Canceled)
		defer cancel()
		verdict, _, err := run(ctx, t, l, s, engine.RunOptions{})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, report.Errored, verdict.Result)
		asBefore(t)
	})

	const severed = `
break:
- sever: {between: [cluster-a, cluster-b]}
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- reconnect: {between: [cluster-a, cluster-b]}
` + healthy
	// another opens the lab as another process would.
	another := func(t *testing.T) *lab.Lab {
		t.Helper()
		other, err := lab.Open(home, labName)
		require.NoError(t, err)
		t.Cleanup(other.Close)
		return other
	}
	isNow := func(t *testing.T, wanted lab.State, says ...string) {
		t.Helper()
		status, err := lab.StatusOf(t.Context(), home, labName)
		require.NoError(t, err)
		require.Equal(t, wanted, status.State)
		for _, text := range says {
			require.Contains(t, status.Problem, text)
		}
	}
	undone := func(t *testing.T, name string) {
		t.Helper()
		other := another(t)
		got, err := engine.Undo(t.Context(), other, "")
		require.NoError(t, err)
		require.Equal(t, name, got)
		asBefore(t)
		_, err = other.Mesh.Verify(t.Context())
		require.NoError(t, err)
		isNow(t, lab.Running)
		require.NoFileExists(t, filepath.Join(l.Dir(), "checkpoint.json"))
		got, err = engine.Undo(t.Context(), other, "")
		require.NoError(t, err)
		require.Empty(t, got, "there is nothing left to undo")
	}

	t.Run("stopped after a phase it goes on in other processes, and the pause counts for nothing", func(t *testing.T) {
		s := parse(t, "entered", severed+`
always:
- calls: {stream: a-to-b, during: symptoms, success: {at-most: 0}}
- calls: {stream: a-to-b, recovers-within: 30s}
`)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{Until: scenario.Symptoms})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		isNow(t, lab.Changed, "eastwest run entered --resume --name "+labName, "eastwest run entered --undo", "eastwest up")
		info, err := os.Stat(filepath.Join(l.Dir(), "checkpoint.json"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "it holds Secrets")

		other := another(t)
		_, err = engine.Run(t.Context(), other, s, engine.RunOptions{})
		require.ErrorContains(t, err, "was left in the middle of scenario entered")
		for _, name := range []string{"", "entered", s.File} {
			file, err := engine.Resumable(other, name)
			require.NoError(t, err)
			require.Equal(t, s.File, file)
		}
		var refused *engine.ResumeError
		_, err = engine.Resumable(other, "late-cacerts")
		require.ErrorAs(t, err, &refused)
		_, err = engine.Undo(t.Context(), other, "late-cacerts")
		require.ErrorAs(t, err, &refused)
		_, _, err = run(t.Context(), t, other, s, engine.RunOptions{Resume: true, Until: scenario.Break})
		require.ErrorAs(t, err, &refused)
		text, err := os.ReadFile(s.File)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(s.File, append(text, '\n'), 0o644))
		_, _, err = run(t.Context(), t, other, s, engine.RunOptions{Resume: true})
		require.ErrorAs(t, err, &refused)
		require.ErrorContains(t, err, "has changed since")
		require.NoError(t, os.WriteFile(s.File, text, 0o644))

		lengths := recorded(t, verdict).Ended.Sub(recorded(t, verdict).Began)
		verdict, _, err = run(t.Context(), t, other, s, engine.RunOptions{Resume: true, Until: scenario.Recover})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		isNow(t, lab.Changed, "goes on after phase recover")
		start := time.Now()
		verdict, events, err := run(t.Context(), t, another(t), s, engine.RunOptions{Resume: true})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		for _, e := range events.Events() {
			require.NotContains(t, []string{"baseline", "break", "symptoms", "recover"}, e.Phase)
		}
		whole := recorded(t, verdict)
		require.Greater(t, whole.Ended.Sub(whole.Began), lengths, "what was before the pause is in it")
		require.Less(t, whole.Ended.Sub(whole.Calls[len(whole.Calls)-1].Start), time.Since(start))
		for _, phase := range []string{"baseline", "break", "symptoms", "recover", "healthy"} {
			_, err := whole.Phase(phase)
			require.NoError(t, err)
		}
		asBefore(t)
		isNow(t, lab.Running)
		_, err = engine.Undo(t.Context(), other, "")
		require.NoError(t, err)
	})

	t.Run("one that fails after it went on is undone", func(t *testing.T) {
		s := parse(
			t,
			"resumed-in-vain",
			strings.Replace(severed, "reconnect: {between: [cluster-a, cluster-b]}", "restart: {apps: client@cluster-a}", 1),
		)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{Until: scenario.Break})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		verdict, _, err = run(t.Context(), t, another(t), s, engine.RunOptions{Resume: true})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "healthy")
		isNow(t, lab.Running)
		asBefore(t)
	})

	t.Run("everything that a scenario changes is undone in another process", func(t *testing.T) {
		s := parse(t, "everything", mismatch+`
- label: {in: cluster-a, kind: Namespace, name: istio-system, labels: {new: "yes"}, remove: [topology.istio.io/network]}
- patch: {in: cluster-b, kind: gateways.networking.istio.io, name: cross-network-gateway, namespace: istio-system, patch: {spec: {selector: {istio: nobody}}}}
- delete: {in: [cluster-a, cluster-b], kind: Service, name: echo-cluster-b, namespace: production}
- patch: {in: cluster-b, kind: ClusterRoleBinding, name: istiod-clusterrole-istio-system, patch: {subjects: null}}
- patch: {in: cluster-a, kind: ConfigMap, name: istio, namespace: istio-system, patch: {data: {meshNetworks: "networks: {}"}}}
- revoke-remote-secret: {in: cluster-a, of: cluster-b}
- create-remote-secret: {in: cluster-b, of: cluster-a, name: elsewhere}
- apply: {in: [cluster-a, cluster-b], file: changes.yaml}
- scale: {apps: [istiod@cluster-a, echo@cluster-a], replicas: 0}
- sever: {between: [cluster-a, cluster-b]}
- stop-component: {in: cluster-b, component: kube-apiserver}
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- continue-component: {in: cluster-b, component: kube-apiserver}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{Until: scenario.Symptoms})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		isNow(t, lab.Changed)
		undone(t, "everything")
		for _, member := range l.Mesh.Members {
			_, err := member.Kube.CoreV1().ConfigMaps("production").Get(t.Context(), "extra", metav1.GetOptions{})
			require.True(t, apierrors.IsNotFound(err), "an object that only the scenario names: %v", err)
		}
	})

	t.Run("an istiod that crashes again and again is undone", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "crashing", `
operate:
- scale: {apps: istiod@cluster-b, replicas: 0}
- patch: {in: cluster-b, kind: Secret, name: cacerts, namespace: istio-system, patch: {data: {ca-key.pem: bm8ga2V5}}}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{Until: scenario.Operate, Keep: true})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		b := l.Mesh.Members[1].Kube
		_, err = b.AppsV1().
			Deployments(mesh.SystemNamespace).
			Patch(t.Context(), mesh.Istiod, types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		require.NoError(
			t,
			wait.Until(t.Context(), "istiod to crash twice", wait.Options{Within: time.Minute, Every: time.Second}, func(ctx context.Context) error {
				pods, err := b.CoreV1().Pods(mesh.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=istiod"})
				if err != nil {
					return err
				}
				for _, p := range pods.Items {
					for _, c := range p.Status.ContainerStatuses {
						if c.RestartCount >= 2 {
							return nil
						}
					}
				}
				return errors.New("it has not")
			}),
		)
		undone(t, "crashing")
	})

	t.Run("stopped after a phase the mesh stays broken, and up makes the lab anew", func(t *testing.T) {
		labs.Nightly(t)
		s := parse(t, "until", severed)
		verdict, _, err := run(t.Context(), t, l, s, engine.RunOptions{Until: scenario.Symptoms})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		isNow(t, lab.Changed)
		_, _, err = run(t.Context(), t, l, s, engine.RunOptions{})
		require.ErrorContains(t, err, "was left in the middle of scenario until")
		l.Close()
		l, err = lab.Up(t.Context(), o)
		require.NoError(t, err)
		isNow(t, lab.Running)
	})
}

// recorded is the traffic that a run has kept.
func recorded(t *testing.T, v engine.Verdict) *traffic.Recording {
	t.Helper()
	r, err := traffic.Load(filepath.Join(v.Folder, "traffic-a-to-b.json"))
	require.NoError(t, err)
	return r
}

// requireNoKeys looks for private keys in everything that a run has kept.
func requireNoKeys(t *testing.T, folder string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.False(t, strings.Contains(string(data), "PRIVATE KEY-----\nM"), "a private key in %s", path)
		return err
	}))
}
