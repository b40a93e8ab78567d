// Package chaos interrupts and kills eastwest at every step and looks at what is left on the machine.
// It needs root and a bundle, and takes minutes. The moments are others each time: for more of them,
// go test -count=5 ./tests/chaos
//
// `make nightly` kills more often, and `make soak` 200 times: it names a file (EASTWEST_SOAK) in which every kill is written down.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const (
	labName  = "chaos-test"
	upTakes  = 7 * time.Second  // the stretch over which the moments to kill up are spread
	runTakes = 30 * time.Second // the same for a scenario
)

// kills is how often each thing is killed, at random moments.
type kills struct{ up, interrupts, run, down, build, parts, pairs int }

// wanted is the same for all tests of one run, but a soak kills only what its file does not have yet.
func wanted(t *testing.T) kills {
	t.Helper()
	soak := soakOf(t)
	switch {
	case soak != nil:
		left := func(n int, signal string, what ...string) int {
			for _, w := range what {
				n -= soak.Killed(w, signal)
			}
			return max(n, 0)
		}
		const sigkill = "SIGKILL"
		return kills{
			up: left(60, sigkill, "up"), interrupts: left(12, "SIGINT", "up"), run: left(20, sigkill, "run"), down: left(20, sigkill, "down"),
			build: left(20, sigkill, "bundle build"), parts: left(60, sigkill, parts...), pairs: left(8, sigkill, "two labs coming up"),
		}
	case labs.IsNightly():
		return kills{up: 24, interrupts: 3, run: 8, down: 6, build: 4, parts: 20, pairs: 3}
	}
	return kills{up: 2, interrupts: 1, run: 1, down: 1, build: 1, parts: 2, pairs: 1}
}

// eastwest is the command under test, built once.
var eastwest labs.Command

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

func needs(t *testing.T) string {
	t.Helper()
	home := labs.Need(t)
	t.Cleanup(func() {
		out, code := eastwest.Run(t, "down", labName)
		require.Contains(t, []int{0, 2}, code, out) // 2: it is gone already
		require.Empty(t, labs.Left(t, home, labName))
	})
	return home
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
	for i, after := range moments(t, wanted(t).up, upTakes) {
		topology := "none"
		if i%4 == 3 { // some of them with Istio on top
			topology, after = "multi-primary", after*5/2
		}
		t.Run(fmt.Sprintf("%s after %s", topology, after.Round(time.Millisecond)), func(t *testing.T) {
			killed := kill(t, "up", syscall.SIGKILL)
			code := eastwest.Until(t, after, syscall.SIGKILL, "up", "--name", labName, "--topology", topology)
			complete := false
			switch s := eastwest.State(t, labName); s {
			case lab.Running: // it may have been killed after the last step, on its way out
				complete = true
				out, code := eastwest.Run(t, "up", "--name", labName, "--topology", topology)
				require.Zero(t, code, "list says that it is running, and it is not:\n%s", out)
				require.NotContains(t, out, "made anew")
			case "":
				require.Empty(t, labs.Left(t, home, labName), "list knows no such lab")
			default:
				require.NotZero(t, code, "it was complete, and list says %q", s)
			}
			if i%2 == 0 { // the next up sweeps as well as down does
				out, code := eastwest.Run(t, "up", "--name", labName, "--topology", "none")
				if topology == "none" || !complete {
					require.Zero(t, code, out)
					require.Equal(t, lab.Running, eastwest.State(t, labName))
				}
			}
			if eastwest.State(t, labName) != "" {
				out, code := eastwest.Run(t, "down", labName)
				require.Zero(t, code, out)
			}
			killed.leaves(home, labName)
		})
	}
}

