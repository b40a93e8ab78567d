package chaos

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// inAnUpgrade is where upgrade-by-revision is killed: while it does this.
var inAnUpgrade = []string{
	"install istiod current as revision 1-31 in cluster-a",
	"make the east-west gateway one of istio current and revision 1-31 in cluster-a",
	"make the tag default stand for revision 1-31 in cluster-a",
	"restart client@cluster-a, echo@cluster-a and my-pod@cluster-a",
	"remove revision default in cluster-a",
	"make the east-west gateway one of istio current and revision 1-31 in cluster-b",
	"remove revision default in cluster-b",
}

// An upgrade that is killed in the middle can be undone: control planes, gateways, tags, webhooks and proxies are as before.
func TestKilledInAnUpgrade(t *testing.T) {
	labs.Nightly(t)
	home := needs(t)
	const name = labName + "-upgrade"
	out, code := eastwest.Run(t, "up", "--name", name, "--istio", "previous")
	t.Cleanup(func() { eastwest.Run(t, "down", name) }) // also if a test fails on the way
	require.Zero(t, code, out)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(inAnUpgrade))[:3] {
		passed := t.Run(inAnUpgrade[i], func(t *testing.T) {
			dir := t.TempDir()
			begun := func() bool {
				events, err := os.ReadFile(filepath.Join(dir, "upgrade-by-revision", "events.jsonl"))
				if err != nil {
					return false // the run has not come so far
				}
				for line := range bytes.Lines(events) {
					if bytes.Contains(line, []byte(`"step-started"`)) && bytes.Contains(line, []byte(`"`+inAnUpgrade[i]+`"`)) {
						return true
					}
				}
				return false
			}
			require.NotZero(t, eastwest.When(t, begun, syscall.SIGKILL, "run", "--name", name, "--report", dir, "upgrade-by-revision"))
			require.Equal(t, lab.Changed, eastwest.State(t, name))
			out, code := eastwest.Run(t, "run", "--name", name, "--undo")
			require.Zero(t, code, out)
			asBefore(t, home, name)
		})
		require.True(t, passed, "the lab may be in any state now")
	}
	out, code = eastwest.Run(t, "down", name)
	require.Zero(t, code, out)
	require.Empty(t, labs.Left(t, home, name))
}

// asBefore fails the test unless the lab is one of the previous version again, and works.
func asBefore(t *testing.T, home, name string) {
	t.Helper()
	l, err := lab.Open(home, name)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.Works(t.Context()))
	for _, c := range []string{"cluster-a", "cluster-b"} {
		var all []observe.Workload
		for _, app := range []string{"client", "echo", mesh.Gateway} {
			all = append(all, observe.Workload{App: app, Cluster: c})
		}
		for _, check := range []observe.Check{
			observe.ControlPlanes{In: c, Are: map[string]string{mesh.DefaultRevision: "previous"}},
			observe.ServedBy{Of: all, Revision: mesh.DefaultRevision, Istio: "previous"},
			observe.Injection{In: c, By: mesh.DefaultRevision},
			observe.Validation{In: c, Is: "works"},
		} {
			_, err := check.Look(t.Context(), l.Mesh)
			require.NoError(t, err, check.String())
		}
	}
}
