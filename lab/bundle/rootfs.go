package bundle

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hostPrograms is what the proxy and application images take from the machine that builds them: a shell and curl for
// people who look around in a sidecar, and what istio-init needs to redirect traffic. Istio's own base image has these
// and more. Each comes with the libraries that it is linked with.
var hostPrograms = []struct{ name, debian string }{
	{"dash", "dash"},
	{"curl", "curl"},
	{"openssl", "openssl"},
	{"ip", "iproute2"},
	{"ss", "iproute2"},
	{"nft", "nftables"},
	{"xtables-nft-multi", "iptables"},
	{"xtables-legacy-multi", "iptables"},
	{"cat", "coreutils"},
	{"env", "coreutils"},
	{"ls", "coreutils"},
	{"sleep", "coreutils"},
}

// hostLibraries are opened at run time, so no program's header names them: name lookups and the extensions of iptables.
var hostLibraries = []struct{ pattern, debian string }{
	{"libnss_dns.so.2", "libc6"},
	{"libnss_files.so.2", "libc6"},
	{"libresolv.so.2", "libc6"},
	{"xtables/*.so", "iptables"},
}

// libraryDirs is where distributions keep libraries, in the order of searching.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// hostTools are the tools of rootfs.
func hostTools() []tool {
	tools := []tool{toolCA}
	for _, p := range hostPrograms {
		tools = append(tools, program(p.name, p.debian))
	}
	for _, l := range hostLibraries {
		tools = append(tools, tool{name: l.pattern, debian: l.debian, find: func(context.Context) string {
			if _, err := hostGlob(l.pattern); err != nil {
				return "not found"
			}
			return ""
		}})
	}
	return tools
}

// rootfs is the layer below the proxy and the application.
func rootfs() (*tree, error) {
	t := newTree()
	t.accounts()
	if err := t.certificates(); err != nil {
		return nil, err
	}
	t.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	for _, p := range hostPrograms {
		path, err := hostProgram(p.name)
		if err != nil {
			return nil, err
		}
		if err := t.host(path); err != nil {
			return nil, err
		}
	}
	for _, l := range hostLibraries {
		found, err := hostGlob(l.pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			if err := t.host(path); err != nil {
				return nil, err
			}
		}
	}
	t.symlink("/usr/bin/sh", "dash")
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, action := range []string{"", "-save", "-restore"} {
			t.symlink("/usr/sbin/"+family+action, "xtables-nft-multi")
			t.symlink("/usr/sbin/"+family+"-nft"+action, "xtables-nft-multi")
			t.symlink("/usr/sbin/"+family+"-legacy"+action, "xtables-legacy-multi")
		}
	}
	return t, nil
}

// accounts adds users, folders and the links of a merged /usr, which every image of ours has.
func (t *tree) accounts() {
	t.text(
		"/etc/passwd",
		"root:x:0:0:root:/root:/bin/sh\n"+
			"istio-proxy:x:1337:1337::/home/istio-proxy:/bin/sh\n"+
			"application:x:1338:1338::/home/application:/bin/sh\n"+
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	)
	t.text("/etc/group", "root:x:0:\nistio-proxy:x:1337:\napplication:x:1338:\nnogroup:x:65534:\n")
	t.folder("/tmp", 0o1777)
	t.folder("/run", 0o755)
	t.folder("/root", 0o700)
	t.add(entry{path: "/home/istio-proxy", mode: 0o755, dir: true, uid: 1337})
	t.add(entry{path: "/home/application", mode: 0o755, dir: true, uid: 1338})
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		t.folder("/usr/"+dir, 0o755)
		t.symlink("/"+dir, "usr/"+dir)
	}
}

func (t *tree) certificates() error {
	data, err := caCertificates()
	if err != nil {
		return err
	}
	t.text("/etc/ssl/certs/ca-certificates.crt", string(data))
	return nil
}

// caCertificates is Mozilla's list as the distribution packages it. The machine's own bundle would carry a company's
// or a test's private roots into the images.
func caCertificates() ([]byte, error) {
	found, err := filepath.Glob("/usr/share/ca-certificates/mozilla/*.crt")
	if err != nil || len(found) == 0 {
		return nil, errors.New("no /usr/share/ca-certificates/mozilla/*.crt")
	}
	slices.Sort(found)
	var all []byte
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading CA certificate: %w", err)
		}
		all = append(all, data...)
	}
	return all, nil
}

// host adds a program or library of this machine at its place, under the name it was asked for as well, with
// everything that it is linked with.
func (t *tree) host(path string) error {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("resolving %s: %w", path, err)
	}
	if name := merged(filepath.Join(dir, filepath.Base(path))); name != merged(resolved) {
		t.symlink(name, merged(resolved))
	}
	if _, ok := t.entries[merged(resolved)]; ok {
		return nil
	}
	t.program(merged(resolved), resolved)
	return t.linked(resolved)
}

// linked adds the interpreter and the libraries of an ELF file, and theirs.
func (t *tree) linked(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return fmt.Errorf("reading the interpreter of %s: %w", path, err)
		}
		if err := t.host(strings.TrimRight(string(name), "\x00")); err != nil {
			return err
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("reading the libraries of %s: %w", path, err)
	}
	dirs := libraryDirs
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		more, _ := f.DynString(tag) // none is no error of ours
		for _, list := range more {
			for _, dir := range strings.Split(strings.ReplaceAll(list, "$ORIGIN", filepath.Dir(path)), ":") {
				dirs = append([]string{dir}, dirs...)
			}
		}
	}
	for _, name := range needed {
		library := slices.IndexFunc(dirs, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		})
		if library < 0 {
			return &SetupError{What: fmt.Sprintf("%s needs the library %s, which is not on this machine", path, name), Try: "scripts/deps.sh"}
		}
		if err := t.host(filepath.Join(dirs[library], name)); err != nil {
			return err
		}
	}
	return nil
}

// merged is a path of a machine with or without merged /usr as it is in our images, which have it.
func merged(path string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(path, dir) {
			return "/usr" + path
		}
	}
	return path
}

// hostGlob finds libraries by a pattern relative to a library folder.
func hostGlob(pattern string) ([]string, error) {
	for _, dir := range libraryDirs {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err == nil && len(found) > 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("library %s is not on this machine", pattern)
}
