package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// wants is what has to come of one run. Empty fields are not looked at, but for changed.
type wants struct {
	result  report.Result
	path    string         // the phases that were begun
	reason  string         // a part of the verdict's
	done    string         // what was done to the mesh, in order
	changed bool           // the lab is left marked
	note    string         // a part of a note
	stopped scenario.Phase // after this phase, says the checkpoint
	within  time.Duration  // how long it may take
}

// wholeStory is the path of a scenario that passes.
const wholeStory = "baseline break symptoms diagnose recover healthy always undo"

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		edit    func(t *testing.T, w *world, s *scenario.Scenario) // of a scenario that passes
		stage   func(st *stage)
		options RunOptions
		wants   wants
	}{
		"a scenario that holds": {
			wants: wants{result: report.Passed, path: wholeStory, done: "break, recover"},
		},
		"a planned change": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Operate, s.Break, s.Recover, s.Symptoms, s.Diagnose, s.Always = []scenario.Step{w.change("operate", nil)}, nil, nil,
					scenario.Expect{}, nil, nil
			},
			wants: wants{result: report.Passed, path: "baseline operate healthy undo", done: "operate"},
		},
		"a mesh that is not healthy before": {
			edit: func(_ *testing.T, w *world, _ *scenario.Scenario) { w.set(true) },
			wants: wants{result: report.Failed, path: "baseline", reason: "baseline: calls of a-to-b: success at least 100 %: wanted calls " +
				"of a-to-b: success at least 100 %, within 10s", done: "collect"},
		},
		"symptoms that do not show": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Break = []scenario.Step{w.change("nothing", nil)}
			},
			wants: wants{result: report.Failed, path: "baseline break symptoms undo", reason: "symptoms: calls of a-to-b: success at most 0 %",
				done: "nothing, collect"},
		},
		"a change that fails": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Break = append(s.Break, w.change("fail", func(context.Context) error { return errTest }))
			},
			wants: wants{result: report.Errored, path: "baseline break undo", reason: "fail: nothing works",
				done: `break, fail, collect, restore "healthy"`},
		},
		"a change that runs out of time": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) { s.Break = append(s.Break, w.change("hang", hangs)) },
			wants: wants{
				result: report.Errored, reason: "not done within 1m30s", done: `break, hang, collect, restore "healthy"`, within: 100 * time.Second,
			},
		},
		"a diagnosis that runs out of time": {
			edit:  func(_ *testing.T, _ *world, s *scenario.Scenario) { s.Diagnose = []scenario.Step{looks("hang", hangs)} },
			wants: wants{result: report.Failed, path: "baseline break symptoms diagnose undo", reason: "within 30s", within: 45 * time.Second},
		},
		"a recovery that runs out of time": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Recover = []scenario.Step{w.change("hang", hangs)}
			},
			wants: wants{result: report.Errored, path: "baseline break symptoms diagnose recover undo", reason: "not done within 1m30s",
				done: `break, hang, collect, restore "healthy"`},
		},
		"a recovery that does not heal": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) { s.Recover = []scenario.Step{w.change("hope", nil)} },
			wants: wants{result: report.Failed, path: "baseline break symptoms diagnose recover healthy undo", reason: "healthy: calls of a-to-b",
				done: `break, hope, collect, restore "healthy"`},
		},
		"a gate that does not hold": {
			edit:  func(_ *testing.T, _ *world, s *scenario.Scenario) { s.Break = append(s.Break, looks("gate", never)) },
			wants: wants{result: report.Failed, path: "baseline break undo", reason: "break: gate: wanted this, within 30s; seen that"},
		},
		"a gate that holds later": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				var since time.Time
				s.Break = append(s.Break, looks("gate", func(context.Context) error {
					if since.IsZero() {
						since = time.Now()
					}
					if time.Since(since) < 20*time.Second {
						return errTest
					}
					return nil
				}), w.change("after", nil))
			},
			wants: wants{result: report.Passed, done: "break, after, recover"},
		},
		"it stops after a phase": {
			options: RunOptions{Until: scenario.Symptoms},
			wants:   wants{result: report.Passed, path: "baseline break symptoms", done: "break", changed: true, stopped: scenario.Symptoms},
		},
		"it stops before the first change": {
			options: RunOptions{Until: Baseline},
			wants:   wants{result: report.Passed, path: "baseline", changed: true, stopped: Baseline},
		},
		"it stops after a phase that the scenario has not": {
			options: RunOptions{Until: scenario.WrongFixes},
			wants:   wants{result: report.Passed, path: "baseline break symptoms diagnose", changed: true, stopped: scenario.WrongFixes},
		},
		"it fails before the phase that it is to stop after": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Break = []scenario.Step{w.change("nothing", nil)}
			},
			options: RunOptions{Until: scenario.Diagnose},
			wants:   wants{result: report.Failed, path: "baseline break symptoms undo"},
		},
		"it keeps what was done": {
			options: RunOptions{Keep: true},
			wants: wants{result: report.Passed, path: "baseline break symptoms diagnose recover healthy always", changed: true,
				stopped: scenario.Always},
		},
		"it keeps a failure": {
			edit: func(_ *testing.T, _ *world, s *scenario.Scenario) {
				s.Diagnose = []scenario.Step{looks("diagnosis", never)}
			},
			options: RunOptions{Keep: true},
			wants:   wants{result: report.Failed, path: "baseline break symptoms diagnose", done: "break, collect", changed: true},
		},
		"without its recovery it fails, and soon": {
			options: RunOptions{Without: scenario.Recover},
			wants: wants{result: report.Failed, path: "baseline break symptoms diagnose healthy undo", reason: "within 5s",
				within: 10 * time.Second},
		},
		"without its break the symptoms do not show": {
			options: RunOptions{Without: scenario.Break},
			wants:   wants{result: report.Failed, path: "baseline symptoms", done: "collect"},
		},
		"a wrong fix that does not heal": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.WrongFixes = []scenario.WrongFix{{Fix: "hope", Why: "it is cheap", Do: []scenario.Step{w.change("hope", nil)}}}
			},
			wants: wants{result: report.Passed, path: "baseline break symptoms diagnose wrong-fixes recover healthy always undo",
				done: "break, hope, recover",
				note: "wrong fix: hope: it is cheap"},
		},
		"a wrong fix that ends the symptoms": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.WrongFixes = []scenario.WrongFix{{Fix: "luck", Do: []scenario.Step{w.heals("luck")}}}
			},
			wants: wants{result: report.Failed, reason: "wrong-fixes: calls of a-to-b"},
		},
		"a wrong fix that heals a moment later": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				heal := w.change("luck", func(context.Context) error {
					time.AfterFunc(lookEvery+lookEvery/2, func() { w.set(false) })
					return nil
				})
				s.WrongFixes = []scenario.WrongFix{{Fix: "luck", Do: []scenario.Step{heal}, StillBroken: []scenario.Step{w.brokenCheck()}}}
			},
			wants: wants{result: report.Failed, reason: "wrong-fixes: broken: wanted a broken mesh, within 30s"},
		},
		"a wrong fix that heals, whatever still looks broken": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.WrongFixes = []scenario.WrongFix{{Fix: "luck", Do: []scenario.Step{w.heals("luck")},
					StillBroken: []scenario.Step{looks("still", holds)}}}
			},
			wants: wants{result: report.Failed, reason: "wrong-fixes: luck: wanted the mesh to stay broken; seen every healthy check holds"},
		},
		"a mesh that heals by itself": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Diagnose = []scenario.Step{looks("diagnosis", func(context.Context) error { w.set(false); return nil })}
			},
			wants: wants{result: report.Failed, path: "baseline break symptoms diagnose recover undo",
				reason: "recover: without the recovery: wanted the mesh to stay broken"},
		},
		"what breaks later": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Later = &scenario.Later{When: "istiod restarts", Do: []scenario.Step{w.change("restart", nil)}, Within: s.Symptoms.Within,
					Expect: []scenario.Step{w.brokenCheck()}}
			},
			wants: wants{result: report.Passed, path: "baseline break symptoms diagnose later recover healthy always undo",
				done: "break, restart, recover"},
		},
		"what does not break later": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				s.Later = &scenario.Later{When: "never", Do: []scenario.Step{w.change("restart", nil)}, Within: s.Symptoms.Within,
					Expect: []scenario.Step{looks("worse", never)}}
			},
			wants: wants{result: report.Failed, path: "baseline break symptoms diagnose later undo",
				reason: "later: worse: wanted this, within 10s"},
		},
		"a judgement that does not hold": {
			edit: func(t *testing.T, _ *world, s *scenario.Scenario) {
				t.Helper()
				s.Always = []scenario.Step{calls(t, "{stream: a-to-b, success: {at-least: 100}}")}
			},
			wants: wants{result: report.Failed, reason: "always: calls of a-to-b: success at least 100 %", done: "break, recover, collect"},
		},
		"a restore that fails": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				w.restoreErr = errTest
				s.Recover = []scenario.Step{w.change("hope", nil)}
			},
			wants: wants{result: report.Failed, reason: "healthy: calls of a-to-b", changed: true,
				note: "`eastwest run story --undo --name test` tries again"},
		},
		"a change and the restore both fail": {
			edit: func(_ *testing.T, w *world, s *scenario.Scenario) {
				w.restoreErr = errors.New("nor does this")
				s.Break = append(s.Break, w.change("fail", func(context.Context) error { return errTest }))
			},
			wants: wants{result: report.Errored, reason: "nothing works", changed: true, note: "nor does this"},
		},
		"a change that cannot be written down is not made": {
			edit:  func(_ *testing.T, w *world, _ *scenario.Scenario) { w.leaveErr = errTest },
			wants: wants{result: report.Errored, path: "baseline break", reason: "nothing works", done: "collect"},
		},
		"a fault that this lab cannot have": {
			edit: func(_ *testing.T, _ *world, s *scenario.Scenario) {
				s.Recover = append(s.Recover, scenario.Step{Verb: "freeze", Args: &change{name: "freeze", unavailable: errors.New("no machine below")}})
			},
			wants: wants{result: report.Skipped, path: "", reason: "skipped: no machine below", done: ""},
		},
		"a version of Istio that the scenario is not about": {
			edit: func(t *testing.T, _ *world, s *scenario.Scenario) {
				require.NoError(t, s.Istio.UnmarshalText([]byte(">= 1.32")))
			},
			wants: wants{result: report.Skipped, reason: "wanted Istio >= 1.32; seen 1.31-current in cluster-a, 1.30-previous in cluster-b: try"},
		},
		"a version of Istio that one cluster has": {
			edit: func(t *testing.T, _ *world, s *scenario.Scenario) {
				require.NoError(t, s.Istio.UnmarshalText([]byte("< 1.31")))
			},
			wants: wants{result: report.Skipped, reason: "skipped: wanted Istio < 1.31; seen 1.31-current in cluster-a: try"},
		},
		"versions of Istio that the scenario is about": {
			edit: func(t *testing.T, _ *world, s *scenario.Scenario) {
				require.NoError(t, s.Istio.UnmarshalText([]byte(">= 1.30, < 1.32")))
			},
			wants: wants{result: report.Passed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				s := w.story(t)
				if test.edit != nil {
					test.edit(t, w, s)
				}
				start := time.Now()
				out := w.run(t.Context(), t, w.stage(), s, test.options)
				require.NoError(t, out.err)
				want := test.wants
				assert.Equal(t, want.result, out.Result, out.Reason)
				assert.Contains(t, out.Reason, want.reason)
				assert.Contains(t, out.notes(), want.note)
				assert.Equal(t, want.changed, w.changed != "", "the lab is marked")
				if want.path != "" || want.result == report.Skipped {
					assert.Equal(t, want.path, out.path())
				}
				if want.done != "" || want.result == report.Skipped {
					assert.Equal(t, want.done, strings.Join(w.done, ", "))
				}
				if want.changed {
					assert.Equal(t, want.stopped, w.checkpoint.Done)
				}
				if want.within != 0 {
					assert.LessOrEqual(t, time.Since(start), want.within)
				}
			})
		})
	}
}

