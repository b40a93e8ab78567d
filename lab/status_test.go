package lab

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatusTellsWhoWorksOnALab(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(labDir(home, "class"), 0o755))
	state := func() State {
		s, err := StatusOf(t.Context(), home, "class")
		require.NoError(t, err)
		return s.State
	}
	require.Equal(t, Incomplete, state(), "it has a folder and nothing else")
	unlock, err := lockLab(t.Context(), home, "class")
	require.NoError(t, err)
	require.Equal(t, Busy, state())
	unlock()
	require.Equal(t, Incomplete, state())
}
