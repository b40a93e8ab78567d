package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
)

// providersJSON is what `bench providers -o json` prints; its names are stable.
type providersJSON struct {
	Machine  bench.Machine     `json:"machine"`
	Compared []bench.Providers `json:"compared"`
}

func newBenchProvidersCommand() *cobra.Command {
	var (
		runs    int
		timeout timeoutFlag
		output  outputFormat
	)
	cmd := &cobra.Command{
		Use:   "providers",
		Short: "Make the same with kind and embedded, and tell what each takes",
		Long: `Bench providers makes and removes two things, each with kind and embedded, one after another, --runs times, and prints a
Markdown table: the medians of both, and those of kind as multiples of those of embedded.

The first is one cluster without a mesh, until its node is Ready, its default ServiceAccount there and its DNS available: for
kind with kind's own command and defaults (kind create cluster --wait, kind delete cluster). The second is two primary clusters
on separate networks, until each was answered by the other, with eastwest's providers.

Memory is of the nodes' cgroups, pods included, sampled: of kind's from when it has made the node, of embedded from the
start. CPU seconds are of the same cgroups; Docker's own and the command's are not in them. Disk is the free space that was taken of
Docker's disk or the labs' until the lab was removed. The node image is loaded into Docker before, and stays there.

It needs Linux, root, Docker and the bundle's part for kind (eastwest bundle build --with kind). Leave the machine alone meanwhile.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runs < 1 {
				return usagef("--runs %d: wanted at least 1", runs)
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			name := fmt.Sprintf("bench-%d", os.Getpid())
			compared, failure := bench.MeasureProviders(ctx, home, name, runs, func(round int, what, provider string, b bench.Up) {
				fmt.Fprintf(cmd.ErrOrStderr(), "round %d of %d: %s by %s: usable after %.1f s, up after %.1f s, down in %.1f s, %.0f MiB\n",
					round+1, runs, what, provider, b.ReadySeconds, b.UpSeconds, b.DownSeconds, b.PeakMiB)
			})
			if len(compared) == 0 || len(compared[0].Kind.Runs) == 0 {
				return failure
			}
			result := providersJSON{Machine: bench.ThisMachine(), Compared: compared}
			if output.json() {
				return errors.Join(printJSON(cmd.OutOrStdout(), result), failure)
			}
			return errors.Join(printProviders(cmd.OutOrStdout(), result), failure)
		},
	}
	cmd.Flags().IntVar(&runs, "runs", 3, "how often each is made with each")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

func printProviders(out io.Writer, r providersJSON) error {
	fmt.Fprintln(out, "| | made by | runs | usable s | proven s | down s | peak MiB | CPU s | disk MiB |")
	fmt.Fprintln(out, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, c := range r.Compared {
		for _, row := range []struct {
			by     string
			runs   int
			median bench.Up
		}{{lab.Kind, len(c.Kind.Runs), c.Kind.Median}, {lab.Embedded, len(c.Embedded.Runs), c.Embedded.Median}} {
			m := row.median
			fmt.Fprintf(out, "| %s | %s | %d | %s | %s | %s | %s | %s | %s |\n", c.What, row.by, row.runs,
				figure("%.1f", m.ReadySeconds), figure("%.1f", m.VerifiedSeconds), figure("%.1f", m.DownSeconds),
				figure("%.0f", m.PeakMiB), figure("%.1f", m.CPUSeconds), figure("%.0f", m.DiskMiB))
		}
		m := c.Ratio
		fmt.Fprintf(out, "| %s | %s / %s | | %s | %s | %s | %s | %s | %s |\n", c.What, lab.Kind, lab.Embedded,
			figure("%.1f", m.ReadySeconds), figure("%.1f", m.VerifiedSeconds), figure("%.1f", m.DownSeconds),
			figure("%.1f", m.PeakMiB), figure("%.1f", m.CPUSeconds), figure("%.1f", m.DiskMiB))
	}
	_, err := fmt.Fprintf(out, "\n%d CPUs, %d MiB of memory, Linux %s\n", r.Machine.CPUs, r.Machine.MemoryMiB, r.Machine.Kernel)
	return err
}

// figure is a number, or a dash where there is none.
func figure(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}
