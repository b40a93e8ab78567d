package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

// The base of the node image: Debian's stable release, with what kind's own base image has of it and a lab uses. Left out
// are NFS, iSCSI and fuse-overlayfs. The release's packages are signed, and no registry of images is needed.
const (
	debianSuite  = "bookworm"
	debianMirror = "http://deb.debian.org/debian"
	debianKeys   = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

var debianPackages = []string{
	"systemd", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod", "libseccomp2", "pigz",
	"e2fsprogs", "bash", "ca-certificates", "jq", "procps",
}

// kindNodeRecipe is to be raised when what this file makes of its inputs changes.
const kindNodeRecipe = 1

// KindNodeImage returns the node image for kind, where Build was asked for it: an archive for `docker load`, and the name
// that the image has then. It holds Kubernetes, all images that a cluster of it needs, and the images of the mesh, so that
// nothing has to be pulled or loaded. Its clusters need a CNI configuration of their own, with the plugins of CNIDir
// (disableDefaultCNI), because kind's own network daemon is in no Go module: the image under its name only waits.
func (b *Bundle) KindNodeImage() (archive, ref string, ok bool) {
	if b.kind == nil {
		return "", "", false
	}
	for _, image := range b.kind.manifest.Images {
		i := slices.IndexFunc(b.kind.manifest.Files, func(f File) bool { return f.Path == image.Archive })
		if i >= 0 && b.kind.manifest.Files[i].look(b.kind.root) == nil {
			return filepath.Join(b.kind.root, image.Archive), image.Ref, true
		}
	}
	return "", "", false
}

// KindProblem returns nil, or in what way the part for kind that was built is damaged.
func (b *Bundle) KindProblem() error {
	if b.kind == nil {
		return b.kindProblem
	}
	for _, f := range b.kind.manifest.Files {
		if p := f.look(b.kind.root); p != nil {
			return b.kind.damaged(*p)
		}
	}
	return nil
}

// KindBin returns the absolute path of kind's own command, which made the node image. It does not look whether it is there.
func (b *Bundle) KindBin() string {
	if b.kind == nil {
		return ""
	}
	return b.kind.Bin("kind")
}

// kindRecipes is the table of what the bundle holds for kind alone. It is a bundle of its own beside the other, which stays what it
// is: nodes without Docker carry none of it.
func kindRecipes() []component {
	kubernetes := pinned("kubernetes", "k8s.io/kubernetes")
	kind := pinned("kind", "sigs.k8s.io/kind")
	provisioner := pinned("local-path-provisioner", "github.com/rancher/local-path-provisioner")
	base := recipes()
	parts := []component{
		{
			name: "local-path-provisioner", version: provisioner, group: "local-path-provisioner", space: 200 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("local-path-provisioner", stripped+" -X main.VERSION="+provisioner),
			build: binaries(goBuild{module: "local-path-provisioner", ldflags: stripped + " -X main.VERSION=" + provisioner},
				map[string]string{"github.com/rancher/local-path-provisioner": "bin/local-path-provisioner"}),
		},
		{
			name: "kubeadm", version: kubernetes, group: "kubeadm", space: 200 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("kubeadm", kubernetesFlags(kubernetes)),
			build: binaries(goBuild{module: "kubeadm", ldflags: kubernetesFlags(kubernetes)},
				map[string]string{"k8s.io/kubernetes/cmd/kubeadm": "bin/kubeadm"}),
		},
		{
			name: "kind", version: kind, group: "kind", space: 50 << 20, tools: []tool{toolGo},
			inputs: moduleInputs("kind", stripped), // its version is a constant of its source
			build:  binaries(goBuild{module: "kind", ldflags: stripped}, map[string]string{"sigs.k8s.io/kind": "bin/kind"}),
		},
	}
	node := component{
		name: "kind-node", version: kubernetes, last: true, space: 5 << 30, tools: append(hostTools(), toolGo, toolDebootstrap, toolDebianKeys, toolRoot, toolDocker),
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
	toolDocker = tool{name: "Docker", way: "start Docker, or scripts/docker-up, which starts one where there is none", find: func(ctx context.Context) string {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput()
		if err != nil {
			return firstLine(errors.New(cmp.Or(strings.TrimSpace(string(out)), err.Error())))
		}
		return ""
	}}
)

// nodeImage is the making of kind's node image: a base image, an archive like that of a Kubernetes release, and kind's
// own command, which makes a node image of the two.
type nodeImage struct {
	*bench
	kubernetes string
	ref        string            // of the node image
	base       string            // of the base image; it is in Docker only meanwhile
	files      map[string]string // of the other components: path in the bundle → blob
	images     []Image           // of the bundle, with their blobs as archives
	sources    string            // of kind
}

// collect finds what the other components have left.
func (n *nodeImage) collect(others []component) error {
	n.files = map[string]string{}
	for _, c := range others {
		r, ok := n.store.recorded(c)
		if !ok {
			return fmt.Errorf("component %s is not finished", c.name)
		}
		for _, f := range r.Files {
			n.files[f.Path] = n.store.blob(f.SHA256)
		}
		for _, image := range r.Images {
			image.Archive = n.files[image.Archive]
			n.images = append(n.images, image)
		}
	}
	return nil
}

func (n *nodeImage) build(ctx context.Context) (image Image, err error) {
	if err := components.Extract("kind", filepath.Join(n.tmp, "module")); err != nil {
		return image, err
	}
	quiet := func(string) bool { return false }
	if err := n.goCommand(ctx, filepath.Join(n.tmp, "module"), goBuild{module: "kind"}, io.Discard, quiet, []string{"mod", "download", "sigs.k8s.io/kind"}); err != nil {
		return image, err
	}
	if n.sources, err = n.moduleDir(ctx, "kind", "sigs.k8s.io/kind"); err != nil {
		return image, err
	}
	base, err := n.baseImage(ctx)
	if err != nil {
		return image, err
	}
	server, err := n.server(ctx)
	if err != nil {
		return image, err
	}

	// What an interrupted build has left in Docker goes first, and what this one leaves whatever happens; but an image that
	// somebody has loaded is loaded afterwards, too.
	_, absent := n.id(ctx)
	n.sweep(ctx)
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if absent != nil {
			_ = n.docker(ctx, "rmi", n.ref)
		}
		n.sweep(ctx)
	}()
	if err := n.docker(ctx, "load", "--quiet", "--input", base.Archive); err != nil {
		return image, err
	}
	n.tell(Progress{State: Packing, Detail: "kind build node-image"})
	tmp := filepath.Join(n.tmp, "kind") // kind leaves there what it has unpacked
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return image, err
	}
	err = n.run(ctx, func() (string, error) { return n.files["bin/kind"], nil }, n.tmp, []string{"TMPDIR=" + tmp},
		"build", "node-image", "--type", "file", "--base-image", n.base, "--image", n.ref, server)
	if err != nil {
		return image, err
	}
	if err := errors.Join(os.RemoveAll(tmp), os.Remove(server)); err != nil {
		return image, err
	}
	n.tell(Progress{State: Packing, Detail: "saving " + n.ref})
	archive := path.Join("kind", "node.tar")
	if err := os.MkdirAll(filepath.Join(n.out, "kind"), 0o755); err != nil {
		return image, err
	}
	if err := n.docker(ctx, "save", "--output", filepath.Join(n.out, archive), n.ref); err != nil {
		return image, err
	}
	id, err := n.id(ctx)
	return Image{Ref: n.ref, Archive: archive, Digest: id}, err
}

