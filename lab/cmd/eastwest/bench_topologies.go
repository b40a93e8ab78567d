package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// topologiesJSON is what `bench topologies -o json` prints; its names are stable.
type topologiesJSON struct {
	Machine    bench.Machine    `json:"machine"`
	Topologies []bench.Topology `json:"topologies"`
}

func newBenchTopologiesCommand() *cobra.Command {
	var (
		wanted  []string
		away    = timeoutFlag(bench.DefaultAway)
		timeout timeoutFlag
		output  outputFormat
	)
	known := make([]string, len(bench.BenchedTopologies()))
	for i, kind := range bench.BenchedTopologies() {
		known[i] = string(kind)
	}
	cmd := &cobra.Command{
		Use:   "topologies",
		Short: "Take istiods, API servers and clusters away from each topology and tell what still works",
		Long: `Bench topologies makes a lab of each topology, on separate networks, and takes away one part after another: nothing, each
istiod (scaled to none), each API server (stopped), each whole cluster (every process frozen). While a part is away it calls from
each cluster to each, starts a new pod with a proxy in each and changes the configuration; then it lets the part back and waits
until all of that works again. It prints Markdown: the topologies beside what the lesson says of them, and their outages.

Calls are "lost/made" on reused connections · on fresh ones, with the longest gap of any direction where calls were lost; "not
made" are those that the calling pod could not carry out in time. Calls from a frozen cluster cannot be counted: n/a.

Objects are what a person who types the commands of "eastwest up --verbose" writes besides the apps: an IstioOperator per
istioctl install, a Secret per cacerts and per access to another API server, and the objects of the files given to kubectl apply.

The last column counts from the moment the part is let back; a new pod's own start is in it, see the row "nothing".
Leave the machine alone meanwhile.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, kind := range wanted {
				if !slices.Contains(known, kind) {
					return usagef("--topology %s: wanted one of %s", kind, strings.Join(known, ", "))
				}
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			options := func(kind string) lab.Options {
				return lab.Options{
					Home: home, Name: fmt.Sprintf("bench-%d", os.Getpid()), Provider: lab.Auto,
					Topology: scenario.Topology{Kind: scenario.Kind(kind), Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot},
				}
			}
			for _, kind := range wanted {
				if err := lab.Check(cmd.Context(), options(kind)); err != nil {
					return wrongUnlessSetup(err)
				}
			}
			if err := ensureBundle(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			result := topologiesJSON{Machine: bench.ThisMachine(), Topologies: []bench.Topology{}}
			for _, kind := range wanted {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: making a lab\n", kind)
				b, failure := bench.MeasureTopology(ctx, options(kind), time.Duration(away), func(text string) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", kind, text)
				})
				if failure == nil || len(b.Outages) > 0 {
					result.Topologies = append(result.Topologies, b)
				}
				if failure != nil {
					return errors.Join(printTopologies(cmd.OutOrStdout(), output, result), wrongUnlessSetup(failure))
				}
			}
			return printTopologies(cmd.OutOrStdout(), output, result)
		},
	}
	cmd.Flags().StringSliceVar(&wanted, "topology", known, "which: "+strings.Join(known, ", "))
	_ = cmd.RegisterFlagCompletionFunc("topology", cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().Var(&away, "away", "how long each part is kept away")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

// printTopologies prints whatever was measured, also before an error.
func printTopologies(out io.Writer, format outputFormat, r topologiesJSON) error {
	if format.json() {
		return printJSON(out, r)
	}
	if len(r.Topologies) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s\n%d CPUs, %d MiB of memory, Linux %s; each part away for %.0f s.\n",
		bench.TopologiesMarkdown(r.Topologies), r.Machine.CPUs, r.Machine.MemoryMiB, r.Machine.Kernel, r.Topologies[0].AwaySeconds)
	return err
}
