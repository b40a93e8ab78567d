package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// part is a component that writes one small file, and counts how often it is built.
func part(name string, built *atomic.Int32) component {
	return component{
		name: name, version: "v1", inputs: []string{"content of " + name}, space: 1,
		build: func(_ context.Context, b *bench) ([]Image, error) {
			if built != nil {
				built.Add(1)
			}
			return nil, b.put("bin/"+name, "content of "+name)
		},
	}
}

// put writes a result of a test's component.
func (b *bench) put(path, content string) error {
	path = filepath.Join(b.out, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o755)
}

// watch collects the last state of each component.
type watch struct {
	mu     sync.Mutex
	states map[string]State
	all    []Progress
}

func (w *watch) see(p Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.states == nil {
		w.states = map[string]State{}
	}
	if p.Component != "" || p.State == Waiting { // the rest follows the clock
		w.states[p.Component] = p.State
	}
	w.all = append(w.all, p)
}

func setupError(t *testing.T, err error) *SetupError {
	t.Helper()
	var setup *SetupError
	require.ErrorAs(t, err, &setup)
	return setup
}

// requireNothingHalf asserts that nothing half-made is left in a bundle folder.
func requireNothingHalf(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestBuildTwiceGivesOneDigest(t *testing.T) {
	var built atomic.Int32
	parts := []component{part("one", &built), part("two", &built)}
	dir := t.TempDir()
	_, err := open(dir, parts)
	require.ErrorContains(t, err, "eastwest bundle build")
	require.NotEmpty(t, setupError(t, err).Try)

	first, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
	require.NoError(t, err)
	require.EqualValues(t, 2, built.Load())
	require.Equal(t, map[string]string{"one": "v1", "two": "v1"}, first.Versions())
	require.FileExists(t, first.Bin("one"))

	var seen watch
	again, err := build(t.Context(), BuildOptions{Dir: dir, Progress: seen.see}, parts)
	require.NoError(t, err)
	require.EqualValues(t, 2, built.Load(), "a second build has nothing to do")
	require.Equal(t, map[string]State{"one": Reused, "two": Reused}, seen.states)
	require.Equal(t, first.Digest(), again.Digest())

	elsewhere, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, parts)
	require.NoError(t, err)
	require.Equal(t, first.Digest(), elsewhere.Digest())
	requireNothingHalf(t, dir)
}

// Tools alone stand in for a bundle that was never built, not for one that is damaged.
func TestToolsAlone(t *testing.T) {
	all := []component{part("one", nil), part("tool", nil)}
	tools := all[1:]
	dir := t.TempDir()
	_, err := openOr(dir, all, tools)
	require.ErrorContains(t, err, "there is no bundle")
	made, err := build(t.Context(), BuildOptions{Dir: dir}, tools)
	require.NoError(t, err)
	b, err := openOr(dir, all, tools)
	require.NoError(t, err)
	require.Equal(t, made.Dir(), b.Dir())
	require.FileExists(t, b.Bin("tool"))
	_, err = open(dir, all)
	require.ErrorContains(t, err, "there is no bundle")

	var built atomic.Int32
	all[0] = part("one", &built)
	whole, err := build(t.Context(), BuildOptions{Dir: dir}, all)
	require.NoError(t, err)
	require.EqualValues(t, 1, built.Load())
	b, err = openOr(dir, all, tools)
	require.NoError(t, err)
	require.Equal(t, whole.Dir(), b.Dir())
	require.NoError(t, os.Remove(whole.Bin("one")))
	_, err = openOr(dir, all, tools)
	require.ErrorContains(t, err, "is damaged: bin/one: missing")
}

func TestToolsOfTheTable(t *testing.T) {
	var names []string
	for _, c := range toolRecipes() {
		names = append(names, c.name)
	}
	require.ElementsMatch(t, []string{"kubectl", "istioctl"}, names)
}

