package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	f := runFlags{html: filepath.Join(t.TempDir(), "run.html")}
	require.NoError(t, f.deliver(newRunCommand(), &runner{}), "a run that could not begin has no page")
	assert.NoFileExists(t, f.html)
}
