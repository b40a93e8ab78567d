package doctor

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

// world makes facts of a mesh of two control planes with real certificates: cluster 0 is cluster-a.
type world struct {
	testing.TB
	Facts
	root *pki.CA
	ca   [2]*pki.CA // that sign for the clusters
	s    *store
	pods int
}

func (w *world) a() *Cluster { return &w.Clusters[0] }
func (w *world) b() *Cluster { return &w.Clusters[1] }

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

func newRoot(t testing.TB, o pki.Options) *pki.CA {
	t.Helper()
	return must[*pki.CA](t)(pki.NewRoot(o))
}

func below(t testing.TB, root *pki.CA, o pki.Options) *pki.CA {
	t.Helper()
	return must[*pki.CA](t)(root.Intermediate(o))
}

// healthy is a mesh in which nothing is wrong.
func healthy(t testing.TB) *world {
	w := &world{TB: t, Facts: Facts{Taken: time.Now().UTC(), Certificates: map[string][]byte{}}}
	w.s = &store{facts: &w.Facts}
	w.root = newRoot(t, pki.Options{Name: "root"})
	for i, letter := range []string{"a", "b"} {
		w.ca[i] = below(t, w.root, pki.Options{Name: "intermediate " + letter})
		other := []string{"b", "a"}[i]
		w.Clusters = append(w.Clusters, Cluster{
			Context: "cluster-" + letter, ID: "cluster-" + letter, UID: "uid-" + letter, Network: "network-" + letter, Version: "v1.36.1",
			IstiodDeployed: true,
			Istiods: []Istiod{{
				Pod: "istiod-" + letter, Version: "1.31", Ready: true, Created: w.Taken.Add(-time.Hour), Env: map[string]string{"CLUSTER_ID": "cluster-" + letter}, Read: true,
				Clusters:  map[string]string{"cluster-a": "synced", "cluster-b": "synced"},
				Serves:    map[string]int{"cluster-" + letter: 3},
				Networks:  []NetworkGateway{{"network-a", "cluster-a", "192.0.2.1", 15443}, {"network-b", "cluster-b", "192.0.2.2", 15443}},
				Endpoints: map[string]map[string]int{"production/echo.production.svc.cluster.local": {"cluster-a": 1, "cluster-b": 1}, "production/client.production.svc.cluster.local": {"cluster-a": 1, "cluster-b": 1}},
				Placed:    map[string]map[string]int{"cluster-a": {"network-a": 1}, "cluster-b": {"network-b": 1}},
			}},
			Settings:   MeshSettings{Read: true, TrustDomain: "cluster.local", RootNamespace: "istio-system"},
			Namespaces: []Namespace{{Name: "production", Injected: true, HasRoot: true}, {Name: "istio-system", HasRoot: true}},
			Remotes:    []RemoteSecret{{Name: "istio-remote-secret-cluster-" + other, ID: "cluster-" + other, Server: "https://192.0.2.9:6443", UID: "uid-" + other}},
			Gateways: []Gateway{{Namespace: "istio-system", Name: "istio-eastwestgateway", Network: "network-" + letter, Type: "LoadBalancer", Port: 15443, Pods: 1,
				Addresses: []string{fmt.Sprintf("192.0.2.%d", i+1)}, Looked: true, Listens: true, Labels: map[string]string{"istio": "eastwestgateway"}}},
			Exposed:  []Exposed{{Name: "istio-system/cross-network-gateway", Selector: map[string]string{"istio": "eastwestgateway"}, Hosts: []string{"*.local"}, Port: 15443}},
			Services: []Service{{Namespace: "production", Name: "echo", Ports: []string{"80/TCP http"}}},
			Tried:    []Tried{{From: "production/client", Address: fmt.Sprintf("192.0.2.%d:15443", 2-i)}},
			Config:   []Config{{Kind: "PeerAuthentication", Name: "istio-system/default", Hash: "1"}},
		})
		w.sign(i, w.ca[i])
		w.secret(i, must[map[string][]byte](t)(w.ca[i].CACerts()))
		w.start(i, "client", "echo", "istio-eastwestgateway")
	}
	return w
}

