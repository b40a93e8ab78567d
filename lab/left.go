package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// undoWithin bounds putting back a mesh by itself.
const undoWithin = 5 * time.Minute

// resuming is the phase in which a scenario that was stopped starts its traffic anew.
const resuming scenario.Phase = "resume"

// left is what is written down of a run before its first change, so that another process can undo it or, where it
// was stopped after a phase, go on with it. It is gone when the mesh is back; whether it means anything says
// record.Left.
type left struct {
	Scenario string           `json:"scenario"`
	Began    time.Time        `json:"began"`
	File     string           `json:"file"`
	Digest   string           `json:"digest,omitempty"` // of the file's content
	Done     scenario.Phase   `json:"done,omitempty"`   // the phase after which it was stopped; none while it runs, or if it failed
	Folder   string           `json:"folder"`           // where the recordings are
	Before   observe.Baseline `json:"before"`
}

// ResumeError says why there is no going on, and no undoing, as it was asked for.
type ResumeError struct{ Reason string }

func (e *ResumeError) Error() string { return e.Reason }

func leftFile(home, name string) string { return filepath.Join(labDir(home, name), "left.json") }

func readLeft(home, name string) (left, error) {
	var s left
	data, err := os.ReadFile(leftFile(home, name))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("reading %s: %w", leftFile(home, name), err)
	}
	return s, nil
}

// write replaces the file at once. It holds Secrets.
func (s left) write(home, name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing down what the mesh was like: %w", err)
		}
	}()
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(labDir(home, name), ".left-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), leftFile(home, name))
}

// is tells whether a person means this scenario, by its name, file or folder.
func (s left) is(arg string) bool {
	path, err := filepath.Abs(arg)
	return arg == s.Scenario || err == nil && (path == s.File || filepath.Join(path, "scenario.yaml") == s.File)
}

// digestOf is empty for a scenario that is no file.
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

// lock locks the lab and reads its record again: another process may have had it since it was opened.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = lockLab(ctx, l.home, l.Name)
	if err != nil {
		return nil, err
	}
	if l.record, err = readRecord(l.home, l.Name); err != nil {
		unlock()
		return nil, &SetupError{Err: fmt.Errorf("lab %s is not there any more: %w", l.Name, err)}
	}
	return unlock, nil
}

// leave writes down that a scenario changes the lab, before it does.
func (l *Lab) leave(s left) error {
	if err := s.write(l.home, l.Name); err != nil {
		return err
	}
	l.record.Left = s.Scenario
	return l.record.write(l.home)
}

