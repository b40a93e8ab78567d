package embedded

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

func testNode(t *testing.T, index int) node {
	t.Helper()
	return node{
		Place: machine.Place{
			Spec:  cluster.Spec{Lab: "demo", Name: "cluster-" + string(rune('a'+index-1)), Index: index},
			Range: netip.MustParsePrefix("10.201.0.0/16"),
		},
		Dir: t.TempDir(), Bin: "/bundle/bin", CNI: "/bundle/bin/cni", Bundle: "/bundle",
	}
}

// The kernel's limit of a link's name is 15 bytes. Labs with long names that begin alike have different links.
func TestNamesFit(t *testing.T) {
	seen := map[string]bool{}
	for _, lab := range []string{"a", strings.Repeat("x", 39) + "1", strings.Repeat("x", 39) + "2"} {
		n := network{machine.Network{Lab: lab}}
		for _, name := range []string{n.bridge(), n.veth(machine.MaxClusters)} {
			require.LessOrEqual(t, len(name), 15)
			require.False(t, seen[name], name)
			seen[name] = true
		}
		require.Regexp(t, `^[a-z0-9_]+$`, n.table())
	}
}

func TestALabIsSealedUnlessItsSettingsSayOtherwise(t *testing.T) {
	n := network{machine.Network{Lab: "demo", Range: netip.MustParsePrefix("10.201.0.0/16")}}
	sealed, open := hostRules(n, false), hostRules(n, true)
	require.Contains(t, sealed, "counter name leaving reject")
	require.NotContains(t, sealed, "masquerade")
	require.Contains(t, open, "counter name leaving accept")
	require.Contains(t, open, "ip saddr 10.201.0.0/16")
	for _, rules := range []string{sealed, open} {
		require.True(t, strings.HasPrefix(rules, "table inet "+n.table()+" {}\ndelete table inet "+n.table()+"\n"), "it replaces an earlier one")
		require.Contains(t, rules, `comment "eastwest lab demo"`, "tests look for what a lab has left by that")
	}
}

// Every component is in the table of commands, and what it names is this node's.
func TestEveryComponentHasACommand(t *testing.T) {
	n := testNode(t, 2)
	for _, name := range componentNames() {
		c := n.command(name)
		require.Equal(t, "/bundle/bin/"+name, c.Path)
		require.NotEmpty(t, c.Args, name)
	}
	api := strings.Join(n.command(apiServer).Args, " ")
	require.Contains(t, api, "--advertise-address=10.201.0.12 ")
	require.Contains(t, api, "--service-cluster-ip-range=10.201.144.0/21 ")
	require.Contains(t, strings.Join(n.command(controllerManager).Args, " "), "--cluster-cidr=10.201.24.0/21 ")
}

func TestFilesOfANode(t *testing.T) {
	n := testNode(t, 1)
	files, err := n.files()
	require.NoError(t, err)
	require.Contains(t, files["/etc/hosts"], "10.201.0.11 cluster-a-node")
	require.Empty(t, files["/etc/resolv.conf"], "no name server outside")
	require.Contains(t, files["/etc/cni/net.d/10-eastwest.conflist"], "10.201.16.0/21")
	var config kubelet.KubeletConfiguration
	require.NoError(t, yaml.UnmarshalStrict([]byte(files["/etc/kubernetes/kubelet.yaml"]), &config))
	require.Equal(t, []string{"10.201.136.10"}, config.ClusterDNS)
	require.Equal(t, machine.VolumeRefresh, config.SyncFrequency.Duration)
}

// Merged kubeconfigs need names that no other cluster has, and others reach the API server by the node's address and by
// that of its Service.
func TestCertificatesOfANode(t *testing.T) {
	n := testNode(t, 1)
	require.NoError(t, makeCertificates(n))
	config, err := clientcmd.LoadFromFile(n.path("pki", "admin.conf"))
	require.NoError(t, err)
	require.Equal(t, "cluster-a", config.CurrentContext)
	require.Equal(t, "cluster-a-admin", config.Contexts["cluster-a"].AuthInfo)
	require.Equal(t, "https://10.201.0.11:6443", config.Clusters["cluster-a"].Server)

	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(config.Clusters["cluster-a"].CertificateAuthorityData))
	text, err := os.ReadFile(n.path("pki", "apiserver.crt"))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	server, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	for _, name := range []string{"10.201.0.11", "10.201.136.1", "kubernetes.default.svc", "localhost"} {
		_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
		require.NoError(t, err, name)
	}
	keys, err := filepath.Glob(n.path("pki", "*.key"))
	require.NoError(t, err)
	require.NotEmpty(t, keys)
	for _, key := range append(keys, n.path("pki", "admin.conf")) {
		info, err := os.Stat(key)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), key)
	}
}