// forget makes the istiod of cluster-a know no endpoint of cluster-b.
func (w *world) forget() {
	for _, its := range w.a().Istiods[0].Endpoints {
		its["cluster-b"] = 0
	}
}

// watch makes the istiod of cluster-a fail to read cluster-b, from and until so long ago.
func (w *world) watch(first, last time.Duration) {
	w.a().Istiods[0].Watches = map[string]Watch{"cluster-b": {w.Taken.Add(-first), w.Taken.Add(-last), "connection refused"}}
}

// roots are those of CAs, as names in the facts.
func (w *world) roots(of ...*pki.CA) []string {
	var certs []*x509.Certificate
	for _, ca := range of {
		certs = append(certs, ca.Root())
	}
	return w.s.keep(certs)
}

// sign makes the istiod of a cluster sign with a CA and hand out roots, those of the CA if none are given.
func (w *world) sign(i int, ca *pki.CA, roots ...*pki.CA) {
	w.ca[i] = ca
	if len(roots) == 0 {
		roots = []*pki.CA{ca}
	}
	c := &w.Clusters[i]
	c.Istiods[0].Signer = w.leaf(ca, pki.LeafOptions{DNSNames: []string{"istiod.istio-system.svc"}, Server: true})
	for n := range c.Namespaces {
		c.Namespaces[n].Roots = w.roots(roots...)
	}
	c.Webhooks = []Webhook{{"istio-sidecar-injector", w.roots(ca)}}
}

// leaf is a certificate with its chain and the root, as istiod hands it out.
func (w *world) leaf(ca *pki.CA, o pki.LeafOptions) []string {
	if o.NotBefore.IsZero() && w.Taken.After(ca.Certificate().NotAfter) {
		o.NotBefore = w.Taken.Add(-time.Hour)
	}
	data, _, err := ca.Leaf(o)
	require.NoError(w, err)
	return append(must[[]string](w)(w.s.pem(data)), w.roots(ca)...)
}

// secret writes cacerts.
func (w *world) secret(i int, data map[string][]byte) {
	w.Clusters[i].CACerts = (&reader{store: w.s}).public(&corev1.Secret{Data: data, ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(w.Taken.Add(-2 * time.Hour))}})
}

// start makes the pods of workloads anew: with a certificate of the CA and the roots that istiod hands out now.
func (w *world) start(i int, workloads ...string) {
	w.startWith(i, pki.LeafOptions{}, workloads...)
}

func (w *world) startWith(i int, o pki.LeafOptions, workloads ...string) {
	c := &w.Clusters[i]
	for _, name := range workloads {
		space := "production"
		if name == "istio-eastwestgateway" {
			space = "istio-system"
		}
		its := o
		its.Client, its.URIs = true, []string{"spiffe://" + c.Settings.TrustDomain + "/ns/" + space + "/sa/" + name}
		p := Proxy{
			Namespace: space, Pod: name, Workload: name, Created: w.next(), Ready: true, Gateway: name == "istio-eastwestgateway",
			Version: "1.31", Cluster: c.ID, Network: c.Network, MeshID: "mesh1", Chain: w.leaf(w.ca[i], its), Roots: c.Namespaces[0].Roots,
		}
		c.Proxies = append(slices.DeleteFunc(c.Proxies, func(old Proxy) bool { return old.Workload == name }), p)
	}
}

// next is the time when the next pod starts.
func (w *world) next() time.Time {
	w.pods++
	return w.Taken.Add(time.Duration(w.pods)*time.Second - time.Hour)
}

func (w *world) lifetime(d time.Duration, o pki.Options) pki.Options {
	o.NotBefore, o.Lifetime = w.Taken.Add(-time.Hour), d
	return o
}

// cacerts is what a CA's Secret holds, changed.
func (w *world) cacerts(ca *pki.CA, change func(map[string][]byte), roots ...*pki.CA) map[string][]byte {
	data := must[map[string][]byte](w)(ca.CACerts(roots...))
	if change != nil {
		change(data)
	}
	return data
}

