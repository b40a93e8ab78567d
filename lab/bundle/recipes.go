package bundle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

// stripped leaves symbols and DWARF out: half the size, and nobody debugs a lab's API server.
const stripped = "-s -w"

// pauseVersion is the version of the upstream pause image whose name ours takes: kubelet and containerd of the pinned
// versions ask for it.
const pauseVersion = "3.10.1"

// kubernetesPrograms are those that a node runs.
var kubernetesPrograms = map[string]string{
	"k8s.io/kubernetes/cmd/kube-apiserver":          "bin/kube-apiserver",
	"k8s.io/kubernetes/cmd/kube-controller-manager": "bin/kube-controller-manager",
	"k8s.io/kubernetes/cmd/kube-proxy":              "bin/kube-proxy",
	"k8s.io/kubernetes/cmd/kube-scheduler":          "bin/kube-scheduler",
	"k8s.io/kubernetes/cmd/kubelet":                 "bin/kubelet",
}

// pinned returns the version of a dependency that a nested module pins.
func pinned(module, dependency string) string {
	v, err := components.Version(module, dependency)
	if err != nil {
		panic("bundle: " + err.Error()) // the modules are embedded: a test calls recipes
	}
	return v
}

// recipes is the table of everything in the bundle. What takes long stands first, so that little is left to do on one CPU at the
// end.
func recipes() []component {
	kubernetes := pinned("kubernetes", "k8s.io/kubernetes")
	etcd := pinned("etcd", "go.etcd.io/etcd/server/v3")
	containerd := pinned("containerd", "github.com/containerd/containerd/v2")
	runc := pinned("runc", "github.com/opencontainers/runc")
	cni := pinned("cni", "github.com/containernetworking/plugins")
	coredns := pinned("coredns", "github.com/coredns/coredns")

	istio := current()
	fromKubernetes := goModule{name: "kubernetes", ldflags: kubernetesFlags(kubernetes)}
	return []component{
		istio.pilot(),
		binaries(component{
			name: "kubernetes", version: kubernetes, from: fromKubernetes, space: 1 << 30,
			inputs: []string{fmt.Sprint(kubernetesPrograms)},
		}, kubernetesPrograms),
		binaries(component{name: "kubectl", version: kubernetes, from: fromKubernetes, space: 100 << 20}, map[string]string{
			"k8s.io/kubernetes/cmd/kubectl": "bin/kubectl",
		}),
		istio.istioctl(),
		istio.proxy(),
		{
			name: "app", version: istio.tag, from: istio.from(), programs: []string{echoServer, echoClient}, space: 300 << 20,
			tools:  append(hostTools(), toolGo),
			inputs: []string{fmt.Sprint(hostPrograms, hostLibraries)},
			build:  appImage,
		},
		{
			name: "coredns", version: coredns, from: goModule{name: "coredns", ldflags: stripped}, programs: []string{corednsProgram},
			space: 350 << 20, tools: []tool{toolGo, toolCA},
			build: corednsImage(coredns),
		},
		binaries(component{
			name: "containerd", version: containerd, space: 200 << 20,
			from: goModule{name: "containerd", ldflags: stripped + " -X github.com/containerd/containerd/v2/version.Version=" + containerd},
		}, map[string]string{
			"github.com/containerd/containerd/v2/cmd/containerd":              "bin/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2": "bin/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr":                     "bin/ctr",
		}),
		// Its version is a constant of its source.
		binaries(component{name: "etcd", version: etcd, from: goModule{name: "etcd", ldflags: stripped}, space: 80 << 20},
			map[string]string{"go.etcd.io/etcd/server/v3": "bin/etcd"}),
		// Its version is embedded from its VERSION file. Without seccomp every pod fails: the runtime's default profile is refused.
		binaries(component{
			name: "runc", version: runc, from: goModule{name: "runc", ldflags: stripped, tags: "seccomp", cgo: true}, space: 40 << 20,
			tools: []tool{toolGCC, toolSeccomp},
		}, map[string]string{"github.com/opencontainers/runc": "bin/runc"}),
		binaries(component{
			name: "cni", version: cni, space: 40 << 20,
			from: goModule{
				name: "cni", ldflags: stripped + " -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=" + cni,
			},
		}, map[string]string{
			"github.com/containernetworking/plugins/plugins/main/ptp":        "bin/cni/ptp",
			"github.com/containernetworking/plugins/plugins/main/loopback":   "bin/cni/loopback",
			"github.com/containernetworking/plugins/plugins/ipam/host-local": "bin/cni/host-local",
			"github.com/containernetworking/plugins/plugins/meta/portmap":    "bin/cni/portmap",
		}),
		pause("pause", pauseVersion),
	}
}

