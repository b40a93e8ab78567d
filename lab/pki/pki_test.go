package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"istio.io/istio/security/pkg/pki/util"
)

func newRoot(t testing.TB, name string) *CA {
	t.Helper()
	root, err := NewRoot(Options{Name: name})
	require.NoError(t, err)
	return root
}

func newIntermediate(t testing.TB, root *CA, name string) *CA {
	t.Helper()
	ca, err := root.Intermediate(Options{Name: name})
	require.NoError(t, err)
	return ca
}

func newLeaf(t testing.TB, ca *CA, o LeafOptions) ([]*x509.Certificate, []byte, []byte) {
	t.Helper()
	certPEM, keyPEM, err := ca.Leaf(o)
	require.NoError(t, err)
	chain, err := Roots(certPEM)
	require.NoError(t, err)
	return chain, certPEM, keyPEM
}

func cacerts(t testing.TB, ca *CA, roots ...*CA) map[string][]byte {
	t.Helper()
	data, err := ca.CACerts(roots...)
	require.NoError(t, err)
	return data
}

func TestOneRootTwoIntermediates(t *testing.T) {
	root := newRoot(t, "root")
	a, b := newIntermediate(t, root, "intermediate-a"), newIntermediate(t, root, "intermediate-b")
	stranger := newRoot(t, "stranger")
	now := time.Now()

	names, ids := map[string]bool{}, map[string]bool{}
	for _, ca := range []*CA{root, a, b, stranger} {
		d := Describe(ca.Certificate())
		names[d.Subject], ids[d.KeyID] = true, true
		assert.True(t, d.CA)
		assert.NotEmpty(t, d.IssuerID)
	}
	assert.Len(t, names, 4, "subjects")
	assert.Len(t, ids, 4, "key identifiers")
	assert.Equal(t, Describe(root.Certificate()).KeyID, Describe(a.Certificate()).IssuerID)
	assert.Equal(t, root.Root(), a.Root())

	chain, _, _ := newLeaf(t, a, LeafOptions{CommonName: "x", Server: true, URIs: []string{"spiffe://cluster.local/ns/n/sa/s"}})
	require.Len(t, chain, 2, "leaf and intermediate, without the root")
	assert.Equal(t, "spiffe://cluster.local/ns/n/sa/s", Describe(chain[0]).SPIFFE)
	require.NoError(t, Verify(chain, []*x509.Certificate{root.Root()}, now))
	require.NoError(t, Verify(chain, []*x509.Certificate{stranger.Root(), root.Root()}, now), "one of two roots is enough")

	err := Verify(chain, []*x509.Certificate{stranger.Root()}, now)
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
	require.ErrorAs(t, Verify(chain[:1], []*x509.Certificate{root.Root()}, now), &unknown, "without the intermediate")
	require.Error(t, Verify(nil, []*x509.Certificate{root.Root()}, now))
	require.Error(t, Verify(chain, nil, now))
}

// istiod's own code has to take what CACerts returns.
func TestIstiodTakesCACerts(t *testing.T) {
	one, two := newRoot(t, "root-1"), newRoot(t, "root-2")
	ca := newIntermediate(t, one, "intermediate")
	for name, data := range map[string]map[string][]byte{
		"own root":        cacerts(t, ca),
		"two roots":       cacerts(t, ca, two, one),
		"a root as CA":    cacerts(t, one),
		"two levels down": cacerts(t, deep(t)),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, util.Verify(data[CACertFile], data[CAKeyFile], data[CertChainFile], data[RootCertFile], nil))
		})
	}
	wrong := cacerts(t, ca, two)
	require.Error(t, util.Verify(wrong[CACertFile], wrong[CAKeyFile], wrong[CertChainFile], wrong[RootCertFile], nil),
		"a bundle without the CA's root")

	bundle, err := Roots(cacerts(t, ca, two, one)[RootCertFile])
	require.NoError(t, err)
	require.Len(t, bundle, 2)
	assert.Equal(t, two.Root().Raw, bundle[0].Raw, "the order given")
}

// deep returns a CA with another intermediate between it and the root.
func deep(t testing.TB) *CA {
	t.Helper()
	below := 1
	upper, err := newRoot(t, "deep-root").Intermediate(Options{Name: "upper", Below: &below})
	require.NoError(t, err)
	return newIntermediate(t, upper, "lower")
}

func verify(root *CA, chain []*x509.Certificate, at time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Certificate())
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at})
	return err
}

