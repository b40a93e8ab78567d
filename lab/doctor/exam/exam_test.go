package exam

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// cases are ways to break the healthy mesh, each with the finding that must come first, if any, and effects that must be below
// it.
var cases = []struct {
	name    string
	breaks  func(w *world)
	finds   string
	effects []string
}{
	{"nothing", func(*world) {}, "", nil},
	{"another root in B, everything restarted", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		w.sign(1, own)
		w.secret(1, w.cacerts(own, nil))
		w.start(1, "client", "echo", "istio-eastwestgateway")
	}, "disjoint-roots", nil},
	{"another root in B, one pod forgotten", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		w.sign(1, own)
		w.secret(1, w.cacerts(own, nil))
		w.start(1, "client")
	}, "disjoint-roots", []string{"stale-workloads"}},
	{"a root of the same name in B", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "root"}), pki.Options{Name: "twin", NoIssuerKeyID: true})
		w.sign(1, own)
		w.secret(1, w.cacerts(own, nil))
		w.start(1, "client", "echo")
	}, "same-subject-roots", []string{"stale-workloads"}},
	{"A trusts both roots, B only its own", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		w.sign(1, own)
		w.secret(1, w.cacerts(own, nil))
		w.sign(0, w.ca[0], w.root, own)
		w.secret(0, w.cacerts(w.ca[0], nil, w.root, own))
		w.start(0, "client")
		w.start(1, "client", "echo", "istio-eastwestgateway")
	}, "half-trust", nil},
	{"caCertificates that nobody has heard of", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		w.sign(1, own)
		w.secret(1, w.cacerts(own, nil))
		w.start(1, "client", "echo")
		w.a().Settings.CACertificates = []facts.CACertificates{{Roots: w.roots(own)}}
		w.b().Settings.CACertificates = []facts.CACertificates{{Roots: w.roots(w.root)}}
	}, "ca-certificates-not-applied", []string{"disjoint-roots", "stale-workloads"}},
	{"cacerts came late, istiod of A has not restarted", func(w *world) {
		old := selfSigned(w, 0)
		cacerts := w.ca
		for i := range w.Clusters {
			w.sign(i, old)
			w.start(i, "client", "echo", "istio-eastwestgateway")
		}
		w.sign(1, cacerts[1])
		w.start(1, "echo")
		w.b().SelfSigned = w.a().SelfSigned
	}, "late-cacerts", []string{"disjoint-roots", "stale-workloads", "self-signed-ca"}},
	{"cacerts came late, all istiods restarted, no pod", func(w *world) {
		old := selfSigned(w, 0)
		cacerts := w.ca
		for i := range w.Clusters {
			w.sign(i, old)
			w.start(i, "client", "echo")
			w.sign(i, cacerts[i])
		}
		w.b().SelfSigned = w.a().SelfSigned
	}, "stale-workloads", nil},
	{"one self-signed CA in both clusters", func(w *world) {
		old := selfSigned(w, 0)
		w.b().SelfSigned = w.a().SelfSigned
		for i := range w.Clusters {
			w.Clusters[i].CACerts = nil
			w.sign(i, old)
			w.start(i, "client", "echo", "istio-eastwestgateway")
		}
	}, "self-signed-ca", nil},
	{"cacerts under other names in B, elsewhere in A", func(w *world) {
		for i := range w.Clusters {
			w.sign(i, selfSigned(w, i))
			w.start(i, "client")
		}
		w.a().CACerts, w.a().Elsewhere = nil, []string{"default"}
		w.secret(1, map[string][]byte{"ca.crt": w.root.CertPEM(), "root.pem": w.root.CertPEM()})
	}, "cacerts-unrecognized", []string{"disjoint-roots", "stale-workloads", "self-signed-ca"}},
	{"cert-chain.pem is missing and istiod crashes", func(w *world) {
		w.secret(1, w.cacerts(w.ca[1], func(d map[string][]byte) { delete(d, pki.CertChainFile) }))
		w.b().Istiods = []facts.Istiod{{Pod: "istiod-b", State: "discovery: CrashLoopBackOff"}}
	}, "cacerts-incomplete", []string{"istiod-down"}},
	{"a file of cacerts is damaged", func(w *world) {
		w.secret(1, w.cacerts(w.ca[1], func(d map[string][]byte) { d[pki.RootCertFile] = []byte("-----BEGIN CERTIFICATE-----\n") }))
	}, "cacerts-damaged", nil},
	{"the key of another CA", func(w *world) {
		other := w.cacerts(w.ca[0], nil)
		w.secret(1, w.cacerts(w.ca[1], func(d map[string][]byte) { d[pki.CAKeyFile] = other[pki.CAKeyFile] }))
	}, "cacerts-key-mismatch", nil},
	{"cert-chain.pem is empty", func(w *world) {
		w.secret(1, w.cacerts(w.ca[1], func(d map[string][]byte) { d[pki.CertChainFile] = nil }))
		p := &w.b().Proxies[1]
		p.Chain = []string{p.Chain[0], p.Chain[2]} // its own and the root
		s := &w.b().Istiods[0]
		s.Signer = s.Signer[:1] // as istiod shows it then
	}, "cacerts-chain-empty", []string{"chain-without-intermediate"}},
	{"the CA is below another root than the bundle", func(w *world) {
		other := newRoot(w, pki.Options{Name: "other"})
		w.secret(1, w.cacerts(w.ca[1], nil, other))
	}, "cacerts-chain-broken", nil},
	{"a revocation list lacks the new intermediate", func(w *world) {
		old := w.ca[1]
		list := append(must[[]byte](w)(old.RevocationList()), must[[]byte](w)(w.root.RevocationList())...)
		w.secret(1, w.cacerts(below(w, w.root, pki.Options{Name: "new intermediate"}), func(d map[string][]byte) { d[pki.CRLFile] = list }))
	}, "crl-incomplete", nil},
	{"a revoked intermediate", func(w *world) {
		list := must[[]byte](w)(w.root.RevocationList(w.ca[1].Certificate()))
		w.b().CRLs = facts.ParseRevocationLists(list)
	}, "certificate-revoked", nil},
	{"a new root in cacerts that istiod does not take", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		w.secret(1, w.cacerts(own, nil))
	}, "root-change-refused", nil},
	{"an intermediate that istiod has not taken", func(w *world) {
		w.secret(1, w.cacerts(below(w, w.root, pki.Options{Name: "new intermediate"}), nil))
	}, "cacerts-not-in-use", nil},
	{"the intermediate has expired", func(w *world) {
		old := below(w, w.root, w.lifetime(30*time.Minute, pki.Options{Name: "short"}))
		w.sign(1, old)
		w.secret(1, w.cacerts(old, nil))
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour)}, "client", "echo")
	}, "intermediate-expired", []string{"workload-certificate-expired"}},
	{"the root has expired", func(w *world) {
		root := newRoot(w, w.lifetime(30*time.Minute, pki.Options{Name: "short root"}))
		for i := range w.Clusters {
			ca := below(w, root, w.lifetime(time.Hour, pki.Options{Name: fmt.Sprint("below it ", i)}))
			w.sign(i, ca)
			w.secret(i, w.cacerts(ca, nil))
			w.startWith(i, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour)}, "client")
		}
	}, "root-expired", []string{"intermediate-expired", "workload-certificate-expired", "stale-workloads"}},
	{"an intermediate of tomorrow in cert-chain.pem", func(w *world) {
		again := must[*pki.CA](w)(w.ca[1].Reissue(w.root, pki.Options{NotBefore: w.Taken.Add(10 * time.Minute)}))
		w.secret(1, w.cacerts(w.ca[1], func(d map[string][]byte) { d[pki.CertChainFile] = again.CertPEM() }))
		p := &w.b().Proxies[1]
		p.Chain = []string{p.Chain[0], w.Add([]*x509.Certificate{again.Certificate()})[0], p.Chain[2]}
	}, "certificate-not-yet-valid", nil},
	{"a workload certificate has expired, no istiod", func(w *world) {
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour), Lifetime: time.Minute}, "echo")
		w.b().Istiods = nil
	}, "istiod-down", []string{"workload-certificate-expired"}},
	{"istiod of B was deleted", func(w *world) {
		w.b().IstiodDeployed, w.b().Istiods = false, nil
		w.silence(1, "default")
	}, "istiod-missing", []string{"tag-leads-nowhere", "validation-leads-nowhere"}},
	{"istiod of B was deleted a day ago", func(w *world) {
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour), Lifetime: time.Minute}, "echo")
		w.b().IstiodDeployed, w.b().Istiods = false, nil
	}, "istiod-missing", []string{"workload-certificate-expired"}},
	{"a workload certificate has expired, istiod is well", func(w *world) {
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour), Lifetime: time.Minute}, "echo")
	}, "workload-certificate-expired", nil},
	{"two pods of istiod with two CAs", func(w *world) {
		other := below(w, w.root, pki.Options{Name: "another intermediate"})
		was := w.b().Istiods[0]
		was.Pod, was.Signer = "istiod-old", w.leaf(other, pki.LeafOptions{Server: true})
		w.b().Istiods = append([]facts.Istiod{was}, w.b().Istiods...)
	}, "istiods-differ", nil},
	{"a new istiod does not become Ready", func(w *world) {
		starting := facts.Istiod{Pod: "istiod-new", Created: w.Taken.Add(-time.Minute), State: "discovery: not ready"}
		w.b().Istiods = append([]facts.Istiod{starting}, w.b().Istiods...)
	}, "istiod-not-ready", nil},
	{"a new istiod waits for what it may not read", func(w *world) {
		w.watch(80*time.Second, 10*time.Second)
		starting := facts.Istiod{Pod: "istiod-new", Created: w.Taken.Add(-time.Minute), State: "discovery: not ready"}
		starting.Watches = w.a().Istiods[0].Watches
		w.a().Istiods = append([]facts.Istiod{starting}, w.a().Istiods...)
	}, "remote-watch-failing", []string{"istiod-not-ready"}},
	{"the only istiod waits for what it may not read", func(w *world) {
		w.watch(80*time.Second, 10*time.Second)
		w.a().Istiods[0].Ready = false
	}, "remote-watch-failing", []string{"istiod-down"}},
	{"one pod of B has the root of before", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		good := w.ca[1]
		w.sign(1, own)
		w.start(1, "client")
		w.sign(1, good)
		w.start(1, "echo")
	}, "stale-workloads", nil},
	{"only the gateway has the root of before", func(w *world) {
		own := below(w, newRoot(w, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
		good := w.ca[1]
		w.sign(1, own)
		w.start(1, "istio-eastwestgateway")
		w.sign(1, good)
	}, "stale-workloads", nil},
	{"two trust domains", func(w *world) {
		w.b().Settings.TrustDomain = "b.example"
		w.start(1, "client", "echo")
	}, "trust-domain-not-accepted", nil},
	{"two trust domains, known to one side", func(w *world) {
		w.b().Settings.TrustDomain, w.b().Settings.Aliases = "b.example", []string{"cluster.local"}
		w.start(1, "client", "echo")
	}, "trust-domain-not-accepted", nil},
	{"the root's ConfigMap is missing", func(w *world) {
		w.b().Namespaces[0].HasRoot = false
		w.b().Proxies = append(w.b().Proxies, facts.Proxy{Namespace: "production", Pod: "new", Created: w.Taken.Add(-time.Minute)})
		w.b().Stuck = []facts.Stuck{{Pod: "production/new", Why: "ContainerCreating"}}
	}, "root-configmap-missing", []string{"pods-not-starting"}},
	{"the root's ConfigMap is of another mesh", func(w *world) {
		w.b().Namespaces[1].Roots = w.roots(newRoot(w, pki.Options{Name: "foreign"}))
	}, "root-configmap-foreign", nil},
	{"the webhook has another caBundle", func(w *world) {
		w.b().Webhooks[0].Roots = w.roots(newRoot(w, pki.Options{Name: "foreign"}))
	}, "webhook-bundle-stale", nil},
	{"the intermediate ends soon", func(w *world) {
		old := below(w, w.root, pki.Options{Name: "short", Lifetime: 48 * time.Hour})
		w.sign(1, old)
		w.secret(1, w.cacerts(old, nil))
	}, "ca-expires-soon", nil},
	{"a policy names a foreign trust domain", func(w *world) {
		w.a().Principals = []facts.Principals{{
			Policy: "production/echo-callers", Action: "ALLOW", Names: []string{"old.example/ns/production/sa/client"},
		}}
	}, "policy-foreign-principal", nil},
	{"policies that name nobody foreign", func(w *world) {
		w.a().Principals = []facts.Principals{{
			Policy: "istio-system/all", Action: "ALLOW", Names: []string{"*", "cluster.local/ns/x/sa/y", "*/ns/x/sa/y"},
		}}
	}, "", nil},
	{"a client without a proxy where STRICT is set", func(w *world) {
		w.b().Plain, w.b().Strict = []string{"production/client-2"}, map[string]bool{"production": true}
	}, "plaintext-client-strict", nil},
	{"a client without a proxy where it may", func(w *world) { w.b().Plain = []string{"production/client-2"} }, "", nil},
	{"istiod with a name that its proxies do not have", func(w *world) {
		w.b().Istiods[0].Env["CLUSTER_ID"], w.b().Istiods[0].Serves = "cluster-east", nil
		for _, endpoints := range w.b().Istiods[0].Endpoints {
			endpoints["cluster-east"] = endpoints["cluster-b"]
			delete(endpoints, "cluster-b")
		}
	}, "cluster-renamed", nil},
	{"a remote secret with the own name", func(w *world) {
		w.a().Remotes[0].ID, w.a().Istiods[0].Clusters = "cluster-a", map[string]string{"cluster-a": "synced"}
		w.forget()
	}, "cluster-name-twice", []string{"remote-secret-missing", "endpoints-missing"}},
	{"two clusters of one name", func(w *world) {
		w.b().ID, w.b().Istiods[0].Env["CLUSTER_ID"] = "cluster-a", "cluster-a"
		w.a().Remotes, w.b().Remotes = nil, nil
	}, "cluster-name-twice", nil},
	{"a remote secret with another name", func(w *world) {
		w.a().Remotes[0].ID = "west"
	}, "remote-secret-name", []string{"remote-secret-missing"}},
	{"a remote secret that leads home", func(w *world) {
		w.a().Remotes[0].Server = "https://127.0.0.1:6443"
	}, "remote-secret-loopback", nil},
	{"a remote secret that is not let in", func(w *world) { w.a().Remotes[0].Refused = "Unauthorized" }, "remote-secret-token", nil},
	{"a remote secret whose token has ended", func(w *world) {
		w.a().Remotes[0].Expires = w.Taken.Add(-time.Hour)
	}, "remote-secret-token", nil},
	{"a remote secret whose token ends", func(w *world) {
		w.a().Remotes[0].Expires = w.Taken.Add(time.Hour)
	}, "remote-secret-expires", nil},
	{"a remote secret without rights", func(w *world) { w.a().Remotes[0].Denied = []string{"pods"} }, "remote-secret-rights", nil},
	{"a remote secret that may not read the mesh configuration", func(w *world) {
		w.a().Remotes[0].Denied = []string{"configmaps"}
		w.a().Istiods[0].Clusters["cluster-b"] = "timeout"
	}, "remote-secret-rights", nil},
	{"a remote secret of before istiod read the mesh configuration", func(w *world) {
		w.a().Remotes[0].Denied = []string{"configmaps"}
	}, "", nil},
	{"a remote secret to an address that does not answer", func(w *world) {
		w.a().Remotes[0].UID, w.a().Remotes[0].Reach = "", "timeout"
		w.a().Istiods[0].Clusters["cluster-b"] = "timeout"
		w.a().Istiods[0].Networks = w.a().Istiods[0].Networks[:1]
	}, "remote-secret-unreachable", []string{"gateway-unknown"}},
	{"no remote secret", func(w *world) { w.a().Remotes = nil }, "remote-secret-missing", nil},
	{"not in sync", func(w *world) { w.a().Istiods[0].Clusters["cluster-b"] = "syncing" }, "remote-cluster-not-synced", nil},
	{"no endpoints", func(w *world) {
		w.forget()
	}, "endpoints-missing", nil},
	{"no endpoints of one service", func(w *world) {
		w.a().Istiods[0].Endpoints["production/client.production.svc.cluster.local"]["cluster-b"] = 0
	}, "endpoints-missing", nil},
	{"endpoints on a network that is not theirs", func(w *world) {
		w.a().Istiods[0].Placed["cluster-b"] = map[string]int{"": 1}
	}, "endpoints-network", nil},
	{"an API server that does not answer", func(w *world) {
		*w.b() = facts.Cluster{Context: "cluster-b", Server: "https://192.0.2.9:6443", Down: "timeout"}
		w.a().Remotes[0].UID, w.a().Remotes[0].Reach = "", "timeout"
		w.watch(70*time.Second, 20*time.Second)
		w.Unread = []facts.Unread{{Cluster: "cluster-b", Part: facts.APIServer, Why: "timeout"}}
	}, "api-server-unreachable", []string{"remote-secret-unreachable"}},
	{"a remote cluster that answers here and not where istiod runs", func(w *world) {
		w.a().Tried = append(w.a().Tried, facts.Tried{From: "istio-system/gateway", Address: "192.0.2.9:6443", Err: "there was no answer"})
	}, "remote-secret-unreachable", nil},
	{"a remote cluster that istiod does not reach any more, in sync as ever", func(w *world) {
		w.a().Remotes[0].UID, w.a().Remotes[0].Reach = "", "timeout"
		w.watch(70*time.Second, 20*time.Second)
	}, "remote-secret-unreachable", nil},
	{"a remote cluster that answers here and not to istiod", func(w *world) {
		w.watch(3*time.Minute, 20*time.Second)
	}, "remote-watch-failing", nil},
	{"a remote cluster that was away long ago", func(w *world) { w.watch(9*time.Minute, 3*time.Minute) }, "", nil},
	{"no gateway", func(w *world) { w.b().Gateways = nil }, "gateway-missing", nil},
	{"a gateway without an address", func(w *world) {
		w.b().Gateways[0].Addresses = nil
	}, "gateway-no-address", nil},
	{"a gateway without a pod", func(w *world) { w.b().Gateways[0].Pods, w.b().Gateways[0].Looked = 0, false }, "gateway-pod-absent", nil},
	{"nothing is exposed", func(w *world) {
		w.b().Exposed, w.b().Gateways[0].Listens = nil, false
	}, "gateway-object-missing", []string{"gateway-not-listening"}},
	{"some hosts are exposed", func(w *world) {
		w.b().Exposed[0].Hosts = []string{"echo.production.svc.cluster.local"}
	}, "gateway-hosts", nil},
	{"a gateway that does not listen", func(w *world) { w.b().Gateways[0].Listens = false }, "gateway-not-listening", nil},
	{"a gateway that istiod does not know", func(w *world) {
		w.a().Istiods[0].Networks = w.a().Istiods[0].Networks[:1]
	}, "gateway-unknown", nil},
	{"a port that is closed to the other cluster", func(w *world) {
		w.a().Tried[0].Err = "there was no answer"
	}, "gateway-unreachable", nil},
	{"a cluster that is cut off", func(w *world) {
		w.a().Tried[0].Err = "there was no answer"
		w.a().Tried = append(w.a().Tried, facts.Tried{From: "istio-system/gateway", Address: "192.0.2.9:6443", Err: "there was no answer"})
	}, "cluster-cut-off", []string{"gateway-unreachable", "remote-secret-unreachable"}},
	{"connections that fail, where nobody can try", func(w *world) {
		w.a().Tried, w.a().Proxies[0].Failing = nil, []string{"192.0.2.2:15443"}
	}, "gateway-unreachable", nil},
	{"connections that were made, where nobody can try", func(w *world) {
		w.a().Tried, w.a().Proxies[0].Through = nil, []string{"192.0.2.2:15443"}
	}, "", nil},
	{"a gateway that passes nothing on", func(w *world) {
		w.b().Gateways[0].Refuses = "outbound_.80_._.echo: reset"
	}, "gateway-passes-nothing", nil},
	{"a policy on one side", func(w *world) { w.b().Config = nil }, "config-differs", nil},
	{"a policy that differs", func(w *world) { w.b().Config[0].Hash = "2" }, "config-differs", nil},
	{"a DestinationRule without mutual TLS", func(w *world) {
		for i := range w.Clusters {
			w.Clusters[i].Config = []facts.Config{{Kind: "DestinationRule", Name: "production/echo", Host: "echo.production", TLS: "DISABLE"}}
		}
	}, "destination-rule-plaintext", nil},
	{"a DestinationRule for the world outside", func(w *world) {
		for i := range w.Clusters {
			w.Clusters[i].Config = []facts.Config{{Kind: "DestinationRule", Name: "production/out", Host: "api.example", TLS: "SIMPLE"}}
		}
	}, "", nil},
	{"a namespace with another revision in B", func(w *world) {
		w.b().Namespaces[0].Injection, w.b().Namespaces[0].Revision = "", "canary"
	}, "revision-differs", nil},
	{"a proxy refuses its configuration", func(w *world) {
		w.a().Istiods[0].Behind = []string{"client: Listener refused: x"}
	}, "proxy-refuses-configuration", nil},
	{"a proxy that has not answered yet", func(w *world) {
		w.a().Istiods[0].Behind = []string{"client: Listener not acknowledged"}
	}, "", nil},
	{"injection in A only", func(w *world) { w.b().Namespaces[0].Injected = false }, "injection-differs", nil},
	{"another port in B", func(w *world) { w.b().Services[0].Ports = []string{"8080/TCP http"} }, "service-ports-differ", nil},
	{"a service in A only", func(w *world) { w.b().Services = nil }, "service-one-side", nil},
	{"two versions", func(w *world) { w.b().Proxies[0].Version = "1.30" }, "istio-versions-differ", nil},
	{"a proxy that is too old", func(w *world) {
		for _, c := range w.Clusters {
			for i := range c.Proxies {
				c.Proxies[i].Version = "1.28.3-distroless"
			}
		}
	}, "version-skew", nil},
	{"two versions in one workload", func(w *world) {
		p := w.b().Proxies[0]
		p.Pod, p.Version = "client-2", "1.30"
		w.b().Proxies = append(w.b().Proxies, p)
	}, "proxies-of-mixed-age", nil},
	{"two mesh ids", func(w *world) { w.b().Proxies[0].MeshID = "mesh2" }, "mesh-id-differs", nil},
	{"a call of the probe failed", func(w *world) {
		w.Calls = []facts.Call{{From: "cluster-a", To: "cluster-b", URL: "http://x", Code: "503", Err: "status 503"}}
	}, "probe-failed", nil},
}

func TestFindings(t *testing.T) {
	covered := map[string]bool{}
	type one = struct {
		name    string
		breaks  func(w *world)
		finds   string
		effects []string
	}
	check := func(c one, mesh func(testing.TB) *world) {
		t.Run(c.name, func(t *testing.T) {
			w := mesh(t)
			c.breaks(w)
			r := Examine(w.Facts)
			if c.finds == "" {
				require.Empty(t, r.Findings, tops(r))
				require.True(t, r.Complete(), r.Unread)
				return
			}
			require.NotEmpty(t, r.Findings)
			require.Equal(t, c.finds, r.Findings[0].ID)
			for _, other := range r.Findings[1:] { // two findings can say the same of one thing, where one is for the reader only
				require.Equal(t, findings.Info, other.Severity, "nothing else is blamed: %s", tops(r))
			}
			f := r.Findings[0]
			covered[f.ID] = true
			assert.NotEmpty(t, f.Evidence)
			assert.NotEmpty(t, f.Clusters)
			assert.NotEmpty(t, f.Says)
			effects := effectsOf(f)
			for _, e := range effects {
				covered[e] = true
			}
			assert.Subset(t, effects, c.effects)
			if f.ID == "cacerts-chain-empty" {
				assert.Len(t, effects, 1, "the roots are right: %v", effects)
			}
		})
	}
	for _, c := range cases {
		check(c, healthy)
	}
	for _, c := range upgrades {
		check(c, upgraded)
	}
	check(one{"the new istiod is not exposed to the other cluster", func(w *world) {
		w.a().Routes = w.a().Routes[:1]
	}, "istiod-not-exposed", nil}, remoteUpgraded)
	for _, k := range findings.All() {
		assert.True(t, covered[k.ID], "no case finds %s", k.ID)
	}
}

// upgrades are ways to break a mesh that is being upgraded by revision.
var upgrades = []struct {
	name    string
	breaks  func(w *world)
	finds   string
	effects []string
}{
	{"the old istiod is removed while its pods and labels are there", func(w *world) {
		w.remove(0, "default")
	}, "proxies-without-istiod", []string{"tag-leads-nowhere", "validation-leads-nowhere"}},
	{"the old istiod is scaled down while its pods and labels are there", func(w *world) {
		w.a().Istiods = w.a().Istiods[1:]
		w.silence(0, "default")
	}, "istiod-down", []string{"tag-leads-nowhere", "validation-leads-nowhere"}},
	{"the old istiod is removed, and the tag default was never set", func(w *world) {
		w.move(0, "client", "echo", "istio-eastwestgateway")
		w.tag(0, "prod", "1-31")
		w.remove(0, "default")
		w.a().Webhooks = slices.DeleteFunc(w.a().Webhooks, func(h facts.Webhook) bool {
			return h.Revision == "default" && h.Name != "istiod-default-validator"
		})
	}, "validation-leads-nowhere", nil},
	{"only the validator of the old revision is left", func(w *world) {
		w.move(0, "client", "echo", "istio-eastwestgateway")
		w.tag(0, "default", "1-31")
		w.remove(0, "default")
		w.a().Webhooks = slices.DeleteFunc(w.a().Webhooks, func(h facts.Webhook) bool { return h.Revision == "default" && !h.Narrow })
	}, "validation-leads-nowhere", nil},
	{"a tag leads to a revision that was never there", func(w *world) {
		w.tag(0, "prod", "1-29")
		w.silence(0, "1-29")
	}, "tag-leads-nowhere", nil},
	{"a tag leads through a Service to an istiod that is not there", func(w *world) {
		w.tag(0, "prod", "1-29")
	}, "tag-leads-nowhere", nil},
	{"a namespace has a label that nobody knows", func(w *world) {
		w.a().Webhooks[0].Injects = nil
		w.a().Namespaces[0].Injection, w.a().Namespaces[0].Revision = "", "1-32"
		w.b().Namespaces[0].Injection, w.b().Namespaces[0].Revision = "", "1-32"
	}, "tag-leads-nowhere", nil},
	{"both labels", func(w *world) { w.a().Namespaces[0].Revision = "1-31" }, "injection-labels-contradict", nil},
	{"a proxy newer than its istiod", func(w *world) { w.a().Proxies[0].Version = "1.31.0" }, "version-skew", nil},
	{"a proxy three minors older than the new istiod", func(w *world) {
		for n := range w.a().Proxies {
			if p := &w.a().Proxies[n]; p.Workload == "client" {
				p.Version = "1.28.9"
			}
		}
	}, "version-skew", nil},
	{"a second gateway of the new revision", func(w *world) {
		w.second(func(g *facts.Gateway) { g.Revisions, g.Versions = []string{"1-31"}, []string{"1.30.4"} })
		w.a().Istiods[1].Networks = w.a().Istiods[0].Networks
	}, "gateways-of-two-revisions", nil},
	{"a second gateway of another version", func(w *world) {
		w.second(func(g *facts.Gateway) { g.Versions = []string{"1.30.3"} })
		w.a().Istiods[1].Networks = w.a().Istiods[0].Networks
	}, "gateways-of-two-revisions", nil},
	{"the new istiod has not found cacerts, and nobody uses it", func(w *world) {
		w.back()
		w.newRevisionSigns(selfSigned(w, 0))
		w.a().CACerts = nil
	}, "revision-without-root", []string{"root-configmap-foreign"}},
	{"the new istiod has not found cacerts, and pods use it", func(w *world) {
		own, good := selfSigned(w, 0), w.ca[0]
		w.newRevisionSigns(own)
		w.a().CACerts = nil
		w.ca[0] = own
		roots := w.a().Namespaces[0].Roots
		w.a().Namespaces[0].Roots = w.roots(own)
		w.move(0, "client")
		w.ca[0], w.a().Namespaces[0].Roots = good, roots
	}, "revision-without-root", []string{"disjoint-roots", "root-configmap-foreign"}},
	{"the new istiod has found cacerts, which came late", func(w *world) {
		good, old := w.ca[0], selfSigned(w, 0)
		other := w.a().Istiods[1]
		hooks := w.a().Webhooks
		w.sign(0, old)
		hooks[0].Roots = w.roots(old)
		w.a().Webhooks = hooks
		w.start(0, "client", "echo")
		for n := range w.a().Proxies {
			if w.a().Proxies[n].Revision == "default" {
				w.a().Proxies[n].Version = "1.30.4"
			}
		}
		w.ca[0], w.a().Istiods[1] = good, other
	}, "late-cacerts", []string{"revision-without-root"}},
	{"the new istiod does not accept the trust domain of B", func(w *world) {
		w.b().Settings.TrustDomain, w.b().Settings.Aliases = "b.example", []string{"cluster.local"}
		w.start(1, "client", "echo")
		for n := range w.b().Proxies {
			w.b().Proxies[n].Version = "1.30.4"
		}
		w.a().Istiods[0].Settings = facts.MeshSettings{Read: true, TrustDomain: "cluster.local", Aliases: []string{"b.example"}}
		w.a().Istiods[1].Settings = facts.MeshSettings{Read: true, TrustDomain: "cluster.local"}
	}, "trust-domain-not-accepted", nil},
	{"the new istiod is not in sync", func(w *world) {
		w.a().Istiods[1].Clusters = map[string]string{"cluster-a": "synced"}
	}, "remote-cluster-not-synced", nil},
	{"the old istiod has a proxy that refuses", func(w *world) {
		w.a().Istiods[0].Behind = []string{"echo: Listener refused: x"}
	}, "proxy-refuses-configuration", nil},
	{"the new istiod, which nobody uses, does not become Ready", func(w *world) {
		w.back()
		w.a().Istiods[1] = facts.Istiod{Pod: "istiod-1-31-x", Revision: "1-31", Created: w.Taken.Add(-time.Minute), State: "not ready"}
		w.silence(0, "1-31")
	}, "istiod-not-ready", nil},
	{"the new istiod, which pods use, is not Ready", func(w *world) {
		w.a().Istiods[1] = facts.Istiod{Pod: "istiod-1-31-x", Revision: "1-31", Created: w.Taken.Add(-time.Minute), State: "not ready"}
		w.silence(0, "1-31")
	}, "istiod-down", nil},
	{"the injector of the new revision has another caBundle", func(w *world) {
		w.a().Webhooks[3].Roots = w.roots(newRoot(w, pki.Options{Name: "foreign"}))
	}, "webhook-bundle-stale", nil},
}

// back undoes that pods of cluster-a have moved.
func (w *world) back() {
	for n := range w.a().Proxies {
		w.a().Proxies[n].Revision, w.a().Proxies[n].Version = "default", "1.30.4"
	}
	w.a().Gateways[0].Revisions, w.a().Gateways[0].Versions = []string{"default"}, []string{"1.30.4"}
}

// newRevisionSigns makes the new istiod of cluster-a sign with another CA.
func (w *world) newRevisionSigns(ca *pki.CA) {
	w.a().Istiods[1].Signer = w.leaf(ca, pki.LeafOptions{DNSNames: []string{"istiod-1-31.istio-system.svc"}, Server: true})
	w.a().Webhooks[3].Roots = w.roots(ca)
}

// An upgrade by revision is healthy at every step: only information is found.
func TestHealthyUpgrades(t *testing.T) {
	everything := []string{"client", "echo", "istio-eastwestgateway"}
	for name, step := range map[string]func(w *world){
		"two istiods, some pods moved": func(*world) {},
		"only the new istiod came":     func(w *world) { w.back() },
		"both istiods accept a trust domain that the old ConfigMap does not have": func(w *world) {
			w.b().Settings.TrustDomain, w.b().Settings.Aliases = "b.example", []string{"cluster.local"}
			w.start(1, everything...)
			for n := range w.b().Proxies {
				w.b().Proxies[n].Version = "1.30.4"
			}
			for n := range w.a().Istiods {
				w.a().Istiods[n].Settings = facts.MeshSettings{Read: true, TrustDomain: "cluster.local", Aliases: []string{"b.example"}}
			}
		},
		"the new istiod starts": func(w *world) {
			w.back()
			w.a().Istiods[1] = facts.Istiod{Pod: "istiod-1-31-x", Revision: "1-31", Created: w.Taken.Add(-5 * time.Second)}
			w.silence(0, "1-31")
		},
		"the tag moved": func(w *world) { w.tag(0, "default", "1-31") },
		"the namespace has the label of the revision": func(w *world) {
			w.a().Namespaces[0].Injection, w.a().Namespaces[0].Revision = "", "1-31"
			w.a().Webhooks[0].Injects, w.a().Webhooks[3].Injects = nil, []string{"production"}
		},
		"a pod has the label of a tag": func(w *world) {
			w.tag(0, "prod", "1-31")
			w.a().Proxies[1].Revision = "prod"
		},
		"everything moved, the old istiod has no pod": func(w *world) {
			w.move(0, everything...)
			w.tag(0, "default", "1-31")
			w.a().Istiods = w.a().Istiods[1:]
			w.silence(0, "default")
		},
		"everything moved, the old one is gone": func(w *world) {
			w.move(0, everything...)
			w.tag(0, "default", "1-31")
			w.remove(0, "default")
			w.a().Webhooks = slices.DeleteFunc(w.a().Webhooks, func(h facts.Webhook) bool { return h.Revision == "default" })
		},
		"a gateway is being rolled out": func(w *world) {
			w.a().Gateways[0].Revisions, w.a().Gateways[0].Versions = []string{"1-31", "default"}, []string{"1.30.4", "1.31.0"}
		},
		"both clusters": func(w *world) {
			w.canary(1)
			w.move(1, everything...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := upgraded(t)
			step(w)
			r := Examine(w.Facts)
			for _, f := range r.Findings {
				assert.Equal(t, findings.Info, f.Severity, "%s: %s", f.ID, f.Says)
			}
			assert.True(t, r.Complete(), r.Unread)
			assert.Equal(t, "cluster-a", r.Clusters[0].ServedBy)
		})
	}
}

// Two revisions in a cluster are told apart, and what they share is told once.
func TestRevisionsAreToldApart(t *testing.T) {
	all := func(w *world) (ids []string, r Report) {
		r = Examine(w.Facts)
		for _, f := range r.Findings {
			ids = append(append(ids, f.ID), effectsOf(f)...)
		}
		return ids, r
	}
	w := upgraded(t)
	_, r := all(w)
	var istiods []string
	for _, i := range r.Identities {
		if i.SPIFFE == "" {
			istiods = append(istiods, i.Who)
		}
	}
	assert.Equal(t, []string{"istiod-1-31-x", "istiod-a", "istiod-b"}, istiods)

	w.a().Namespaces[0].Revision = "1-31"
	ids, _ := all(w)
	assert.NotContains(t, ids, "revision-differs", "the label that does nothing does not differ, either")

	w = upgraded(t)
	own := selfSigned(w, 0)
	w.newRevisionSigns(own)
	w.a().CACerts = nil
	ids, r = all(w)
	assert.NotContains(t, ids, "webhook-bundle-stale", "each injector is verified with the root of its own istiod")
	assert.NotContains(t, fmt.Sprint(r.Findings), "cluster-a does not trust cluster-a", "they are compared by what they sign with")
	assert.Contains(t, r.Findings[0].Says, "istiod 1-31 of cluster-a does not have the root of istiod default")
	for n := range w.a().Namespaces { // while a bundle of both roots is handed out, nothing is split
		w.a().Namespaces[n].Roots = w.roots(w.root, own)
	}
	ids, _ = all(w)
	assert.NotContains(t, ids, "revision-without-root")

	w = primary(t)
	w.canary(0)
	old := selfSigned(w, 0)
	w.sign(0, old)
	w.a().Istiods[1].Signer, w.a().CACerts = w.a().Istiods[0].Signer, nil
	w.ca[1] = old
	w.start(0, "client", "echo", "istio-eastwestgateway")
	w.start(1, "client", "echo", "istio-eastwestgateway")
	for n := range w.b().Proxies {
		w.b().Proxies[n].Roots = w.roots(old)
	}
	r = Examine(w.Facts)
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.ID == "self-signed-ca" })
	require.GreaterOrEqual(t, i, 0, tops(r))
	assert.Equal(t, findings.Info, r.Findings[i].Severity, "two revisions of one control plane share their CA with nobody")
}

