package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/host"
)

// Runs that begin at the same moment, in homes that know nothing of each other, give their labs different names, and the next
// run uses the names again.
func TestTwoRunsReserveDifferentNames(t *testing.T) {
	const races = 50
	homes := []string{t.TempDir(), t.TempDir()}
	if os.Geteuid() != 0 { // who is not root shares no locks with other homes
		homes[1] = homes[0]
	}
	prefix := fmt.Sprintf("twins-%d", os.Getpid())
	for round := range races {
		var mu sync.Mutex
		var numbers []int
		var releases []func()
		var problems []error
		begin := make(chan struct{})
		var all sync.WaitGroup
		for _, home := range homes {
			all.Go(func() {
				<-begin
				for last := 0; last < 2; last++ { // two lanes each
					n, release, err := Reserve(home, prefix, 0)
					mu.Lock()
					numbers, problems = append(numbers, n), append(problems, err)
					if err == nil {
						releases = append(releases, release)
					}
					mu.Unlock()
				}
			})
		}
		close(begin)
		all.Wait()
		for _, err := range problems {
			require.NoError(t, err)
		}
		slices.Sort(numbers)
		require.Equal(t, []int{1, 2, 3, 4}, numbers, "round %d", round)
		for _, release := range releases {
			release()
		}
	}
	for _, locks := range []string{filepath.Join(homes[0], "locks", "*"), filepath.Join(string(host.MachineLocks), "run-"+prefix+"-*")} {
		left, err := filepath.Glob(locks)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}
