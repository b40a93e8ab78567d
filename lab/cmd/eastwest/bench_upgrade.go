package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// upgrades is what `bench upgrade --write` replaces in a document, and where scenarios are from there.
const (
	upgradeMark = "upgrades"
	upgradeLink = "../scenarios/%s/scenario.yaml"
)

// benchUpgradeJSON is what `bench upgrade -o json` prints; its names are stable.
type benchUpgradeJSON struct {
	Machine bench.Machine `json:"machine"`
	bench.Upgrades
}

func newBenchUpgradeCommand() *cobra.Command {
	var (
		runs, lanes int
		provider    = lab.Auto
		write       string
		timeout     timeoutFlag
		output      outputFormat
	)
	maker := choice{&provider, "provider", "who makes the clusters", makers()}
	cmd := &cobra.Command{
		Use:   "upgrade [NAME|FILE…]",
		Short: "Run upgrades of Istio, right ones and wrong ones, and tell which step loses how many calls",
		Long: `Bench upgrade runs scenarios that upgrade Istio on labs of its own, and removes these. Without a name it takes all whose names
begin with upgrade-, and all whose topology names a version of Istio: those show what a wrong order costs. It tells how long
the steps took, how many calls each stream made and lost, and in which state: from the end of the step before to the end of
the step. A call belongs to the state in which it started.

--write puts the tables into a document, between the lines "<!-- upgrades: begin -->" and "<!-- upgrades: end -->".

Leave the machine alone meanwhile. The exit code is 1 if a scenario failed.`,
		Example: `  eastwest bench upgrade
  eastwest bench upgrade upgrade-by-revision --runs 3
  eastwest bench upgrade --write docs/upgrades.md`,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if runs < 1 {
				return usagef("--runs %d: wanted at least 1", runs)
			}
			if err := maker.check(); err != nil {
				return usageError{err}
			}
			if lanes < 1 {
				return usagef("--lanes %d: wanted a number from 1", lanes)
			}
			if write != "" {
				if _, _, err := around(write, upgradeMark); err != nil { // before hours of work
					return err
				}
			}
			all, err := upgradeScenarios(args)
			if err != nil {
				return err
			}
			c, err := benchRunner(cmd, provider, lanes, all)
			if err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			return benchUpgrade(ctx, cmd, c, all, runs, output, write)
		},
	}
	maker.addTo(cmd)
	cmd.Flags().IntVar(&runs, "runs", 1, "how often each scenario runs")
	cmd.Flags().IntVar(&lanes, "lanes", 1, "how many labs are used side by side; more than one loses calls that a mesh alone does not")
	cmd.Flags().StringVar(&write, "write", "", "put the tables into this document, such as docs/upgrades.md")
	timeout.addTo(cmd, 3*time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

// upgradeScenarios loads those that are named, or all that are upgrades.
func upgradeScenarios(args []string) ([]*scenario.Scenario, error) {
	if len(args) > 0 {
		return loadScenarios(args)
	}
	names, err := scenarioNames()
	if err != nil {
		return nil, err
	}
	known, err := loadScenarios(names)
	if err != nil {
		return nil, err
	}
	var all []*scenario.Scenario
	for _, s := range known {
		if bench.IsUpgrade(s) {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, usagef("no scenario upgrades Istio: name some")
	}
	return all, nil
}

func benchUpgrade(
	ctx context.Context, cmd *cobra.Command, c catalogue.Runner, all []*scenario.Scenario, runs int, output outputFormat, write string,
) error {
	c.OnEnded = tellEndings(cmd.ErrOrStderr(), runs*len(all), func(e catalogue.Ending) string {
		if e.Timetable == nil {
			return ""
		}
		return ", " + e.Timetable.Says()
	})
	u, failure := bench.MeasureUpgrades(ctx, c, all, runs)
	if failure == nil {
		failure = context.Cause(ctx)
	}
	result := benchUpgradeJSON{Machine: bench.ThisMachine(), Upgrades: u}
	var printed error
	if output.json() {
		printed = printJSON(cmd.OutOrStdout(), result)
	} else {
		printed = printBenchUpgrade(cmd.OutOrStdout(), u)
	}
	if write != "" && failure == nil { // of all or of none
		failure = writeBetween(write, upgradeMark, u.Markdown(result.Machine, upgradeLink))
	}
	if err := errors.Join(printed, failure); err != nil {
		return err
	}
	results := make([]judged, len(u.Upgrades))
	for i, one := range u.Upgrades {
		results[i] = judged{one.Scenario, one.Result}
	}
	return judgeAll(results)
}

// printBenchUpgrade prints the table, and below it where calls were lost in each run, and of which stream.
func printBenchUpgrade(out io.Writer, u bench.Upgrades) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, row := range u.Rows() {
		line := strings.Join(row[:len(row)-1], "\t")
		if i == 0 {
			line = strings.ToUpper(line)
		}
		fmt.Fprintln(w, line)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, one := range u.Upgrades {
		for n, r := range one.Runs {
			fmt.Fprintf(out, "\n%s, run %d:\n", one.Scenario, n+1)
			for _, s := range r.Streams {
				fmt.Fprintf(out, "  %s: %d calls, %d lost, longest gap %.1f s\n", s.Stream, s.Calls, s.Lost, s.LongestGapSeconds)
			}
			for _, l := range r.Losses {
				fmt.Fprintf(out, "  lost in %s: %d of %s: %s\n", l.State, l.Lost, l.Stream, l.Because)
			}
			if r.Timetable == nil {
				fmt.Fprintf(out, "  there is no timetable: %s\n", r.Reason)
			}
		}
	}
	return nil
}
