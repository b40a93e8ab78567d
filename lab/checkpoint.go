package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// checkpointVersion is the format of the file. A file of another version is not guessed at: it is what a mesh is put
// back from.
const checkpointVersion = 2

// Checkpoint is what is written down before the first change that a scenario makes, so that another process can undo the
// changes or, if the scenario was stopped after a phase, go on with it. The file holds Secrets.
type Checkpoint struct {
	Version  int            `json:"version"`
	Scenario string         `json:"scenario"`
	Began    time.Time      `json:"began"`
	File     string         `json:"file"`             // of the scenario
	Digest   string         `json:"digest,omitempty"` // SHA-256 of the file's content
	Done     scenario.Phase `json:"done,omitempty"`   // the phase after which it was stopped; empty while it runs, or if it failed
	Folder   string         `json:"folder"`           // where the recordings are
	// Before is what the mesh was like, in the format of the package that compares and restores it.
	Before json.RawMessage `json:"before"`
}

// Means reports whether a person means this scenario by its name, its file, or its folder.
func (c Checkpoint) Means(arg string) bool {
	path, err := filepath.Abs(arg)
	return arg == c.Scenario || err == nil && (path == c.File || filepath.Join(path, "scenario.yaml") == c.File)
}

// GoesOn reports whether there is a phase left to go on with.
func (c Checkpoint) GoesOn() bool {
	phases := scenario.Phases()
	return c.Done != "" && c.Done != phases[len(phases)-1]
}

func checkpointFile(home, name string) string {
	return filepath.Join(labDir(home, name), "checkpoint.json")
}

func readCheckpoint(home, name string) (Checkpoint, error) {
	var c Checkpoint
	if err := machine.ReadJSON(checkpointFile(home, name), &c); err != nil {
		return c, err
	}
	if c.Version != checkpointVersion {
		return c, fmt.Errorf("reading %s: wanted format %d, seen %d: it was written by another version of eastwest",
			checkpointFile(home, name), checkpointVersion, c.Version)
	}
	return c, nil
}

// write replaces the file in one step.
func (c Checkpoint) write(home, name string) error {
	data, err := json.Marshal(c)
	if err == nil {
		err = machine.WriteDurably(checkpointFile(home, name), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing down what the mesh was like: %w", err)
	}
	return nil
}

// Hold keeps other processes from changing the lab until release is called. It reads the lab's record again: another
// process may have held the lab since it was opened.
func (l *Lab) Hold(ctx context.Context) (release func(), err error) {
	release, err = lockLab(ctx, l.home, l.Name)
	if err != nil {
		return nil, err
	}
	if l.record, err = readRecord(l.home, l.Name); err != nil {
		release()
		return nil, &SetupError{Err: fmt.Errorf("lab %s is gone: %w", l.Name, err)}
	}
	return release, nil
}

// Changed returns the name of the scenario that has changed the lab and not put it back, or "".
func (l *Lab) Changed() string { return l.record.Left }

// Checkpoint returns what the scenario that has changed the lab wrote down.
func (l *Lab) Checkpoint() (Checkpoint, error) { return readCheckpoint(l.home, l.Name) }

// Leave writes down that a scenario changes the lab. It comes before the change.
func (l *Lab) Leave(c Checkpoint) error {
	c.Version = checkpointVersion
	if err := c.write(l.home, l.Name); err != nil {
		return err
	}
	l.record.Left = c.Scenario
	return l.record.write(l.home)
}

// Back writes down that the lab is again what it was.
func (l *Lab) Back() error {
	if l.record.Left != "" {
		l.record.Left = ""
		if err := l.record.write(l.home); err != nil {
			return err
		}
	}
	for _, file := range []string{checkpointFile(l.home, l.Name), checkpointFile(l.home, l.Name) + ".new"} { // both hold Secrets
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// HowToGoOn says what a person can do with a lab that the scenario has left changed. The zero Checkpoint stands for one
// that cannot be read.
func (c Checkpoint) HowToGoOn(lab string) string {
	anew := fmt.Sprintf("`eastwest up --name %s` makes it anew", lab)
	if c.Scenario == "" {
		return anew
	}
	advice := fmt.Sprintf("`eastwest run %s --undo --name %s` puts it back as it was, %s", c.Scenario, lab, anew)
	if c.GoesOn() {
		advice = fmt.Sprintf("`eastwest run %s --resume --name %s` goes on after phase %s, %s", c.Scenario, lab, c.Done, advice)
	}
	return advice
}
