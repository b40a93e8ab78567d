package kind

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
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

func bareNode(t *testing.T) node {
	t.Helper()
	return node{
		Place: machine.Place{Spec: cluster.Spec{Lab: "bench-1", Name: "cluster-a", Index: 1}, Range: netip.MustParsePrefix("10.201.0.0/16")},
		Dir:   t.TempDir(),
	}
}

// command writes a program that stands for kind's own.
func command(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kind")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return file
}

func TestBareClusterHasTheLabsImageAndNetwork(t *testing.T) {
	n := bareNode(t)
	require.NoError(t, n.writeBare())
	var config v1alpha4.Cluster
	require.NoError(t, machine.ReadJSON(n.path(kindConfig), &config))
	require.Len(t, config.Nodes, 1)
	require.Equal(t, n.imageName(), config.Nodes[0].Image, "its labels are the container's")
	conflist, err := os.ReadFile(config.Nodes[0].ExtraMounts[0].HostPath)
	require.NoError(t, err)
	require.Contains(t, string(conflist), config.Networking.PodSubnet)
}

func TestKindsCommandIsTold(t *testing.T) {
	n := bareNode(t)
	t.Setenv("KUBECONFIG", "the-user's")
	require.NoError(t, n.runKind(t.Context(), command(t, `echo "$*" >`+n.path("args")+`; echo $`+networkEnv+` >`+n.path("network")), "delete"))
	args, err := os.ReadFile(n.path("args"))
	require.NoError(t, err)
	require.Equal(t, "delete cluster --name bench-1-cluster-a --kubeconfig "+n.path(kubeconfig)+"\n", string(args))
	network, err := os.ReadFile(n.path("network"))
	require.NoError(t, err)
	require.Equal(t, "eastwest-bench-1\n", string(network))
	require.ErrorContains(t, n.runKind(t.Context(), command(t, "echo no such image >&2; exit 1"), "create"), "no such image")
}

func TestKindsCommandEndsWithWhatItHasStarted(t *testing.T) {
	n := bareNode(t)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	cli := command(t, "sleep 60 & echo $! >"+n.path("child")+".new; mv "+n.path("child")+".new "+n.path("child")+"; wait")
	go func() { ended <- n.runKind(ctx, cli, "create") }()
	var child int
	require.NoError(t, wait.Until(t.Context(), "the command to start", wait.Options{}, func(context.Context) error {
		text, err := os.ReadFile(n.path("child"))
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
		if err == nil && !strings.Contains(string(stat), ") Z ") { // nobody may collect it
			return errors.New("it runs")
		}
		return nil
	}))
}

func TestBareClusterIsOpenedOnceItIsMade(t *testing.T) {
	p := Bare{&Provider{Home: t.TempDir()}}
	_, err := p.Open("bench-1", "cluster-a")
	require.ErrorContains(t, err, "lab bench-1 has no bare cluster cluster-a")
}
