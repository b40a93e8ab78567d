package existing

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

const users = `apiVersion: v1
kind: Config
current-context: west
clusters:
- {name: e, cluster: {server: "https://203.0.113.1:6443", certificate-authority: ca.pem}}
- {name: w, cluster: {server: "https://127.0.0.1:40123", insecure-skip-tls-verify: true}}
users:
- {name: admin, user: {client-certificate: cert.pem, client-key: key.pem}}
- {name: token, user: {token: secret}}
contexts:
- {name: east, context: {cluster: e, user: admin, namespace: shop}}
- {name: west, context: {cluster: w, user: token}}
- {name: lost, context: {cluster: gone, user: token}}
`

// kubeconfig writes the user's kubeconfig and the files that it names.
func kubeconfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(users), 0o600))
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte("the content of "+name), 0o600))
	}
	return file
}

func TestWordsAreCheckedBeforeAnyClusterIsAsked(t *testing.T) {
	file := kubeconfig(t)
	both := []string{"cluster-a", "cluster-b"}
	for _, c := range []struct {
		what    string
		p       Provider
		problem []string // all of them are told
	}{
		{"right", Provider{Contexts: []string{"east", "west"}}, nil},
		{"with an address", Provider{Contexts: []string{"east", "west"}, Read: both,
			APIServers: map[string]string{"cluster-b": "https://203.0.113.2:6443"}}, nil},
		{"no context", Provider{}, []string{"wanted a --context for each of cluster-a, cluster-b, in this order; seen 0"}},
		{"unknown contexts", Provider{Contexts: []string{"east", "wst"}},
			[]string{`there is no context "wst" in the kubeconfig: there are east, lost, west`}},
		{"a context without its cluster", Provider{Contexts: []string{"east", "lost"}}, []string{`"lost" names the cluster "gone"`}},
		{"a context twice", Provider{Contexts: []string{"east", "east"}}, []string{`"east" is named twice`}},
		{"an address of this machine", Provider{Contexts: []string{"east", "west"}, Read: both},
			[]string{`cluster-b (context "west"): the address of its API server is https://127.0.0.1:40123`, "--api-server cluster-b=https://"}},
		{"another address of this machine", Provider{Contexts: []string{"east", "west"}, Read: both,
			APIServers: map[string]string{"cluster-b": "https://localhost:6443"}}, []string{"https://localhost:6443"}},
		{"all at once", Provider{Contexts: []string{"wst", "west"}, Read: both, APIServers: map[string]string{"cluster-c": "https://x",
			"cluster-a": "10.0.0.1"}},
			[]string{`"wst"`, "--api-server cluster-b=", "cluster-c: the lab has no such cluster",
				`cluster-a: wanted an address like https://10.0.0.1:6443, seen "10.0.0.1"`}},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.p.Kubeconfig, c.p.Clusters = file, both
			config, err := c.p.load()
			require.NoError(t, err)
			err = c.p.checkWords(config)
			if c.problem == nil {
				require.NoError(t, err)
			}
			for _, text := range c.problem {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

func TestKubeconfigThatIsNotThere(t *testing.T) {
	_, err := Contexts(filepath.Join(t.TempDir(), "gone"))
	require.ErrorContains(t, err, "no such file")
}

// A port on which nobody listens refuses; the bound is for those that do not even do that.
func TestUnreachableClusterIsToldSoon(t *testing.T) {
	file := kubeconfig(t)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	p := Provider{Home: t.TempDir(), Kubeconfig: file, Contexts: []string{"west"}, Clusters: []string{"cluster-a"}}
	start := time.Now()
	err = p.Check(t.Context())
	require.ErrorContains(t, err, `context "west": asking the API server https://127.0.0.1:40123`)
	require.Less(t, time.Since(start), 2*answersWithin)
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, data, now)
	entries, err := os.ReadDir(p.Home)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// What the lab keeps of the user's kubeconfig is one context, with its files in it, under the lab's names.
func TestOnlyOneContextIsKept(t *testing.T) {
	config, err := (&Provider{Kubeconfig: kubeconfig(t)}).load()
	require.NoError(t, err)
	own, err := only(config, "east", "cluster-a")
	require.NoError(t, err)
	require.Equal(t, "cluster-a", own.CurrentContext)
	require.Len(t, own.Contexts, 1)
	require.Len(t, own.Clusters, 1)
	require.Len(t, own.AuthInfos, 1)
	require.Equal(t, "cluster-a", own.Contexts["cluster-a"].Cluster)
	require.Empty(t, own.Contexts["cluster-a"].Namespace, "commands of the lab name theirs")
	require.Equal(t, "the content of ca.pem", string(own.Clusters["cluster-a"].CertificateAuthorityData))
	require.Equal(t, "the content of key.pem", string(own.AuthInfos["cluster-a"].ClientKeyData))
	text, err := clientcmd.Write(*own)
	require.NoError(t, err)
	require.NotContains(t, string(text), "west")
	require.Equal(t, "west", config.CurrentContext, "what was read stays as it is")
	require.Len(t, config.Contexts, 3)
}

func TestCredentialsAreTheOwnersAlone(t *testing.T) {
	p := Provider{Home: t.TempDir(), Kubeconfig: kubeconfig(t), Contexts: []string{"west"}, Clusters: []string{"cluster-a"}, ID: "7c1f"}
	_, err := p.Create(t.Context(), cluster.Spec{Lab: "demo", Name: "cluster-a", Index: 1, Of: 1})
	require.Error(t, err, "nobody listens there")
	info, err := os.Stat(p.kubeconfigFile("demo", "cluster-a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	c, err := (&Provider{Home: p.Home}).Open("demo", "cluster-a") // what another process knows
	require.NoError(t, err)
	require.Equal(t, "https://127.0.0.1:40123", c.APIServer())
	require.Equal(t, "west", c.Context())
	require.Equal(t, "7c1f", c.info.ID)
}

func TestLoopback(t *testing.T) {
	for host, is := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "0.0.0.0": true, "localhost": true,
		"api.localhost": true, "10.0.0.1": false, "api.example": false} {
		require.Equal(t, is, loopback(host), host)
	}
}
