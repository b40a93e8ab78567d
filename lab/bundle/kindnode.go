package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodeImage is the making of kind's node image: a base image, an archive like that of a Kubernetes release, and kind's
// own command, which makes a node image of the two.
type nodeImage struct {
	*bench
	kubernetes string
	ref        string            // of the node image
	base       string            // of the base image; it is in Docker only meanwhile
	files      map[string]string // of the other components: path in the bundle → blob
	images     []Image           // of the bundle, with their blobs as archives
	sources    string            // of kind
}

// collect finds what the other components have left.
func (n *nodeImage) collect(others []component) error {
	n.files = map[string]string{}
	for _, c := range others {
		r, ok := n.store.recorded(c)
		if !ok {
			return fmt.Errorf("component %s is not finished", c.name)
		}
		for _, f := range r.Files {
			n.files[f.Path] = n.store.blob(f.SHA256)
		}
		for _, image := range r.Images {
			image.Archive = n.files[image.Archive]
			n.images = append(n.images, image)
		}
	}
	return nil
}

func (n *nodeImage) build(ctx context.Context) (image Image, err error) {
	module, err := goModule{name: "kind"}.open(filepath.Join(n.tmp, "go"))
	if err != nil {
		return image, err
	}
	if err := module.run(ctx, io.Discard, noProgress, "mod", "download", "sigs.k8s.io/kind"); err != nil {
		return image, err
	}
	if n.sources, err = module.folder(ctx, "sigs.k8s.io/kind"); err != nil {
		return image, err
	}
	base, err := n.baseImage(ctx)
	if err != nil {
		return image, err
	}
	server, err := n.server(ctx)
	if err != nil {
		return image, err
	}

	// What an interrupted build has left in Docker goes first, and what this one leaves whatever happens; but an image that
	// somebody has loaded is loaded afterwards, too.
	_, absent := n.id(ctx)
	n.sweep(ctx)
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if absent != nil {
			_ = n.docker(ctx, "rmi", n.ref)
		}
		n.sweep(ctx)
	}()
	if err := n.docker(ctx, "load", "--quiet", "--input", base.Archive); err != nil {
		return image, err
	}
	n.tell(Progress{State: Packing, Detail: "kind build node-image"})
	tmp := filepath.Join(n.tmp, "kind") // kind leaves there what it has unpacked
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return image, err
	}
	err = n.run(ctx, func() (string, error) { return n.files["bin/kind"], nil }, n.tmp, []string{"TMPDIR=" + tmp},
		"build", "node-image", "--type", "file", "--base-image", n.base, "--image", n.ref, server)
	if err != nil {
		return image, err
	}
	if err := errors.Join(os.RemoveAll(tmp), os.Remove(server)); err != nil {
		return image, err
	}
	n.tell(Progress{State: Packing, Detail: "saving " + n.ref})
	archive := path.Join("kind", "node.tar")
	if err := os.MkdirAll(filepath.Join(n.out, "kind"), 0o755); err != nil {
		return image, err
	}
	if err := n.docker(ctx, "save", "--output", filepath.Join(n.out, archive), n.ref); err != nil {
		return image, err
	}
	id, err := n.id(ctx)
	return Image{Ref: n.ref, Archive: archive, Digest: id}, err
}

// id returns the digest by which Docker knows the node image; the error tells that it has none.
func (n *nodeImage) id(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", n.ref).Output()
	if err != nil {
		return "", fmt.Errorf("asking Docker for %s: %w", n.ref, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// sweep removes the base image and the containers that are made of it from Docker.
func (n *nodeImage) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet", "--filter", "ancestor="+n.base).Output()
	if err == nil && len(out) > 0 {
		_ = n.docker(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(string(out))...)...)
	}
	_ = n.docker(ctx, "rmi", n.base) // at first there is none
}

func (n *nodeImage) docker(ctx context.Context, args ...string) error {
	return n.run(ctx, func() (string, error) { return exec.LookPath("docker") }, n.tmp, nil, args...)
}

// run runs a command with the machine's administration programs on its PATH, in a mount namespace of its own: what
// debootstrap mounts in the base would be there for whoever removes the folder after an interrupted build.
func (n *nodeImage) run(ctx context.Context, find func() (string, error), dir string, env []string, args ...string) error {
	program, err := find()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL=C")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	tail, err := run(cmd, noProgress)
	if err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, tail)
	}
	return nil
}

// aside is a bench whose images are no part of the bundle.
func (n *nodeImage) aside(name string) *bench {
	b := *n.bench
	b.out = filepath.Join(n.tmp, name)
	return &b
}
