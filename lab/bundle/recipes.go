package bundle

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
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

// pins of the components, read from their nested modules.
func pinned(module, dependency string) string {
	v, err := components.Version(module, dependency)
	if err != nil {
		panic("bundle: " + err.Error()) // the modules are embedded: a test calls recipes
	}
	return v
}

// recipes is the table of everything in the bundle, the long ones first.
func recipes() []component {
	kubernetes := pinned("kubernetes", "k8s.io/kubernetes")
	istio := pinned("istio", "istio.io/istio")
	etcd := pinned("etcd", "go.etcd.io/etcd/server/v3")
	containerd := pinned("containerd", "github.com/containerd/containerd/v2")
	runc := pinned("runc", "github.com/opencontainers/runc")
	cni := pinned("cni", "github.com/containernetworking/plugins")
	coredns := pinned("coredns", "github.com/coredns/coredns")

	return []component{
		{
			name: "pilot", version: Tag, group: "istio", space: 400 << 20, tools: []tool{toolGo, toolCA},
			contains: map[string]string{"istio": istio},
			inputs:   moduleInputs("istio", istioFlags(istio)),
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				program := filepath.Join(b.tmp, "pilot-discovery")
				if err := b.goBuild(ctx, istioBuild(istio, "pilot/cmd/pilot-discovery", program)); err != nil {
					return nil, err
				}
				t := newTree()
				t.accounts()
				if err := t.certificates(); err != nil {
					return nil, err
				}
				t.program("/usr/local/bin/pilot-discovery", program)
				return one(b.image(ctx, Hub+"/pilot:"+Tag, v1.Config{
					User: "1337:1337", Env: []string{searchPath}, Entrypoint: []string{"/usr/local/bin/pilot-discovery"},
				}, t))
			},
		},
		{
			name: "kubernetes", version: kubernetes, group: "kubernetes", space: 1 << 30, tools: []tool{toolGo},
			inputs: moduleInputs("kubernetes", kubernetesFlags(kubernetes), fmt.Sprint(kubernetesPrograms)),
			build:  binaries(goBuild{module: "kubernetes", ldflags: kubernetesFlags(kubernetes)}, kubernetesPrograms),
		},
		{
			name: "kubectl", version: kubernetes, group: "kubernetes", space: 100 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("kubernetes", kubernetesFlags(kubernetes)),
			build: binaries(goBuild{module: "kubernetes", ldflags: kubernetesFlags(kubernetes)},
				map[string]string{"k8s.io/kubernetes/cmd/kubectl": "bin/kubectl"}),
		},
		{
			name: "istioctl", version: Tag, group: "istio", space: 250 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("istio", istioFlags(istio)),
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				return nil, b.goBuild(ctx, istioBuild(istio, "istioctl/cmd/istioctl", filepath.Join(b.out, "bin", "istioctl")))
			},
		},
		{
			name: "proxyv2", version: Tag, group: "istio", space: 500 << 20, tools: append(hostTools(), toolGo, toolPip),
			contains: map[string]string{"envoy": envoyVersion},
			inputs:   moduleInputs("istio", istioFlags(istio), "envoy "+envoySHA256, fmt.Sprint(hostPrograms, hostLibraries)),
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				agent := filepath.Join(b.tmp, "pilot-agent")
				if err := b.goBuild(ctx, istioBuild(istio, "pilot/cmd/pilot-agent", agent)); err != nil {
					return nil, err
				}
				envoy, err := b.envoy(ctx)
				if err != nil {
					return nil, err
				}
				bootstrap, err := b.moduleFile(ctx, "istio", "istio.io/istio", "tools/packaging/common/envoy_bootstrap.json")
				if err != nil {
					return nil, err
				}
				base, err := rootfs()
				if err != nil {
					return nil, err
				}
				// The libraries of Envoy go below it, where they are shared with those of curl and the others.
				if err := base.linked(envoy); err != nil {
					return nil, err
				}
				t := newTree()
				t.program("/usr/local/bin/pilot-agent", agent)
				t.program("/usr/local/bin/envoy", envoy)
				t.text("/var/lib/istio/envoy/envoy_bootstrap_tmpl.json", string(bootstrap))
				return one(b.image(ctx, Hub+"/proxyv2:"+Tag, v1.Config{
					Env: []string{searchPath, "ISTIO_META_ISTIO_PROXY_SHA=envoy-" + envoyVersion}, WorkingDir: "/", Entrypoint: []string{"/usr/local/bin/pilot-agent"},
				}, base, t))
			},
		},
		{
			name: "app", version: Tag, group: "istio", space: 300 << 20, tools: append(hostTools(), toolGo),
			inputs: moduleInputs("istio", istioFlags(istio), fmt.Sprint(hostPrograms, hostLibraries)),
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				server, client := filepath.Join(b.tmp, "server"), filepath.Join(b.tmp, "client")
				g := istioBuild(istio, "pkg/test/echo/cmd/server", server)
				g.packages["istio.io/istio/pkg/test/echo/cmd/client"] = client
				if err := b.goBuild(ctx, g); err != nil {
					return nil, err
				}
				base, err := rootfs()
				if err != nil {
					return nil, err
				}
				t := newTree()
				t.program("/usr/local/bin/server", server)
				t.program("/usr/local/bin/client", client)
				// A certificate that Istio publishes with its tests: it protects nothing.
				for at, name := range map[string]string{"/cert.crt": "cert-chain.pem", "/cert.key": "key.pem"} {
					data, err := b.moduleFile(ctx, "istio", "istio.io/istio", "tests/testdata/certs/dns/"+name)
					if err != nil {
						return nil, err
					}
					t.text(at, string(data))
				}
				return one(b.image(ctx, Hub+"/app:"+Tag, v1.Config{
					User: "1338", Env: []string{searchPath}, Entrypoint: []string{"/usr/local/bin/server"},
				}, base, t))
			},
		},
		{
			name: "coredns", version: coredns, group: "coredns", space: 350 << 20, tools: []tool{toolGo, toolCA},
			inputs: moduleInputs("coredns", stripped),
			build: func(ctx context.Context, b *bench) ([]Image, error) {
				program := filepath.Join(b.out, "bin", "coredns")
				err := b.goBuild(ctx, goBuild{module: "coredns", ldflags: stripped, packages: map[string]string{"github.com/coredns/coredns": program}})
				if err != nil {
					return nil, err
				}
				t := newTree()
				if err := t.certificates(); err != nil {
					return nil, err
				}
				t.program("/coredns", program)
				return one(b.image(ctx, "registry.k8s.io/coredns/coredns:"+coredns, v1.Config{
					User: "0:0", WorkingDir: "/", Entrypoint: []string{"/coredns"}, ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
				}, t))
			},
		},
		{
			name: "containerd", version: containerd, group: "containerd", space: 200 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("containerd", containerdFlags(containerd)),
			build: binaries(goBuild{module: "containerd", ldflags: containerdFlags(containerd)}, map[string]string{
				"github.com/containerd/containerd/v2/cmd/containerd":              "bin/containerd",
				"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2": "bin/containerd-shim-runc-v2",
				"github.com/containerd/containerd/v2/cmd/ctr":                     "bin/ctr",
			}),
		},
		{
			name: "etcd", version: etcd, group: "etcd", space: 80 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("etcd", stripped), // its version is a constant of its source
			build:  binaries(goBuild{module: "etcd", ldflags: stripped}, map[string]string{"go.etcd.io/etcd/server/v3": "bin/etcd"}),
		},
		{
			name: "runc", version: runc, group: "runc", space: 40 << 20, tools: []tool{toolGo, toolGCC, toolSeccomp},
			inputs: moduleInputs("runc", stripped, "seccomp"), // its version is embedded from its VERSION file
			// Without seccomp every pod fails: the runtime's default profile is refused.
			build: binaries(goBuild{module: "runc", ldflags: stripped, tags: "seccomp", cgo: true}, map[string]string{"github.com/opencontainers/runc": "bin/runc"}),
		},
		{
			name: "cni", version: cni, group: "cni", space: 40 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("cni", cniFlags(cni)),
			build: binaries(goBuild{module: "cni", ldflags: cniFlags(cni)}, map[string]string{
				"github.com/containernetworking/plugins/plugins/main/ptp":        "bin/cni/ptp",
				"github.com/containernetworking/plugins/plugins/main/loopback":   "bin/cni/loopback",
				"github.com/containernetworking/plugins/plugins/ipam/host-local": "bin/cni/host-local",
				"github.com/containernetworking/plugins/plugins/meta/portmap":    "bin/cni/portmap",
			}),
		},
		{
			name: "pause", version: pauseVersion, group: "pause", space: 30 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("pause", stripped, pauseVersion),
			build:  pauseImage(pauseVersion),
		},
	}
}

