package pki

import (
	"bytes"
	"crypto"
	"crypto/sha1" //nolint:gosec // only to print what openssl prints by default
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Roots returns all certificates of a PEM bundle in their order. It is stricter than Go's own reader, which skips what it
// cannot decode: a damaged block, a block that is not a certificate, and a bundle without a certificate are errors. Text
// between the blocks is allowed.
func Roots(pemBundle []byte) ([]*x509.Certificate, error) {
	begun := bytes.Count(pemBundle, []byte("-----BEGIN "))
	var certs []*x509.Certificate
	for rest := pemBundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		place := len(certs) + 1
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("reading certificates: block %d is a %s, not a CERTIFICATE", place, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificates: block %d: %w", place, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case begun == 0:
		return nil, errors.New("reading certificates: there is no PEM block")
	case len(certs) != begun:
		return nil, fmt.Errorf("reading certificates: %d of %d PEM blocks are damaged", begun-len(certs), begun)
	}
	return certs, nil
}

// Fingerprint returns the SHA-256 of the first certificate in data, in the form in which
// `openssl x509 -noout -fingerprint -sha256` prints it after the equals sign.
func Fingerprint(data []byte) (string, error) {
	cert, err := first(data)
	if err != nil {
		return "", err
	}
	return Describe(cert).SHA256, nil
}

// FingerprintSHA1 returns what `openssl x509 -noout -fingerprint` prints after the equals sign for the first certificate
// in data. Without the name of a digest openssl uses SHA-1.
func FingerprintSHA1(data []byte) (string, error) {
	cert, err := first(data)
	if err != nil {
		return "", err
	}
	return Describe(cert).SHA1, nil
}

func first(data []byte) (*x509.Certificate, error) {
	certs, err := Roots(data)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// Description holds what people compare certificates by. Fingerprints and key identifiers are upper-case hexadecimal
// bytes with colons, as openssl prints them.
type Description struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	SPIFFE    string    `json:"spiffe,omitempty"` // the first SPIFFE ID among its names
	CA        bool      `json:"ca,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	SHA256    string    `json:"sha256"`
	SHA1      string    `json:"sha1"`
	KeyID     string    `json:"keyId,omitempty"`       // subject key identifier
	IssuerID  string    `json:"issuerKeyId,omitempty"` // authority key identifier
}

// Describe returns the description of a certificate.
func Describe(cert *x509.Certificate) Description {
	d := Description{
		Subject:   cert.Subject.String(),
		Issuer:    cert.Issuer.String(),
		SPIFFE:    SPIFFE(cert),
		CA:        cert.IsCA,
		NotBefore: cert.NotBefore.UTC(),
		NotAfter:  cert.NotAfter.UTC(),
		KeyID:     hexBytes(cert.SubjectKeyId),
		IssuerID:  hexBytes(cert.AuthorityKeyId),
	}
	long, short := sha256.Sum256(cert.Raw), sha1.Sum(cert.Raw) //nolint:gosec // see the import
	d.SHA256, d.SHA1 = hexBytes(long[:]), hexBytes(short[:])
	return d
}

// String returns one line: whose certificate it is, who signed it, when it ends, and its SHA-256 fingerprint.
func (d Description) String() string {
	who := d.Subject
	if d.SPIFFE != "" {
		who = d.SPIFFE
	}
	if who == "" {
		who = "(no subject)"
	}
	by := "signed by " + d.Issuer
	if d.Subject == d.Issuer {
		by = "self-signed"
	}
	return fmt.Sprintf("%s, %s, until %s, sha256 %s", who, by, d.NotAfter.Format(time.RFC3339), d.SHA256)
}

func hexBytes(b []byte) string {
	parts := make([]string, len(b))
	for i, v := range b {
		parts[i] = fmt.Sprintf("%02X", v)
	}
	return strings.Join(parts, ":")
}

// PublicKey returns the public part of a private key in PEM: EC PRIVATE KEY, RSA PRIVATE KEY or PRIVATE KEY. Its errors
// never quote what it read.
func PublicKey(keyPEM []byte) (interface{ Equal(crypto.PublicKey) bool }, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("reading a private key: there is no PEM block, or it is damaged")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("reading a private key: it is a %s", block.Type)
	}
	if signer, ok := key.(crypto.Signer); ok && err == nil {
		if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); ok {
			return public, nil
		}
	}
	return nil, errors.New("reading a private key: it is damaged, or its type is not known")
}

// Verify returns nil if, at the given time, the first certificate of the chain leads to one of the roots through the other
// certificates of the chain. Names and usages are not checked. The error describes the certificate and wraps the
// verifier's.
func Verify(leafChain, roots []*x509.Certificate, at time.Time) error {
	if len(leafChain) == 0 {
		return errors.New("verifying a certificate: the chain is empty")
	}
	o := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range leafChain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leafChain[0].Verify(o); err != nil {
		return fmt.Errorf("verifying %s: %w", Describe(leafChain[0]), err)
	}
	return nil
}
