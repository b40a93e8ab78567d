// Package labs is what tests on real clusters share: whether this machine can have any, a lab that is
// removed when the test ends, and the command as a user would run it.
package labs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Provider is the one under test: EASTWEST_PROVIDER, or embedded.
func Provider() string { return cmp.Or(os.Getenv("EASTWEST_PROVIDER"), lab.Embedded) }

// NeedProvider returns the provider under test, and fails where there is none of that name.
func NeedProvider(t *testing.T) string {
	t.Helper()
	name := Provider()
	require.Contains(t, lab.Makers(), name, "EASTWEST_PROVIDER names no provider that makes clusters")
	return name
}

// AppImage is the bundle's own application, which every lab has.
func AppImage() string { return fmt.Sprintf("%s/app:%s", bundle.Hub, bundle.Tag) }

// Need skips the test where no clusters can be made, and returns the folder of labs.
func Need(t *testing.T) (home string) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	if err := lab.Available(t.Context(), Provider()); err != nil {
		if os.Getenv("EASTWEST_PROVIDER") != "" {
			t.Fatal(err) // who names a provider wants no test skipped
		}
		t.Skip(err)
	}
	require.NoError(t, wait.Measure())
	home, err := lab.Home()
	require.NoError(t, err)
	return home
}

// NightlyEnv is the environment variable that makes the tests take in what Nightly leaves out.
const NightlyEnv = "EASTWEST_NIGHTLY"

// IsNightly reports whether the tests are to be thorough, whatever it takes: `make nightly` sets NightlyEnv.
func IsNightly() bool { return os.Getenv(NightlyEnv) != "" }

// Nightly skips a test on real clusters that is too long for each change, unless IsNightly. The faster tests of the same
// thing are for each change.
func Nightly(t *testing.T) {
	t.Helper()
	if !IsNightly() {
		t.Skip("part of the nightly tests: make nightly, or " + NightlyEnv + "=1")
	}
}

// Up makes a lab that lives as long as the test; Home is filled in if it is empty.
func Up(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	home := Need(t)
	if o.Home == "" {
		o.Home = home
	}
	l, err := lab.Up(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		l.Close()
		var unknown *lab.UnknownLabError
		if err := lab.Down(context.Background(), o.Home, o.Name); !errors.As(err, &unknown) {
			assert.NoError(t, err)
		}
	})
	return l
}

// RunWithCommand builds the command, puts its path into command, and runs the tests of the package. It returns the exit code.
func RunWithCommand[C ~string](m *testing.M, command *C) (code int) {
	path, err := BuildCommand()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*command = C(path)
	return m.Run()
}

// BuildCommand builds bin/eastwest of this checkout and returns its path. Tests of several packages call it at once, and
// a program that runs cannot be written: the first builds, the others find it built.
func BuildCommand() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	binary := filepath.Join(root, "bin", "eastwest")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", fmt.Errorf("building the command: %w", err)
	}
	lock := flock.New(filepath.Join(filepath.Dir(binary), ".building"))
	if err := lock.Lock(); err != nil {
		return "", fmt.Errorf("building the command: %w", err)
	}
	defer func() { _ = lock.Unlock() }()
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", binary, "./lab/cmd/eastwest")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the command: %w\n%s", err, out)
	}
	return binary, nil
}

// Supervisor is the process id of the supervisor of a lab's embedded node.
func Supervisor(t *testing.T, name, node string) int {
	t.Helper()
	pids, err := host.CgroupProcesses("eastwest/" + name + "/" + node)
	require.NoError(t, err)
	i := slices.IndexFunc(pids, func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && strings.HasPrefix(string(line), "eastwest-node\x00")
	})
	require.GreaterOrEqual(t, i, 0, "no supervisor among %v", pids)
	return pids[i]
}
