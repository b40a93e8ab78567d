package facts

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

// ID returns the name of a certificate in Facts: the SHA-256 of its DER.
func ID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Add puts certificates into the facts and returns their IDs.
func (f *Facts) Add(certs []*x509.Certificate) []string {
	if f.Certificates == nil {
		f.Certificates = map[string][]byte{}
	}
	ids := make([]string, len(certs))
	for i, c := range certs {
		ids[i] = ID(c)
		f.Certificates[ids[i]] = c.Raw
	}
	return ids
}

// ParseBundle reads a PEM bundle the way istiod does: it returns all certificates of the bundle, also with an error about the
// blocks that are not certificates. A bundle without any certificate is an error.
func ParseBundle(data []byte) (certs []*x509.Certificate, err error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" { // a private key that somebody put there by mistake is not kept
			err = errors.Join(err, fmt.Errorf("a block is a %s", block.Type))
			continue
		}
		cert, problem := x509.ParseCertificate(block.Bytes)
		if problem != nil {
			err = errors.Join(err, problem)
			continue
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 && err == nil {
		err = errors.New("it contains no certificate")
	}
	return certs, err
}

// ParseRevocationLists returns the DER of the revocation lists in data, which is PEM. Other blocks are left out.
func ParseRevocationLists(data []byte) [][]byte {
	var all [][]byte
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		if block.Type == "X509 CRL" {
			all = append(all, block.Bytes)
		}
	}
}

// CASecret is the public part of a Secret that holds a CA.
type CASecret struct {
	Keys     []string  `json:"keys"` // names of the files in it
	Modified time.Time `json:"modified"`
	CA       []string  `json:"ca,omitempty"`
	Chain    []string  `json:"chain,omitempty"`
	Roots    []string  `json:"roots,omitempty"`
	CRLs     [][]byte  `json:"crls,omitempty"` // in DER
	Key      KeyState  `json:"key,omitempty"`  // empty if there is no key, or no certificate to compare it with
	// Damaged are the files that should hold certificates and hold something else, with the reason.
	Damaged map[string]string `json:"damaged,omitempty"`
}

// KeyState says whether the private key of a CASecret belongs to its certificate.
type KeyState string

// The states.
const (
	KeyMatches KeyState = "matches"
	KeyForeign KeyState = "another" // it belongs to another certificate
	KeyDamaged KeyState = "damaged"
)

// The files of a CASecret.
type caFiles struct{ ca, key, chain, roots string }

// filesOf returns which files a Secret has: those of cert-manager if there is a tls.crt, otherwise those of Istio.
func filesOf(data map[string][]byte) caFiles {
	if data["tls.crt"] != nil {
		return caFiles{"tls.crt", "tls.key", "tls.crt", "ca.crt"}
	}
	return caFiles{pki.CACertFile, pki.CAKeyFile, pki.CertChainFile, pki.RootCertFile}
}

// ReadCASecret returns the public part of a Secret that was last written at modified. It gives the certificates to add, which
// returns their IDs. The private key is compared with the certificate, and then overwritten in data.
func ReadCASecret(data map[string][]byte, modified time.Time, add func([]*x509.Certificate) []string) *CASecret {
	s := &CASecret{
		Keys: slices.Sorted(maps.Keys(data)), Modified: modified,
		CRLs: ParseRevocationLists(data[pki.CRLFile]), Damaged: map[string]string{},
	}
	files := filesOf(data)
	read := func(file string) ([]string, []*x509.Certificate) {
		content, ok := data[file]
		if !ok {
			return nil, nil
		}
		certs, err := ParseBundle(content)
		if err != nil {
			s.Damaged[file] = err.Error()
		}
		return add(certs), certs
	}
	var ca []*x509.Certificate
	s.CA, ca = read(files.ca)
	if strings.TrimSpace(string(data[files.chain])) != "" { // an empty chain is not damaged: it is a finding of its own
		s.Chain, _ = read(files.chain)
	}
	s.Roots, _ = read(files.roots)
	if key, ok := data[files.key]; ok && len(ca) > 0 {
		s.Key = compare(key, ca[0])
		clear(key)
	}
	return s
}

func compare(key []byte, cert *x509.Certificate) KeyState {
	public, err := pki.PublicKey(key)
	switch {
	case err != nil:
		return KeyDamaged
	case public.Equal(cert.PublicKey):
		return KeyMatches
	}
	return KeyForeign
}
