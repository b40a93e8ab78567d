package verbs

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// newer is a release beside the one that the lab of TestUpgrades was made with.
var newer = mesh.Release{Revision: "1-31"}

// upgrades are the changes that need a lab with two versions of Istio.
func upgrades() []change {
	install := fault.InstallIstiod([]string{a}, newer)
	check := func(all ...observe.Check) func(*testing.T, *mesh.Mesh) {
		return func(t *testing.T, m *mesh.Mesh) {
			t.Helper()
			for _, c := range all {
				look(t, m, c, true)
			}
		}
	}
	gateway := observe.Workload{App: mesh.Gateway, Cluster: a}
	return []change{
		{verb: "install-istiod", do: install, shows: "Deployment istiod-1-31", meanwhile: check(
			observe.ControlPlanes{In: a, Are: map[string]string{mesh.DefaultRevision: "previous", newer.Revision: "current"}},
			observe.ServedBy{Of: []observe.Workload{clientA}, Revision: mesh.DefaultRevision, Istio: "previous"},
		)},
		{verb: "install-istiod", name: "in place", do: fault.InstallIstiod([]string{a}, mesh.Release{}), shows: "Deployment istiod ",
			meanwhile: check(
				observe.ControlPlanes{In: a, Are: map[string]string{mesh.DefaultRevision: "current"}},
				observe.ServedBy{Of: []observe.Workload{clientA}, Istio: "previous"},
				observe.Validation{In: a, Is: "works"},
			)},
		{verb: "install-istiod", name: "a revision that is there", after: install, do: install, fails: "has a revision 1-31 already",
			shows: "Deployment istiod-1-31"},
		{verb: "expose-istiod", do: fault.ExposeIstiod([]string{a}, newer.Revision), shows: "VirtualService istiod-1-31"},
		{verb: "upgrade-gateway", after: install, do: fault.UpgradeGateway([]string{a}, newer), shows: "Deployment istio-eastwestgateway",
			renew: []observe.Workload{gateway}, meanwhile: check(
				observe.ServedBy{Of: []observe.Workload{gateway}, Revision: newer.Revision, Istio: "current"},
				observe.Call{From: clientB, To: echoA},
			)},
		{verb: "upgrade-gateway", name: "of a revision that is not there", do: fault.UpgradeGateway([]string{a}, newer),
			fails: "no revision 1-31 that could make the gateway's proxies: it has default"},
		{verb: "set-tag", after: install, do: fault.SetTag([]string{a}, mesh.DefaultTag, newer.Revision),
			shows: "MutatingWebhookConfiguration istio-revision-tag-default", meanwhile: check(
				observe.Injection{In: a, By: newer.Revision}, observe.Validation{In: a, Is: "works"},
			)},
		{verb: "set-tag", name: "to nowhere", do: fault.SetTag([]string{a}, mesh.DefaultTag, "1-32"),
			fails: "tag default cannot stand for revision 1-32: cluster-a has default"},
		// The gateway still belongs to the revision, and its webhooks lead nowhere afterwards.
		{verb: "uninstall-istiod", after: install, do: fault.UninstallIstiod([]string{a}, mesh.DefaultRevision), shows: "Deployment istiod",
			meanwhile: check(
				observe.ControlPlanes{In: a, Are: map[string]string{newer.Revision: "current"}},
				observe.Validation{In: a, Is: "broken", Error: like(`service "istiod" not found`)},
				observe.Injection{In: a, By: observe.Refused, Error: like(`service "istiod" not found`)},
			)},
		{verb: "uninstall-istiod", name: "of a revision that is not there", do: fault.UninstallIstiod([]string{a}, "1-32"),
			fails: "no revision 1-32: it has default"},
	}
}

// TestUpgrades makes control planes come and go, and puts the mesh back after each change.
func TestUpgrades(t *testing.T) {
	labs.Nightly(t)
	topology := lab.DefaultTopology()
	topology.Istio = scenario.Previous
	l := labs.Up(t, lab.Options{Name: "upgrades-test", Topology: topology})
	putBack(t, l.Mesh, upgrades())
}

// TestUpgradesNeedTheVersion shows what a mesh of one version refuses before anything changes.
func TestUpgradesNeedTheVersion(t *testing.T) {
	m := &mesh.Mesh{Topology: mesh.Topology{Clusters: []mesh.ClusterSpec{{Name: a, Primary: a, Network: "network-a"}}}}
	m.Members = []*mesh.Member{{Spec: m.Topology.Clusters[0]}}
	old := mesh.Release{Istio: "previous"}
	require.ErrorContains(t, fault.InstallIstiod([]string{a}, old).Available(m), "use one whose topology has `istio: previous`")
	require.ErrorContains(t, fault.UpgradeGateway([]string{a}, old).Available(m), "no east-west gateway")
	require.ErrorContains(t, fault.SetTag([]string{a}, mesh.DefaultTag, "1-31").Available(m), "use one whose topology has `istio: previous`")
	require.ErrorContains(t, fault.UninstallIstiod([]string{a}, "1-31").Available(m), "use one whose topology has `istio: previous`")
}

// TestRevisionsOutsideOfTheMeshAreRefused: there is one istiod, with its settings and its way in, and it is upgraded in place.
func TestRevisionsOutsideOfTheMeshAreRefused(t *testing.T) {
	const outside = "outside"
	m := &mesh.Mesh{Topology: mesh.Topology{Clusters: []mesh.ClusterSpec{
		{Name: a, Primary: outside, Network: "network-a", Istio: "previous"},
		{Name: outside, Primary: outside, Config: a, Network: "network-outside", Istio: "previous"},
	}}}
	m.Members = []*mesh.Member{{Spec: m.Topology.Clusters[0]}, {Spec: m.Topology.Clusters[1]}}
	for _, name := range []string{a, outside} {
		in := []string{name}
		require.NoError(t, fault.InstallIstiod(in, mesh.Release{}).Available(m))
		for _, refused := range []fault.Fault{
			fault.InstallIstiod(in, mesh.Release{Revision: "1-31"}), fault.SetTag(in, mesh.DefaultTag, mesh.DefaultRevision),
			fault.UninstallIstiod(in, mesh.DefaultRevision), fault.ExposeIstiod(in, "1-31"), fault.RestartRevision(in, mesh.DefaultRevision),
		} {
			require.ErrorContains(t, refused.Available(m), name+" cannot have revisions: its istiod is outside of the mesh")
		}
	}
	require.NoError(t, fault.UpgradeGateway([]string{outside}, mesh.Release{}, outside).Available(m))
}
