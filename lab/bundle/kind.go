package bundle

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// kindPart is the name of the part that only labs of kind need.
const kindPart = "kind"

// kindNodeRecipe is to be raised when what this file makes of its inputs changes.
const kindNodeRecipe = 1

// KindNodeImage returns the node image for kind, where Build was asked for it: an archive for `docker load`, and the name
// that the image has then. It holds Kubernetes, all images that a cluster of it needs, and the images of the mesh, so that
// nothing has to be pulled or loaded. Its clusters need a CNI configuration of their own, with the plugins of CNIDir
// (disableDefaultCNI), because kind's own network daemon is in no Go module: the image under its name only waits.
func (b *Bundle) KindNodeImage() (archive, ref string, ok bool) {
	kind := b.extra(kindPart)
	if kind == nil {
		return "", "", false
	}
	for _, image := range kind.manifest.Images {
		i := slices.IndexFunc(kind.manifest.Files, func(f File) bool { return f.Path == image.Archive })
		if i >= 0 && kind.manifest.Files[i].look(kind.root) == nil {
			return filepath.Join(kind.root, image.Archive), image.Ref, true
		}
	}
	return "", "", false
}

// KindProblem returns nil, or in what way the part for kind that was built is damaged.
func (b *Bundle) KindProblem() error {
	_, err := b.whole(kindPart)
	return err
}

// KindBin returns the absolute path of kind's own command, which made the node image. It does not look whether it is there.
func (b *Bundle) KindBin() string {
	kind := b.extra(kindPart)
	if kind == nil {
		return ""
	}
	return kind.Bin("kind")
}

// kindRecipes is the table of what the bundle holds for kind alone. It is a bundle of its own beside the other, which stays what it
// is: nodes without Docker carry none of it.
func kindRecipes() []component {
	kubernetes := pinned("kubernetes", "k8s.io/kubernetes")
	kind := pinned("kind", "sigs.k8s.io/kind")
	provisioner := pinned("local-path-provisioner", "github.com/rancher/local-path-provisioner")
	base := recipes()
	parts := []component{
		binaries(component{
			name: "local-path-provisioner", version: provisioner, space: 200 << 20,
			from: goModule{name: "local-path-provisioner", ldflags: stripped + " -X main.VERSION=" + provisioner},
		}, map[string]string{"github.com/rancher/local-path-provisioner": "bin/local-path-provisioner"}),
		binaries(component{
			name: "kubeadm", version: kubernetes, from: goModule{name: "kubeadm", ldflags: kubernetesFlags(kubernetes)}, space: 200 << 20,
		}, map[string]string{"k8s.io/kubernetes/cmd/kubeadm": "bin/kubeadm"}),
		// Its version is a constant of its source.
		binaries(component{name: "kind", version: kind, from: goModule{name: "kind", ldflags: stripped}, space: 50 << 20},
			map[string]string{"sigs.k8s.io/kind": "bin/kind"}),
	}
	node := component{
		name: "kind-node", version: kubernetes, last: true, space: 5 << 30,
		tools:  append(hostTools(), toolGo, toolDebootstrap, toolDebianKeys, toolRoot, toolDocker),
		inputs: []string{bundleKey(base), bundleKey(parts), debianSuite, strings.Join(debianPackages, " "), fmt.Sprint(kindNodeRecipe)},
	}
	node.build = func(ctx context.Context, b *bench) ([]Image, error) {
		n := nodeImage{bench: b, kubernetes: kubernetes, ref: Hub + "/kind-node:" + kubernetes + "-" + node.key()[:12]}
		n.base = "eastwest.invalid/kind-base:" + node.key()[:12]
		if err := n.collect(append(slices.Clone(base), parts...)); err != nil {
			return nil, err
		}
		return one(n.build(ctx))
	}
	return append(parts, node)
}

const depsOfKind = "scripts/deps.sh --with kind, or by hand: apt-get install debootstrap debian-archive-keyring"

var (
	toolDebootstrap = tool{name: "debootstrap", way: depsOfKind, find: program("debootstrap", "").find}
	toolDebianKeys  = tool{name: "Debian's keys", way: depsOfKind, find: func(context.Context) string {
		if _, err := os.Stat(debianKeys); err != nil {
			return err.Error()
		}
		return ""
	}}
	toolRoot = tool{name: "root", way: "run it as root, which debootstrap needs", find: func(context.Context) string {
		if os.Geteuid() != 0 {
			return "not run as root"
		}
		return ""
	}}
	toolDocker = tool{
		name: "Docker",
		way:  "start Docker, or scripts/docker-up, which starts one where there is none",
		find: func(ctx context.Context) string {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput()
			if err != nil {
				return words.FirstLine(cmp.Or(strings.TrimSpace(string(out)), err.Error()))
			}
			return ""
		},
	}
)
