package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// mostClusters is what `bench clusters` goes up to without a word about it.
const mostClusters = 5

// clustersJSON is what `bench clusters -o json` prints; its names are stable.
type clustersJSON struct {
	Machine bench.Machine `json:"machine"`
	Labs    []clustersOf  `json:"labs"`
	Stopped string        `json:"stopped,omitempty"` // why it did not go on
}

type clustersOf struct {
	Clusters int `json:"clusters"`
	bench.Up
}

func newBenchClustersCommand() *cobra.Command {
	var (
		most    int
		timeout timeoutFlag
		output  outputFormat
	)
	cmd := &cobra.Command{
		Use:   "clusters",
		Short: "Make meshes of one cluster, of two, and so on, and tell what each one more costs",
		Long: `Bench clusters makes and removes a lab of one primary cluster, then of two, and so on, each cluster on a network of its
own, and prints a Markdown table: seconds until the clusters are usable and until calls between all of them are proven,
the peak of memory, and what the last cluster added. It stops where a lab can no longer be made, and says why.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 1 || most > scenario.MostClusters {
				return usagef("--most %d: wanted 1 to %d", most, scenario.MostClusters)
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			if err := ensureBundle(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			result := clustersJSON{Machine: bench.ThisMachine()}
			for n := 1; n <= most; n++ {
				o := lab.Options{Home: home, Name: fmt.Sprintf("bench-%d", os.Getpid()), Provider: lab.Auto, Topology: scenario.Primaries(n)}
				run, err := bench.MeasureUp(ctx, o)
				if ctx.Err() != nil {
					return err
				}
				if err != nil {
					if n == 1 {
						return wrongUnlessSetup(err)
					}
					result.Stopped = fmt.Sprintf("%d clusters: %v", n, err)
					break
				}
				result.Labs = append(result.Labs, clustersOf{n, run})
				fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d: usable after %.1f s, proven after %.1f s, %.0f MiB\n",
					n, most, run.ReadySeconds, run.VerifiedSeconds, run.PeakMiB)
			}
			if output.json() {
				return printJSON(cmd.OutOrStdout(), result)
			}
			return printClusters(cmd.OutOrStdout(), result)
		},
	}
	cmd.Flags().IntVar(&most, "most", mostClusters, "how many clusters the last lab has")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

func printClusters(out io.Writer, r clustersJSON) error {
	fmt.Fprintln(out, "| clusters | usable s | proven s | peak MiB | lab CPU s | + proven s | + MiB |")
	fmt.Fprintln(out, "|---:|---:|---:|---:|---:|---:|---:|")
	var before bench.Up
	for _, l := range r.Labs {
		fmt.Fprintf(out, "| %d | %.1f | %.1f | %.0f | %.1f | %.1f | %.0f |\n",
			l.Clusters, l.ReadySeconds, l.VerifiedSeconds, l.PeakMiB, l.CPUSeconds,
			l.VerifiedSeconds-before.VerifiedSeconds, l.PeakMiB-before.PeakMiB)
		before = l.Up
	}
	_, err := fmt.Fprintf(out, "\n%d CPUs, %d MiB of memory, Linux %s\n", r.Machine.CPUs, r.Machine.MemoryMiB, r.Machine.Kernel)
	if r.Stopped != "" {
		_, err = fmt.Fprintf(out, "\nIt stopped at %s\n", r.Stopped)
	}
	return err
}
