package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// story is a scenario from the first call to the last judgement.
func (r *run) story(ctx context.Context) (err error) {
	if err := fits(r.scenario.Istio, r.istio); err != nil {
		return err
	}
	if r.plan, err = newPlan(r.ground, r.scenario); err != nil {
		return err
	}
	first := Baseline
	if r.options.Resume {
		if first, err = r.resume(ctx); err != nil {
			return err
		}
	}
	reached := false
	for _, part := range []struct {
		phase scenario.Phase
		do    func(context.Context) error
	}{
		{Baseline, r.baseline},
		{scenario.Break, r.change},
		{scenario.Operate, r.change},
		{scenario.Symptoms, r.symptoms},
		{scenario.Diagnose, r.diagnose},
		{scenario.LaterOn, r.later},
		{scenario.WrongFixes, r.wrongFixes},
		{scenario.Recover, r.recover},
		{scenario.Healthy, r.healthy},
		{scenario.Always, r.always},
	} {
		if reached = reached || part.phase == first; !reached {
			continue
		}
		if part.phase == Baseline || r.scenario.Has(part.phase) && part.phase != r.options.Without {
			if err := r.inPhase(ctx, part.phase, part.do); err != nil {
				return err
			}
		}
		if part.phase == r.options.Until {
			return nil
		}
	}
	return nil
}

// baseline remembers the mesh as it is, starts the traffic, and proves health.
func (r *run) baseline(ctx context.Context) error {
	err := r.step(report.Event{Name: "remember the mesh as it is"}, func() (seen string, err error) {
		r.checkpoint.Before, err = r.mesh.Remember(ctx, r.plan.names)
		return "", err
	})
	if err != nil {
		return err
	}
	for _, s := range r.scenario.Traffic {
		if err := r.startStream(s, nil); err != nil {
			return err
		}
	}
	if err := r.together(ctx, r.plan.healthy); err != nil {
		return err
	}
	for _, s := range r.scenario.Traffic {
		stream := r.streams[s.Name]
		what := fmt.Sprintf("%s of %s", words.Plural(reliableCalls, "good call"), s.Name)
		if err := wait.Until(ctx, what, gate().Options, func(context.Context) error {
			return stream.Recording().Reliable(time.Now(), reliableCalls)
		}); err != nil {
			return err
		}
	}
	r.readState(ctx, "before")
	return nil
}

// readState tells what the mesh is like between two changes, where that is asked for. It has a bound of its own and nothing to hold: what
// could not be read is in the state.
func (r *run) readState(ctx context.Context, label string) {
	if r.state == nil || ctx.Err() != nil {
		return
	}
	s := r.state(ctx)
	r.emit(report.Event{Type: report.StateRead, Name: label, State: &s})
}

func (r *run) startStream(s scenario.Stream, earlier *traffic.Recording) error {
	stream, err := r.caller.Call(s, earlier)
	if err != nil {
		return fmt.Errorf("%s: starting traffic %s: %w", s.Place, s.Name, err)
	}
	r.streams[s.Name] = stream
	if earlier == nil { // a recording that goes on has its mark already
		stream.Mark(string(r.phase))
	}
	return nil
}

// change breaks the mesh, or operates it.
func (r *run) change(ctx context.Context) error { return r.steps(ctx, r.plan.changes) }

// symptoms proves that the mesh is broken.
func (r *run) symptoms(ctx context.Context) error { return r.brokenAs(ctx, r.plan.symptoms) }

func (r *run) brokenAs(ctx context.Context, e expectation) error {
	err := r.together(ctx, e)
	r.broken = time.Now()
	return err
}

func (r *run) diagnose(ctx context.Context) error {
	return r.together(ctx, expectation{steps: r.plan.diagnose})
}

// later brings about what breaks only later, and proves it.
func (r *run) later(ctx context.Context) error {
	l := r.scenario.Later
	r.emit(report.Event{Type: report.Note, Name: "later: " + l.When, Place: l.Place.String(), Detail: l.Why})
	if err := r.steps(ctx, r.plan.later.do); err != nil {
		return err
	}
	r.since = time.Now()
	return r.brokenAs(ctx, r.plan.later.then)
}

