// Package topologies brings up each topology with each kind of trust and proves by calls who trusts whom.
// It needs root and a bundle: go test ./tests/topologies
package topologies

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

var made atomic.Int32

// fresh is the name of a lab that no other test has.
func fresh() string { return fmt.Sprintf("topologies-test-%d", made.Add(1)) }

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

// combination is a topology without its clusters.
type combination struct {
	kind    scenario.Kind
	network scenario.Network
	trust   scenario.Trust
}

// eachChange has each kind, each network and each kind of trust. The nightly tests take the rest, too.
var eachChange = []combination{
	{scenario.Single, scenario.SeparateNetworks, scenario.SelfSigned},
	{scenario.MultiPrimary, scenario.SeparateNetworks, scenario.SharedRoot},
	{scenario.MultiPrimary, scenario.SharedNetwork, scenario.SeparateRoots},
	// One istiod signs for all: roots cannot differ.
	{scenario.PrimaryRemote, scenario.SeparateNetworks, scenario.SharedRoot},
	{scenario.ExternalControlPlane, scenario.SeparateNetworks, scenario.SharedRoot},
}

var theRest = []combination{
	{scenario.Single, scenario.SeparateNetworks, scenario.SharedRoot},
	{scenario.MultiPrimary, scenario.SeparateNetworks, scenario.SelfSigned},
	{scenario.PrimaryRemote, scenario.SharedNetwork, scenario.SelfSigned},
	{scenario.ExternalControlPlane, scenario.SharedNetwork, scenario.SelfSigned},
	{scenario.MultiPrimary, scenario.SeparateNetworks, scenario.SeparateRoots},
	{scenario.MultiPrimary, scenario.SharedNetwork, scenario.SharedRoot},
	{scenario.MultiPrimary, scenario.SharedNetwork, scenario.SelfSigned},
	{scenario.PrimaryRemote, scenario.SeparateNetworks, scenario.SelfSigned},
	{scenario.PrimaryRemote, scenario.SharedNetwork, scenario.SharedRoot},
	{scenario.ExternalControlPlane, scenario.SeparateNetworks, scenario.SelfSigned},
	{scenario.ExternalControlPlane, scenario.SharedNetwork, scenario.SharedRoot},
}

func TestTopologies(t *testing.T) {
	combinations := eachChange
	if labs.IsNightly() {
		combinations = slices.Concat(eachChange, theRest)
	}
	for _, c := range combinations {
		t.Run(strings.Join([]string{string(c.kind), string(c.network), string(c.trust)}, " "), func(t *testing.T) {
			t.Parallel() // labs live side by side
			l := labs.Up(t, lab.Options{Name: fresh(), Topology: scenario.Topology{Kind: c.kind, Network: c.network, Trust: c.trust}})
			answers(t, l)
			calls(t, l)
			paths(t, l)
			trust(t, l)
			tools(t, l)
			diagnosis(t, l)
			if c.network == scenario.SeparateNetworks && c.trust == scenario.SharedRoot { // the lesson's: it is looked at closely
				if c.kind == scenario.MultiPrimary {
					t.Run("latency", func(t *testing.T) { latency(t, l) })
				}
				if atLeast, ok := printed[c.kind]; ok {
					t.Run("printed commands", func(t *testing.T) { printedCommands(t, l, atLeast) })
				}
			}
		})
	}
}

// TestTopologyFiles brings up the examples: what a file says is what is made.
func TestTopologyFiles(t *testing.T) {
	files, err := filepath.Glob("../../manifests/topologies/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			topology, err := scenario.LoadTopology(file)
			require.NoError(t, err)
			if filepath.Base(file) != "three-primaries.yaml" {
				labs.Nightly(t)
			}
			t.Parallel()
			l := labs.Up(t, lab.Options{Name: fresh(), Topology: topology})
			answers(t, l)
			paths(t, l)
			trust(t, l)
			tools(t, l)
			diagnosis(t, l)
		})
	}
}

// diagnosis is what doctor says of a mesh as it is installed: nothing where all trust each other.
func diagnosis(t *testing.T, l *lab.Lab) {
	t.Helper()
	wanted := doctor.Nothing
	for _, a := range l.Mesh.InMesh() {
		for _, b := range l.Mesh.InMesh() {
			if !l.Mesh.Trusts(a.Spec, b.Spec) {
				wanted = "disjoint-roots"
			}
		}
	}
	holds(t, l, doctor.Diagnosis{Finds: wanted})
}

