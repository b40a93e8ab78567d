package bundle

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

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
	if tail, err := run(cmd, noProgress); err != nil {
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
		"kube-apiserver": names.apiServer, "kube-controller-manager": names.controllerManager, "kube-scheduler": names.scheduler,
		"kube-proxy": names.proxy,
		"etcd":       names.etcd, "coredns": names.dns, "pause": names.pause, "kindnetd": names.network,
		"local-path-provisioner": names.provisioner, "local-path-helper": names.helper,
	} {
		if ref == "" {
			return names, fmt.Errorf("neither kubeadm %s nor kind's sources name an image for %s", n.kubernetes, name)
		}
	}
	return names, nil
}
