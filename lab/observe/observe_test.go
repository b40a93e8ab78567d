package observe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// recorded reads what a proxy or istiod of a real lab has answered.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return data
}

func TestParseSecrets(t *testing.T) {
	roots, chain, err := ParseSecrets(recorded(t, "secrets.json"))
	require.NoError(t, err)
	require.Len(t, roots, 1)
	require.Equal(t, `"obs root" (SHA-256 D7:4F:E8:AF…)`, pki.Labels(roots))
	require.Len(t, chain, 3, "leaf, intermediate, root")
	require.Equal(t, `"obs intermediate cluster-a" (SHA-256 D1:39:F1:7C…)`, pki.Signer(chain))
	require.Equal(t, "spiffe://cluster.local/ns/production/sa/client", chain[0].URIs[0].String())

	for what, page := range map[string]string{
		"a proxy without a certificate yet": `{}`,
		"no JSON":                           `upstream connect error`,
		"no certificate inside": `{"configs":[{"secret":{"name":"ROOTCA",
			"validation_context":{"trusted_ca":{"inline_bytes":"AAAA"}}}}]}`,
	} {
		_, _, err := ParseSecrets([]byte(page))
		require.Error(t, err, what)
	}
}

func TestGroup(t *testing.T) {
	proxies := []Proxy{
		{Workload: Workload{"client", "cluster-a"}, Pod: "client-1"},
		{Workload: Workload{"echo", "cluster-a"}, Pod: "echo-1"},
		{Workload: Workload{"client", "cluster-b"}, Pod: "client-2"},
		{Workload: Workload{"echo", "cluster-b"}, Pod: "echo-2"},
	}
	require.Equal(t, "cluster-a (all 2 proxies) and cluster-b (all 2 proxies): same", group(proxies, func(Proxy) string { return "same" }))
	const grouped = "cluster-a (all 2 proxies) and echo-2 in cluster-b: old; client-2 in cluster-b: new"
	require.Equal(t, grouped, group(proxies, func(p Proxy) string {
		if p.Pod == "client-2" {
			return "new"
		}
		return "old"
	}))
}

func TestParseEndpoints(t *testing.T) {
	page := recorded(t, "clusters.json")
	found, endpoints, err := parseEndpoints(page, outbound(Workload{"echo", "cluster-b"}))
	require.NoError(t, err)
	require.True(t, found)
	require.Len(t, endpoints, 1)
	require.Regexp(t, `^10\.\d+\.2\.1:15443 HEALTHY, 0 of 1 connection failed$`, endpoints[0].text(""))

	_, endpoints, err = parseEndpoints(page, outbound(Workload{App: "echo"}))
	require.NoError(t, err)
	require.Len(t, endpoints, 2, "a pod here and a gateway there")

	found, endpoints, err = parseEndpoints(page, outbound(Workload{"echo", "cluster-c"}))
	require.NoError(t, err)
	require.False(t, found)
	require.Empty(t, endpoints)

	_, _, err = parseEndpoints([]byte("no"), "x")
	require.Error(t, err)
	require.Equal(t, "HEALTHY active_health_check outlier_check", health(map[string]any{
		"eds_health_status": "HEALTHY", "failed_outlier_check": true, "failed_active_health_check": true,
	}))
}

func TestParseSync(t *testing.T) {
	states, err := ParseSync(recorded(t, "syncz.json"))
	require.NoError(t, err)
	require.Len(t, states, 3)
	for _, s := range states {
		require.Empty(t, s.Problem, s.Proxy)
		require.NotEmpty(t, s.Cluster, s.Proxy)
		require.NotEmpty(t, s.Version, s.Proxy)
	}
	var page []map[string]any
	require.NoError(t, json.Unmarshal(recorded(t, "syncz.json"), &page))
	resources := page[0]["resources"].(map[string]any)
	listeners := resources["type.googleapis.com/envoy.config.listener.v3.Listener"].(map[string]any)
	listeners["acked"] = "earlier"
	changed, err := json.Marshal(page)
	require.NoError(t, err)
	states, err = ParseSync(changed)
	require.NoError(t, err)
	require.Equal(t, "Listener not acknowledged", states[0].Problem)
	listeners["lastError"] = "unknown filter"
	changed, err = json.Marshal(page)
	require.NoError(t, err)
	states, err = ParseSync(changed)
	require.NoError(t, err)
	require.Equal(t, "Listener refused: unknown filter", states[0].Problem)
}

func TestProtocolsFor(t *testing.T) {
	dump := recorded(t, "listeners.json")
	protocols, err := protocolsFor(dump, GatewaySees{To: Workload{"echo", "cluster-b"}}.sni())
	require.NoError(t, err)
	require.Equal(t, []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}, protocols)
	protocols, err = protocolsFor(dump, "outbound_.80_.v2_.echo.production.svc.cluster.local")
	require.NoError(t, err)
	require.Equal(t, []string{"nothing: no filter chain has this name"}, protocols)
}

