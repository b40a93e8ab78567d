package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// How long things may take that a scenario file does not bound.
const (
	changeWithin   = 90 * time.Second // one change
	gateWithin     = 30 * time.Second // one check outside symptoms and healthy
	cleanUpWithin  = 4 * time.Minute  // everything after the last phase
	lookEvery      = 100 * time.Millisecond
	reliableCalls  = judgedCalls     // good calls that a stream must show before the break
	notHealedAgain = 3               // looks in a row that must find a wrong fix to be wrong
	healthShowsIn  = 2 * time.Second // how long a mesh has to heal before it is called broken
	unhealedWithin = 5 * time.Second // how long health has to show where the recovery is left out
)

// Baseline is the phase before the break, in which the healthy checks must hold.
const Baseline scenario.Phase = "baseline"

// RunOptions change how a scenario runs.
type RunOptions struct {
	Until  scenario.Phase // stop after this phase and leave the mesh as it is then
	Keep   bool           // undo nothing, whatever happens
	Resume bool           // go on after the phase that Until has stopped after before
	Adopt  bool           // change a mesh that somebody else has made
	Folder *report.Folder // where recordings and evidence go
	Sink   report.Sink
	// Without leaves a phase out. A scenario without its recovery has to fail in phase healthy: it shows that the
	// health checks see what the recovery heals.
	Without scenario.Phase
}

// Verdict is what came of a scenario.
type Verdict struct {
	Scenario string                   `json:"scenario"`
	Result   report.Result            `json:"result"`
	Seconds  float64                  `json:"seconds"`
	Reason   string                   `json:"reason,omitempty"` // why it did not pass
	Streams  map[string]traffic.Stats `json:"streams,omitempty"`
	Folder   string                   `json:"folder,omitempty"`
}

// CheckError says that a check did not hold.
type CheckError struct {
	Phase             scenario.Phase
	Place             scenario.Place
	Name              string
	Wanted, Seen, Try string
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("%s: %s: %s: wanted %s; seen %s", e.Place, e.Phase, e.Name, e.Wanted, e.Seen)
}

// SkipError says why a scenario cannot run here.
type SkipError struct {
	Place  scenario.Place
	Reason string
}

func (e *SkipError) Error() string { return fmt.Sprintf("%s: skipped: %s", e.Place, e.Reason) }

// run is one scenario on one lab.
type run struct {
	*Lab
	scenario *scenario.Scenario
	options  RunOptions
	env      env

	phase   scenario.Phase
	since   time.Time // calls from before this moment say nothing about what is checked now
	broken  time.Time // when it was proven last that the mesh is broken
	streams map[string]*traffic.Stream
	left    left            // what is written down for others
	done    scenario.Phase  // by an earlier process
	earlier string          // the folder with its recordings
	names   []observe.Named // what the steps change
}

// Run runs the scenario and tells the sink everything. The error is nil whenever there is a verdict: a
// scenario that failed is a verdict. Whatever happens the mesh is put back as it was, unless the options
// say otherwise; a lab that was left, or cannot be put back, is marked until Undo does it or Up makes it anew.
func (l *Lab) Run(ctx context.Context, s *scenario.Scenario, o RunOptions) (Verdict, error) {
	unlock, err := l.lock(ctx)
	if err != nil {
		return Verdict{}, err
	}
	defer unlock()
	r := &run{Lab: l, scenario: s, options: o, streams: map[string]*traffic.Stream{}}
	if err := r.begin(); err != nil {
		return Verdict{}, err
	}
	r.env = env{mesh: l.Mesh, tools: observe.Tools(l.Env()), lab: l.Name, dir: filepath.Dir(s.File), began: r.left.Began}
	if o.Without != "" && !r.has(o.Without) {
		return Verdict{}, fmt.Errorf("%s: there is no %s that could be left out", s.Place, o.Without)
	}
	start := time.Now()
	r.emit(report.Event{Type: report.ScenarioStarted, Name: s.Title, Place: s.Place.String()})
	problem := r.story(ctx)
	v := Verdict{Scenario: s.Name, Result: resultOf(problem), Folder: o.Folder.Dir()}
	if problem != nil {
		v.Reason = problem.Error()
	}
	v.Streams = r.afterwards(ctx, problem)
	took := time.Since(start)
	v.Seconds = took.Seconds()
	r.phase = ""
	r.emit(report.Event{Type: report.ScenarioEnded, Name: s.Title, Result: v.Result, Took: took, Seen: v.Reason})
	return v, context.Cause(ctx)
}

