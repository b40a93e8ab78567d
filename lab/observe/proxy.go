package observe

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// ProxyContainer is the name of the container in which Envoy runs.
const ProxyContainer = "istio-proxy"

// Proxy is a pod's Envoy with the certificates that it uses for its next handshakes. Connections that it has made before
// may have used others.
type Proxy struct {
	Workload
	Namespace, Pod string
	Created        time.Time
	Roots          []*x509.Certificate // that it trusts, sorted by fingerprint
	Chain          []*x509.Certificate // that it shows, its own certificate first
}

// podOf is a pod with its cluster.
type podOf struct {
	member *mesh.Member
	*corev1.Pod
}

// Proxies reads the proxies in all Ready pods of the clusters, or of the whole mesh if none is named,
// sorted by cluster, app and age.
func Proxies(ctx context.Context, m *mesh.Mesh, clusters ...string) ([]Proxy, error) {
	var pods []podOf
	for _, member := range m.InMesh() { // the gateway in front of an external istiod is in no mesh
		if len(clusters) > 0 && !slices.Contains(clusters, member.Name()) {
			continue
		}
		found, err := proxyPods(ctx, member)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if mesh.Ready(p.Pod) {
				pods = append(pods, p)
			}
		}
	}
	return readProxies(ctx, pods)
}

// proxiesOf reads the proxies of workloads.
func proxiesOf(ctx context.Context, m *mesh.Mesh, which Which, of ...Workload) ([]Proxy, error) {
	var withProxy []podOf
	for _, w := range of {
		member, pods, err := which.pods(ctx, m, w)
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			if !HasProxy(p) {
				return nil, fmt.Errorf("%s in %s has no proxy", p.Name, member.Name())
			}
			withProxy = append(withProxy, podOf{member, p})
		}
	}
	return readProxies(ctx, withProxy)
}

// proxyPods lists the pods of a cluster that have a proxy, in whatever state they are.
func proxyPods(ctx context.Context, m *mesh.Member) ([]podOf, error) {
	list, err := m.Kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", m.Name(), err)
	}
	var pods []podOf
	for i := range list.Items {
		if p := &list.Items[i]; HasProxy(p) && m.Covers(p) {
			pods = append(pods, podOf{m, p})
		}
	}
	return pods, nil
}

// HasProxy reports whether the pod has a proxy of Istio.
func HasProxy(p *corev1.Pod) bool {
	// A native sidecar is an init container that keeps running.
	containers := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	return slices.ContainsFunc(containers, func(c corev1.Container) bool { return c.Name == ProxyContainer })
}

func readProxies(ctx context.Context, pods []podOf) ([]Proxy, error) {
	proxies := make([]Proxy, len(pods))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, p := range pods {
		group.Go(func() (err error) {
			proxies[i], err = readProxy(ctx, p)
			return err
		})
	}
	err := group.Wait()
	slices.SortFunc(proxies, func(a, b Proxy) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.App, b.App),
			a.Created.Compare(b.Created), strings.Compare(a.Pod, b.Pod))
	})
	return proxies, err
}

func readProxy(ctx context.Context, p podOf) (Proxy, error) {
	proxy := Proxy{
		Workload:  Workload{App: p.Labels["app"], Cluster: p.member.Name()},
		Namespace: p.Namespace, Pod: p.Name, Created: p.CreationTimestamp.Time,
	}
	dump, err := p.member.Admin(ctx, p.Pod, SecretsPage)
	if err != nil {
		return proxy, err
	}
	proxy.Roots, proxy.Chain, err = ParseSecrets(dump)
	if err != nil {
		return proxy, fmt.Errorf("reading the certificates of %s in %s: %w", p.Name, p.member.Name(), err)
	}
	return proxy, nil
}

// SecretsPage is the page of Envoy that ParseSecrets reads; Envoy leaves private keys out of it. The page /certs would not
// do: it has only serial numbers, which two roots may share.
const SecretsPage = "/config_dump?resource=dynamic_active_secrets"

// ParseSecrets reads what Envoy uses now: "ROOTCA" holds the roots with which it verifies peers, "default" its own
// certificate. Both come from the agent, and are missing until the agent has got a certificate from istiod.
func ParseSecrets(dump []byte) (roots, chain []*x509.Certificate, err error) {
	var page struct {
		Configs []struct {
			Secret struct {
				Name        string `json:"name"`
				Certificate struct {
					Chain inline `json:"certificate_chain"`
				} `json:"tls_certificate"`
				Validation struct {
					CA inline `json:"trusted_ca"`
				} `json:"validation_context"`
			} `json:"secret"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(dump, &page); err != nil {
		return nil, nil, fmt.Errorf("reading Envoy's secrets: %w", err)
	}
	for _, c := range page.Configs {
		switch c.Secret.Name {
		case "ROOTCA":
			if roots, err = pki.Roots(c.Secret.Validation.CA.Bytes); err != nil {
				return nil, nil, fmt.Errorf("reading its roots: %w", err)
			}
		case "default":
			if chain, err = pki.Roots(c.Secret.Certificate.Chain.Bytes); err != nil {
				return nil, nil, fmt.Errorf("reading its own certificate: %w", err)
			}
		}
	}
	if roots == nil || chain == nil {
		return nil, nil, errors.New("Envoy has none yet") //nolint:revive // a name
	}
	slices.SortFunc(roots, func(a, b *x509.Certificate) int {
		return strings.Compare(pki.ShortFingerprint(a), pki.ShortFingerprint(b))
	})
	roots = slices.CompactFunc(roots, func(a, b *x509.Certificate) bool { return a.Equal(b) })
	return roots, chain, nil
}

type inline struct {
	Bytes []byte `json:"inline_bytes"`
}

// IstiodPort is where istiod serves proxies, with a certificate of its own CA.
const IstiodPort = 15012

// PeerChain makes a TLS handshake and returns the chain that the other side shows, whoever has signed it.
func PeerChain(ctx context.Context, conn net.Conn) ([]*x509.Certificate, error) {
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // whom to trust is the question
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured.ConnectionState().PeerCertificates, nil
}

// group describes many proxies in few words: those with equal facts together, and whole clusters by their names.
func group(proxies []Proxy, fact func(Proxy) string) string {
	inCluster := map[string]int{}
	byFact := map[string][]Proxy{}
	var facts []string
	for _, p := range proxies {
		inCluster[p.Cluster]++
		f := fact(p)
		if byFact[f] == nil {
			facts = append(facts, f)
		}
		byFact[f] = append(byFact[f], p)
	}
	lines := make([]string, len(facts))
	for i, f := range facts {
		byCluster := map[string][]string{}
		var who, clusters []string
		for _, p := range byFact[f] {
			if byCluster[p.Cluster] == nil {
				clusters = append(clusters, p.Cluster)
			}
			byCluster[p.Cluster] = append(byCluster[p.Cluster], p.Pod)
		}
		for _, c := range clusters {
			switch pods := byCluster[c]; {
			case len(pods) > 1 && len(pods) == inCluster[c]:
				who = append(who, fmt.Sprintf("%s (all %d proxies)", c, len(pods)))
			default:
				who = append(who, words.And(pods)+" in "+c)
			}
		}
		lines[i] = words.And(who) + ": " + f
	}
	return strings.Join(lines, "; ")
}
