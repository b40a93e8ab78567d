package fault

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// kubectl is a program that stands for the real one: it keeps the files of `create secret`, and answers `get secret` from
// a folder with a file for each key.
const kubectl = `#!/bin/sh
case "$1 $2" in
"create secret")
	for a; do case "$a" in --from-file=*)
		a=${a#--from-file=}; cp "${a#*=}" "$MADE/${a%%=*}" || exit 1
	esac; done ;;
"get secret")
	key=$(expr "$*" : '.*index .data "\([^"]*\)"'); base64 -w0 "$THERE/$key" ;;
"config get-contexts") printf 'cluster-a\ncluster-b\n' ;;
"apply "*) cat > /dev/null ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`

// What is printed can be typed: openssl makes of it what the fault would make.
func TestCommandsMakeCACerts(t *testing.T) {
	version, err := exec.Command("openssl", "version").Output()
	if err != nil || !bytes.HasPrefix(version, []byte("OpenSSL 3")) {
		t.Skip("needs OpenSSL 3: install openssl")
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.MkdirAll(file("bin"), 0o755))
	require.NoError(t, os.WriteFile(file("bin/kubectl"), []byte(kubectl), 0o755)) //nolint:gosec // it is run
	root, err := pki.NewRoot(pki.Options{Name: "lab root"})
	require.NoError(t, err)
	ca, err := root.Intermediate(pki.Options{Name: "lab intermediate cluster-b"})
	require.NoError(t, err)
	require.NoError(t, root.Save(file("mesh/CA"), mesh.Topology{Trust: mesh.SharedRoot}.RootName("cluster-b")))
	require.NoError(t, ca.Save(file("mesh/CA"), mesh.CAName("cluster-b")))
	there, err := ca.CACerts()
	require.NoError(t, err)
	there[pki.CRLFile] = []byte("a list")
	require.NoError(t, os.MkdirAll(file("there"), 0o755))
	for key, data := range there {
		require.NoError(t, os.WriteFile(file("there/"+key), data, 0o600))
	}

	for _, test := range []struct {
		what      string
		cacerts   CACerts
		root      string // the name of the root that the CA leads to
		roots     int
		sameAsLab bool // it is the lab's own intermediate
	}{
		{"shared", CACerts{Root: SharedRoot}, "lab root", 1, true},
		{"new", CACerts{Root: NewRoot}, "new root", 1, false},
		{"own", CACerts{Root: OwnRoot}, "root of cluster-b", 1, false},
		{"twin", CACerts{Root: TwinRoot}, "lab root", 1, false},
		{"expiring", CACerts{Root: SharedRoot, RootLifetime: 48 * time.Hour}, "expiring root", 1, false},
		{"fresh", CACerts{Root: SharedRoot, Intermediate: &Intermediate{}}, "lab root", 1, false},
		{"two roots", CACerts{Root: NewRoot, Trusted: []Root{NewRoot, SharedRoot}}, "new root", 2, false},
		{"peers", CACerts{Root: OwnRoot, Trusted: []Root{OwnRoot, PeerRoots}}, "root of cluster-b", 2, false},
		{"revocation lists", CACerts{Root: SharedRoot, CRL: CompleteCRL}, "lab root", 1, true},
		{"lists that are there", CACerts{Root: SharedRoot, Intermediate: &Intermediate{}, CRL: KeptCRL}, "lab root", 1, false},
		{"self-signed", CACerts{Root: SelfSignedRoot}, "", 1, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			made := t.TempDir()
			cmd := exec.Command("sh", "-e", "-u", "-c", CreateCACerts([]string{"cluster-b"}, test.cacerts).Command())
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PATH="+file("bin")+":"+os.Getenv("PATH"),
				"MADE="+made, "THERE="+file("there"), "KUBECONFIG="+file("kubeconfig"))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			read := func(key string) []byte {
				data, err := os.ReadFile(filepath.Join(made, key))
				require.NoError(t, err)
				return data
			}
			certs, err := pki.Roots(read(pki.CACertFile))
			require.NoError(t, err)
			public, err := pki.PublicKey(read(pki.CAKeyFile))
			require.NoError(t, err)
			require.True(t, public.Equal(certs[0].PublicKey), "the key belongs to the certificate")
			roots, err := pki.Roots(read(pki.RootCertFile))
			require.NoError(t, err)
			require.Len(t, roots, test.roots)
			chain, err := pki.Roots(read(pki.CertChainFile))
			require.NoError(t, err)
			require.Equal(t, test.sameAsLab, certs[0].Equal(ca.Certificate()))
			require.Equal(t, test.cacerts.CRL != NoCRL, exists(filepath.Join(made, pki.CRLFile)))
			if test.cacerts.Root == SelfSignedRoot {
				return
			}
			require.NoError(t, pki.Verify(chain, roots[:1], time.Now()))
			require.Equal(t, test.root, pki.Name(roots[0]))
			require.Equal(t, test.cacerts.Root == SharedRoot && test.cacerts.RootLifetime == 0, roots[0].Equal(root.Certificate()))
			require.True(t, certs[0].IsCA)
			require.Zero(t, certs[0].MaxPathLen)
			require.Equal(t, test.cacerts.Root == TwinRoot, len(certs[0].AuthorityKeyId) == 0)
			if test.cacerts.CRL == CompleteCRL {
				require.Equal(t, 2, strings.Count(string(read(pki.CRLFile)), "BEGIN X509 CRL"))
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openssl has another option for what is not whole days.
func TestLifetimesOfCommands(t *testing.T) {
	require.Equal(t, " -days 730", lifetime(0, 0))
	require.Equal(t, " -days 2", lifetime(0, 48*time.Hour))
	require.Equal(t, ` -not_after "$(date -u -d '+600 seconds' +%Y%m%d%H%M%SZ)"`, lifetime(0, 10*time.Minute))
	require.Equal(t, ` -not_before "$(date -u -d '+600 seconds' +%Y%m%d%H%M%SZ)" -not_after "$(date -u -d '+4200 seconds' +%Y%m%d%H%M%SZ)"`,
		lifetime(10*time.Minute, time.Hour))
}