// An istiod that serves two clusters is upgraded: the remote one has a Service of each revision, and no istiod.
func TestHealthyUpgradeOfPrimaryAndRemote(t *testing.T) {
	w := remoteUpgraded(t)
	r := Examine(w.Facts)
	for _, f := range r.Findings {
		assert.Equal(t, findings.Info, f.Severity, "%s: %s", f.ID, f.Says)
	}
	assert.True(t, r.Complete(), r.Unread)
	assert.Equal(t, "cluster-a", r.Clusters[1].ServedBy)
	assert.Len(t, r.Reads, 2, "what each of the two istiods knows about cluster-b")
	assert.Equal(t, []string{"1-31", "default"}, []string{r.Reads[0].Revision, r.Reads[1].Revision})

	w.a().Remotes = nil
	var missing Finding
	for _, f := range Examine(w.Facts).Findings {
		if f.ID == "remote-secret-missing" {
			missing = f
		}
	}
	assert.Equal(t, "istiod of cluster-a has no access to cluster-b", missing.Says, "said once, though two istiods read the Secret")
	assert.Len(t, missing.Evidence, 1)

	w.remove(0, "1-31") // the Service in cluster-b still leads to the gateway of cluster-a
	r = Examine(w.Facts)
	require.NotEmpty(t, r.Findings)
	f := r.Findings[0]
	assert.Equal(t, "proxies-without-istiod", f.ID)
	assert.Equal(t, []string{"cluster-a", "cluster-b"}, f.Clusters)
	assert.Contains(t, effectsOf(f), "tag-leads-nowhere")
}