// binaries completes a component that is programs and nothing else: main package → file of the bundle.
func binaries(c component, programs map[string]string) component {
	c.programs = slices.Sorted(maps.Keys(programs))
	c.tools = append(c.tools, toolGo)
	c.build = func(_ context.Context, b *bench) ([]Image, error) { return nil, b.keep(programs) }
	return c
}

// toolRecipes is the table of what users of a lab run themselves. It is a bundle of its own, too: a lab whose nodes and
// images come from registries needs no more.
func toolRecipes() []component {
	return slices.DeleteFunc(recipes(), func(c component) bool { return c.name != "kubectl" && c.name != "istioctl" })
}

// The main packages of which images are made.
const (
	pilotDiscovery = "istio.io/istio/pilot/cmd/pilot-discovery"
	pilotAgent     = "istio.io/istio/pilot/cmd/pilot-agent"
	echoServer     = "istio.io/istio/pkg/test/echo/cmd/server"
	echoClient     = "istio.io/istio/pkg/test/echo/cmd/client"
	corednsProgram = "github.com/coredns/coredns"
	pauseProgram   = "github.com/eastwest-lab/eastwest/scripts/components/pause"
)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func appImage(ctx context.Context, b *bench) ([]Image, error) {
	base, err := rootfs()
	if err != nil {
		return nil, err
	}
	t := newTree()
	t.program("/usr/local/bin/server", b.program(echoServer))
	t.program("/usr/local/bin/client", b.program(echoClient))
	// A certificate that Istio publishes with its tests: it protects nothing.
	for at, name := range map[string]string{"/cert.crt": "cert-chain.pem", "/cert.key": "key.pem"} {
		data, err := b.module.file(ctx, "istio.io/istio", "tests/testdata/certs/dns/"+name)
		if err != nil {
			return nil, err
		}
		t.text(at, string(data))
	}
	return one(b.image(ctx, Hub+"/app:"+Tag, v1.Config{
		User: "1338", Env: []string{searchPath}, Entrypoint: []string{"/usr/local/bin/server"},
	}, base, t))
}

// corednsImage makes the image, and keeps the program beside it: the embedded provider starts it without a container.
func corednsImage(version string) func(context.Context, *bench) ([]Image, error) {
	return func(ctx context.Context, b *bench) ([]Image, error) {
		if err := b.keep(map[string]string{corednsProgram: "bin/coredns"}); err != nil {
			return nil, err
		}
		t := newTree()
		if err := t.certificates(); err != nil {
			return nil, err
		}
		t.program("/coredns", b.program(corednsProgram))
		return one(b.image(ctx, "registry.k8s.io/coredns/coredns:"+version, v1.Config{
			User: "0:0", WorkingDir: "/", Entrypoint: []string{"/coredns"}, ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
		}, t))
	}
}

// pause is an image of our pause program under the name of an upstream version.
func pause(name, version string) component {
	return component{
		name: name, version: version, from: goModule{name: "pause", ldflags: stripped}, programs: []string{pauseProgram}, space: 30 << 20,
		tools: []tool{toolGo}, inputs: []string{version},
		build: func(ctx context.Context, b *bench) ([]Image, error) {
			t := newTree()
			t.program("/pause", b.program(pauseProgram))
			config := v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}}
			return one(b.image(ctx, "registry.k8s.io/pause:"+version, config, t))
		},
	}
}

func one(image Image, err error) ([]Image, error) { return []Image{image}, err }

// kubernetesFlags stamp a release's version: unstamped binaries say v0.0.0-master, which others refuse to work with.
// Commit and date are zero, because the module does not tell them and a date would change the digest.
func kubernetesFlags(version string) string {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	flags := []string{stripped}
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			"-X "+p+".gitVersion="+version, "-X "+p+".gitMajor="+parts[0], "-X "+p+".gitMinor="+parts[1], "-X "+p+".gitTreeState=clean",
			"-X "+p+".gitCommit=0000000000000000000000000000000000000000", "-X "+p+".buildDate=1970-01-01T00:00:00Z")
	}
	return strings.Join(flags, " ")
}
