package bundle

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// bench is where one component is put together.
type bench struct {
	store store
	// module is where the component's programs were built. It has no folder where the component has none.
	module workspace
	tmp    string // private, removed afterwards
	out    string // what it holds at the end is the component
	tell   func(Progress)

	downloaded chan struct{} // closed when the component's download is there
}

// program returns the path of a program of the component that was built, by its main package.
func (b *bench) program(pkg string) string { return filepath.Join(b.module.programs(), mainName(pkg)) }

// keep takes programs into the component: main package → file below out.
func (b *bench) keep(programs map[string]string) error {
	for pkg, file := range programs {
		to := filepath.Join(b.out, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Link(b.program(pkg), to); err != nil {
			return err
		}
	}
	return nil
}

// unreachable tells whether the Go command or pip failed for want of a server rather than of good input.
func unreachable(output string) bool {
	for _, sign := range []string{
		"module lookup disabled by GOPROXY=off", "dial tcp", "no such host", "connection refused", "connection reset", "i/o timeout",
		"TLS handshake", "x509:", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway", "unexpected EOF", "network is unreachable",
		"Temporary failure in name resolution", "NewConnectionError", "ConnectTimeoutError", "Connection refused",
		"No matching distribution", "SSLError", "ProxyError",
	} {
		if strings.Contains(output, sign) {
			return true
		}
	}
	return false
}

// run runs a command, its stderr line by line through step, and returns the last lines that step did not want. The
// command and its children end with ctx, and the command ends with us even if we are killed.
func run(cmd *exec.Cmd, step func(string) bool) (tail string, err error) {
	pr, pw := io.Pipe()
	cmd.Stderr = pw
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	const keep = 30
	var last []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(pr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := lines.Text()
			if strings.TrimSpace(line) == "" || step(line) {
				continue
			}
			if n := len(last); n > 0 && last[n-1] == line {
				continue // Go says once per package that a server cannot be reached
			}
			if last = append(last, line); len(last) > keep {
				last = last[1:]
			}
		}
		_, _ = io.Copy(io.Discard, pr) // a line beyond the buffer must not block the command
	}()
	// The kernel sends Pdeathsig when the thread ends that started the command, so it must be kept.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	_ = pw.Close()
	<-read
	return strings.Join(last, "\n"), err
}
