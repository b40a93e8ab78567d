package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/scenarios"
)

// benchScenariosJSON is what `bench scenarios -o json` prints; its names are stable.
type benchScenariosJSON struct {
	Machine bench.Machine `json:"machine"`
	bench.Catalogue
	MedianSeconds float64 `json:"median_seconds"` // of the scenarios' medians
}

func newBenchScenariosCommand() *cobra.Command {
	var (
		runs, lanes int
		provider    = lab.Auto
		write       string
		timeout     timeoutFlag
		output      outputFormat
	)
	maker := choice{&provider, "provider", "who makes the clusters", makers()}
	cmd := &cobra.Command{
		Use:   "scenarios [NAME|FILE…]",
		Short: "Run scenarios, side by side, and tell how long each phase takes",
		Long: `Bench scenarios runs the whole catalogue, or the scenarios that are named, on labs of its own, and removes them. Scenarios of
one topology share a lab, and several labs run side by side where CPUs and memory allow: then each scenario takes longer and all
together less. Use --lanes 1 to learn what one takes, and leave the machine alone meanwhile.

--write keeps the seconds and the versions of the scenarios that passed in a file, and what it has of others.

The exit code is 1 if a scenario failed.`,
		Example: `  eastwest bench scenarios
  eastwest bench scenarios --lanes 1 --runs 3 --write scenarios/measured.json late-cacerts
  eastwest bench scenarios --provider kind --lanes 1 --write scenarios/measured-kind.json`,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if runs < 1 {
				return usagef("--runs %d: wanted at least 1", runs)
			}
			if err := maker.check(); err != nil {
				return usageError{err}
			}
			if lanes < 0 {
				return usagef("--lanes %d: wanted a number from 1, or 0 for as many as fit", lanes)
			}
			known, err := readMeasurements(write)
			if err != nil {
				return usageError{err}
			}
			if len(args) == 0 {
				if args, err = scenarioNames(); err != nil {
					return err
				}
			}
			all, err := loadScenarios(args)
			if err != nil {
				return err
			}
			c, err := benchRunner(cmd, provider, lanes, all)
			if err != nil {
				return err
			}
			c.Times = known.Times()
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			return benchScenarios(ctx, cmd, c, all, runs, output, func(b bench.Catalogue) error { return writeMeasurements(write, known, b) })
		},
	}
	maker.addTo(cmd)
	cmd.Flags().IntVar(&runs, "runs", 1, "how often each scenario runs")
	cmd.Flags().IntVar(&lanes, "lanes", 0, "how many labs are used side by side (default: as many as CPUs and memory allow)")
	cmd.Flags().StringVar(&write, "write", "", "keep seconds and versions of what passed in this file, such as scenarios/measured.json")
	timeout.addTo(cmd, 3*time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

// benchRunner returns what runs scenarios on labs of its own, once it is known that all of them can be made here and the bundle has what
// they need.
func benchRunner(cmd *cobra.Command, provider string, lanes int, all []*scenario.Scenario) (catalogue.Runner, error) {
	home, err := lab.Home()
	if err != nil {
		return catalogue.Runner{}, err
	}
	name := fmt.Sprintf("bench-%d", os.Getpid())
	for _, s := range all {
		if err := lab.Check(cmd.Context(), lab.Options{Home: home, Name: name, Provider: provider, Topology: s.Topology}); err != nil {
			return catalogue.Runner{}, wrongUnlessSetup(err)
		}
	}
	return catalogue.Runner{
		Home: home, Provider: provider, Prefix: name, Lanes: lanes,
		Folder: filepath.Join(home, "runs", time.Now().Format("20060102-150405.000")),
	}, ensureBundleForAll(cmd.Context(), cmd.ErrOrStderr(), all)
}

// makers lists auto and the providers that make clusters of their own.
func makers() []string { return append([]string{lab.Auto}, lab.Makers()...) }

func benchScenarios(
	ctx context.Context, cmd *cobra.Command, c catalogue.Runner, all []*scenario.Scenario, runs int, output outputFormat,
	keep func(bench.Catalogue) error,
) error {
	c.OnEnded = tellEndings(cmd.ErrOrStderr(), runs*len(all), func(catalogue.Ending) string { return "" })
	b, failure := bench.MeasureScenarios(ctx, c, all, runs)
	if failure == nil {
		failure = context.Cause(ctx)
	}
	result := benchScenariosJSON{Machine: bench.ThisMachine(), Catalogue: b, MedianSeconds: b.MedianSeconds()}
	var printed error
	if output.json() {
		printed = printJSON(cmd.OutOrStdout(), result)
	} else {
		printed = printBenchScenarios(cmd.OutOrStdout(), result)
	}
	if err := errors.Join(printed, failure, keep(b)); err != nil {
		return err
	}
	results := make([]judged, len(b.Scenarios))
	for i, s := range b.Scenarios {
		results[i] = judged{s.Scenario, s.Result}
	}
	return judgeAll(results)
}

// tellEndings returns what a catalogue.Runner calls for each of so many runs: it prints how the run ended, with what more says of it, and
// its story if it did not pass.
func tellEndings(out io.Writer, of int, more func(catalogue.Ending) string) func(catalogue.Ending) bool {
	ended := 0
	return func(e catalogue.Ending) bool {
		ended++
		what := fmt.Sprintf("%s, %.1f s%s", e.Verdict.Result, e.Verdict.Seconds, more(e))
		if e.Err != nil {
			what = e.Err.Error()
		}
		fmt.Fprintf(out, "%d of %d: %s on lab %s: %s\n", ended, of, e.Scenario.Name, e.Lab, what)
		if e.Verdict.Result.Bad() {
			fmt.Fprint(out, e.Story)
		}
		return true
	}
}

// judged is the worst result of a scenario's runs.
type judged struct {
	scenario string
	result   report.Result
}

// judgeAll returns the error of a benchmark whose scenarios ended so.
func judgeAll(results []judged) error {
	bad := 0
	for _, r := range results {
		switch r.result {
		case report.Errored:
			return fmt.Errorf("%s could not be carried out", r.scenario)
		case report.Failed:
			bad++
		}
	}
	if bad > 0 {
		return failed(fmt.Sprintf("%d of %d scenarios failed", bad, len(results)))
	}
	return nil
}

// readMeasurements reads those that the file has, or else the command's own.
func readMeasurements(file string) (catalogue.Measurements, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return catalogue.Measurements{}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("--write: %w", err)
		}
		return catalogue.ParseMeasurements(file, data)
	}
	return catalogue.ParseMeasurements("measured.json", scenarios.Measured)
}