// wrongFixes does what people try first and proves that it does not heal: what was broken stays broken, look after look,
// and the mesh is not healthy.
func (r *run) wrongFixes(ctx context.Context) error {
	for _, fix := range r.plan.fixes {
		r.emit(report.Event{Type: report.Note, Name: "wrong fix: " + fix.Fix, Place: fix.Place.String(), Detail: fix.Why})
		if err := r.steps(ctx, fix.do); err != nil {
			return err
		}
		r.since = time.Now()
		again := gate()
		again.InARow = notHealedAgain
		if err := r.hold(ctx, fix.stillBroken, again); err != nil {
			return err
		}
		if err := r.notHealthy(ctx, fix.Place, fix.Fix, "find out why this fix works, and whether it is one"); err != nil {
			return err
		}
	}
	return nil
}

// recover heals the mesh. First it proves that nothing heals by itself, unless a wrong fix has just proven it: a health
// check that holds without the recovery says nothing when it holds after it.
func (r *run) recover(ctx context.Context) error {
	if len(r.scenario.Break) > 0 && len(r.plan.fixes) == 0 {
		if !r.broken.IsZero() { // proven by this process: there is traffic since then, in which health would show
			r.since = r.broken
		}
		if err := r.notHealthy(ctx, r.plan.recover[0].Place, "without the recovery", "make a healthy check see what is broken"); err != nil {
			return err
		}
		r.since = time.Now()
	}
	return r.steps(ctx, r.plan.recover)
}

// healthy proves that the mesh is healthy again. Without the recovery the checks do not get the time that a recovery
// needs, since all that is wanted then is that they fail. They get more than a wrong fix has to heal.
func (r *run) healthy(ctx context.Context) error {
	e := r.plan.healthy
	if r.options.Without == scenario.Recover {
		e.within = min(e.within, unhealedWithin)
	}
	return r.together(ctx, e)
}

// always ends the traffic and judges all of it, once: a finished recording does not change.
func (r *run) always(ctx context.Context) error {
	if err := r.stopStreams(); err != nil {
		return err
	}
	for _, step := range r.plan.always {
		judgeOnce := gate()
		judgeOnce.giveUp = r.since
		if err := r.hold(ctx, []verb.Step{step}, judgeOnce); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) stopStreams() error {
	var (
		all      sync.WaitGroup
		mu       sync.Mutex
		problems []error
	)
	for name, stream := range r.streams {
		all.Go(func() { // all at once: each waits for its calls under way
			recording, err := stream.Stop()
			err = errors.Join(err, recording.Save(filepath.Join(r.options.Folder.Dir(), recordingFile(name))))
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, err)
		})
	}
	all.Wait()
	return errors.Join(problems...)
}

func recordingFile(stream string) string { return "traffic-" + stream + ".json" }

// bound says how long checks may take to hold. If giveUp is set, the first round that does not hold and did not begin before
// that moment is the last.
type bound struct {
	wait.Options
	giveUp time.Time
}

// gate bounds checks that no file bounds.
func gate() bound { return bound{Options: wait.Options{Within: gateWithin, Every: lookEvery}} }