func TestTwinRoot(t *testing.T) {
	root := newRoot(t, "root")
	twin, err := NewRoot(Options{Name: "root"})
	require.NoError(t, err)
	ca, err := twin.Intermediate(Options{Name: "ca", NoIssuerKeyID: true})
	require.NoError(t, err)
	require.Equal(t, root.Certificate().RawSubject, twin.Certificate().RawSubject)
	require.Empty(t, ca.Certificate().AuthorityKeyId)
	chain, _, _ := newLeaf(t, ca, LeafOptions{CommonName: "leaf", Server: true})
	require.NoError(t, verify(twin, chain, time.Now()))
	require.Error(t, verify(root, chain, time.Now()))
}

func TestReissue(t *testing.T) {
	root := newRoot(t, "root")
	ca := newIntermediate(t, root, "ca")
	ahead, err := ca.Reissue(root, Options{NotBefore: time.Now().Add(10 * time.Minute)})
	require.NoError(t, err)
	require.Equal(t, ca.Certificate().PublicKey, ahead.Certificate().PublicKey)
	require.Equal(t, ca.Certificate().RawSubject, ahead.Certificate().RawSubject)
	chain, _, _ := newLeaf(t, ca, LeafOptions{CommonName: "leaf", Server: true, Lifetime: time.Hour})
	require.NoError(t, verify(root, chain, time.Now()))
	chain[1] = ahead.Certificate()
	require.ErrorContains(t, verify(root, chain, time.Now()), "not yet valid")
	require.NoError(t, verify(root, chain, time.Now().Add(15*time.Minute)))
	_, err = ca.Reissue(newRoot(t, "root"), Options{})
	require.ErrorContains(t, err, "is not its issuer")
	_, err = root.Reissue(root, Options{})
	require.Error(t, err)
}

// istiod wants a list of every CA in the chain; see Verify in security/pkg/pki/util/keycertbundle.go.
func TestIstiodTakesRevocationLists(t *testing.T) {
	root := newRoot(t, "root")
	ca, other := newIntermediate(t, root, "ca"), newIntermediate(t, root, "other")
	list := func(of ...*CA) []byte {
		var all []byte
		for _, c := range of {
			text, err := c.RevocationList(other.Certificate())
			require.NoError(t, err)
			all = append(all, text...)
		}
		return all
	}
	data := cacerts(t, ca)
	check := func(crl []byte) error {
		return util.Verify(data[CACertFile], data[CAKeyFile], data[CertChainFile], data[RootCertFile], crl)
	}
	require.NoError(t, check(nil))
	require.NoError(t, check(list(root, ca)))
	require.ErrorContains(t, check(list(root, other)), "missing CRL signed by certificates")
	block, _ := pem.Decode(list(root))
	parsed, err := x509.ParseRevocationList(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, parsed.CheckSignatureFrom(root.Certificate()))
	require.Equal(t, other.Certificate().SerialNumber, parsed.RevokedCertificateEntries[0].SerialNumber)
}

func TestPathLength(t *testing.T) {
	lower := deep(t)
	chain, _, _ := newLeaf(t, lower, LeafOptions{CommonName: "x", Client: true})
	require.Len(t, chain, 3)
	require.NoError(t, Verify(chain, []*x509.Certificate{lower.Root()}, time.Now()))

	tooDeep := newIntermediate(t, lower, "too-deep")
	chain, _, _ = newLeaf(t, tooDeep, LeafOptions{CommonName: "x", Client: true})
	require.ErrorContains(t, Verify(chain, []*x509.Certificate{lower.Root()}, time.Now()), "too many intermediates")
}

func TestLifetimes(t *testing.T) {
	start := time.Now()
	root, err := NewRoot(Options{Name: "short", Lifetime: 3 * time.Minute})
	require.NoError(t, err)
	assert.WithinDuration(t, start.Add(3*time.Minute), root.Certificate().NotAfter, 5*time.Second)
	assert.WithinDuration(t, start.Add(-backdate), root.Certificate().NotBefore, 5*time.Second)

	ca := newIntermediate(t, root, "clamped")
	assert.Equal(t, root.Certificate().NotAfter, ca.Certificate().NotAfter, "never longer than its issuer")
	chain, _, _ := newLeaf(t, ca, LeafOptions{CommonName: "x", Client: true, Lifetime: time.Minute})
	roots := []*x509.Certificate{root.Root()}
	require.NoError(t, Verify(chain, roots, start.Add(30*time.Second)))
	require.ErrorContains(t, Verify(chain, roots, start.Add(2*time.Minute)), "expired")

	tomorrow := start.Add(24 * time.Hour)
	later, err := NewRoot(Options{Name: "later", NotBefore: tomorrow, Lifetime: time.Hour})
	require.NoError(t, err)
	assert.WithinDuration(t, tomorrow.Add(time.Hour), later.Certificate().NotAfter, time.Second)
	require.Error(t, Verify([]*x509.Certificate{later.Certificate()}, []*x509.Certificate{later.Root()}, start), "not yet valid")

	_, err = root.Intermediate(Options{Name: "after the end", NotBefore: tomorrow})
	require.ErrorContains(t, err, "it would end at")
	_, err = NewRoot(Options{Name: "x", Lifetime: -time.Second})
	require.ErrorContains(t, err, "negative")
	_, err = NewRoot(Options{})
	require.ErrorContains(t, err, "no name")
}

