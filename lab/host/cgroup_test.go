package host

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCgroupOfAContainer(t *testing.T) {
	for lines, want := range map[string]string{
		"9:name=systemd:/docker/abc/init.scope\n4:memory:/docker/abc/init.scope\n2:cpuacct:/docker/abc\n0::/docker/abc/init.scope\n": "docker/abc",
		"0::/system.slice/docker-abc.scope/init.scope\n": "system.slice/docker-abc.scope",
		"4:cpu,cpuacct:/\n0::/user.slice/docker/abc\n":   "user.slice/docker/abc",
	} {
		name, ok := cgroupCalled(lines, "abc")
		require.True(t, ok)
		require.Equal(t, want, name)
	}
	_, ok := cgroupCalled("0::/system.slice/docker-other.scope\n", "abc")
	require.False(t, ok)
}