func effectsOf(f Finding) (ids []string) {
	for _, e := range f.Effects {
		ids = append(ids, e.ID)
	}
	return ids
}

func tops(r Report) (ids []string) {
	for _, f := range r.Findings {
		ids = append(ids, f.ID+": "+f.Says)
	}
	return ids
}

// second adds another gateway to cluster-b: a Service of type LoadBalancer with an address and pods of its own, which istiod
// gives out like the first.
func (w *world) second(change func(g *facts.Gateway)) {
	g := gateway(1, "eastwest-2", "192.0.2.3")
	change(&g)
	w.b().Gateways = append(w.b().Gateways, g)
	w.a().Tried = append(w.a().Tried, facts.Tried{From: "production/client", Address: "192.0.2.3:15443"})
	for i := range w.Clusters {
		networks := &w.Clusters[i].Istiods[0].Networks
		*networks = append(*networks, facts.NetworkGateway{Network: "network-b", Cluster: "cluster-b", Addr: "192.0.2.3", Port: 15443})
	}
}

// Where a cluster has several gateways, a broken one costs its share of the connections, and no more.
func TestOneOfSeveralGateways(t *testing.T) {
	const (
		fails = "New connections from other networks fail in part."
		half  = "about half of the new connections to cluster-b from other networks fail"
	)
	for _, test := range []struct {
		name      string
		breaks    func(w *world)
		id        findings.ID
		severity  findings.Severity
		says, now string
	}{
		{"no pod", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Pods, g.Looked = 0, false })
			w.a().Tried[1].Err = "it was refused"
		}, findings.GatewayPodAbsent, findings.Error, half, fails},
		{"the first has no pod", func(w *world) {
			w.second(func(*facts.Gateway) {})
			w.b().Gateways[0].Pods, w.b().Gateways[0].Looked = 0, false
		}, findings.GatewayPodAbsent, findings.Error, "istio-system/istio-eastwestgateway of cluster-b is Ready: " + half, fails},
		{"no pod behind one of three", func(w *world) {
			w.second(func(*facts.Gateway) {})
			g := gateway(1, "eastwest-3", "192.0.2.4")
			g.Pods = 0
			w.b().Gateways = append(w.b().Gateways, g)
		}, findings.GatewayPodAbsent, findings.Error, "about 1 of 3 of the new connections", fails},
		{"it is not exposed", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Selector, g.Listens = map[string]string{"istio": "other"}, false })
		}, findings.GatewayObjectMissing, findings.Error, half, fails},
		{"it does not listen", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Listens = false })
		}, findings.GatewayNotListening, findings.Error, half, fails},
		{"it passes nothing on", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Refuses = "outbound_.80_._.echo: reset" })
		}, findings.GatewayPassesNothing, findings.Error, half, fails},
		{"it is blocked", func(w *world) {
			w.second(func(*facts.Gateway) {})
			w.a().Tried[1].Err = "there was no answer within 2 s"
		}, findings.GatewayUnreachable, findings.Error, "192.0.2.3:15443 of cluster-b, so about half of their new connections fail", fails},
		{"it is blocked, where nobody can try", func(w *world) {
			w.second(func(*facts.Gateway) {})
			w.a().Tried = nil
			w.a().Proxies[0].Through, w.a().Proxies[1].Failing = []string{"192.0.2.2:15443"}, []string{"192.0.2.3:15443"}
		}, findings.GatewayUnreachable, findings.Error, "192.0.2.3:15443, one of the gateways of cluster-b", fails},
		{"no address", func(w *world) {
			w.b().Gateways = append(w.b().Gateways, gateway(1, "eastwest-2", ""))
			w.b().Gateways[1].Addresses, w.b().Gateways[1].Pods = nil, 0
		}, findings.GatewayNoAddress, findings.Warning, "eastwest-2 of cluster-b has no address", "No call fails."},
		{"all of them without pods", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Pods = 0 })
			w.b().Gateways[0].Pods = 0
		}, findings.GatewayPodAbsent, findings.Error, "eastwest-2 of cluster-b is Ready", "Nothing from other networks gets in."},
		{"the one with pods has no address", func(w *world) {
			w.second(func(g *facts.Gateway) { g.Pods = 0 })
			w.b().Gateways[0].Addresses = nil
			w.a().Tried = w.a().Tried[1:]
		}, findings.GatewayPodAbsent, findings.Error, "eastwest-2 of cluster-b is Ready", "Nothing from other networks gets in."},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := healthy(t)
			test.breaks(w)
			r := Examine(w.Facts)
			require.NotEmpty(t, r.Findings)
			f := r.Findings[0]
			assert.Equal(t, test.id.String(), f.ID, f.Says)
			assert.Equal(t, test.severity, f.Severity)
			assert.Contains(t, f.Says, test.says)
			assert.Contains(t, f.Now, test.now)
			for _, other := range r.Findings[1:] {
				assert.NotEqual(t, findings.Error, other.Severity, "nothing else is blamed: %s", tops(r))
			}
			assert.True(t, r.Complete(), r.Unread)
		})
	}
	w := healthy(t)
	w.second(func(*facts.Gateway) {})
	r := Examine(w.Facts)
	assert.Empty(t, r.Findings, "two gateways that work: %s", tops(r))
}

