package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const eventsFile = "events.jsonl"

// Folder is a run folder, and the sink that fills it: events.jsonl with one event per line, each
// written as it comes, so that a run that was killed can still be read; and evidence/ for whatever else
// is worth keeping.
type Folder struct {
	dir    string
	mu     sync.Mutex
	events *os.File
	err    error // the first of writing an event
}

var _ Sink = (*Folder)(nil)

// NewFolder makes a run folder. One that holds a run already is refused.
func NewFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(filepath.Join(dir, "evidence"), 0o755); err != nil {
		return nil, fmt.Errorf("making run folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, eventsFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making run folder: %s holds a run already: name another folder: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("making run folder: %w", err)
	}
	return &Folder{dir: dir, events: f}, nil
}

// Dir is the path that NewFolder was given.
func (f *Folder) Dir() string { return f.dir }

// Evidence is the folder for what was collected. Close redacts what stands there.
func (f *Folder) Evidence() string { return filepath.Join(f.dir, "evidence") }

// Emit appends the event to events.jsonl.
func (f *Folder) Emit(e Event) {
	line, err := json.Marshal(e.clean())
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		_, err = f.events.Write(append(line, '\n')) // one write, so that no line is ever torn by another
	}
	if f.err == nil && err != nil {
		f.err = fmt.Errorf("writing event: %w", err)
	}
}

// Close redacts the evidence and returns the first error of this and of everything before.
func (f *Folder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.err, f.events.Close(), redactFiles(f.Evidence()))
}

// redactFiles rewrites every file that holds a secret. Files that are no text, and links, hold none
// that anybody reads; links are removed since they lead out of the folder.
func redactFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("redacting evidence: %w", err)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return os.Remove(path)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("redacting evidence: %w", err)
		}
		clean := Redact(string(data))
		if clean == string(data) {
			return nil
		}
		if err := os.WriteFile(path, []byte(clean), 0o644); err != nil {
			return fmt.Errorf("redacting evidence: %w", err)
		}
		return nil
	})
}

// Runs returns the run folders in a folder: the folder itself if it holds a run, or else all that lie below it, sorted.
func Runs(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, eventsFile)); err == nil {
		return []string{dir}, nil
	}
	var runs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == eventsFile {
			runs = append(runs, filepath.Dir(path))
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no folder %s: wanted one that `eastwest run` made", dir)
	case err != nil:
		return nil, fmt.Errorf("looking for runs in %s: %w", dir, err)
	case len(runs) == 0:
		return nil, fmt.Errorf("%s is not a run folder: there is no %s in it, nor below it", dir, eventsFile)
	}
	return runs, nil
}

// Read returns the events of a run folder, to show an old run again. The last line of a run that was
// killed may be torn; it is left out.
func Read(dir string) ([]Event, error) {
	path := filepath.Join(dir, eventsFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading run: %s is not a run folder: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading run: %w", err)
	}
	defer f.Close()
	var events []Event
	in := bufio.NewReader(f)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF { // a line without its end was torn, or there is none
			return events, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading run: %w", err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading run: %s:%d: %w", path, number, err)
		}
		e.Took = time.Duration(e.Seconds * float64(time.Second))
		events = append(events, e)
	}
}