// An interrupt ends any phase, and the mesh is put back in time of its own.
func TestInterruptInEachPhase(t *testing.T) {
	for _, phase := range []scenario.Phase{
		Baseline, scenario.Break, scenario.Symptoms, scenario.Diagnose, scenario.LaterOn, scenario.WrongFixes, scenario.Recover, scenario.Healthy,
	} {
		t.Run(string(phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				s := w.story(t)
				s.Later = &scenario.Later{Do: []scenario.Step{w.change("restart", nil)}, Expect: []scenario.Step{w.brokenCheck()}}
				s.WrongFixes = []scenario.WrongFix{{Fix: "hope", Do: []scenario.Step{w.change("hope", nil)}}}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				interrupt := sinkFunc(func(e report.Event) {
					if e.Type == report.PhaseStarted && e.Phase == string(phase) {
						cancel(errors.New("interrupted"))
					}
				})
				out := w.run(ctx, t, w.stage(), s, RunOptions{Sink: interrupt})
				require.EqualError(t, out.err, "interrupted")
				require.Equal(t, report.Errored, out.Result)
				require.Empty(t, w.changed, "the lab is marked")
				require.False(t, w.isBroken())
				ended := out.phases[len(out.phases)-1]
				if phase == Baseline {
					require.Equal(t, string(Baseline), ended, "nothing was changed")
				} else {
					require.Equal(t, string(Undoing), ended)
				}
			})
		})
	}
}

