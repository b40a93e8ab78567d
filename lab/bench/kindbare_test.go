package bench

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// testBareNode returns a node whose command is a shell script. The script may use the variable DIR, the node's folder.
func testBareNode(t *testing.T, script string) *bareNode {
	t.Helper()
	dir := t.TempDir()
	c := &bareNode{CLI: filepath.Join(dir, "kind"), Cluster: "cluster-a", Prepared: kind.Prepared{
		Name: "bench-1-cluster-a", Container: "bench-1-cluster-a-control-plane", Dir: dir, Image: "eastwest.local/kind/bench-1:cluster-a",
		Network: "eastwest-bench-1", Pods: netip.MustParsePrefix("10.201.16.0/21"), CNI: `{"subnet": "10.201.16.0/21"}`,
	}}
	require.NoError(t, os.WriteFile(c.CLI, []byte("#!/bin/sh\nDIR="+dir+"\n"+script+"\n"), 0o755))
	return c
}

func (c *bareNode) read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(c.path(file))
	require.NoError(t, err)
	return string(text)
}

func TestBareClusterHasTheLabsImageAndNetwork(t *testing.T) {
	c := testBareNode(t, "")
	require.NoError(t, c.write())
	var config v1alpha4.Cluster
	require.NoError(t, machine.ReadJSON(c.path(bareConfig), &config))
	require.Len(t, config.Nodes, 1)
	require.Equal(t, c.Prepared.Image, config.Nodes[0].Image, "its labels are the container's")
	conflist, err := os.ReadFile(config.Nodes[0].ExtraMounts[0].HostPath)
	require.NoError(t, err)
	require.Contains(t, string(conflist), config.Networking.PodSubnet)
}

func TestArgumentsOfKindsCommand(t *testing.T) {
	t.Setenv("KUBECONFIG", "the-user's")
	c := testBareNode(t, `echo "$*" >$DIR/args; echo $`+kind.NetworkEnv+` >$DIR/network`)
	require.NoError(t, c.delete(t.Context()))
	require.Equal(t, "delete cluster --name bench-1-cluster-a --kubeconfig "+c.path(bareKubeconfig)+"\n", c.read(t, "args"))
	require.Equal(t, "eastwest-bench-1\n", c.read(t, "network"))
	require.ErrorContains(t, testBareNode(t, "echo no such image >&2; exit 1").runKind(t.Context(), "create"), "no such image")
}

func TestKindsCommandEndsWithEverythingThatItHasStarted(t *testing.T) {
	c := testBareNode(t, "sleep 60 & echo $! >$DIR/child.new; mv $DIR/child.new $DIR/child; wait")
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.runKind(ctx, "create") }()
	var child int
	require.NoError(t, wait.Until(t.Context(), "the command to start", wait.Options{}, func(context.Context) error {
		text, err := os.ReadFile(c.path("child"))
		if err != nil {
			return err
		}
		child, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err
	}))
	start := time.Now()
	cancel(stop)
	require.ErrorIs(t, <-ended, stop)
	require.Less(t, time.Since(start), 4*time.Second)
	require.NoError(t, wait.Until(t.Context(), "its child to end", wait.Options{}, func(context.Context) error {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") { // a zombie has ended; nobody may reap it
			return errors.New("it runs")
		}
		return nil
	}))
}

func TestOnlyKindIsMeasuredBare(t *testing.T) {
	p := asBareKind((&kind.Settings{}).New(cluster.Lab{Home: t.TempDir()}))
	_, err := p.Open("bench-1", "cluster-a")
	require.EqualError(t, err, "lab bench-1 has no bare cluster cluster-a")
	other := (&embedded.Settings{}).New(cluster.Lab{})
	require.Same(t, other, asBareKind(other))
}
