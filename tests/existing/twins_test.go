package existing

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// Two homes, which could be on two machines, take the same clusters for labs of one name at the same moment, and call them in
// another order. The API servers let one of them have both. What the other removes is its own.
func TestTwinsOnOnePairOfClusters(t *testing.T) {
	t.Parallel()
	labs.Need(t)
	f := handOver(t, "existing-twins-foreign", scenario.Topology{Kind: scenario.NoMesh})
	before := f.states(t)
	topology := mesh.Topology{Trust: mesh.SharedRoot, MeshID: mesh.DefaultMeshID, Clusters: []mesh.ClusterSpec{
		{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"},
		{Name: "cluster-b", Network: "network-b", Primary: "cluster-b"},
	}}
	races := 1 // each waits for the end of namespaces; lab/mesh races 50 times without a cluster
	if labs.IsNightly() {
		races = 50
	}
	for round := range races {
		providers, problems := make([]cluster.Provider, 2), make([]error, 2)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i, contexts := range [][]string{{east, west}, {west, east}} {
			settings := &existing.Settings{Contexts: contexts}
			flags := flag.NewFlagSet("up", flag.ContinueOnError)
			settings.Flags(flags)
			require.NoError(t, flags.Set("kubeconfig", f.kubeconfig))
			of := cluster.Lab{Home: t.TempDir(), ID: fmt.Sprintf("race-%d-%d", round, i), Clusters: []string{"cluster-a", "cluster-b"}}
			providers[i] = settings.New(of)
			o := mesh.Options{Lab: "twin", ID: of.ID, Dir: t.TempDir(), Topology: topology, Shared: true}
			for k, name := range of.Clusters {
				c, err := providers[i].Create(t.Context(), cluster.Spec{Lab: "twin", Name: name, Index: k + 1, Of: 2})
				require.NoError(t, err)
				o.Clusters = append(o.Clusters, c)
			}
			all.Go(func() {
				<-begin
				problems[i] = mesh.Claim(t.Context(), o)
			})
		}
		close(begin)
		all.Wait()
		winner := slices.Index(problems, nil)
		require.GreaterOrEqual(t, winner, 0, "round %d: nobody has them: %v", round, problems)
		loser := 1 - winner
		var theirs *mesh.NotOursError
		require.ErrorAs(t, problems[loser], &theirs, "round %d", round)
		require.ErrorContains(t, theirs, fmt.Sprintf("of lab twin, id race-%d-%d", round, winner))
		require.NoError(t, providers[loser].Delete(t.Context(), "twin"))
		for in, u := range f.clusters {
			of := metav1.ListOptions{LabelSelector: labels.Set{cluster.IDLabel: fmt.Sprintf("race-%d-%d", round, winner)}.String()}
			has, err := u.kube.CoreV1().Namespaces().List(t.Context(), of)
			require.NoError(t, err)
			require.Len(t, has.Items, 2, "round %d, %s", round, in)
		}
		require.NoError(t, providers[winner].Delete(t.Context(), "twin"))
	}
	f.same(t, before)
}
