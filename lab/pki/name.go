package pki

import (
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// Name returns the common name of a certificate's subject, or the whole subject if it has no common name.
// Two certificates can have one name: where that matters, use Label.
func Name(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

// shortFingerprint is how much of a fingerprint people compare by eye: four bytes with colons.
const shortFingerprint = len("01:23:45:67")

// ShortFingerprint returns the first four bytes of a certificate's SHA-256 fingerprint: "01:23:45:67".
func ShortFingerprint(c *x509.Certificate) string { return Describe(c).SHA256[:shortFingerprint] }

// Label names a certificate so that it cannot be mistaken for another with the same name:
// `"shared root" (SHA-256 01:23:45:67…)`.
func Label(c *x509.Certificate) string {
	return fmt.Sprintf("%q (SHA-256 %s…)", Name(c), ShortFingerprint(c))
}

// Labels joins the labels of certificates into a phrase, "nobody" if there is none.
func Labels(certs []*x509.Certificate) string {
	if len(certs) == 0 {
		return "nobody"
	}
	labels := make([]string, len(certs))
	for i, c := range certs {
		labels[i] = Label(c)
	}
	return words.And(labels)
}

// Signer says who signed the first certificate of a chain: the label of the next certificate if that one did, otherwise
// the name that the first certificate gives for its issuer, and "nobody" if the chain is empty.
func Signer(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "nobody"
	}
	if len(chain) > 1 && chain[0].CheckSignatureFrom(chain[1]) == nil {
		return Label(chain[1])
	}
	if cn := chain[0].Issuer.CommonName; cn != "" {
		return fmt.Sprintf("%q", cn)
	}
	return fmt.Sprintf("%q", chain[0].Issuer.String())
}

// SPIFFE returns the first SPIFFE ID of a certificate, "" if it has none.
func SPIFFE(c *x509.Certificate) string {
	for _, uri := range c.URIs {
		if uri.Scheme == "spiffe" {
			return uri.String()
		}
	}
	return ""
}

// Contains reports whether every certificate of some is among all.
func Contains(all, some []*x509.Certificate) bool {
	return !slices.ContainsFunc(some, func(c *x509.Certificate) bool { return !slices.ContainsFunc(all, c.Equal) })
}

// SameSet reports whether two lists hold the same certificates, in whatever order and however often.
func SameSet(a, b []*x509.Certificate) bool { return Contains(a, b) && Contains(b, a) }
