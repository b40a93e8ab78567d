package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// HomeEnv is the environment variable that names the folder of all labs.
const HomeEnv = "EASTWEST_HOME"

// DefaultName is the name of the lab that commands use when none is given.
const DefaultName = "eastwest"

// Home returns the folder of all labs: $EASTWEST_HOME, or eastwest in the user's cache folder.
func Home() (string, error) {
	if dir := os.Getenv(HomeEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &SetupError{Err: fmt.Errorf("finding a folder for labs: %w: set %s", err, HomeEnv)}
	}
	return filepath.Join(dir, "eastwest"), nil
}

// SetupError is the error of a lab that could not be made or opened because of the machine, the bundle or Kubernetes, and not
// because of the command line or a scenario.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// UnknownLabError says that there is no lab of a name.
type UnknownLabError struct {
	Name  string
	Known []string // all labs
}

func (e *UnknownLabError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("there is no lab %q, nor any other: make one with `eastwest up`", e.Name)
	}
	return fmt.Sprintf("there is no lab %q: there is %s", e.Name, words.And(e.Known))
}

var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// checkName returns an error if the name cannot be part of labels, host names and file names.
func checkName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("the lab's name %q: wanted up to 40 lower-case letters, digits and dashes, such as %q", name, DefaultName)
	}
	return nil
}

func lockFile(home, name string) string { return filepath.Join(home, "labs", "."+name+".lock") }

// names lists the labs that have a folder, sorted.
func names(home string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(home, "labs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing labs: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	slices.Sort(all)
	return all, nil
}

// NameOf returns the name of a lab of the provider: the given one if it is, or the only one that there is.
func NameOf(home, name, provider string) (string, error) {
	known, err := names(home)
	if err != nil {
		return "", err
	}
	var of []string
	for _, n := range known {
		if r, err := readRecord(home, n); err == nil && r.Provider == provider {
			of = append(of, n)
		}
	}
	switch {
	case slices.Contains(of, name):
		return name, nil
	case len(of) == 1:
		return of[0], nil
	case len(of) == 0:
		return "", fmt.Errorf("there is no lab of the provider %s: make one with `eastwest up --provider %[1]s`", provider)
	}
	return "", fmt.Errorf("there are several labs of the provider %s: name one with --name: %s", provider, strings.Join(of, ", "))
}

// lockLab keeps other processes from changing the lab. The lock file is beside the lab's folder and outlives it: if a lock
// file is removed together with what it guards, two processes can hold the lock.
func lockLab(ctx context.Context, home, name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(home, "labs"), 0o755); err != nil {
		return nil, &SetupError{Err: fmt.Errorf("making the folder of labs: %w", err)}
	}
	l := flock.New(lockFile(home, name))
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for another eastwest that works on lab %s: %w", name, context.Cause(ctx))
	}
	return func() { _ = l.Unlock() }, nil
}

// Reserve finds the first of the names PREFIX-1, PREFIX-2, … after a number that no other run has reserved, and
// reserves it until release is called or this process ends. A lab of that name may be there: one that a killed run has left.
func Reserve(home, prefix string, after int) (number int, release func(), err error) {
	for number = after + 1; ; number++ {
		lock, err := machine.ReserveName(home, fmt.Sprintf("%s-%d", prefix, number))
		var held *host.HeldError
		switch {
		case err == nil:
			return number, lock.Release, nil
		case !errors.As(err, &held):
			return 0, nil, &SetupError{Err: fmt.Errorf("reserving a name for a lab: %w", err)}
		}
	}
}

// locked reports whether another process has locked the lab.
func locked(home, name string) bool {
	file := lockFile(home, name)
	if _, err := os.Stat(file); err != nil {
		return false
	}
	l := flock.New(file)
	free, err := l.TryRLock() // a shared lock, so that two calls of locked do not see each other
	if free {
		_ = l.Unlock()
	}
	return err == nil && !free
}
