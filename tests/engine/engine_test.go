// Package engine runs scenarios that go wrong, on a real lab, and looks at what the engine makes of them:
// the verdict, the evidence, and a mesh that is what it was. It needs root and a bundle: go test ./tests/engine
package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
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
	s, err := scenario.Parse(filepath.Join(t.TempDir(), name+".yaml"), []byte("scenario: "+name+head+text), lab.Vocabulary())
	require.NoError(t, err)
	return s
}

func run(ctx context.Context, t *testing.T, l *lab.Lab, s *scenario.Scenario, o lab.RunOptions) (lab.Verdict, *report.Recording, error) {
	t.Helper()
	folder, err := report.NewFolder(filepath.Join(t.TempDir(), "run"))
	require.NoError(t, err)
	var events report.Recording
	o.Folder, o.Sink = folder, report.Multi(folder, &events)
	verdict, err := l.Run(ctx, s, o)
	require.NoError(t, folder.Close())
	return verdict, &events, err
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
		verdict, events, err := run(t.Context(), t, l, s, lab.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "no-symptom.yaml:")
		require.Contains(t, verdict.Reason, "wanted calls of a-to-b: success at most 0 %, within 2s; seen success 100 %")
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
		s := parse(t, "no-recovery", mismatch+`
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- restart-istiod: {in: cluster-b}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, lab.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "healthy: calls of a-to-b")
		asBefore(t)
	})

	t.Run("a wrong fix that heals is no wrong fix", func(t *testing.T) {
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
		verdict, _, err := run(t.Context(), t, l, s, lab.RunOptions{})
		require.NoError(t, err)
		require.Equal(t, report.Failed, verdict.Result, verdict.Reason)
		require.Contains(t, verdict.Reason, "every healthy check holds")
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
		verdict, _, err := run(t.Context(), t, l, s, lab.RunOptions{})
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
		verdict, _, err := run(ctx, t, l, s, lab.RunOptions{})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, report.Errored, verdict.Result)
		asBefore(t)
	})

	t.Run("stopped after a phase the mesh stays broken, and up makes the lab anew", func(t *testing.T) {
		s := parse(t, "until", `
break:
- sever: {between: [cluster-a, cluster-b]}
symptoms:
  within: 30s
  expect:
  - calls: {stream: a-to-b, success: {at-most: 0}}
recover:
- reconnect: {between: [cluster-a, cluster-b]}
`+healthy)
		verdict, _, err := run(t.Context(), t, l, s, lab.RunOptions{Until: scenario.Symptoms})
		require.NoError(t, err)
		require.Equal(t, report.Passed, verdict.Result, verdict.Reason)
		status, err := lab.StatusOf(t.Context(), home, labName)
		require.NoError(t, err)
		require.Equal(t, lab.Changed, status.State)
		_, _, err = run(t.Context(), t, l, s, lab.RunOptions{})
		require.ErrorContains(t, err, "was left in the middle of scenario until")
		l.Close()
		l, err = lab.Up(t.Context(), o)
		require.NoError(t, err)
		status, err = lab.StatusOf(t.Context(), home, labName)
		require.NoError(t, err)
		require.Equal(t, lab.Running, status.State)
	})
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
