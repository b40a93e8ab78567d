package verb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func TestTable(t *testing.T) {
	require.NoError(t, Table().Check())
	for _, v := range Table() {
		t.Run(v.Name, func(t *testing.T) {
			args := v.New()
			_, changes := args.(Changer)
			_, checks := args.(observe.Check)
			if _, lacks := args.(Checker); lacks {
				checks = true
			}
			require.NotEqual(t, changes, checks, "a verb changes the mesh or checks it")
			if changes {
				require.NotContains(t, v.Phases, scenario.Symptoms)
				require.NotContains(t, v.Phases, scenario.Diagnose)
				require.NotContains(t, v.Phases, scenario.Healthy)
			}
		})
	}
}

// parse reads a scenario with these steps in its break, and a manifest beside it.
func parse(t *testing.T, steps ...string) (*scenario.Scenario, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "test")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(
		t,
		os.WriteFile(filepath.Join(dir, "m.yaml"), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: production}\n"), 0o644),
	)
	file := filepath.Join(dir, "scenario.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
scenario: test
title: A test
why: To test.
topology: {kind: multi-primary}
apps: [client@cluster-a, echo@cluster-a, client@cluster-b, echo@cluster-b]
traffic: {a-to-b: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}}
symptoms: {within: 1s, expect: [proxy-status: {in: cluster-a}]}
recover: [restart-istiod: {in: cluster-a}]
healthy: {within: 1s, expect: [proxy-status: {in: cluster-a}]}
break:
- `+strings.Join(steps, "\n- ")+"\n"), 0o644))
	return scenario.Load(file, Table())
}

// Every verb, as an author writes it, and what it says that it does. No mesh is needed for that.
func TestVerbsSayWhatTheyDo(t *testing.T) {
	for step, sentence := range map[string]string{
		"apply: {in: cluster-a, file: m.yaml}": "apply m.yaml " +
			"in cluster-a",
		"block-port: {in: cluster-b, from: cluster-a, port: 15443}": "block port " +
			"15443 of cluster-b for cluster-a",
		"ca-certificates: {in: cluster-a, of: cluster-b}": "put the roots " +
			"of cluster-b into caCertificates of the mesh configuration of cluster-a",
		"call: {from: [client@cluster-a, client@cluster-b], to: echo, count: 1}": "1 call is " +
			"answered over mutual TLS, from client@cluster-a and client@cluster-b to echo, on fresh connections",
		"certificate: {of: echo@cluster-b, pods: newest, identity: '^spiffe://b/', expired: false, expires-within: " +
			"1m}": `the proxies of the newest pod of echo@cluster-b show an identity like "^spiffe://b/", no certificate that has expired and a certificate that ends within 1m`,
		"certificate-lifetime: {apps: echo@cluster-b, is: 20s}": "give " +
			"echo@cluster-b certificates that live 20s",
		"create-cacerts: {in: cluster-b, root: shared, intermediate: {lifetime: 30s}, crl: kept}": "put a new CA " +
			"below the lab's shared root that lives 30s into the Secret cacerts of cluster-b, with the revocation lists that are there",
		"create-cacerts: {in: cluster-b, root: shared, root-lifetime: 30s}": "put a CA " +
			"below a new root that lives 30s into the Secret cacerts of cluster-b",
		"fingerprints: {in: [cluster-a, cluster-b], equal: false, names-equal: true}": "the root in " +
			"cacerts does not have the same fingerprint and has the same name in cluster-a and cluster-b",
		"istiod-stat: {in: cluster-b, stat: root_cert_expiry, at-most: " +
			"0}": `the metric "root_cert_expiry" of istiod in cluster-b is at most 0`,
		"mesh-config: {in: cluster-b, set: {trustDomain: " +
			"b}}": `set {"trustDomain":"b"} in the mesh configuration of cluster-b`,
		"restart: {apps: echo@cluster-b, wait: false}": "restart echo@cluster-b",
		"set-env: {apps: istiod@cluster-b, env: {A: b, C: ''}}": "set A=b and " +
			"unset C of istiod@cluster-b",
		"spoil-cacerts: {in: cluster-b, remove: cert-chain.pem, rename: {ca-cert.pem: ca.crt}, other-key: true}": "spoil the " +
			"Secret cacerts of cluster-b: call its key ca-cert.pem ca.crt, take its key cert-chain.pem away and give it another private key",
		"call: {from: client@cluster-a, to: echo@cluster-b, from-pod: newest}": "5 calls are " +
			"answered by cluster-b over mutual TLS, from the newest pod of client@cluster-a to echo@cluster-b, on fresh connections",
		"call: {from: client@cluster-a, to: echo, count: 20, at-least: 9, connections: reused, answered-by: cluster-a}": "at least 9 of " +
			"20 calls are answered by cluster-a over mutual TLS, from client@cluster-a to echo, on reused connections",
		"call: {from: client@cluster-a, to: echo@cluster-b, fails: " +
			"UF}": `5 calls fail with a text like "UF", from client@cluster-a to echo@cluster-b, on fresh connections`,
		"command: {run: kubectl get nodes --context=cluster-a, expect: Ready}": "`kubectl get " +
			"nodes --context=cluster-a` says something like \"Ready\"",
		"continue-component: {in: cluster-b, component: etcd}": "let etcd of " +
			"cluster-b go on",
		"create-cacerts: {in: [cluster-a, cluster-b], root: own, trusts: [own, peers]}": "put a CA " +
			"below a root that nobody else has into the Secret cacerts of cluster-a and cluster-b, and trust a root that nobody else has " +
			"and the roots of the other clusters",
		"create-remote-secret: {in: cluster-a, of: cluster-b, server: 'https://127.0.0.1:6443', name: other}": "create the " +
			"remote secret of cluster-b in cluster-a, under the name other, with the address https://127.0.0.1:6443",
		"delete: {in: cluster-a, kind: ConfigMap, name: x, if-there: true}": "delete " +
			"ConfigMap/x if it is there in cluster-a",
		"delete: {in: cluster-a, kind: Service, name: echo, namespace: production}": "delete " +
			"Service/echo in namespace production in cluster-a",
		"delete-cacerts: {in: cluster-a}": "delete the " +
			"Secret cacerts of cluster-a",
		"dns: {from: client@cluster-a, name: " +
			"echo.production.svc.cluster.local}": "echo.production.svc.cluster.local resolves in " +
			"client@cluster-a to the address of its Service",
		"endpoints: {seen-by: client@cluster-a, of: echo@cluster-b, address: gateway, count: 1}": "the proxy of " +
			"client@cluster-a sees 1 endpoint of echo@cluster-b at an east-west gateway",
		"event: {in: cluster-a, namespace: production, object: Pod/echo-, reason: FailedMount, message: not found}": "in cluster-a " +
			`there is a Warning event FailedMount about Pod/echo-… in namespace production with a message like "not found"`,
		"fingerprints: {in: [cluster-a, cluster-b], equal: false}": "the root in " +
			"cacerts does not have the same fingerprint in cluster-a and cluster-b",
		"freeze: {apps: [istiod@cluster-a, echo@cluster-b]}": "freeze " +
			"istiod@cluster-a and echo@cluster-b",
		"gateway-sees: {from: client@cluster-a, to: echo@cluster-b}": "the east-west " +
			"gateway of cluster-b sees a call from client@cluster-a to echo@cluster-b, by its server name " +
			"outbound_.80_._.echo-cluster-b-fresh.production.svc.cluster.local",
		"issuer: {of: client@cluster-a, pods: oldest, is: self-signed}": "the proxies " +
			"of the oldest pod of client@cluster-a show certificates that the self-signed CA of their cluster's istiod signed",
		"kill-component: {in: cluster-b, component: etcd}": "kill etcd of cluster-b",
		"label: {in: cluster-a, kind: Namespace, name: istio-system, remove: topology.istio.io/network}": "label " +
			"Namespace/istio-system in cluster-a",
		"log: {of: istiod@cluster-a, matches: self-signed, absent: true, since: " +
			"1m}": `the log of istiod@cluster-a does not have a line like "self-signed" in the last 1m`,
		"object: {in: cluster-a, kind: Secret, name: cacerts, namespace: istio-system}": "in cluster-a " +
			"Secret cacerts in namespace istio-system is there",
		"patch: {in: cluster-a, kind: Deployment, name: echo, namespace: production, patch: {spec: {paused: true}}}": "patch " +
			"Deployment/echo in namespace production in cluster-a",
		"proxy-stat: {of: client@cluster-a, stat: 'ssl\\.fail', grows: " +
			"true}": `the proxy statistic "ssl\.fail" of client@cluster-a grows`,
		"proxy-status: {in: cluster-a}": "all proxies " +
			"of cluster-a are in sync with their istiod",
		"reconnect: {between: [cluster-a, cluster-b]}": "connect " +
			"cluster-a and cluster-b again",
		"remote-clusters: {in: cluster-a, expect: {cluster-b: absent}}": "istiod of " +
			"cluster-a lists cluster-b absent",
		"restart: {apps: [echo@cluster-b, istio-eastwestgateway@cluster-b]}": "restart " +
			"echo@cluster-b and istio-eastwestgateway@cluster-b",
		"restart-istiod: {in: [cluster-a, cluster-b]}": "restart " +
			"istiod in cluster-a and cluster-b",
		"restart-workloads: {in: cluster-b}": "restart all " +
			"workloads and gateways in cluster-b",
		"control-planes: {in: cluster-a, are: {default: previous, 1-31: current}}": "the control " +
			"planes of cluster-a are 1-31 current and default previous",
		"expose-istiod: {in: cluster-a, revision: 1-31}": "expose istiod of revision 1-31 in cluster-a",
		"injection: {in: cluster-a, by: default, istio: current}": "a new pod of namespace production in cluster-a gets its proxy " +
			"of istio current from revision default",
		"injection: {in: cluster-a, by: 1-31}": "a new pod of namespace production in cluster-a gets its proxy from revision 1-31",
		"injection: {in: cluster-a, by: refused, error: x509, labels: {istio.io/rev: 1-31}}": "a new pod of namespace production with " +
			"istio.io/rev=1-31 in cluster-a is refused like /x509/",
		"install-istiod: {in: [cluster-a, cluster-b], istio: current, revision: 1-31}": "install istiod " +
			"current as revision 1-31 in cluster-a and cluster-b",
		"install-istiod: {in: cluster-a, istio: previous}": "install istiod " +
			"previous in place of the one without a revision in cluster-a",
		"restart-istiod: {in: cluster-a, revision: 1-31}": "restart istiod of revision 1-31 in cluster-a",
		"served-by: {of: echo@cluster-a, revision: 1-31, istio: current}": "the pods of " +
			"echo@cluster-a are served by istiod of revision 1-31 and have the proxy of istio current",
		"set-tag: {in: cluster-a, tag: default, revision: 1-31}": "make the " +
			"tag default stand for revision 1-31 in cluster-a",
		"uninstall-istiod: {in: cluster-a, revision: default}": "remove revision default in cluster-a",
		"upgrade-gateway: {in: cluster-a, istio: current, revision: 1-31}": "make the " +
			"east-west gateway one of istio current and revision 1-31 in cluster-a",
		"validation: {in: cluster-a, is: broken, error: not found}": "no object of Istio can be written in cluster-a, " +
			"with an error like /not found/",
		"revoke-remote-secret: {in: cluster-a, of: cluster-b}": "delete the " +
			"remote secret of cluster-b in cluster-a",
		"rolled-out: {apps: istiod@cluster-a}": "all pods of " +
			"istiod@cluster-a are new and Ready",
		"roots: {in: cluster-b, is: cacerts, count: 2}": "all proxies " +
			"in cluster-b trust nothing but the root in their cluster's Secret cacerts and trust 2 roots",
		"roots: {of: [client@cluster-a, client@cluster-b], same: true}": "the proxies " +
			"of client@cluster-a and client@cluster-b trust the same roots",
		"scale: {apps: echo@cluster-b, replicas: 0}": "scale " +
			"echo@cluster-b to 0",
		"self-sign: {in: [cluster-a, cluster-b]}": "make " +
			"cluster-a and cluster-b what they are after an installation without cacerts: istiod signs with its own self-signed CA",
		"sever: {between: [cluster-a, cluster-b]}": "sever " +
			"cluster-a and cluster-b",
		"stop-component: {in: cluster-b, component: etcd}": "stop etcd of cluster-b",
		"thaw: {apps: istiod@cluster-a}":                   "let istiod@cluster-a go on",
		"unblock-port: {in: cluster-b, from: cluster-a, port: 15443}": "open port " +
			"15443 of cluster-b for cluster-a again",
	} {
		verb, _, _ := strings.Cut(step, ":")
		t.Run(verb, func(t *testing.T) {
			s, err := parse(t, step)
			require.NoError(t, err)
			ready, err := Ground{Dir: filepath.Dir(s.File)}.Step(s.Break[0])
			require.NoError(t, err)
			require.Equal(t, sentence, ready.String())
		})
	}
}

