// Package engine runs one scenario on one lab: it proves health, breaks the mesh, proves the symptoms, tries what does
// not help, recovers, proves health again, and puts the mesh back as it was, whatever happened.
//
// Run is the whole of it. A run that was stopped in the middle goes on with RunOptions.Resume, or Undo puts the mesh
// back; Explain and LookAround describe a scenario and touch nothing. What the engine needs of a lab stands in stage.go,
// so that its own tests need no cluster: `go test ./lab/engine`.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Bounds of what a scenario file does not bound.
const (
	changeWithin   = 90 * time.Second // one change
	gateWithin     = 30 * time.Second // one check outside symptoms and healthy
	cleanUpWithin  = 4 * time.Minute  // everything after the last phase
	undoWithin     = 5 * time.Minute  // Undo
	lookEvery      = 100 * time.Millisecond
	reliableCalls  = verb.JudgedCalls // good calls that a stream must show before the break
	notHealedAgain = 3                // looks in a row that must find a wrong fix to be wrong
	healthShowsIn  = 2 * time.Second  // how long a mesh has to heal before it is called broken
	unhealedWithin = 5 * time.Second  // how long health has to show where the recovery is left out
)

// Phases of a run that no scenario file has.
const (
	Baseline scenario.Phase = "baseline" // before the break: the healthy checks must hold
	Resuming scenario.Phase = "resume"   // the traffic of a scenario that was stopped starts again
	Undoing  scenario.Phase = "undo"     // the mesh is put back
)

// RunOptions change how a scenario runs.
type RunOptions struct {
	Until  scenario.Phase // stop after this phase and leave the mesh as it is then
	Keep   bool           // undo nothing, whatever happens
	Resume bool           // go on after the phase that an earlier run stopped after
	Adopt  bool           // change a mesh that somebody else has made
	Folder *report.Folder // where recordings and evidence go; required
	Sink   report.Sink    // gets every event; may be nil
	// Without leaves a phase out. A scenario without its recovery has to fail in phase healthy: it shows that the
	// health checks see what the recovery heals.
	Without scenario.Phase
}

// Verdict is the outcome of a scenario. The JSON names are stable.
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
	Place             strict.Place
	Name              string
	Wanted, Seen, Try string
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("%s: %s: %s: wanted %s; seen %s", e.Place, e.Phase, e.Name, e.Wanted, e.Seen)
}

// SkipError says why a scenario cannot run here.
type SkipError struct {
	Place  strict.Place
	Reason string
}

func (e *SkipError) Error() string { return fmt.Sprintf("%s: skipped: %s", e.Place, e.Reason) }

// AdoptError says why a scenario is not run on a mesh that somebody else has made.
type AdoptError struct{ Reason string }

func (e *AdoptError) Error() string { return e.Reason }

// run is one scenario on one stage.
type run struct {
	stage
	scenario *scenario.Scenario
	options  RunOptions
	plan     plan

	phase      scenario.Phase
	since      time.Time // calls from before this moment say nothing about what is checked now
	broken     time.Time // when the mesh was last proven to be broken
	streams    map[string]stream
	checkpoint lab.Checkpoint
	done       scenario.Phase // by an earlier process
	earlier    string         // the folder with its recordings
}

// Run runs the scenario and sends every event to the sink. The error is nil whenever there is a verdict: a scenario that
// failed has one. Whatever happens, the mesh is put back as it was, unless the options say otherwise. A lab that was left
// changed, or cannot be put back, is marked until Undo puts it back or lab.Up makes it anew.
func Run(ctx context.Context, l *lab.Lab, s *scenario.Scenario, o RunOptions) (Verdict, error) {
	if err := wait.Measure(); err != nil {
		return Verdict{}, err
	}
	release, err := l.Hold(ctx)
	if err != nil {
		return Verdict{}, err
	}
	defer release()
	return stageOf(l).run(ctx, s, o)
}

