package bundle

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// The versions of Istio that a bundle can hold. Current is a part of every bundle. The others are parts of their own, which are
// built when Build is asked for them.
const (
	Current  = "current"
	Previous = "previous"
)

// istioVersion is a row of the table of versions.
type istioVersion struct {
	name   string
	module string // folder below scripts/components, and the name of the part that holds it
	tag    string // of its images; the second half is the commit of the pinned istio.io/istio
	envoy  envoyRelease
}

// istioVersions is the table, newest first. A version is a nested module and a row here. What the bundle holds of the first row
// depends on no other row.
var istioVersions = []istioVersion{
	{
		name: Current, module: "istio", tag: Tag,
		envoy: envoyRelease{version: "1.38.3", sha256: "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa"},
	},
	{
		name: Previous, module: "istio-previous", tag: "1.30-9739e10eb9d7",
		envoy: envoyRelease{version: "1.37.0", sha256: "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc"},
	},
}

// IstioVersions lists the names, newest first.
func IstioVersions() []string {
	names := make([]string, len(istioVersions))
	for i, v := range istioVersions {
		names[i] = v.name
	}
	return names
}

// Istio is one version of Istio in a bundle.
type Istio struct {
	Version  string  // Current or Previous
	Tag      string  // of its images
	Istioctl string  // absolute path
	Images   []Image // pilot and proxyv2 for Previous; for Current the bundle's images of Hub
	Digest   string  // changes whenever one of its files does: the bundle's for Current, the part's for Previous
	Proxy    IstioProxy
}

// Istio returns the version of that name. Where its part was never built, or is damaged, the error is a *SetupError that
// says how to build it.
func (b *Bundle) Istio(version string) (Istio, error) {
	v, ok := istioOf(version)
	if !ok {
		return Istio{}, fmt.Errorf("finding Istio %q in the bundle: wanted %s", version, words.Or(IstioVersions()))
	}
	holder := b
	if v.name != Current {
		var err error
		if holder, err = b.whole(v.module); err != nil {
			return Istio{}, err
		}
		if holder == nil {
			return Istio{}, &SetupError{
				What: fmt.Sprintf("the bundle in %s has no Istio %s", b.root, v.tag),
				Try:  "run `" + buildCommand(v.module) + "`",
			}
		}
	}
	images := slices.DeleteFunc(holder.Images(), func(i Image) bool { return !strings.HasPrefix(i.Ref, Hub+"/") })
	return Istio{
		Version: v.name, Tag: v.tag, Istioctl: holder.Bin("istioctl"), Images: images, Digest: holder.Digest(), Proxy: holder.IstioProxy(),
	}, nil
}

// IstioPart returns the name of the part that holds a version, for BuildOptions.With; it is empty for Current, which every bundle
// holds.
func IstioPart(version string) string {
	if v, ok := istioOf(version); ok && v.name != Current {
		return v.module
	}
	return ""
}

// IstioTag returns the tag of a version of IstioVersions, without a bundle.
func IstioTag(version string) string {
	v, _ := istioOf(version)
	return v.tag
}

func istioOf(name string) (istioVersion, bool) {
	i := slices.IndexFunc(istioVersions, func(v istioVersion) bool { return v.name == name })
	if i < 0 {
		return istioVersion{}, false
	}
	return istioVersions[i], true
}

// current is the row that every bundle holds.
func current() istioVersion {
	v, _ := istioOf(Current)
	return v
}

// recipes is the table of what the part of a version holds. Its apps are those of the bundle.
func (v istioVersion) recipes() []component { return []component{v.pilot(), v.istioctl(), v.proxy()} }

// from is how its programs are built.
func (v istioVersion) from() goModule {
	return goModule{name: v.module, ldflags: istioFlags(v.commit(), v.tag)}
}

func (v istioVersion) pin() string { return pinned(v.module, "istio.io/istio") }

func (v istioVersion) commit() string {
	pin := v.pin()
	return pin[strings.LastIndex(pin, "-")+1:]
}

// called is the name of a component: that of the current version has no addition.
func (v istioVersion) called(component string) string {
	if v.name == Current {
		return component
	}
	return component + "-" + v.name
}

func (v istioVersion) pilot() component {
	return component{
		name: v.called("pilot"), version: v.tag, from: v.from(), programs: []string{pilotDiscovery}, space: 400 << 20,
		tools:    []tool{toolGo, toolCA},
		contains: map[string]string{"istio": v.pin()},
		build:    v.pilotImage,
	}
}

func (v istioVersion) istioctl() component {
	return binaries(component{name: v.called("istioctl"), version: v.tag, from: v.from(), space: 250 << 20}, map[string]string{
		"istio.io/istio/istioctl/cmd/istioctl": "bin/istioctl",
	})
}

func (v istioVersion) proxy() component {
	return component{
		name: v.called("proxyv2"), version: v.tag, from: v.from(), programs: []string{pilotAgent}, space: 500 << 20,
		tools:    append(hostTools(), toolGo, toolPip),
		contains: map[string]string{"envoy": v.envoy.version},
		inputs:   []string{"envoy " + v.envoy.sha256, fmt.Sprint(hostPrograms, hostLibraries)},
		download: func(ctx context.Context, b *bench) error { return b.downloadEnvoy(ctx, v.envoy) },
		build:    v.proxyImage,
	}
}

func (v istioVersion) pilotImage(ctx context.Context, b *bench) ([]Image, error) {
	t := newTree()
	t.accounts()
	if err := t.certificates(); err != nil {
		return nil, err
	}
	t.program("/usr/local/bin/pilot-discovery", b.program(pilotDiscovery))
	return one(b.image(ctx, Hub+"/pilot:"+v.tag, v1.Config{
		User: "1337:1337", Env: []string{searchPath}, Entrypoint: []string{"/usr/local/bin/pilot-discovery"},
	}, t))
}

func (v istioVersion) proxyImage(ctx context.Context, b *bench) ([]Image, error) {
	bootstrap, err := b.module.file(ctx, "istio.io/istio", "tools/packaging/common/envoy_bootstrap.json")
	if err != nil {
		return nil, err
	}
	base, err := rootfs()
	if err != nil {
		return nil, err
	}
	// The libraries of Envoy go below it, where they are shared with those of curl and the others.
	if err := base.linked(b.envoy()); err != nil {
		return nil, err
	}
	t := newTree()
	t.program("/usr/local/bin/pilot-agent", b.program(pilotAgent))
	t.program("/usr/local/bin/envoy", b.envoy())
	t.text("/var/lib/istio/envoy/envoy_bootstrap_tmpl.json", string(bootstrap))
	return one(b.image(ctx, Hub+"/proxyv2:"+v.tag, v1.Config{
		Env:        []string{searchPath, "ISTIO_META_ISTIO_PROXY_SHA=envoy-" + v.envoy.version},
		WorkingDir: "/", Entrypoint: []string{"/usr/local/bin/pilot-agent"},
	}, base, t))
}

// istioFlags stamp a tag, which istiod and the agents then report to each other, and Hub, from which istioctl takes the
// names of the images that it installs.
func istioFlags(commit, tag string) string {
	const p = "istio.io/istio/pkg/version."
	return strings.Join([]string{
		stripped, "-X " + p + "buildVersion=" + tag, "-X " + p + "buildGitRevision=" + commit, "-X " + p + "buildTag=" + tag,
		"-X " + p + "buildStatus=Clean", "-X " + p + "buildHub=" + Hub,
	}, " ")
}