// back writes down that the lab is as it was.
func (l *Lab) back() error {
	if l.record.Left != "" {
		l.record.Left = ""
		if err := l.record.write(l.home); err != nil {
			return err
		}
	}
	if err := os.Remove(leftFile(l.home, l.Name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// howToGoOn is what a person can do with a lab that a scenario has left changed.
func howToGoOn(home string, r record) string {
	again := fmt.Sprintf("`eastwest up --name %s` makes it anew", r.Name)
	s, err := readLeft(home, r.Name)
	if err != nil {
		return again
	}
	words := fmt.Sprintf("`eastwest run %s --undo --name %s` puts it back as it was, ", s.Scenario, r.Name) + again
	if s.goesOn() {
		words = fmt.Sprintf("`eastwest run %s --resume --name %s` goes on after phase %s, ", s.Scenario, r.Name, s.Done) + words
	}
	return words
}

// goesOn says whether there is a phase to go on with.
func (s left) goesOn() bool {
	phases := scenario.Phases()
	return s.Done != "" && s.Done != phases[len(phases)-1]
}

// Resumable returns the file of the scenario that a run of the lab can go on with. arg is the scenario's name or
// file; empty means any. The error is a *ResumeError if there is none.
func (l *Lab) Resumable(arg string) (file string, err error) {
	s, err := l.resumable(arg)
	return s.File, err
}

func (l *Lab) resumable(arg string) (left, error) {
	no := func(format string, a ...any) (left, error) {
		return left{}, &ResumeError{fmt.Sprintf(format, a...)}
	}
	s, err := l.stateOf(arg)
	if err != nil {
		return s, err
	}
	undo := fmt.Sprintf("`eastwest run %s --undo --name %s` puts the mesh back", s.Scenario, l.Name)
	if s.Done == "" {
		return no("scenario %s was not stopped after a phase of lab %s, it was cut off or has failed in one: there is nothing to go on with; %s", s.Scenario, l.Name, undo)
	}
	if !s.goesOn() {
		return no("scenario %s has run to its end on lab %s: there is nothing to go on with; %s", s.Scenario, l.Name, undo)
	}
	now, err := digestOf(s.File)
	if err != nil {
		return s, err
	}
	if now != s.Digest {
		return no("%s has changed since phase %s of it was done on lab %s: what was proven is not what stands there now; %s", s.File, s.Done, l.Name, undo)
	}
	return s, nil
}

// stateOf reads what the scenario has left.
func (l *Lab) stateOf(arg string) (left, error) {
	if l.record.Left == "" {
		return left{}, &ResumeError{fmt.Sprintf("lab %s is as it was: no scenario was stopped in the middle on it; `eastwest run NAME --until PHASE --name %[1]s` does so", l.Name)}
	}
	s, err := readLeft(l.home, l.Name)
	if err != nil {
		return s, &SetupError{Err: fmt.Errorf("lab %s was left by scenario %s, and what it was like before cannot be read: %w: `eastwest up --name %[1]s` makes it anew", l.Name, l.record.Left, err)}
	}
	if arg != "" && !s.is(arg) {
		return s, &ResumeError{fmt.Sprintf("lab %s was left by scenario %s (%s), not by %s", l.Name, s.Scenario, s.File, arg)}
	}
	return s, nil
}

// Undo puts the mesh back as it was before the scenario that has left it changed, whatever state it is in. It
// returns the scenario's name, or nothing if there was nothing to undo. arg is the scenario's name or file; empty
// means any.
func (l *Lab) Undo(ctx context.Context, arg string) (undone string, err error) {
	unlock, err := l.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if l.record.Left == "" {
		return "", nil
	}
	s, err := l.stateOf(arg)
	if err != nil {
		return "", err
	}
	if l.Adopted() { // what a run was allowed to do may be taken back
		l.adopt()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, undoWithin, fmt.Errorf("not done within %s", undoWithin))
	defer cancel()
	if err := fault.Restore(ctx, l.Mesh, s.Before); err != nil {
		return "", &SetupError{Err: fmt.Errorf("putting lab %s back as it was before scenario %s: %w: try again, or `eastwest up --name %[1]s` makes it anew", l.Name, s.Scenario, err)}
	}
	return s.Scenario, l.back()
}

// goOn starts the traffic of a scenario that was stopped, as the continuation of what was recorded before.
func (r *run) goOn(ctx context.Context) error {
	for _, s := range r.scenario.Traffic {
		earlier, err := traffic.Load(filepath.Join(r.earlier, recordingFile(s.Name)))
		if err != nil {
			return fmt.Errorf("%s: going on with traffic %s: %w", s.Place, s.Name, err)
		}
		if err := r.startStream(s, earlier); err != nil {
			return fmt.Errorf("%s: starting traffic %s: %w", s.Place, s.Name, err)
		}
	}
	for name, stream := range r.streams {
		if err := wait.Until(ctx, "the first call of "+name, wait.Options{Within: gateWithin, Every: lookEvery}, func(context.Context) error {
			recording := stream.Recording()
			if !slices.ContainsFunc(recording.Calls, func(c traffic.Call) bool { return !c.Start.Before(r.since) && !c.End.IsZero() }) {
				return errors.New("none has come back")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func recordingFile(stream string) string { return "traffic-" + stream + ".json" }

// LookAround writes what a person who stands in the middle of the scenario can look at: the first hints, the calls
// of its traffic, which nobody makes meanwhile, and the commands of the diagnosis with what they show.
func LookAround(w io.Writer, s *scenario.Scenario) error {
	x := &explainer{w: w, run: &run{scenario: s}}
	for i, hint := range s.Hints {
		if i < 2 { // the last ones give the answer away
			x.line("  %s", strings.Join(strings.Fields(hint), " "))
		}
	}
	for i, t := range s.Traffic {
		if i == 0 {
			x.line("  # nobody calls meanwhile: what logs and counters are to show has to be called by hand")
		}
		x.line("  %s", observe.Call{From: workload(t.From), To: workload(t.To)}.Command())
	}
	for _, step := range s.Diagnose {
		thing, err := x.run.thing(step)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", step.Place, step.Verb, err)
		}
		check, ok := thing.(observe.Check)
		if !ok || check.Command() == "" {
			continue
		}
		x.line("  # %s", check)
		for _, line := range strings.Split(check.Command(), "\n") {
			x.line("  %s", line)
		}
	}
	return x.err
}
