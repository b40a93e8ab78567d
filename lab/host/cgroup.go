package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Hierarchy is one mounted cgroup hierarchy: a v1 controller, a named v1 one, or the v2 tree.
type Hierarchy struct {
	Path    string // where it is mounted
	V2      bool
	Options string // mount options that name its controllers ("cpu,cpuacct", "name=systemd"); empty for v2
}

// Hierarchies lists the cgroup hierarchies of this machine, sorted by path.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing cgroup mounts: %w", err)
	}
	defer f.Close()
	var found []Hierarchy
	seen := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		// 36 35 98:0 /root /mount options - type source super-options
		before, after, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		h := Hierarchy{Path: left[4]}
		switch right[0] {
		case "cgroup":
			var keep []string
			for _, o := range strings.Split(right[2], ",") {
				if o != "rw" && o != "ro" && o != "xattr" && o != "clone_children" && !strings.HasPrefix(o, "release_agent=") {
					keep = append(keep, o)
				}
			}
			h.Options = strings.Join(keep, ",")
		case "cgroup2":
			h.V2 = true
		default:
			continue
		}
		if key := right[0] + h.Options; !seen[key] {
			seen[key] = true
			found = append(found, h)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted: mount one at /sys/fs/cgroup")
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Path < found[j].Path })
	return found, nil
}

// JoinCgroup moves this process into the cgroup name ("eastwest/demo/cluster-a") of every hierarchy, making it where it is
// missing.
func JoinCgroup(name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir, err := h.make(name)
		if err == nil {
			err = enter(dir)
		}
		if err != nil {
			return fmt.Errorf("joining cgroup %s of %s: %w", name, h.Path, err)
		}
	}
	return nil
}

// enter moves this process into the cgroup at dir.
func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644)
}

// share moves this process from the v2 cgroup at dir into the leaf "supervisor" and hands every controller to the children: a v2
// cgroup that does may hold no processes, else it turns into a threaded one and takes no container. It has to come after the
// cgroup namespace was made, whose root is the cgroup that the process was in then.
func share(dir string) error {
	leaf := filepath.Join(dir, "supervisor")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := enter(leaf); err != nil {
		return err
	}
	return delegate(dir)
}

// make makes the cgroup name with its parents and returns its folder. It tries again where a parent goes between two steps:
// whoever removes the last cgroup below a parent removes that, too.
func (h Hierarchy) make(name string) (dir string, err error) {
	for range 1000 {
		dir, err = h.makeOnce(name)
		if err == nil || ignoreGone(err) != nil {
			break
		}
	}
	return dir, err
}

func (h Hierarchy) makeOnce(name string) (string, error) {
	dir := h.Path
	for _, part := range strings.Split(name, "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		// A new v1 cpuset is empty and takes no process until it is given CPUs and memory nodes.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil && !h.V2 {
				value, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					return "", err
				}
				if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
					return "", err
				}
			}
		}
		if h.V2 {
			if err := delegate(parent); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// delegate hands every controller that a v2 cgroup has to its children.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		if err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	return nil
}

// CgroupProcesses lists the processes in the cgroup name and below it, over all hierarchies.
func CgroupProcesses(name string) ([]int, error) {
	pids := map[int]bool{}
	err := eachCgroup(name, func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids[pid] = true
			}
		}
		return nil
	})
	list := make([]int, 0, len(pids))
	for pid := range pids {
		list = append(list, pid)
	}
	sort.Ints(list)
	return list, err
}

// ContainerCgroup returns the name of the cgroup that was made for a container, by a process of it and its id: the first on
// the way down to the process that is called after the id. The container may have made others below it.
func ContainerCgroup(pid int, id string) (string, error) {
	file := fmt.Sprintf("/proc/%d/cgroup", pid)
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("finding the cgroup of container %s: %w", id, err)
	}
	name, ok := cgroupCalled(string(data), id)
	if !ok {
		return "", fmt.Errorf("finding the cgroup of container %s: none in %s is called after it", id, file)
	}
	return name, nil
}

// cgroupCalled finds the cgroup whose last element has the id in the lines of a process's cgroup file.
func cgroupCalled(lines, id string) (name string, ok bool) {
	for line := range strings.SplitSeq(lines, "\n") {
		_, rest, _ := strings.Cut(line, ":") // 4:memory:/docker/ID/init.scope; 0::/… of v2
		_, path, _ := strings.Cut(rest, ":")
		parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
		if i := slices.IndexFunc(parts, func(part string) bool { return strings.Contains(part, id) }); i >= 0 {
			return strings.Join(parts[:i+1], "/"), true
		}
	}
	return "", false
}

// CgroupUsage is what the processes of a cgroup use and have used.
type CgroupUsage struct {
	CPUSeconds float64
	MemoryMiB  float64 // anonymous memory, mapped files and kernel memory; page cache that nobody maps is left out
}

// Usage reads what the cgroup name and everything below it has used so far.
func Usage(name string) (CgroupUsage, error) {
	all, err := Hierarchies()
	if err != nil {
		return CgroupUsage{}, err
	}
	var u CgroupUsage
	for _, h := range all {
		dir := filepath.Join(h.Path, name)
		if data, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			ns, _ := strconv.ParseFloat(strings.TrimSpace(string(data)), 64)
			u.CPUSeconds = ns / 1e9
		}
		if v := readKey(filepath.Join(dir, "cpu.stat"), "usage_usec"); h.V2 && v > 0 {
			u.CPUSeconds = v / 1e6
		}
		stat := filepath.Join(dir, "memory.stat")
		for _, keys := range [][]string{{"total_rss", "total_mapped_file"}, {"anon", "file_mapped"}} {
			if sum := readKey(stat, keys[0]) + readKey(stat, keys[1]); sum > 0 {
				u.MemoryMiB = sum / (1 << 20)
			}
		}
	}
	return u, nil
}

