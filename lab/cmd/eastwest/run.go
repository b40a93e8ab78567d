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
	"github.com/eastwest-lab/eastwest/lab/words"
)

// runFlags are the flags of `eastwest run`.
type runFlags struct {
	name, provider            string
	until, without            string
	keep, resume, undo, adopt bool
	folder, junit, html       string
	verbose                   bool
	timeout                   timeoutFlag
	output                    outputFormat
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run NAME|FILE…",
		Short: "Run scenarios: break the mesh, show it, heal it, prove it",
		Long: `Run carries out scenarios one after another on a lab, by name (see eastwest scenarios) or by file. Every phase is
proven: health before, the symptoms, the diagnosis, that wrong fixes do not help, the recovery, health again. Faults are
undone whatever happens; the first Ctrl-C does so too.

With --until a scenario stops after a phase and leaves the mesh as it is then, for you to look around: run prints where to
look, and eastwest hint helps. --resume goes on with the next phase, to the end or to another --until, and judges the
traffic before and after as one recording. --undo puts the mesh back as it was before, also after --keep and after a run
that was killed; when there is nothing to undo it says so and does nothing. Without a name both mean the scenario that
left the lab changed.

On a mesh that eastwest has not made (up --adopt), run shows the plan of each scenario. It carries the plan out only with
--adopt, and only if the scenario declares its blast-radius.

The exit code is 1 if a scenario failed. With --without recover a scenario has to fail: it fails in its health checks, or
these do not see what the recovery heals.`,
		Example: `  eastwest run mismatched-root-ca
  eastwest run --until symptoms late-cacerts
  eastwest run --resume late-cacerts
  eastwest run --undo
  eastwest run --junit report.xml --report runs my-scenario.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.resume || f.undo {
				return takes(0, 1, "NAME or FILE")(cmd, args)
			}
			return takes(1, anyNumber, "NAME or FILE")(cmd, args)
		},
		ValidArgsFunction: completeScenarios,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.addTo(cmd)
	return cmd
}

func (f *runFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	addLabFlag(cmd, &f.name)
	for _, c := range f.choices() {
		c.addTo(cmd)
	}
	flags.BoolVar(&f.keep, "keep", false, "leave the faults in place at the end, to look around")
	flags.BoolVar(&f.resume, "resume", false, "go on after the phase that --until has stopped after")
	flags.BoolVar(&f.adopt, "adopt", false, "carry the scenarios out on a mesh that eastwest has not made; their plans are shown first")
	flags.BoolVar(&f.undo, "undo", false, "put the mesh back as it was before the scenario that left it changed")
	flags.StringVar(&f.folder, "report", "", "keep the events and the evidence in this folder (default: a new one below "+lab.HomeEnv+")")
	flags.StringVar(&f.junit, "junit", "", "write the verdicts to this file, for CI systems")
	flags.StringVar(&f.html, "html", "", "write the run as a page to this file, also if it fails; of several scenarios a grid")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show the whole story: every step, its command, and what was seen")
	f.timeout.addTo(cmd, time.Hour, "how long everything may take")
	f.output.addTo(cmd)
	cmd.MarkFlagsMutuallyExclusive("resume", "keep")
	for _, other := range []string{"resume", "keep", "until", "without", "report", "junit", "html", "output"} {
		cmd.MarkFlagsMutuallyExclusive("undo", other)
	}
}

func (f *runFlags) choices() []choice {
	made := slices.DeleteFunc(lab.Providers(), func(p string) bool { return p == lab.Auto })
	return []choice{
		{&f.until, "until", "stop after this phase", asStrings(scenario.Phases())},
		{&f.without, "without", "leave this phase out, to see that the health checks fail without it", []string{string(scenario.Recover)}},
		{&f.provider, "provider", "take the lab of this provider, where --name does not say which", made},
	}
}

// check returns what is wrong with the flags alone.
func (f *runFlags) check() error {
	var errs []error
	for _, c := range f.choices() {
		if *c.value != "" {
			errs = append(errs, c.check())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	home, err := lab.Home()
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("name") && f.provider != "" {
		if f.name, err = lab.NameOf(home, f.name, f.provider); err != nil {
			return usageError{err}
		}
	}
	ctx, cancel := f.timeout.bound(cmd.Context())
	defer cancel()
	if f.undo {
		return undoRun(ctx, cmd.OutOrStdout(), home, f.name, args)
	}
	if f.resume {
		if args, err = leftScenario(home, f.name, args); err != nil {
			return err
		}
	}
	all, err := f.load(args)
	if err != nil {
		return err
	}
	l, err := lab.Open(home, f.name)
	if err != nil {
		return err
	}
	if f.provider != "" && f.provider != l.Provider() {
		l.Close()
		return usagef("--provider %s: lab %s is of the provider %s", f.provider, f.name, l.Provider())
	}
	r := f.runner(cmd, home, l)
	defer func() { r.lab.Close() }() // the one that it has at the end
	bad, err := r.runAll(ctx, all)
	if err = errors.Join(err, f.deliver(cmd, r)); err == nil && len(bad) > 0 {
		err = failed(fmt.Sprintf("%d of %d scenarios failed: %s", len(bad), len(all), strings.Join(bad, ", ")))
	}
	if now, look := lab.StatusOf(context.WithoutCancel(ctx), home, f.name); look == nil && now.State == lab.Changed {
		err = errors.Join(err, r.showLeft(cmd.ErrOrStderr(), all[len(all)-1]))
	}
	return err
}

// load loads the scenarios and checks that the flags fit them.
func (f *runFlags) load(args []string) ([]*scenario.Scenario, error) {
	all, err := loadScenarios(args)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if f.without != "" && len(s.Recover) == 0 {
			return nil, usagef("--without %s: scenario %s has no such phase", f.without, s.Name)
		}
	}
	if (f.keep || f.until != "") && len(all) > 1 {
		return nil, usagef("--keep and --until leave the lab as the scenario made it: wanted one scenario, seen %d", len(all))
	}
	return all, nil
}

func (f *runFlags) runner(cmd *cobra.Command, home string, l *lab.Lab) *runner {
	r := &runner{
		home: home, lab: l, screen: cmd.OutOrStdout(), progress: progress(cmd), plans: cmd.ErrOrStderr(),
		verbose: f.verbose, quiet: quiet(cmd), folder: f.folder,
		options: engine.RunOptions{
			Until: scenario.Phase(f.until), Keep: f.keep, Resume: f.resume, Adopt: f.adopt, Without: scenario.Phase(f.without),
		},
	}
	if f.output.json() {
		r.screen = cmd.ErrOrStderr()
	}
	if f.folder == "" {
		r.folder = filepath.Join(runsFolder(home), time.Now().Format("20060102-150405.000"))
	}
	return r
}

// deliver writes what machines read of the runs, and the page.
func (f *runFlags) deliver(cmd *cobra.Command, r *runner) (err error) {
	events := r.recording.Events()
	if f.junit != "" {
		err = writeFile(f.junit, func(w io.Writer) error { return report.JUnit(w, events) })
	}
	switch {
	case f.html == "" || len(r.made) == 0:
	case len(r.made) == 1:
		err = errors.Join(err, writePage(f.html, r.made))
	default:
		err = errors.Join(err, writeGrid(f.html, r.made))
	}
	if f.output.json() {
		err = errors.Join(err, report.JSON(cmd.OutOrStdout(), r.summaries))
	}
	return err
}

// leftScenario returns the file of the scenario that left the lab changed, as arguments.
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
	fmt.Fprintf(out, "lab %s is as it was before scenario %s (%s)\n", name, undone, words.Seconds(time.Since(start)))
	return nil
}

// runner runs scenarios on a lab, each with a run folder of its own.
type runner struct {
	home      string
	lab       *lab.Lab
	options   engine.RunOptions
	screen    io.Writer // the story
	progress  io.Writer // of making a lab
	plans     io.Writer // of scenarios on a mesh that is not eastwest's
	verbose   bool
	quiet     bool
	folder    string
	recording report.Recording
	made      []string // the run folders
	summaries []report.Summary
}

// runAll returns the names of the scenarios that did not hold. One that could not be carried out ends it.
func (r *runner) runAll(ctx context.Context, all []*scenario.Scenario) (bad []string, err error) {
	for i, s := range all {
		if i > 0 {
			if !r.quiet {
				fmt.Fprintln(r.screen)
			}
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
	fmt.Fprintln(r.progress, renewal(now))
	steps := newStepPrinter(r.progress, false)
	made, err := lab.Up(ctx, lab.Options{
		Home: r.home, Name: now.Name, Provider: now.Provider, Topology: r.lab.Topology, Progress: steps.show,
	})
	if err = steps.end(err); err != nil {
		return err
	}
	r.lab.Close()
	r.lab = made
	return nil
}

// renewal says what renew does about a lab in this state. Up waits for a lab that another process holds, and keeps it if it works.
func renewal(now lab.Status) string {
	if now.State == lab.Busy {
		return fmt.Sprintf("lab %s is in use by another eastwest: waiting for it", now.Name)
	}
	return fmt.Sprintf("lab %s is %s: making it anew", now.Name, now.State)
}

func (r *runner) run(ctx context.Context, s *scenario.Scenario) (ok bool, err error) {
	folder, err := report.NewFolder(filepath.Join(r.folder, s.Name))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	if r.lab.Adopted() && !r.options.Resume {
		if err := engine.Explain(r.plans, s); err != nil {
			return false, err
		}
	}
	look := report.Detect(r.screen, os.Getenv)
	look.Verbose, look.Quiet, look.Folder = r.verbose, r.quiet, folder.Dir()
	o := r.options
	o.Folder = folder
	o.Sink = report.Multi(folder, &r.recording, report.GitHub(r.screen, os.Getenv), report.Terminal(r.screen, look))
	verdict, err := engine.Run(ctx, r.lab, s, o)
	return !verdict.Result.Bad(), errors.Join(err, r.keep(folder.Dir()))
}

// keep remembers a run folder, and shows the timetable of an upgrade. One of a run that could not begin has nothing to show.
func (r *runner) keep(dir string) error {
	events, err := report.Read(dir)
	if err != nil || len(events) == 0 {
		return nil //nolint:nilerr // events that could not be written are an error of the folder
	}
	r.made = append(r.made, dir)
	summaries, err := report.SummarizeFolder(dir, events)
	r.summaries = append(r.summaries, summaries...)
	return errors.Join(err, writeTimetable(r.screen, summaries, r.verbose, r.quiet))
}

// writeTimetable writes the timetable of a run, if it has one.
func writeTimetable(w io.Writer, summaries []report.Summary, verbose, quiet bool) error {
	if len(summaries) == 0 {
		return nil
	}
	t := summaries[len(summaries)-1].Timetable
	if t == nil || quiet && t.Lost() == 0 {
		return nil
	}
	return t.Write(w, verbose)
}

// showLeft shows a person where to look in a mesh that a scenario has left changed, and how to go on.
func (r *runner) showLeft(w io.Writer, s *scenario.Scenario) error {
	flag := nameFlag(r.lab.Name)
	_, resumable := engine.Resumable(r.lab, "")
	if resumable == nil && r.options.Until != "" {
		fmt.Fprintf(w, "\nlab %s is as phase %s of %s left it\n", r.lab.Name, r.options.Until, s.Name)
	} else {
		fmt.Fprintf(w, "\nlab %s is as scenario %s left it\n", r.lab.Name, s.Name)
	}
	fmt.Fprintf(w, "\nlook around:\n  eval \"$(eastwest env%s)\"\n", flag)
	if err := engine.LookAround(w, s, r.lab.Name); err != nil {
		return err
	}
	fmt.Fprintln(w, "\ngo on:")
	if resumable == nil {
		fmt.Fprintf(w, "  eastwest run %s --resume%s\n", s.Name, flag)
	}
	fmt.Fprintf(w, "  eastwest run %s --undo%s\n", s.Name, flag)
	return nil
}
