package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const twinName = "chaos-twin"

// twin is one of two homes that make labs of one name. It is on the disk of the tests' own home, and what labs share is linked
// into it, so that nothing has to be unpacked first.
type twin struct{ home string }

func newTwin(t *testing.T, home, name string) twin {
	t.Helper()
	w := twin{home: filepath.Join(home, name)}
	clean := func() {
		out, code := w.run(t, "down", twinName)
		require.Contains(t, []int{0, 2}, code, out) // 2: there is none
		require.NoError(t, os.RemoveAll(w.home))
	}
	clean() // what a run that was killed has left
	t.Cleanup(clean)
	shared, err := filepath.Glob(filepath.Join(home, "prepared", "[0-9a-f]*"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(w.home, "prepared"), 0o755))
	for _, folder := range shared {
		out, err := exec.Command("cp", "--archive", "--link", folder, filepath.Join(w.home, "prepared")).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return w
}

// run runs the command to its end and returns what it says and its exit code.
func (w twin) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := wait.Timeout(context.Background(), 5*time.Minute) // also for cleaning up
	defer cancel()
	cmd := exec.CommandContext(ctx, string(eastwest), args...)
	cmd.Env = append(os.Environ(), lab.HomeEnv+"="+w.home)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// whole fails the test unless the twin's lab works.
func (w twin) whole(t *testing.T, said string) {
	t.Helper()
	l, err := lab.Open(w.home, twinName)
	require.NoError(t, err, said)
	defer l.Close()
	require.NoError(t, l.Works(t.Context()), said)
}

// Two `up` of one name from two homes at the same moment: one lab is made, and it is whole. The other up says whose name it is,
// and has removed nothing that it has not made.
func TestTwins(t *testing.T) {
	home := labs.Need(t)
	if labs.Provider() != lab.Embedded {
		t.Skip("it looks at what is on this machine: run without EASTWEST_PROVIDER")
	}
	rounds := 1
	if labs.IsNightly() {
		rounds = 50
	}
	twins := []twin{newTwin(t, home, "twin-1"), newTwin(t, home, "twin-2")}
	for round := range rounds {
		outs, codes := make([]string, len(twins)), make([]int, len(twins))
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i, w := range twins {
			all.Go(func() {
				<-begin
				outs[i], codes[i] = w.run(t, "up", "--name", twinName, "--topology", "none", "--provider", lab.Embedded)
			})
		}
		close(begin)
		all.Wait()
		said := fmt.Sprintf("round %d:\n%s\nand\n%s", round, outs[0], outs[1])
		require.ElementsMatch(t, []int{0, 3}, codes, said)
		winner := 0
		if codes[0] != 0 {
			winner = 1
		}
		loser := twins[1-winner]
		require.Contains(t, outs[1-winner], fmt.Sprintf("lab %[1]s: wanted a name that is free on this machine; "+
			"seen: a lab %[1]s that was made with another EASTWEST_HOME (%[2]s)", twinName, twins[winner].home), said)
		require.Contains(t, outs[1-winner], "choose another --name", said)
		require.NoDirExists(t, filepath.Join(loser.home, "labs", twinName), said)

		twins[winner].whole(t, said)
		out, code := loser.run(t, "down", twinName)
		require.Equal(t, 2, code, out) // there is none
		twins[winner].whole(t, said)
		out, code = loser.run(t, "up", "--name", twinName, "--topology", "none", "--provider", lab.Embedded)
		require.Equal(t, 3, code, out)
		require.Contains(t, out, "it runs (")
		twins[winner].whole(t, said)

		out, code = twins[winner].run(t, "down", twinName)
		require.Zero(t, code, out)
		for _, w := range twins {
			require.Empty(t, labs.Left(t, w.home, twinName), said)
		}
		require.NoFileExists(t, filepath.Join("/run/eastwest", "lab-"+twinName+".lock"))
	}
}
