package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

const races = 50

func providerAt(home string) *Provider {
	return &Provider{Lab: cluster.Lab{Home: home, Bundle: &bundle.Bundle{}}}
}

// atOnce calls do for each home at the same moment.
func atOnce(homes []string, do func(home string) error) error {
	problems := make([]error, len(homes))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, home := range homes {
		all.Go(func() {
			<-begin
			problems[i] = do(home)
		})
	}
	close(begin)
	all.Wait()
	return errors.Join(problems...)
}

// Several processes that need what labs share at the same moment make it once, and all of them get it whole.
func TestWhatLabsShareIsMadeOnce(t *testing.T) {
	home := t.TempDir()
	other := filepath.Join(t.TempDir(), "the-same-home")
	require.NoError(t, os.Symlink(home, other))
	for round := range races {
		var made atomic.Int32
		name := fmt.Sprint(round)
		err := atOnce([]string{home, other, home}, func(home string) error {
			p := providerAt(home)
			path, err := p.once(t.Context(), name, func(path string) bool {
				_, err := os.Stat(path)
				return err == nil
			}, "making it", func(_ context.Context, n node) (string, error) {
				made.Add(1)
				return n.path("done"), os.WriteFile(n.path("done"), []byte(name), 0o644)
			})
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			if err == nil && string(text) != name {
				err = fmt.Errorf("it holds %q", text)
			}
			return err
		})
		require.NoError(t, err, "round %d", round)
		require.EqualValues(t, 1, made.Load(), "round %d", round)
	}
	left, err := filepath.Glob(filepath.Join(home, "prepared", "unfinished*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// Seeds of other versions go when a new one is made, unless somebody has used them of late.
func TestSeedsOfOtherVersionsGo(t *testing.T) {
	p := providerAt(t.TempDir())
	now, long := time.Now(), time.Now().Add(-seedsKept-time.Minute)
	for name, used := range map[string]time.Time{
		p.seedName([]byte("[1]")): long, "seed-another-1.json": long, "seed-another-2.json": now, "0123": long,
	} {
		require.NoError(t, machine.WriteJSON(filepath.Join(p.prepared(), name), seed{}))
		require.NoError(t, os.Chtimes(filepath.Join(p.prepared(), name), used, used))
	}
	require.NoError(t, p.pruneSeeds())
	var left []string
	entries, err := os.ReadDir(p.prepared())
	require.NoError(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	require.ElementsMatch(t, []string{p.seedName([]byte("[1]")), "seed-another-2.json", "0123"}, left)
}

// claimerEnv turns this test's program into a process that claims a name: see claimer.
const claimerEnv = "EASTWEST_TEST_CLAIMER"

func TestMain(m *testing.M) {
	if text := os.Getenv(claimerEnv); text != "" {
		claimer(strings.Fields(text))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// claimer claims the name of a lab for a home. If it gets it, it joins the lab's cgroup as a supervisor does, gives the claim
// up, and lives on until its standard input ends. If not, it says why.
func claimer(args []string) {
	home, lab := args[0], args[1]
	p := providerAt(home)
	release, err := p.Claim(context.Background(), lab)
	if err != nil {
		os.Stdout.WriteString("no: " + err.Error())
		return
	}
	if err := host.JoinCgroup(nodeCgroup(lab, "cluster-a")); err != nil {
		os.Stdout.WriteString("it cannot live: " + err.Error())
		return
	}
	release()
	os.Stdout.WriteString("yes\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// Two processes of two homes want a name at the same moment. One gets it, and what the other removes is not the first one's.
func TestTwinsInTwoHomes(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("makes cgroups: run as root, without -short")
	}
	homes := []string{t.TempDir(), t.TempDir()}
	lab := fmt.Sprintf("twin-%d", os.Getpid())
	t.Cleanup(func() { // for the case that it fails
		require.NoError(t, host.KillCgroup(context.Background(), labCgroup(lab)))
		require.NoError(t, host.RemoveCgroup(context.Background(), labCgroup(lab)))
	})
	for round := range races {
		var mu sync.Mutex
		var winners []string
		var said []string
		var alive []*exec.Cmd
		var ends []func() error
		err := atOnce(homes, func(home string) error {
			cmd := exec.Command(os.Args[0])
			file := filepath.Join(providerAt(home).nodeDir(lab, "cluster-a"), nodeFile)
			cmd.Env = append(os.Environ(), claimerEnv+"="+home+" "+lab, supervisorEnv+"="+file)
			in, err := cmd.StdinPipe()
			if err != nil {
				return err
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			answer := make([]byte, 1000)
			n, _ := out.Read(answer)
			mu.Lock()
			defer mu.Unlock()
			said = append(said, string(answer[:n]))
			if said[len(said)-1] == "yes\n" {
				winners = append(winners, home)
			}
			alive, ends = append(alive, cmd), append(ends, in.Close)
			return nil
		})
		require.NoError(t, err)
		require.Len(t, winners, 1, "round %d: %q", round, said)
		loser := homes[0]
		if loser == winners[0] {
			loser = homes[1]
		}
		require.Contains(t, strings.Join(said, ""), "a lab "+lab+" that was made with another EASTWEST_HOME ("+winners[0]+")", "round %d", round)
		// The loser's home may have a lab of that name that has ended long ago.
		require.NoError(t, machine.WriteJSON(filepath.Join(machine.Dir(loser, lab, provider), "network.json"), machine.Network{Lab: lab}))
		require.NoError(t, providerAt(loser).Delete(t.Context(), lab))
		require.NoDirExists(t, machine.Dir(loser, lab, provider))
		pids, err := host.CgroupProcesses(labCgroup(lab))
		require.NoError(t, err)
		require.NotEmpty(t, pids, "round %d: removing the other one has ended it", round)
		for i, end := range ends {
			_ = end() // one has ended already
			require.NoError(t, alive[i].Wait())
		}
		require.NoError(t, host.RemoveCgroup(t.Context(), labCgroup(lab)))
	}
	require.NoFileExists(t, filepath.Join(string(host.MachineLocks), "lab-"+lab+".lock"))
}
