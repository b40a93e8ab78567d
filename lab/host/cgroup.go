package host

import (
	"bufio"
	"bytes"
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

// Hierarchies returns the cgroup hierarchies that are mounted on this machine, sorted by path.
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

// JoinCgroup moves this process into the cgroup name ("eastwest/demo/cluster-a") of every hierarchy. It makes
// the cgroup where it is missing.
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

// enter moves this process into the cgroup whose folder is dir.
func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644)
}

// share moves this process from the v2 cgroup at dir into the child "supervisor" and enables every controller
// for the children of dir. A v2 cgroup with enabled controllers must not contain processes itself: it would become
// a threaded cgroup, and no container could be put into it. Call share after the cgroup namespace has been made,
// because the root of that namespace is the cgroup that the process was in at that time.
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

// make makes the cgroup name with its parents and returns its folder. It tries again if a parent vanishes between
// two steps: RemoveCgroup, in another process, removes parents that have become empty.
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

// delegate enables every controller of a v2 cgroup for its children.
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

// CgroupProcesses returns the processes in the cgroup name and below it, in any hierarchy, sorted.
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

// ContainerCgroup returns the name of the cgroup that was made for a container, given one of the container's
// processes and the container's id. Going down towards the process, it is the first cgroup whose name contains
// the id. The container may have made more cgroups below it.
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

// cgroupCalled searches the lines of a process's cgroup file for a path element that contains the id, and returns
// the path up to and including that element.
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

// CgroupUsage is what the processes of a cgroup have used.
type CgroupUsage struct {
	CPUSeconds float64 // since the cgroup was made, including processes that have ended
	MemoryMiB  float64 // in use now: anonymous memory and mapped files; page cache that is not mapped is left out
}

// Usage returns what the processes in the cgroup name and below it have used so far.
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

// ProgramSeconds returns the CPU seconds that the running processes in the cgroup name and below it have used so far,
// summed by program. What Usage reports in addition was used by processes that have ended.
func ProgramSeconds(name string) (map[string]float64, error) {
	pids, err := CgroupProcesses(name)
	seconds := map[string]float64{}
	for _, pid := range pids {
		if program, used, ok := programSeconds(pid); ok {
			seconds[program] += used
		}
	}
	return seconds, err
}

// programSeconds returns a process's program and its CPU seconds, and not ok if it has ended.
func programSeconds(pid int) (program string, used float64, ok bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	line, err := os.ReadFile(dir + "cmdline")
	if err != nil || len(line) == 0 {
		return "", 0, false
	}
	program, _, _ = strings.Cut(string(line), "\x00")
	program, _, _ = strings.Cut(program, " ") // some programs change the line to a single string
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return "", 0, false
	}
	// The fields after the name, which is in parentheses and may contain anything: utime is the 12th, stime the 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return "", 0, false
	}
	for _, ticks := range fields[11:13] {
		n, err := strconv.ParseFloat(ticks, 64)
		if err != nil {
			return "", 0, false
		}
		used += n / ticksPerSecond
	}
	return filepath.Base(strings.TrimSuffix(program, ":")), used, true
}

// ticksPerSecond is USER_HZ, the unit of times in /proc. It is 100 on every architecture that this program runs on.
const ticksPerSecond = 100

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

// RemoveCgroup removes the cgroup name with everything below it, and then those of its parents ("eastwest" of
// "eastwest/demo") that are empty. All its processes must have ended. They may have ended just now: on a v2 tree, a
// cgroup stays busy for a moment after its last process is gone from the list, so RemoveCgroup waits for that.
func RemoveCgroup(ctx context.Context, name string) error {
	var dirs []string
	if err := eachCgroup(name, func(dir string) error { dirs = append(dirs, dir); return nil }); err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- { // children come after their parents
		brief := wait.Options{Within: 10 * time.Second, Every: 10 * time.Millisecond}
		err := wait.Until(ctx, "the end of cgroup "+dirs[i], brief, func(context.Context) error {
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
			// Busy: another lab's cgroup is in it.
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) {
				return fmt.Errorf("removing cgroup %s of %s: %w", parent, h.Path, err)
			}
		}
	}
	return nil
}

// eachCgroup calls visit with the folder of the cgroup name in every hierarchy, and with each folder below it,
// parents first.
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

// ignoreGone returns nil for errors that mean that a cgroup has vanished meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// The files that freeze a cgroup and that show whether it is frozen. In v1 both are one file.
const (
	freezerV1  = "freezer.state"
	freezerV2  = "cgroup.freeze"
	frozenInV2 = "cgroup.events"
)

// FreezeCgroup freezes every process in the cgroup name and below it, and waits until all of them are frozen. Only
// ThawCgroup and KillCgroup end that.
func FreezeCgroup(ctx context.Context, name string) error {
	dir, v2, err := freezer(name)
	if err != nil {
		return err
	}
	brief := wait.Options{Within: 10 * time.Second, Every: 10 * time.Millisecond}
	return wait.Until(ctx, "every process of cgroup "+name+" to be frozen", brief, func(context.Context) error {
		if v2 {
			if err := os.WriteFile(filepath.Join(dir, freezerV2), []byte("1"), 0o644); err != nil {
				return wait.Permanent(err)
			}
			if readKey(filepath.Join(dir, frozenInV2), "frozen") != 1 {
				return errors.New("some still run")
			}
			return nil
		}
		// Written again each time: only then does v1 try again with processes that it could not freeze before.
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

// ThawCgroup lets the processes in the cgroup name and below it go on, whichever of these cgroups was frozen. It is
// no error if none was, or if there is no such cgroup.
func ThawCgroup(name string) error {
	return eachCgroup(name, func(dir string) error {
		for file, thawed := range map[string]string{freezerV1: "THAWED", freezerV2: "0"} {
			// Only the freezer's hierarchy has the file. Never create it.
			f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
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

// freezer returns the folder with which the cgroup name can be frozen. The v1 freezer is preferred: where both
// versions are mounted, the processes of containers are only in v1.
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

// KillCgroup kills every process in the cgroup name and below it, and waits until none is left.
func KillCgroup(ctx context.Context, name string) error {
	if err := ThawCgroup(name); err != nil { // a frozen process does not die before it is thawed
		return err
	}
	return killAll(ctx, func() ([]int, error) { return CgroupProcesses(name) })
}

// killAll kills the processes that list returns until there are none. Processes may fork meanwhile, so they are listed again.
func killAll(ctx context.Context, list func() ([]int, error)) error {
	for {
		pids, err := list()
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := killListed(ctx, pids, list); err != nil {
			return err
		}
	}
}

// killListed kills processes that were listed, and waits for their end. A process that has ended since leaves its number to
// the next one that starts, whoever that is: only what is listed once more, after its pidfd holds it, is killed.
func killListed(ctx context.Context, pids []int, list func() ([]int, error)) error {
	open := map[int]int{}
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // otherwise it is gone
			open[pid] = fd
		}
	}
	still, err := list()
	if err != nil {
		return err
	}
	for _, pid := range still {
		if fd, ok := open[pid]; ok {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
	}
	for _, pid := range still {
		if fd, ok := open[pid]; ok {
			if err := waitPidfd(ctx, fd); err != nil {
				return fmt.Errorf("waiting for the end of process %d: %w", pid, err)
			}
		}
	}
	return nil
}
