package lab

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func guestRecord() record {
	return record{
		Name: "guest", ID: "7c1f", Provider: Existing, Topology: DefaultTopology(), Complete: true,
		Existing: &Foreign{Kubeconfig: "/etc/kube/config", Contexts: []string{"east", "west"}},
	}
}

// A later command need not say again which clusters are meant.
func TestWhatALabWasMadeWithIsKnown(t *testing.T) {
	home := t.TempDir()
	r := guestRecord()
	require.NoError(t, r.write(home))
	same := Options{Home: home, Name: "guest", Topology: DefaultTopology()}.settled()
	require.Equal(t, Existing, same.Provider)
	require.Equal(t, *r.Existing, same.Existing)
	require.Empty(t, r.other(same.Provider, same))

	embedded := Options{Home: home, Name: "guest", Provider: Embedded, Topology: DefaultTopology()}.settled()
	require.Empty(t, embedded.Existing.Contexts)
	require.Contains(t, r.other(embedded.Provider, embedded), "another provider (existing)")

	for words, o := range map[string]Options{
		"other contexts (east, west)": {Topology: DefaultTopology(), Existing: Foreign{Contexts: []string{"west", "east"}}},
		"--adopt=false":               {Topology: DefaultTopology(), Existing: Foreign{Contexts: []string{"east", "west"}, Adopt: true}},
		"another topology": {Topology: scenario.Topology{Kind: scenario.Single, Network: scenario.SeparateNetworks,
			Trust: scenario.SharedRoot}, Existing: *r.Existing},
	} {
		require.Contains(t, r.other(Existing, o), words)
	}

	name, err := NameOf(home, DefaultName, Existing)
	require.NoError(t, err)
	require.Equal(t, "guest", name, "the only one of the provider")
	_, err = NameOf(home, DefaultName, Embedded)
	require.ErrorContains(t, err, "no lab of the provider embedded")
	r.Name = "other"
	require.NoError(t, r.write(home))
	_, err = NameOf(home, DefaultName, Existing)
	require.ErrorContains(t, err, "guest, other")
}

// A mesh that stays must not stay broken.
func TestAdoptedMeshIsPutBackBeforeTheLabGoes(t *testing.T) {
	r := guestRecord()
	r.Left = "half-trust"
	require.NoError(t, r.removable(), "what the lab has made goes as it is")
	r.Existing.Adopt = true
	require.ErrorContains(t, r.removable(), "`eastwest run half-trust --undo --name guest`")
	home := t.TempDir()
	require.NoError(t, r.write(home))
	require.ErrorContains(t, Down(t.Context(), home, "guest"), "put it back first")
	r.Left = ""
	require.NoError(t, r.removable())
}

// Whose API server istiods of other clusters read: those have to be reachable for them.
func TestAPIServersThatOthersRead(t *testing.T) {
	of := func(kind scenario.Kind) []string {
		return readByOthers(scenario.Topology{Kind: kind, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot})
	}
	require.Equal(t, []string{"cluster-a", "cluster-b"}, of(scenario.MultiPrimary))
	require.Equal(t, []string{"cluster-b"}, of(scenario.PrimaryRemote))
	require.Equal(t, []string{"cluster-a", "cluster-b"}, of(scenario.ExternalControlPlane))
	require.Empty(t, of(scenario.Single))
	require.Empty(t, of(scenario.NoMesh))
}