// toolRecipes is the table of what users of a lab run themselves. It is a bundle of its own, too: a lab whose nodes and
// images come from registries needs no more.
func toolRecipes() []component {
	return slices.DeleteFunc(recipes(), func(c component) bool { return c.name != "kubectl" && c.name != "istioctl" })
}

// pauseImage is the recipe of an image of our pause program under the name of an upstream version.
func pauseImage(version string) func(context.Context, *bench) ([]Image, error) {
	return func(ctx context.Context, b *bench) ([]Image, error) {
		const self = "github.com/eastwest-lab/eastwest/scripts/components/pause"
		program := filepath.Join(b.tmp, "pause")
		if err := b.goBuild(ctx, goBuild{module: "pause", ldflags: stripped, packages: map[string]string{self: program}}); err != nil {
			return nil, err
		}
		t := newTree()
		t.program("/pause", program)
		return one(b.image(ctx, "registry.k8s.io/pause:"+version, v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}}, t))
	}
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// binaries is the recipe of a component that is programs and nothing else.
func binaries(g goBuild, packages map[string]string) func(context.Context, *bench) ([]Image, error) {
	return func(ctx context.Context, b *bench) ([]Image, error) {
		build := g
		build.packages = map[string]string{}
		for p, to := range packages {
			build.packages[p] = filepath.Join(b.out, to)
		}
		return nil, b.goBuild(ctx, build)
	}
}