func TestChangedPinBuildsOnlyWhatItConcerns(t *testing.T) {
	var built atomic.Int32
	parts := []component{part("one", &built), part("two", &built)}
	dir := t.TempDir()
	old, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
	require.NoError(t, err)

	changed := []component{parts[0], parts[1]}
	changed[1].inputs = []string{"another pin"}
	_, err = open(dir, changed)
	require.Error(t, err)
	_, err = build(t.Context(), BuildOptions{Dir: dir}, changed)
	require.NoError(t, err)
	require.EqualValues(t, 3, built.Load())
	_, err = open(dir, parts)
	require.NoError(t, err, "labs of the old pin keep their bundle")
	problems, err := old.Verify()
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestCanceledBuildGoesOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var built atomic.Int32
	slow := part("slow", nil)
	slow.build = func(ctx context.Context, _ *bench) ([]Image, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	dir := t.TempDir()
	_, err := build(ctx, BuildOptions{Dir: dir, Parallel: 1}, []component{part("quick", &built), slow})
	require.ErrorIs(t, err, context.Canceled)
	requireNothingHalf(t, dir)

	parts := []component{part("quick", &built), part("slow", &built)}
	_, err = open(dir, parts)
	require.NotEmpty(t, setupError(t, err).What)
	var seen watch
	_, err = build(t.Context(), BuildOptions{Dir: dir, Progress: seen.see}, parts)
	require.NoError(t, err)
	require.Equal(t, map[string]State{"quick": Reused, "slow": Done}, seen.states)
	require.EqualValues(t, 2, built.Load(), "each was built once")
}

// TestKilledBuildGoesOn kills a builder in the middle of its second component, which has written half of its files.
func TestKilledBuildGoesOn(t *testing.T) {
	if dir := os.Getenv("EASTWEST_TEST_KILLED"); dir != "" {
		die := part("second", nil)
		die.build = func(_ context.Context, b *bench) ([]Image, error) {
			if err := b.put("bin/second", "half of"); err != nil {
				return nil, err
			}
			return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		_, err := build(t.Context(), BuildOptions{Dir: dir, Parallel: 1}, []component{part("first", nil), die})
		t.Fatalf("it survived: %v", err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledBuildGoesOn$")
	cmd.Env = append(os.Environ(), "EASTWEST_TEST_KILLED="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, string(out))
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), string(out))

	parts := []component{part("first", nil), part("second", nil)}
	_, err = open(dir, parts)
	require.NotEmpty(t, setupError(t, err).What)
	var seen watch
	b, err := build(t.Context(), BuildOptions{Dir: dir, Progress: seen.see}, parts)
	require.NoError(t, err)
	require.Equal(t, map[string]State{"first": Reused, "second": Done}, seen.states)
	content, err := os.ReadFile(b.Bin("second"))
	require.NoError(t, err)
	require.Equal(t, "content of second", string(content))
	requireNothingHalf(t, dir)
}

func TestTwoBuildsAtOnce(t *testing.T) {
	var built atomic.Int32
	begun, goOn := make(chan struct{}), make(chan struct{})
	parts := []component{part("one", &built), part("two", &built)}
	finish := parts[0].build
	parts[0].build = func(ctx context.Context, b *bench) ([]Image, error) {
		close(begun)
		<-goOn
		return finish(ctx, b)
	}
	dir := t.TempDir()
	digests, errs := [2]string{}, [2]error{}
	run := func(i int, show func(Progress)) {
		b, err := build(t.Context(), BuildOptions{Dir: dir, Progress: show}, parts)
		if errs[i] = err; err == nil {
			digests[i] = b.Digest()
		}
	}
	var both sync.WaitGroup
	both.Go(func() { run(0, nil) })
	<-begun
	var seen watch
	both.Go(func() {
		run(1, func(p Progress) {
			seen.see(p)
			if p.Component == "" && p.State == Waiting {
				close(goOn) // the second has said that it waits
			}
		})
	})
	both.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	require.Equal(t, digests[0], digests[1])
	require.EqualValues(t, 2, built.Load(), "the second found everything done")
	require.Equal(t, Reused, seen.states["one"])
}

// Builds of two homes that begin at the same moment in one folder make everything once, and both get it whole.
func TestTwinsBuildInOneFolder(t *testing.T) {
	const races = 50
	parent := t.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "eastwest-test-"); err == nil { // every build waits for the disk
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(memory)) })
		parent = memory
	}
	for round := range races {
		var built atomic.Int32
		parts := []component{part("one", &built), part("two", &built)}
		dir := filepath.Join(parent, fmt.Sprint(round))
		errs := make([]error, 2)
		begin := make(chan struct{})
		var both sync.WaitGroup
		for i := range errs {
			both.Go(func() {
				<-begin
				b, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
				if err == nil {
					_, err = os.Stat(b.Bin("two"))
				}
				errs[i] = err
			})
		}
		close(begin)
		both.Wait()
		require.NoError(t, errors.Join(errs...), "round %d", round)
		require.EqualValues(t, 2, built.Load(), "round %d", round)
		requireNothingHalf(t, dir)
	}
}

