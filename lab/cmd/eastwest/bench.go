package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
)

// benchJSON is what `bench up -o json` prints; its names are stable.
type benchJSON struct {
	Machine bench.Machine `json:"machine"`
	Runs    []bench.Up    `json:"runs"`
	Median  bench.Up      `json:"median"`
}

func newBenchCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "bench",
		Short: "Measure where the seconds and the memory go",
	})
	cmd.AddCommand(newBenchUpCommand())
	cmd.AddCommand(newBenchTopologiesCommand())
	cmd.AddCommand(newBenchClustersCommand())
	cmd.AddCommand(newBenchProvidersCommand())
	cmd.AddCommand(newBenchLatencyCommand())
	cmd.AddCommand(newBenchScenariosCommand())
	cmd.AddCommand(newBenchSoakCommand())
	cmd.AddCommand(newBenchUpgradeCommand())
	return cmd
}

func newBenchUpCommand() *cobra.Command {
	var (
		flags   labFlags
		runs    int
		timeout timeoutFlag
		output  outputFormat
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make and remove labs and tell the median",
		Long: `Bench up makes a lab of its own, removes it, and does so again: seconds until the clusters are usable and until calls
between them are proven, memory, CPU seconds in all and by program, disk, and when each step ended. Leave the machine
alone meanwhile.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runs < 1 {
				return usagef("--runs %d: wanted at least 1", runs)
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			o, err := flags.options(home, fmt.Sprintf("bench-%d", os.Getpid()))
			if err != nil {
				return err
			}
			if slices.Contains(lab.Providers(), o.Provider) && !slices.Contains(makers(), o.Provider) {
				return usagef("--provider %s: wanted clusters of the lab's own, whose memory and CPU seconds can be told", o.Provider)
			}
			if err := lab.Check(cmd.Context(), o); err != nil {
				return wrongUnlessSetup(err)
			}
			if err := ensureBundleFor(cmd.Context(), cmd.ErrOrStderr(), o); err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			result := benchJSON{Machine: bench.ThisMachine()}
			for i := range runs {
				run, err := bench.MeasureUp(ctx, o)
				if err != nil {
					return wrongUnlessSetup(err)
				}
				result.Runs = append(result.Runs, run)
				fmt.Fprintf(cmd.ErrOrStderr(), "run %d of %d: usable after %.1f s, up after %.1f s, down in %.1f s\n",
					i+1, runs, run.ReadySeconds, run.UpSeconds, run.DownSeconds)
			}
			result.Median = bench.Median(result.Runs)
			if output.json() {
				return printJSON(cmd.OutOrStdout(), result)
			}
			return printBench(cmd.OutOrStdout(), result)
		},
	}
	flags.addTo(cmd, makers())
	cmd.Flags().IntVar(&runs, "runs", 1, "how many labs are made, one after another")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

func printBench(out io.Writer, b benchJSON) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "RUN\tREADY s\tVERIFIED s\tUP s\tDOWN s\tPEAK MiB\tLAB CPU s\tCOMMAND CPU s\tDISK MiB\t")
	row := func(name string, r bench.Up) {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.1f\t%.1f\t%.0f\t\n", name,
			r.ReadySeconds, r.VerifiedSeconds, r.UpSeconds, r.DownSeconds, r.PeakMiB, r.CPUSeconds, r.CommandCPUSeconds, r.DiskMiB)
	}
	for i, r := range b.Runs {
		row(fmt.Sprint(i+1), r)
	}
	row("median", b.Median)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d CPUs, %d MiB of memory, Linux %s\n", b.Machine.CPUs, b.Machine.MemoryMiB, b.Machine.Kernel)

	last := b.Runs[len(b.Runs)-1]
	steps := slices.Clone(last.Steps)
	slices.SortStableFunc(steps, func(a, b bench.Step) int { return int((a.AtSeconds - b.AtSeconds) * 1e6) })
	fmt.Fprintf(out, "\nThe steps of run %d:\n", len(b.Runs))
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDED s\tTOOK s\tCLUSTER\tSTEP")
	for _, s := range steps {
		fmt.Fprintf(w, "%.1f\t%s\t%s\t%s\n", s.AtSeconds, figure("%.1f", s.Seconds), dash(s.Cluster), s.Step)
	}
	if err := w.Flush(); err != nil || len(b.Median.Programs) == 0 {
		return err
	}
	fmt.Fprint(out, "\nCPU seconds by program when the lab was up, medians:\n")
	return printPrograms(out, b.Median.Programs)
}

// leastSeconds is what a program must have used for a row of its own.
const leastSeconds = 0.05

// printPrograms prints the programs that have used most first, and all that have used next to nothing as one.
func printPrograms(out io.Writer, programs map[string]float64) error {
	names := slices.SortedFunc(maps.Keys(programs), func(a, b string) int {
		return cmp.Or(cmp.Compare(programs[b], programs[a]), cmp.Compare(a, b))
	})
	sum, others := 0.0, 0.0
	for _, used := range programs {
		sum += used
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "CPU s\tSHARE\t  PROGRAM")
	row := func(name string, used float64) {
		fmt.Fprintf(w, "%.1f\t%.0f%%\t  %s\n", used, 100*used/max(sum, leastSeconds), name)
	}
	for _, name := range names {
		if programs[name] < leastSeconds {
			others += programs[name]
			continue
		}
		row(name, programs[name])
	}
	if others >= leastSeconds {
		row("(others)", others)
	}
	return w.Flush()
}
