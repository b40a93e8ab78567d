package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tools are the programs that a node runs, each with the Debian package that contains it.
var tools = []struct{ name, pkg string }{
	{"mount", "mount"}, {"umount", "mount"}, {"nft", "nftables"},
}

// Check returns nil, or every reason why nodes cannot run on this machine, each with what to do about it.
func Check() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("this machine runs %s: namespaces need Linux; use --provider kind or existing", runtime.GOOS)
	}
	var problems []error
	add := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	if os.Geteuid() != 0 {
		add("not root: namespaces, mounts and links need it; run with sudo, or use --provider kind or existing")
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t.name); err != nil {
			add("the tool %q is missing: apt-get install %s", t.name, t.pkg)
		}
	}
	for _, ns := range []string{"pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			add("this kernel has no %s namespaces: use a kernel with CONFIG_NAMESPACES, or --provider kind or existing", ns)
		}
	}
	if fs, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(fs), "\toverlay\n") {
		add("this kernel has no overlayfs: modprobe overlay")
	}
	if _, err := Hierarchies(); err != nil {
		problems = append(problems, err)
	}
	if os.Geteuid() == 0 && len(problems) == 0 {
		if err := tryNamespaces(); err != nil {
			add("the kernel refuses new namespaces (%v): in a container, start it with --privileged", err)
		}
	}
	return errors.Join(problems...)
}

// tryNamespaces makes and drops a mount and a network namespace in one thread that is thrown away.
func tryNamespaces() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET)
	}()
	return <-done
}

// FreeBytes returns the number of bytes that an unprivileged process can still write below path.
func FreeBytes(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("asking for free space at %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// CanLowerOOMScore reports whether this process may lower oom_score_adj (CAP_SYS_RESOURCE). Inside a
// container it often may not, and then every pod sandbox fails unless containerd is configured for it.
func CanLowerOOMScore() bool {
	var hdr = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// FreeInotify returns the number of inotify instances that this user's processes can still open, and the
// limit. The kernel's default of 128 for all processes of a user is enough for two small meshes. A kubelet
// that gets none exits with "too many open files".
func FreeInotify() (free, limit int, err error) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return 0, 0, fmt.Errorf("reading the limit of inotify instances: %w", err)
	}
	if limit, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return 0, 0, fmt.Errorf("reading the limit of inotify instances: %w", err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, 0, err
	}
	used := 0
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "anon_inode:inotify" {
			used++
		}
	}
	return limit - used, limit, nil
}

// Forwards reports whether this machine forwards IPv4 packets between its links.
func Forwards() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}