func TestLeafForKubernetes(t *testing.T) {
	ca := newRoot(t, "kubernetes")
	chain, certPEM, keyPEM := newLeaf(t, ca, LeafOptions{
		CommonName: "kube-apiserver", Organizations: []string{"system:masters"}, Server: true, Client: true,
		DNSNames: []string{"kubernetes.default.svc"},
		IPs:      []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("::ffff:127.0.0.1")},
	})
	leaf := chain[0]
	assert.Len(t, chain, 1, "a root is not part of the chain it signs")
	assert.Equal(t, []string{"system:masters"}, leaf.Subject.Organization)
	for _, host := range []string{"kubernetes.default.svc", "10.96.0.1", "127.0.0.1"} {
		require.NoError(t, leaf.VerifyHostname(host))
	}
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, leaf.ExtKeyUsage)
	_, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)

	for name, o := range map[string]LeafOptions{
		"no usage": {CommonName: "x"},
		"empty IP": {CommonName: "x", Server: true, IPs: []netip.Addr{{}}},
		"bad URI":  {CommonName: "x", Server: true, URIs: []string{"no-scheme"}},
		"broken":   {CommonName: "x", Server: true, URIs: []string{"spiffe://%zz"}},
		"ended":    {CommonName: "x", Server: true, Lifetime: -1},
	} {
		_, _, err := ca.Leaf(o)
		assert.Error(t, err, name)
	}
}

func TestKeyPair(t *testing.T) {
	private, public, err := NewKeyPair()
	require.NoError(t, err)
	key, err := parseKey(private)
	require.NoError(t, err)
	block, _ := pem.Decode(public)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	assert.True(t, key.PublicKey.Equal(parsed))
}

// The printers of the standard library, encoders and testify's diffs must never show a key.
func TestKeysAreNeverPrinted(t *testing.T) {
	ca := newIntermediate(t, newRoot(t, "root"), "secret")
	secret := ca.key().D //nolint:staticcheck // to look for it
	keyPEM := cacerts(t, ca)[CAKeyFile]
	block, _ := pem.Decode(keyPEM)
	type holding struct {
		Pointer *CA
		Value   CA
		hidden  CA
		far     *CA
	}
	holder := holding{ca, *ca, *ca, ca}

	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		shown = append(shown, fmt.Sprintf(verb, ca), fmt.Sprintf(verb, *ca), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder))
	}
	for _, v := range []any{ca, *ca, holder} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		shown = append(shown, string(text))
	}
	var diff bytes.Buffer
	assert.Equal(collector{&diff}, holder, holding{})
	shown = append(shown, diff.String())
	require.Contains(t, diff.String(), "Diff:", "testify's diff was really made")

	for _, text := range shown {
		for what, needle := range map[string]string{
			"decimal": secret.String(), "hex": secret.Text(16), "upper hex": strings.ToUpper(secret.Text(16)),
			"PEM": strings.Split(string(keyPEM), "\n")[1], "words": fmt.Sprint(secret.Bits()[0]),
			"words, spaced": fmt.Sprintf("%#x", secret.Bits()[0]), "DER": fmt.Sprint(block.Bytes[7:20]),
		} {
			assert.NotContains(t, text, needle, what)
		}
	}
	assert.Contains(t, ca.String(), "CN=secret")
	assert.Equal(t, "CA without a certificate", CA{}.String())
}

type collector struct{ out *bytes.Buffer }

