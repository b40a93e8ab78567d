package topologies

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// A cluster that is paused does nothing until it is healed, and a lab is removed whether it was or not.
func TestPause(t *testing.T) {
	const name = "pause-test"
	l := labs.Up(
		t,
		lab.Options{
			Name:     name,
			Topology: scenario.Topology{Kind: scenario.NoMesh, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot},
		},
	)
	member, other := l.Mesh.Members[0], l.Mesh.Members[1]
	serves := func(m int) error {
		ctx, cancel := wait.Timeout(t.Context(), 3*time.Second)
		defer cancel()
		return l.Mesh.Members[m].Kube.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
	require.NoError(t, serves(0))
	pauser, ok := member.Cluster.(cluster.Pauser)
	require.True(t, ok, "%T", member.Cluster)

	heal, err := pauser.Pause(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, serves(0), context.DeadlineExceeded)
	require.NoError(t, serves(1), "%s is not paused", other.Name())
	require.NoError(t, heal(t.Context()))
	require.NoError(t, heal(t.Context()), "a heal may be called more than once")
	require.NoError(t, serves(0))

	_, err = pauser.Pause(t.Context())
	require.NoError(t, err)
	l.Close()
	home, err := lab.Home()
	require.NoError(t, err)
	start := time.Now()
	ctx, cancel := wait.Timeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, lab.Down(ctx, home, name))
	require.Less(t, time.Since(start), wait.Bound(20*time.Second))
	pids, err := host.CgroupProcesses("eastwest/" + name)
	require.NoError(t, err)
	require.Empty(t, pids)
}