const (
	clientID = "spiffe://cluster.local/ns/production/sa/client"
	echoID   = "spiffe://cluster.local/ns/production/sa/echo"
)

func app(name string, in *mesh.Member) observe.Workload {
	return observe.Workload{App: name, Cluster: in.Name()}
}

// answers looks at the proof that up itself has made: who called whom, and who they were.
func answers(t *testing.T, l *lab.Lab) {
	t.Helper()
	var wanted, seen []string
	for _, from := range l.Mesh.InMesh() {
		for _, to := range l.Mesh.InMesh() {
			if l.Mesh.Trusts(from.Spec, to.Spec) {
				wanted = append(wanted, from.Name()+" to "+to.Name())
			}
		}
	}
	for _, a := range l.Answers {
		seen = append(seen, a.From+" to "+a.To)
		require.Equal(t, a.To, a.Cluster)
		require.Equal(t, clientID, a.Client)
		require.Equal(t, echoID, a.Server)
	}
	slices.Sort(wanted)
	slices.Sort(seen)
	require.Equal(t, wanted, seen)
}

// calls lets every app of every cluster call every other, each time on a new connection: who trusts each
// other is answered, by the cluster that was meant and with both identities; others are refused by the
// caller's own proxy.
func calls(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, from := range l.Mesh.InMesh() {
		for _, to := range l.Mesh.InMesh() {
			for caller, id := range map[string]string{"client": clientID, "echo": echoID} {
				call := observe.Call{
					From:   app(caller, from),
					To:     app("echo", to),
					Client: regexp.MustCompile("^" + id + "$"),
					Server: regexp.MustCompile("^" + echoID + "$"),
				}
				if !l.Mesh.Trusts(from.Spec, to.Spec) {
					call = observe.Call{From: call.From, To: call.To, Fails: regexp.MustCompile(`CERTIFICATE_VERIFY_FAILED`)}
				}
				holds(t, l, call)
			}
		}
	}
}

// paths looks at where a call goes: to the pod itself on one network, to its gateway from another.
func paths(t *testing.T, l *lab.Lab) {
	t.Helper()
	one := 1
	for _, from := range l.Mesh.InMesh() {
		for _, to := range l.Mesh.InMesh() {
			address := observe.AtPod
			if from.Spec.Network != to.Spec.Network {
				address = observe.AtGateway
			}
			holds(t, l, observe.Endpoints{SeenBy: app("client", from), Of: app("echo", to), Address: address, Count: &one})
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
	same := true
	for _, c := range l.Mesh.InMesh() {
		holds(t, l, observe.Issuer{Of: []observe.Workload{app("client", c), app("echo", c)}, Is: signer})
		holds(t, l, observe.Roots{In: []string{c.Name()}, Is: signer})
		same = same && l.Mesh.Trusts(l.Mesh.InMesh()[0].Spec, c.Spec)
	}
	holds(t, l, observe.Roots{Same: &same})
}

// tools looks at what Istio's own tools say: every istiod reads every cluster, every proxy is in sync.
func tools(t *testing.T, l *lab.Lab) {
	t.Helper()
	istioctl := observe.Tools(l.Env())
	for _, c := range l.Mesh.Members {
		if c.Spec.HasIstiod() {
			synced := map[string]string{}
			for _, of := range l.Mesh.InMesh() {
				synced[of.Name()] = "synced"
				holds(
					t,
					l,
					observe.Command{
						Run:    "istioctl remote-clusters --context=" + c.Name(),
						Expect: regexp.MustCompile(of.Name() + `\s.*synced`),
						Tools:  istioctl,
					},
				)
			}
			holds(t, l, observe.RemoteClusters{In: c.Name(), Expect: synced})
		}
		if c.Spec.InMesh() {
			holds(t, l, observe.ProxyStatus{In: c.Name()})
		}
		if c.Spec.HasIstiod() && c.Spec.InMesh() {
			holds(
				t,
				l,
				observe.Command{
					Run:    "istioctl proxy-status --context=" + c.Name(),
					Expect: regexp.MustCompile(`echo-\S+\.production`),
					Tools:  istioctl,
				},
			)
		}
	}
}

func holds(t *testing.T, l *lab.Lab, check observe.Check) {
	t.Helper()
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			check.String(),
			wait.Options{Within: 20 * time.Second, Every: 100 * time.Millisecond},
			func(ctx context.Context) error {
				_, err := check.Look(ctx, l.Mesh)
				return err
			},
		),
	)
}
