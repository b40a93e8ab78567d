package kind

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// What the docker command said on real machines.
const (
	notRunning   = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
	noPermission = `permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": dial unix /var/run/docker.sock: connect: permission denied`
)

func TestDockerThatDoesNotAnswerIsExplained(t *testing.T) {
	for said, words := range map[string]string{
		notRunning:   "scripts/docker-up",
		noPermission: "usermod -aG docker",
	} {
		err := unanswered(&host.CommandError{Command: []string{"docker"}, Said: said, Err: errors.New("exit status 1")})
		require.ErrorContains(t, err, words)
		require.ErrorContains(t, err, said)
	}
}

func TestDockerVersions(t *testing.T) {
	data, err := os.ReadFile("testdata/docker-version.json")
	require.NoError(t, err)
	text := string(data)
	require.NoError(t, suits(text))
	require.ErrorContains(t, suits(strings.ReplaceAll(text, `"ApiVersion":"1.41"`, `"ApiVersion":"1.40"`)), "too old: wanted 20.10 or newer")
	require.ErrorContains(t, suits(`{"Client":{"Version":"28.2.2"},"Server":null}`), "does not run")
	require.True(t, older("1.9", "1.41"))
	require.False(t, older("2.0", "1.41"))
	require.False(t, older("1.41", "1.41"))
}

func TestDockersWhoseContainersAreNotReached(t *testing.T) {
	require.NoError(
		t,
		engine{OperatingSystem: "Debian GNU/Linux 12 (bookworm)", SecurityOptions: []string{"name=seccomp,profile=default"}}.reachable(),
	)
	require.ErrorContains(t, engine{OperatingSystem: "Docker Desktop"}.reachable(), "use a Docker Engine that runs on this machine as root")
	require.ErrorContains(
		t,
		engine{SecurityOptions: []string{"name=seccomp,profile=default", "name=rootless"}}.reachable(),
		"Docker without root",
	)
}

func TestRangesOfDockerNetworks(t *testing.T) {
	lines := "bridge 172.17.0.0/16\nhost\nkind 172.18.0.0/16 fc00:f853:ccd:e793::/64\neastwest-demo 10.201.0.0/20"
	require.Equal(t, "the Docker network eastwest-demo (10.201.0.0/20)", overlaps(lines, netip.MustParsePrefix("10.201.0.0/16")))
	require.Empty(t, overlaps(lines, netip.MustParsePrefix("10.202.0.0/16")))
}

// A node's name is a host name, and every cluster on this Docker has another.
func TestNamesFit(t *testing.T) {
	require.Equal(t, "eastwest-cluster-a", kindName("eastwest", "cluster-a"))
	long := strings.Repeat("x", 40)
	seen := map[string]bool{}
	for _, of := range []string{"cluster-a", "cluster-b", "a-rather-long-name"} {
		n := node{Place: machine.Place{Spec: cluster.Spec{Lab: long, Name: of}}}
		require.LessOrEqual(t, len(n.kindName()), nameMax)
		require.LessOrEqual(t, len(n.container()), 64)
		require.False(t, seen[n.container()])
		seen[n.container()] = true
	}
}

func TestEnvironmentIsFreeOnceKindHasReadIt(t *testing.T) {
	var steps []string
	free := 0
	w := &watcher{tell: func(step string) { steps = append(steps, step) }}
	w.onceStarted(func() { free++ })
	w.V(0).Infof(" • %s  ...\n", "Ensuring node image (kindest/node:v1.36.1) 🖼️")
	require.Zero(t, free)
	w.V(0).Infof(" • %s  ...\n", "Preparing nodes 📦 ")
	require.Equal(t, 1, free)
	w.V(0).Infof(" ✓ %s\n", "Preparing nodes 📦 ")
	w.V(1).Infof(" • %s  ...\n", "Preparing nodes 📦 ")
	w.started()
	require.Equal(t, 1, free)
	require.Equal(t, []string{"ensuring node image (kindest/node:v1.36.1)", "preparing nodes"}, steps)
}
