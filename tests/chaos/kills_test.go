package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// soakEnv is the environment variable with the file of a soak, in which every kill is written down.
const soakEnv = "EASTWEST_SOAK"

// one is something that a test kills.
type one struct {
	t    *testing.T
	left []string
}

// soakOf returns the soak, or nil if there is none.
func soakOf(t *testing.T) *bench.Soak {
	t.Helper()
	file := os.Getenv(soakEnv)
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err, "`eastwest bench soak --runs 0` begins the file")
	soak, err := bench.ParseSoak(file, data)
	require.NoError(t, err)
	return soak
}

// kill records the kill, and its outcome when the test ends.
func kill(t *testing.T, what string, sig syscall.Signal) *one {
	t.Helper()
	k := &one{t: t}
	soak := soakOf(t)
	if soak == nil {
		return k
	}
	t.Cleanup(func() {
		entry := bench.SoakEntry{Killed: what, Signal: unix.SignalName(sig), Result: report.Passed, Left: k.left}
		if t.Failed() {
			entry.Result, entry.Reason = report.Failed, "see "+t.Name()+" in the output of the tests"
		}
		require.NoError(t, soak.Add(entry))
	})
	return k
}

// leaves wants nothing of the lab on this machine.
func (k *one) leaves(home, name string) {
	k.t.Helper()
	k.left = append(k.left, labs.Left(k.t, home, name)...)
	require.Empty(k.t, k.left)
}

func TestKilledWhileGoingDown(t *testing.T) {
	home := needs(t)
	for _, after := range moments(t, wanted(t).down, 1500*time.Millisecond) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			out, code := eastwest.Run(t, "up", "--name", labName, "--topology", "none")
			require.Zero(t, code, out)
			killed := kill(t, "down", syscall.SIGKILL)
			eastwest.Until(t, after, syscall.SIGKILL, "down", labName)
			if eastwest.State(t, labName) != "" {
				out, code := eastwest.Run(t, "down", labName)
				require.Zero(t, code, out)
			}
			killed.leaves(home, labName)
		})
	}
}

// TestKilledWhileBuilding kills the build of a bundle. No compiler goes on, and the next build uses what was finished.
func TestKilledWhileBuilding(t *testing.T) {
	needs(t)
	dir := t.TempDir()
	build := func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, string(eastwest), "bundle", "build")
		cmd.Env = append(os.Environ(), bundle.EnvDir+"="+dir)
		return cmd
	}
	for _, after := range moments(t, wanted(t).build, 15*time.Second) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			require.NoError(t, os.RemoveAll(dir))
			killed := kill(t, "bundle build", syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			_ = build(ctx).Run() // at the end of ctx it is killed, unless it has ended
			require.NoError(t, wait.Until(t.Context(), "no process of the build", wait.Options{}, func(context.Context) error {
				if killed.left = processesOf(t, dir); len(killed.left) > 0 {
					return fmt.Errorf("there are %q", killed.left)
				}
				return nil
			}))
		})
	}
	if !labs.IsNightly() {
		return
	}
	inUse, err := bundle.DefaultDir()
	require.NoError(t, err)
	complete, err := bundle.Open(inUse)
	require.NoError(t, err)
	out, err := build(t.Context()).CombinedOutput()
	require.NoError(t, err, string(out))
	seen, err := bundle.Open(dir)
	require.NoError(t, err)
	require.Equal(t, complete.Digest(), seen.Digest())
	built, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	require.NoError(t, err)
	require.Empty(t, built)
}

// processesOf returns the command lines that name a folder.
func processesOf(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), dir) {
			all = append(all, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return all
}

// whole stands for all programs of a lab.
const whole = "everything"

// parts are the programs of a lab that are killed.
var parts = []string{
	"etcd", "kube-apiserver", "envoy", whole, "kubelet", "containerd", "pilot-discovery", "kube-controller-manager", "kube-scheduler",
	"kube-proxy", "eastwest-node",
}

// TestKilledParts kills programs of a lab that is running, and all of them at once, as a machine that loses its power does.
func TestKilledParts(t *testing.T) {
	home := needs(t)
	up := func(t *testing.T) {
		t.Helper()
		out, code := eastwest.Run(t, "up", "--name", labName)
		require.Zero(t, code, out)
		require.Equal(t, lab.Running, eastwest.State(t, labName))
	}
	up(t)
	first := rand.IntN(len(parts))
	for i := range wanted(t).parts {
		part := parts[(first+i)%len(parts)]
		t.Run(part, func(t *testing.T) {
			kill(t, part, syscall.SIGKILL)
			var pids []int
			if part == whole {
				pids = programs(t, "eastwest/"+labName, func(string) bool { return true })
			} else {
				pids = programs(t, "eastwest/"+labName, func(name string) bool { return name == part })
				require.NotEmpty(t, pids)
				pids = []int{pids[rand.IntN(len(pids))]}
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
					require.NoError(t, err)
				}
			}
			up(t) // the next command works
			// The mesh heals by itself. For a second or two after a kubelet has come back, its pods count as not Ready.
			heals := wait.Options{Within: time.Minute, Every: time.Second}
			require.NoError(t, wait.Until(t.Context(), "calls between the clusters", heals, func(context.Context) error {
				if out, code := eastwest.Run(t, "run", "--name", labName, "cross-cluster-call"); code != 0 {
					return errors.New(out)
				}
				return nil
			}))
		})
	}
	out, code := eastwest.Run(t, "down", labName)
	require.Zero(t, code, out)
	require.Empty(t, labs.Left(t, home, labName))
}

// programs returns the processes of a cgroup whose program has such a name.
func programs(t *testing.T, cgroup string, of func(name string) bool) []int {
	t.Helper()
	pids, err := host.CgroupProcesses(cgroup)
	require.NoError(t, err)
	return slices.DeleteFunc(pids, func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name, _, _ := strings.Cut(string(line), "\x00")
		return err != nil || !of(filepath.Base(name))
	})
}

// TestTwoKilledAtOnce kills two labs that come up side by side, at the same moment.
func TestTwoKilledAtOnce(t *testing.T) {
	home := needs(t)
	names := []string{labName, labName + "-2"}
	for _, after := range moments(t, wanted(t).pairs, upTakes) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			killed := kill(t, "two labs coming up", syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			var ups sync.WaitGroup
			for _, name := range names {
				ups.Go(func() {
					_ = exec.CommandContext(ctx, string(eastwest), "up", "--name", name, "--topology", "none").Run()
				})
			}
			ups.Wait()
			for _, name := range names {
				if eastwest.State(t, name) != "" {
					out, code := eastwest.Run(t, "down", name)
					require.Zero(t, code, out)
				}
				killed.leaves(home, name)
			}
		})
	}
}
