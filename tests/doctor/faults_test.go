package doctor

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// faults are those of discovery, of the path between networks, and of sameness that no scenario of the catalogue has: what
// breaks the mesh, and what doctor must find then, first and alone.
var faults = []struct{ name, breaks, finds string }{
	{"the API server is frozen", `stop-component: {in: cluster-b, component: kube-apiserver}`, "api-server-unreachable"},
	{"istiod is deleted", `delete: {in: cluster-b, kind: Deployment, name: istiod, namespace: istio-system}`, "istiod-missing"},
	{"no remote secret", `revoke-remote-secret: {in: cluster-a, of: cluster-b}`, "remote-secret-missing"},
	{
		"a remote secret that leads home",
		`create-remote-secret: {in: cluster-a, of: cluster-b, server: 'https://127.0.0.1:6443'}`, "remote-secret-loopback",
	},
	{
		"a remote secret that leads nowhere",
		`create-remote-secret: {in: cluster-a, of: cluster-b, server: 'https://192.0.2.1:6443'}`, "remote-secret-unreachable",
	},
	{
		"a remote secret with another token",
		`create-remote-secret: {in: cluster-a, of: cluster-b, token: no-token-at-all}`, "remote-secret-token",
	},
	{
		"a remote secret under another name",
		`create-remote-secret: {in: cluster-a, of: cluster-b, name: west}`, "remote-secret-name",
	},
	{
		"an account without rights",
		`delete: {in: cluster-b, kind: ClusterRoleBinding, name: istio-reader-clusterrole-istio-system}`, "remote-secret-rights",
	},
	{
		"an API server that istiod alone does not reach",
		`block-port: {in: cluster-b, from: cluster-a, port: 6443}`, "remote-secret-unreachable",
	},
	{"an account that may not read all", `patch: {in: cluster-b, kind: ClusterRole, name: istio-reader-clusterrole-istio-system,
    patch: {rules: [{apiGroups: ['', discovery.k8s.io, apiextensions.k8s.io, authentication.k8s.io, authorization.k8s.io],
    resources: ['*'], verbs: ['*']}]}}
- restart-istiod: {in: cluster-a, wait: false}`, "remote-watch-failing"}, // the new istiod waits and is not Ready
	{
		"no gateway",
		`delete: {in: cluster-b, kind: Service, name: istio-eastwestgateway, namespace: istio-system}`, "gateway-missing",
	},
	{"a gateway of another network", `label: {in: cluster-b, kind: Service, name: istio-eastwestgateway, namespace: istio-system,
    labels: {topology.istio.io/network: network-x}}`, "gateway-missing"},
	{"a gateway without a pod", `scale: {apps: istio-eastwestgateway@cluster-b, replicas: 0}`, "gateway-pod-absent"},
	{"one of two gateways without a pod", `apply: {in: cluster-b, file: second-gateway.yaml}`, "gateway-pod-absent"},
	{"a gateway without an address", `patch: {in: cluster-b, kind: Service, name: istio-eastwestgateway, namespace: istio-system,
    patch: {spec: {type: ClusterIP}}}`, "gateway-no-address"},
	{
		"nothing is exposed",
		`delete: {in: cluster-b, kind: gateways.networking.istio.io, name: cross-network-gateway, namespace: istio-system}`,
		"gateway-object-missing",
	},
	{"one host is exposed", `patch: {in: cluster-b, kind: gateways.networking.istio.io, name: cross-network-gateway,
    namespace: istio-system, patch: {spec: {servers: [{hosts: [echo.production.svc.cluster.local],
    port: {name: tls, number: 15443, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}}]}}}`, "gateway-hosts"},
	{"port 15443 is blocked", `block-port: {in: cluster-b, from: cluster-a, port: 15443}`, "gateway-unreachable"},
	{"the clusters do not reach each other", `sever: {between: [cluster-a, cluster-b]}`, "cluster-cut-off"},
	{
		"injection on one side",
		`label: {in: cluster-b, kind: Namespace, name: production, labels: {istio-injection: disabled}}`, "injection-differs",
	},
	{"another port on one side", `patch: {in: cluster-b, kind: Service, name: echo, namespace: production,
    patch: {spec: {ports: [{name: http, port: 81, targetPort: 8080}]}}}`, "service-ports-differ"},
	{"a rule on one side", `apply: {in: cluster-a, file: mutual.yaml}`, "config-differs"},
	{"a rule that turns mutual TLS off", `apply: {in: [cluster-a, cluster-b], file: plaintext.yaml}`, "destination-rule-plaintext"},
}

