package doctor

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/doctor/exam"
	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

var update = flag.Bool("update", false, "write testdata/*.golden")

// golden compares what was printed with a file: go test ./lab/doctor -args -update
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), text, "if this is meant: go test ./lab/doctor -args -update")
}

// example is a report in which an istiod has no access to the other cluster. The name of the other one is whatever a kubeconfig
// says.
func example() Report {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	dated := func(name, sum string, days int) exam.Dated {
		return exam.Dated{Name: name, SHA256: strings.Repeat(sum, 64), Ends: now.AddDate(0, 0, days)}
	}
	root, ca := dated("root", "0", 3650), dated("intermediate a", "1", 700)
	identity := func(who, spiffe string) exam.Identity {
		return exam.Identity{
			Cluster: "cluster-a", Who: who, SPIFFE: spiffe, Chain: []exam.Dated{dated("", "2", 1), ca}, Issuer: ca, Roots: []exam.Dated{root},
		}
	}
	doc := findings.RemoteSecretMissing.Doc()
	return Report{
		Taken: now,
		Clusters: []exam.Seen{
			{
				Context: "cluster-a", ID: "cluster-a", Network: "network-a", Kubernetes: "v1.36.1", ServedBy: "cluster-a",
				Proxies: 3, Ready: 3, Sampled: 3,
			},
			{Context: "<b>", Proxies: 9, Ready: 8, Sampled: 3},
		},
		Findings: []exam.Finding{
			{
				ID: doc.ID, Severity: doc.Severity, Says: "istiod of cluster-a has no access to <b>", Clusters: []string{"cluster-a", "<b>"},
				Now: doc.Now, Later: doc.Later, Fix: doc.Fix, Disrupts: doc.Disrupts,
				Evidence: []exam.Evidence{
					{Object: "remote secrets in cluster-a", Seen: "none is for <b>", Command: "kubectl --context=cluster-a get secrets -n istio-system"},
					{Object: "mesh", Seen: "nothing to show"},
				},
				Effects: []exam.Finding{{
					ID: "gateway-unknown", Severity: findings.Error, Says: "istiod of cluster-a does not know the gateway of network-b",
				}},
			},
		},
		Trust: []exam.Pair{
			{From: "cluster-a", To: "<b>", Works: exam.WorksSome, Pairs: 4, Why: "x refuses y: its root is not trusted", Grow: "the roots of <b>"},
			{From: "<b>", To: "cluster-a", Works: exam.WorksUnknown},
		},
		Identities: []exam.Identity{
			identity("istiod-a", ""), identity("production/client", "spiffe://cluster.local/ns/production/sa/client"),
			{Cluster: "<b>", Who: "production/old", Chain: []exam.Dated{dated("old", "3", -2)}, Issuer: exam.Dated{Name: "somebody"}},
		},
		Reads: []exam.Reads{
			{
				Istiod: "cluster-a", Cluster: "<b>", Secret: "istio-remote-secret-cluster-b", Created: now.Add(-90 * time.Minute),
				Expires: now.AddDate(0, 0, 3), Status: "synced", Endpoints: map[string]int{"production/echo": 2}, Own: 2,
				Gateways: []string{"192.0.2.1:15443", "192.0.2.2:15443"},
			},
			{Istiod: "<b>", Revision: "1-31", Cluster: "cluster-a", Own: -1},
		},
		Checks: []exam.Check{
			{ID: doc.ID, State: exam.StateFound}, {ID: "half-trust", State: exam.StateOK},
			{ID: "webhook-bundle-stale", State: exam.StateUnknown, Why: "webhooks of cluster-a"},
		},
		Unread: []facts.Unread{
			{Cluster: "cluster-a", Part: facts.Webhooks, Why: "forbidden"},
			{Cluster: "cluster-a", Part: facts.Remote, Object: "Secret s", Why: "its server does not answer here"},
		},
	}
}

func TestTable(t *testing.T) {
	var table strings.Builder
	require.NoError(t, Table(&table, example()))
	golden(t, "table", table.String())
	table.Reset()
	require.NoError(t, Table(&table, Report{Checks: []exam.Check{{ID: "half-trust", State: exam.StateOK}}}))
	assert.Equal(t, "\n1 check: 1 ok, 0 with findings, 0 unknown\nnothing is wrong\n", table.String())
}

func TestHTML(t *testing.T) {
	var page strings.Builder
	require.NoError(t, HTML(&page, example()))
	golden(t, "page", page.String())
	for _, outside := range []string{"<script", "src=", "href=", "url(", "access to <b>"} {
		assert.NotContains(t, page.String(), outside)
	}
	assert.Contains(t, page.String(), "default-src &#39;none&#39;")
	assert.Contains(t, page.String(), "its own: 2026-11-26 12:00", "the certificate of a workload has no name")
	assert.NotRegexp(t, `>\s*: `, page.String(), "a colon with nothing before it")
	assert.Contains(t, page.String(), `<circle class="holder f0"`, "there is a picture")
}

func TestExplain(t *testing.T) {
	var text strings.Builder
	for _, id := range []findings.ID{findings.HalfTrust, findings.GatewayPodAbsent, findings.ProbeFailed} {
		require.NoError(t, Explain(&text, id.Doc()))
		text.WriteString("\n")
	}
	golden(t, "explain", text.String())
}

func TestDiagnosis(t *testing.T) {
	report := func(complete bool, all ...exam.Finding) Report {
		r := Report{Findings: all, Checks: []exam.Check{{ID: "x", State: exam.StateOK}}}
		if !complete {
			r.Checks[0].State = exam.StateUnknown
			r.Unread = []facts.Unread{{Cluster: "cluster-a", Part: facts.Secrets, Why: "forbidden"}}
		}
		return r
	}
	bad := exam.Finding{ID: "half-trust", Severity: findings.Error}
	other := exam.Finding{ID: "gateway-missing", Severity: findings.Error}
	warning := exam.Finding{ID: "self-signed-ca", Severity: findings.Warning}
	info := exam.Finding{ID: "mesh-id-differs", Severity: findings.Info}
	soft := exam.Finding{ID: "self-signed-ca", Severity: findings.Info} // one istiod for the whole mesh
	for _, test := range []struct {
		finds  string
		report Report
		holds  bool
		seen   string
	}{
		{Nothing, report(true), true, "nothing wrong"},
		{Nothing, report(true, info), true, "nothing wrong"},
		{Nothing, report(true, warning), false, "self-signed-ca"},
		{Nothing, report(false), false, "could not look everywhere: secrets of cluster-a: forbidden"},
		{"half-trust", report(true, bad), true, "half-trust"},
		{"half-trust", report(true, bad, warning, info), true, "self-signed-ca"},
		{"half-trust", report(true, bad, other), false, "gateway-missing"},
		{"half-trust", report(true, other, bad), false, "gateway-missing"},
		{"half-trust", report(true), false, "nothing wrong"},
		{"self-signed-ca", report(true, warning), true, "self-signed-ca"},
		{"self-signed-ca", report(true, soft), false, "nothing wrong"},
		{"mesh-id-differs", report(true, info), true, "mesh-id-differs"},
	} {
		seen, err := Diagnosis{Finds: test.finds}.judge(test.report)
		assert.Contains(t, seen, test.seen)
		var mismatch *observe.Mismatch
		if test.holds {
			assert.NoError(t, err, test)
		} else {
			assert.ErrorAs(t, err, &mismatch, test)
		}
	}
}
