package bundle

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGarbageIsCollectedWhereMemoryIsShort(t *testing.T) {
	const gib = int64(1) << 30
	for _, c := range []struct {
		cpus      int
		available int64
		want      string
	}{
		{2, 22 * gib, "GOMEMLIMIT=4294967296"},
		{2, 7 * gib, "GOMEMLIMIT=1879048192"},
		{4, 15 * gib, "GOMEMLIMIT=2684354560"},
		{2, 4 * gib, ""},
		{16, 20 * gib, ""},
		{2, 0, ""},
	} {
		got := gcSettings([]string{"HOME=/h"}, c.cpus, c.available)
		if c.want == "" {
			require.Empty(t, got, c)
			continue
		}
		require.Equal(t, []string{"GOGC=off", c.want}, got, c)
	}
	require.Empty(t, gcSettings([]string{"GOGC=50"}, 2, 22*gib), "the user has decided")
	require.Empty(t, gcSettings([]string{"GOMEMLIMIT=1GiB"}, 2, 22*gib), "the user has decided")
	require.Positive(t, availableMemory())
}
