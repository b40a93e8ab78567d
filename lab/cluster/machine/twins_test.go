package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

const races = 50

// ownLocks gives the test locks of a machine of its own.
func ownLocks(t *testing.T) {
	t.Helper()
	before := locks
	locks = host.Locks(filepath.Join(t.TempDir(), "run"))
	t.Cleanup(func() { locks = before })
}

// both calls do twice at the same moment, once for each home.
func both(homes []string, do func(home string) error) []error {
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
	return problems
}

// Two homes that plan at the same moment have different ranges, though neither has written down what the other has.
func TestTwinsHaveDifferentRanges(t *testing.T) {
	ownLocks(t)
	homes := []string{t.TempDir(), t.TempDir()}
	for round := range races {
		var mu sync.Mutex
		used := map[netip.Prefix]string{} // what the machine itself would show
		taken := func(r netip.Prefix) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return used[r], nil
		}
		lab := fmt.Sprintf("twin-%d", round)
		problems := both(homes, func(home string) error {
			unlock, err := LockRanges(t.Context(), home)
			if err != nil {
				return err
			}
			defer unlock()
			n, err := Plan(home, lab, "", "embedded", "", taken)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if other := used[n.Range]; other != "" {
				return fmt.Errorf("the range %s is that of %s, too", n.Range, other)
			}
			used[n.Range] = home
			return nil
		})
		require.NoError(t, errors.Join(problems...), "round %d", round)
		for _, home := range homes { // so that ranges do not run out
			require.NoError(t, os.RemoveAll(Dir(home, lab, "embedded")))
		}
	}
}

// Of two homes that want a name at the same moment one gets it. The other is told who has it, and does not wait.
func TestTwinsHaveDifferentNames(t *testing.T) {
	ownLocks(t)
	homes := []string{t.TempDir(), t.TempDir()}
	for round := range races {
		var mu sync.Mutex
		var winner *host.Lock
		problems := both(homes, func(home string) error {
			claim, err := ClaimName(t.Context(), home, "twin", false)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && winner != nil {
				return errors.New("both have it")
			}
			if err == nil {
				winner = claim
			}
			return err
		})
		require.NotNil(t, winner, "round %d: %v", round, problems)
		var taken *cluster.TakenError
		require.ErrorAs(t, errors.Join(problems...), &taken, "round %d", round)
		require.Contains(t, homes, taken.Home)
		require.ErrorContains(t, taken, fmt.Sprintf("lab twin: wanted a name that is free on this machine; seen: a lab twin that was made with "+
			"another EASTWEST_HOME (%s), process %d makes or removes it right now: choose another --name", taken.Home, os.Getpid()))
		winner.Release()
	}
}

// The same home waits: a process of its own that was killed is about to end. So does whoever is patient.
func TestOneHomeWaitsForItself(t *testing.T) {
	ownLocks(t)
	home := t.TempDir()
	link := filepath.Join(t.TempDir(), "home")
	require.NoError(t, os.Symlink(home, link))
	for _, c := range []struct {
		home    string
		patient bool
	}{{home, false}, {link, false}, {t.TempDir(), true}} {
		claim, err := ClaimName(t.Context(), home, "twin", false)
		require.NoError(t, err)
		ended := make(chan error)
		go func() {
			next, err := ClaimName(t.Context(), c.home, "twin", c.patient)
			next.Release()
			ended <- err
		}()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupted"))
		_, err = ClaimName(ctx, c.home, "twin", c.patient)
		require.ErrorContains(t, err, "waiting for another eastwest that works on lab twin")
		require.ErrorContains(t, err, "interrupted")
		select {
		case err := <-ended:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		claim.Release()
		require.NoError(t, <-ended)
	}
}
