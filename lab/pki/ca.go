// Package pki makes and reads the certificates of a lab: root and intermediate CAs in the form in which istiod reads them
// from the Secret cacerts, certificates and key pairs for the components of a Kubernetes node, and the descriptions,
// names and fingerprints by which people compare certificates.
//
// Keys are ECDSA on P-256. A private key leaves a CA in two ways only, by CACerts and by Save; printing a CA never shows
// it, in any form. The package knows nothing about clusters and needs only the standard library; its tests also run
// openssl where that is installed.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

const (
	organization = "eastwest"
	// backdate lets clocks differ a little; istiod does the same with two minutes
	// (security/pkg/pki/util/generate_cert.go).
	backdate = 5 * time.Minute

	defaultRootLifetime         = 10 * 365 * 24 * time.Hour
	defaultIntermediateLifetime = 2 * 365 * 24 * time.Hour
	defaultLeafLifetime         = 365 * 24 * time.Hour
)

// Options describe a CA certificate.
type Options struct {
	// Name becomes the subject's common name. Give two CAs two names: if their subjects are equal and their keys are
	// not, verifiers report broken signatures instead of an unknown issuer.
	Name string
	// Lifetime counts from now, or from NotBefore if that is set. Zero means 10 years for a root and 2 years for an
	// intermediate. What an issuer signs never outlives the issuer's own certificate.
	Lifetime time.Duration
	// NotBefore is five minutes ago when zero, so that clocks may differ a little.
	NotBefore time.Time
	// Below is how many levels of CAs there may be below this one. With 0 it signs leaves only: an intermediate that
	// such a root has signed does not verify. Nil means no limit for a root, and 0 for an intermediate.
	Below *int
	// NoIssuerKeyID leaves out the identifier of the issuer's key, as CAs that were made by hand often do. Verifiers
	// then find the issuer by its name alone.
	NoIssuerKeyID bool
}

// CA is a certificate authority: a certificate, its private key, and the certificates up to its root.
type CA struct {
	cert  *x509.Certificate
	upper []*x509.Certificate // the issuers between this CA and the root, nearest first; root excluded
	root  *x509.Certificate   // the CA's own certificate if it is the root
	// key is a function because printers that follow pointers in unexported fields, such as testify's diffs, would
	// show the secret number. They cannot look into a function.
	key func() *ecdsa.PrivateKey
}

// NewRoot makes a self-signed CA.
func NewRoot(o Options) (*CA, error) { return newCA(o, nil) }

// Intermediate makes a CA below c, which signs it.
func (c *CA) Intermediate(o Options) (*CA, error) { return newCA(o, c) }

func newCA(o Options, issuer *CA) (*CA, error) {
	if o.Name == "" {
		return nil, errors.New("making a CA: it has no name")
	}
	doing := "making CA " + strconv.Quote(o.Name)
	below, lifetime := 0, defaultIntermediateLifetime
	if issuer == nil {
		below, lifetime = -1, defaultRootLifetime
	}
	if o.Below != nil {
		below = *o.Below
	}
	if o.Lifetime != 0 {
		lifetime = o.Lifetime
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: o.Name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            below,
		MaxPathLenZero:        below == 0,
	}
	if err := setLifetime(template, o.NotBefore, lifetime, issuer); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	cert, err := sign(template, key, issuer, !o.NoIssuerKeyID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	made := &CA{cert: cert, root: cert, key: func() *ecdsa.PrivateKey { return key }}
	if issuer != nil {
		made.root, made.upper = issuer.root, issuer.chain()
	}
	return made, nil
}

// chain returns what has to be sent along with a certificate of this CA: the CA and its issuers without the root. For a
// root that is nothing.
func (c *CA) chain() []*x509.Certificate {
	if c.cert == c.root {
		return nil
	}
	return append([]*x509.Certificate{c.cert}, c.upper...)
}

func setLifetime(template *x509.Certificate, notBefore time.Time, lifetime time.Duration, issuer *CA) error {
	if lifetime < 0 {
		return fmt.Errorf("lifetime %s is negative", lifetime)
	}
	template.NotBefore, template.NotAfter = notBefore, notBefore.Add(lifetime)
	if notBefore.IsZero() {
		now := time.Now()
		template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(lifetime)
	}
	if issuer != nil && template.NotAfter.After(issuer.cert.NotAfter) {
		template.NotAfter = issuer.cert.NotAfter
	}
	if !template.NotAfter.After(template.NotBefore) {
		return fmt.Errorf("it would end at %s, before it begins at %s (lifetime %s; its issuer, if any, may end sooner)",
			template.NotAfter.UTC().Format(time.RFC3339), template.NotBefore.UTC().Format(time.RFC3339), lifetime)
	}
	return nil
}

// sign completes the template with a serial number and key identifiers, and signs it with the issuer's key, or with its
// own key if there is no issuer. The identifier of the issuer's key is left out unless issuerKeyID is set.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, issuer *CA, issuerKeyID bool) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	template.SerialNumber = serial
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	id := sha256.Sum256(public)
	template.SubjectKeyId = id[:20] // RFC 7093, method 1 over the whole SubjectPublicKeyInfo
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key()
	}
	template.AuthorityKeyId = parent.SubjectKeyId
	if !issuerKeyID {
		nameless := *parent // x509 takes the identifier from the parent and ignores the template's
		nameless.SubjectKeyId, template.AuthorityKeyId = nil, nil
		parent = &nameless
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return x509.ParseCertificate(der)
}

