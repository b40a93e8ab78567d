package doctor

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/observe"
)

func TestReportsShowWhatWasFound(t *testing.T) {
	w := healthy(t)
	w.a().Remotes = nil
	w.a().Istiods[0].Networks = w.a().Istiods[0].Networks[:1]
	w.b().Context = "<b>" // whatever a kubeconfig says
	w.Unread = []Unread{{Cluster: "cluster-a", Part: Webhooks, Why: "forbidden"}}
	r := Examine(w.Facts)
	var table, page strings.Builder
	require.NoError(t, Table(&table, r))
	require.NoError(t, HTML(&page, r))
	for _, text := range []string{
		"ERROR  remote-secret-missing: istiod of cluster-a has no access to <b>", "from it gateway-unknown: ", "$ kubectl --context=cluster-a get secrets",
		"could not read webhooks of cluster-a: forbidden", "which leaves unknown: webhook-bundle-stale", "of all 3 that are Ready", "1 unknown",
		"istiod-a, and 3 more", `"root" (`, "cluster-a  <b>        -", "istio-remote-secret-cluster-a, made ", "2 of 2", "192.0.2.1:15443",
	} {
		assert.Contains(t, table.String(), text)
	}
	for _, text := range []string{"remote-secret-missing: istiod of cluster-a has no access to &lt;b&gt;", "gateway-unknown", "webhook-bundle-stale", "<!DOCTYPE html>"} {
		assert.Contains(t, page.String(), text)
	}
	for _, outside := range []string{"<script", "src=", "href=", "url("} {
		assert.NotContains(t, page.String(), outside)
	}
	w = healthy(t)
	for i := range 5 {
		w.a().Proxies = append(w.a().Proxies, Proxy{Pod: string(rune('a' + i)), Ready: true})
	}
	table.Reset()
	require.NoError(t, Table(&table, Examine(w.Facts)))
	assert.Contains(t, table.String(), "of 3 of 8: the oldest and the newest pod of each workload")
	assert.Contains(t, table.String(), "nothing is wrong")
}

func TestDiagnosis(t *testing.T) {
	report := func(complete bool, findings ...Finding) Report {
		r := Report{Findings: findings, Checks: []Check{{ID: "x", State: OK}}}
		if !complete {
			r.Checks[0].State = Unsure
		}
		return r
	}
	bad, other, warning, info := Finding{ID: "half-trust", Severity: Error}, Finding{ID: "gateway-missing", Severity: Error}, Finding{ID: "self-signed-ca", Severity: Warning}, Finding{ID: "mesh-id-differs", Severity: Info}
	for _, test := range []struct {
		finds string
		r     Report
		holds bool
	}{
		{Nothing, report(true), true},
		{Nothing, report(true, info), true},
		{Nothing, report(true, warning), false},
		{Nothing, report(false), false},
		{"half-trust", report(true, bad), true},
		{"half-trust", report(true, bad, warning, info), true},
		{"half-trust", report(true, bad, other), false},
		{"half-trust", report(true, other, bad), false},
		{"half-trust", report(true), false},
		{"self-signed-ca", report(true, warning), true},
	} {
		_, err := Diagnosis{Finds: test.finds}.judge(test.r)
		var mismatch *observe.Mismatch
		if test.holds {
			assert.NoError(t, err, test)
		} else {
			assert.ErrorAs(t, err, &mismatch, test)
		}
	}
}
