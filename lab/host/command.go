package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// CommandError is a command that failed.
type CommandError struct {
	Command []string
	Said    string // its standard error, or its standard output if that is empty
	Err     error
}

func (e *CommandError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("running %s: %v: %s", strings.Join(e.Command, " "), e.Err, e.Said), ": ")
}

// Unwrap returns the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// Run runs a command and returns its standard output. stdin may be nil. The command is killed when ctx ends.
func Run(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = stdin
	return Output(ctx, cmd)
}

// Bound returns a command for Output that ends, with everything that it has started, when ctx or this process ends.
func Bound(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Output runs a command that was made with Bound or exec.CommandContext and returns its standard output. The error is
// a *CommandError.
func Output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread that has started the command ends
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		said := strings.TrimSpace(problems.String())
		if said == "" {
			said = strings.TrimSpace(out.String())
		}
		return out.String(), &CommandError{Command: cmd.Args, Said: said, Err: err}
	}
	return out.String(), nil
}