func (c collector) Errorf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	cas := map[string]*CA{"root": newRoot(t, "root"), "middle": newIntermediate(t, newRoot(t, "r"), "middle"), "deep": deep(t)}
	for name, ca := range cas {
		require.NoError(t, ca.Save(dir, name))
		require.NoError(t, ca.Save(dir, name), "the same again")
		back, err := Load(dir, name)
		require.NoError(t, err)
		assert.Equal(t, cacerts(t, ca), cacerts(t, back))
		chain, _, _ := newLeaf(t, back, LeafOptions{CommonName: "x", Client: true})
		require.NoError(t, Verify(chain, []*x509.Certificate{ca.Root()}, time.Now()))

		info, err := os.Stat(filepath.Join(dir, name, keyFile))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
	err := newRoot(t, "other").Save(dir, "root")
	require.ErrorIs(t, err, fs.ErrExist)
	require.NotContains(t, err.Error(), "PRIVATE")

	_, err = Load(dir, "nobody")
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, name := range []string{"", ".", "..", ".new", "a/b", "../root"} {
		_, err := Load(dir, name)
		require.Error(t, err, name)
		require.Error(t, newRoot(t, "x").Save(dir, name), name)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "nothing temporary is left")

	unwritable := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(unwritable, nil, 0o600))
	require.Error(t, newRoot(t, "x").Save(unwritable, "x"))
}

func TestSavingAtOnceKeepsOneWholeCA(t *testing.T) {
	dir := t.TempDir()
	cas, errs := make([]*CA, 8), make([]error, 8)
	for i := range cas {
		cas[i] = newRoot(t, fmt.Sprintf("root-%d", i))
	}
	var group sync.WaitGroup
	for i := range cas {
		group.Go(func() { errs[i] = cas[i].Save(dir, "shared") })
	}
	group.Wait()
	winner, err := Load(dir, "shared")
	require.NoError(t, err)
	for i, ca := range cas {
		if ca.Name() == winner.Name() {
			assert.NoError(t, errs[i])
		} else {
			assert.ErrorIs(t, errs[i], fs.ErrExist)
		}
	}
}

func TestLoadOrMakeAtOnceGivesOneCA(t *testing.T) {
	dir := t.TempDir()
	cas := make([]*CA, 8)
	var group sync.WaitGroup
	for i := range cas {
		group.Go(func() {
			ca, err := LoadOrMake(dir, "shared", func() (*CA, error) { return NewRoot(Options{Name: fmt.Sprintf("root-%d", i)}) })
			if assert.NoError(t, err) {
				cas[i] = ca
			}
		})
	}
	group.Wait()
	for _, ca := range cas {
		assert.Equal(t, cas[0].CertPEM(), ca.CertPEM())
	}
	_, err := LoadOrMake(dir, "none", func() (*CA, error) { return nil, errors.New("no") })
	require.EqualError(t, err, "no")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shared", keyFile), nil, 0o600))
	_, err = LoadOrMake(dir, "shared", func() (*CA, error) { return newRoot(t, "x"), nil })
	require.ErrorContains(t, err, keyFile, "a damaged CA is not replaced")
}

func TestDamagedFilesAreErrors(t *testing.T) {
	good := newIntermediate(t, newRoot(t, "root"), "good")
	other := newIntermediate(t, newRoot(t, "other root"), "other")
	half := func(b []byte) []byte { return b[:len(b)/2] }
	for name, damage := range map[string]func(read func(string) []byte) (string, []byte){
		"half a key":          func(read func(string) []byte) (string, []byte) { return keyFile, half(read(keyFile)) },
		"another's key":       func(func(string) []byte) (string, []byte) { return keyFile, cacerts(t, other)[CAKeyFile] },
		"a certificate":       func(read func(string) []byte) (string, []byte) { return keyFile, read(certFile) },
		"an empty key":        func(func(string) []byte) (string, []byte) { return keyFile, nil },
		"half a certificate":  func(read func(string) []byte) (string, []byte) { return certFile, half(read(certFile)) },
		"another certificate": func(func(string) []byte) (string, []byte) { return certFile, other.CertPEM() },
		"an empty chain":      func(func(string) []byte) (string, []byte) { return chainFile, nil },
		"another chain":       func(func(string) []byte) (string, []byte) { return chainFile, cacerts(t, other)[CertChainFile] },
		"another root":        func(func(string) []byte) (string, []byte) { return rootFile, other.RootPEM() },
		"a key as root":       func(read func(string) []byte) (string, []byte) { return rootFile, read(keyFile) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, good.Save(dir, "ca"))
			file, data := damage(func(f string) []byte {
				b, err := os.ReadFile(filepath.Join(dir, "ca", f))
				require.NoError(t, err)
				return b
			})
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ca", file), data, 0o600))
			_, err := Load(dir, "ca")
			require.Error(t, err)
			require.NotErrorIs(t, err, fs.ErrNotExist)
			require.Error(t, good.Save(dir, "ca"), "it is not silently replaced either")
		})
	}
}