func TestParseStats(t *testing.T) {
	sum, lines, zeros := parseStats("cluster.a.ssl.fail_verify_error: 3\ncluster.b.ssl.fail_verify_error: 0\n"+
		"cluster.a.ssl.handshake: 9\nx.ssl.fail_verify_error: P0(nan,1)\n", regexp.MustCompile(`ssl\.fail`))
	require.Equal(t, 3, sum)
	require.Equal(t, []string{"cluster.a.ssl.fail_verify_error: 3"}, lines)
	require.Equal(t, 1, zeros)
}

func TestParseMetrics(t *testing.T) {
	page := "# HELP a_total help\n# TYPE a_total counter\na_total{error=\"X\"} 2\na_total{error=\"Y\"} 3\nb_seconds -7.5\nc NaN-ish\n"
	sum, lines := parseMetrics(page, regexp.MustCompile(`^a_total`))
	require.Equal(t, 5.0, sum)
	require.Equal(t, []string{`a_total{error="X"} 2`, `a_total{error="Y"} 3`}, lines)
	sum, _ = parseMetrics(page, regexp.MustCompile(`error="Y"`))
	require.Equal(t, 3.0, sum)
	sum, _ = parseMetrics(page, regexp.MustCompile(`^b_seconds$`))
	require.Equal(t, -7.5, sum)
	_, lines = parseMetrics(page, regexp.MustCompile(`help|^c`))
	require.Empty(t, lines)
}

func TestAccessLog(t *testing.T) {
	lines := strings.Split(string(recorded(t, "access.log")), "\n")
	failedLine, goodLine, borderLine := lines[0], lines[1], lines[2]
	require.Equal(t, "URX,UF TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:"+
		"_X509_verify_cert:_certificate_verification_error_at_depth_1:_self_signed_certificate_in_certificate_chain:TLS_error_end",
		failure(failedLine))
	require.Empty(t, failure(goodLine))
	require.Empty(t, failure("something else"))
	require.Equal(t, "UH no_healthy_upstream", failure(`[2026] "GET / HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0 - "-"`))
	require.Regexp(t, "^passed on to echo production echo v1 cluster-a: ", gatewayLine(borderLine))
	at, ok := beganAt(borderLine)
	require.True(t, ok)
	require.Equal(t, "2026-11-23 19:27:11.504 +0000 UTC", at.String())
	_, ok = beganAt("2026-11-23T19:27:07.256604Z\tinfo\tEnvoy proxy is ready")
	require.False(t, ok)
	require.Regexp(t, "^passed on to nobody: ", gatewayLine(goodLine[:100]))
}

func TestCallJudgesWhoAnswered(t *testing.T) {
	const client, server = "spiffe://cluster.local/ns/production/sa/client", "spiffe://cluster.local/ns/production/sa/echo"
	from := func(cluster string) traffic.Call {
		return traffic.Call{Issued: true, Code: 200, Cluster: cluster, Pod: "echo-1", ClientID: client, ServerID: server}
	}
	failed := traffic.Call{Issued: true, Code: 503, Err: "HTTP 503: remote connection failure [URX,UF TLS_error:CERTIFICATE_VERIFY_FAILED]"}
	plain := traffic.Call{Issued: true, Code: 200, Cluster: "cluster-b", Pod: "echo-1"}
	twice := []traffic.Call{from("cluster-b"), from("cluster-b")}
	toB := Call{To: Workload{"echo", "cluster-b"}, Count: 2}
	both := Call{To: Workload{App: "echo"}, Count: 2, AnsweredBy: []string{"cluster-a", "cluster-b"}}
	with := func(c Call, change func(*Call)) Call { change(&c); return c }
	for _, test := range []struct {
		what  string
		call  Call
		got   []traffic.Call
		holds bool
	}{
		{"answered from there", toB, twice, true},
		{"200, but from elsewhere", toB, []traffic.Call{from("cluster-b"), from("cluster-a")}, false},
		{"one failed", toB, []traffic.Call{from("cluster-b"), failed}, false},
		{"one may fail", with(toB, func(c *Call) { c.AtLeast = 1 }), []traffic.Call{from("cluster-b"), failed}, true},
		{"plain text", toB, []traffic.Call{plain, plain}, false},
		{"plain text is wanted", with(toB, func(c *Call) { c.Plaintext = true }), []traffic.Call{plain, plain}, true},
		{"mutual TLS is not wanted", with(toB, func(c *Call) { c.Plaintext = true }), []traffic.Call{from("cluster-b"), plain}, false},
		{"both answer", both, []traffic.Call{from("cluster-b"), from("cluster-a")}, true},
		{"one of them never does", both, []traffic.Call{from("cluster-a"), from("cluster-a")}, false},
		{"identity", with(toB, func(c *Call) { c.Client = regexp.MustCompile("sa/client$") }), twice, true},
		{"another identity", with(toB, func(c *Call) { c.Server = regexp.MustCompile("sa/client$") }), twice, false},
		{"fails as wanted", with(toB, func(c *Call) { c.Fails = regexp.MustCompile("CERTIFICATE") }), []traffic.Call{failed, failed}, true},
		{"fails otherwise", with(toB, func(c *Call) { c.Fails = regexp.MustCompile("UNKNOWN_CA") }), []traffic.Call{failed, failed}, false},
		{"does not fail", with(toB, func(c *Call) { c.Fails = regexp.MustCompile("") }), []traffic.Call{from("cluster-a"), failed}, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			seen, err := test.call.judge(test.got)
			require.NotEmpty(t, seen)
			if test.holds {
				require.NoError(t, err)
				return
			}
			var mismatch *Mismatch
			require.ErrorAs(t, err, &mismatch)
			require.NotEmpty(t, mismatch.Wanted)
		})
	}
	require.Equal(t, "2 × HTTP 503: remote connection failure [URX,UF TLS_error:CERTIFICATE_VERIFY_FAILED]; "+
		"1 × 200 from echo-1 in cluster-b (no mutual TLS)", summary([]traffic.Call{failed, plain, failed}))
	require.Contains(t, tryAfter([]traffic.Call{failed}), "roots in use")
}

