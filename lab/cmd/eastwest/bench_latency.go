package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
)

// latencyJSON is what `bench latency -o json` prints; its names are stable.
type latencyJSON struct {
	Machine bench.Machine `json:"machine"`
	bench.Latency
}

// mostErrorsPercent is how many calls of a path may fail before its figures say nothing.
const mostErrorsPercent = 1

func newBenchLatencyCommand() *cobra.Command {
	var (
		name    string
		rate    int
		calls   int
		length  time.Duration
		timeout timeoutFlag
		output  outputFormat
	)
	cmd := &cobra.Command{
		Use:   "latency",
		Short: "Compare what a call takes without sidecars, with them, and through the east-west gateway",
		Long: `Bench latency calls the same echo app over three paths: from pod to pod without sidecars, in one cluster with sidecars,
and through the east-west gateway of another cluster; on connections that are reused and on fresh ones. All take turns
in one run, so what else the machine does hits all of them. Calls are made on schedule whatever becomes of earlier ones,
and one that is late counts from when it was due.

It makes a lab of its own and removes it, or measures the one that --name says and leaves it as it is, except for
a namespace with two pods without sidecars, which is removed. The exit code is 1 if more than 1 % of the calls of a path fail.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case rate < 1 || rate > bench.MostLatencyRate:
				return usagef("--rate %d: wanted 1 to %d calls per second", rate, bench.MostLatencyRate)
			case calls < 1:
				return usagef("--calls %d: wanted at least 1", calls)
			case cmd.Flags().Changed("for") && length <= 0:
				return usagef("--for %s: wanted more than nothing", length)
			case length > 0:
				calls = bench.LatencyCalls(rate, length)
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			result, err := benchLatency(ctx, cmd.ErrOrStderr(), name, bench.LatencyOptions{Rate: rate, Calls: calls})
			if err != nil {
				return err
			}
			if output.json() {
				err = printJSON(cmd.OutOrStdout(), result)
			} else {
				err = printLatency(cmd.OutOrStdout(), result)
			}
			if err != nil {
				return err
			}
			if path, percent := result.MostErrors(); percent > mostErrorsPercent {
				return failed(fmt.Sprintf("%d of %d calls over path %q on %s connections failed: wanted at most %d %%; the first: %s",
					path.Errors, path.Calls, path.Path, path.Connections, mostErrorsPercent, path.Error))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "measure this lab (default: one is made and removed)")
	_ = cmd.RegisterFlagCompletionFunc("name", completeLabs) // fails for a flag that does not exist only
	cmd.Flags().IntVar(&rate, "rate", 50, "measured calls per second, all paths together")
	cmd.Flags().IntVar(&calls, "calls", 500, "measured calls on each path over each kind of connection")
	cmd.Flags().DurationVar(&length, "for", 0, "measure for so long instead of a number of calls")
	cmd.MarkFlagsMutuallyExclusive("calls", "for")
	timeout.addTo(cmd, time.Hour, "how long everything may take, the bundle aside")
	output.addTo(cmd)
	return cmd
}

// measureOwn measures on a lab that is made for it and removed.
func measureOwn(ctx context.Context, home string, progress io.Writer, o bench.LatencyOptions) (bench.Latency, error) {
	own := lab.Options{
		Home: home, Name: fmt.Sprintf("bench-latency-%d", os.Getpid()), Provider: lab.Auto, Topology: lab.DefaultTopology(),
	}
	if err := lab.Check(ctx, own); err != nil {
		return bench.Latency{}, err
	}
	if err := ensureBundle(ctx, progress); err != nil {
		return bench.Latency{}, err
	}
	steps := newStepPrinter(progress, false)
	own.Progress = steps.show
	measured, err := bench.MeasureLatencyAnew(ctx, own, o)
	return measured, steps.end(err)
}

// benchLatency measures on the lab of that name, or on one of its own if the name is empty.
func benchLatency(ctx context.Context, progress io.Writer, name string, o bench.LatencyOptions) (_ latencyJSON, err error) {
	home, err := lab.Home()
	if err != nil {
		return latencyJSON{}, err
	}
	var start time.Time
	o.Progress = func(done, of int) {
		if start.IsZero() {
			start = time.Now()
		}
		fmt.Fprintf(progress, "%6.1f s  %d of %d calls\n", time.Since(start).Seconds(), done, of)
	}
	measure := measureOwn
	if name != "" {
		measure = func(ctx context.Context, home string, _ io.Writer, o bench.LatencyOptions) (bench.Latency, error) {
			l, err := lab.Open(home, name)
			if err != nil {
				return bench.Latency{}, err
			}
			defer l.Close()
			return bench.MeasureLatency(ctx, l, o)
		}
	}
	measured, err := measure(ctx, home, progress, o)
	if err != nil {
		return latencyJSON{}, wrongUnlessSetup(err)
	}
	return latencyJSON{bench.ThisMachine(), measured}, nil
}

func printLatency(w io.Writer, l latencyJSON) error {
	fmt.Fprintln(w, "| connections | path | proxies | network hops | TLS ends | p50 | p90 | p99 "+
		"| × p50 | × p90 | × p99 | p50 once begun | × | errors |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, p := range l.Paths {
		ratio, begun := "- | - | -", "-"
		if r := p.Ratio; r != nil {
			ratio = fmt.Sprintf("%.2f | %.2f | %.2f", r.P50, r.P90, r.P99)
		}
		if r := p.BegunRatio; r != nil {
			begun = fmt.Sprintf("%.2f", r.P50)
		}
		fmt.Fprintf(w, "| %s | %s | %d | %d | %s | %s | %s | %s | %s | %s | %s | %d |\n",
			p.Connections, p.Path, p.Proxies, p.NetworkHops, p.TLSEnds,
			milliseconds(p.P50Micros), milliseconds(p.P90Micros), milliseconds(p.P99Micros), ratio, milliseconds(p.Begun.P50Micros), begun, p.Errors)
	}
	fmt.Fprintf(w, "\n%d calls of each kind from %s to %s after %d that are not counted, %d a second in all, taking turns.\n",
		l.Calls, l.From, l.To, l.WarmUpCalls, l.RatePerSecond)
	fmt.Fprintf(w, "Orders were late by %s at p50 and %s at p99, which is in the figures; "+
		"each took %s at p50 and %s at p99 besides its call, which is not.\n",
		milliseconds(l.Late.P50Micros), milliseconds(l.Late.P99Micros), milliseconds(l.Unseen.P50Micros), milliseconds(l.Unseen.P99Micros))
	if c := l.Plain; c != nil {
		fmt.Fprintf(w, "Connections: the client without a sidecar opened %d for %d orders.\n", c.Opened, c.Orders)
	}
	for _, p := range l.Paths {
		if c := p.Counted; c != nil {
			gateway := ""
			if c.FromGateways != nil {
				gateway = fmt.Sprintf(", %d from the gateway", *c.FromGateways)
			}
			fmt.Fprintf(w, "Connections: %s, %s: %d from the sidecar%s, for %d requests; %d TLS handshakes, %d of them resumed.\n",
				p.Path, p.Connections, c.FromSidecar, gateway, c.Requests, c.Handshakes, c.Resumed)
		}
	}
	_, err := fmt.Fprintf(w, "%d CPUs, %d MiB of memory, Linux %s; load average %.1f over the last minute of it.\n",
		l.Machine.CPUs, l.Machine.MemoryMiB, l.Machine.Kernel, l.LoadAverage)
	return err
}

func milliseconds(micros float64) string { return fmt.Sprintf("%.2f ms", micros/1e3) }
