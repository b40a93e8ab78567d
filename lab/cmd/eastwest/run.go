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
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func newRunCommand() *cobra.Command {
	var (
		name, until, without, folder, junit string
		provider                            string
		keep, resume, undo, verbose, adopt  bool
		timeout                             timeoutFlag
		output                              outputFormat
	)
	cmd := &cobra.Command{
		Use:   "run NAME|FILE…",
		Short: "Run scenarios: break the mesh, show it, heal it, prove it",
		Long: `Run carries out scenarios one after another on a lab, by name (see eastwest scenarios) or by file. Every phase is
proven: health before, the symptoms, the diagnosis, that wrong fixes do not help, the recovery, health again. Faults are
undone whatever happens; the first Ctrl-C does so too.

With --until a scenario stops after a phase and leaves the mesh as it is then, to be entered by hand: run tells what to
look at. --resume goes on with the next phase, to the end or to another --until, and judges the traffic before and after
as one recording. --undo puts the mesh back as it was before, also after --keep and after a run that was killed; when
there is nothing to undo it says so and does nothing. Both mean the scenario that the lab was left by if none is named.

On a mesh that eastwest has not made (up --adopt), the plan of each scenario is shown, and it is carried out if --adopt
is said again and the scenario declares its blast-radius.

The exit code is 1 if a scenario failed. With --without recover that is what has to come out: a scenario without its
recovery fails in its health checks, or these do not see what the recovery heals.`,
		Example: `  eastwest run mismatched-root-ca
  eastwest run --until symptoms late-cacerts
  eastwest run --resume late-cacerts
  eastwest run --undo
  eastwest run --junit report.xml --report runs my-scenario.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if resume || undo {
				return cobra.MaximumNArgs(1)(cmd, args)
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			if phases := scenario.Phases(); until != "" && !slices.Contains(phases, scenario.Phase(until)) {
				return usagef("--until %s: wanted one of %s", until, joinPhases(phases))
			}
			if without != "" && without != string(scenario.Recover) {
				return usagef("--without %s: wanted %s, the one phase that can be left out", without, scenario.Recover)
			}
			home, err := lab.Home()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("name") && provider != "" {
				if name, err = lab.NameOf(home, name, provider); err != nil {
					return usageError{err}
				}
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			if undo {
				return undoRun(ctx, cmd.OutOrStdout(), home, name, args)
			}
			if resume {
				if args, err = leftScenario(home, name, args); err != nil {
					return err
				}
			}
			all, err := loadScenarios(args)
			if err != nil {
				return err
			}
			for _, s := range all {
				if without != "" && len(s.Recover) == 0 {
					return usagef("--without %s: scenario %s has no such phase", without, s.Name)
				}
			}
			if (keep || until != "") && len(all) > 1 {
				return usagef("--keep and --until leave the lab as the scenario made it: wanted one scenario, seen %d", len(all))
			}
			l, err := lab.Open(home, name)
			if err != nil {
				return err
			}
			if provider != "" && provider != l.Provider() {
				l.Close()
				return usagef("--provider %s: lab %s is of the provider %s", provider, name, l.Provider())
			}

			screen := cmd.OutOrStdout()
			if output.json() {
				screen = cmd.ErrOrStderr()
			}
			r := &runner{
				home: home, lab: l, screen: screen, progress: cmd.ErrOrStderr(), verbose: verbose, folder: folder,
				options: engine.RunOptions{Until: scenario.Phase(until), Keep: keep, Resume: resume, Adopt: adopt, Without: scenario.Phase(without)},
			}
			if folder == "" {
				r.folder = filepath.Join(home, "runs", time.Now().Format("20060102-150405.000"))
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
				err = errors.Join(err, r.tellLeft(cmd.ErrOrStderr(), all[len(all)-1]))
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
	cmd.Flags().BoolVar(&resume, "resume", false, "go on after the phase that --until has stopped after")
	cmd.Flags().BoolVar(&adopt, "adopt", false, "carry the scenarios out on a mesh that eastwest has not made; their plans are shown first")
	choice{&provider, "provider", "take the lab of this provider, where --name does not say which", slices.DeleteFunc(lab.Providers(), func(p string) bool { return p == lab.Auto })}.addTo(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "put the mesh back as it was before the scenario that left it changed")
	cmd.Flags().StringVar(&folder, "report", "", "keep the events and the evidence in this folder (default: a new one below "+lab.HomeEnv+")")
	cmd.Flags().StringVar(&junit, "junit", "", "write the verdicts to this file, for CI systems")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell the whole story: every step, its command, and what was seen")
	timeout.addTo(cmd, time.Hour, "how long everything may take")
	output.addTo(cmd)
	cmd.MarkFlagsMutuallyExclusive("resume", "keep")
	for _, other := range []string{"resume", "keep", "until", "without", "report", "junit", "output"} {
		cmd.MarkFlagsMutuallyExclusive("undo", other)
	}
	return cmd
}

// leftScenario returns the file of the scenario that the lab was left by, as arguments.
func leftScenario(home, name string, args []string) ([]string, error) {
	l, err := lab.Open(home, name)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	file, err := engine.Resumable(l, strings.Join(args, ""))
	return []string{file}, err
}

func undoRun(ctx context.Context, out io.Writer, home, name string, args []string) error {
	l, err := lab.Open(home, name)
	if err != nil {
		return err
	}
	defer l.Close()
	start := time.Now()
	undone, err := engine.Undo(ctx, l, strings.Join(args, ""))
	if err != nil {
		return err
	}
	if undone == "" {
		fmt.Fprintf(out, "lab %s is as it was: there is nothing to undo\n", name)
		return nil
	}
	fmt.Fprintf(out, "lab %s is as it was before scenario %s (%s)\n", name, undone, seconds(time.Since(start)))
	return nil
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
	options   engine.RunOptions
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
	if r.lab.Adopted() && !r.options.Resume {
		if err := engine.Explain(r.progress, s); err != nil {
			return false, err
		}
	}
	look := report.Detect(r.screen, os.Getenv)
	look.Verbose, look.Folder = r.verbose, folder.Dir()
	o := r.options
	o.Folder = folder
	o.Sink = report.Multi(folder, &r.recording, report.GitHub(r.screen, os.Getenv), report.Terminal(r.screen, look))
	verdict, err := engine.Run(ctx, r.lab, s, o)
	return !verdict.Result.Bad(), err
}

// tellLeft tells a person who enters the mesh that a scenario has left changed where to look and how to go on.
func (r *runner) tellLeft(w io.Writer, s *scenario.Scenario) error {
	flag := nameFlag(r.lab.Name)
	_, resumable := engine.Resumable(r.lab, "")
	if resumable == nil && r.options.Until != "" {
		fmt.Fprintf(w, "\nlab %s is as phase %s of %s left it\n", r.lab.Name, r.options.Until, s.Name)
	} else {
		fmt.Fprintf(w, "\nlab %s is as scenario %s left it\n", r.lab.Name, s.Name)
	}
	fmt.Fprintf(w, "\nlook around:\n  eval \"$(eastwest env%s)\"\n", flag)
	if err := engine.LookAround(w, s); err != nil {
		return err
	}
	fmt.Fprintln(w, "\ngo on:")
	if resumable == nil {
		fmt.Fprintf(w, "  eastwest run %s --resume%s\n", s.Name, flag)
	}
	fmt.Fprintf(w, "  eastwest run %s --undo%s\n", s.Name, flag)
	return nil
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
				return engine.ExplainTopology(cmd.OutOrStdout(), t)
			}
			loaded, err := loadScenarios(args)
			if err != nil {
				return err
			}
			return engine.Explain(cmd.OutOrStdout(), loaded[0])
		},
	}
	flags.addTo(cmd)
	return cmd
}
