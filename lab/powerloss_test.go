package lab

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// TestPowerLossInTheMiddleOfAFile cuts the files that say what a lab is and how it is put back at every byte, and fills the rest with
// zeros, as file systems do that keep the length and lose the content. Whatever is left, commands say which file it is and what to
// do, and never take half of it for the whole.
func TestPowerLossInTheMiddleOfAFile(t *testing.T) {
	whole := guestRecord()
	whole.Left = "mismatched-root-ca"
	whole.Settings.(*existing.Settings).Adopt = true
	before := Checkpoint{Version: checkpointVersion, Scenario: whole.Left, Began: time.Unix(1, 0).UTC(), Before: []byte(`{"a":1}`)}
	for file, of := range map[string]func(home string) string{
		"lab.json":        func(home string) string { return recordFile(home, whole.Name) },
		"checkpoint.json": func(home string) string { return checkpointFile(home, whole.Name) },
	} {
		t.Run(file, func(t *testing.T) {
			home := t.TempDir()
			require.NoError(t, os.MkdirAll(machine.Dir(home, whole.Name, Existing), 0o755)) // its provider has made it
			require.NoError(t, whole.write(home))
			require.NoError(t, before.write(home, whole.Name))
			path := of(home)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			for n := range data {
				for _, rest := range []int{0, len(data) - n} {
					require.NoError(t, os.WriteFile(path, append(bytes.Clone(data[:n]), make([]byte, rest)...), 0o600))
					what := fmt.Sprintf("%d of %d bytes, then %d zeros", n, len(data), rest)
					r, recordErr := readRecord(home, whole.Name)
					c, checkpointErr := readCheckpoint(home, whole.Name)
					if file == "lab.json" {
						require.ErrorContains(t, recordErr, path, what)
						_, _, err := Options{Home: home, Name: whole.Name, Topology: whole.Topology}.decide(t.Context())
						require.ErrorContains(t, err, "`eastwest down guest`", what)
						require.Equal(t, before, c, what)
					} else {
						require.ErrorContains(t, checkpointErr, path, what)
						require.Equal(t, whole, r, what)
					}
					require.Error(t, mayGo(home, whole.Name), "what puts somebody else's mesh back is never thrown away: %s", what)
					list, err := List(t.Context(), home)
					require.NoError(t, err, what)
					require.Len(t, list, 1, what)
					require.NotEqual(t, Running, list[0].State, what)
				}
			}
		})
	}
}

// TestPowerLossBeforeTheNewFileIsThere leaves every part of the file that was being written: the one before it counts, and the next
// write is whole.
func TestPowerLossBeforeTheNewFileIsThere(t *testing.T) {
	home := t.TempDir()
	r := guestRecord()
	require.NoError(t, r.write(home))
	data, err := os.ReadFile(recordFile(home, r.Name))
	require.NoError(t, err)
	for n := range data {
		require.NoError(t, os.WriteFile(recordFile(home, r.Name)+".new", data[:n], 0o644))
		seen, err := readRecord(home, r.Name)
		require.NoError(t, err)
		require.Equal(t, r, seen)
		r.Complete = !r.Complete
		require.NoError(t, r.write(home))
		seen, err = readRecord(home, r.Name)
		require.NoError(t, err)
		require.Equal(t, r, seen)
	}
}