func TestRootsIsStrict(t *testing.T) {
	one, two := newRoot(t, "one").CertPEM(), newRoot(t, "two").CertPEM()
	key := cacerts(t, newRoot(t, "three"))[CAKeyFile]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	damaged := bytes.Replace(one, []byte("MII"), []byte("!!!"), 1)
	require.NotEqual(t, one, damaged)

	for name, c := range map[string]struct {
		data []byte
		want int // certificates; 0 for an error
	}{
		"two":                 {join(one, two), 2},
		"text around":         {join([]byte("Issuer: one\n"), one, []byte("\nthe second:\n"), two, []byte("end\n")), 2},
		"Windows lines":       {bytes.ReplaceAll(join(one, two), []byte("\n"), []byte("\r\n")), 2},
		"no last newline":     {bytes.TrimSpace(one), 1},
		"nothing":             {nil, 0},
		"only text":           {[]byte("no certificate here"), 0},
		"first damaged":       {join(damaged, two), 0},
		"last damaged":        {join(two, damaged), 0},
		"cut off":             {one[:len(one)-30], 0},
		"second cut off":      {join(one, two[:len(two)/2]), 0},
		"joined without line": {join(bytes.TrimSpace(one), two), 0},
		"with a key":          {join(one, key), 0},
		"not X.509":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := Roots(c.data)
			if c.want == 0 {
				require.Error(t, err)
				require.Empty(t, certs)
				_, err = Fingerprint(c.data)
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Len(t, certs, c.want)
		})
	}
}

// What people see with the openssl commands of the documents has to be what eastwest says.
func TestOpensslAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed: get it with your package manager, for example apt-get install openssl")
	}
	dir := t.TempDir()
	root := newRoot(t, "root")
	ca := newIntermediate(t, root, "intermediate")
	leaf, _, _ := newLeaf(t, ca, LeafOptions{CommonName: "leaf", Server: true})
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	data := cacerts(t, ca)
	rootPath, chainPath := write("root.pem", data[RootCertFile]), write("chain.pem", data[CertChainFile])
	leafPath := write("leaf.pem", encodeCerts(leaf[0]))
	run := func(args ...string) (string, error) {
		out, err := exec.Command(openssl, args...).CombinedOutput()
		return string(out), err
	}
	fingerprint := func(args ...string) string {
		out, err := run(append([]string{"x509", "-noout", "-fingerprint", "-in", rootPath}, args...)...)
		require.NoError(t, err, out)
		_, hex, found := strings.Cut(strings.TrimSpace(out), "=")
		require.True(t, found, out)
		return hex
	}
	long, err := Fingerprint(data[RootCertFile])
	require.NoError(t, err)
	assert.Equal(t, fingerprint("-sha256"), long)
	short, err := FingerprintSHA1(data[RootCertFile])
	require.NoError(t, err)
	assert.Equal(t, fingerprint(), short)

	out, err := run("verify", "-x509_strict", "-CAfile", rootPath, "-untrusted", chainPath, leafPath)
	require.NoError(t, err, out)
	out, err = run("verify", "-CAfile", write("other.pem", newRoot(t, "other").CertPEM()), "-untrusted", chainPath, leafPath)
	require.Error(t, err, out)
	assert.Contains(t, out, "unable to get")
	out, err = run("ec", "-noout", "-check", "-in", write("key.pem", data[CAKeyFile]))
	require.NoError(t, err, out)

	ids, err := run("x509", "-noout", "-ext", "subjectKeyIdentifier,authorityKeyIdentifier", "-in", chainPath)
	require.NoError(t, err, ids)
	assert.Contains(t, ids, Describe(ca.Certificate()).KeyID)
	assert.Contains(t, ids, Describe(ca.Certificate()).IssuerID)
}

func FuzzRoots(f *testing.F) {
	good := newRoot(f, "root").CertPEM()
	f.Add(good)
	f.Add(append(good, good...))
	f.Add(good[:100])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := Roots(data)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates and error %v", len(certs), err)
		}
		if err == nil {
			again, err := Roots(encodeCerts(certs...))
			if err != nil || len(again) != len(certs) {
				t.Fatalf("written and read again: %d certificates, error %v", len(again), err)
			}
			_ = Describe(certs[0]).String()
		}
		if _, err := Fingerprint(data); (err == nil) != (len(certs) > 0) {
			t.Fatalf("Fingerprint and Roots disagree: %v", err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	private, public, err := NewKeyPair()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(private)
	f.Add(public)
	f.Add(private[:60])
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey(data)
		if err == nil && key == nil {
			t.Fatal("no key and no error")
		}
	})
}