func one(image Image, err error) ([]Image, error) { return []Image{image}, err }

// moduleInputs is everything that decides what comes out of a nested module.
func moduleInputs(module string, more ...string) []string {
	files, err := components.Module(module)
	if err != nil {
		panic("bundle: " + err.Error())
	}
	var inputs []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		inputs = append(inputs, name, files[name])
	}
	return append(inputs, more...)
}

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

func containerdFlags(version string) string {
	return stripped + " -X github.com/containerd/containerd/v2/version.Version=" + version
}

func cniFlags(version string) string {
	return stripped + " -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=" + version
}

// istioFlags stamp Tag, which istiod and the agents then report to each other, and Hub, from which istioctl takes the
// names of the images that it installs.
func istioFlags(version string) string {
	const p = "istio.io/istio/pkg/version."
	commit := version[strings.LastIndex(version, "-")+1:]
	return strings.Join([]string{
		stripped, "-X " + p + "buildVersion=" + Tag, "-X " + p + "buildGitRevision=" + commit, "-X " + p + "buildTag=" + Tag,
		"-X " + p + "buildStatus=Clean", "-X " + p + "buildHub=" + Hub,
	}, " ")
}

func istioBuild(version, pkg, to string) goBuild {
	return goBuild{module: "istio", ldflags: istioFlags(version), packages: map[string]string{"istio.io/istio/" + pkg: to}}
}