// resumed runs the scenario to a phase and then goes on from there, as another process would.
func resumed(t *testing.T, w *world, s *scenario.Scenario, until scenario.Phase, o RunOptions) outcome {
	t.Helper()
	first := w.run(t.Context(), t, w.stage(), s, RunOptions{Until: until})
	require.NoError(t, first.err)
	require.Equal(t, report.Passed, first.Result, first.Reason)
	<-time.After(time.Hour) // somebody looks around; in a bubble it takes no time
	o.Resume = true
	return w.run(t.Context(), t, w.stage(), s, o)
}

func TestResumeGoesOnAfterThePhase(t *testing.T) {
	for until, path := range map[scenario.Phase]string{
		scenario.Break:    "resume symptoms diagnose recover healthy always undo",
		scenario.Symptoms: "resume diagnose recover healthy always undo",
		scenario.Recover:  "resume healthy always undo",
	} {
		t.Run(string(until), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				s := w.story(t)
				out := resumed(t, w, s, until, RunOptions{})
				require.NoError(t, out.err)
				require.Equal(t, report.Passed, out.Result, out.Reason)
				require.Equal(t, path, out.path())
				require.Equal(t, []string{"break", "recover"}, w.done)
				require.Empty(t, w.changed)
				recording, err := traffic.Load(out.Folder + "/traffic-a-to-b.json")
				require.NoError(t, err)
				labels := []string{}
				for _, m := range recording.Marks {
					labels = append(labels, m.Label)
				}
				require.Subset(t, labels, []string{"baseline", "break", traffic.Resumed, "healthy"}, "one recording of both processes")
				require.Less(t, recording.Ended.Sub(recording.Began), time.Minute, "nobody is judged by the pause")
			})
		})
	}
}

