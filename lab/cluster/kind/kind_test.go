package kind

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// Outputs of the docker command on real machines.
const (
	notRunning   = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
	noPermission = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: " +
		`Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": dial unix /var/run/docker.sock: connect: permission denied`
)

func TestDockerThatDoesNotAnswerIsExplained(t *testing.T) {
	for said, fix := range map[string]string{
		notRunning:   "scripts/docker-up",
		noPermission: "usermod -aG docker",
	} {
		state := unanswered(&host.CommandError{Command: []string{"docker"}, Said: said, Err: errors.New("exit status 1")})
		require.Contains(t, state.Fix, fix)
		require.ErrorContains(t, state.Problem, said)
		require.ErrorContains(t, state.Err(), fix)
	}
}

func TestDockerVersions(t *testing.T) {
	data, err := os.ReadFile("testdata/docker-version.json")
	require.NoError(t, err)
	with := func(api string) error {
		return suits(strings.ReplaceAll(string(data), `"ApiVersion":"1.41"`, `"ApiVersion":"`+api+`"`)).Err()
	}
	require.NoError(t, with("1.41"))
	require.NoError(t, with("1.100"))
	require.NoError(t, with("2.0"))
	require.ErrorContains(t, with("1.40"), "too old: install 20.10 or newer")
	require.ErrorContains(t, with("1.9"), "too old")
	require.ErrorContains(t, with(""), "too old")
	require.ErrorContains(t, suits(`{"Client":{"Version":"28.2.2"},"Server":null}`).Err(), "does not run")
	require.ErrorContains(t, suits("no JSON").Err(), "reading the output")
}

func TestDockersWhoseContainersAreNotReached(t *testing.T) {
	apart := "name=seccomp,profile=default"
	require.NoError(t, engine{OperatingSystem: "Debian GNU/Linux 12 (bookworm)", SecurityOptions: []string{apart}}.reachable())
	require.ErrorContains(t, engine{OperatingSystem: "Docker Desktop"}.reachable(), "use a Docker Engine that runs on this machine as root")
	require.ErrorContains(t, engine{SecurityOptions: []string{apart, "name=rootless"}}.reachable(), "Docker without root")
}

func TestRangesOfDockerNetworks(t *testing.T) {
	data, err := os.ReadFile("testdata/docker-networks.json")
	require.NoError(t, err)
	var all []network
	require.NoError(t, json.Unmarshal(data, &all))
	require.Equal(t, "the Docker network eastwest-demo (10.201.0.0/20)", overlaps(all, netip.MustParsePrefix("10.201.0.0/16")))
	require.Empty(t, overlaps(all, netip.MustParsePrefix("10.202.0.0/16")))
	n := node{Place: machine.Place{Spec: cluster.Spec{Lab: "demo"}}, ID: "7c1f"}
	for i, ours := range []bool{false, false, false, true} {
		require.Equal(t, ours, n.owns(all[i].Labels), all[i].Name)
	}
	n.ID = "another"
	require.False(t, n.owns(all[3].Labels))
}

func TestSettings(t *testing.T) {
	s := Settings{Images: cluster.Images{Hub: "docker.io/istio", Tag: "1.31.0"}}
	require.NoError(t, s.Complete())
	require.True(t, s.Egress, "nodes pull the images")
	s = Settings{Settings: machine.Settings{Range: "10.0.0.0/8"}, Images: cluster.Images{Tag: "1.31.0"}}
	err := s.Complete()
	require.ErrorContains(t, err, `--range: the lab's range "10.0.0.0/8": wanted a private IPv4 /16`)
	require.ErrorContains(t, err, "--tag 1.31.0: wanted --hub with it")
}

// A killed process leaves nodes that Docker may still be making; Delete waits for those alone.
func TestUnfinishedNodes(t *testing.T) {
	p := &Provider{Lab: cluster.Lab{Home: t.TempDir()}}
	for _, name := range []string{"cluster-a", "cluster-b"} {
		require.NoError(t, os.MkdirAll(Dir(p.Home, "demo", name), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(Dir(p.Home, "demo", "cluster-a"), finished), nil, 0o644))
	names, looks, err := p.unfinished("demo")
	require.NoError(t, err)
	require.Equal(t, []string{"demo-cluster-b-control-plane"}, names)
	require.Greater(t, looks, 1)
	_, err = p.Open("demo", "cluster-a")
	require.ErrorContains(t, err, "lab demo has no cluster cluster-a")
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