// LeafOptions describe a certificate that signs nothing. At least one of Server and Client must be set.
type LeafOptions struct {
	CommonName    string   // Kubernetes reads it as the user's name
	Organizations []string // Kubernetes reads them as the user's groups
	DNSNames      []string
	IPs           []netip.Addr
	URIs          []string      // SPIFFE IDs, for example
	Server        bool          // may be shown by a server
	Client        bool          // may be shown by a client
	Lifetime      time.Duration // from now or from NotBefore; one year when zero; never longer than the CA's
	NotBefore     time.Time     // five minutes ago when zero
}

// Leaf makes a key and a certificate for it. certPEM holds the certificate and then the CA's chain without the root, as
// servers have to send it; keyPEM is an unencrypted EC PRIVATE KEY.
func (c *CA) Leaf(o LeafOptions) (certPEM, keyPEM []byte, err error) {
	doing := "making certificate " + strconv.Quote(o.CommonName)
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: o.Organizations, CommonName: o.CommonName},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		DNSNames:              o.DNSNames,
		BasicConstraintsValid: true,
	}
	if o.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if o.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(template.ExtKeyUsage) == 0 {
		return nil, nil, fmt.Errorf("%s: it is neither for a server nor for a client", doing)
	}
	for _, ip := range o.IPs {
		if !ip.IsValid() {
			return nil, nil, fmt.Errorf("%s: one of its IP addresses is empty", doing)
		}
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	for _, text := range o.URIs {
		uri, err := url.Parse(text)
		if err != nil || uri.Scheme == "" {
			return nil, nil, fmt.Errorf("%s: %q is not an absolute URI", doing, text)
		}
		template.URIs = append(template.URIs, uri)
	}
	lifetime := o.Lifetime
	if lifetime == 0 {
		lifetime = defaultLeafLifetime
	}
	if err := setLifetime(template, o.NotBefore, lifetime, c); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	cert, err := sign(template, key, c, true)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	return encodeCerts(append([]*x509.Certificate{cert}, c.chain()...)...), keyPEM, nil
}

// NewKeyPair makes a key pair without a certificate, such as the one that signs and verifies service account tokens. It
// returns an EC PRIVATE KEY and its PUBLIC KEY, both in PEM.
func NewKeyPair() (privatePEM, publicPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key pair: %w", err)
	}
	if privatePEM, err = encodeKey(key); err != nil {
		return nil, nil, fmt.Errorf("making a key pair: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("making a key pair: %w", err)
	}
	return privatePEM, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil
}