func selfSigned(w *world, i int) *pki.CA {
	ca := newRoot(w, pki.Options{Name: "cluster.local"})
	w.Clusters[i].SelfSigned = (&reader{store: w.s}).public(&corev1.Secret{Data: map[string][]byte{pki.CACertFile: ca.CertPEM()}})
	return ca
}

// cases are ways to break the healthy mesh, each with the kinds that may be blamed, first the first, and effects
// that have to be below it.
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
		w.a().Settings.CACertificates = []CACertificates{{Roots: w.roots(own)}}
		w.b().Settings.CACertificates = []CACertificates{{Roots: w.roots(w.root)}}
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
		w.b().Istiods = []Istiod{{Pod: "istiod-b", State: "discovery: CrashLoopBackOff"}}
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
		w.b().CRLs = crls(list)
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
		p.Chain = []string{p.Chain[0], w.s.keep([]*x509.Certificate{again.Certificate()})[0], p.Chain[2]}
	}, "certificate-not-yet-valid", nil},
	{"a workload certificate has expired, no istiod", func(w *world) {
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour), Lifetime: time.Minute}, "echo")
		w.b().Istiods = nil
	}, "istiod-down", []string{"workload-certificate-expired"}},
	{"a workload certificate has expired, istiod is well", func(w *world) {
		w.startWith(1, pki.LeafOptions{NotBefore: w.Taken.Add(-time.Hour), Lifetime: time.Minute}, "echo")
	}, "workload-certificate-expired", nil},
	{"two pods of istiod with two CAs", func(w *world) {
		other := below(w, w.root, pki.Options{Name: "another intermediate"})
		was := w.b().Istiods[0]
		was.Pod, was.Signer = "istiod-old", w.leaf(other, pki.LeafOptions{Server: true})
		w.b().Istiods = append([]Istiod{was}, w.b().Istiods...)
	}, "istiods-differ", nil},
	{"a new istiod does not become Ready", func(w *world) {
		w.b().Istiods = append([]Istiod{{Pod: "istiod-new", Created: w.Taken.Add(-time.Minute), State: "discovery: not ready"}}, w.b().Istiods...)
	}, "istiod-not-ready", nil},
	{"a new istiod waits for what it may not read", func(w *world) {
		w.watch(80*time.Second, 10*time.Second)
		w.a().Istiods = append([]Istiod{{Pod: "istiod-new", Created: w.Taken.Add(-time.Minute), State: "discovery: not ready", Watches: w.a().Istiods[0].Watches}}, w.a().Istiods...)
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
		w.b().Proxies = append(w.b().Proxies, Proxy{Namespace: "production", Pod: "new", Created: w.Taken.Add(-time.Minute)})
		w.b().Stuck = []Stuck{{"production/new", "ContainerCreating"}}
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
		w.a().Principals = []Principals{{"production/echo-callers", "ALLOW", []string{"old.example/ns/production/sa/client"}}}
	}, "policy-foreign-principal", nil},
	{"policies that name nobody foreign", func(w *world) {
		w.a().Principals = []Principals{{"istio-system/all", "ALLOW", []string{"*", "cluster.local/ns/x/sa/y", "*/ns/x/sa/y"}}}
	}, "", nil},
	{"a client without a proxy where STRICT is set", func(w *world) {
		w.b().Plain, w.b().Strict = []string{"production/client-2"}, map[string]bool{"production": true}
	}, "plaintext-client-strict", nil},
	{"a client without a proxy where it may", func(w *world) { w.b().Plain = []string{"production/client-2"} }, "", nil},
	{"a remote secret with the own name", func(w *world) {
		w.a().Remotes[0].ID, w.a().Istiods[0].Clusters = "cluster-a", map[string]string{"cluster-a": "synced"}
		w.forget()
	}, "cluster-name-twice", []string{"remote-secret-missing", "endpoints-missing"}},
	{"two clusters of one name", func(w *world) {
		w.b().ID, w.b().Istiods[0].Env["CLUSTER_ID"] = "cluster-a", "cluster-a"
		w.a().Remotes, w.b().Remotes = nil, nil
	}, "cluster-name-twice", nil},
	{"a remote secret with another name", func(w *world) { w.a().Remotes[0].ID = "west" }, "remote-secret-name", []string{"remote-secret-missing"}},
	{"a remote secret that leads home", func(w *world) { w.a().Remotes[0].Server = "https://127.0.0.1:6443" }, "remote-secret-loopback", nil},
	{"a remote secret that is not let in", func(w *world) { w.a().Remotes[0].Refused = "Unauthorized" }, "remote-secret-token", nil},
	{"a remote secret whose token has ended", func(w *world) { w.a().Remotes[0].Expires = w.Taken.Add(-time.Hour) }, "remote-secret-token", nil},
	{"a remote secret whose token ends", func(w *world) { w.a().Remotes[0].Expires = w.Taken.Add(time.Hour) }, "remote-secret-expires", nil},
	{"a remote secret without rights", func(w *world) { w.a().Remotes[0].Denied = []string{"pods"} }, "remote-secret-rights", nil},
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
		*w.b() = Cluster{Context: "cluster-b", Server: "https://192.0.2.9:6443", Down: "timeout"}
		w.a().Remotes[0].UID, w.a().Remotes[0].Reach = "", "timeout"
		w.watch(70*time.Second, 20*time.Second)
		w.Unread = []Unread{{Cluster: "cluster-b", Part: APIServer, Why: "timeout"}}
	}, "api-server-unreachable", []string{"remote-secret-unreachable"}},
	{"a remote cluster that answers here and not where istiod runs", func(w *world) {
		w.a().Tried = append(w.a().Tried, Tried{From: "istio-system/gateway", Address: "192.0.2.9:6443", Err: "there was no answer"})
	}, "remote-secret-unreachable", nil},
	{"a remote cluster that istiod does not reach any more, in sync as ever", func(w *world) {
		w.a().Remotes[0].UID, w.a().Remotes[0].Reach = "", "timeout"
		w.watch(70*time.Second, 20*time.Second)
	}, "remote-secret-unreachable", nil},
	{"a remote cluster that answers here and not to istiod", func(w *world) { w.watch(3*time.Minute, 20*time.Second) }, "remote-watch-failing", nil},
	{"a remote cluster that was away long ago", func(w *world) { w.watch(9*time.Minute, 3*time.Minute) }, "", nil},
	{"no gateway", func(w *world) { w.b().Gateways = nil }, "gateway-missing", nil},
	{"a gateway without an address", func(w *world) {
		w.b().Gateways[0].Addresses = nil
	}, "gateway-no-address", nil},
	{"a gateway without a pod", func(w *world) { w.b().Gateways[0].Pods, w.b().Gateways[0].Looked = 0, false }, "gateway-pod-absent", nil},
	{"nothing is exposed", func(w *world) { w.b().Exposed, w.b().Gateways[0].Listens = nil, false }, "gateway-object-missing", []string{"gateway-not-listening"}},
	{"some hosts are exposed", func(w *world) { w.b().Exposed[0].Hosts = []string{"echo.production.svc.cluster.local"} }, "gateway-hosts", nil},
	{"a gateway that does not listen", func(w *world) { w.b().Gateways[0].Listens = false }, "gateway-not-listening", nil},
	{"a gateway that istiod does not know", func(w *world) { w.a().Istiods[0].Networks = w.a().Istiods[0].Networks[:1] }, "gateway-unknown", nil},
	{"a port that is closed to the other cluster", func(w *world) { w.a().Tried[0].Err = "there was no answer" }, "gateway-unreachable", nil},
	{"a cluster that is cut off", func(w *world) {
		w.a().Tried[0].Err = "there was no answer"
		w.a().Tried = append(w.a().Tried, Tried{From: "istio-system/gateway", Address: "192.0.2.9:6443", Err: "there was no answer"})
	}, "cluster-cut-off", []string{"gateway-unreachable", "remote-secret-unreachable"}},
	{"connections that fail, where nobody can try", func(w *world) {
		w.a().Tried, w.a().Proxies[0].Failing = nil, []string{"192.0.2.2:15443"}
	}, "gateway-unreachable", nil},
	{"connections that were made, where nobody can try", func(w *world) {
		w.a().Tried, w.a().Proxies[0].Through = nil, []string{"192.0.2.2:15443"}
	}, "", nil},
	{"a gateway that passes nothing on", func(w *world) { w.b().Gateways[0].Refuses = "outbound_.80_._.echo: reset" }, "gateway-passes-nothing", nil},
	{"a policy on one side", func(w *world) { w.b().Config = nil }, "config-differs", nil},
	{"a policy that differs", func(w *world) { w.b().Config[0].Hash = "2" }, "config-differs", nil},
	{"a DestinationRule without mutual TLS", func(w *world) {
		for i := range w.Clusters {
			w.Clusters[i].Config = []Config{{Kind: "DestinationRule", Name: "production/echo", Host: "echo.production", TLS: "DISABLE"}}
		}
	}, "destination-rule-plaintext", nil},
	{"a DestinationRule for the world outside", func(w *world) {
		for i := range w.Clusters {
			w.Clusters[i].Config = []Config{{Kind: "DestinationRule", Name: "production/out", Host: "api.example", TLS: "SIMPLE"}}
		}
	}, "", nil},
	{"a namespace with another revision in B", func(w *world) { w.b().Namespaces[0].Revision = "canary" }, "revision-differs", nil},
	{"a proxy refuses its configuration", func(w *world) { w.a().Istiods[0].Behind = []string{"client: Listener refused: x"} }, "proxy-refuses-configuration", nil},
	{"a proxy that has not answered yet", func(w *world) { w.a().Istiods[0].Behind = []string{"client: Listener not acknowledged"} }, "", nil},
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
		w.Calls = []Call{{From: "cluster-a", To: "cluster-b", URL: "http://x", Code: "503", Err: "status 503"}}
	}, "probe-failed", nil},
}

