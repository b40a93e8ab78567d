package exam

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// Identity is the certificate that a proxy or an istiod presents, and the roots that it trusts.
type Identity struct {
	Cluster string  `json:"cluster"`
	Who     string  `json:"who"`              // NAMESPACE/POD of a proxy, or the name of an istiod's pod
	SPIFFE  string  `json:"spiffe,omitempty"` // an istiod has none
	Chain   []Dated `json:"chain"`            // its own certificate first
	Issuer  Dated   `json:"issuer"`           // of its own certificate; only the name if the issuer was not seen
	Roots   []Dated `json:"roots"`            // of an istiod: those that it hands out
}

// Dated is a certificate in a report.
type Dated struct {
	Name   string    `json:"name"`
	SHA256 string    `json:"sha256,omitempty"`
	Ends   time.Time `json:"ends,omitzero"`
}

func newDated(c *x509.Certificate) Dated { return Dated{pki.Name(c), facts.ID(c), c.NotAfter.UTC()} }

func allDated(certs []*x509.Certificate) []Dated {
	all := make([]Dated, len(certs))
	for i, c := range certs {
		all[i] = newDated(c)
	}
	return all
}

// identities lists the istiods and the proxies in the sample.
func (e *examination) identities(proxies []*proxy) (all []Identity) {
	add := func(cluster int, who string, chain, roots []*x509.Certificate) {
		i := Identity{
			Cluster: e.Clusters[cluster].Context, Who: who, SPIFFE: pki.SPIFFE(chain[0]),
			Chain: allDated(chain), Issuer: Dated{Name: chain[0].Issuer.CommonName}, Roots: allDated(roots),
		}
		if ca := e.signerOf(chain, e.Clusters[cluster]); ca != nil {
			i.Issuer = newDated(ca)
		}
		all = append(all, i)
	}
	for _, p := range e.planes {
		for _, i := range p.pods {
			if chain := e.list(i.Signer); len(chain) > 0 {
				add(p.at, i.Pod, chain, p.roots)
			}
		}
	}
	for _, p := range proxies {
		add(p.cluster, p.Name(), p.chain, p.roots)
	}
	return all
}

// FirstToEnd returns the certificate of an identity that expires first, among them all roots of its bundle.
func (i Identity) FirstToEnd() Dated {
	first := slices.MinFunc(slices.Concat(i.Chain, i.Roots), func(a, b Dated) int { return a.Ends.Compare(b.Ends) })
	if first.Name == "" { // that of a workload has no common name
		first.Name = i.Who
	}
	return first
}