func TestMilestonesOfASupervisor(t *testing.T) {
	n := testNode(t, 1)
	follow := func(ctx context.Context, lines string) (told []string, reached bool, err error) {
		p := &Provider{Lab: cluster.Lab{Progress: func(cluster, milestone string, since time.Duration) {
			told = append(told, cluster+" "+milestone+" "+since.String())
		}}}
		at := make(chan struct{})
		err = p.follow(ctx, n, strings.NewReader(lines), "api", at)
		select {
		case <-at:
			reached = true
		default:
		}
		return told, reached, err
	}
	told, reached, err := follow(t.Context(), `{"name":"api","seconds":1.5}
not a milestone
{"name":"node","seconds":2}
{"name":"usable","seconds":3}
{"name":"later","seconds":4}`)
	require.NoError(t, err)
	require.True(t, reached)
	require.Equal(t, []string{"cluster-a api 1.5s", "cluster-a node 2s", "cluster-a usable 3s"}, told)

	_, reached, err = follow(t.Context(), `{"name":"failed","error":"etcd: no space"}`)
	require.ErrorContains(t, err, "etcd: no space (logs: "+n.path("logs"))
	require.False(t, reached)

	_, _, err = follow(t.Context(), `{"name":"api"}`)
	require.ErrorContains(t, err, "last line of output: none")
	require.NoError(t, os.WriteFile(n.path("supervisor.log"), []byte("starting\npanic: oh no\n\n"), 0o644))
	_, _, err = follow(t.Context(), "")
	require.ErrorContains(t, err, "last line of output: panic: oh no")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	_, _, err = follow(ctx, "")
	require.EqualError(t, err, "interrupted")
}

// Nodes share the layers of images and write to databases of their own.
func TestDatabasesAreCopiedAndLayersLinked(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.MkdirAll(filepath.Join(from, "layers"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(from, "layers"), 0o755|os.ModeSticky))
	for _, file := range []string{"meta.db", "layers/blob"} {
		require.NoError(t, os.WriteFile(filepath.Join(from, file), []byte(file), 0o644))
	}
	require.NoError(t, linkTree(from, to))
	links := func(file string) uint64 {
		info, err := os.Stat(filepath.Join(to, file))
		require.NoError(t, err)
		return uint64(info.Sys().(*syscall.Stat_t).Nlink)
	}
	require.EqualValues(t, 1, links("meta.db"))
	require.EqualValues(t, 2, links("layers/blob"))
	info, err := os.Stat(filepath.Join(to, "layers"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSticky)
	require.ErrorIs(t, linkTree(from, to), os.ErrExist, "a node starts with an empty folder")
}

func TestOpen(t *testing.T) {
	p := &Provider{Lab: cluster.Lab{Home: t.TempDir()}}
	c, err := p.Open("demo", "cluster-a")
	require.ErrorContains(t, err, "lab demo has no cluster cluster-a")
	require.Nil(t, c)
	n := testNode(t, 1)
	n.Dir = p.nodeDir("demo", "cluster-a")
	require.NoError(t, machine.WriteJSON(n.path(nodeFile), n))
	_, err = p.Open("demo", "cluster-a")
	require.ErrorContains(t, err, "opening cluster cluster-a: reading the kubeconfig")
	require.NoError(t, makeCertificates(n))
	c, err = p.Open("demo", "cluster-a")
	require.NoError(t, err)
	require.Equal(t, "cluster-a", c.Name())
	require.Equal(t, "https://10.201.0.11:6443", c.RESTConfig().Host)
}