// id returns the digest by which Docker knows the node image; the error tells that it has none.
func (n *nodeImage) id(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", n.ref).Output()
	if err != nil {
		return "", fmt.Errorf("asking Docker for %s: %w", n.ref, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// sweep removes the base image and the containers that are made of it from Docker.
func (n *nodeImage) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet", "--filter", "ancestor="+n.base).Output()
	if err == nil && len(out) > 0 {
		_ = n.docker(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(string(out))...)...)
	}
	_ = n.docker(ctx, "rmi", n.base) // at first there is none
}

func (n *nodeImage) docker(ctx context.Context, args ...string) error {
	return n.run(ctx, func() (string, error) { return exec.LookPath("docker") }, n.tmp, nil, args...)
}

// run runs a command with the machine's administration programs on its PATH, in a mount namespace of its own: what
// debootstrap mounts in the base would be there for whoever removes the folder after an interrupted build.
func (n *nodeImage) run(ctx context.Context, find func() (string, error), dir string, env []string, args ...string) error {
	program, err := find()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL=C")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	tail, err := run(cmd, func(string) bool { return false })
	if err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, tail)
	}
	return nil
}

// baseImage makes what kind's images/base is, the steps of its Dockerfile on a Debian from debootstrap. Archive is an absolute path.
func (n *nodeImage) baseImage(ctx context.Context) (Image, error) {
	root := filepath.Join(n.tmp, "rootfs")
	n.tell(Progress{State: Downloading, Detail: "Debian " + debianSuite + " by debootstrap"})
	err := n.run(ctx, func() (string, error) { return hostProgram("debootstrap") }, n.tmp, nil, "--variant=minbase", "--keyring="+debianKeys,
		"--include="+strings.Join(debianPackages, ","), debianSuite, root, debianMirror)
	if err != nil {
		return Image{}, &SetupError{What: "debootstrap could not make a Debian " + debianSuite, Err: err, Try: "check the network: " + debianMirror + " has to be reachable, by http_proxy if need be"}
	}
	n.tell(Progress{State: Packing, Detail: "base image of the node"})
	if err := n.furnish(root); err != nil {
		return Image{}, err
	}
	err = n.run(ctx, func() (string, error) { return hostProgram("chroot") }, n.tmp, nil, root, "/bin/bash", "-euc", `
		find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
		rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
			/lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/*
		echo ReadKMsg=no >>/etc/systemd/journald.conf
		ln -sf /usr/lib/systemd/systemd /sbin/init
		systemctl enable kubelet.service containerd.service undo-mount-hacks.service
		systemctl mask systemd-binfmt.service
		mkdir -p /etc/kubernetes/manifests
		ctr oci spec | jq '.hooks.createContainer[.hooks.createContainer| length] |= . + {"path": "/kind/bin/mount-product-files.sh"}' |
			jq 'del(.process.rlimits)' >/etc/containerd/cri-base.json
		containerd --version
		runc --version
		rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /etc/machine-id /var/lib/dbus/machine-id
		: >/etc/machine-id`)
	if err != nil {
		return Image{}, err
	}
	l, err := n.layer(func(w io.Writer) error {
		cmd := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--sort=name", "--mtime=@0", "--format=posix",
			"--pax-option=delete=atime,delete=ctime", "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "--directory="+root, ".")
		cmd.Stdout = w
		tail, err := run(cmd, func(string) bool { return false })
		if err != nil {
			return fmt.Errorf("running tar: %w\n%s", err, tail)
		}
		return nil
	})
	if err == nil {
		err = os.RemoveAll(root)
	}
	if err != nil {
		return Image{}, err
	}
	aside := n.aside("base")
	image, err := aside.imageOf(n.base, v1.Config{
		Env: []string{searchPath, "container=docker"}, // by which systemd knows where it is
		// systemd ends on this signal, and starts itself anew on SIGTERM.
		StopSignal: "SIGRTMIN+3", Entrypoint: []string{"/usr/local/bin/entrypoint", "/sbin/init"},
	}, l)
	image.Archive = filepath.Join(aside.out, image.Archive)
	return image, err
}