// A gate after the pause judges calls that were made after it.
func TestGateAfterResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Recover = append(s.Recover, calls(t, "{stream: a-to-b, success: {at-least: 100}}"), w.change("after", nil))
		out := resumed(t, w, s, scenario.Diagnose, RunOptions{})
		require.Equal(t, report.Passed, out.Result, out.Reason)
		require.Equal(t, []string{"break", "recover", "after"}, w.done)
	})
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Recover = append([]scenario.Step{calls(t, "{stream: a-to-b, success: {at-least: 100}}")}, s.Recover...)
		out := resumed(t, w, s, scenario.Diagnose, RunOptions{})
		require.Equal(t, report.Failed, out.Result, "good calls from before the break are no reason to go on")
	})
}

func TestWhatCannotBeResumed(t *testing.T) {
	refused := func(t *testing.T, want string, w *world, s *scenario.Scenario, o RunOptions) {
		t.Helper()
		o.Resume = true
		out := w.run(t.Context(), t, w.stage(), s, o)
		var refusal *ResumeError
		require.ErrorAs(t, out.err, &refusal)
		require.Contains(t, refusal.Reason, want)
		require.Empty(t, out.events)
	}
	for name, test := range map[string]func(t *testing.T, w *world, s *scenario.Scenario){
		"a lab as it was": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			refused(t, "lab test is as it was", w, s, RunOptions{})
		},
		"another scenario": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			w.run(t.Context(), t, w.stage(), s, RunOptions{Until: scenario.Break})
			other := w.story(t)
			other.Name = "other"
			refused(t, "was left by scenario story", w, other, RunOptions{})
		},
		"a phase that is behind it": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			w.run(t.Context(), t, w.stage(), s, RunOptions{Until: scenario.Symptoms})
			refused(t, "phase break of scenario story is behind it", w, s, RunOptions{Until: scenario.Break})
		},
		"a run that failed": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			s.Diagnose = []scenario.Step{looks("diagnosis", never)}
			w.run(t.Context(), t, w.stage(), s, RunOptions{Keep: true})
			refused(t, "it was cut off or has failed in one", w, s, RunOptions{})
		},
		"a run that came to its end": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			w.run(t.Context(), t, w.stage(), s, RunOptions{Keep: true})
			refused(t, "has run to its end", w, s, RunOptions{})
		},
		"a file that has changed": func(t *testing.T, w *world, s *scenario.Scenario) {
			t.Helper()
			require.NoError(t, os.WriteFile(s.File, []byte("scenario: story\n"), 0o644))
			w.run(t.Context(), t, w.stage(), s, RunOptions{Until: scenario.Break})
			require.NoError(t, os.WriteFile(s.File, []byte("scenario: story # other\n"), 0o644))
			refused(t, "has changed since phase break", w, s, RunOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				test(t, w, w.story(t))
			})
		})
	}
}

func TestUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		undone, err := w.stage().undo(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, undone, "there is nothing to undo")

		w.run(t.Context(), t, w.stage(), s, RunOptions{Until: scenario.Symptoms})
		_, err = w.stage().undo(t.Context(), "other")
		require.ErrorContains(t, err, "was left by scenario story")
		require.True(t, w.isBroken())

		w.restoreErr = errTest
		_, err = w.stage().undo(t.Context(), s.File)
		require.ErrorContains(t, err, "nothing works: try again")
		require.Equal(t, "story", w.changed, "it can be tried again")

		w.restoreErr = nil
		undone, err = w.stage().undo(t.Context(), s.Name)
		require.NoError(t, err)
		require.Equal(t, "story", undone)
		require.False(t, w.isBroken())
		require.Empty(t, w.changed)
	})
	synctest.Test(t, func(t *testing.T) {
		w := &world{changed: "story", checkpointErr: errTest}
		_, err := w.stage().undo(t.Context(), "")
		require.ErrorContains(t, err, "what it was like before cannot be read: nothing works: `eastwest up --name test` makes it anew")
	})
}

// What a kill may leave is written down before the first change, and not sooner.
func TestCheckpointComesBeforeTheFirstChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Break = []scenario.Step{looks("gate", func(context.Context) error {
			assert.Empty(t, w.changed)
			return nil
		}), w.change("break", func(context.Context) error {
			assert.Equal(t, "story", w.changed)
			assert.JSONEq(t, `"healthy"`, string(w.checkpoint.Before))
			assert.Empty(t, w.checkpoint.Done, "it was not stopped, it runs")
			w.set(true)
			return nil
		})}
		out := w.run(t.Context(), t, w.stage(), s, RunOptions{})
		require.Equal(t, report.Passed, out.Result, out.Reason)
		data, err := json.Marshal(w.checkpoint)
		require.NoError(t, err)
		require.Contains(t, string(data), `"scenario":"story"`)
	})
}

func TestTwoFailuresAtOnceAreBothTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		s.Diagnose = []scenario.Step{looks("one", never), looks("two", holds), looks("three", never)}
		out := w.run(t.Context(), t, w.stage(), s, RunOptions{})
		require.Equal(t, report.Failed, out.Result)
		for name, want := range map[string]report.Result{"one": report.Failed, "two": report.Passed, "three": report.Failed} {
			require.Equal(t, want, out.ended(name).Result, name)
		}
		require.Equal(t, "something", out.ended("three").Try)
	})
}

// A recording that is finished does not change, so looking again shows nothing new.
func TestAlwaysIsJudgedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		judge := &check{name: "judge", look: never}
		s.Always = []scenario.Step{{Verb: "judge", Args: judge}}
		out := w.run(t.Context(), t, w.stage(), s, RunOptions{})
		require.Equal(t, report.Failed, out.Result)
		require.Equal(t, 1, judge.n)
		require.NotContains(t, out.Reason, "within")
	})
}

// The mesh of others is changed only with consent, by scenarios that say how far they reach.
func TestScenariosOnAMeshOfOthers(t *testing.T) {
	for name, test := range map[string]struct {
		radius  scenario.Radius
		consent bool
		want    string
	}{
		"no radius":  {nil, true, "does not say how far it reaches"},
		"no consent": {scenario.Radius{"none"}, false, "say --adopt"},
		"both":       {scenario.Radius{"none"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				s := w.story(t)
				s.Radius = test.radius
				st := w.stage()
				st.adopted = true
				out := w.run(t.Context(), t, st, s, RunOptions{Adopt: test.consent, Until: Baseline})
				if test.want == "" {
					require.NoError(t, out.err)
				} else {
					require.ErrorContains(t, out.err, test.want)
				}
				require.Equal(t, test.want == "", w.adopted)
			})
		})
	}
}

func TestWhatDoesNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		s := w.story(t)
		_, err := w.stage().run(t.Context(), s, RunOptions{})
		require.ErrorContains(t, err, "RunOptions.Folder is nil")

		out := w.run(t.Context(), t, w.stage(), s, RunOptions{Without: scenario.WrongFixes})
		require.ErrorContains(t, out.err, "there is no wrong-fixes that could be left out")

		single := w.stage()
		single.topology.Kind = scenario.Single
		out = w.run(t.Context(), t, single, s, RunOptions{})
		require.ErrorContains(t, out.err, "the scenario needs multi-primary")

		w.changed, w.checkpoint = "earlier", lab.Checkpoint{Scenario: "earlier", Done: scenario.Break}
		out = w.run(t.Context(), t, w.stage(), s, RunOptions{})
		require.ErrorContains(
			t,
			out.err,
			"`eastwest run earlier --resume --name test` goes on after phase break, `eastwest run earlier --undo --name test` puts it back",
		)
		require.Empty(t, slices.DeleteFunc(w.done, func(d string) bool { return d == "collect" }))
	})
}
