package exam

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// clockSkew is by how much the clocks of those who sign and of those who verify may differ.
const clockSkew = time.Minute

// outcome is the result of verifying a chain.
type outcome string

const (
	trusted     outcome = ""
	unknownRoot outcome = "its root is not trusted"
	gap         outcome = "its chain has a gap"
	expired     outcome = "a certificate of its chain has expired"
	tooEarly    outcome = "a certificate of its chain is not valid yet"
	revoked     outcome = "a certificate of its chain has been revoked"
	refused     outcome = "its chain is refused"
	wrongDomain outcome = "its trust domain is not accepted"
)

// list returns certificates by their IDs. Unknown ones are left out.
func (e *examination) list(ids []string) []*x509.Certificate {
	var all []*x509.Certificate
	for _, id := range ids {
		if c := e.certs[id]; c != nil {
			all = append(all, c)
		}
	}
	return all
}

// signed reports whether ca has signed c with its key. Dates do not matter.
func signed(c, ca *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, ca.RawSubject) && ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// climb follows the signatures from the first certificate of a chain up to a root and returns all certificates on the way, the
// root included. Dates do not matter. With unknownRoot the last certificate is a root that is not among roots, or one whose issuer
// is not there; with gap the next certificate is missing from the chain.
func climb(chain, roots []*x509.Certificate) (way []*x509.Certificate, _ outcome) {
	if len(chain) == 0 {
		return nil, gap
	}
	for at := chain[0]; ; {
		way = append(way, at)
		if slices.ContainsFunc(roots, at.Equal) {
			return way, trusted
		}
		if i := slices.IndexFunc(roots, func(r *x509.Certificate) bool { return signed(at, r) }); i >= 0 {
			return append(way, roots[i]), trusted
		}
		if signed(at, at) {
			return way, unknownRoot
		}
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool {
			return signed(at, c) && !slices.ContainsFunc(way, c.Equal)
		})
		if i < 0 {
			// A chain may end below its root. There is a gap only if it goes on, and nothing in it signed a certificate that is
			// not a CA.
			if len(chain) > 1 && !at.IsCA {
				return way, gap
			}
			return way, unknownRoot
		}
		at = chain[i]
	}
}

// lastOf returns the last certificate on the way from a chain to its root.
func lastOf(chain, roots []*x509.Certificate) *x509.Certificate {
	way, _ := climb(chain, roots)
	return way[len(way)-1]
}

// verify says whether proxies with these roots and revocation lists accept a chain, and which certificate decides that.
func (e *examination) verify(
	roots []*x509.Certificate, lists []*x509.RevocationList, chain []*x509.Certificate,
) (outcome, *x509.Certificate) {
	way, o := climb(chain, roots)
	if o != trusted {
		return o, way[len(way)-1]
	}
	for _, c := range slices.Backward(way) {
		if e.Taken.After(c.NotAfter) {
			return expired, c
		}
		if e.Taken.Add(clockSkew).Before(c.NotBefore) {
			return tooEarly, c
		}
	}
	for i, c := range way[:len(way)-1] {
		if isRevoked(c, way[i+1], lists) {
			return revoked, c
		}
	}
	at := e.Taken // what clockSkew allows is allowed here, too
	for _, c := range way {
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	if err := pki.Verify(chain, roots, at); err != nil {
		return refused, chain[0]
	}
	return trusted, nil
}

// isRevoked reports whether one of the lists, signed by a certificate's issuer, has the certificate.
func isRevoked(c, issuer *x509.Certificate, lists []*x509.RevocationList) bool {
	for _, list := range lists {
		has := slices.ContainsFunc(list.RevokedCertificateEntries, func(r x509.RevocationListEntry) bool {
			return r.SerialNumber.Cmp(c.SerialNumber) == 0
		})
		if has && list.CheckSignatureFrom(issuer) == nil {
			return true
		}
	}
	return false
}

// parseLists parses revocation lists in DER. Damaged ones are left out.
func parseLists(all [][]byte) (lists []*x509.RevocationList) {
	for _, der := range all {
		if list, err := x509.ParseRevocationList(der); err == nil {
			lists = append(lists, list)
		}
	}
	return lists
}

// dated returns the finding about the dates of a CA's certificate, and a sentence about it. ok is false if the dates are right.
func (e *examination) dated(c *x509.Certificate, root bool) (id findings.ID, says string, ok bool) {
	ago := words.Age(e.Taken.Sub(c.NotAfter))
	switch {
	case e.Taken.After(c.NotAfter) && root:
		return findings.RootExpired, fmt.Sprintf("the root %q expired %s ago", pki.Name(c), ago), true
	case e.Taken.After(c.NotAfter):
		return findings.IntermediateExpired, fmt.Sprintf("the intermediate %q expired %s ago", pki.Name(c), ago), true
	case e.Taken.Add(clockSkew).Before(c.NotBefore):
		in := words.Age(c.NotBefore.Sub(e.Taken))
		return findings.CertificateNotYetValid, fmt.Sprintf("%q becomes valid in %s", pki.Name(c), in), true
	}
	return 0, "", false
}

// signerOf returns the CA that signed the first certificate of a chain: from the chain, otherwise from the Secrets of a cluster.
// It is nil if it is in neither.
func (e *examination) signerOf(chain []*x509.Certificate, c facts.Cluster) *x509.Certificate {
	if len(chain) == 0 {
		return nil
	}
	candidates := slices.Clone(chain[1:])
	for _, s := range []*facts.CASecret{c.CACerts, c.SelfSigned} {
		if s != nil {
			candidates = append(candidates, e.list(s.CA)...)
		}
	}
	if i := slices.IndexFunc(candidates, func(ca *x509.Certificate) bool { return signed(chain[0], ca) }); i >= 0 {
		return candidates[i]
	}
	return nil
}

// rootOf names the root of a chain whose last certificate is last: that certificate, otherwise its issuer.
func (e *examination) rootOf(last *x509.Certificate) string {
	if signed(last, last) {
		return pki.Label(last)
	}
	for _, id := range slices.Sorted(maps.Keys(e.certs)) {
		if signed(last, e.certs[id]) {
			return pki.Label(e.certs[id])
		}
	}
	return fmt.Sprintf("%q", last.Issuer.CommonName)
}

// trustDomain returns the trust domain of a certificate, "" if it has no SPIFFE identity.
func trustDomain(chain []*x509.Certificate) string {
	for _, uri := range chain[0].URIs {
		if uri.Scheme == "spiffe" {
			return uri.Host
		}
	}
	return ""
}

// twins reports whether a root of one set has the name of a root in the other set, and another key.
func twins(a, b []*x509.Certificate) bool {
	return slices.ContainsFunc(a, func(x *x509.Certificate) bool {
		return slices.ContainsFunc(b, func(y *x509.Certificate) bool {
			return bytes.Equal(x.RawSubject, y.RawSubject) && !sameKey(x, y)
		})
	})
}

func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}
