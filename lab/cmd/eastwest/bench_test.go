package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bench"
)

func TestBenchUpTellsTheCPUSecondsOfPrograms(t *testing.T) {
	run := bench.Up{
		ReadySeconds: 5, VerifiedSeconds: 8, UpSeconds: 9, DownSeconds: 1, PeakMiB: 900, CPUSeconds: 20, CommandCPUSeconds: 2, DiskMiB: 100,
		Programs: map[string]float64{"etcd": 2.5, "kube-apiserver": 15, "pause": 0.03, "mount": 0.03, bench.Ended: 2.44},
		Steps:    []bench.Step{{Cluster: "cluster-a", Step: "usable", AtSeconds: 5}},
	}
	b := benchJSON{Runs: []bench.Up{run}, Median: bench.Median([]bench.Up{run})}
	var out strings.Builder
	require.NoError(t, printBench(&out, b))
	_, table, found := strings.Cut(out.String(), "\n\nCPU seconds by program when the lab was up, medians:\n")
	require.True(t, found, out.String())
	require.Equal(t, `  CPU s  SHARE  PROGRAM
   15.0    75%  kube-apiserver
    2.5    12%  etcd
    2.4    12%  (ended)
    0.1     0%  (others)
`, table)

	b.Median.Programs = nil // kind's nodes
	out.Reset()
	require.NoError(t, printBench(&out, b))
	require.NotContains(t, out.String(), "program")
}
