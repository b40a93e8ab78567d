package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/eastwest-lab/eastwest/scripts/components"
)

// goModule is a pinned module and the settings that its programs are built with. Programs of equal goModules are built by one run
// of the Go command.
type goModule struct {
	name    string // folder below scripts/components
	tags    string
	ldflags string
	cgo     bool
}

// inputs returns everything about the module that decides what comes out of it.
func (m goModule) inputs() []string {
	if m.name == "" {
		return nil
	}
	files, err := components.Module(m.name)
	if err != nil {
		panic("bundle: " + err.Error()) // the modules are embedded: a test calls recipes
	}
	var inputs []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		inputs = append(inputs, name, files[name])
	}
	inputs = append(inputs, m.ldflags)
	if m.tags != "" {
		inputs = append(inputs, m.tags)
	}
	return inputs
}

// goTool finds the Go command; sudo drops /usr/local/go/bin from PATH.
func goTool() (string, error) {
	if path, err := exec.LookPath("go"); err == nil {
		return path, nil
	}
	const usual = "/usr/local/go/bin/go"
	if _, err := os.Stat(usual); err == nil {
		return usual, nil
	}
	return "", &SetupError{What: "the Go command is not on PATH", Try: "install Go from https://go.dev/dl/"}
}

// workspace is a private folder in which the Go command works on a pinned module.
type workspace struct {
	goModule
	dir string
}

// open writes the module's files into a folder.
func (m goModule) open(dir string) (workspace, error) {
	w := workspace{goModule: m, dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return w, err
	}
	return w, components.Extract(m.name, filepath.Join(dir, "module"))
}

// programs is the folder that the module's programs are built into.
func (w workspace) programs() string { return filepath.Join(w.dir, "programs") }

// run runs the Go command. step is given each line of its stderr and returns whether it was progress; the other lines are
// the reason if it fails.
func (w workspace) run(ctx context.Context, stdout io.Writer, step func(string) bool, args ...string) error {
	path, err := goTool()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = filepath.Join(w.dir, "module")
	cmd.Env = append(goEnv(os.Environ(), filepath.Join(w.dir, "tmp"), w.cgo), gcSettings(os.Environ(), runtime.NumCPU(), availableMemory())...)
	cmd.Stdout = stdout
	tail, err := run(cmd, step)
	if err == nil {
		return nil
	}
	if unreachable(tail) {
		return &SetupError{
			What: "the sources of " + w.name + " could not be downloaded", Err: errors.New(tail),
			Try: "check the network and what `go env GOPROXY GOSUMDB` name, or import a bundle that was exported elsewhere: " +
				"`eastwest bundle import FILE`",
		}
	}
	return fmt.Errorf("running go %s for %s: %w\n%s", args[0], w.name, err, tail)
}

// file reads a file of a module that is a dependency of this one, out of Go's module cache.
func (w workspace) file(ctx context.Context, dependency, name string) ([]byte, error) {
	dir, err := w.folder(ctx, dependency)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, name))
}

// folder returns the folder of such a module. It is there once a package of it was listed or built.
func (w workspace) folder(ctx context.Context, dependency string) (string, error) {
	var out bytes.Buffer
	err := w.run(ctx, &out, noProgress, "list", "-m", "-f", "{{.Dir}}", dependency)
	return strings.TrimSpace(out.String()), err
}

// noProgress is the step of a command whose stderr holds nothing but errors.
func noProgress(string) bool { return false }

// mainName is the name that the Go command gives a program: the last element of its path that is not a version.
func mainName(pkg string) string {
	parts := strings.Split(pkg, "/")
	last := parts[len(parts)-1]
	if len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		last = parts[len(parts)-2]
	}
	return last
}

// goEnv is the environment of a build: the user's, without what would change the result.
func goEnv(environ []string, tmp string, cgo bool) []string {
	decides := []string{"GOFLAGS=", "GOWORK=", "GOEXPERIMENT=", "GOAMD64=", "GOARM64=", "GOOS=", "GOARCH=", "CGO_ENABLED=",
		"CGO_CFLAGS=", "CGO_LDFLAGS=", "GO111MODULE=", "GOTMPDIR="}
	env := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc(decides, func(d string) bool { return strings.HasPrefix(v, d) })
	})
	enabled := "CGO_ENABLED=0"
	if cgo {
		enabled = "CGO_ENABLED=1"
	}
	// GOFLAGS is set, not only removed: `go env -w` would give it a value again.
	return append(env, "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOTMPDIR="+tmp, enabled)
}

// How much memory the compiler and the linker may fill before they collect garbage. They live for seconds, so most of what
// they collect would be freed anyway by their end: without collecting, a build takes a tenth to a quarter less CPU. The largest
// packages and programs of the bundle hold up to 1 GiB that is not garbage. With a limit near that a compiler would do little
// but collect, so below the least limit everything stays as the Go command has it.
const (
	leastHeap = 3 << 29 // 1.5 GiB
	mostHeap  = 4 << 30
)

// gcSettings are the variables that set this limit for one of the compilers and linkers, or none where memory is short or the
// user has set such variables.
func gcSettings(environ []string, cpus int, available int64) []string {
	for _, v := range environ {
		if strings.HasPrefix(v, "GOGC=") || strings.HasPrefix(v, "GOMEMLIMIT=") {
			return nil
		}
	}
	// Few of those that run at once are large.
	limit := min(available/int64(cpus+2), mostHeap)
	if limit < leastHeap {
		return nil
	}
	return []string{"GOGC=off", "GOMEMLIMIT=" + strconv.FormatInt(limit, 10)}
}

// availableMemory returns how many bytes the build may use without swapping: what the kernel says, or the limit of a container,
// whichever is less. It is 0 if the kernel does not say.
func availableMemory() int64 {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	memory, err := proc.Meminfo()
	if err != nil || memory.MemAvailableBytes == nil {
		return 0
	}
	available := int64(*memory.MemAvailableBytes)
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil { // "max" is no number
			available = min(available, limit)
		}
	}
	return available
}