func TestDamageIsFoundAndOnlyItsComponentRebuilt(t *testing.T) {
	type damage struct {
		do   func(t *testing.T, b *Bundle)
		open bool // whether Open, which looks at sizes only, can see it
	}
	for name, d := range map[string]damage{
		"a changed byte": {do: func(t *testing.T, b *Bundle) { t.Helper(); overwrite(t, b.Bin("two"), "CONTENT of two") }},
		"a short file":   {open: true, do: func(t *testing.T, b *Bundle) { t.Helper(); overwrite(t, b.Bin("two"), "") }},
		"a lost file": {open: true, do: func(t *testing.T, b *Bundle) {
			t.Helper()
			require.NoError(t, os.Remove(b.Bin("two")))
			require.NoError(t, os.Remove(blobOf(b, "bin/two")))
		}},
		"a lost blob and a changed copy": {do: func(t *testing.T, b *Bundle) {
			t.Helper()
			require.NoError(t, os.Remove(blobOf(b, "bin/two")))
			overwrite(t, b.Bin("two"), "CONTENT of two")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var built atomic.Int32
			parts := []component{part("one", &built), part("two", &built)}
			dir := t.TempDir()
			b, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
			require.NoError(t, err)
			d.do(t, b)

			problems, err := b.Verify()
			require.NoError(t, err)
			require.Len(t, problems, 1)
			require.Equal(t, "bin/two", problems[0].Path)
			_, err = open(dir, parts)
			if d.open {
				require.ErrorContains(t, err, "bin/two")
				setupError(t, err)
			} else {
				require.NoError(t, err)
			}

			var seen watch
			again, err := build(t.Context(), BuildOptions{Dir: dir, Progress: seen.see}, parts)
			require.NoError(t, err)
			require.Equal(t, map[string]State{"one": Reused, "two": Done}, seen.states)
			require.EqualValues(t, 3, built.Load())
			require.Equal(t, b.Digest(), again.Digest())
			problems, err = again.Verify()
			require.NoError(t, err)
			require.Empty(t, problems)
		})
	}
}

func TestDamagedCopyIsLinkedAnew(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, b *Bundle){
		"a replaced file": func(t *testing.T, b *Bundle) {
			t.Helper()
			require.NoError(t, os.Remove(b.Bin("one")))
			require.NoError(t, os.WriteFile(b.Bin("one"), []byte("CONTENT of one"), 0o755))
		},
		"a damaged manifest": func(t *testing.T, b *Bundle) { t.Helper(); overwrite(t, filepath.Join(b.Dir(), manifestName), "{") },
		"no manifest": func(t *testing.T, b *Bundle) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(b.Dir(), manifestName)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var built atomic.Int32
			parts := []component{part("one", &built)}
			dir := t.TempDir()
			b, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
			require.NoError(t, err)
			do(t, b)
			again, err := build(t.Context(), BuildOptions{Dir: dir}, parts)
			require.NoError(t, err)
			require.EqualValues(t, 1, built.Load(), "the blob was good")
			problems, err := again.Verify()
			require.NoError(t, err)
			require.Empty(t, problems)
			require.Equal(t, b.Digest(), again.Digest())
			requireNothingHalf(t, dir)
		})
	}
}

