package exam

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// world makes facts of a mesh of two control planes with real certificates: cluster 0 is cluster-a.
type world struct {
	testing.TB
	facts.Facts
	root *pki.CA
	ca   [2]*pki.CA // sign for the clusters
	pods int
}

func (w *world) a() *facts.Cluster { return &w.Clusters[0] }
func (w *world) b() *facts.Cluster { return &w.Clusters[1] }

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
	w := &world{TB: t, Facts: facts.Facts{Taken: time.Now().UTC(), Certificates: map[string][]byte{}}}
	w.root = newRoot(t, pki.Options{Name: "root"})
	for i, letter := range []string{"a", "b"} {
		w.ca[i] = below(t, w.root, pki.Options{Name: "intermediate " + letter})
		other := []string{"b", "a"}[i]
		w.Clusters = append(w.Clusters, facts.Cluster{
			Context: "cluster-" + letter, ID: "cluster-" + letter, UID: "uid-" + letter, Network: "network-" + letter, Version: "v1.36.1",
			IstiodDeployed: true, IstiodService: "istiod",
			Istiods: []facts.Istiod{{
				Pod: "istiod-" + letter, Revision: "default", Version: "1.31", Ready: true, Created: w.Taken.Add(-time.Hour), Read: true,
				Env:      map[string]string{"CLUSTER_ID": "cluster-" + letter},
				Clusters: map[string]string{"cluster-a": "synced", "cluster-b": "synced"},
				Serves:   map[string]int{"cluster-" + letter: 3},
				Networks: []facts.NetworkGateway{
					{Network: "network-a", Cluster: "cluster-a", Addr: "192.0.2.1", Port: 15443},
					{Network: "network-b", Cluster: "cluster-b", Addr: "192.0.2.2", Port: 15443},
				},
				Endpoints: map[string]map[string]int{
					"production/echo.production.svc.cluster.local":   {"cluster-a": 1, "cluster-b": 1},
					"production/client.production.svc.cluster.local": {"cluster-a": 1, "cluster-b": 1},
				},
				Placed: map[string]map[string]int{"cluster-a": {"network-a": 1}, "cluster-b": {"network-b": 1}},
			}},
			Settings: facts.MeshSettings{Read: true, TrustDomain: "cluster.local", RootNamespace: "istio-system"},
			Namespaces: []facts.Namespace{
				{Name: "production", Injected: true, Injection: "enabled", HasRoot: true}, {Name: "istio-system", HasRoot: true},
			},
			Remotes: []facts.RemoteSecret{{
				Name: "istio-remote-secret-cluster-" + other, ID: "cluster-" + other, Server: "https://192.0.2.9:6443", UID: "uid-" + other,
			}},
			Gateways: []facts.Gateway{gateway(i, "istio-eastwestgateway", fmt.Sprintf("192.0.2.%d", i+1))},
			Exposed: []facts.Exposed{{
				Name: "istio-system/cross-network-gateway", Selector: map[string]string{"istio": "eastwestgateway"},
				Hosts: []string{"*.local"}, Port: 15443,
			}},
			Services: []facts.Service{{Namespace: "production", Name: "echo", Ports: []string{"80/TCP http"}}},
			Tried:    []facts.Tried{{From: "production/client", Address: fmt.Sprintf("192.0.2.%d:15443", 2-i)}},
			Config:   []facts.Config{{Kind: "PeerAuthentication", Name: "istio-system/default", Hash: "1"}},
		})
		w.sign(i, w.ca[i])
		w.secret(i, must[map[string][]byte](t)(w.ca[i].CACerts()))
		w.start(i, "client", "echo", "istio-eastwestgateway")
	}
	return w
}

// gateway is a Service of a cluster behind which everything is well.
func gateway(i int, name, address string) facts.Gateway {
	return facts.Gateway{
		Namespace: "istio-system", Name: name, Network: []string{"network-a", "network-b"}[i], Type: "LoadBalancer",
		Addresses: []string{address}, Port: facts.GatewayPort, Pods: 1, Looked: true, Listens: true,
		Selector:  map[string]string{"istio": "eastwestgateway"},
		Revisions: []string{"default"}, Versions: []string{"1.31"},
	}
}

// forget makes the istiod of cluster-a know no endpoint of cluster-b.
func (w *world) forget() {
	for _, endpoints := range w.a().Istiods[0].Endpoints {
		endpoints["cluster-b"] = 0
	}
}

// watch makes the istiod of cluster-a fail to read cluster-b. first and last are how long ago that was.
func (w *world) watch(first, last time.Duration) {
	w.a().Istiods[0].Watches = map[string]facts.Watch{"cluster-b": {
		First: w.Taken.Add(-first), Last: w.Taken.Add(-last), Why: "connection refused",
	}}
}

// roots returns the roots of CAs, as IDs in the facts.
func (w *world) roots(of ...*pki.CA) []string {
	var certs []*x509.Certificate
	for _, ca := range of {
		certs = append(certs, ca.Root())
	}
	return w.Add(certs)
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
	c.Webhooks = []facts.Webhook{
		{
			Name: "istio-sidecar-injector", Roots: w.roots(ca), Revision: "default", Service: "istiod", Refuses: true,
			Injects: []string{"production"},
		},
		{Name: "istio-validator-istio-system", Validates: true, Revision: "default", Service: "istiod", Refuses: true, Narrow: true},
		{Name: "istiod-default-validator", Validates: true, Revision: "default", Service: "istiod", Refuses: true},
	}
}

