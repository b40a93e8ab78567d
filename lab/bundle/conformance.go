package bundle

import (
	"context"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What Kubernetes' tests of the pinned version call their images: test/utils/image/manifest.go of k8s.io/kubernetes. The
// version of agnhost is read from its folder.
const (
	testImages       = "registry.k8s.io/e2e-test-images/"
	testDNSVersion   = "2.0.0"
	testPauseVersion = "3.10.2"
)

// BuildConformance builds what Kubernetes' own conformance tests need, beside the bundle and in the way of Build: bin/e2e, the
// tests (scripts/components/conformance), and the images of their pods. Labs need none of it.
func BuildConformance(ctx context.Context, o BuildOptions) (*Bundle, error) {
	return build(ctx, o, conformanceRecipes())
}

func conformanceRecipes() []component {
	kubernetes := pinned("conformance", "k8s.io/kubernetes")
	dig, nc := program("dig", "bind9-dnsutils"), program("nc", "netcat-openbsd")
	return []component{
		{
			name: "conformance", version: kubernetes, from: goModule{name: "conformance", ldflags: kubernetesFlags(kubernetes)},
			programs: []string{testProgram, agnhost}, space: 2 << 30, tools: append(hostTools(), toolGo, dig, nc),
			inputs: []string{fmt.Sprint(hostPrograms, hostLibraries), testPrograms, testDNSVersion},
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				if err := b.keep(map[string]string{testProgram: "bin/e2e"}); err != nil {
					return nil, err
				}
				return b.testImages(ctx)
			},
		},
		pause("conformance-pause", testPauseVersion),
	}
}

// The main packages of the tests and of what runs in their pods.
const (
	testProgram = "github.com/eastwest-lab/eastwest/scripts/components/conformance"
	agnhost     = "k8s.io/kubernetes/test/images/agnhost"
)

// testPrograms are those that the tests run in their pods beside agnhost.
const testPrograms = "dig getent grep hostname nc nslookup seq"

// testImages makes agnhost, and the image for lookups by glibc, which has the same programs and its own name. What agnhost's
// Dockerfile takes from Alpine comes from this machine; left out are its registry of images, iperf and an old CoreDNS.
func (b *bench) testImages(ctx context.Context) ([]Image, error) {
	file := func(name string) (string, error) {
		data, err := b.module.file(ctx, "k8s.io/kubernetes", "test/images/agnhost/"+name)
		return string(data), err
	}
	version, err := file("VERSION")
	if err != nil {
		return nil, err
	}
	base, err := rootfs()
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(testPrograms) {
		path, err := hostProgram(name)
		if err != nil {
			return nil, err
		}
		if err := base.host(path); err != nil {
			return nil, err
		}
	}
	t := newTree()
	t.program("/agnhost", b.program(agnhost))
	t.symlink("/agnhost-2", "agnhost") // tests replace the entrypoint by it
	t.folder("/uploads", 0o755)
	for _, name := range []string{"localhost.crt", "localhost.key"} { // published: they protect nothing
		text, err := file("porter/" + name)
		if err != nil {
			return nil, err
		}
		t.text("/"+name, text)
	}
	var images []Image
	for _, ref := range []string{"agnhost:" + strings.TrimSpace(version), "glibc-dns-testing:" + testDNSVersion} {
		image, err := b.image(ctx, testImages+ref, v1.Config{
			Env: []string{searchPath}, WorkingDir: "/", Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"},
		}, base, t)
		if err != nil {
			return nil, err
		}
		images = append(images, image)
	}
	return images, nil
}
