package kind

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// Two homes, which could be on two machines with one Docker, want a name at the same moment. Docker lets one have it.
func TestTwins(t *testing.T) {
	if testing.Short() {
		t.Skip("asks Docker: run without -short")
	}
	if err := lab.Available(t.Context(), lab.Kind); err != nil {
		t.Skip(err)
	}
	const name = labName + "-twin"
	races := 1 // lab/cluster/kind races 50 times without a Docker
	if labs.IsNightly() {
		races = 50
	}
	for round := range races {
		providers, problems := make([]*kind.Provider, 2), make([]error, 2)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i := range providers {
			providers[i] = &kind.Provider{Lab: cluster.Lab{Home: t.TempDir(), ID: fmt.Sprintf("race-%d-%d", round, i)}}
			all.Go(func() {
				<-begin
				_, problems[i] = providers[i].Claim(t.Context(), name)
			})
		}
		close(begin)
		all.Wait()
		winner := slices.Index(problems, nil)
		require.GreaterOrEqual(t, winner, 0, "round %d: nobody has it: %v", round, problems)
		var taken *cluster.TakenError
		require.ErrorAs(t, problems[1-winner], &taken, "round %d", round)
		require.Equal(t, []string{"eastwest-" + name}, left(t, name), "round %d", round)
		require.NoError(t, providers[winner].Delete(t.Context(), name))
		require.Empty(t, left(t, name), "round %d", round)
	}
}
