package bench

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func TestRatioIsOfTheMediansAndOfWhatBothHave(t *testing.T) {
	p := Providers{What: BareCluster}
	p.add(lab.Kind, Up{ReadySeconds: 30, PeakMiB: 900, DiskMiB: 1000})
	require.Zero(t, p.Ratio, "there is nothing to compare with yet")
	p.add(lab.Embedded, Up{ReadySeconds: 6, PeakMiB: 300})
	p.add(lab.Embedded, Up{ReadySeconds: 4, PeakMiB: 300})
	require.Equal(t, 5.0, p.Embedded.Median.ReadySeconds)
	require.Equal(t, Up{ReadySeconds: 6, PeakMiB: 3}, p.Ratio)
	require.Len(t, p.Kind.Runs, 1)
}

func TestProvidersTakeTurns(t *testing.T) {
	require.Equal(t, []string{lab.Kind, lab.Embedded}, turns(0))
	require.Equal(t, []string{lab.Embedded, lab.Kind}, turns(1))
}

// What is compared is one cluster without a mesh, or two with one, whoever makes them.
func TestBothMakeTheSame(t *testing.T) {
	for _, provider := range turns(0) {
		bare := comparedOptions("home", "bench-1", provider, BareCluster)
		require.Equal(t, []string{"cluster-a"}, bare.Topology.Clusters())
		require.NoError(t, bare.Topology.Validate())
		require.True(t, bare.ClustersOnly)
		mesh := comparedOptions("home", "bench-1", provider, MeshOfTwo)
		require.Equal(t, scenario.MultiPrimary, mesh.Topology.Kind)
		require.False(t, mesh.ClustersOnly)
		require.Nil(t, mesh.Wrap)
	}
}
