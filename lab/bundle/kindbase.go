package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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

// baseImage makes what kind's images/base is, the steps of its Dockerfile on a Debian from debootstrap. Archive is an absolute path.
func (n *nodeImage) baseImage(ctx context.Context) (Image, error) {
	root := filepath.Join(n.tmp, "rootfs")
	n.tell(Progress{State: Downloading, Detail: "Debian " + debianSuite + " by debootstrap"})
	err := n.run(ctx, func() (string, error) { return hostProgram("debootstrap") }, n.tmp, nil, "--variant=minbase", "--keyring="+debianKeys,
		"--include="+strings.Join(debianPackages, ","), debianSuite, root, debianMirror)
	if err != nil {
		return Image{}, &SetupError{
			What: "debootstrap could not make a Debian " + debianSuite,
			Err:  err,
			Try:  "check the network: " + debianMirror + " has to be reachable, by http_proxy if need be",
		}
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
		tail, err := run(cmd, noProgress)
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
