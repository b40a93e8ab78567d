package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// small is a compilation of two programs, each of a component of its own. They share "std" and "lib"; every file has 100 bytes.
func small(t *testing.T) *compilation {
	t.Helper()
	dir := t.TempDir()
	list := []*goPackage{
		{ImportPath: "std", Standard: true},
		{ImportPath: "vendor/std/inner", Standard: true},
		{ImportPath: "lib", Imports: []string{"std", "C"}},
		{ImportPath: "only", Imports: []string{"lib", "inner"}, ImportMap: map[string]string{"inner": "vendor/std/inner"}},
		{ImportPath: "m/cmd/one", Imports: []string{"lib"}},
		{ImportPath: "m/cmd/two", Imports: []string{"only"}},
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file.go"), []byte(strings.Repeat(" ", 100)), 0o644))
	for _, p := range list {
		p.Dir, p.GoFiles = dir, []string{"file.go"}
	}
	return newCompilation("m", filepath.Join(dir, "programs"), list, []component{
		{name: "first", programs: []string{"m/cmd/one"}}, {name: "second", programs: []string{"m/cmd/two"}},
	})
}

func (c *compilation) counts() (counts [][2]int) {
	for _, t := range c.tallies {
		counts = append(counts, [2]int{t.done, t.total})
	}
	return counts
}

func TestCompilationCountsForEachComponent(t *testing.T) {
	c := small(t)
	require.Equal(t, [][2]int{{0, 3}, {0, 5}}, c.counts())
	require.InDelta(t, 600+linkWeight*(300+500), c.total, 0.01)

	require.False(t, c.compile("# some message"))
	require.True(t, c.compile("std"))
	require.Equal(t, [][2]int{{1, 3}, {1, 5}}, c.counts())
	require.Equal(t, "1 of 6 packages", c.status())
	require.Equal(t, 1, c.standard)

	// What a package imports was in Go's cache if the compiler was not started for it: it is done, and no work of this run.
	require.True(t, c.compile("only"))
	require.Equal(t, [][2]int{{2, 3}, {4, 5}}, c.counts())
	require.InDelta(t, 400, c.done, 0.01)
	require.InDelta(t, 200, c.worked, 0.01)
	require.Zero(t, c.standard)

	require.True(t, c.compile("m/cmd/two"))
	require.Equal(t, "5 of 6 packages, linking two", c.status())
	require.NoError(t, os.MkdirAll(c.folder, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(c.folder, "two"), nil, 0o755))
	c.look()
	require.Equal(t, "5 of 6 packages", c.status())
	require.InDelta(t, 500+linkWeight*500, c.done, 0.01)

	c.finish()
	require.Equal(t, [][2]int{{3, 3}, {5, 5}}, c.counts())
	require.InDelta(t, c.total, c.done, 0.01)
}

// TestReportsOfTheWholeBuild goes through a build on a clock of its own.
func TestReportsOfTheWholeBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var whole []Progress
		r := newReporter(func(p Progress) {
			if p.Component == "" {
				whole = append(whole, p)
			}
		})
		after := func(d time.Duration) Progress {
			<-time.After(d)
			synctest.Wait()
			require.Len(t, whole, int(d/time.Second), "one report each second")
			last := whole[len(whole)-1]
			whole = nil
			return last
		}
		end := r.beat()
		defer end()
		<-time.After(time.Second / 2) // so that reports and steps do not meet

		r.doing("checking what is there")
		require.Equal(t, "checking what is there", after(2*time.Second).Detail)

		r.expect(2)
		c := small(t)
		r.tell(Progress{Component: "first", State: Downloading, Detail: "example.com/lib v1.0.0"})
		p := after(3 * time.Second)
		require.Equal(t, "first: downloading example.com/lib v1.0.0", p.Detail)
		require.Zero(t, p.Share)

		r.listed(c)
		r.start(c)
		require.True(t, r.line(c, "lib")) // 100 bytes of work, "std" was there
		p = after(20 * time.Second)
		require.Equal(t, "m: 2 of 6 packages", p.Detail)
		require.Zero(t, p.Share, "a module is not listed yet")
		require.Zero(t, p.Left)

		r.listed(newCompilation("n", t.TempDir(), nil, nil))
		p = after(10 * time.Second)
		require.InDelta(t, 200/c.total, p.Share, 0.001)
		// 100 bytes in 29.5 s, 424 are left.
		require.InDelta(t, 29.5*4.24, p.Left.Seconds(), 3)

		r.line(c, "m/cmd/two")
		p = after(60 * time.Second)
		require.Equal(t, "m: 5 of 6 packages, linking two", p.Detail)
		require.Greater(t, p.Left, time.Second)
		require.Equal(t, 95*time.Second, p.Took.Round(time.Second))

		r.finish(c)
		r.tell(Progress{Component: "first", State: Packing, Detail: "image"})
		p = after(time.Second)
		require.Equal(t, "first: packing image", p.Detail)
		require.InDelta(t, 1, p.Share, 0.001)
		require.Zero(t, p.Left.Round(time.Second))

		r.tell(Progress{Component: "first", State: Done})
		r.doing("completing the bundle")
		require.Equal(t, "completing the bundle", after(time.Second).Detail)
	})
}

func TestNoReportAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		r := newReporter(func(Progress) { require.False(t, ended) })
		end := r.beat()
		<-time.After(3 * time.Second)
		end()
		ended = true
		<-time.After(3 * time.Second)
	})
}