// begin finds out whether the scenario can run on the lab, from its beginning or from where it was stopped.
func (r *run) begin() (err error) {
	s := r.scenario
	if r.options.Resume {
		if r.left, err = r.resumable(s.Name); err != nil {
			return err
		}
		if phases := scenario.Phases(); r.options.Until != "" && slices.Index(phases, r.options.Until) <= slices.Index(phases, r.left.Done) {
			return &ResumeError{fmt.Sprintf("phase %s of scenario %s is behind it: it was stopped after %s", r.options.Until, s.Name, r.left.Done)}
		}
		r.done, r.earlier = r.left.Done, r.left.Folder
	} else {
		if r.record.Left != "" {
			return &SetupError{Err: fmt.Errorf("lab %s was left in the middle of scenario %s: %s", r.Name, r.record.Left, howToGoOn(r.home, r.record))}
		}
		if !sameTopology(r.Topology, s.Topology) {
			return &SetupError{Err: fmt.Errorf("%s: lab %s is %s, the scenario needs %s", s.Topology.Place, r.Name, describe(r.Topology), describe(s.Topology))}
		}
		r.left.Scenario, r.left.Began = s.Name, time.Now()
		if r.left.File, err = filepath.Abs(s.File); err != nil {
			return err
		}
		if r.left.Digest, err = digestOf(s.File); err != nil {
			return err
		}
	}
	if err := r.mayChange(s); err != nil {
		return err
	}
	r.left.Done = ""
	r.left.Folder, err = filepath.Abs(r.options.Folder.Dir())
	return err
}

// Adopted reports whether the lab's mesh was made by somebody else.
func (l *Lab) Adopted() bool { return l.record.Existing != nil && l.record.Existing.Adopt }

// AdoptError says why a scenario is not run on a mesh that somebody else has made.
type AdoptError struct{ Reason string }

func (e *AdoptError) Error() string { return e.Reason }

// mayChange returns nil if the scenario may be run on the mesh, whoever has made it.
func (r *run) mayChange(s *scenario.Scenario) error {
	switch {
	case !r.Adopted():
		return nil
	case len(s.Radius) == 0:
		return &AdoptError{fmt.Sprintf("%s: scenario %s does not say how far it reaches (blast-radius), and the mesh of lab %s is somebody else's: it is not run there", s.Place, s.Name, r.Name)}
	case !r.options.Adopt:
		return &AdoptError{fmt.Sprintf("the mesh of lab %s is somebody else's: read the plan, `eastwest explain %s`, and say --adopt to have it carried out there", r.Name, s.Name)}
	}
	r.adopt()
	return nil
}

// adopt lets the clusters' mesh be changed.
func (l *Lab) adopt() {
	for _, c := range l.Clusters {
		if f, ok := c.(cluster.Foreign); ok {
			f.Adopt()
		}
	}
}