func TestVerbsRefuseWhatContradictsItself(t *testing.T) {
	for step, problem := range map[string]string{
		"block-port: {in: cluster-b, from: cluster-b, port: 15443}":                              "the other cluster is meant",
		"call: {from: client@cluster-a, to: echo@cluster-b, fails: UF, answered-by: cluster-a}":  "answered by nobody",
		"call: {from: client@cluster-a, to: echo@cluster-b, at-least: 6}":                        "more than there are calls",
		"command: {run: kubectl delete pod x}":                                                   "may change the mesh",
		"command: {run: 'kubectl get pods | wc -l'}":                                             "means something to a shell only",
		"create-cacerts: {in: cluster-a, root: peers}":                                           "root",
		"create-remote-secret: {in: cluster-a, of: cluster-a}":                                   "the other cluster is meant",
		"event: {in: cluster-a, namespace: production}":                                          "want at least one of object",
		"fingerprints: {in: cluster-a, equal: true}":                                             "at least two clusters",
		"gateway-sees: {from: client@cluster-a, to: echo@cluster-a}":                             "the other cluster is meant",
		"issuer: {of: client@cluster-a}":                                                         "want is or matches",
		"injection: {in: cluster-a, by: nobody, istio: current}":                                 "there is no proxy that could have a version",
		"injection: {in: cluster-a, by: 1-31, error: x}":                                         "only with by: refused",
		"install-istiod: {in: cluster-a, istio: newest}":                                         "unknown value",
		"install-istiod: {in: cluster-a, istio: current, revision: default}":                     "leave it out",
		"label: {in: cluster-a, kind: Namespace, name: production}":                              "want labels to set or to remove",
		"restart-istiod: {in: cluster-a, revision: 1-31, wait: false}":                           "always waited for",
		"served-by: {of: echo@cluster-a}":                                                        "it wants nothing",
		"object: {in: cluster-a, kind: Secret, name: cacerts, is: x}":                            "want path",
		"object: {in: cluster-a, kind: Secret, name: cacerts, path: .type, is: x, absent: true}": "has no value",
		"proxy-stat: {of: client@cluster-a, stat: x}":                                            "want at-least, at-most, or grows",
		"proxy-stat: {of: client@cluster-a, stat: x, at-least: 2, at-most: 1}":                   "less than at-least",
		"roots: {in: cluster-a}":                                                                 "want at least one of",
		"roots: {in: cluster-a, of: client@cluster-a, same: true}":                               "in place of of",
		"roots: {in: cluster-a, pods: newest, same: true}":                                       "goes with of",
		"scale: {apps: echo@cluster-a}":                                                          "replicas",
		"sever: {between: [cluster-a]}":                                                          "want two clusters",
		"sever: {between: [cluster-a, cluster-a]}":                                               "twice",
	} {
		t.Run(step, func(t *testing.T) {
			_, err := parse(t, step)
			require.ErrorContains(t, err, problem)
		})
	}
}
