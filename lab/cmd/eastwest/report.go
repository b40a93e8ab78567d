package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/page"
	"github.com/eastwest-lab/eastwest/lab/report"
)

// runsFolder is where `eastwest run` keeps runs without --report.
func runsFolder(home string) string { return filepath.Join(home, "runs") }

func newReportCommand() *cobra.Command {
	var (
		output  outputFormat
		junit   string
		html    string
		verbose bool
		merge   bool
	)
	cmd := &cobra.Command{
		Use:   "report [DIR…]",
		Short: "Show a run again, from its folder",
		Long: `Report shows what eastwest run has kept in a run folder, also of a run that was killed. Without DIR it shows the newest
run. Of a folder with several runs it prints a table; with --verbose it shows them one after another.

With --html it also writes one HTML file that needs nothing else: what happened in three sentences, the calls over time as
points that can be zoomed, every step with its command and what was seen, and what stood out in the logs. It opens at what
failed.

With --merge it joins the runs in several folders, such as those of parts of a catalogue that ran at once, or of the same
catalogue on many days: a grid of scenarios and runs, which tells what is flaky from what fails.`,
		Example: `  eastwest report
  eastwest report runs/late-cacerts --html report.html
  eastwest report --merge monday tuesday wednesday --html grid.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			if merge {
				return takes(1, anyNumber, "DIR")(cmd, args)
			}
			return takes(0, 1, "DIR")(cmd, args)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := reportedFolder(args)
			if err != nil {
				return err
			}
			runs, err := readRuns(dir)
			for _, other := range args[min(len(args), 1):] {
				more, err2 := readRuns(other)
				runs, err = append(runs, more...), errors.Join(err, err2)
			}
			if err == nil {
				runs, err = distinct(runs)
			}
			if err != nil {
				return err
			}
			var events []report.Event
			for _, r := range runs {
				events = append(events, r.events...)
			}
			if junit != "" {
				if err := writeFile(junit, func(w io.Writer) error { return report.JUnit(w, events) }); err != nil {
					return err
				}
			}
			grid := gridOf(runs)
			switch {
			case html != "" && merge:
				err = writeFile(html, grid.HTML)
			case html != "":
				err = writePage(html, dirsOf(runs))
			}
			switch {
			case err != nil:
				return err
			case output.json():
				return writeSummaries(cmd.OutOrStdout(), runs)
			case merge:
				return grid.Text(cmd.OutOrStdout())
			case len(runs) > 1 && !verbose:
				return printRuns(cmd.OutOrStdout(), runs)
			}
			look := report.Detect(cmd.OutOrStdout(), os.Getenv)
			look.Live, look.Verbose = false, verbose
			for _, r := range runs {
				look.Folder = r.dir
				screen := report.Terminal(cmd.OutOrStdout(), look)
				for _, e := range r.events {
					screen.Emit(e)
				}
				summaries, err := r.summaries()
				if err = errors.Join(err, writeTimetable(cmd.OutOrStdout(), summaries, verbose, quiet(cmd))); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&junit, "junit", "", "write the verdicts to this file, for CI systems")
	cmd.Flags().StringVar(&html, "html", "", "write the run, or with --merge the grid, as a page to this file")
	cmd.Flags().BoolVar(&merge, "merge", false, "join the runs in these folders into one grid")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the whole story: every step, its command, and what was seen")
	output.addTo(cmd)
	cmd.MarkFlagsMutuallyExclusive("merge", "verbose")
	return cmd
}

// reportedFolder returns the folder that the arguments name, or that of the newest `eastwest run`.
func reportedFolder(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	home, err := lab.Home()
	if err != nil {
		return "", err
	}
	all, err := fs.Glob(os.DirFS(runsFolder(home)), "*") // the name of the folder is no pattern
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", usagef("there are no runs in %s: `eastwest run NAME` makes one", runsFolder(home))
	}
	return filepath.Join(runsFolder(home), slices.Max(all)), nil // their names are times
}

// keptRun is one run of one scenario, as it was kept.
type keptRun struct {
	dir    string
	events []report.Event
}

// summaries are those of the run, with the timetable of an upgrade.
func (r keptRun) summaries() ([]report.Summary, error) {
	return report.SummarizeFolder(r.dir, r.events)
}

func writeSummaries(w io.Writer, runs []keptRun) error {
	var all []report.Summary
	for _, r := range runs {
		more, err := r.summaries()
		if err != nil {
			return err
		}
		all = append(all, more...)
	}
	return report.JSON(w, all)
}

// readRuns reads the run in a folder, or all runs below it, oldest first.
func readRuns(dir string) ([]keptRun, error) {
	dirs, err := report.Runs(dir)
	if err != nil {
		return nil, usageError{err}
	}
	var (
		runs []keptRun
		errs []error
	)
	for _, d := range dirs {
		events, err := report.Read(d)
		if err != nil {
			errs = append(errs, usageError{err})
		}
		runs = append(runs, keptRun{d, events})
	}
	slices.SortStableFunc(runs, func(a, b keptRun) int { return a.began().Compare(b.began()) })
	return runs, errors.Join(errs...)
}

// distinct leaves out what was named twice, such as a folder of runs and one of them.
func distinct(runs []keptRun) (once []keptRun, err error) {
	seen := map[string]bool{}
	for _, r := range runs {
		path, err := filepath.Abs(r.dir)
		if err != nil {
			return nil, err
		}
		if !seen[path] {
			once = append(once, r)
		}
		seen[path] = true
	}
	return once, nil
}

func dirsOf(runs []keptRun) (dirs []string) {
	for _, r := range runs {
		dirs = append(dirs, r.dir)
	}
	return dirs
}

// writeGrid writes the page of several runs.
func writeGrid(file string, dirs []string) error {
	var runs []keptRun
	for _, dir := range dirs {
		more, err := readRuns(dir)
		if err != nil {
			return err
		}
		runs = append(runs, more...)
	}
	return writeFile(file, gridOf(runs).HTML)
}

func gridOf(runs []keptRun) page.Grid {
	all := make([]page.Run, len(runs))
	for i, r := range runs {
		all[i] = page.Run{Dir: r.dir, Events: r.events}
	}
	return page.NewGrid(all)
}

// writePage writes the page of the run in a folder.
func writePage(file string, dirs []string) error {
	if len(dirs) != 1 {
		return usagef("--html shows one run, and there are %d: name one of their folders, or join them with --merge", len(dirs))
	}
	run, err := page.Load(dirs[0])
	if err != nil {
		return err
	}
	return writeFile(file, func(w io.Writer) error { return page.Write(w, run) })
}

func (r keptRun) began() time.Time {
	if len(r.events) == 0 {
		return time.Time{}
	}
	return r.events[0].Time
}

func printRuns(out io.Writer, runs []keptRun) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SCENARIO\tRESULT\tSECONDS\tBEGAN\tFOLDER")
	for _, r := range runs {
		for _, s := range report.Summarize(r.events) {
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%s\n", s.Scenario, s.Result, s.Seconds, r.began().Local().Format(time.DateTime), r.dir)
		}
	}
	return w.Flush()
}

// writeFile writes a file whole or not at all. What is no file, such as a device, a pipe or a link, stays what it is.
func writeFile(path string, write func(io.Writer) error) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err == nil {
			err = errors.Join(write(f), f.Close())
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".eastwest-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone when it was renamed
	err = errors.Join(write(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
