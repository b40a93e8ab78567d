package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// Prepare unpacks the images that nodes have into a containerd folder, once for the same images, and returns that folder. New
// nodes get hard links to its files, so that they import nothing.
func (p *Provider) Prepare(ctx context.Context) (string, error) {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	unpack := p.supervised(prepareFile, func(n *node) (string, error) { return n.path("var", "lib", "containerd"), nil })
	bundles, err := p.once(ctx, p.digest(), exists, "unpacking images once", unpack)
	if err != nil || len(p.Images) == 0 {
		return bundles, err
	}
	sum := sha256.New()
	var archives []string
	for _, image := range p.Images {
		fmt.Fprintln(sum, image.Ref, image.Digest)
		archives = append(archives, image.Archive)
	}
	more := p.supervised(prepareFile, func(n *node) (string, error) {
		n.Archives = archives
		result := n.path("var", "lib", "containerd")
		return result, linkTree(bundles, result)
	})
	name := p.digest() + "-" + hex.EncodeToString(sum.Sum(nil))[:16]
	return p.once(ctx, name, exists, "unpacking more images once", more)
}

// digest is the bundle's digest as part of a file's name.
func (p *Provider) digest() string { return strings.TrimPrefix(p.Bundle.Digest(), "sha256:") }

// prepared is the folder of what all labs of a home share.
func (p *Provider) prepared() string { return filepath.Join(p.Home, "prepared") }

// maker is the node that makes what all labs of a home share. Its lab's name is the home's own: a cgroup is known to the
// whole machine, and another home must not take this one's maker for something that a crash has left.
func (p *Provider) maker() node {
	home := sha256.Sum256([]byte(filepath.Clean(p.Home)))
	lab := "eastwest-prepare-" + hex.EncodeToString(home[:4])
	n := p.newNode(cluster.Spec{Lab: lab, Name: "images", Index: 1}, network{machine.Network{Range: netip.MustParsePrefix("10.201.0.0/16")}})
	n.Dir = filepath.Join(p.prepared(), "unfinished")
	return n
}

// once returns the path of something that all labs of a home share, by its name. If it is not good, make makes it, in a folder
// that nobody else uses, and returns where it is. What is shared appears all at once, whatever interrupts this. Of several
// processes that need the same at once, one makes it.
func (p *Provider) once(
	ctx context.Context, shared string, good func(path string) bool, step string, make func(context.Context, node) (string, error),
) (string, error) {
	shared = filepath.Join(p.prepared(), shared)
	if good(shared) {
		return shared, nil
	}
	if err := os.MkdirAll(p.prepared(), 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(p.prepared(), ".lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another eastwest that is %s: %w", step, err)
	}
	defer func() { _ = lock.Unlock() }()
	if good(shared) { // another process did it
		return shared, nil
	}
	n := p.maker()
	if err := errors.Join(p.stopNode(ctx, n.Lab, ""), os.RemoveAll(n.Dir)); err != nil { // what a crash may have left
		return "", err
	}
	defer os.RemoveAll(n.Dir)
	for _, sub := range []string{"root", "var/lib"} {
		if err := os.MkdirAll(n.path(sub), 0o755); err != nil {
			return "", err
		}
	}
	if p.Progress != nil {
		p.Progress("", step, 0)
	}
	result, err := make(ctx, n)
	if err != nil {
		return "", err
	}
	return shared, os.Rename(result, shared)
}

// supervised makes something shared by a supervisor: the one that the node file called file starts. ready completes the folder
// of that node and returns the path at which the supervisor is going to leave its work.
func (p *Provider) supervised(file string, ready func(*node) (string, error)) func(context.Context, node) (string, error) {
	return func(ctx context.Context, n node) (string, error) {
		result, err := ready(&n)
		if err != nil {
			return "", err
		}
		if err := machine.WriteJSON(n.path(file), n); err != nil {
			return "", err
		}
		_, err = p.supervise(ctx, n, n.path(file), "", func(int) error { return nil })
		return result, errors.Join(err, p.stopNode(context.WithoutCancel(ctx), n.Lab, ""))
	}
}

// prepare imports images: every one of the bundle, or those that the node names. The supervisor does this instead of running a node.
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
	archives := s.Archives
	if archives == nil {
		if archives, err = filepath.Glob(filepath.Join(s.Bundle, "images", "*")); err != nil {
			return err
		}
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