func writeMeasurements(file string, known catalogue.Measurements, b bench.Catalogue) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.Into(known, time.Now()), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing measurements: %w", err)
	}
	return nil
}

func printBenchScenarios(out io.Writer, b benchScenariosJSON) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SCENARIO\tTOPOLOGY\tSECONDS\tBASELINE\tBREAK\tSYMPTOMS\tDIAGNOSE\tLATER\tWRONG FIXES\tRECOVER\tHEALTHY\tUNDO\tRESULT")
	for _, s := range b.Scenarios {
		m := s.Median
		fmt.Fprintf(w, "%s\t%s", s.Scenario, s.Topology)
		for _, seconds := range []float64{
			m.Seconds, m.BaselineSeconds, m.BreakSeconds, m.SymptomsSeconds, m.DiagnoseSeconds, m.LaterSeconds, m.WrongFixesSeconds,
			m.RecoverSeconds, m.HealthySeconds, m.UndoSeconds,
		} {
			fmt.Fprintf(w, "\t%s", figure("%.1f", seconds))
		}
		fmt.Fprintf(w, "\t%s\n", s.Result)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	runs := 0
	for _, s := range b.Scenarios {
		runs = max(runs, len(s.Runs))
	}
	fmt.Fprintf(out, "\n%d scenarios, %d runs of each, in %.1f s: %d lanes, %d labs\n", len(b.Scenarios), runs, b.WallSeconds, b.Lanes, b.Labs)
	if slowest, ok := b.Slowest(); ok {
		fmt.Fprintf(out, "median scenario %.1f s, slowest %s %.1f s\n", b.MedianSeconds, slowest.Scenario, slowest.Median.Seconds)
	}
	fmt.Fprintf(out, "Istio %s, Envoy %s, Kubernetes %s\n",
		dash(b.Versions["istioctl"]), dash(b.Versions["envoy"]), dash(b.Versions["kubernetes"]))
	_, err := fmt.Fprintf(out, "%d CPUs, %d MiB of memory, Linux %s\n", b.Machine.CPUs, b.Machine.MemoryMiB, b.Machine.Kernel)
	return err
}