// leaf returns a certificate with its chain and the root, as istiod hands it out.
func (w *world) leaf(ca *pki.CA, o pki.LeafOptions) []string {
	if o.NotBefore.IsZero() && w.Taken.After(ca.Certificate().NotAfter) {
		o.NotBefore = w.Taken.Add(-time.Hour)
	}
	data, _, err := ca.Leaf(o)
	require.NoError(w, err)
	return append(w.Add(must[[]*x509.Certificate](w)(facts.ParseBundle(data))), w.roots(ca)...)
}

// secret writes cacerts.
func (w *world) secret(i int, data map[string][]byte) {
	w.Clusters[i].CACerts = facts.ReadCASecret(data, w.Taken.Add(-2*time.Hour), w.Add)
}

// start restarts the pods of workloads: they get a certificate of the CA and the roots that istiod hands out now.
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
		p := facts.Proxy{
			Namespace: space, Pod: name, Workload: name, Created: w.next(), Ready: true, Gateway: name == "istio-eastwestgateway",
			Version: "1.31", Revision: "default", Cluster: c.ID, Network: c.Network, MeshID: "mesh1",
			Chain: w.leaf(w.ca[i], its), Roots: c.Namespaces[0].Roots,
		}
		c.Proxies = append(slices.DeleteFunc(c.Proxies, func(old facts.Proxy) bool { return old.Workload == name }), p)
	}
}

// next returns the time when the next pod starts.
func (w *world) next() time.Time {
	w.pods++
	return w.Taken.Add(time.Duration(w.pods)*time.Second - time.Hour)
}

func (w *world) lifetime(d time.Duration, o pki.Options) pki.Options {
	o.NotBefore, o.Lifetime = w.Taken.Add(-time.Hour), d
	return o
}

// cacerts returns what the Secret of a CA holds, after a change.
func (w *world) cacerts(ca *pki.CA, change func(map[string][]byte), roots ...*pki.CA) map[string][]byte {
	data := must[map[string][]byte](w)(ca.CACerts(roots...))
	if change != nil {
		change(data)
	}
	return data
}

// selfSigned makes a CA as an istiod without cacerts does.
func selfSigned(w *world, i int) *pki.CA {
	ca := newRoot(w, pki.Options{Name: "cluster.local"})
	w.Clusters[i].SelfSigned = facts.ReadCASecret(map[string][]byte{pki.CACertFile: ca.CertPEM()}, time.Time{}, w.Add)
	return ca
}

// silence makes the Services of a cluster that lead to a revision lead to nobody.
func (w *world) silence(i int, revision string) {
	for n := range w.Clusters[i].Webhooks {
		if h := &w.Clusters[i].Webhooks[n]; h.Revision == revision {
			h.Nowhere = "it has no endpoint that is Ready"
		}
	}
}

// upgraded is a mesh in the middle of an upgrade of cluster-a by revision: its old istiod is 1.30, the new one 1.31. The gateway and
// the pods of client have moved.
func upgraded(t testing.TB) *world {
	w := healthy(t)
	for i := range w.Clusters {
		c := &w.Clusters[i]
		c.Deployed = []string{"default"}
		c.Istiods[0].Version, c.Gateways[0].Versions = "1.30.4", []string{"1.30.4"}
		for n := range c.Proxies {
			c.Proxies[n].Version = "1.30.4"
		}
	}
	w.canary(0)
	w.move(0, "client", "istio-eastwestgateway")
	return w
}

// canary installs a second istiod, 1-31, beside that of a cluster. It has the same CA.
func (w *world) canary(i int) {
	c := &w.Clusters[i]
	next := c.Istiods[0]
	next.Pod, next.Revision, next.Version, next.Created = "istiod-1-31-x", "1-31", "1.31.0", w.next()
	next.Signer = w.leaf(w.ca[i], pki.LeafOptions{DNSNames: []string{"istiod-1-31.istio-system.svc"}, Server: true})
	c.Istiods = append(c.Istiods, next)
	c.Deployed = append(c.Deployed, "1-31")
	for _, h := range c.Webhooks[:2] {
		h.Name, h.Revision, h.Service, h.Injects = h.Name+"-1-31", "1-31", "istiod-1-31", nil
		c.Webhooks = append(c.Webhooks, h)
	}
}

// move restarts workloads of a cluster with proxies of the new revision.
func (w *world) move(i int, workloads ...string) {
	w.start(i, workloads...)
	c := &w.Clusters[i]
	for n := range c.Proxies {
		if p := &c.Proxies[n]; slices.Contains(workloads, p.Workload) {
			p.Revision, p.Version = "1-31", "1.31.0"
			if p.Gateway {
				c.Gateways[0].Revisions, c.Gateways[0].Versions = []string{"1-31"}, []string{"1.31.0"}
			}
		}
	}
}

// tag makes a tag of a cluster, which takes over what the injector did for its namespaces. As with istioctl, the tag default has the
// validator of all objects, too.
func (w *world) tag(i int, name, revision string) {
	c := &w.Clusters[i]
	t := c.Webhooks[0]
	c.Webhooks[0].Injects = nil
	if v := &c.Webhooks[2]; name == facts.DefaultRevision {
		v.Revision, v.Service = revision, facts.Revisioned(facts.IstiodName, revision)
	}
	t.Name, t.Tag, t.Revision, t.Service = "istio-revision-tag-"+name, name, revision, facts.Revisioned(facts.IstiodName, revision)
	c.Webhooks = append(c.Webhooks, t)
}

// remove takes an istiod of a cluster away, with its Deployment and its Service. Its webhooks stay.
func (w *world) remove(i int, revision string) {
	c := &w.Clusters[i]
	c.Istiods = slices.DeleteFunc(slices.Clone(c.Istiods), func(x facts.Istiod) bool { return x.Revision == revision })
	c.Deployed = slices.DeleteFunc(slices.Clone(c.Deployed), func(x string) bool { return x == revision })
	w.silence(i, revision)
}
