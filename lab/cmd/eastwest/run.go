package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func newRunCommand() *cobra.Command {
	var (
		name, until, folder, junit string
		without                    string
		keep, verbose              bool
		timeout                    timeoutFlag
		output                     outputFormat
	)
	cmd := &cobra.Command{
		Use:   "run NAME|FILE…",
		Short: "Run scenarios: break the mesh, show it, heal it, prove it",
		Long: `Run carries out scenarios one after another on a lab, by name (see eastwest scenarios) or by file. Every phase is
proven: health before, the symptoms, the diagnosis, that wrong fixes do not help, the recovery, health again. Faults are
undone whatever happens; the first Ctrl-C does so too.

The exit code is 1 if a scenario failed. With --without recover that is what has to come out: a scenario without its
recovery fails in its health checks, or these do not see what the recovery heals.`,
		Example: `  eastwest run mismatched-root-ca
  eastwest run --verbose --until symptoms --keep late-cacerts
  eastwest run --junit report.xml --report runs my-scenario.yaml`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := loadScenarios(args)
			if err != nil {
				return err
			}
			if phases := scenario.Phases(); until != "" && !slices.Contains(phases, scenario.Phase(until)) {
				return usagef("--until %s: wanted one of %s", until, joinPhases(phases))
			}
			if without != "" && without != string(scenario.Recover) {
				return usagef("--without %s: wanted %s, the one phase that can be left out", without, scenario.Recover)
			}
			for _, s := range all {
				if without != "" && len(s.Recover) == 0 {
					return usagef("--without %s: scenario %s has no such phase", without, s.Name)
				}
			}
			if (keep || until != "") && len(all) > 1 {
				return usagef("--keep and --until leave the lab as the scenario made it: wanted one scenario, seen %d", len(all))
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			l, err := lab.Open(home, name)
			if err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()

			screen := cmd.OutOrStdout()
			if output.json() {
				screen = cmd.ErrOrStderr()
			}
			r := &runner{
				home: home, lab: l, screen: screen, progress: cmd.ErrOrStderr(), verbose: verbose, folder: folder,
				options: lab.RunOptions{Until: scenario.Phase(until), Keep: keep, Without: scenario.Phase(without)},
			}
			if folder == "" {
				r.folder = filepath.Join(home, "runs", time.Now().Format("20060102-150405"))
			}
			defer func() { r.lab.Close() }() // the one that it has at the end
			bad, err := r.runAll(ctx, all)
			if junit != "" {
				err = errors.Join(err, writeFile(junit, func(w io.Writer) error { return report.JUnit(w, r.recording.Events()) }))
			}
			if output.json() {
				err = errors.Join(err, report.JSON(cmd.OutOrStdout(), r.recording.Events()))
			}
			if now, look := lab.StatusOf(context.WithoutCancel(ctx), home, name); look == nil && now.State == lab.Changed {
				fmt.Fprintf(cmd.ErrOrStderr(), "lab %s is as the scenario left it: look around, then `eastwest up%s` makes it anew\n", name, nameFlag(name))
			}
			if err == nil && len(bad) > 0 {
				return failed(fmt.Sprintf("%d of %d scenarios failed: %s", len(bad), len(all), strings.Join(bad, ", ")))
			}
			return err
		},
	}
	addLabFlag(cmd, &name)
	cmd.Flags().StringVar(&until, "until", "", "stop after this phase: "+joinPhases(scenario.Phases()))
	_ = cmd.RegisterFlagCompletionFunc("until", cobra.FixedCompletions(strings.Split(joinPhases(scenario.Phases()), ", "), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&without, "without", "", "leave this phase out: recover, to see that the health checks fail without it")
	_ = cmd.RegisterFlagCompletionFunc("without", cobra.FixedCompletions([]string{string(scenario.Recover)}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the faults in place at the end, to look around")
	cmd.Flags().StringVar(&folder, "report", "", "keep the events and the evidence in this folder (default: a new one below "+lab.HomeEnv+")")
	cmd.Flags().StringVar(&junit, "junit", "", "write the verdicts to this file, for CI systems")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell the whole story: every step, its command, and what was seen")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	return cmd
}

func joinPhases(phases []scenario.Phase) string {
	words := make([]string, len(phases))
	for i, p := range phases {
		words[i] = string(p)
	}
	return strings.Join(words, ", ")
}

// runner runs scenarios on a lab, each with a run folder of its own.
type runner struct {
	home      string
	lab       *lab.Lab
	options   lab.RunOptions
	screen    io.Writer
	progress  io.Writer
	verbose   bool
	folder    string
	recording report.Recording
}

// runAll returns the names of the scenarios that did not hold. One that could not be carried out ends it.
func (r *runner) runAll(ctx context.Context, all []*scenario.Scenario) (bad []string, err error) {
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(r.screen)
			if err := r.renew(ctx); err != nil {
				return bad, err
			}
		}
		ok, err := r.run(ctx, s)
		if err != nil {
			return bad, err
		}
		if !ok {
			bad = append(bad, s.Name)
		}
	}
	return bad, nil
}

// renew makes the lab anew if the scenario before could not put it back.
func (r *runner) renew(ctx context.Context) error {
	now, err := lab.StatusOf(ctx, r.home, r.lab.Name)
	if err != nil || now.State == lab.Running {
		return err
	}
	fmt.Fprintf(r.progress, "lab %s is %s: making it anew\n", now.Name, now.State)
	steps := newStepPrinter(r.progress, false)
	made, err := lab.Up(ctx, lab.Options{Home: r.home, Name: now.Name, Provider: now.Provider, Topology: r.lab.Topology, Progress: steps.show})
	if err = steps.end(err); err != nil {
		return err
	}
	r.lab.Close()
	r.lab = made
	return nil
}

func (r *runner) run(ctx context.Context, s *scenario.Scenario) (ok bool, err error) {
	folder, err := report.NewFolder(filepath.Join(r.folder, s.Name))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	look := report.Detect(r.screen, os.Getenv)
	look.Verbose, look.Folder = r.verbose, folder.Dir()
	o := r.options
	o.Folder = folder
	o.Sink = report.Multi(folder, &r.recording, report.GitHub(r.screen, os.Getenv), report.Terminal(r.screen, look))
	verdict, err := r.lab.Run(ctx, s, o)
	return !verdict.Result.Bad(), err
}

func newExplainCommand() *cobra.Command {
	var flags topologyFlags
	cmd := &cobra.Command{
		Use:   "explain NAME|FILE | -f FILE | --topology KIND",
		Short: "Tell in plain words what a scenario does or how a topology is made, with the commands that do the same by hand",
		Long: `Explain prints the numbered plan of a scenario, or the numbered steps of making a lab with a topology of the lesson
(--topology) or of a file (-f). It touches no lab and needs none.`,
		Example: `  eastwest explain mismatched-root-ca
  eastwest explain --topology primary-remote --network shared`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !flags.given() {
				return cobra.ExactArgs(1)(cmd, args)
			}
			if len(args) > 0 {
				return fmt.Errorf("the scenario %s and flags of a topology: wanted one of the two", args[0])
			}
			return nil
		},
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.given() {
				t, err := flags.topology()
				if err != nil {
					return err
				}
				return lab.ExplainTopology(cmd.OutOrStdout(), t)
			}
			loaded, err := loadScenarios(args)
			if err != nil {
				return err
			}
			return lab.Explain(cmd.OutOrStdout(), loaded[0])
		},
	}
	flags.addTo(cmd)
	return cmd
}
