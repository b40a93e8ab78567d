// Package chaos interrupts and kills eastwest at every step and looks at what is left on the machine.
// It needs root and a bundle, and takes minutes. The moments are others each time: for more of them,
// go test -count=5 ./tests/chaos
package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const (
	labName  = "chaos-test"
	upKills  = 8                // how often up is killed, at random moments spread over its time
	upTakes  = 7 * time.Second  // the stretch that they are spread over
	runKills = 3                // the same for a scenario
	runTakes = 30 * time.Second //
	most     = 90 * time.Second // when a slow machine gives up
)

// eastwest is the command under test, built once.
var eastwest string

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

func needs(t *testing.T) string {
	t.Helper()
	home := labs.Need(t)
	t.Cleanup(func() {
		out, code := execute(t, "down", labName)
		require.Contains(t, []int{0, 2}, code, out) // 2: it is gone already
		require.Empty(t, left(t, home))
	})
	return home
}

// left lists everything of the lab that is on this machine: processes, cgroups, links, rules, mounts, files.
func left(t *testing.T, home string) []string {
	t.Helper()
	var found []string
	pids, err := host.CgroupProcesses("eastwest/" + labName)
	require.NoError(t, err)
	for _, pid := range pids {
		found = append(found, fmt.Sprint("process ", pid))
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range procs {
		if line, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(line), "eastwest-node\x00"+labName) {
			found = append(found, "supervisor "+file)
		}
	}
	hierarchies, err := host.Hierarchies()
	require.NoError(t, err)
	for _, h := range hierarchies {
		if dir := filepath.Join(h.Path, "eastwest", labName); exists(dir) {
			found = append(found, "cgroup "+dir)
		}
	}
	links, err := host.LabeledLinks("eastwest lab " + labName)
	require.NoError(t, err)
	found = append(found, links...)
	rules, err := exec.Command("nft", "list", "tables").CombinedOutput()
	require.NoError(t, err)
	detail, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	require.NoError(t, err)
	if bytes.Contains(detail, []byte("eastwest lab "+labName+`"`)) {
		found = append(found, "rules "+string(rules))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	if bytes.Contains(mounts, []byte("/labs/"+labName+"/")) {
		found = append(found, "mounts")
	}
	_ = filepath.WalkDir(filepath.Join(home, "labs", labName), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && len(found) < 20 {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// execute runs eastwest to its end and returns what it says and its exit code.
func execute(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, eastwest, args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// runUntil starts eastwest and sends it a signal after a time, or lets it end before that.
func runUntil(t *testing.T, after time.Duration, sig os.Signal, command string, args ...string) int {
	t.Helper()
	cmd := exec.Command(eastwest, append([]string{command, "--name", labName}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		return cmd.ProcessState.ExitCode()
	case <-time.After(after):
	}
	require.NoError(t, cmd.Process.Signal(sig))
	select {
	case <-ended:
	case <-time.After(40 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatalf("40 s after %s it still runs:\n%s", sig, out.String())
	}
	return cmd.ProcessState.ExitCode()
}

// state is what `eastwest list` says of the lab; "" if it does not know it.
func state(t *testing.T) lab.State {
	t.Helper()
	out, err := exec.Command(eastwest, "list", "-o", "json").Output()
	require.NoError(t, err)
	var all []lab.Status
	require.NoError(t, json.Unmarshal(out, &all), string(out))
	for _, s := range all {
		if s.Name == labName {
			return s.State
		}
	}
	return ""
}

// moments returns n moments in random order, one at random in each of n equal stretches of a time.
func moments(t *testing.T, n int, all time.Duration) []time.Duration {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stretch := all / time.Duration(n)
	points := make([]time.Duration, n)
	for i := range points {
		points[i] = time.Duration(i)*stretch + time.Duration(random.Int64N(int64(stretch)))
	}
	random.Shuffle(n, func(i, j int) { points[i], points[j] = points[j], points[i] })
	return points
}

func TestKilledWhileComingUp(t *testing.T) {
	home := needs(t)
	for i, after := range moments(t, upKills, upTakes) {
		topology := "none"
		if i%4 == 3 { // some of them with Istio on top
			topology, after = "multi-primary", after*5/2
		}
		t.Run(fmt.Sprintf("%s after %s", topology, after.Round(time.Millisecond)), func(t *testing.T) {
			code := runUntil(t, after, syscall.SIGKILL, "up", "--topology", topology)
			complete := false
			switch s := state(t); s {
			case lab.Running: // it may have been killed after the last step, on its way out
				complete = true
				out, code := execute(t, "up", "--name", labName, "--topology", topology)
				require.Zero(t, code, "list says that it is running, and it is not:\n%s", out)
				require.NotContains(t, out, "made anew")
			case "":
				require.Empty(t, left(t, home), "list knows no such lab")
			default:
				require.NotZero(t, code, "it was complete, and list says %q", s)
			}
			if i%2 == 0 { // the next up sweeps as well as down does
				out, code := execute(t, "up", "--name", labName, "--topology", "none")
				if topology == "none" || !complete {
					require.Zero(t, code, out)
					require.Equal(t, lab.Running, state(t))
				}
			}
			if state(t) != "" {
				out, code := execute(t, "down", labName)
				require.Zero(t, code, out)
			}
			require.Empty(t, left(t, home))
		})
	}
}

func TestInterruptedWhileComingUp(t *testing.T) {
	home := needs(t)
	for _, after := range []time.Duration{50 * time.Millisecond, 2 * time.Second, 5 * time.Second} {
		code := runUntil(t, after, os.Interrupt, "up", "--topology", "multi-primary")
		require.Equal(t, 130, code, "interrupted after %s", after)
		require.Empty(t, left(t, home), "interrupted after %s", after)
		require.Equal(t, lab.State(""), state(t))
	}
}

func TestKilledWhileRunning(t *testing.T) {
	home := needs(t)
	up := func(t *testing.T) string {
		t.Helper()
		out, code := execute(t, "up", "--name", labName)
		require.Zero(t, code, out)
		require.Equal(t, lab.Running, state(t))
		return out
	}
	up(t)
	for i, after := range moments(t, runKills, runTakes) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			code := runUntil(t, after, syscall.SIGKILL, "run", "mismatched-root-ca")
			switch s := state(t); s {
			case lab.Running: // nothing was changed yet, or all was put back: the mesh must be healthy
				out, code := execute(t, "run", "--name", labName, "cross-cluster-call")
				require.Zero(t, code, "list says that it is running, and it is not healthy:\n%s", out)
			case lab.Changed:
				require.NotZero(t, code, "it was not killed, and list says %q", s)
				out, code := execute(t, "run", "--name", labName, "cross-cluster-call")
				require.Equal(t, 3, code, out)
				require.Contains(t, out, "eastwest up")
				out, code = execute(t, "run", "--name", labName, "--resume")
				require.Equal(t, 2, code, "it was stopped after no phase:\n%s", out)
				if i == runKills-1 {
					require.Contains(t, up(t), "made anew")
					return
				}
				out, code = execute(t, "run", "--name", labName, "--undo")
				require.Zero(t, code, out)
				require.Contains(t, out, "is as it was before scenario mismatched-root-ca")
				require.Equal(t, lab.Running, state(t))
				out, code = execute(t, "run", "--name", labName, "cross-cluster-call")
				require.Zero(t, code, out)
				out, code = execute(t, "run", "--name", labName, "--undo")
				require.Zero(t, code, out)
				require.Contains(t, out, "nothing to undo")
			default:
				t.Fatalf("list says %q", s)
			}
		})
	}
	out, code := execute(t, "down", labName)
	require.Zero(t, code, out)
	require.Empty(t, left(t, home))
}

func TestSupervisorDies(t *testing.T) {
	home := needs(t)
	out, code := execute(t, "up", "--name", labName, "--topology", "none")
	require.Zero(t, code, out)
	kill := func(cluster string) {
		pids, err := host.CgroupProcesses("eastwest/" + labName + "/" + cluster)
		require.NoError(t, err)
		i := slices.IndexFunc(pids, func(pid int) bool {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err == nil && strings.HasPrefix(string(line), "eastwest-node\x00")
		})
		require.GreaterOrEqual(t, i, 0, "no supervisor among %v", pids)
		require.NoError(t, syscall.Kill(pids[i], syscall.SIGKILL))
		require.Eventually(t, func() bool {
			pids, err := host.CgroupProcesses("eastwest/" + labName + "/" + cluster)
			return err == nil && len(pids) == 0
		}, 10*time.Second, 20*time.Millisecond, "processes outlive their supervisor")
	}
	kill("cluster-a")
	require.Equal(t, lab.Broken, state(t))
	kill("cluster-b")
	require.Equal(t, lab.Stopped, state(t))
	out, code = execute(t, "up", "--name", labName, "--topology", "none")
	require.Zero(t, code, out)
	require.Equal(t, lab.Running, state(t))
	out, code = execute(t, "down", labName)
	require.Zero(t, code, out)
	require.Empty(t, left(t, home))
}