// Two clusters on one network have a gateway each: pods are reached only through that of their own cluster.
func TestGatewaysOfTwoClustersOnOneNetwork(t *testing.T) {
	w := healthy(t)
	third := *w.b()
	third.Context, third.ID, third.UID = "cluster-c", "cluster-c", "uid-c"
	third.IstiodDeployed, third.Istiods, third.Remotes, third.CACerts = false, nil, nil, nil
	third.Gateways = []facts.Gateway{gateway(1, "istio-eastwestgateway", "192.0.2.3")}
	w.Clusters = append(w.Clusters, third)
	w.b().Istiods[0].Serves["cluster-c"] = 3
	for i := range 2 {
		c := &w.Clusters[i]
		c.Istiods[0].Clusters["cluster-c"] = "synced"
		c.Remotes = append(c.Remotes, facts.RemoteSecret{Name: "c", ID: "cluster-c", Server: "https://192.0.2.10:6443", UID: "uid-c"})
		for _, endpoints := range c.Istiods[0].Endpoints {
			endpoints["cluster-c"] = 1
		}
	}
	w.a().Tried = append(w.a().Tried, facts.Tried{From: "production/client", Address: "192.0.2.3:15443"})
	r := Examine(w.Facts)
	require.Empty(t, r.Findings, tops(r))

	w.Clusters[2].Gateways[0].Pods = 0
	f := Examine(w.Facts).Findings[0]
	assert.Equal(t, "gateway-pod-absent", f.ID)
	assert.Equal(t, findings.GatewayPodAbsent.Doc().Now, f.Now, "that of cluster-b is no way to the pods of cluster-c")

	w.Clusters[2].Gateways[0].Addresses = nil
	f = Examine(w.Facts).Findings[0]
	assert.Equal(t, "gateway-no-address", f.ID)
	assert.Equal(t, findings.Warning, f.Severity, "without an address istiod gives out that of cluster-b")

	w.Clusters[2].Gateways = []facts.Gateway{gateway(1, "istio-eastwestgateway", "192.0.2.3")}
	w.a().Tried[1].Err = "there was no answer within 2 s"
	f = Examine(w.Facts).Findings[0]
	assert.Equal(t, "gateway-unreachable", f.ID)
	assert.Equal(t, "proxies of cluster-a cannot connect to the gateway of cluster-c", f.Says)
	assert.Equal(t, []string{"cluster-a", "cluster-c"}, f.Clusters)
	assert.Equal(t, findings.GatewayUnreachable.Doc().Now, f.Now)
}