// overwrite changes a file in place, as a bad disk would: every link sees it.
func overwrite(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.Chmod(path, 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
}

func blobOf(b *Bundle, path string) string {
	for _, f := range b.manifest.Files {
		if f.Path == path {
			return store(filepath.Dir(b.root)).blob(f.SHA256)
		}
	}
	return ""
}

func TestFailureNamesItsComponentAndKeepsTheOthers(t *testing.T) {
	var built atomic.Int32
	bad := part("bad", nil)
	bad.build = func(_ context.Context, b *bench) ([]Image, error) {
		return nil, errors.Join(b.put("bin/bad", "half"), errors.New("no such luck"))
	}
	dir := t.TempDir()
	var seen watch
	_, err := build(
		t.Context(),
		BuildOptions{Dir: dir, Parallel: 1, Progress: seen.see},
		[]component{part("good", &built), bad, part("later", &built)},
	)
	require.EqualError(t, err, "building bad: no such luck")
	require.Equal(t, map[string]State{"good": Done, "bad": Failed, "later": Waiting}, seen.states)
	requireNothingHalf(t, dir)

	nothing := part("nothing", nil)
	nothing.build = func(context.Context, *bench) ([]Image, error) { return nil, nil }
	_, err = build(t.Context(), BuildOptions{Dir: dir}, []component{nothing})
	require.ErrorContains(t, err, "building nothing: it left no files")
}

func TestMissingToolsAreOneError(t *testing.T) {
	one, two := part("one", nil), part("two", nil)
	one.tools = []tool{program("no-such-program", "some-package")}
	two.tools = []tool{program("no-such-program", "some-package"), program("nor-this-one", "other-package")}
	dir := t.TempDir()
	_, err := build(t.Context(), BuildOptions{Dir: dir}, []component{one, two})
	setup := setupError(t, err)
	require.Equal(t, []string{"no-such-program (for one): not found", "nor-this-one (for two): not found"}, setup.Missing)
	require.Contains(t, setup.Try, "apt-get install other-package some-package")
	requireNothingHalf(t, dir)
}

func TestDiskTooSmallIsToldBeforeTheFirstMinute(t *testing.T) {
	big := part("big", nil)
	big.space = 1 << 60
	big.build = func(context.Context, *bench) ([]Image, error) { return nil, errors.New("it began") }
	dir := t.TempDir()
	_, err := build(t.Context(), BuildOptions{Dir: dir}, []component{big})
	setupError(t, err)
	require.ErrorContains(t, err, "needs 1073741824.0 GiB of free disk")
	require.ErrorContains(t, err, EnvDir)
}

// TestDiskRunsFull builds on a disk of 1 MiB that an estimate of one byte says is large enough.
func TestDiskRunsFull(t *testing.T) {
	dir := smallDisk(t, "1m")
	parts := []component{part("small", nil), part("large", nil)}
	parts[1].build = func(_ context.Context, b *bench) ([]Image, error) {
		return nil, b.put("bin/large", strings.Repeat("x", 2<<20))
	}
	_, err := build(t.Context(), BuildOptions{Dir: dir, Parallel: 1}, parts)
	setup := setupError(t, err)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, "large", setup.Component)
	require.Contains(t, setup.What, "the disk is full")
	require.Contains(t, setup.What, "MiB free")
	requireNothingHalf(t, dir)
	_, ok := store(dir).recorded(parts[0])
	require.True(t, ok, "what was finished is kept")
	_, ok = store(dir).recorded(parts[1])
	require.False(t, ok)
}

// smallDisk mounts a tmpfs of a size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root: run with sudo")
	}
	dir := t.TempDir()
	if err := syscall.Mount("eastwest-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mounting a small disk: %v: run where mounting is allowed", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// TestUnreachableModules builds a real component where nothing can be downloaded.
func TestUnreachableModules(t *testing.T) {
	if _, err := goTool(); err != nil {
		t.Skip("the Go command is needed: https://go.dev/dl/")
	}
	for name, proxy := range map[string]string{"switched off": "off", "nobody listens": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOPROXY", proxy)
			t.Setenv("GOMODCACHE", t.TempDir())
			t.Setenv("GOFLAGS", "-modcacherw") // lest the test cannot remove it; ours is the only cache it could be in
			dir := t.TempDir()
			_, err := build(t.Context(), BuildOptions{Dir: dir}, fromTable(t, "cni"))
			setup := setupError(t, err)
			require.Equal(t, "cni", setup.Component)
			require.ErrorContains(t, err, "building cni: the sources of cni could not be downloaded")
			require.ErrorContains(t, err, "go env GOPROXY")
			requireNothingHalf(t, dir)
			_, ok := store(dir).recorded(fromTable(t, "cni")[0])
			require.False(t, ok)
		})
	}
}

// fromTable returns components of the real table.
func fromTable(t *testing.T, names ...string) (found []component) {
	t.Helper()
	for _, name := range names {
		for _, c := range recipes() {
			if c.name == name {
				found = append(found, c)
			}
		}
	}
	require.Len(t, found, len(names))
	return found
}

// TestPauseIsReproducible builds the smallest real component, image and all, in two folders.
func TestPauseIsReproducible(t *testing.T) {
	if _, err := goTool(); err != nil {
		t.Skip("the Go command is needed: https://go.dev/dl/")
	}
	var digests []string
	for range 2 {
		b, err := build(t.Context(), BuildOptions{Dir: t.TempDir()}, fromTable(t, "pause"))
		require.NoError(t, err)
		require.Len(t, b.Images(), 1)
		image := b.Images()[0]
		require.Equal(t, "registry.k8s.io/pause:"+pauseVersion, image.Ref)
		require.FileExists(t, image.Archive)
		digests = append(digests, b.Digest()+" "+image.Digest)
	}
	require.Equal(t, digests[0], digests[1])
}

