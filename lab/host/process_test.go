package host

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A component's own PATH is the only one that it has: containerd would take the shim of a Docker that this machine has.
func TestACommandsOwnPathCounts(t *testing.T) {
	i, err := NewInit(t.TempDir())
	require.NoError(t, err)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	go i.Reap(t.Context(), ended)
	err = i.Run(t.Context(), Command{Name: "cat", Path: "/bin/cat", Args: []string{"/proc/self/environ", "/nonexistent"}, Env: []string{"PATH=/bundle"}}, "")
	require.ErrorContains(t, err, "/nonexistent") // an error holds the output
	require.Contains(t, err.Error(), "PATH=/bundle")
	require.Equal(t, 1, strings.Count(err.Error(), "PATH="))
}