// The keys of the Secret cacerts. If istiod finds none of these names it makes a self-signed CA instead, and says so only
// in its log (pilot/pkg/bootstrap/istio_ca.go).
const (
	CACertFile    = "ca-cert.pem"
	CAKeyFile     = "ca-key.pem"
	CertChainFile = "cert-chain.pem"
	RootCertFile  = "root-cert.pem"
	CRLFile       = "ca-crl.pem" // only where there are revocation lists
)

// CACerts returns the data of the Secret cacerts that makes istiod sign with this CA. root-cert.pem holds the given roots
// in their order, or the CA's own root if none is given.
//
// cert-chain.pem ends below the root, as with the lesson's `--from-file=cert-chain.pem=./ca-cert.pem`. It must not be
// empty: istiod sends it as it is, and peers would not get the intermediate.
func (c *CA) CACerts(roots ...*CA) (map[string][]byte, error) {
	key, err := encodeKey(c.key())
	if err != nil {
		return nil, fmt.Errorf("writing cacerts of CA %q: %w", c.Name(), err)
	}
	bundle := encodeCerts(c.root)
	if len(roots) > 0 {
		bundle = nil
		for _, r := range roots {
			bundle = append(bundle, encodeCerts(r.root)...)
		}
	}
	return map[string][]byte{
		CACertFile:    encodeCerts(c.cert),
		CAKeyFile:     key,
		CertChainFile: encodeCerts(append([]*x509.Certificate{c.cert}, c.upper...)...),
		RootCertFile:  bundle,
	}, nil
}

// Reissue returns the CA with a new certificate for the same key and name, signed by the same issuer, as a renewal does.
// Of the options it uses Lifetime and NotBefore. A root cannot be reissued.
func (c *CA) Reissue(issuer *CA, o Options) (*CA, error) {
	doing := "reissuing CA " + strconv.Quote(c.Name())
	if c.cert == c.root || !issuer.cert.Equal(append(c.upper, c.root)[0]) {
		return nil, fmt.Errorf("%s: %q is not its issuer", doing, issuer.Name())
	}
	template := &x509.Certificate{
		Subject: c.cert.Subject, KeyUsage: c.cert.KeyUsage, IsCA: true, BasicConstraintsValid: true,
		MaxPathLen: c.cert.MaxPathLen, MaxPathLenZero: c.cert.MaxPathLenZero,
	}
	lifetime := o.Lifetime
	if lifetime == 0 {
		lifetime = defaultIntermediateLifetime
	}
	err := setLifetime(template, o.NotBefore, lifetime, issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	made := *c
	if made.cert, err = sign(template, c.key(), issuer, true); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return &made, nil
}

// RevocationList returns the PEM of a CRL of this CA with the revoked certificates, if any. It is valid for a day. istiod
// reads it from the key ca-crl.pem of the Secret cacerts.
func (c *CA) RevocationList(revoked ...*x509.Certificate) ([]byte, error) {
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(now.UnixNano()), ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(24 * time.Hour)}
	for _, r := range revoked {
		entry := x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: list.ThisUpdate}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.cert, c.key())
	if err != nil {
		return nil, fmt.Errorf("making the CRL of CA %q: %w", c.Name(), err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// Name returns the subject's common name.
func (c *CA) Name() string { return c.cert.Subject.CommonName }

// Certificate returns the CA's certificate, which callers must not change.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Root returns the certificate of the CA's root, which is its own if it is a root.
func (c *CA) Root() *x509.Certificate { return c.root }

// CertPEM returns the CA's certificate.
func (c *CA) CertPEM() []byte { return encodeCerts(c.cert) }

// RootPEM returns the certificate of the CA's root.
func (c *CA) RootPEM() []byte { return encodeCerts(c.root) }

// String describes the certificate. Like every other way to print a CA it shows nothing of the key.
func (c CA) String() string {
	if c.cert == nil {
		return "CA without a certificate"
	}
	return Describe(c.cert).String()
}

// Format prints what String returns, for every verb including %#v.
func (c CA) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText returns what String returns, so that encoders such as encoding/json show nothing else.
func (c CA) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	// istiod takes "EC PRIVATE KEY", "RSA PRIVATE KEY" and "PRIVATE KEY" (security/pkg/pki/util/crypto.go).
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