func TestFindings(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := healthy(t)
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
				require.Equal(t, Info, other.Severity, "nothing else is blamed: %s", tops(r))
			}
			f := r.Findings[0]
			covered[f.ID] = true
			assert.NotEmpty(t, f.Evidence)
			assert.NotEmpty(t, f.Clusters)
			assert.NotEmpty(t, f.Says)
			var effects []string
			for _, e := range f.Effects {
				effects = append(effects, e.ID)
				covered[e.ID] = true
			}
			assert.Subset(t, effects, c.effects)
			if f.ID == "cacerts-chain-empty" {
				assert.Len(t, effects, 1, "the roots are right: %v", effects)
			}
		})
	}
	for _, k := range Findings() {
		assert.True(t, covered[k.ID], "no case finds %s", k.ID)
	}
}

func tops(r Report) (ids []string) {
	for _, f := range r.Findings {
		ids = append(ids, f.ID+": "+f.Says)
	}
	return ids
}

func TestFindingsAreDocumentedAndTheirCausesEnd(t *testing.T) {
	kinds := map[string]Kind{}
	for _, k := range Findings() {
		require.NotContains(t, kinds, k.ID)
		require.Regexp(t, `^[a-z0-9]+(-[a-z0-9]+)*$`, k.ID)
		for _, text := range []string{k.Title, k.What, k.Now, k.Later, k.Fix, k.Disrupts} {
			require.NotEmpty(t, text, k.ID)
		}
		kinds[k.ID] = k
	}
	var climb func(id string, path []string)
	climb = func(id string, path []string) {
		require.NotContains(t, path, id, "a circle of causes")
		require.Contains(t, kinds, id, "a cause of %v", path)
		for _, c := range kinds[id].CausedBy {
			climb(c, append(slices.Clone(path), id))
		}
	}
	for id := range kinds {
		climb(id, nil)
	}
}

