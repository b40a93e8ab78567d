package pki

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesOfCertificates(t *testing.T) {
	root, err := NewRoot(Options{Name: "root"})
	require.NoError(t, err)
	twin, err := NewRoot(Options{Name: "root"})
	require.NoError(t, err)
	ca, err := root.Intermediate(Options{Name: "intermediate"})
	require.NoError(t, err)
	leafPEM, _, err := ca.Leaf(LeafOptions{URIs: []string{"https://example.org/", "spiffe://cluster.local/ns/x/sa/y"}, Client: true})
	require.NoError(t, err)
	chain, err := Roots(leafPEM)
	require.NoError(t, err)
	leaf := chain[0]

	require.Equal(t, "root", Name(root.Certificate()))
	require.Equal(t, leaf.Subject.String(), Name(leaf), "without a common name it is the subject")
	whole, err := Fingerprint(root.CertPEM())
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(whole, ShortFingerprint(root.Certificate())+":"))
	require.Regexp(t, `^"root" \(SHA-256 [0-9A-F]{2}(:[0-9A-F]{2}){3}…\)$`, Label(root.Certificate()))
	require.NotEqual(t, Label(root.Certificate()), Label(twin.Certificate()))
	require.Equal(t, "nobody", Labels(nil))
	require.Equal(t, Label(ca.Certificate())+" and "+Label(root.Certificate()),
		Labels([]*x509.Certificate{ca.Certificate(), root.Certificate()}))

	require.Equal(t, Label(ca.Certificate()), Signer(chain))
	require.Equal(t, `"intermediate"`, Signer(chain[:1]), "the certificate alone knows no more than a name")
	require.Equal(t, `"intermediate"`, Signer([]*x509.Certificate{leaf, twin.Certificate()}), "the next one did not sign it")
	require.Equal(t, "nobody", Signer(nil))
	require.Equal(t, "spiffe://cluster.local/ns/x/sa/y", SPIFFE(leaf))
	require.Empty(t, SPIFFE(root.Certificate()))

	one, both := []*x509.Certificate{root.Certificate()}, []*x509.Certificate{twin.Certificate(), root.Certificate()}
	require.True(t, Contains(both, one))
	require.False(t, Contains(one, both))
	require.True(t, SameSet(both, []*x509.Certificate{root.Certificate(), twin.Certificate(), root.Certificate()}))
	require.False(t, SameSet(one, both))
}
