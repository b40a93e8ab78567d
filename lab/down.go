package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// RemoveWithin bounds the removal of a lab when nobody waits for it. Namespaces in clusters of others need the longest.
const RemoveWithin = 3 * time.Minute

// Down removes the lab and everything that was made for it.
func Down(ctx context.Context, home, name string) error {
	known, err := names(home)
	if err != nil {
		return err
	}
	if _, err := os.Stat(labDir(home, name)); err != nil {
		return &UnknownLabError{Name: name, Known: known}
	}
	unlock, err := lockLab(ctx, home, name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(labDir(home, name)); errors.Is(err, fs.ErrNotExist) {
		return nil // another process has removed it while this one waited
	}
	return removeRecorded(ctx, home, name)
}

// removeRecorded removes a lab with the provider that has made it.
func removeRecorded(ctx context.Context, home, name string) error {
	r, err := readRecord(home, name)
	if err != nil { // it was killed before it could write that down, or the file is damaged
		p := providerOf(home, name)
		r.Settings = p.settings()
	}
	return remove(ctx, r.Settings.New(cluster.Lab{Home: home}), home, name)
}

// remove is the only way to remove a lab's files.
func remove(ctx context.Context, p cluster.Provider, home, name string) error {
	if err := mayGo(home, name); err != nil {
		return err
	}
	if err := p.Delete(ctx, name); err != nil {
		return fmt.Errorf("removing lab %s: %w", name, err)
	}
	if err := os.RemoveAll(labDir(home, name)); err != nil {
		return fmt.Errorf("removing lab %s: %w", name, err)
	}
	return nil
}