// TestOneRunBuildsComponentsOfOneModule makes an image and a plain program of what is compiled once.
func TestOneRunBuildsComponentsOfOneModule(t *testing.T) {
	if _, err := goTool(); err != nil {
		t.Skip("the Go command is needed: https://go.dev/dl/")
	}
	image := pause("image", "1.0")
	plain := binaries(component{name: "plain", version: "1.0", from: image.from}, map[string]string{pauseProgram: "bin/pause"})
	var seen watch
	b, err := build(t.Context(), BuildOptions{Dir: t.TempDir(), Progress: seen.see}, []component{image, plain})
	require.NoError(t, err)
	require.Len(t, b.Images(), 1)
	require.FileExists(t, b.Bin("pause"))
	require.Equal(t, map[string]State{"image": Done, "plain": Done}, seen.states)
	seen.all = slices.DeleteFunc(seen.all, func(p Progress) bool { return p.State != Building || p.Total == 0 })
	require.NotEmpty(t, seen.all)
	for i := 0; i < len(seen.all); i += 2 {
		require.Equal(t, "image", seen.all[i].Component)
		require.Equal(t, "plain", seen.all[i+1].Component, "both are told of each package")
		require.Equal(t, seen.all[i].Done, seen.all[i+1].Done)
	}
}

// TestDownloadsBeginAtOnce holds up the first component until the second one's download has begun.
func TestDownloadsBeginAtOnce(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	first, second := part("first", nil), part("second", nil)
	finish := first.build
	first.build = func(ctx context.Context, b *bench) ([]Image, error) {
		<-begun
		close(proceed)
		return finish(ctx, b)
	}
	second.download = func(context.Context, *bench) error {
		close(begun)
		<-proceed
		return nil
	}
	dir := t.TempDir()
	_, err := build(t.Context(), BuildOptions{Dir: dir, Parallel: 1}, []component{first, second})
	require.NoError(t, err)

	second.inputs = []string{"another"}
	second.download = func(context.Context, *bench) error { return errors.New("no such server") }
	second.build = func(context.Context, *bench) ([]Image, error) {
		return nil, errors.New("it began without its download")
	}
	var seen watch
	_, err = build(t.Context(), BuildOptions{Dir: dir, Parallel: 1, Progress: seen.see}, []component{first, second})
	require.EqualError(t, err, "building second: no such server")
	require.Equal(t, Failed, seen.states["second"])
	requireNothingHalf(t, dir)
}

func TestChildrenEndWithTheBuild(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	var pid string
	// The shell's own child would go on for a minute if only the shell were killed.
	_, err := run(exec.CommandContext(ctx, "sh", "-c", "sleep 60 & echo $! >&2; wait"), func(line string) bool {
		pid = line
		cancel()
		return true
	})
	require.Error(t, err)
	require.Less(t, time.Since(start), 30*time.Second)
	require.NotEmpty(t, pid)
	require.Eventually(t, func() bool {
		state, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ")
	}, 5*time.Second, 10*time.Millisecond)
}

func TestRunKeepsTheLastLines(t *testing.T) {
	tail, err := run(
		exec.CommandContext(t.Context(), "sh", "-c", "for i in $(seq 100); do echo line $i >&2; echo line $i >&2; done; exit 1"),
		func(line string) bool {
			return line == "line 99"
		},
	)
	require.Error(t, err)
	lines := strings.Split(tail, "\n")
	require.Len(t, lines, 30)
	require.Equal(t, "line 98", lines[28])
	require.Equal(t, "line 100", lines[29])
}

func TestMainName(t *testing.T) {
	for pkg, want := range map[string]string{
		"go.etcd.io/etcd/server/v3": "server", "github.com/opencontainers/runc": "runc", "example.com/v": "v",
		"k8s.io/kubernetes/cmd/kubelet": "kubelet",
	} {
		require.Equal(t, want, mainName(pkg), pkg)
	}
}

func TestBuildEnvironmentIgnoresWhatChangesResults(t *testing.T) {
	env := goEnv(
		[]string{"HOME=/h", "GOFLAGS=-race", "GOAMD64=v3", "GOPROXY=https://example.com", "CGO_ENABLED=1", "GOWORK=/w", "GOTMPDIR=/x"},
		"/tmp/y",
		false,
	)
	require.Equal(
		t,
		[]string{"HOME=/h", "GOPROXY=https://example.com", "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOTMPDIR=/tmp/y", "CGO_ENABLED=0"},
		env,
	)
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 MiB", 1: "1 MiB", 320 << 20: "320 MiB", 3 << 29: "1.5 GiB"} {
		require.Equal(t, want, size(bytes), fmt.Sprint(bytes))
	}
}
