package bundle

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

// bench is the place where one component is built.
type bench struct {
	store     store
	component string
	tmp       string // private, removed afterwards
	out       string // what it holds at the end is the component
	tell      func(Progress)
}

// goBuild is a build of main packages of one pinned module.
type goBuild struct {
	module   string            // folder below scripts/components
	packages map[string]string // main package → file it becomes
	tags     string
	ldflags  string
	cgo      bool
}

// goBuild compiles and links. It reports one step per compiled package.
func (b *bench) goBuild(ctx context.Context, g goBuild) error {
	dir := filepath.Join(b.tmp, "module")
	if err := components.Extract(g.module, dir); err != nil {
		return err
	}
	packages := make([]string, 0, len(g.packages))
	for p := range g.packages {
		packages = append(packages, p)
	}
	slices.Sort(packages)

	// Listing downloads what is imported and nothing else of the module graph.
	b.tell(Progress{State: Building, Detail: "resolving Go modules"})
	var list bytes.Buffer
	listing := append([]string{"list", "-deps", "-tags", g.tags}, packages...)
	err := b.goCommand(ctx, dir, g, &list, func(line string) bool {
		what, ok := strings.CutPrefix(line, "go: downloading ")
		if ok {
			b.tell(Progress{State: Downloading, Detail: what})
		}
		return ok
	}, listing)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range strings.Fields(list.String()) {
		known[p] = true
	}

	made := filepath.Join(b.tmp, "made") + string(filepath.Separator)
	if err := os.MkdirAll(made, 0o755); err != nil {
		return err
	}
	p := Progress{State: Building, Total: len(known), Detail: g.module}
	b.tell(p)
	building := append([]string{"build", "-v", "-trimpath", "-buildvcs=false", "-tags", g.tags, "-ldflags", g.ldflags, "-o", made}, packages...)
	err = b.goCommand(ctx, dir, g, io.Discard, func(line string) bool {
		if known[line] {
			p.Done++
			p.Detail = line
			b.tell(p)
			return true
		}
		return strings.HasPrefix(line, "go: downloading ")
	}, building)
	if err != nil {
		return err
	}
	p.Done, p.Detail = p.Total, ""
	b.tell(p)
	for _, pkg := range packages {
		to := g.packages[pkg]
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(made, mainName(pkg)), to); err != nil {
			return err
		}
	}
	return nil
}

// mainName is the name that the Go command gives a program: the last element of its path that is not a version.
func mainName(pkg string) string {
	parts := strings.Split(pkg, "/")
	last := parts[len(parts)-1]
	if len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		last = parts[len(parts)-2]
	}
	return last
}

// goCommand runs the Go command in a pinned module. step is given each line of its stderr and tells whether it was
// progress; the other lines are the reason if it fails.
func (b *bench) goCommand(ctx context.Context, dir string, g goBuild, stdout io.Writer, step func(string) bool, args []string) error {
	tmp := filepath.Join(b.tmp, "go")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	path, err := goTool()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = goEnv(os.Environ(), tmp, g.cgo)
	cmd.Stdout = stdout
	tail, err := run(cmd, step)
	if err == nil {
		return nil
	}
	if unreachable(tail) {
		return &SetupError{
			What: "the sources of " + g.module + " could not be downloaded", Err: errors.New(tail),
			Try: "check the network and what `go env GOPROXY GOSUMDB` name, or import a bundle that was exported elsewhere: `eastwest bundle import FILE`",
		}
	}
	return fmt.Errorf("running go %s for %s: %w\n%s", args[0], g.module, err, tail)
}

// goEnv is the environment of a build: the user's, without what would change the result.
func goEnv(environ []string, tmp string, cgo bool) []string {
	decides := []string{"GOFLAGS=", "GOWORK=", "GOEXPERIMENT=", "GOAMD64=", "GOARM64=", "GOOS=", "GOARCH=", "CGO_ENABLED=",
		"CGO_CFLAGS=", "CGO_LDFLAGS=", "GO111MODULE=", "GOTMPDIR="}
	env := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc(decides, func(d string) bool { return strings.HasPrefix(v, d) })
	})
	enabled := "CGO_ENABLED=0"
	if cgo {
		enabled = "CGO_ENABLED=1"
	}
	// GOFLAGS is set, not only removed: `go env -w` would give it a value again.
	return append(env, "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOTMPDIR="+tmp, enabled)
}

// unreachable tells whether the Go command or pip failed for want of a server rather than of good input.
func unreachable(output string) bool {
	for _, sign := range []string{
		"module lookup disabled by GOPROXY=off", "dial tcp", "no such host", "connection refused", "connection reset", "i/o timeout",
		"TLS handshake", "x509:", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway", "unexpected EOF", "network is unreachable",
		"Temporary failure in name resolution", "NewConnectionError", "ConnectTimeoutError", "Connection refused", "No matching distribution", "SSLError", "ProxyError",
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
