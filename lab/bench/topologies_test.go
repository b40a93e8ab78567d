package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

func TestObjectsByHandLeavesTheAppsOut(t *testing.T) {
	files := map[string]string{
		"namespaces.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\napiVersion: v1\nkind: " +
			"Namespace\nmetadata: {name: production}\n",
		"services.yaml": "# only apps\nkind: Service\nmetadata: {name: echo, namespace: production}\n---\n# nothing\n",
		"expose.yaml": "kind: Gateway\nmetadata: {name: g, namespace: istio-system}\n---\nkind: VirtualService\nmetadata: {name: v, " +
			"namespace: istio-system}\n",
	}
	read := func(file string) ([]byte, error) {
		text, ok := files[file]
		if !ok {
			return nil, fmt.Errorf("no file %s", file)
		}
		return []byte(text), nil
	}
	for _, test := range []struct {
		command string
		objects int
	}{
		{"", 0},
		{"kubectl rollout status --context=cluster-a -n istio-system deployment/istiod", 0},
		{"kubectl apply --context=cluster-a -f namespaces.yaml", 1},
		{"kubectl apply --context=cluster-a -f services.yaml", 0},
		{"kubectl apply --context=cluster-a -f expose.yaml\nkubectl apply --context=cluster-b -f expose.yaml", 4},
		{"kubectl create secret generic cacerts --context=cluster-a -n istio-system --from-file=ca-cert.pem", 1},
		{"istioctl install --context=cluster-a -y -f mesh.yaml -f primary.yaml", 1},
		{"istioctl create-remote-secret --context=cluster-b --name=cluster-b | kubectl apply --context=cluster-a -f -", 1},
	} {
		n, err := objectsByHand([]string{test.command}, read)
		require.NoError(t, err, test.command)
		assert.Equal(t, test.objects, n, test.command)
	}
	_, err := objectsByHand([]string{"kubectl apply -f missing.yaml"}, read)
	require.ErrorContains(t, err, "counting objects: no file missing.yaml")
}

func TestClassOf(t *testing.T) {
	assert.Equal(t, InsideAffected, classOf("a", "a", "a"))
	assert.Equal(t, InsideOthers, classOf("a", "b", "b"))
	assert.Equal(t, AcrossBorder, classOf("a", "a", "b"))
	assert.Equal(t, AcrossBorder, classOf("external", "b", "a"))
	assert.Equal(t, InsideOthers, classOf("", "a", "a"), "nothing is away")
}

// calls are answered by their own cluster, one each 100 ms from the beginning of the window, but for those lost.
func calls(from, to string, fresh bool, n int, lost ...int) directed {
	begin := time.Unix(1000, 0)
	d := directed{from, to, fresh, traffic.Window{From: begin, To: begin.Add(time.Duration(n) * 100 * time.Millisecond), ExpectCluster: to}}
	for i := range n {
		start := begin.Add(time.Duration(i) * 100 * time.Millisecond)
		d.Calls = append(d.Calls, traffic.Call{Start: start, End: start.Add(time.Millisecond), Issued: true, Code: 200, Cluster: to})
	}
	for _, i := range lost {
		d.Calls[i].Code, d.Calls[i].Err = 503, "HTTP 503"
	}
	return d
}

