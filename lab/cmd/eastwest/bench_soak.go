package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
)

// soakMark is in the lines of a document between which `bench soak --write` puts its tables.
const soakMark = "soak"

func newBenchSoakCommand() *cobra.Command {
	var (
		runs, lanes int
		within      time.Duration
		seed        uint64
		file, write string
		provider    = lab.Embedded
	)
	maker := choice{&provider, "provider", "who makes the clusters", lab.Makers()}
	cmd := &cobra.Command{
		Use:   "soak [NAME|FILE…]",
		Short: "Run the catalogue again and again, in random order, and count what failed",
		Long: `Bench soak runs scenarios in rounds: each round has every scenario once, in an order of its own, on labs of its own. It writes
every run to a file as soon as it has ended, and goes on from there when it is called again with the file, however it was
stopped. It ends when the file has --runs runs, or when --for is over: it begins nothing new then.

A run that fails keeps its folder, which the file names. Nothing is tried again.

--runs 0 runs nothing and prints the tables of what is in the file. --write puts them into a document, between the lines
"<!-- soak: begin -->" and "<!-- soak: end -->".

The exit code is 1 if anything in the file failed.`,
		Example: `  eastwest bench soak --runs 60 --for 1h
  eastwest bench soak --runs 0 --write docs/reliability.md`,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if runs < 0 || lanes < 0 || within < 0 {
				return usagef("--runs %d --lanes %d --for %s: wanted none below 0", runs, lanes, within)
			}
			if err := maker.check(); err != nil {
				return usageError{err}
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			if file == "" {
				file = filepath.Join(home, "soak", provider+"-"+version+".jsonl")
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return fmt.Errorf("--file: %w", err)
			}
			soak, err := bench.OpenSoak(file, bench.SoakHead{Version: version, Provider: provider, Seed: seed, Machine: bench.ThisMachine()})
			if err != nil {
				return usageError{err}
			}
			if runs > soak.Runs() {
				if len(args) == 0 {
					if args, err = scenarioNames(); err != nil {
						return err
					}
				}
				all, err := loadScenarios(args)
				if err != nil {
					return err
				}
				if err := ensureBundleForAll(cmd.Context(), cmd.ErrOrStderr(), all); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "soak %s: seed %d, %d of %d runs are there\n", file, soak.Head.Seed, soak.Runs(), runs)
				c := catalogue.Runner{
					Home: home, Provider: provider, Prefix: "soak", Lanes: lanes, // what a sitting that was killed has left, the next one takes over
					Folder: filepath.Join(home, "runs", time.Now().Format("20060102-150405.000")),
				}
				told := func(e bench.SoakEntry, ending catalogue.Ending) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d: %s in round %d: %s, %.1f s\n", soak.Runs(), runs, e.Scenario, e.Round+1, e.Result, e.Seconds)
					if e.Result != report.Passed {
						fmt.Fprintln(cmd.ErrOrStderr(), ending.Story, e.Reason)
					}
				}
				if err := soak.Scenarios(cmd.Context(), c, all, runs, time.Now().Add(within), told); err != nil {
					return err
				}
			}
			tables := soak.Markdown()
			fmt.Fprint(cmd.OutOrStdout(), tables)
			if write != "" {
				if err := writeBetween(write, soakMark, tables); err != nil {
					return err
				}
			}
			if failures := len(soak.Bad()); failures > 0 {
				return failed(fmt.Sprintf("%d of %d failed", failures, len(soak.Entries)))
			}
			return nil
		},
	}
	maker.addTo(cmd)
	cmd.Flags().IntVar(&runs, "runs", 600, "how many runs the file has in the end")
	cmd.Flags().DurationVar(&within, "for", 2*time.Hour, "after which time no run begins")
	cmd.Flags().IntVar(&lanes, "lanes", 0, "how many labs are used side by side (default: as many as CPUs and memory allow)")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "of the order of the scenarios (default: that of the file, or a random one)")
	cmd.Flags().StringVar(&file, "file", "", "the file that the soak goes on in (default: one for the provider and this version)")
	cmd.Flags().StringVar(&write, "write", "", "put the tables into this document")
	return cmd
}

// writeBetween replaces what a document has between the two lines of a mark.
func writeBetween(document, mark, text string) error {
	before, after, err := around(document, mark)
	if err != nil {
		return err
	}
	if err := os.WriteFile(document, []byte(before+text+after), 0o644); err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	return nil
}

// around returns a document up to the first line of a mark and from its last line on, these lines included.
func around(document, mark string) (before, after string, err error) {
	data, err := os.ReadFile(document)
	if err != nil {
		return "", "", usageError{fmt.Errorf("--write: %w", err)}
	}
	begin, end := "<!-- "+mark+": begin -->\n", "<!-- "+mark+": end -->\n"
	before, rest, begins := strings.Cut(string(data), begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return "", "", usagef("--write %s: wanted the lines %q and %q, seen not both", document, begin, end)
	}
	return before + begin, end + after, nil
}
