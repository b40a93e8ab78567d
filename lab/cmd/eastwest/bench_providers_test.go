package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bench"
)

func TestProvidersTableHasARowForEachAndTheirRatio(t *testing.T) {
	var out strings.Builder
	require.NoError(t, printProviders(&out, providersJSON{Compared: []bench.Providers{{
		What: bench.BareCluster,
		Kind: bench.Runs{
			Runs:   make([]bench.Up, 2),
			Median: bench.Up{ReadySeconds: 30, DownSeconds: 2, PeakMiB: 900, CPUSeconds: 40, DiskMiB: 1000},
		},
		Embedded: bench.Runs{Runs: make([]bench.Up, 2), Median: bench.Up{ReadySeconds: 5, DownSeconds: 0.5, PeakMiB: 400, CPUSeconds: 4}},
		Ratio:    bench.Up{ReadySeconds: 6, DownSeconds: 4, PeakMiB: 2.25, CPUSeconds: 10},
	}}}))
	require.Contains(t, out.String(), `| one cluster | kind | 2 | 30.0 | - | 2.0 | 900 | 40.0 | 1000 |
| one cluster | embedded | 2 | 5.0 | - | 0.5 | 400 | 4.0 | - |
| one cluster | kind / embedded | | 6.0 | - | 4.0 | 2.2 | 10.0 | - |
`)
}
