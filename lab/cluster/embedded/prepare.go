package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Prepare unpacks the bundle's images into a containerd folder, once per bundle, and returns that folder. New nodes
// get hard links to its files, so that they import nothing.
func (p *Provider) Prepare(ctx context.Context) (string, error) {
	return p.once(ctx, p.digest(), "unpacking images once", prepareFile, func(n node) (string, error) {
		return n.path("var", "lib", "containerd"), nil
	})
}

// digest is the bundle's digest as part of a file's name.
func (p *Provider) digest() string { return strings.TrimPrefix(p.Bundle.Digest(), "sha256:") }

// once returns the path of something that all labs share, by its name. If it does not exist, a supervisor makes it: the
// one that the node file called file starts. ready completes the folder of that node and returns the path at which the
// supervisor is going to leave its work.
func (p *Provider) once(ctx context.Context, shared, step, file string, ready func(node) (string, error)) (string, error) {
	parent := filepath.Join(p.Home, "prepared")
	shared = filepath.Join(parent, shared)
	if _, err := os.Stat(shared); err == nil {
		return shared, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(parent, ".lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another eastwest that is %s: %w", step, err)
	}
	defer func() { _ = lock.Unlock() }()
	if _, err := os.Stat(shared); err == nil { // another process did it
		return shared, nil
	}
	const lab, name = "eastwest-prepare", "images"
	n := p.newNode(cluster.Spec{Lab: lab, Name: name, Index: 1}, network{machine.Network{Range: netip.MustParsePrefix("10.201.0.0/16")}})
	n.Dir = filepath.Join(parent, "unfinished")
	if err := errors.Join(p.stopNode(ctx, lab, ""), os.RemoveAll(n.Dir)); err != nil {
		return "", err
	}
	defer os.RemoveAll(n.Dir)
	for _, sub := range []string{"root", "var/lib"} {
		if err := os.MkdirAll(n.path(sub), 0o755); err != nil {
			return "", err
		}
	}
	result, err := ready(n)
	if err != nil {
		return "", err
	}
	if err := machine.WriteJSON(n.path(file), n); err != nil {
		return "", err
	}
	if p.Progress != nil {
		p.Progress("", step, 0)
	}
	_, err = p.supervise(ctx, n, n.path(file), "", func(int) error { return nil })
	if err := errors.Join(err, p.stopNode(context.WithoutCancel(ctx), lab, "")); err != nil {
		return "", err
	}
	return shared, os.Rename(result, shared)
}

// prepare imports every image of the bundle. The supervisor does this instead of running a node.
func (s *supervisor) prepare(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	if err := host.SetUp("lo", netip.Prefix{}); err != nil {
		return err
	}
	if err := s.init.Keep(running, s.command(containerd)); err != nil {
		return err
	}
	ctr := func(args ...string) host.Command {
		c := s.command(containerd)
		return host.Command{Name: "ctr", Path: s.Bin + "/ctr", Args: append([]string{"--namespace=k8s.io"}, args...), Env: c.Env}
	}
	err := wait.Until(ctx, "containerd to answer", wait.Options{}, func(ctx context.Context) error {
		return s.init.Run(ctx, ctr("version"), "")
	})
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(s.Bundle, "images", "*"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := s.init.Run(ctx, ctr("images", "import", "--snapshotter=overlayfs", archive), ""); err != nil {
			return fmt.Errorf("importing %s: %w", filepath.Base(archive), err)
		}
		s.milestone("unpacked " + filepath.Base(archive))
	}
	stop() // so that containerd is not started again
	if err := s.init.Stop(ctx, containerd); err != nil {
		return fmt.Errorf("stopping containerd: %w", err)
	}
	s.milestone(cluster.Usable)
	return nil
}
