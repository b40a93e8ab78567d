package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/report"
)

// TestRunDeliversPages shows what `run --html` writes of the folders that it has made.
func TestRunDeliversPages(t *testing.T) {
	const (
		passed = "../../page/testdata/passed/mismatched-root-ca"
		failed = "../../page/testdata/failed/root-expired"
	)
	for _, test := range []struct {
		made  []string
		title string
	}{
		{[]string{failed}, "<title>root-expired: failed</title>"},
		{[]string{passed, failed}, "<title>eastwest: 2 scenarios in 2 runs: 1 failing and 1 passed.</title>"},
	} {
		f := runFlags{html: filepath.Join(t.TempDir(), "run.html")}
		require.NoError(t, f.deliver(newRunCommand(), &runner{made: test.made}))
		text, err := os.ReadFile(f.html)
		require.NoError(t, err)
		assert.Contains(t, string(text[:min(len(text), 600)]), test.title)
	}
	folder, err := report.NewFolder(filepath.Join(t.TempDir(), "a-scenario"))
	require.NoError(t, err)
	require.NoError(t, folder.Close())
	var r runner
	r.keep(folder.Dir())
	f := runFlags{html: filepath.Join(t.TempDir(), "run.html")}
	require.NoError(t, f.deliver(newRunCommand(), &r), "a run that could not begin has no page")
	assert.NoFileExists(t, f.html)
	r.keep(failed)
	assert.Equal(t, []string{failed}, r.made)
}

// TestWriteFileReplacesNoDevice writes into a pipe and through a link, as to /dev/stdout.
func TestWriteFileReplacesNoDevice(t *testing.T) {
	dir := t.TempDir()
	page := func(w io.Writer) error {
		_, err := io.WriteString(w, "page")
		return err
	}
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	end, err := os.OpenFile(pipe, os.O_RDWR, 0)
	require.NoError(t, err)
	defer end.Close()
	require.NoError(t, writeFile(pipe, page))
	info, err := os.Lstat(pipe)
	require.NoError(t, err)
	require.Equal(t, os.ModeNamedPipe, info.Mode().Type())
	got := make([]byte, 4)
	_, err = io.ReadFull(end, got)
	require.NoError(t, err)
	assert.Equal(t, "page", string(got))

	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(file, []byte("an older page"), 0o644))
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, writeFile(link, page))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "page", string(text))
	require.ErrorContains(t, writeFile(dir, page), "writing "+dir)
}