func TestMatrix(t *testing.T) {
	pair := func(r Report, from, to string) Pair {
		return r.Trust[slices.IndexFunc(r.Trust, func(p Pair) bool { return p.From == from && p.To == to })]
	}
	w := healthy(t)
	r := Examine(w.Facts)
	require.Len(t, r.Trust, 4)
	for _, p := range r.Trust {
		assert.Equal(t, All, p.Works, p)
		assert.Empty(t, p.Grow)
	}
	w.b().Settings.TrustDomain, w.b().Settings.Aliases = "b.example", []string{"cluster.local"}
	w.start(1, "client", "echo")
	r = Examine(w.Facts)
	assert.Equal(t, All, pair(r, "cluster-a", "cluster-b").Works)
	p := pair(r, "cluster-b", "cluster-a")
	assert.Equal(t, None, p.Works)
	assert.Equal(t, "trustDomainAliases of cluster-a must get b.example", p.Grow)

	w = healthy(t)
	own := below(t, newRoot(t, pki.Options{Name: "own"}), pki.Options{Name: "own intermediate"})
	w.sign(1, own)
	w.start(1, "client")
	r = Examine(w.Facts)
	assert.Equal(t, Some, pair(r, "cluster-a", "cluster-b").Works)
	assert.Contains(t, pair(r, "cluster-a", "cluster-b").Grow, `the roots of cluster-a must get that of cluster-b, "own"`)
}

