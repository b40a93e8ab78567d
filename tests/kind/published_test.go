package kind

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// world is the host name of a registry that only the proxy knows.
const world = "registry.eastwest.invalid"

// proxy is a registry, and the proxy by which nodes reach it: what it is asked for is a URL, not a path.
type proxy struct {
	http.Handler
	mu     sync.Mutex
	pulled map[string]int // manifests of an image that were handed out, by its name
	others []string       // what else it was asked for
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	image, _, manifest := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	switch {
	case r.URL.Host == "": // the test fills it
	case r.URL.Host != world:
		p.others = append(p.others, r.Method+" "+r.URL.String())
	case manifest && r.Method == http.MethodGet:
		p.pulled[image]++
	}
	p.mu.Unlock()
	p.Handler.ServeHTTP(w, r)
}

// serve puts the bundle's images into the registry, and serves it at an address that a lab's network will have.
func (p *proxy) serve(t *testing.T, b *bundle.Bundle, at netip.Addr) (url string) {
	t.Helper()
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); cerr != nil {
			return cerr
		}
		return err
	}}
	listener, err := listen.Listen(t.Context(), "tcp", netip.AddrPortFrom(at, 0).String())
	require.NoError(t, err)
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener) //nolint:errcheck // it ends with Close
	t.Cleanup(func() { require.NoError(t, server.Close()) })

	for _, image := range b.Images() {
		path, ours := strings.CutPrefix(image.Ref, bundle.Hub+"/")
		if !ours {
			continue
		}
		repository, tag, _ := strings.Cut(path, ":")
		from, err := tarball.ImageFromPath(image.Archive, nil)
		require.NoError(t, err)
		p.push(t, "istio/"+repository, tag, from)
	}
	return "http://" + listener.Addr().String()
}

// push does what `docker push` does.
func (p *proxy) push(t *testing.T, repository, tag string, image v1.Image) {
	t.Helper()
	put := func(method, path, contentType string, body io.Reader) {
		r := httptest.NewRequestWithContext(t.Context(), method, "/v2/"+repository+path, body)
		r.Header.Set("Content-Type", contentType)
		answer := httptest.NewRecorder()
		p.ServeHTTP(answer, r)
		require.Equal(t, http.StatusCreated, answer.Code, "%s %s: %s", method, path, answer.Body)
	}
	layers, err := image.Layers()
	require.NoError(t, err)
	for _, layer := range layers {
		digest, err := layer.Digest()
		require.NoError(t, err)
		data, err := layer.Compressed()
		require.NoError(t, err)
		put(http.MethodPost, "/blobs/uploads/?digest="+digest.String(), "application/octet-stream", data)
		require.NoError(t, data.Close())
	}
	config, err := image.RawConfigFile()
	require.NoError(t, err)
	digest, err := image.ConfigName()
	require.NoError(t, err)
	put(http.MethodPost, "/blobs/uploads/?digest="+digest.String(), "application/octet-stream", bytes.NewReader(config))
	manifest, err := image.RawManifest()
	require.NoError(t, err)
	mediaType, err := image.MediaType()
	require.NoError(t, err)
	put(http.MethodPut, "/manifests/"+tag, string(mediaType), bytes.NewReader(manifest))
}

// publishedNode is a node image that is not the bundle's, under a name of its own: its containerd takes the registry
// without TLS, and that is how it differs.
func publishedNode(t *testing.T) string {
	t.Helper()
	archive, image, _ := nodeImage(t)
	docker(t, "load", "--input", archive)
	dir, ref := t.TempDir(), "eastwest.invalid/"+labName+"-node:latest"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(fmt.Sprintf("server = %q\n", "http://"+world)), 0o644))
	require.NoError(
		t,
		os.WriteFile(
			filepath.Join(dir, "Dockerfile"),
			[]byte("FROM "+image+"\nCOPY hosts.toml /etc/containerd/certs.d/"+world+"/hosts.toml\n"),
			0o644,
		),
	)
	docker(t, "build", "--tag", ref, dir)
	t.Cleanup(func() {
		out, err := exec.Command("docker", "image", "rm", ref).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return ref
}

// TestPublishedImages makes a lab as those do who are on-line: another node image, images of a registry that is reached by
// the user's proxy, and nothing of the bundle but kubectl and istioctl.
func TestPublishedImages(t *testing.T) {
	labs.Nightly(t)
	home := need(t)
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	whole, err := bundle.Open(dir)
	require.NoError(t, err)
	tools := t.TempDir()
	_, err = bundle.Build(t.Context(), bundle.BuildOptions{Dir: tools, Tools: true})
	require.NoError(t, err)
	_, err = bundle.Open(tools)
	require.ErrorContains(t, err, "there is no bundle")

	const labsRange, name = "10.248.0.0/16", labName + "-published"
	addresses, err := machine.ParseRange(labsRange)
	require.NoError(t, err)
	p := &proxy{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), pulled: map[string]int{}}
	url := p.serve(t, whole, addresses.Bridge().Addr())

	cmd := exec.CommandContext(t.Context(), string(eastwest), "up", "--name", name, "--provider", lab.Kind, "--range", labsRange,
		"--kind-image", publishedNode(t), "--hub", world+"/istio", "--tag", bundle.Tag)
	cmd.Env = append(os.Environ(), bundle.EnvDir+"="+tools, "HTTP_PROXY="+url, "HTTPS_PROXY="+url)
	t.Cleanup(func() { require.NoError(t, lab.Down(context.Background(), home, name)) })
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "cluster-a → cluster-b: answered by echo-")

	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("pulled: %v, others: %v", p.pulled, p.others)
	for _, image := range []string{"pilot", "proxyv2", "app"} {
		require.NotZero(t, p.pulled["istio/"+image], image)
	}
	require.Empty(t, p.others)

	run := exec.CommandContext(t.Context(), string(eastwest), "run", "--name", name, "cross-cluster-call")
	run.Env = cmd.Env
	out, err = run.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
