package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// ResumeError says why a run cannot be resumed or undone.
type ResumeError struct{ Reason string }

func (e *ResumeError) Error() string { return e.Reason }

// Resumable returns the file of the scenario that a run of the lab can go on with. arg is the scenario's name, file or
// folder; empty means any. The error is a *ResumeError if there is none.
func Resumable(l *lab.Lab, arg string) (file string, err error) {
	c, err := stageOf(l).resumable(arg)
	return c.File, err
}

// Undo puts the mesh back as it was before the scenario that has left it changed, whatever state it is in. It returns the
// scenario's name, or "" if there was nothing to undo. arg is the scenario's name, file or folder; empty means any.
func Undo(ctx context.Context, l *lab.Lab, arg string) (undone string, err error) {
	release, err := l.Hold(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	return stageOf(l).undo(ctx, arg)
}

func (st stage) undo(ctx context.Context, arg string) (undone string, err error) {
	if st.ledger.Changed() == "" {
		return "", nil
	}
	c, err := st.left(arg)
	if err != nil {
		return "", err
	}
	if st.adopted { // what a run was allowed to do may be taken back
		st.adopt()
	}
	ctx, cancel := wait.TimeoutCause(ctx, undoWithin, "not done")
	defer cancel()
	if err := st.mesh.Restore(ctx, c.Before); err != nil {
		return "", &lab.SetupError{
			Err: fmt.Errorf("putting lab %s back as it was before scenario %s: %w: try again, or `eastwest up --name %[1]s` makes it anew",
				st.lab, c.Scenario, err),
		}
	}
	return c.Scenario, st.ledger.Back()
}

// left reads what the scenario that has changed the lab wrote down.
func (st stage) left(arg string) (lab.Checkpoint, error) {
	changed := st.ledger.Changed()
	if changed == "" {
		return lab.Checkpoint{}, &ResumeError{fmt.Sprintf(
			"lab %s is as it was: no scenario was stopped in the middle on it; `eastwest run NAME --until PHASE --name %[1]s` does so", st.lab)}
	}
	c, err := st.ledger.Checkpoint()
	if err != nil {
		return c, &lab.SetupError{
			Err: fmt.Errorf(
				"lab %s was left by scenario %s, and what it was like before cannot be read: %w: `eastwest up --name %[1]s` makes it anew",
				st.lab,
				changed,
				err,
			),
		}
	}
	if arg != "" && !c.Means(arg) {
		return c, &ResumeError{fmt.Sprintf("lab %s was left by scenario %s (%s), not by %s", st.lab, c.Scenario, c.File, arg)}
	}
	return c, nil
}

func (st stage) resumable(arg string) (lab.Checkpoint, error) {
	c, err := st.left(arg)
	if err != nil {
		return c, err
	}
	undo := fmt.Sprintf("`eastwest run %s --undo --name %s` puts the mesh back", c.Scenario, st.lab)
	refuse := func(format string, a ...any) (lab.Checkpoint, error) {
		return lab.Checkpoint{}, &ResumeError{fmt.Sprintf(format, a...) + "; " + undo}
	}
	switch {
	case c.Done == "":
		return refuse(
			"scenario %s was not stopped after a phase of lab %s, it was cut off or has failed in one: there is nothing to go on with",
			c.Scenario,
			st.lab,
		)
	case !c.GoesOn():
		return refuse("scenario %s has run to its end on lab %s: there is nothing to go on with", c.Scenario, st.lab)
	}
	now, err := digestOf(c.File)
	if err != nil {
		return c, err
	}
	if now != c.Digest {
		return refuse(
			"%s has changed since phase %s of it was done on lab %s: what was proven is not what stands there now",
			c.File,
			c.Done,
			st.lab,
		)
	}
	return c, nil
}

// howToGoOn is what a person can do with a lab that a scenario has left changed.
func (st stage) howToGoOn() string {
	c, err := st.ledger.Checkpoint()
	if err != nil {
		c = lab.Checkpoint{}
	}
	return c.HowToGoOn(st.lab)
}

// digestOf is empty for a scenario that was not loaded from a file.
func digestOf(file string) (string, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// beginAgain prepares a run that goes on where an earlier one was stopped.
func (r *run) beginAgain() (err error) {
	s := r.scenario
	if r.checkpoint, err = r.resumable(s.Name); err != nil {
		return err
	}
	r.done, r.earlier = r.checkpoint.Done, r.checkpoint.Folder
	phases := scenario.Phases()
	if until := r.options.Until; until != "" && slices.Index(phases, until) <= slices.Index(phases, r.done) {
		return &ResumeError{fmt.Sprintf("phase %s of scenario %s is behind it: it was stopped after %s", until, s.Name, r.done)}
	}
	return nil
}

// resume starts the traffic again and returns the phase to go on with.
func (r *run) resume(ctx context.Context) (next scenario.Phase, err error) {
	if err := r.ledger.Leave(r.checkpoint); err != nil { // from here on it is no longer where it was stopped
		return "", err
	}
	if err := r.inPhase(ctx, Resuming, r.goOn); err != nil {
		return "", err
	}
	phases := scenario.Phases()
	return phases[slices.Index(phases, r.done)+1], nil
}

// goOn starts the streams as the continuation of what was recorded before, and waits for a call of each.
func (r *run) goOn(ctx context.Context) error {
	for _, s := range r.scenario.Traffic {
		earlier, err := traffic.Load(filepath.Join(r.earlier, recordingFile(s.Name)))
		if err != nil {
			return fmt.Errorf("%s: going on with traffic %s: %w", s.Place, s.Name, err)
		}
		if err := r.startStream(s, earlier); err != nil {
			return err
		}
	}
	for name, stream := range r.streams {
		if err := wait.Until(ctx, "the first call of "+name, gate().Options, func(context.Context) error {
			ended := func(c traffic.Call) bool { return !c.Start.Before(r.since) && !c.End.IsZero() }
			if !slices.ContainsFunc(stream.Recording().Calls, ended) {
				return errors.New("no call has ended yet")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	r.readState(ctx, "resumed")
	return nil
}
