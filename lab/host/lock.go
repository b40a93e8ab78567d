package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Locks is a folder of locks, which all processes share that see the folder. The kernel frees a lock when whoever holds it
// ends, however it ends.
type Locks string

// MachineLocks are shared by everybody who makes labs on this machine, in whatever home. Only root may take them, and only
// root makes links, cgroups and the like.
const MachineLocks Locks = "/run/eastwest"

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// HeldError says that somebody else holds a lock.
type HeldError struct {
	Name string
	By   string // what its holder has said of itself; empty while it is being taken or given up
}

func (e *HeldError) Error() string { return fmt.Sprintf("the lock %s is held by %q", e.Name, e.By) }

// Try takes a lock, or returns a *HeldError. by is for those who find it held.
func (l Locks) Try(name, by string) (*Lock, error) {
	if err := os.MkdirAll(string(l), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of locks: %w", err)
	}
	for {
		file, err := os.OpenFile(l.path(name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("taking the lock %s: %w", name, err)
		}
		held, err := l.lock(name, file)
		if held {
			if err = file.Truncate(0); err == nil {
				_, err = file.WriteAt([]byte(by), 0)
			}
			if err == nil {
				return &Lock{file}, nil
			}
		}
		var other *HeldError
		if errors.As(err, &other) {
			text, _ := os.ReadFile(l.path(name)) // it may have been given up just now
			other.By = string(text)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
	}
}

// lock locks an open file. It reports false without an error if the file is not the lock's any more: whoever held the lock
// has removed it.
func (l Locks) lock(name string, file *os.File) (held bool, err error) {
	for {
		switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, &HeldError{Name: name}
		case err != nil:
			return false, fmt.Errorf("taking the lock %s: %w", name, err)
		}
		break
	}
	locked, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(l.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, named), err
}

// Take takes a lock, and waits for it until ctx ends.
func (l Locks) Take(ctx context.Context, name, by string) (*Lock, error) {
	for {
		lock, err := l.Try(name, by)
		var held *HeldError
		if !errors.As(err, &held) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// File returns the file of the lock. A process that inherits it holds the lock, too, until it closes the file or ends.
func (l *Lock) File() *os.File { return l.file }

// Release gives the lock up and removes its file, unless another process has inherited the lock, or has taken it meanwhile. It
// does nothing to a nil Lock.
func (l *Lock) Release() {
	if l == nil {
		return
	}
	_ = l.file.Truncate(0) // what it says is no longer true
	// Closing it, and not unlocking it, which would take the lock from those who have inherited it.
	_ = l.file.Close()
	dir, name := filepath.Split(l.file.Name())
	file, err := os.OpenFile(l.file.Name(), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer file.Close()
	// The file may be removed only by its holder: two could hold the lock otherwise.
	if held, err := Locks(dir).lock(name[:len(name)-len(lockSuffix)], file); held && err == nil {
		_ = os.Remove(file.Name())
	}
}

const lockSuffix = ".lock"

func (l Locks) path(name string) string { return filepath.Join(string(l), name+lockSuffix) }
