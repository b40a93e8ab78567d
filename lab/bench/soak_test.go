package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

var soakHead = SoakHead{Version: "v1", Provider: "embedded", Seed: 7}

func TestSoakGoesOnInItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "soak.jsonl")
	soak, err := OpenSoak(file, soakHead)
	require.NoError(t, err)
	require.NoError(t, soak.Add(SoakEntry{Scenario: "one", Result: report.Passed, Seconds: 12.3}))
	again, err := OpenSoak(file, SoakHead{Version: "v1", Provider: "embedded"})
	require.NoError(t, err, "no seed is the seed of the file")
	require.Equal(t, soak.Entries, again.Entries)
	require.Equal(t, uint64(7), again.Head.Seed)
	for _, other := range []SoakHead{
		{Version: "v2", Provider: "embedded"}, {Version: "v1", Provider: "kind"}, {Version: "v1", Provider: "embedded", Seed: 8},
	} {
		_, err := OpenSoak(file, other)
		require.ErrorContains(t, err, "name another file")
	}
}

// TestSoakThatWasCutOff cuts the file at every byte: no entry is lost but the one that was being written, and the next one is whole.
func TestSoakThatWasCutOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "soak.jsonl")
	soak, err := OpenSoak(file, soakHead)
	require.NoError(t, err)
	require.NoError(t, soak.Add(SoakEntry{Scenario: "one", Result: report.Passed}))
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, soak.Add(SoakEntry{Killed: "etcd", Signal: "SIGKILL", Result: report.Passed}))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	for n := len(before); n < len(data); n++ {
		require.NoError(t, os.WriteFile(file, data[:n], 0o644))
		cut, err := OpenSoak(file, soakHead)
		require.NoError(t, err)
		require.Equal(t, 1, cut.Runs())
		require.Zero(t, cut.Killed("etcd", "SIGKILL"))
		require.NoError(t, cut.Add(SoakEntry{Killed: "up", Signal: "SIGINT", Result: report.Passed}))
		whole, err := OpenSoak(file, soakHead)
		require.NoError(t, err)
		require.Equal(t, 1, whole.Killed("up", "SIGINT"))
	}
	require.NoError(t, os.WriteFile(file, []byte("{}\nno JSON\n"), 0o644))
	_, err = OpenSoak(file, soakHead)
	require.ErrorContains(t, err, file+":2: ")
	require.NoError(t, os.WriteFile(file, []byte("{}\n"), 0o644))
	_, err = OpenSoak(file, soakHead)
	require.ErrorContains(t, err, "wanted the file of a soak")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	empty, err := OpenSoak(file, soakHead)
	require.NoError(t, err, "killed before its first line")
	require.Equal(t, soakHead, empty.Head)
}

func TestSoakOrder(t *testing.T) {
	var all []*scenario.Scenario
	for _, name := range strings.Fields("a b c d e f g h") {
		all = append(all, &scenario.Scenario{Name: name})
	}
	require.Equal(t, soakHead.Order(all, 3), soakHead.Order(all, 3))
	require.NotEqual(t, soakHead.Order(all, 3), soakHead.Order(all, 4))
	require.ElementsMatch(t, all, soakHead.Order(all, 5))
}

func TestSoakTables(t *testing.T) {
	soak := &Soak{Head: soakHead}
	for _, seconds := range []float64{10, 30, 20, 40} {
		soak.Entries = append(soak.Entries, SoakEntry{Scenario: "late", Result: report.Passed, Seconds: seconds, Patience: 2})
	}
	soak.Entries = append(soak.Entries,
		SoakEntry{Scenario: "early", Result: report.Failed, Failed: "healthy", Reason: "calls of a-to-b:\nlost 3", Patience: 3},
		SoakEntry{Killed: "etcd", Signal: "SIGKILL", Result: report.Passed},
		SoakEntry{Killed: "up", Signal: "SIGKILL", Result: report.Failed, Left: []string{"rules"}},
	)
	text := soak.Markdown()
	for _, want := range []string{
		"5 runs of scenarios, 1 failure.\n", "| early | 1 | 1 | – | – | – | – |\n",
		"| late | 4 | 0 | 10.0 s | 30.0 s | 40.0 s | 40.0 s |\n",
		"2 kills, 1 leftover, 1 failure.\n", "| etcd | SIGKILL | 1 | 0 | 0 |\n", "| up | SIGKILL | 1 | 1 | 1 |\n",
		"- early, healthy: calls of a-to-b: lost 3\n", "- up, failed: rules\n",
	} {
		require.Contains(t, text, want)
	}
	require.NotRegexp(t, `\|\n\n\|`, text, "an empty line ends a table")
	require.Len(t, soak.Bad(), 2)
}
