package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root describes the root folder of a node: a tmpfs with the host's programs, read-only, and the node's own writable
// folders. So nothing that a node writes ends up outside of its folder.
type Root struct {
	Dir      string            // an empty folder to mount it on
	ReadOnly []string          // host folders that are seen at the same path, read-only
	Writable map[string]string // path inside → host folder
	Files    map[string]string // small files, by path inside
	// Masks are files under /proc/sys that show the given value; writing to them has no effect on the machine. The
	// kubelet insists on changing some kernel settings that the whole machine shares.
	Masks map[string]string
}

// programs are the host's folders of programs and libraries. Where /usr is merged, all but the first are links.
var programs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// Enter builds the root, with fresh mounts of /proc, /sys and the cgroups, and makes it the root of this process. The
// process must have a mount namespace of its own.
func (r Root) Enter() error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"making mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mounting the root", func() error { return r.mount("tmpfs", "/", "tmpfs", 0, "mode=0755,size=256m") }},
		{"adding programs", r.addPrograms},
		{"adding folders", r.addFolders},
		{"adding files", r.addFiles},
		{"mounting kernel file systems", r.addKernel},
		{"mounting cgroups", r.addCgroups},
		{"masking kernel settings", r.addMasks},
		{"changing the root", r.pivot},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func (r Root) in(path string) string { return filepath.Join(r.Dir, path) }

func (r Root) mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(r.in(target), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, r.in(target), fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", source, target, err)
	}
	return nil
}

func (r Root) bind(source, target string, readOnly bool) error {
	if err := r.mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil || !readOnly {
		return err
	}
	// A bind mount becomes read-only only when it is mounted again.
	return r.mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func (r Root) addPrograms() error {
	for _, dir := range programs {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(dir)
			if err != nil {
				return err
			}
			if err := os.Symlink(to, r.in(dir)); err != nil {
				return err
			}
		default:
			if err := r.bind(dir, dir, true); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat("/etc/alternatives"); err == nil { // Debian's iptables and friends are links into it
		return r.bind("/etc/alternatives", "/etc/alternatives", true)
	}
	return nil
}

func (r Root) addFolders() error {
	for _, dir := range []string{"/run", "/tmp"} {
		if err := r.mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return err
		}
	}
	if err := os.Chmod(r.in("/tmp"), 0o1777); err != nil {
		return err
	}
	for inside, outside := range r.Writable {
		if err := os.MkdirAll(outside, 0o755); err != nil {
			return err
		}
		if err := r.bind(outside, inside, false); err != nil {
			return err
		}
	}
	for _, dir := range r.ReadOnly {
		if err := r.bind(dir, dir, true); err != nil {
			return err
		}
	}
	return nil
}

func (r Root) addFiles() error {
	files := r.Files
	if cache, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		files["/etc/ld.so.cache"] = string(cache)
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(r.in(path)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(r.in(path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r Root) addKernel() error {
	if err := r.bind("/dev", "/dev", false); err != nil {
		return err
	}
	if err := r.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	// A fresh /sys shows the links of this network namespace and hides the host's cgroup mounts.
	return r.mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// addCgroups mounts every hierarchy again. Inside a cgroup namespace a fresh mount shows the node's own cgroup as the
// root, so the kubelet can work as on a machine of its own.
func (r Root) addCgroups() error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	if len(all) == 1 && all[0].V2 {
		return r.mountUnified("/sys/fs/cgroup")
	}
	if err := r.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, h := range all {
		name := filepath.Base(h.Path)
		if h.V2 {
			err = r.mountUnified("/sys/fs/cgroup/" + name)
		} else {
			err = r.mount("cgroup", "/sys/fs/cgroup/"+name, "cgroup", 0, h.Options)
		}
		if err != nil {
			return err
		}
		if controllers := strings.Split(name, ","); len(controllers) > 1 { // "cpu,cpuacct" is also called "cpu" and "cpuacct"
			for _, c := range controllers {
				if err := os.Symlink(name, r.in("/sys/fs/cgroup/"+c)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r Root) mountUnified(target string) error {
	if err := r.mount("cgroup2", target, "cgroup2", 0, ""); err != nil {
		return err
	}
	if err := share(r.in(target)); err != nil {
		return fmt.Errorf("making the node's own cgroups at %s: %w", target, err)
	}
	return nil
}

func (r Root) addMasks() error {
	for path, value := range r.Masks {
		if _, err := os.Stat(r.in(path)); err != nil {
			continue // this kernel has no such setting
		}
		file := r.in("/run/masks/" + strings.ReplaceAll(strings.Trim(path, "/"), "/", "."))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, r.in(path), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("masking %s: %w", path, err)
		}
	}
	return nil
}

// pivot makes r.Dir the root and unmounts the old root. Mounts are shared with what the node starts, so that containers
// see the volumes that the kubelet mounts.
func (r Root) pivot() error {
	if err := unix.Chdir(r.Dir); err != nil {
		return err
	}
	// The old root is now mounted on top of the new one, see "pivot_root(".", ".")" in pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil { // the old root
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