func TestCommandIsReadOnly(t *testing.T) {
	for run, words := range map[string][]string{
		`kubectl get pods`: {"kubectl", "get", "pods"},
		`kubectl --context=cluster-a get secret cacerts -o jsonpath='{.data.root-cert\.pem}'`: {
			"kubectl", "--context=cluster-a", "get", "secret", "cacerts", "-o", `jsonpath={.data.root-cert\.pem}`,
		},
		`istioctl x describe pod "a b"`:      {"istioctl", "x", "describe", "pod", "a b"},
		`kubectl -n istio-system logs x\ y`:  {"kubectl", "-n", "istio-system", "logs", "x y"},
		`kubectl rollout status -n x y`:      {"kubectl", "rollout", "status", "-n", "x", "y"},
		`kubectl exec my-pod -- curl 'a|b;'`: {"kubectl", "exec", "my-pod", "--", "curl", "a|b;"},
	} {
		got, err := Command{Run: run}.Parse()
		require.NoError(t, err, run)
		require.Equal(t, words, got, run)
	}
	for run, problem := range map[string]string{
		``:                             "empty",
		`kubectl`:                      "want a subcommand",
		`kubectl delete pod x`:         "may change the mesh",
		`kubectl -n x apply -f y`:      "may change the mesh",
		`istioctl install`:             "may change the mesh",
		`bash -c true`:                 `want kubectl or istioctl`,
		`/bin/kubectl get pods`:        `want kubectl or istioctl`,
		`kubectl get pods | wc -l`:     `'|' means something to a shell only`,
		`kubectl get pods $(rm -r /)`:  `'$' means something to a shell only`,
		`kubectl get "pods`:            "a quote has no end",
		`kubectl --context get delete`: "may change the mesh",
		`kubectl rollout restart -n x`: "may change the mesh: want one of history, status right after it",
		`kubectl rollout`:              "may change the mesh",
		`kubectl auth reconcile -f x`:  "may change the mesh",
		`istioctl tag set prod`:        "may change the mesh",
	} {
		_, err := Command{Run: run}.Parse()
		require.ErrorContains(t, err, problem, run)
	}
	expects := Command{Expect: regexp.MustCompile(`cluster-b\s.*synced`)}
	require.Equal(t, "cluster-b secret synced", expects.seen("NAME\ncluster-a\ncluster-b   secret   synced\n"))
}

func TestSecretsAreHidden(t *testing.T) {
	secret := map[string]any{
		"metadata": map[string]any{"name": "cacerts", "annotations": map[string]any{
			"kubectl.kubernetes.io/last-applied-configuration": "key", "other": "stays",
		}},
		"data": map[string]any{"ca-key.pem": "c2VjcmV0"},
	}
	hideData(secret)
	text, err := json.Marshal(secret)
	require.NoError(t, err)
	require.NotContains(t, string(text), "c2VjcmV0")
	require.NotContains(t, string(text), `"key"`)
	require.Contains(t, string(text), "ca-key.pem")
	require.Contains(t, string(text), "stays")
	hideData(map[string]any{}) // nothing to hide
}

func TestRollout(t *testing.T) {
	two := int32(2)
	d := &appsv1.Deployment{
		Spec: appsv1.DeploymentSpec{Replicas: &two}, Status: appsv1.DeploymentStatus{UpdatedReplicas: 2, ReadyReplicas: 2, Replicas: 2},
	}
	seen, through := Rollout(d)
	require.True(t, through)
	require.Equal(t, "2 of 2 pods new, 2 Ready, 2 in all", seen)
	d.Status.Replicas = 3
	_, through = Rollout(d)
	require.False(t, through)
	d.Status.Replicas, d.Generation = 2, 1
	_, through = Rollout(d)
	require.False(t, through, "the controller has not seen the change yet")
}