func TestJudgeCalls(t *testing.T) {
	all := []directed{
		calls("a", "a", false, 10), calls("a", "a", true, 10),
		calls("b", "b", false, 10), calls("b", "b", true, 10, 3),
		calls("a", "b", false, 10, 1), calls("a", "b", true, 10, 1, 2),
		calls("b", "a", false, 10, 1), calls("b", "a", true, 10, 4, 5, 6),
	}
	for _, test := range []struct {
		name string
		of   takeable
		want []string // class, connection, lost of calls, longest gap
		lost int
	}{
		{"nothing is away", takeable{part: NothingAway}, []string{
			"others reused 0/20 0.1", "others fresh 1/20 0.2", "across reused 2/20 0.2", "across fresh 5/20 0.4",
		}, 8},
		{"an istiod is away, its cluster still calls", takeable{part: IstiodAway, cluster: "a"}, []string{
			"inside reused 0/10 0.1", "inside fresh 0/10 0.1", "others reused 0/10 0.1", "others fresh 1/10 0.2", "across reused 2/20 0.2",
			"across fresh 5/20 0.4",
		}, 8},
		{"a cluster is away, and nobody in it calls", takeable{part: ClusterAway, cluster: "a"}, []string{
			"others reused 0/10 0.1", "others fresh 1/10 0.2", "across reused 1/10 0.2", "across fresh 3/10 0.4",
		}, 5},
		{"a cluster outside the mesh is away", takeable{part: ClusterAway, cluster: "external"}, []string{
			"others reused 0/20 0.1", "others fresh 1/20 0.2", "across reused 2/20 0.2", "across fresh 5/20 0.4",
		}, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			sums, why := judgeCalls(all, test.of)
			var seen []string
			for _, s := range sums {
				seen = append(seen, fmt.Sprintf("%s %s %d/%d %.1f", s.Class, s.Connection, s.Lost, s.Calls, s.LongestGapSeconds))
			}
			assert.Equal(t, test.want, seen)
			assert.Equal(t, []traffic.Count{{Text: "HTTP 503", Count: test.lost}}, why)
		})
	}
}

func TestMissingNamesEverything(t *testing.T) {
	good := Outcome{Worked: Yes, Seconds: 1}
	require.NoError(t, missing([]OutageCluster{{"a", good, good}}, "within 2s"))
	err := missing(
		[]OutageCluster{{"a", good, Outcome{Worked: No, Seen: "no route"}}, {"b", Outcome{Worked: No, Seen: "no webhook"}, good}},
		"within 2s",
	)
	require.EqualError(t, err, "a: wanted a config change to arrive within 2s; seen: no route\n"+
		"b: wanted a new pod to become Ready within 2s; seen: no webhook")
}

func TestTopologiesMarkdown(t *testing.T) {
	yes, no, unknown := Outcome{Worked: Yes}, Outcome{Worked: No}, Outcome{Worked: NotAsked}
	text := TopologiesMarkdown([]Topology{{
		Topology: scenario.PrimaryRemote, Istiods: 1, VerifiedSeconds: 12.34, PeakMiB: 1800.4, Objects: 9,
		Outages: []Outage{{
			Part: ClusterAway, Cluster: "cluster-a", Recovery: RecoverySeconds{1, 2, 3, 3},
			Calls: []OutageCalls{
				{Class: InsideOthers, Connection: traffic.Reused, Calls: 100}, {Class: InsideOthers, Connection: traffic.Fresh, Calls: 100},
				{
					Class:             AcrossBorder,
					Connection:        traffic.Reused,
					Calls:             90,
					Lost:              90,
					LongestGapSeconds: 10,
				}, {Class: AcrossBorder, Connection: traffic.Fresh, Calls: 91, Lost: 1, NotIssued: 3, LongestGapSeconds: 0.25},
			},
			Clusters: []OutageCluster{{"cluster-a", no, unknown}, {"cluster-b", no, yes}},
		}},
	}})
	assert.Equal(t, `| topology | istiods | set-up s | peak MiB | objects | resilience | complexity | best for |
| --- | ---: | ---: | ---: | ---: | --- | --- | --- |
| primary-remote | 1 | 12.3 | 1800 | 9 | Primary istiod is SPOF for remote | Medium | Dev/staging remote, tight control plane |

| topology | away | calls inside it | calls inside others | calls across | new pod | config change | works again after s |
| --- | --- | --- | --- | --- | --- | --- | --- |
| primary-remote | cluster-a | n/a | 0/100 · 0/100 | 90/90 (10.0 s) · 1/91 (0.2 s), 3 not made | no | cluster-a n/a, cluster-b yes | 3.0 (calls 1.0, pod 2.0, config 3.0) |
`, text)
	assert.Len(t, lesson, len(BenchedTopologies()))
	for _, kind := range BenchedTopologies() {
		assert.Contains(t, lesson, kind)
	}
}