// steps does steps one after another: changes, and checks that must hold before the next step.
func (r *run) steps(ctx context.Context, steps []verb.Step) error {
	for _, step := range steps {
		var err error
		if step.Change != nil {
			err = r.inject(ctx, step.Place, step.Change)
			r.readState(ctx, step.Label) // after the step has ended: it is no part of it
		} else {
			err = r.hold(ctx, []verb.Step{step}, gate())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) inject(ctx context.Context, at strict.Place, f fault.Fault) error {
	return r.step(report.Event{Place: at.String(), Name: f.String(), Command: f.Command()}, func() (string, error) {
		if r.ledger.Changed() == "" { // from here on, a kill leaves a changed mesh
			if err := r.ledger.Leave(r.checkpoint); err != nil {
				return "", err
			}
		}
		ctx, cancel := wait.TimeoutCause(ctx, changeWithin, "not done")
		defer cancel()
		if err := f.Inject(ctx, r.ground.Mesh); err != nil {
			return "", fmt.Errorf("%s: %s: %w", at, f, err)
		}
		return "", nil
	})
}

// together waits until all checks of an expectation hold in the same round.
func (r *run) together(ctx context.Context, e expectation) error {
	b := gate()
	if e.within != 0 {
		b.Within = e.within
	}
	return r.hold(ctx, e.steps, b)
}

// hold waits until every check holds in the same round and reports what each saw last.
func (r *run) hold(ctx context.Context, steps []verb.Step, b bound) error {
	start := time.Now()
	last, err := r.look(ctx, steps, b)
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody has waited long enough to say that a check fails
	}
	for i, step := range steps {
		event := report.Event{
			Type: report.StepEnded, Place: step.Place.String(), Name: step.String(), Command: step.Command(),
			Result: report.Passed, Seen: last[i].seen, Took: time.Since(start),
		}
		if err != nil && last[i].err != nil {
			failure := r.failure(step, last[i].err, b.Within)
			event.Result, event.Wanted, event.Seen, event.Try = resultOf(failure), failure.Wanted, failure.Seen, failure.Try
			err = failure
		}
		r.emit(event)
	}
	return err
}

// looked is what a check saw last.
type looked struct {
	seen string
	err  error
}

// look looks at all checks at once, round after round, until all hold in one round.
func (r *run) look(ctx context.Context, steps []verb.Step, b bound) ([]looked, error) {
	last := make([]looked, len(steps))
	err := wait.Until(ctx, string(r.phase), b.Options, func(ctx context.Context) error {
		begun := time.Now()
		var round errgroup.Group
		var mu sync.Mutex
		for i, step := range steps {
			round.Go(func() error {
				text, err := step.Check.Look(ctx, r.ground.Mesh)
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil || last[i].err == nil { // a look that was cut off says nothing new
					last[i] = looked{text, err}
				}
				return err
			})
		}
		err := round.Wait()
		if err != nil && !b.giveUp.IsZero() && !begun.Before(b.giveUp) {
			return wait.Permanent(err)
		}
		return err
	})
	return last, err
}

func (r *run) failure(step verb.Step, err error, within time.Duration) *CheckError {
	e := &CheckError{Phase: r.phase, Place: step.Place, Name: step.String(), Wanted: step.String(), Seen: err.Error()}
	var mismatch *observe.Mismatch
	if errors.As(err, &mismatch) {
		e.Wanted, e.Seen, e.Try = mismatch.Wanted, mismatch.Seen, mismatch.Try
	}
	if r.phase != scenario.Always { // a finished recording is not given time
		e.Wanted += fmt.Sprintf(", within %s", wait.Text(within))
	}
	if e.Try == "" {
		e.Try = step.Command()
	}
	return e
}

// notHealthy proves that the mesh is not healthy. Health has the time that it needs to show before the last look begins.
func (r *run) notHealthy(ctx context.Context, at strict.Place, after, try string) error {
	return r.step(report.Event{Name: "the mesh is not healthy", Place: at.String()}, func() (string, error) {
		seen, err := r.unhealthy(ctx)
		if err == nil && seen == "" {
			err = &CheckError{Phase: r.phase, Place: at, Name: after, Wanted: "the mesh to stay broken", Seen: "every healthy check holds", Try: try}
		}
		return seen, err
	})
}

// unhealthy returns what keeps the mesh from being healthy, or "" if nothing does.
func (r *run) unhealthy(ctx context.Context) (string, error) {
	b := gate()
	b.giveUp = r.since.Add(wait.Bound(healthShowsIn))
	last, err := r.look(ctx, r.plan.healthy.steps, b)
	if err == nil {
		return "", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	i := slices.IndexFunc(last, func(l looked) bool { return l.err != nil })
	if i < 0 {
		return "", err
	}
	return fmt.Sprintf("%s does not hold: %s", r.plan.healthy.steps[i].Place, words.FirstLine(last[i].err.Error())), nil
}
