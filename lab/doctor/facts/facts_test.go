package facts

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

func TestAddresses(t *testing.T) {
	for server, want := range map[string]struct {
		address  string
		loopback bool
	}{
		"https://192.0.2.1:6443": {"192.0.2.1:6443", false},
		"https://api.example":    {"api.example:443", false},
		"https://[::1]:6443":     {"[::1]:6443", true},
		"https://localhost:1":    {"localhost:1", true},
		"https://0.0.0.0:6443":   {"0.0.0.0:6443", true},
		"192.0.2.1":              {"", false},
		"https://%":              {"", false},
	} {
		s := RemoteSecret{Server: server}
		assert.Equal(t, want.address, s.HostPort(), server)
		assert.Equal(t, want.loopback, s.Loopback(), server)
	}
	g := Gateway{Addresses: []string{"192.0.2.1", "2001:db8::1"}, Port: GatewayPort}
	assert.Equal(t, []string{"192.0.2.1:15443", "[2001:db8::1]:15443"}, g.HostPorts())
}

func TestSelects(t *testing.T) {
	labels := map[string]string{"app": "a", "istio": "b"}
	assert.True(t, Selects(map[string]string{"app": "a"}, labels))
	assert.False(t, Selects(map[string]string{"app": "a", "x": "y"}, labels))
	assert.False(t, Selects(nil, labels), "an empty selector selects nothing")
}

func TestMostCommon(t *testing.T) {
	self := func(s string) string { return s }
	assert.Equal(t, "b", MostCommon([]string{"", "", "", "a", "b", "b"}, self))
	assert.Equal(t, "a", MostCommon([]string{"a", "b"}, self), "the first of two that are as frequent")
	assert.Empty(t, MostCommon(nil, self))
}

func TestReadCASecret(t *testing.T) {
	root, err := pki.NewRoot(pki.Options{Name: "root"})
	require.NoError(t, err)
	ca, err := root.Intermediate(pki.Options{Name: "ca"})
	require.NoError(t, err)
	other, err := root.CACerts()
	require.NoError(t, err)
	now := time.Now()
	read := func(change func(data map[string][]byte)) (*CASecret, map[string][]byte) {
		data, err := ca.CACerts()
		require.NoError(t, err)
		change(data)
		var f Facts
		return ReadCASecret(data, now, f.Add), data
	}
	s, data := read(func(map[string][]byte) {})
	assert.Equal(t, &CASecret{
		Keys: []string{pki.CACertFile, pki.CAKeyFile, pki.CertChainFile, pki.RootCertFile}, Modified: now, Key: KeyMatches,
		CA: []string{ID(ca.Certificate())}, Chain: []string{ID(ca.Certificate())}, Roots: []string{ID(root.Certificate())},
		Damaged: map[string]string{},
	}, s)
	assert.NotContains(t, string(data[pki.CAKeyFile]), "PRIVATE", "the key was overwritten")

	s, _ = read(func(d map[string][]byte) { d[pki.CAKeyFile] = other[pki.CAKeyFile] })
	assert.Equal(t, KeyForeign, s.Key)
	s, _ = read(func(d map[string][]byte) { d[pki.CAKeyFile] = []byte("no") })
	assert.Equal(t, KeyDamaged, s.Key)
	s, _ = read(func(d map[string][]byte) { d[pki.CertChainFile] = []byte("\n") })
	assert.Empty(t, s.Damaged, "an empty chain is not damaged")
	assert.Empty(t, s.Chain)
	s, _ = read(func(d map[string][]byte) { d[pki.RootCertFile] = []byte("no") })
	assert.Equal(t, map[string]string{pki.RootCertFile: "it contains no certificate"}, s.Damaged)
	s, _ = read(func(d map[string][]byte) {
		d["tls.crt"], d["tls.key"], d["ca.crt"] = d[pki.CACertFile], other[pki.CAKeyFile], d[pki.RootCertFile]
	})
	assert.Equal(t, []string{ID(ca.Certificate())}, s.CA)
	assert.Equal(t, []string{ID(root.Certificate())}, s.Roots)
}

// istiod reads what is good in a bundle, whatever else is in it.
func TestParseBundle(t *testing.T) {
	root, err := pki.NewRoot(pki.Options{Name: "root"})
	require.NoError(t, err)
	key, _, err := pki.NewKeyPair()
	require.NoError(t, err)
	certs, err := ParseBundle(append(key, root.CertPEM()...))
	require.ErrorContains(t, err, "a block is a ")
	assert.Equal(t, []*x509.Certificate{root.Certificate()}, certs)
	_, err = ParseBundle(nil)
	require.ErrorContains(t, err, "no certificate")
	list, err := root.RevocationList()
	require.NoError(t, err)
	assert.Len(t, ParseRevocationLists(append(root.CertPEM(), list...)), 1)
}