func TestInterruptedWhileComingUp(t *testing.T) {
	home := needs(t)
	for _, after := range moments(t, wanted(t).interrupts, upTakes) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			killed := kill(t, "up", syscall.SIGINT)
			// The lab's folder is made after main has begun to take signals.
			made := filepath.Join(home, "labs", labName)
			require.NoDirExists(t, made)
			var since time.Time
			due := func() bool {
				if _, err := os.Stat(made); err == nil && since.IsZero() {
					since = time.Now()
				}
				return !since.IsZero() && time.Since(since) >= after
			}
			if eastwest.When(t, due, os.Interrupt, "up", "--name", labName, "--topology", "multi-primary") != 130 { // it had ended before
				require.Equal(t, lab.Running, eastwest.State(t, labName))
				out, code := eastwest.Run(t, "down", labName)
				require.Zero(t, code, out)
			}
			killed.leaves(home, labName)
			require.Equal(t, lab.State(""), eastwest.State(t, labName))
		})
	}
}

func TestKilledWhileRunning(t *testing.T) {
	home := needs(t)
	runKills := wanted(t).run
	up := func(t *testing.T) string {
		t.Helper()
		out, code := eastwest.Run(t, "up", "--name", labName)
		require.Zero(t, code, out)
		require.Equal(t, lab.Running, eastwest.State(t, labName))
		return out
	}
	up(t)
	for i, after := range moments(t, runKills, runTakes) {
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			kill(t, "run", syscall.SIGKILL)
			code := eastwest.Until(t, after, syscall.SIGKILL, "run", "--name", labName, "mismatched-root-ca")
			switch s := eastwest.State(t, labName); s {
			case lab.Running: // nothing was changed yet, or all was put back: the mesh must be healthy
				out, code := eastwest.Run(t, "run", "--name", labName, "cross-cluster-call")
				require.Zero(t, code, "list says that it is running, and it is not healthy:\n%s", out)
			case lab.Changed:
				require.NotZero(t, code, "it was not killed, and list says %q", s)
				out, code := eastwest.Run(t, "run", "--name", labName, "cross-cluster-call")
				require.Equal(t, 3, code, out)
				require.Contains(t, out, "eastwest up")
				out, code = eastwest.Run(t, "run", "--name", labName, "--resume")
				require.Equal(t, 2, code, "it was stopped after no phase:\n%s", out)
				if i == runKills-1 {
					require.Contains(t, up(t), "made anew")
					return
				}
				out, code = eastwest.Run(t, "run", "--name", labName, "--undo")
				require.Zero(t, code, out)
				require.Contains(t, out, "is as it was before scenario mismatched-root-ca")
				require.Equal(t, lab.Running, eastwest.State(t, labName))
				out, code = eastwest.Run(t, "run", "--name", labName, "cross-cluster-call")
				require.Zero(t, code, out)
				out, code = eastwest.Run(t, "run", "--name", labName, "--undo")
				require.Zero(t, code, out)
				require.Contains(t, out, "nothing to undo")
			default:
				t.Fatalf("list says %q", s)
			}
		})
	}
	out, code := eastwest.Run(t, "down", labName)
	require.Zero(t, code, out)
	require.Empty(t, labs.Left(t, home, labName))
}

func TestSupervisorDies(t *testing.T) {
	home := needs(t)
	out, code := eastwest.Run(t, "up", "--name", labName, "--topology", "none")
	require.Zero(t, code, out)
	die := func(cluster string) {
		require.NoError(t, syscall.Kill(labs.Supervisor(t, labName, cluster), syscall.SIGKILL))
		require.Eventually(t, func() bool {
			pids, err := host.CgroupProcesses("eastwest/" + labName + "/" + cluster)
			return err == nil && len(pids) == 0
		}, wait.Bound(10*time.Second), 20*time.Millisecond, "processes outlive their supervisor")
	}
	die("cluster-a")
	require.Equal(t, lab.Broken, eastwest.State(t, labName))
	die("cluster-b")
	require.Equal(t, lab.Stopped, eastwest.State(t, labName))
	out, code = eastwest.Run(t, "up", "--name", labName, "--topology", "none")
	require.Zero(t, code, out)
	require.Equal(t, lab.Running, eastwest.State(t, labName))
	out, code = eastwest.Run(t, "down", labName)
	require.Zero(t, code, out)
	require.Empty(t, labs.Left(t, home, labName))
}
