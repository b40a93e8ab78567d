package machine

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// Clusters on one network reach each other's pods by address, so no range of one may be part of another's.
func TestRangesOfClustersNeverOverlap(t *testing.T) {
	plan, err := ParseRange("10.201.0.0/16")
	require.NoError(t, err)
	type owned struct {
		netip.Prefix
		cluster int
	}
	all := []owned{{netip.PrefixFrom(plan.Bridge().Addr(), 32), 0}}
	for k := 1; k <= MaxClusters; k++ {
		for _, p := range (Place{Spec: cluster.Spec{Index: k}, Range: plan.Lab}).Ranges(plan.Node(k).Addr()) {
			require.True(t, plan.Lab.Contains(p.Addr()), "%s of cluster %d is outside of the lab's range", p, k)
			require.Equal(t, p.Masked(), p, "cluster %d", k)
			for _, other := range all {
				require.False(t, other.Overlaps(p), "%s of cluster %d overlaps %s of cluster %d", p, k, other.Prefix, other.cluster)
			}
			all = append(all, owned{p, k})
		}
	}
}