// files are manifests that faults apply.
var files = map[string]string{
	"mutual.yaml":    rule("ISTIO_MUTUAL"),
	"plaintext.yaml": rule("DISABLE"),
	"second-gateway.yaml": `apiVersion: v1
kind: Service
metadata: {name: eastwest-2, namespace: istio-system, labels: {topology.istio.io/network: network-b}}
spec: {type: LoadBalancer, selector: {istio: eastwestgateway, pods: none}, ports: [{name: tls, port: 15443}]}
`,
}

func rule(mode string) string {
	return "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: echo, namespace: production}, " +
		"spec: {host: echo, trafficPolicy: {tls: {mode: " + mode + "}}}}\n"
}

// foundWithin is how long istiods and gateways may take to notice a fault, or its end. Failures to read a cluster count only
// after a minute.
const foundWithin = 2 * time.Minute

func TestFaults(t *testing.T) {
	if os.Getenv(runsEnv) == "" {
		t.Skip("takes ten minutes: run with " + runsEnv + "=1, or `make doctor`")
	}
	l := labs.Up(t, lab.Options{Name: labName + "-faults", Topology: lab.DefaultTopology()})
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "fault")
			require.NoError(t, os.Mkdir(folder, 0o700))
			for name, text := range files {
				require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
			}
			file := filepath.Join(folder, "scenario.yaml")
			require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `scenario: fault
title: %s
why: It is examined.
lesson: [multi-cluster-setup]
topology: {kind: multi-primary, network: separate, trust: shared-root}
apps: [client@cluster-a, echo@cluster-a, client@cluster-b, echo@cluster-b]
break:
- %s
symptoms: {within: 30s, expect: [call: {from: client@cluster-a, to: echo@cluster-a}]}
recover:
- label: {in: cluster-a, kind: Namespace, name: production, labels: {recovered: 'yes'}}
healthy: {within: 30s, expect: [call: {from: client@cluster-a, to: echo@cluster-a}]}
`, f.name, f.breaks), 0o600))
			s, err := scenario.Load(file, verb.Table())
			require.NoError(t, err)
			out, err := report.NewFolder(filepath.Join(folder, "run"))
			require.NoError(t, err)
			sink := report.Multi(out, report.Terminal(io.Discard, report.TerminalOptions{}))
			v, err := engine.Run(t.Context(), l, s, engine.RunOptions{Until: scenario.Break, Folder: out, Sink: sink})
			require.NoError(t, err)
			assert.Equal(t, report.Passed, v.Result, v.Reason)
			if !t.Failed() {
				waitFor(t, l, f.finds)
			}
			_, err = engine.Undo(t.Context(), l, "")
			require.NoError(t, err)
			waitFor(t, l, doctor.Nothing)
		})
	}
}

// waitFor waits until doctor finds what is wanted first, and no other root cause.
func waitFor(t *testing.T, l *lab.Lab, finds string) {
	t.Helper()
	start, last := time.Now(), ""
	options := wait.Options{Within: foundWithin, Every: time.Second}
	assert.NoError(t, wait.Until(t.Context(), finds, options, func(ctx context.Context) (err error) {
		last, err = doctor.Diagnosis{Finds: finds}.Look(ctx, l.Mesh)
		return err
	}))
	t.Logf("after %s %s", time.Since(start).Round(time.Millisecond), last)
}