// story is a scenario from the first call to the last judgement.
func (r *run) story(ctx context.Context) error {
	s := r.scenario
	plan, err := r.prepare()
	if err != nil {
		return err
	}
	first := Baseline
	if r.options.Resume {
		if err := r.leave(r.left); err != nil { // from here on it is no more where it was stopped
			return err
		}
		if err := r.inPhase(ctx, resuming, r.goOn); err != nil {
			return err
		}
		first = scenario.Phases()[slices.Index(scenario.Phases(), r.done)+1]
	}
	reached := false
	for _, part := range []struct {
		phase scenario.Phase
		do    func(context.Context) error
	}{
		{Baseline, func(ctx context.Context) error { return r.baseline(ctx, plan) }},
		{scenario.Break, func(ctx context.Context) error { return r.steps(ctx, plan, s.Break) }},
		{scenario.Operate, func(ctx context.Context) error { return r.steps(ctx, plan, s.Operate) }},
		{scenario.Symptoms, func(ctx context.Context) error { return r.symptoms(ctx, plan, s.Broken()) }},
		{scenario.Diagnose, func(ctx context.Context) error { return r.together(ctx, plan, scenario.Expect{Expect: s.Diagnose}) }},
		{scenario.LaterOn, func(ctx context.Context) error { return r.later(ctx, plan) }},
		{scenario.WrongFixes, func(ctx context.Context) error { return r.wrongFixes(ctx, plan) }},
		{scenario.Recover, func(ctx context.Context) error { return r.recover(ctx, plan) }},
		{scenario.Healthy, func(ctx context.Context) error { return r.together(ctx, plan, r.health()) }},
		{scenario.Always, func(ctx context.Context) error { return r.always(ctx, plan) }},
	} {
		if reached = reached || part.phase == first; !reached {
			continue
		}
		if part.phase == Baseline || r.has(part.phase) && part.phase != r.options.Without {
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

// health is what has to hold at the end. Without the recovery it is not given the time that a recovery needs: all
// that is wanted then is that the checks fail, and they get longer than a wrong fix has to heal.
func (r *run) health() scenario.Expect {
	e := r.scenario.Healthy
	if r.options.Without == scenario.Recover {
		e.Within = min(e.Within, scenario.Duration(unhealedWithin))
	}
	return e
}

func (r *run) has(phase scenario.Phase) bool {
	for _, p := range r.scenario.Phases() {
		if p.Phase == phase && (len(p.Steps) > 0 || p.Fix != nil) {
			return true
		}
	}
	return false
}

// plan holds what each step of the file is, ready to be done. It is made before anything happens, so
// that what this lab cannot do costs nothing.
type plan map[scenario.Place]any

func (r *run) prepare() (plan, error) {
	p := plan{}
	add := func(steps []scenario.Step) error {
		for _, step := range steps {
			thing, err := r.thing(step)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", step.Place, step.Verb, err)
			}
			if f, ok := thing.(fault.Fault); ok {
				if err := f.Available(r.Mesh); err != nil {
					return &SkipError{step.Place, err.Error()}
				}
				r.names = append(r.names, fault.Names(f)...)
			}
			p[step.Place] = thing
		}
		return nil
	}
	for _, phase := range r.scenario.Phases() {
		if err := add(phase.Steps); err != nil {
			return nil, err
		}
		if phase.Later != nil {
			if err := add(phase.Later.Then().Expect); err != nil {
				return nil, err
			}
		}
		if phase.Fix != nil {
			if err := add(phase.Fix.StillBroken); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// thing turns a step into a fault.Fault or an observe.Check.
func (r *run) thing(step scenario.Step) (any, error) {
	switch args := step.Args.(type) {
	case scenario.Radius:
		return &radiusCheck{args, r}, nil
	case *callsArgs:
		return &callsCheck{callsArgs: args, run: r}, nil
	case changer:
		return args.fault(r.env)
	case looker:
		return args.check(r.env)
	default:
		return nil, fmt.Errorf("the verb %q does nothing", step.Verb)
	}
}

// baseline remembers the mesh as it is, starts the traffic and proves health.
func (r *run) baseline(ctx context.Context, p plan) error {
	err := r.step(report.Event{Name: "remember the mesh as it is"}, func() (seen string, err error) {
		r.left.Before, err = observe.TakeBaseline(ctx, r.Mesh, r.names...)
		return "", err
	})
	if err != nil {
		return err
	}
	if err := wait.Until(ctx, "all proxies to be in sync with their istiod", wait.Options{Within: gateWithin, Every: lookEvery}, func(ctx context.Context) error {
		return observe.InSync(ctx, r.Mesh)
	}); err != nil {
		return err
	}
	for _, s := range r.scenario.Traffic {
		if err := r.startStream(s, nil); err != nil {
			return fmt.Errorf("%s: starting traffic %s: %w", s.Place, s.Name, err)
		}
	}
	if err := r.together(ctx, p, r.scenario.Healthy); err != nil {
		return err
	}
	for _, s := range r.scenario.Traffic {
		stream := r.streams[s.Name]
		if err := wait.Until(ctx, fmt.Sprintf("%d good calls of %s", reliableCalls, s.Name), wait.Options{Within: gateWithin, Every: lookEvery}, func(context.Context) error {
			return stream.Recording().Reliable(time.Now(), reliableCalls)
		}); err != nil {
			return err
		}
	}
	return nil
}

// symptoms proves that the mesh is broken.
func (r *run) symptoms(ctx context.Context, p plan, e scenario.Expect) error {
	err := r.together(ctx, p, e)
	r.broken = time.Now()
	return err
}

func (r *run) startStream(s scenario.Stream, earlier *traffic.Recording) error {
	source, err := r.source(s.From)
	if err != nil {
		return err
	}
	fresh := s.Connections != scenario.Reused
	stream, err := traffic.Start(context.Background(), traffic.Plan{
		Name: s.Name, From: source, URL: appURL(s.To, fresh), ExpectCluster: s.To.Cluster,
		Every: time.Duration(s.Every), Fresh: fresh, OneByOne: !fresh, Timeout: time.Duration(s.Timeout), Earlier: earlier,
	})
	if err != nil {
		return err
	}
	r.streams[s.Name] = stream
	if earlier == nil { // it has its mark where it goes on
		stream.Mark(string(r.phase))
	}
	return nil
}

// steps does the steps of a phase one after another: changes, and checks that must hold before the next.
func (r *run) steps(ctx context.Context, p plan, steps []scenario.Step) error {
	for _, step := range steps {
		var err error
		switch thing := p[step.Place].(type) {
		case fault.Fault:
			err = r.change(ctx, step, thing)
		case observe.Check:
			err = r.hold(ctx, []scenario.Step{step}, p, wait.Options{Within: gateWithin, Every: lookEvery})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) change(ctx context.Context, step scenario.Step, f fault.Fault) error {
	return r.step(report.Event{Place: step.Place.String(), Name: f.String(), Command: f.Command()}, func() (string, error) {
		if r.record.Left == "" { // from here on a kill leaves a changed mesh
			if err := r.leave(r.left); err != nil {
				return "", err
			}
		}
		ctx, cancel := context.WithTimeoutCause(ctx, changeWithin, fmt.Errorf("not done within %s", changeWithin))
		defer cancel()
		if err := f.Inject(ctx, r.Mesh); err != nil {
			return "", fmt.Errorf("%s: %s: %w", step.Place, f, err)
		}
		return "", nil
	})
}

// together waits until all checks of an expectation hold in the same round.
func (r *run) together(ctx context.Context, p plan, e scenario.Expect) error {
	within := time.Duration(e.Within)
	if within == 0 {
		within = gateWithin
	}
	return r.hold(ctx, e.Expect, p, wait.Options{Within: within, Every: lookEvery})
}

// hold waits until every check holds in the same round and tells of each what was seen last.
func (r *run) hold(ctx context.Context, steps []scenario.Step, p plan, o wait.Options) error {
	start := time.Now()
	seen, errs, err := r.look(ctx, steps, p, o)
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody has waited long enough to say that a check fails
	}
	for i, step := range steps {
		check := p[step.Place].(observe.Check)
		event := report.Event{Type: report.StepEnded, Place: step.Place.String(), Name: check.String(), Command: check.Command(), Result: report.Passed, Seen: seen[i], Took: time.Since(start)}
		if err != nil && errs[i] != nil {
			failure := r.failure(step, check, errs[i], o.Within)
			event.Result, event.Wanted, event.Seen, event.Try = resultOf(failure), failure.Wanted, failure.Seen, failure.Try
			err = failure
		}
		r.emit(event)
	}
	return err
}

// look looks at all checks at once, round after round, until all hold in one, and returns what each saw last.
func (r *run) look(ctx context.Context, steps []scenario.Step, p plan, o wait.Options) (seen []string, errs []error, err error) {
	return r.lookUntil(ctx, steps, p, o, time.Time{})
}

// lookUntil is look that gives up, once it is that late, with the first round that does not hold.
func (r *run) lookUntil(ctx context.Context, steps []scenario.Step, p plan, o wait.Options, late time.Time) (seen []string, errs []error, err error) {
	seen, errs = make([]string, len(steps)), make([]error, len(steps))
	err = wait.Until(ctx, string(r.phase), o, func(ctx context.Context) error {
		begun := time.Now()
		var round errgroup.Group
		var mu sync.Mutex
		for i, step := range steps {
			round.Go(func() error {
				text, err := p[step.Place].(observe.Check).Look(ctx, r.Mesh)
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil || errs[i] == nil { // a look that was cut off says nothing new
					seen[i], errs[i] = text, err
				}
				return err
			})
		}
		err := round.Wait()
		if err != nil && !late.IsZero() && begun.After(late) {
			return wait.Permanent(err)
		}
		return err
	})
	return seen, errs, err
}

func (r *run) failure(step scenario.Step, check observe.Check, err error, within time.Duration) *CheckError {
	e := &CheckError{Phase: r.phase, Place: step.Place, Name: check.String(), Wanted: check.String(), Seen: err.Error()}
	var mismatch *observe.Mismatch
	if errors.As(err, &mismatch) {
		e.Wanted, e.Seen, e.Try = mismatch.Wanted, mismatch.Seen, mismatch.Try
	}
	e.Wanted += fmt.Sprintf(", within %s", within)
	if e.Try == "" {
		e.Try = check.Command()
	}
	return e
}

// wrongFixes does what people try first and proves that it does not heal: what was broken stays broken,
// look after look, and the mesh is not healthy.
func (r *run) wrongFixes(ctx context.Context, p plan) error {
	for _, fix := range r.scenario.WrongFixes {
		r.emit(report.Event{Type: report.Note, Name: "wrong fix: " + fix.Fix, Place: fix.Place.String(), Detail: fix.Why})
		if err := r.steps(ctx, p, fix.Do); err != nil {
			return err
		}
		r.since = time.Now()
		still := fix.StillBroken
		if len(still) == 0 {
			still = r.scenario.Broken().Expect
		}
		if err := r.hold(ctx, still, p, wait.Options{Within: gateWithin, Every: lookEvery, InARow: notHealedAgain}); err != nil {
			return err
		}
		if err := r.notHealthy(ctx, p, fix.Place, fix.Fix, "find out why this fix works, and whether it is one"); err != nil {
			return err
		}
	}
	return nil
}

// later brings about what breaks only then and proves it.
func (r *run) later(ctx context.Context, p plan) error {
	l := r.scenario.Later
	r.emit(report.Event{Type: report.Note, Name: "later: " + l.When, Place: l.Place.String(), Detail: l.Why})
	if err := r.steps(ctx, p, l.Do); err != nil {
		return err
	}
	r.since = time.Now()
	return r.symptoms(ctx, p, l.Then())
}

// recover heals. Before that it proves, unless a wrong fix has just done so, that nothing heals by itself: a
// health check that holds without the recovery says nothing when it holds after it.
func (r *run) recover(ctx context.Context, p plan) error {
	if len(r.scenario.Break) > 0 && len(r.scenario.WrongFixes) == 0 {
		if !r.broken.IsZero() { // by this process: there is traffic since then, to find health in
			r.since = r.broken
		}
		if err := r.notHealthy(ctx, p, r.scenario.Recover[0].Place, "without the recovery", "make a healthy check see what is broken"); err != nil {
			return err
		}
		r.since = time.Now()
	}
	return r.steps(ctx, p, r.scenario.Recover)
}

// notHealthy proves that the mesh is not healthy. Health has had the time that it needs to show when the last look begins.
func (r *run) notHealthy(ctx context.Context, p plan, at scenario.Place, after, try string) error {
	return r.step(report.Event{Name: "the mesh is not healthy", Place: at.String()}, func() (string, error) {
		seen, err := r.unhealthy(ctx, p)
		if err == nil && seen == "" {
			err = &CheckError{Phase: r.phase, Place: at, Name: after, Wanted: "the mesh to stay broken", Seen: "every healthy check holds", Try: try}
		}
		return seen, err
	})
}

// unhealthy returns what keeps the mesh from being healthy; nothing if it is.
func (r *run) unhealthy(ctx context.Context, p plan) (string, error) {
	steps := r.scenario.Healthy.Expect
	_, errs, err := r.lookUntil(ctx, steps, p, wait.Options{Within: gateWithin, Every: lookEvery}, r.since.Add(healthShowsIn))
	if err == nil {
		return "", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	for i, step := range steps {
		if errs[i] != nil {
			return fmt.Sprintf("%s does not hold: %s", step.Place, firstLine(errs[i].Error())), nil
		}
	}
	return "", err
}

// always ends the traffic and judges all of it.
func (r *run) always(ctx context.Context, p plan) error {
	if err := r.stopStreams(); err != nil {
		return err
	}
	for _, step := range r.scenario.Always {
		if err := r.hold(ctx, []scenario.Step{step}, p, wait.Options{Within: time.Second}); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) stopStreams() error {
	var problems []error
	for name, stream := range r.streams {
		recording, err := stream.Stop()
		problems = append(problems, err, recording.Save(filepath.Join(r.options.Folder.Dir(), recordingFile(name))))
	}
	return errors.Join(problems...)
}

// afterwards ends the traffic, keeps evidence of a failure, and puts the mesh back as it was. It has
// time of its own: it happens after an interrupt too.
func (r *run) afterwards(ctx context.Context, problem error) map[string]traffic.Stats {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
	defer cancel()
	note := func(what string, err error) {
		if err != nil {
			r.emit(report.Event{Type: report.Note, Name: what, Detail: err.Error()})
		}
	}
	note("ending the traffic", r.stopStreams())
	stats := map[string]traffic.Stats{}
	for name, stream := range r.streams {
		stats[name] = stream.Recording().All().Stats()
	}
	if failed := resultOf(problem); failed == report.Failed || failed == report.Errored {
		note("collecting evidence", observe.Collect(ctx, r.Mesh, r.options.Folder.Evidence()))
	}
	if problem == nil && (r.options.Until != "" || r.options.Keep && r.record.Left != "") {
		r.left.Done = cmp.Or(r.options.Until, scenario.Always)
		note("writing down where it was stopped", r.leave(r.left))
		return stats
	}
	if r.record.Left == "" || r.options.Keep {
		return stats
	}
	note("putting the mesh back", r.inPhase(ctx, "undo", r.putBack))
	return stats
}

// putBack makes the mesh what it was before. A recovery that is one leaves nothing to do.
func (r *run) putBack(ctx context.Context) error {
	if err := fault.Heal(ctx, r.Mesh); err == nil { // nobody else need be asked where an API server is stopped
		if now, err := r.left.Before.Reread(ctx, r.Mesh); err == nil && len(r.left.Before.Diff(now)) == 0 {
			return r.back()
		}
	}
	err := r.step(report.Event{Name: "restore what differs"}, func() (string, error) {
		return "", fault.Restore(ctx, r.Mesh, r.left.Before)
	})
	if err != nil {
		return fmt.Errorf("the mesh is not what it was: %w: `eastwest run %s --undo --name %s` tries again, `eastwest up --name %[3]s` makes it anew", err, r.scenario.Name, r.Name)
	}
	return r.back()
}

// inPhase is a phase: its name on every event, a mark in every recording, its time.
func (r *run) inPhase(ctx context.Context, phase scenario.Phase, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	start := time.Now()
	r.phase, r.since = phase, start
	for _, stream := range r.streams {
		stream.Mark(string(phase))
	}
	r.emit(report.Event{Type: report.PhaseStarted})
	err := do(ctx)
	event := report.Event{Type: report.PhaseEnded, Result: resultOf(err), Took: time.Since(start)}
	var check *CheckError
	if err != nil && !errors.As(err, &check) {
		event.Seen = err.Error()
	}
	r.emit(event)
	return err
}

// step is one thing that is done: its beginning, its end, its time.
func (r *run) step(e report.Event, do func() (seen string, err error)) error {
	e.Type = report.StepStarted
	r.emit(e)
	start := time.Now()
	seen, err := do()
	e.Type, e.Took, e.Result, e.Seen = report.StepEnded, time.Since(start), resultOf(err), seen
	var check *CheckError
	if errors.As(err, &check) {
		e.Wanted, e.Seen, e.Try = check.Wanted, check.Seen, check.Try
	} else if err != nil {
		e.Seen = err.Error()
	}
	r.emit(e)
	return err
}

func (r *run) emit(e report.Event) {
	e.Time, e.Scenario, e.Phase = time.Now(), r.scenario.Name, string(r.phase)
	r.options.Sink.Emit(e)
}

func resultOf(err error) report.Result {
	var check *CheckError
	var skip *SkipError
	switch {
	case err == nil:
		return report.Passed
	case errors.As(err, &skip):
		return report.Skipped
	case errors.As(err, &check):
		return report.Failed
	default:
		return report.Errored
	}
}