// furnish copies kind's files and the programs of the bundle into the base.
func (n *nodeImage) furnish(root string) error {
	files := filepath.Join(n.sources, "images", "base", "files")
	err := filepath.WalkDir(files, func(from string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(files, from)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644) // the module's zip has no modes: these are the Dockerfile's
		if strings.HasPrefix(rel, "usr/local/bin/") || strings.HasPrefix(rel, "kind/bin/") {
			mode = 0o755
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if rel == containerdConfig {
			// Where root may not lower oom_score_adj every pod fails otherwise; elsewhere it changes nothing for a lab.
			data = bytes.Replace(data, []byte("restrict_oom_score_adj = false"), []byte("restrict_oom_score_adj = true"), 1)
		}
		return put(filepath.Join(root, rel), bytes.NewReader(data), mode)
	})
	if err != nil {
		return err
	}
	for to, from := range map[string]string{
		"usr/local/bin/containerd":              "bin/containerd",
		"usr/local/bin/containerd-shim-runc-v2": "bin/containerd-shim-runc-v2",
		"usr/local/bin/ctr":                     "bin/ctr",
		"usr/local/sbin/runc":                   "bin/runc",
		"opt/cni/bin/host-local":                "bin/cni/host-local",
		"opt/cni/bin/loopback":                  "bin/cni/loopback",
		"opt/cni/bin/portmap":                   "bin/cni/portmap",
		"opt/cni/bin/ptp":                       "bin/cni/ptp",
	} {
		f, err := os.Open(n.files[from])
		if err != nil {
			return err
		}
		err = put(filepath.Join(root, to), f, 0o755)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

const containerdConfig = "etc/containerd/config.toml"

// put writes a file and makes the folders above it.
func put(to string, from io.Reader, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// aside is a bench whose images are no part of the bundle.
func (n *nodeImage) aside(name string) *bench {
	b := *n.bench
	b.out = filepath.Join(n.tmp, name)
	return &b
}

// server makes an archive like kubernetes-server-linux-amd64.tar.gz, which kind takes apart.
func (n *nodeImage) server(ctx context.Context) (string, error) {
	names, err := n.names(ctx)
	if err != nil {
		return "", err
	}
	aside := n.aside("server")
	made := map[string]Image{}
	add := func(ref string, config v1.Config, trees ...*tree) error {
		image, err := aside.image(ctx, ref, config, trees...)
		image.Archive = filepath.Join(aside.out, image.Archive)
		made[ref] = image
		return err
	}
	program := func(name string, certificates bool) (*tree, error) {
		t := newTree()
		t.accounts()
		t.program("/usr/local/bin/"+name, n.files["bin/"+name])
		if certificates {
			return t, t.certificates()
		}
		return t, nil
	}
	for ref, name := range map[string]string{
		names.apiServer: "kube-apiserver", names.controllerManager: "kube-controller-manager", names.scheduler: "kube-scheduler",
		names.etcd: "etcd", names.provisioner: "local-path-provisioner",
	} {
		t, err := program(name, name != "etcd")
		if err != nil {
			return "", err
		}
		config := v1.Config{Env: []string{searchPath}}
		if name == "local-path-provisioner" {
			config.Entrypoint = []string{name}
		}
		if err := add(ref, config, t); err != nil {
			return "", err
		}
	}
	// kube-proxy calls iptables or nft, with their extensions: without those it runs, and every sync fails.
	tools, err := rootfs()
	if err != nil {
		return "", err
	}
	proxy := newTree()
	proxy.program("/usr/local/bin/kube-proxy", n.files["bin/kube-proxy"])
	if err := add(names.proxy, v1.Config{Env: []string{searchPath}}, tools, proxy); err != nil {
		return "", err
	}
	// The helper makes and removes the folders of volumes.
	helper := newTree()
	helper.accounts()
	for _, name := range []string{"dash", "mkdir", "rm"} {
		at, err := hostProgram(name)
		if err != nil {
			return "", err
		}
		if err := helper.host(at); err != nil {
			return "", err
		}
	}
	helper.symlink("/usr/bin/sh", "dash")
	if err := add(names.helper, v1.Config{Env: []string{searchPath}}, helper); err != nil {
		return "", err
	}

	// kind reads which images are there from one entry of each archive and pulls what it misses: the archive of
	// kube-proxy carries all images beyond the four that it looks for.
	own := []string{names.apiServer, names.controllerManager, names.scheduler}
	var rest []archived
	for ref, image := range made {
		if !slices.Contains(own, ref) {
			rest = append(rest, archived{Image: image, names: []string{ref}})
		}
	}
	for _, image := range n.images {
		refs := []string{image.Ref}
		switch repository(image.Ref) {
		case "registry.k8s.io/pause":
			refs = append(refs, names.pause, names.network)
		case "registry.k8s.io/coredns/coredns":
			refs = append(refs, names.dns)
		}
		rest = append(rest, archived{Image: image, names: slices.Compact(refs)})
	}
	slices.SortFunc(rest, func(a, b archived) int { return cmp.Compare(a.Ref, b.Ref) })
	all := filepath.Join(aside.out, "all.tar")
	if err := joinArchives(all, rest); err != nil {
		return "", err
	}
	t := newTree()
	t.text("/kubernetes/version", n.kubernetes)
	for _, name := range []string{"kubeadm", "kubelet", "kubectl"} {
		t.program("/kubernetes/server/bin/"+name, n.files["bin/"+name])
	}
	for _, ref := range own {
		t.program("/kubernetes/server/bin/"+path.Base(repository(ref))+".tar", made[ref].Archive)
	}
	t.program("/kubernetes/server/bin/kube-proxy.tar", all)
	to := filepath.Join(n.tmp, "server.tar.gz")
	if err := writeStored(to, t); err != nil {
		return "", err
	}
	return to, os.RemoveAll(aside.out)
}

// writeStored writes a tree as the .tar.gz that kind insists on. Compressing what is unpacked at once would only cost time.
func writeStored(to string, t *tree) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.NoCompression)
	if err == nil {
		err = t.write(z)
	}
	return errors.Join(err, z.Close(), f.Close())
}

// imageNames is how images have to be called for a node to find them.
type imageNames struct {
	apiServer, controllerManager, scheduler, proxy, etcd, dns string // by kubeadm
	pause                                                     string // by kind's settings of containerd
	network, provisioner, helper                              string // by kind's manifests
}

// names asks kubeadm and reads kind's sources, so that a changed pin needs no list here.
func (n *nodeImage) names(ctx context.Context) (imageNames, error) {
	var names imageNames
	cmd := exec.CommandContext(ctx, n.files["bin/kubeadm"], "config", "images", "list", "--kubernetes-version", n.kubernetes)
	var out bytes.Buffer
	cmd.Stdout = &out
	if tail, err := run(cmd, func(string) bool { return false }); err != nil {
		return names, fmt.Errorf("asking kubeadm for the names of its images: %w\n%s", err, tail)
	}
	for _, ref := range strings.Fields(out.String()) {
		switch path.Base(repository(ref)) {
		case "kube-apiserver":
			names.apiServer = ref
		case "kube-controller-manager":
			names.controllerManager = ref
		case "kube-scheduler":
			names.scheduler = ref
		case "kube-proxy":
			names.proxy = ref
		case "etcd":
			names.etcd = ref
		case "coredns":
			names.dns = ref
		}
	}
	for _, c := range []struct {
		name          *string
		file, pattern string
	}{
		{&names.pause, "images/base/files/" + containerdConfig, `sandbox_image = "([^"]+)"`},
		{&names.network, "pkg/build/nodeimage/const_cni.go", `kindnetdImage = "([^"]+)"`},
		{&names.provisioner, "pkg/build/nodeimage/const_storage.go", `storageProvisionerImage = "([^"]+)"`},
		{&names.helper, "pkg/build/nodeimage/const_storage.go", `storageHelperImage = "([^"]+)"`},
	} {
		data, err := os.ReadFile(filepath.Join(n.sources, filepath.FromSlash(c.file)))
		if err != nil {
			return names, err
		}
		if found := regexp.MustCompile(c.pattern).FindSubmatch(data); found != nil {
			*c.name = string(found[1])
		}
	}
	for name, ref := range map[string]string{
		"kube-apiserver": names.apiServer, "kube-controller-manager": names.controllerManager, "kube-scheduler": names.scheduler, "kube-proxy": names.proxy,
		"etcd": names.etcd, "coredns": names.dns, "pause": names.pause, "kindnetd": names.network, "local-path-provisioner": names.provisioner, "local-path-helper": names.helper,
	} {
		if ref == "" {
			return names, fmt.Errorf("neither kubeadm %s nor kind's sources name an image for %s", n.kubernetes, name)
		}
	}
	return names, nil
}

// repository is an image's name without its tag.
func repository(ref string) string { return ref[:strings.LastIndex(ref, ":")] }

// archived is an image in an archive of ours, and all the names that it shall have.
type archived struct {
	Image
	names []string
}

// joinArchives makes one OCI layout of several. Its first entry is Docker's old list of names, from which kind learns what
// the archive holds; containerd takes the index.
func joinArchives(to string, images []archived) error {
	repositories := map[string]map[string]string{}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	for _, image := range images {
		own, err := readIndex(image.Archive)
		if err != nil {
			return fmt.Errorf("reading %s: %w", image.Ref, err)
		}
		for _, name := range image.names {
			tag := strings.TrimPrefix(name, repository(name)+":")
			if repositories[repository(name)] == nil {
				repositories[repository(name)] = map[string]string{}
			}
			repositories[repository(name)][tag] = own.Digest.Hex
			d := own
			d.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
			d.Annotations = maps.Clone(own.Annotations)
			d.Annotations["io.containerd.image.name"], d.Annotations["org.opencontainers.image.ref.name"] = name, tag
			index.Manifests = append(index.Manifests, d)
		}
	}
	first, err := json.Marshal(repositories)
	if err != nil {
		return err
	}
	list, err := json.Marshal(index)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for _, e := range []entry{
		{path: "/repositories", mode: 0o644, data: first},
		{path: "/oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "/index.json", mode: 0o644, data: list},
	} {
		if err := e.write(tw); err != nil {
			return err
		}
	}
	seen := map[string]bool{} // images share layers
	for _, image := range images {
		err := eachEntry(image.Archive, func(h *tar.Header, r io.Reader) error {
			if !strings.HasPrefix(h.Name, "blobs/") || seen[h.Name] {
				return nil
			}
			seen[h.Name] = true
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(tw, r)
			return err
		})
		if err != nil {
			return fmt.Errorf("copying %s: %w", image.Ref, err)
		}
	}
	return errors.Join(tw.Close(), f.Close())
}

// readIndex returns what an archive's index says of its one image.
func readIndex(archive string) (v1.Descriptor, error) {
	var index v1.IndexManifest
	err := eachEntry(archive, func(h *tar.Header, r io.Reader) error {
		if h.Name != "index.json" {
			return nil
		}
		return json.NewDecoder(r).Decode(&index)
	})
	if err == nil && len(index.Manifests) != 1 {
		err = fmt.Errorf("its index names %d images, wanted 1", len(index.Manifests))
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	return index.Manifests[0], nil
}

// eachEntry calls do for every entry of a tar.
func eachEntry(file string, do func(*tar.Header, io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(h, tr); err != nil {
			return err
		}
	}
}