func readKey(file, key string) float64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(data), "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n
		}
	}
	return 0
}

// RemoveCgroup removes the cgroup name with everything below it, and its parents ("eastwest" of "eastwest/demo") where
// nothing else is in them. Its processes must be gone, if only just: on a v2 tree a cgroup that lists no process any more is busy
// for a moment.
func RemoveCgroup(ctx context.Context, name string) error {
	var dirs []string
	if err := eachCgroup(name, func(dir string) error { dirs = append(dirs, dir); return nil }); err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- { // children come after their parents
		err := wait.Until(ctx, "the end of cgroup "+dirs[i], wait.Options{Within: 10 * time.Second, Every: 10 * time.Millisecond}, func(context.Context) error {
			switch err := unix.Rmdir(dirs[i]); {
			case err == nil, errors.Is(err, fs.ErrNotExist):
				return nil
			case errors.Is(err, syscall.EBUSY):
				return err
			default:
				return wait.Permanent(err)
			}
		})
		if err != nil {
			return err
		}
	}
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		for parent := filepath.Dir(name); parent != "."; parent = filepath.Dir(parent) {
			err := unix.Rmdir(filepath.Join(h.Path, parent))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) { // that of others
				return fmt.Errorf("removing cgroup %s of %s: %w", parent, h.Path, err)
			}
		}
	}
	return nil
}

// eachCgroup visits the folder of cgroup name in every hierarchy and each folder below, parents first.
func eachCgroup(name string, visit func(dir string) error) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		err := filepath.WalkDir(filepath.Join(h.Path, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if d.IsDir() {
				return visit(path)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("walking cgroup %s of %s: %w", name, h.Path, err)
		}
	}
	return nil
}

// ignoreGone drops the errors that say a cgroup has vanished between two looks.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// Files by which a cgroup is frozen and that tell whether it is; v1 has one for both.
const (
	freezerV1  = "freezer.state"
	freezerV2  = "cgroup.freeze"
	frozenInV2 = "cgroup.events"
)

// FreezeCgroup stops every process of the cgroup name, with those below it, and waits until all are stopped. Nothing
// that they do can end that: only ThawCgroup does, or KillCgroup.
func FreezeCgroup(ctx context.Context, name string) error {
	dir, v2, err := freezer(name)
	if err != nil {
		return err
	}
	return wait.Until(ctx, "every process of cgroup "+name+" to be frozen", wait.Options{Within: 10 * time.Second, Every: 10 * time.Millisecond}, func(context.Context) error {
		if v2 {
			if err := os.WriteFile(filepath.Join(dir, freezerV2), []byte("1"), 0o644); err != nil {
				return wait.Permanent(err)
			}
			if readKey(filepath.Join(dir, frozenInV2), "frozen") != 1 {
				return errors.New("some still run")
			}
			return nil
		}
		// Written anew each time: v1 looks again at the processes that have escaped so far only then.
		if err := os.WriteFile(filepath.Join(dir, freezerV1), []byte("FROZEN"), 0o644); err != nil {
			return wait.Permanent(err)
		}
		state, err := os.ReadFile(filepath.Join(dir, freezerV1))
		if err != nil {
			return wait.Permanent(err)
		}
		if got := strings.TrimSpace(string(state)); got != "FROZEN" {
			return fmt.Errorf("its state is %s", got)
		}
		return nil
	})
}

// ThawCgroup lets the processes of the cgroup name go on, with those below it, whichever of the cgroups was frozen; no
// error if none was or there is none.
func ThawCgroup(name string) error {
	return eachCgroup(name, func(dir string) error {
		for file, thawed := range map[string]string{freezerV1: "THAWED", freezerV2: "0"} {
			f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) // never made: a v1 hierarchy has the file of none but the freezer
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				_, err = f.WriteString(thawed)
				err = errors.Join(err, f.Close())
			}
			if ignoreGone(err) != nil {
				return fmt.Errorf("thawing %s: %w", dir, err)
			}
		}
		return nil
	})
}

// freezer finds the folder by which the cgroup name can be frozen. The v1 freezer comes first: where both are mounted,
// the processes of containers are in that one only.
func freezer(name string) (dir string, v2 bool, err error) {
	all, err := Hierarchies()
	if err != nil {
		return "", false, err
	}
	for _, h := range all {
		for _, file := range []string{freezerV1, freezerV2} {
			candidate := filepath.Join(h.Path, name)
			if _, err := os.Stat(filepath.Join(candidate, file)); err == nil && (dir == "" || !h.V2) {
				dir, v2 = candidate, h.V2
			}
		}
	}
	if dir == "" {
		return "", false, fmt.Errorf("cgroup %s cannot be frozen: no mounted hierarchy has it with %s or %s", name, freezerV1, freezerV2)
	}
	return dir, v2, nil
}

// KillCgroup kills every process of the cgroup name, with those below it, and waits until none is left.
func KillCgroup(ctx context.Context, name string) error {
	if err := ThawCgroup(name); err != nil { // a frozen process dies when it is thawed, not before
		return err
	}
	for {
		pids, err := CgroupProcesses(name)
		if err != nil || len(pids) == 0 {
			return err
		}
		// Processes may fork while we look: look again until there is none.
		for _, pid := range pids {
			if err := killAndWait(ctx, pid); err != nil {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
	}
}

func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone already
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return waitPidfd(ctx, fd)
}
