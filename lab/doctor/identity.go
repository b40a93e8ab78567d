package doctor

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Identity is what a proxy or an istiod shows and whom it trusts, as it is in use.
type Identity struct {
	Cluster string  `json:"cluster"`
	Who     string  `json:"who"`              // NAMESPACE/POD of a proxy, or the name of an istiod's pod
	SPIFFE  string  `json:"spiffe,omitempty"` // an istiod has none
	Chain   []Dated `json:"chain"`            // its own certificate first
	Issuer  Dated   `json:"issuer"`           // of its own certificate; the name alone if it was not seen
	Roots   []Dated `json:"roots"`            // of an istiod: those that it hands out
}

// Dated is a certificate in a report.
type Dated struct {
	Name   string    `json:"name"`
	SHA256 string    `json:"sha256,omitempty"`
	Ends   time.Time `json:"ends,omitzero"`
}

func dated(c *x509.Certificate) Dated { return Dated{name(c), id(c), c.NotAfter.UTC()} }

func datedAll(certs []*x509.Certificate) []Dated {
	all := make([]Dated, len(certs))
	for i, c := range certs {
		all[i] = dated(c)
	}
	return all
}

// identities lists istiods and the proxies of the sample.
func (e *exam) identities(proxies []*proxy) (all []Identity) {
	add := func(cluster int, who string, chain, roots []*x509.Certificate) {
		one := Identity{Cluster: e.Clusters[cluster].Context, Who: who, Chain: datedAll(chain), Issuer: Dated{Name: chain[0].Issuer.CommonName}, Roots: datedAll(roots)}
		for _, uri := range chain[0].URIs {
			one.SPIFFE = uri.String()
		}
		if ca := e.signerOf(chain, e.Clusters[cluster]); ca != nil {
			one.Issuer = dated(ca)
		}
		all = append(all, one)
	}
	for _, p := range e.planes {
		for _, i := range e.Clusters[p.at].Istiods {
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

// ends is the first certificate of an identity to end, those of all roots of its bundle included.
func (i Identity) ends() Dated {
	first := slices.MinFunc(slices.Concat(i.Chain, i.Roots), func(a, b Dated) int { return a.Ends.Compare(b.Ends) })
	if first.Name == "" { // a workload's has no common name
		first.Name = i.Who
	}
	return first
}

// Holders are those of a cluster whose certificates have one issuer and who trust the same roots.
type Holders struct {
	Cluster, Who, Issuer, Roots, Ends string
}

// Holders sums identities up for people.
func (r Report) Holders() (all []Holders) {
	text := func(d Dated) string {
		if d.SHA256 == "" {
			return fmt.Sprintf("%q", d.Name)
		}
		return fmt.Sprintf("%q (%s)", d.Name, d.SHA256[:8])
	}
	members := map[Holders][]Identity{}
	for _, i := range r.Identities {
		var roots []string
		for _, d := range i.Roots {
			roots = append(roots, text(d))
		}
		h := Holders{Cluster: i.Cluster, Issuer: text(i.Issuer), Roots: strings.Join(roots, ", ")}
		if members[h] == nil {
			all = append(all, h)
		}
		members[h] = append(members[h], i)
	}
	for n, h := range all {
		var who []string
		first := members[h][0].ends()
		for _, i := range members[h] {
			who = append(who, i.Who)
			if d := i.ends(); d.Ends.Before(first.Ends) {
				first = d
			}
		}
		all[n].Who = fmt.Sprintf("%s, and %d more", who[0], len(who)-1)
		if len(who) == 1 {
			all[n].Who = who[0]
		}
		all[n].Ends = fmt.Sprintf("%s %s", first.Name, until(first.Ends.Sub(r.Taken)))
	}
	return all
}

func until(d time.Duration) string {
	if d < 0 {
		return age(d) + " ago"
	}
	return "in " + age(d)
}