// A check that could not look is never green.
func TestUnreadIsUnknown(t *testing.T) {
	for _, part := range []Part{APIServer, Namespaces, Pods, Secrets, RootMaps, Services, Policies, Gateways, Webhooks, IstiodPage, Signer, Proxies, Reach} {
		w := healthy(t)
		w.Unread = []Unread{{Cluster: "cluster-b", Part: part, Why: "forbidden"}}
		r := Examine(w.Facts)
		assert.False(t, r.Complete(), part)
		for _, c := range r.Checks {
			k := Findings()[slices.IndexFunc(Findings(), func(k Kind) bool { return k.ID == c.ID })]
			needs := part == APIServer || slices.Contains(k.Needs, part)
			assert.Equal(t, needs, c.State == Unsure, "%s without %s", c.ID, part)
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

// Other topologies are well, too: one istiod for both clusters, and one that runs in a third.
func TestHealthyTopologies(t *testing.T) {
	primary := func(t *testing.T) *world {
		t.Helper()
		w := healthy(t)
		b := w.b()
		b.IstiodDeployed, b.Istiods, b.CACerts, b.Remotes, b.Exposed = false, nil, nil, nil, nil
		b.Settings = MeshSettings{TrustDomain: "cluster.local"}
		w.ca[1] = w.ca[0]
		w.start(1, "client", "echo", "istio-eastwestgateway")
		for n := range b.Proxies {
			b.Proxies[n].Roots = w.a().Namespaces[0].Roots
		}
		w.a().Istiods[0].Serves = map[string]int{"cluster-a": 3, "cluster-b": 3}
		return w
	}
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
	external := Cluster{Context: "external", UID: "uid-x", IstiodDeployed: true, Istiods: a.Istiods, CACerts: a.CACerts, Settings: a.Settings, Remotes: a.Remotes}
	external.Istiods[0].Env["LOCAL_CLUSTER_SECRET_WATCHER"] = "true"
	a.IstiodDeployed, a.Istiods, a.CACerts, a.Remotes = false, nil, nil, nil
	w.Clusters = append(w.Clusters, external)
	for _, id := range []string{"", "external"} { // with and without proxies of another mesh beside it
		w.Clusters[2].ID = id
		r = Examine(w.Facts)
		assert.Empty(t, r.Findings, tops(r))
		assert.Equal(t, []string{"external", "external", ""}, []string{r.Clusters[0].ServedBy, r.Clusters[1].ServedBy, r.Clusters[2].ServedBy})
		assert.Len(t, r.Trust, 4)
	}
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

func TestForeignKubeconfigsAreNotUsed(t *testing.T) {
	kubeconfig := func(user string) []byte {
		return []byte(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],
clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: x, user: ` + user + `}]}`)
	}
	for _, user := range []string{`{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}`, `{tokenFile: /etc/passwd}`, `{client-certificate: /x, client-key: /y}`} {
		var s RemoteSecret
		s.try(t.Context(), &rest.Config{}, kubeconfig(user))
		assert.True(t, strings.HasPrefix(s.Problem, "it was not tried"), s)
	}
	var s RemoteSecret
	s.try(t.Context(), &rest.Config{}, kubeconfig(`{token: e30.eyJleHAiOjE3MDAwMDAwMDB9.c2ln}`))
	assert.Empty(t, s.Problem)
	assert.NotEmpty(t, s.Reach)
	assert.Equal(t, int64(1700000000), s.Expires.Unix())
	text, err := json.Marshal(s)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "e30.")
}

func TestSample(t *testing.T) {
	var all []Proxy
	now := time.Now()
	for i := range 100 {
		all = append(all, Proxy{Namespace: "n", Pod: fmt.Sprintf("p%02d", i), Workload: fmt.Sprintf("w%d", i%10), Created: now.Add(time.Duration(i) * time.Minute), Ready: i != 0})
	}
	chosen := sample(all, 40)
	assert.Len(t, chosen, 20, "the oldest and the newest of ten workloads")
	assert.Contains(t, chosen, 10, "the oldest Ready pod of w0")
	assert.Contains(t, chosen, 99)
	few := sample(all, 5)
	assert.Len(t, few, 5)
	assert.Equal(t, []int{chosen[0], chosen[19]}, []int{few[0], few[4]}, "the oldest and the newest of all")
	assert.Empty(t, sample(nil, 5))
}

func TestCountEndpoints(t *testing.T) {
	counts, placed, err := countEndpoints(strings.NewReader(`{"echo.production.svc.cluster.local":{"production":{"Shards":{
"Kubernetes/cluster-a":[{"Network":"network-a","TLSMode":"istio"},{"Network":"network-a","TLSMode":"disabled"}],"Kubernetes/cluster-b":[]},"ServiceAccounts":{}}}}`))
	require.NoError(t, err)
	assert.Equal(t, map[string]map[string]int{"production/echo.production.svc.cluster.local": {"cluster-a": 2, "cluster-b": 0}}, counts)
	assert.Equal(t, map[string]map[string]int{"cluster-a": {"network-a": 1}}, placed)
	_, _, err = countEndpoints(strings.NewReader("no"))
	require.Error(t, err)
}

func TestReadWatch(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var i Istiod
	for _, line := range []string{
		"2026-05-01T11:40:00.0Z\terror\twatch error in cluster cluster-b: long ago",
		"2026-05-01T11:55:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.Pod: EOF",
		"2026-05-01T11:58:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.Node: connection refused",
		"2026-05-01T11:59:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.WorkloadEntry: the server could not find the requested resource (get workloadentries.networking.istio.io)",
		"2026-05-01T11:59:00.0Z\tinfo\tads\tPush debounce stable[13] 5",
	} {
		i.readWatch(line, now)
	}
	assert.Equal(t, map[string]Watch{"cluster-b": {now.Add(-5 * time.Minute), now.Add(-2 * time.Minute), "failed to list *v1.Node: connection refused"}}, i.Watches)
}

func TestHostsThatGatewaysPassOnTo(t *testing.T) {
	w := healthy(t)
	w.b().Services = append(w.b().Services, Service{Namespace: "production", Name: "dns", Ports: []string{"53/UDP"}}, Service{Namespace: "other", Name: "echo", Ports: []string{"80/TCP"}})
	readers := []*reader{{cluster: w.a()}, {cluster: w.b()}}
	assert.Equal(t, []string{"outbound_.80_._.echo.production.svc.cluster.local"}, readers[1].hosts(readers))
	for i := range w.Clusters {
		w.Clusters[i].Istiods[0].Endpoints = nil
	}
	assert.Empty(t, readers[1].hosts(readers))
}
