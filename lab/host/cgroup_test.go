package host

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCgroupOfAContainer(t *testing.T) {
	for lines, want := range map[string]string{
		"4:memory:/docker/abc/init.scope\n2:cpuacct:/docker/abc\n0::/docker/abc/init.scope\n": "docker/abc",
		"0::/system.slice/docker-abc.scope/init.scope\n":                                      "system.slice/docker-abc.scope",
		"4:cpu,cpuacct:/\n0::/user.slice/docker/abc\n":                                        "user.slice/docker/abc",
	} {
		name, ok := cgroupCalled(lines, "abc")
		require.True(t, ok)
		require.Equal(t, want, name)
	}
	_, ok := cgroupCalled("0::/system.slice/docker-other.scope\n", "abc")
	require.False(t, ok)
}

// Parents are removed with the last cgroup below them. A cgroup that is made at that moment is made all the same.
func TestParentsOfCgroups(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("makes cgroups: run as root, without -short")
	}
	all, err := Hierarchies()
	require.NoError(t, err)
	top := fmt.Sprintf("eastwest-test-%d", os.Getpid())
	t.Cleanup(func() { require.NoError(t, RemoveCgroup(context.Background(), top)) })
	make := func(name string) {
		t.Helper()
		for _, h := range all {
			_, err := h.make(name)
			require.NoError(t, err)
		}
	}
	there := func(name string) (n int) {
		for _, h := range all {
			if _, err := os.Stat(filepath.Join(h.Path, name)); err == nil {
				n++
			}
		}
		return n
	}

	make(top + "/one/a")
	make(top + "/two")
	require.NoError(t, RemoveCgroup(t.Context(), top+"/one"))
	require.Zero(t, there(top+"/one"))
	require.Equal(t, len(all), there(top+"/two"))
	require.NoError(t, RemoveCgroup(t.Context(), top+"/two"))
	require.Zero(t, there(top))
	require.NoError(t, RemoveCgroup(t.Context(), top+"/two"), "it is gone")

	make(top + "/busy")
	last := exec.Command("sleep", "0.3")
	require.NoError(t, last.Start())
	for _, h := range all {
		require.NoError(t, os.WriteFile(filepath.Join(h.Path, top+"/busy", "cgroup.procs"), []byte(strconv.Itoa(last.Process.Pid)), 0o644))
	}
	require.NoError(t, RemoveCgroup(t.Context(), top+"/busy"), "its last process is about to end")
	require.NoError(t, last.Wait())

	ended := t.Context()
	go func() {
		for ended.Err() == nil {
			_ = RemoveCgroup(ended, top+"/other")
		}
	}()
	for range 100 {
		make(top + "/two/a")
		require.NoError(t, RemoveCgroup(t.Context(), top+"/two"))
	}
}

// The times of this process are read as the kernel counts them for itself, in ticks of a hundredth of a second.
func TestSecondsOfAProgram(t *testing.T) {
	used := func() (seconds float64) {
		var r unix.Rusage
		require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
		return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
	}
	for used() < 0.05 { // so that there is something to see
		_ = sha256.Sum256(make([]byte, 1<<16))
	}
	before := used()
	program, seconds, ok := programSeconds(os.Getpid())
	require.True(t, ok)
	require.Equal(t, filepath.Base(os.Args[0]), program)
	require.InDelta(t, before, seconds, 0.02+used()-before)

	_, _, ok = programSeconds(1 << 30)
	require.False(t, ok, "there is no such process")
}

// A number of a process that has ended may belong to somebody else by the time it is killed.
func TestKillSparesProcessesThatAreNotListedAnyMore(t *testing.T) {
	ours, other := exec.Command("sleep", "60"), exec.Command("sleep", "60")
	for _, c := range []*exec.Cmd{ours, other} {
		require.NoError(t, c.Start())
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	lists := [][]int{{ours.Process.Pid, other.Process.Pid}, {ours.Process.Pid}, nil}
	require.NoError(t, killAll(t.Context(), func() ([]int, error) {
		now := lists[0]
		lists = lists[1:]
		return now, nil
	}))
	require.NoError(t, other.Process.Signal(syscall.SIGTERM)) // which it does not die of if it was killed
	for c, by := range map[*exec.Cmd]syscall.Signal{ours: syscall.SIGKILL, other: syscall.SIGTERM} {
		_ = c.Wait()
		require.Equal(t, by, c.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
}
