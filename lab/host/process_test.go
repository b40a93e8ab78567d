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

func TestProcessesKnowTheirPod(t *testing.T) {
	const uid = "0a1b2c3d-0000-4000-8000-0123456789ab"
	under := strings.ReplaceAll(uid, "-", "_")
	for lines, want := range map[string]string{
		"4:memory:/kubepods/burstable/pod" + uid + "/c0ffee\n":                                         uid,
		"2:cpu:/\n0::/kubepods/besteffort/pod" + uid + "/c0ffee/more\n":                                uid,
		"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under + ".slice/cri-1.scope": uid,
		"0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/c0ffee":                            "", // a static pod
		"0::/supervisor\n": "",
	} {
		got, ok := podOf(lines)
		require.Equal(t, want, got, lines)
		require.Equal(t, want != "", ok, lines)
	}
	for _, p := range PodProcesses() {
		require.NotEqual(t, os.Getpid(), p.PID, "this is no pod")
	}
}
