package existing

import (
	"flag"
	"io"
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

// testProvider returns a provider for these clusters of a lab.
func testProvider(home string, s Settings, clusters ...string) *Provider {
	return &Provider{Lab: cluster.Lab{Home: home, ID: "7c1f", Clusters: clusters}, Settings: s}
}

func TestSettingsAreCheckedBeforeAnyClusterIsAsked(t *testing.T) {
	file := files(kubeconfig(t))
	both := []string{"cluster-a", "cluster-b"}
	eastWest := cluster.List{"east", "west"}
	for _, c := range []struct {
		what     string
		settings Settings
		read     []string // by istiods of other clusters
		problems []string // all of them are in one error
	}{
		{what: "right", settings: Settings{Contexts: eastWest}},
		{
			what:     "with an address",
			settings: Settings{Contexts: eastWest, APIServers: servers{"cluster-b": "https://203.0.113.2:6443"}}, read: both,
		},
		{what: "no context", problems: []string{"wanted a --context for each of cluster-a, cluster-b, in this order; seen 0"}},
		{
			what: "unknown contexts", settings: Settings{Contexts: cluster.List{"east", "wst"}},
			problems: []string{`there is no context "wst" in the kubeconfig: there are east, lost, west`},
		},
		{
			what: "a context without its cluster", settings: Settings{Contexts: cluster.List{"east", "lost"}},
			problems: []string{`"lost" names the cluster "gone"`},
		},
		{
			what: "a context twice", settings: Settings{Contexts: cluster.List{"east", "east"}},
			problems: []string{`"east" is named twice`},
		},
		{
			what: "an address of this machine", settings: Settings{Contexts: eastWest}, read: both,
			problems: []string{
				`cluster-b (context "west"): the address of its API server is https://127.0.0.1:40123`, "--api-server cluster-b=https://",
			},
		},
		{
			what:     "another address of this machine",
			settings: Settings{Contexts: eastWest, APIServers: servers{"cluster-b": "https://localhost:6443"}}, read: both,
			problems: []string{"https://localhost:6443"},
		},
		{
			what: "all at once",
			settings: Settings{
				Contexts: cluster.List{"wst", "west"}, APIServers: servers{"cluster-c": "https://x", "cluster-a": "10.0.0.1"},
			},
			read: both,
			problems: []string{
				`"wst"`, "--api-server cluster-b=", "cluster-c: the lab has no such cluster",
				`cluster-a: wanted an address like https://10.0.0.1:6443, seen "10.0.0.1"`,
			},
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := testProvider("", c.settings, both...)
			p.ReadByOthers = c.read
			config, err := load(file)
			require.NoError(t, err)
			err = p.checkSettings(config)
			if c.problems == nil {
				require.NoError(t, err)
			}
			for _, text := range c.problems {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	require.NoError(t, err)
	s := Settings{Contexts: cluster.List{"north"}, APIServers: servers{"cluster-a": "https://192.0.2.1"}}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	s.Flags(f)
	s.Contexts.Reset()
	s.APIServers.Reset()
	require.NoError(t, f.Parse([]string{
		"--context", "east", "--context", "west", "--kubeconfig", "a:/b", "--adopt", "--hub", "docker.io/istio", "--tag", "1.31.0",
		"--api-server", "cluster-b=https://192.0.2.2", "--api-server", "cluster-a=https://192.0.2.3",
	}))
	require.Equal(t, Settings{
		Kubeconfig: files(filepath.Join(here, "a") + ":/b"), Contexts: cluster.List{"east", "west"},
		APIServers: servers{"cluster-a": "https://192.0.2.3", "cluster-b": "https://192.0.2.2"}, Adopt: true,
		Images: cluster.Images{Hub: "docker.io/istio", Tag: "1.31.0"},
	}, s)
	require.Equal(t, "cluster-a=https://192.0.2.3,cluster-b=https://192.0.2.2", f.Lookup("api-server").Value.String())
	require.ErrorContains(t, f.Parse([]string{"--api-server", "10.0.0.1"}), "wanted the lab's name of a cluster and an address")
}

func TestContextsAreCompleted(t *testing.T) {
	s := &Settings{Kubeconfig: files(kubeconfig(t))}
	contexts, err := s.Choices("context")
	require.NoError(t, err)
	require.Equal(t, []string{"east", "lost", "west"}, contexts)
	for _, other := range []string{"kubeconfig", "adopt"} {
		choices, err := s.Choices(other)
		require.NoError(t, err)
		require.Empty(t, choices)
	}
}

func TestKubeconfigThatIsNotThere(t *testing.T) {
	_, err := load(files(filepath.Join(t.TempDir(), "gone")))
	require.ErrorContains(t, err, "no such file")
}

// Nobody listens on the port here, so the connection is refused at once. The bound is for addresses that do not answer at all.
func TestUnreachableClusterIsReportedSoon(t *testing.T) {
	file := kubeconfig(t)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	p := testProvider(t.TempDir(), Settings{Kubeconfig: files(file), Contexts: cluster.List{"west"}}, "cluster-a")
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

// The lab keeps one context of the user's kubeconfig, with the content of its files, under the lab's names.
func TestOnlyOneContextIsKept(t *testing.T) {
	config, err := load(files(kubeconfig(t)))
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
	p := testProvider(t.TempDir(), Settings{Kubeconfig: files(kubeconfig(t)), Contexts: cluster.List{"west"}}, "cluster-a")
	_, err := p.Create(t.Context(), cluster.Spec{Lab: "demo", Name: "cluster-a", Index: 1, Of: 1})
	require.Error(t, err, "nobody listens there")
	info, err := os.Stat(p.kubeconfigFile("demo", "cluster-a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	c, err := testProvider(p.Home, Settings{}).open("demo", "cluster-a") // as another process does
	require.NoError(t, err)
	require.Equal(t, "https://127.0.0.1:40123", c.APIServer())
	require.Equal(t, "west", c.Context())
	require.Equal(t, "7c1f", c.info.ID)
}

func TestLoopback(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "localhost", "api.localhost"} {
		require.True(t, loopback(host), host)
	}
	for _, host := range []string{"10.0.0.1", "api.example"} {
		require.False(t, loopback(host), host)
	}
}
