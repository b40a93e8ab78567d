package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program that an Init starts.
type Command struct {
	Name string // "etcd"
	Path string
	Args []string
	Env  []string // in addition to PATH and HOME; may replace them
}

// Init does the work of PID 1 of a node. It starts commands, starts them again when they end, bounds the size of
// their logs, and reaps every orphan (container shims leave many).
//
// It reaps with wait4(-1), so nothing else in this process may start programs with os/exec: use Run.
type Init struct {
	Logs string // folder of NAME.log and NAME.log.1

	mu      sync.Mutex
	running map[string]*child
	waiting map[int]chan syscall.WaitStatus
	closed  bool
}

type child struct {
	command  Command
	pid      int
	starts   int
	lastExit string
}

// A command that ends is started again after restartFirst. The pause doubles, up to restartMost, as long as the
// command ends before it has run for restartCalm.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
	restartCalm  = 10 * time.Second
	logLimit     = 16 << 20 // bytes per log file; one older file is kept
)

// NewInit returns an Init that keeps logs in the folder.
func NewInit(logs string) (*Init, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, fmt.Errorf("making the log folder: %w", err)
	}
	return &Init{Logs: logs, running: map[string]*child{}, waiting: map[int]chan syscall.WaitStatus{}}, nil
}

// Reap reaps processes that have ended, until ctx ends. Start it in a goroutine of its own before Keep and Run are
// called.
func (i *Init) Reap(ctx context.Context, sigchld <-chan os.Signal) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case pid > 0:
			i.mu.Lock()
			ended, ours := i.waiting[pid]
			delete(i.waiting, pid)
			i.mu.Unlock()
			if ours {
				ended <- status
			}
			continue
		case errors.Is(err, syscall.EINTR):
			continue
		}
		select {
		case <-sigchld:
		case <-ctx.Done():
			return
		}
	}
}

// usualPath is the PATH of a command that brings none.
const usualPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// start forks under the lock, so that Reap cannot see the end of the process before its channel is registered.
func (i *Init) start(c Command, out *os.File) (int, chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return 0, nil, errors.New("the node is stopping")
	}
	// If a variable is set twice, a Go program takes the first one. Environ keeps only the last one.
	env := (&exec.Cmd{Env: append([]string{usualPath, "HOME=/root"}, c.Env...)}).Environ()
	pid, err := syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	i.waiting[pid] = ended
	return pid, ended, nil
}

// Keep runs the command, and starts it again whenever it ends, until ctx ends. It returns after the first start; the
// error is about that start.
func (i *Init) Keep(ctx context.Context, c Command) error {
	log, err := newLog(filepath.Join(i.Logs, c.Name+".log"))
	if err != nil {
		return err
	}
	pid, ended, err := i.start(c, log.in)
	if err != nil {
		log.close()
		return err
	}
	ch := &child{command: c, pid: pid, starts: 1}
	i.mu.Lock()
	i.running[c.Name] = ch
	i.mu.Unlock()
	go i.keep(ctx, ch, ended, log)
	return nil
}

func (i *Init) keep(ctx context.Context, ch *child, ended chan syscall.WaitStatus, log *boundedLog) {
	defer log.close()
	pause := restartFirst
	for born := time.Now(); ; born = time.Now() {
		var status syscall.WaitStatus
		select {
		case status = <-ended:
		case <-ctx.Done():
			return
		}
		if time.Since(born) > restartCalm {
			pause = restartFirst
		}
		i.mu.Lock()
		ch.pid, ch.lastExit = 0, describeExit(status)
		i.mu.Unlock()
		fmt.Fprintf(log.in, "eastwest: %s ended (%s), starting again in %s\n", ch.command.Name, describeExit(status), pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, restartMost)
		pid, next, err := i.start(ch.command, log.in)
		if err != nil {
			fmt.Fprintf(log.in, "eastwest: %v\n", err)
			next = make(chan syscall.WaitStatus, 1)
			next <- 1 << 8 // as if it had exited with status 1: try again after the pause
		}
		ended = next
		i.mu.Lock()
		ch.pid, ch.starts = pid, ch.starts+1
		i.mu.Unlock()
	}
}