func TestMatrix(t *testing.T) {
	pair := func(r Report, from, to string) Pair {
		return r.Trust[slices.IndexFunc(r.Trust, func(p Pair) bool { return p.From == from && p.To == to })]
	}
	w := healthy(t)
	r := Examine(w.Facts)
	require.Len(t, r.Trust, 4)
	for _, p := range r.Trust {
		assert.Equal(t, WorksAll, p.Works, p)
		assert.Empty(t, p.Grow)
	}
	w.b().Settings.TrustDomain, w.b().Settings.Aliases = "b.example", []string{"cluster.local"}
	w.start(1, "client", "echo")
	r = Examine(w.Facts)
	assert.Equal(t, WorksAll, pair(r, "cluster-a", "cluster-b").Works)
	p := pair(r, "cluster-b", "cluster-a")
	assert.Equal(t, WorksNone, p.Works)
	assert.Equal(t, "trustDomainAliases of cluster-a must get b.example", p.Grow)

	w = healthy(t)
	own := below(t, newRoot(t, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
	w.sign(1, own)
	w.start(1, "client")
	r = Examine(w.Facts)
	assert.Equal(t, WorksSome, pair(r, "cluster-a", "cluster-b").Works)
	assert.Contains(t, pair(r, "cluster-a", "cluster-b").Grow, `the roots of cluster-a must get that of cluster-b, "own"`)
}

// A check that could not look is never green.
func TestUnreadIsUnknown(t *testing.T) {
	for _, part := range facts.Parts() {
		if part == facts.Remote {
			continue // no check needs it: where a remote server does not answer here, istiod's own status counts
		}
		w := healthy(t)
		w.Unread = []facts.Unread{{Cluster: "cluster-b", Part: part, Why: "forbidden"}}
		r := Examine(w.Facts)
		assert.False(t, r.Complete(), part)
		for _, c := range r.Checks {
			id, ok := findings.Find(c.ID)
			require.True(t, ok, c.ID)
			needs := part == facts.APIServer || slices.Contains(id.Doc().Needs, part)
			assert.Equal(t, needs, c.State == StateUnknown, "%s without %s", c.ID, part)
		}
	}
	w := healthy(t)
	w.a().Tried = nil
	r := Examine(w.Facts)
	assert.Empty(t, r.Findings, "it may be open")
	assert.False(t, r.Complete())
	w = healthy(t)
	w.a().Remotes[0].Problem = "it was not tried: it runs a program to log in"
	w.a().Remotes[0].UID = ""
	assert.Empty(t, Examine(w.Facts).Findings)
}

// primary is a mesh in which the istiod of cluster-a serves both clusters.
func primary(t testing.TB) *world {
	t.Helper()
	w := healthy(t)
	b := w.b()
	b.IstiodDeployed, b.IstiodService, b.Istiods, b.CACerts, b.Remotes, b.Exposed = false, "", nil, nil, nil, nil
	b.Settings = facts.MeshSettings{TrustDomain: "cluster.local"}
	w.ca[1] = w.ca[0]
	w.start(1, "client", "echo", "istio-eastwestgateway")
	for n := range b.Proxies {
		b.Proxies[n].Roots = w.a().Namespaces[0].Roots
	}
	w.a().Istiods[0].Serves = map[string]int{"cluster-a": 3, "cluster-b": 3}
	return w
}

// remoteUpgraded is such a mesh in the middle of its upgrade: what is in cluster-b has the new revision, which is exposed to it.
func remoteUpgraded(t testing.TB) *world {
	t.Helper()
	w := primary(t)
	w.canary(0)
	w.move(0, "client")
	w.move(1, "client", "istio-eastwestgateway")
	for n := range w.b().Proxies {
		w.b().Proxies[n].Roots = w.a().Namespaces[0].Roots
	}
	w.tag(1, "default", "1-31")
	w.b().Webhooks = slices.DeleteFunc(w.b().Webhooks, func(h facts.Webhook) bool { return h.Validates })
	for n := range w.b().Webhooks {
		w.b().Webhooks[n].Leads = w.a().Gateways[0].Addresses
	}
	w.a().Routes = []facts.IstiodRoute{
		{Name: "istio-system/istiod", Hosts: []string{"*"}, Service: "istiod"},
		{Name: "istio-system/istiod-1-31", Hosts: []string{"istiod-1-31.istio-system.svc"}, Service: "istiod-1-31"},
	}
	return w
}

// Other topologies are well, too: one istiod for both clusters, and one that runs in a third.
func TestHealthyTopologies(t *testing.T) {
	w := primary(t)
	r := Examine(w.Facts)
	assert.Empty(t, r.Findings, tops(r))
	assert.True(t, r.Complete())
	assert.Equal(t, "cluster-a", r.Clusters[1].ServedBy)
	assert.Len(t, r.Trust, 4)
	w.a().Remotes = nil
	assert.Equal(t, "remote-secret-missing", Examine(w.Facts).Findings[0].ID)

	w = primary(t)
	w.a().Istiods = nil // nobody says any more whom it serves
	r = Examine(w.Facts)
	require.Len(t, r.Findings, 1, tops(r))
	assert.Equal(t, "istiod-down", r.Findings[0].ID)
	assert.Equal(t, []string{"cluster-a", "cluster-b"}, r.Findings[0].Clusters)
	assert.Equal(t, "cluster-a", r.Clusters[1].ServedBy)

	w = primary(t)
	a := w.a()
	external := facts.Cluster{
		Context: "external", UID: "uid-x", IstiodDeployed: true, IstiodService: "istiod", Istiods: a.Istiods, CACerts: a.CACerts,
		Settings: a.Settings, Remotes: a.Remotes,
	}
	external.Istiods[0].Env["LOCAL_CLUSTER_SECRET_WATCHER"] = "true"
	a.IstiodDeployed, a.IstiodService, a.Istiods, a.CACerts, a.Remotes = false, "", nil, nil, nil
	w.Clusters = append(w.Clusters, external)
	for _, id := range []string{"", "external"} { // with and without proxies of another mesh beside it
		w.Clusters[2].ID = id
		r = Examine(w.Facts)
		assert.Empty(t, r.Findings, tops(r))
		assert.Equal(t, []string{"external", "external", ""}, []string{r.Clusters[0].ServedBy, r.Clusters[1].ServedBy, r.Clusters[2].ServedBy})
		assert.Len(t, r.Trust, 4)
	}
	w.Clusters[2].Deployed = []string{"1-31", "default"}
	r = Examine(w.Facts)
	assert.Empty(t, r.Findings, "a revision beside it, of which nobody knows yet where it reads its Secrets: %s", tops(r))
	w.Clusters[2].Deployed = nil
	w.Clusters[2].Istiods = nil
	r = Examine(w.Facts)
	require.NotEmpty(t, r.Findings)
	assert.Equal(t, "istiod-down", r.Findings[0].ID)
}

// What is gathered of Secrets can be shared.
func TestNoKeysInFacts(t *testing.T) {
	w := healthy(t)
	data := w.cacerts(w.ca[0], nil)
	key := slices.Clone(data[pki.CAKeyFile])
	data[pki.CRLFile] = key // people mix up files
	data[pki.RootCertFile] = append(slices.Clone(key), data[pki.RootCertFile]...)
	w.secret(0, data)
	text, err := json.Marshal(w.Facts)
	require.NoError(t, err)
	report, err := json.Marshal(Examine(w.Facts))
	require.NoError(t, err)
	for _, out := range [][]byte{text, report} {
		assert.NotContains(t, string(out), "PRIVATE KEY-----")
		body := bytes.Split(key, []byte("\n"))[1]
		assert.NotContains(t, string(out), string(body))
	}
	assert.NotContains(t, string(data[pki.CAKeyFile]), "PRIVATE", "it was looked at and cleared")
}

// BenchmarkExamine examines two clusters with this many proxies in the sample.
func BenchmarkExamine(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := healthy(b)
			for i := range w.Clusters {
				for j := range n / 2 {
					p := w.Clusters[i].Proxies[0]
					p.Pod = fmt.Sprint("pod", j)
					client := pki.LeafOptions{Client: true, URIs: []string{"spiffe://cluster.local/ns/production/sa/client"}}
					p.Chain = append(w.leaf(w.ca[i], client), p.Chain[1:]...)[:3]
					w.Clusters[i].Proxies = append(w.Clusters[i].Proxies, p)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				require.Empty(b, Examine(w.Facts).Findings)
			}
		})
	}
}
