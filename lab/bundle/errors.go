package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetupError is a failure of the machine rather than of eastwest or of a scenario: something is missing, full or
// unreachable. Commands end with exit code 3 on it. Its text tells what was seen and what to try.
type SetupError struct {
	Component string   // of the bundle, if it concerns one
	What      string   // what is wrong, in words
	Missing   []string // each missing thing, where there can be several
	Try       string   // what to do about it
	Err       error    // the cause, if there is one
}

func (e *SetupError) Error() string {
	var s strings.Builder
	if e.Component != "" {
		s.WriteString("building " + e.Component + ": ")
	}
	s.WriteString(e.What)
	for _, m := range e.Missing {
		s.WriteString("\n  - " + m)
	}
	if e.Err != nil {
		s.WriteString(": " + strings.TrimSpace(e.Err.Error()))
	}
	if e.Try != "" {
		s.WriteString("\ntry: " + e.Try)
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// explain turns failures that are the machine's into a SetupError and gives the others their component.
func (s store) explain(component string, err error) error {
	var setup *SetupError
	if errors.As(err, &setup) {
		if setup.Component == "" {
			setup.Component = component
		}
		return setup
	}
	if full(err) {
		return &SetupError{
			Component: component, What: "the disk is full" + s.fullest(), Err: err,
			Try: "free some space, or set " + EnvDir + " (results) and GOMODCACHE (sources) to folders on another disk; what is finished is kept",
		}
	}
	if component == "" {
		return err
	}
	return fmt.Errorf("building %s: %w", component, err)
}

// full tells whether a disk or quota ran out, for us or for a command that we ran.
func full(err error) bool {
	return err != nil &&
		(errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), "no space left on device"))
}

// fullest tells how much is free where building writes: results and Go's sources. (Go works on without its build
// cache when that one's disk is full.)
func (s store) fullest() string {
	dirs := []string{string(s)}
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		dirs = append(dirs, dir)
	} else if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "go", "pkg", "mod"))
	}
	var parts []string
	for _, dir := range dirs {
		if free, err := freeBytes(dir); err == nil {
			parts = append(parts, fmt.Sprintf("%s: %s free", dir, size(free)))
		}
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// freeBytes returns what an ordinary user may still write to the disk of dir.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("asking for free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// size writes a number of bytes for people: "1.4 GiB", "320 MiB".
func size(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20)
}
