// Package topologies brings up each topology with each kind of trust and proves by calls who trusts whom.
// It needs root and a bundle: go test ./tests/topologies
package topologies

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const labName = "topologies-test"

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

func TestTopologies(t *testing.T) {
	for _, topology := range []scenario.Topology{
		{Kind: scenario.Single, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot},
		{Kind: scenario.Single, Network: scenario.SeparateNetworks, Trust: scenario.SelfSigned},
		{Kind: scenario.MultiPrimary, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot},
		{Kind: scenario.MultiPrimary, Network: scenario.SeparateNetworks, Trust: scenario.SeparateRoots},
		{Kind: scenario.MultiPrimary, Network: scenario.SeparateNetworks, Trust: scenario.SelfSigned},
	} {
		name := strings.Join([]string{string(topology.Kind), string(topology.Network), string(topology.Trust)}, " ")
		t.Run(name, func(t *testing.T) {
			l := labs.Up(t, lab.Options{Name: labName, Topology: topology})
			answers(t, l)
			borders(t, l)
			trust(t, l)
		})
	}
}

// answers looks at the proof that up itself has made: who called whom, and who they were.
func answers(t *testing.T, l *lab.Lab) {
	t.Helper()
	var pairs []string
	for _, a := range l.Answers {
		pairs = append(pairs, a.From+" "+a.To)
		require.Equal(t, a.To, a.Cluster)
		require.Equal(t, "spiffe://cluster.local/ns/production/sa/client", a.Client)
		require.Equal(t, "spiffe://cluster.local/ns/production/sa/echo", a.Server)
	}
	slices.Sort(pairs)
	var wanted []string
	for _, from := range l.Topology.Clusters() {
		for _, to := range l.Topology.Clusters() {
			if from == to || l.Topology.Trust == scenario.SharedRoot {
				wanted = append(wanted, from+" "+to)
			}
		}
	}
	require.Equal(t, wanted, pairs)
}

// borders calls from each cluster to each other: they answer if they trust each other, and are refused by
// the caller's own proxy if not.
func borders(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, from := range l.Topology.Clusters() {
		for _, to := range l.Topology.Clusters() {
			if from == to {
				continue
			}
			call := observe.Call{From: observe.Workload{App: "client", Cluster: from}, To: observe.Workload{App: "echo", Cluster: to}}
			if l.Topology.Trust != scenario.SharedRoot {
				call.Fails = regexp.MustCompile(`CERTIFICATE_VERIFY_FAILED`)
			}
			holds(t, l, call)
		}
	}
}

// trust looks at the certificates in use: who signed them, and whom each proxy trusts.
func trust(t *testing.T, l *lab.Lab) {
	t.Helper()
	signer := observe.InCACerts
	if l.Topology.Trust == scenario.SelfSigned {
		signer = observe.SelfSigned
	}
	for _, cluster := range l.Topology.Clusters() {
		holds(t, l, observe.Issuer{Of: []observe.Workload{{App: "client", Cluster: cluster}, {App: "echo", Cluster: cluster}}, Is: signer})
		holds(t, l, observe.Roots{In: []string{cluster}, Is: signer})
	}
	same := l.Topology.Trust == scenario.SharedRoot || len(l.Topology.Clusters()) == 1
	holds(t, l, observe.Roots{Same: &same})
	_, err := l.Mesh.CA(l.Topology.Clusters()[0])
	require.Equal(t, l.Topology.Trust == scenario.SelfSigned, err != nil, "a CA of the lab's own, which %s has not", mesh.SelfSigned)
}

func holds(t *testing.T, l *lab.Lab, check observe.Check) {
	t.Helper()
	require.NoError(t, wait.Until(t.Context(), check.String(), wait.Options{Within: 20 * time.Second, Every: 100 * time.Millisecond}, func(ctx context.Context) error {
		_, err := check.Look(ctx, l.Mesh)
		return err
	}))
}
