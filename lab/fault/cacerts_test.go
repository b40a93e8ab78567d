package fault

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

func TestSpoil(t *testing.T) {
	now := map[string][]byte{
		pki.CACertFile: []byte("cert"), pki.CAKeyFile: []byte("key"), pki.CertChainFile: []byte("chain"), pki.RootCertFile: []byte("root"),
	}
	data, err := Spoiled{
		Rename: map[string]string{pki.CACertFile: "ca.crt"}, Remove: []string{pki.RootCertFile}, Empty: []string{pki.CertChainFile},
	}.spoil(now)
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"ca.crt": []byte("cert"), pki.CAKeyFile: []byte("key"), pki.CertChainFile: {}}, data)

	data, err = Spoiled{OtherKey: true}.spoil(now)
	require.NoError(t, err)
	block, _ := pem.Decode(data[pki.CAKeyFile])
	_, err = x509.ParseECPrivateKey(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, now[pki.CACertFile], data[pki.CACertFile])

	_, err = Spoiled{Remove: []string{"ca.crt"}}.spoil(now)
	require.ErrorContains(t, err, "has no key ca.crt: it has ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem")
}
