package engine

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// readTakes is how long reading the state of the worlds of these tests takes.
const readTakes = 3 * time.Second

// versioned is the stage of a mesh that is made for upgrades. A state tells what was done so far.
func (w *world) versioned() stage {
	st := w.stage()
	st.state = func(ctx context.Context) report.State {
		select {
		case <-ctx.Done():
		case <-time.After(readTakes):
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return report.State{Clusters: []report.ClusterState{{Cluster: "cluster-a", Injection: fmt.Sprint(w.done)}}}
	}
	return st
}

// states are the states that were read, and the steps after which.
func (o outcome) states() (all []string) {
	for i, e := range o.events {
		if e.Type == report.StateRead {
			after := o.events[i-1]
			all = append(all, fmt.Sprintf("%s %q after %s %q: %s", e.Phase, e.Name, after.Type, after.Name, e.State.Clusters[0].Injection))
		}
	}
	return all
}

func TestStatesAreReadAfterEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Break = append(s.Break, looks("gate", holds), w.change("again", nil))
		s.WrongFixes = []scenario.WrongFix{{Fix: "a wrong fix", Do: []scenario.Step{w.change("wrong", nil)}}}
		out := w.run(t.Context(), t, w.versioned(), s, RunOptions{})
		require.Equal(t, report.Passed, out.Result, out.Reason)
		require.Equal(t, []string{
			`baseline "before" after step-ended "calls of a-to-b: success at least 100 %": []`,
			`break "break" after step-ended "break": [break]`,
			`break "again" after step-ended "again": [break again]`,
			`wrong-fixes "wrong" after step-ended "wrong": [break again wrong]`,
			`recover "recover" after step-ended "recover": [break again wrong recover]`,
		}, out.states(), "no check has one, and not the undoing")
		for _, name := range []string{"break", "again", "wrong", "recover", "gate"} {
			require.Less(t, out.ended(name).Took, readTakes, "reading is no part of %s", name)
		}
		recordings, err := report.Recordings(out.Folder)
		require.NoError(t, err)
		table := report.TimetableOf(out.events, recordings)
		calls := 0
		for _, state := range table.States {
			calls += state.Streams[0].Calls
		}
		require.Equal(t, recordings[0].All().Stats().Calls, calls, "each call is in one state")
		require.Equal(t, recordings[0].All().Stats().Lost, table.Lost())
		require.Zero(t, table.States[0].Lost())
		require.NotZero(t, table.States[2].Lost(), "it was broken, and stayed so until the next change had ended")
		require.Zero(t, table.States[5].Lost(), "nothing is lost after the recovery")
	})
}

func TestOtherMeshesHaveNoStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		out := w.run(t.Context(), t, w.stage(), w.story(t), RunOptions{})
		require.Equal(t, report.Passed, out.Result, out.Reason)
		require.Empty(t, out.states())
		require.Nil(t, report.TimetableOf(out.events, nil))
	})
}

// A change that fails has a state too: it may have been half done.
func TestStateAfterAChangeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Break = []scenario.Step{w.change("half", func(context.Context) error { return errTest })}
		out := w.run(t.Context(), t, w.versioned(), s, RunOptions{})
		require.Equal(t, report.Errored, out.Result)
		require.Len(t, out.states(), 2)
		table := report.TimetableOf(out.events, nil)
		require.Equal(t, "1 half (errored)", table.States[1].Title())
	})
}

// After an interrupt nobody waits for a state.
func TestNoStateAfterAnInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := &world{}
		s := w.story(t)
		s.Break = []scenario.Step{w.change("stop", func(context.Context) error { cancel(errTest); return nil })}
		out := w.run(ctx, t, w.versioned(), s, RunOptions{})
		require.ErrorIs(t, out.err, errTest)
		require.Len(t, out.states(), 1)
	})
}

func TestStateWhereItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		first := w.run(t.Context(), t, w.versioned(), s, RunOptions{Until: scenario.Symptoms})
		require.Equal(t, report.Passed, first.Result, first.Reason)
		<-time.After(time.Hour)
		out := w.run(t.Context(), t, w.versioned(), s, RunOptions{Resume: true})
		require.Equal(t, report.Passed, out.Result, out.Reason)
		require.Len(t, out.states(), 2)
		recordings, err := report.Recordings(out.Folder)
		require.NoError(t, err)
		table := report.TimetableOf(out.events, recordings)
		require.Equal(t, "resumed", table.States[0].Title())
		require.Equal(t, "1 recover", table.States[1].Title())
		before := table.States[0].Streams[0]
		require.Less(t, before.Calls, 200, "the calls of the first part are in its own timetable")
	})
}
