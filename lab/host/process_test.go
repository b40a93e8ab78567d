package host

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A component's own PATH replaces the usual one. Otherwise containerd would take the shim of this machine's Docker.
func TestACommandsOwnPathCounts(t *testing.T) {
	i, err := NewInit(t.TempDir())
	require.NoError(t, err)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	go i.Reap(t.Context(), ended)
	cat := Command{Name: "cat", Path: "/bin/cat", Args: []string{"/proc/self/environ", "/nonexistent"}, Env: []string{"PATH=/bundle"}}
	err = i.Run(t.Context(), cat, "")
	require.ErrorContains(t, err, "/nonexistent") // the error contains the output
	require.Contains(t, err.Error(), "PATH=/bundle")
	require.Equal(t, 1, strings.Count(err.Error(), "PATH="))
}