func (st stage) run(ctx context.Context, s *scenario.Scenario, o RunOptions) (Verdict, error) {
	r := &run{stage: st, scenario: s, options: o, streams: map[string]stream{}}
	if err := r.begin(); err != nil {
		return Verdict{}, err
	}
	start := time.Now()
	started := report.Event{Type: report.ScenarioStarted, Name: s.Title, Place: s.Place.String()}
	if factor := wait.Patience(); factor > 1 {
		started.Properties = map[string]string{"patience": fmt.Sprintf("%.1f: every bound of time is so many times as long here", factor)}
	}
	r.emit(started)
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

// begin finds out whether the scenario can run, from its beginning or from where it was stopped.
func (r *run) begin() (err error) {
	begin := r.beginAnew
	if r.options.Resume {
		begin = r.beginAgain
	}
	if err := begin(); err != nil {
		return err
	}
	if err := r.mayChange(); err != nil {
		return err
	}
	if o := r.options.Without; o != "" && !r.scenario.Has(o) {
		return fmt.Errorf("%s: there is no %s that could be left out", r.scenario.Place, o)
	}
	if r.options.Folder == nil {
		return errors.New("running a scenario: RunOptions.Folder is nil: recordings and evidence need a folder")
	}
	r.checkpoint.Done = ""
	if r.checkpoint.Folder, err = filepath.Abs(r.options.Folder.Dir()); err != nil {
		return err
	}
	r.ground.Dir, r.ground.Began = filepath.Dir(r.scenario.File), r.checkpoint.Began
	r.ground.Traffic, r.ground.Tape = r.scenario.Traffic, tape{r}
	return nil
}

func (r *run) beginAnew() (err error) {
	s := r.scenario
	if left := r.ledger.Changed(); left != "" {
		return &lab.SetupError{Err: fmt.Errorf("lab %s was left in the middle of scenario %s: %s", r.lab, left, r.howToGoOn())}
	}
	if !lab.SameTopology(r.topology, s.Topology) {
		return &lab.SetupError{Err: fmt.Errorf("%s: lab %s is %s, the scenario needs %s",
			s.Topology.Place, r.lab, lab.Describe(r.topology), lab.Describe(s.Topology))}
	}
	r.checkpoint = lab.Checkpoint{Scenario: s.Name, Began: time.Now()}
	if r.checkpoint.File, err = filepath.Abs(s.File); err != nil {
		return err
	}
	r.checkpoint.Digest, err = digestOf(s.File)
	return err
}

// mayChange returns nil if the scenario may change the mesh, whoever made it.
func (r *run) mayChange() error {
	s := r.scenario
	switch {
	case !r.adopted:
		return nil
	case len(s.Radius) == 0:
		return &AdoptError{
			fmt.Sprintf(
				"%s: scenario %s does not say how far it reaches (blast-radius), and the mesh of lab %s is somebody else's: it is not run there",
				s.Place,
				s.Name,
				r.lab,
			),
		}
	case !r.options.Adopt:
		return &AdoptError{
			fmt.Sprintf("the mesh of lab %s is somebody else's: read the plan, `eastwest explain %s`, and say --adopt to have it carried out there",
				r.lab, s.Name),
		}
	}
	r.adopt()
	return nil
}

// tape is what the checks of recorded calls read of a run.
type tape struct{ run *run }

func (t tape) Recording(stream string) *traffic.Recording { return t.run.streams[stream].Recording() }
func (t tape) Since() time.Time                           { return t.run.since }
func (t tape) Phase() scenario.Phase                      { return t.run.phase }

// afterwards ends the traffic, keeps evidence of a failure, and puts the mesh back as it was. It has time of its own: it
// happens after an interrupt, too.
func (r *run) afterwards(ctx context.Context, problem error) map[string]traffic.Stats {
	ctx, cancel := wait.Timeout(context.WithoutCancel(ctx), cleanUpWithin)
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
		note("collecting evidence", r.mesh.Collect(ctx, r.options.Folder.Evidence()))
	}
	if problem == nil && (r.options.Until != "" || r.options.Keep && r.ledger.Changed() != "") {
		r.checkpoint.Done = cmp.Or(r.options.Until, scenario.Always)
		note("writing down where it was stopped", r.ledger.Leave(r.checkpoint))
		return stats
	}
	if r.ledger.Changed() == "" || r.options.Keep {
		return stats
	}
	note("putting the mesh back", r.inPhase(ctx, Undoing, r.putBack))
	return stats
}

// putBack makes the mesh what it was before. After a recovery that is complete there is nothing left to do.
func (r *run) putBack(ctx context.Context) error {
	if r.mesh.Same(ctx, r.checkpoint.Before) {
		return r.ledger.Back()
	}
	err := r.step(report.Event{Name: "restore what differs"}, func() (string, error) {
		return "", r.mesh.Restore(ctx, r.checkpoint.Before)
	})
	if err != nil {
		return fmt.Errorf(
			"the mesh is not what it was: %w: `eastwest run %s --undo --name %s` tries again, `eastwest up --name %[3]s` makes it anew",
			err,
			r.scenario.Name,
			r.lab,
		)
	}
	return r.ledger.Back()
}

// inPhase does a phase: its name on every event, a mark in every recording, its time.
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

// step does one thing and reports its beginning, its end, and its time.
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
	if r.options.Sink == nil {
		return
	}
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