// Run runs a command once, with an input, and waits for its end. If it fails, the error contains its output.
func (i *Init) Run(ctx context.Context, c Command, stdin string) error {
	out, err := os.CreateTemp("", c.Name)
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if stdin != "" { // passed as the name of a file: writing to a pipe could block
		in, err := os.CreateTemp("", c.Name)
		if err != nil {
			return err
		}
		defer os.Remove(in.Name())
		defer in.Close()
		if _, err := in.WriteString(stdin); err != nil {
			return err
		}
		c.Args = append(c.Args, in.Name())
	}
	_, ended, err := i.start(c, out)
	if err != nil {
		return err
	}
	select {
	case status := <-ended:
		if status != 0 {
			text, _ := os.ReadFile(out.Name())
			return fmt.Errorf("running %s %v: %s: %s", c.Path, c.Args, describeExit(status), text)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Signal sends sig to a kept command.
func (i *Init) Signal(name string, sig syscall.Signal) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	ch, ok := i.running[name]
	switch {
	case !ok:
		return fmt.Errorf("no component %q: there are %v", name, i.names())
	case ch.pid == 0:
		return fmt.Errorf("%s does not run at this moment (%s)", name, ch.lastExit)
	}
	return unix.Kill(ch.pid, sig)
}

// ProcessState is the state of a command that is kept running.
type ProcessState struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"` // as seen inside the node; 0 while it does not run
	Starts   int    `json:"starts"`
	Stopped  bool   `json:"stopped,omitempty"` // by SIGSTOP
	LastExit string `json:"last_exit,omitempty"`
}

// States returns the states of the kept commands, sorted by name.
func (i *Init) States() []ProcessState {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []ProcessState
	for _, name := range i.names() {
		ch := i.running[name]
		all = append(all, ProcessState{name, ch.pid, ch.starts, stopped(ch.pid), ch.lastExit})
	}
	return all
}

// Processes returns one state per name, in the given order, for the oldest process that was started under that name.
// Starts is not set.
func Processes(names []string) []ProcessState {
	found := map[string]int{}
	commandLines(func(pid int, args []string) {
		if name := filepath.Base(args[0]); found[name] == 0 || pid < found[name] {
			found[name] = pid
		}
	})
	all := make([]ProcessState, 0, len(names))
	for _, name := range names {
		p := ProcessState{Name: name, PID: found[name]}
		p.Stopped = p.PID != 0 && stopped(p.PID)
		all = append(all, p)
	}
	return all
}

// Commands returns the processes of a program that have one of the words among their arguments.
func Commands(program string, words ...string) (pids []int) {
	commandLines(func(pid int, args []string) {
		if filepath.Base(args[0]) == program && slices.ContainsFunc(args[1:], func(arg string) bool { return slices.Contains(words, arg) }) {
			pids = append(pids, pid)
		}
	})
	return pids
}

// commandLines calls show for every running process, with its program and arguments.
func commandLines(show func(pid int, args []string)) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // fails only for a malformed pattern
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			show(pid, strings.Split(string(line), "\x00"))
		}
	}
}

// stopped reports whether a process is stopped. Its state follows its name, which is in parentheses (proc(5)).
func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, found := strings.Cut(string(stat), ") ")
	return err == nil && found && strings.HasPrefix(state, "T")
}

func (i *Init) names() []string {
	var names []string
	for name := range i.running {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Stop ends a kept command with SIGTERM and waits until it has ended. Cancel the context given to Keep before, or the
// command is started again.
func (i *Init) Stop(ctx context.Context, name string) error {
	i.mu.Lock()
	ch, ok := i.running[name]
	var pid int
	if ok {
		pid = ch.pid
	}
	i.closed = true
	i.mu.Unlock()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone already
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return err
	}
	return waitPidfd(ctx, fd)
}

// waitPidfd waits until the process behind a pidfd has ended.
func waitPidfd(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

func describeExit(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "killed by " + unix.SignalName(s.Signal())
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// boundedLog is a pipe into a file that never grows beyond logLimit.
type boundedLog struct {
	in   *os.File
	done chan struct{}
}

func newLog(path string) (*boundedLog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", path, err), r.Close(), w.Close())
	}
	l := &boundedLog{in: w, done: make(chan struct{})}
	go l.copy(r, f, path)
	return l, nil
}

// copy never stops reading, even if the disk is full: a full pipe would block the component.
func (l *boundedLog) copy(r, f *os.File, path string) {
	defer close(l.done)
	defer r.Close()
	buf := make([]byte, 64<<10)
	for size := 0; ; {
		n, err := r.Read(buf)
		if err != nil {
			f.Close()
			return
		}
		if size += n; size > logLimit && os.Rename(path, path+".1") == nil {
			if next, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644); err == nil {
				f.Close()
				f, size = next, n
			}
		}
		_, _ = f.Write(buf[:n])
	}
}

func (l *boundedLog) close() { l.in.Close() }
