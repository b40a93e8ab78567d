package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/report"
)

func newReportCommand() *cobra.Command {
	var (
		output  outputFormat
		junit   string
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "report DIR",
		Short: "Show a run again, from its folder",
		Long:  `Report shows what eastwest run has kept in a run folder, also of a run that was killed.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			events, err := report.Read(args[0])
			if err != nil {
				return usageError{err}
			}
			if junit != "" {
				if err := writeFile(junit, func(w io.Writer) error { return report.JUnit(w, events) }); err != nil {
					return err
				}
			}
			if output.json() {
				return report.JSON(cmd.OutOrStdout(), events)
			}
			look := report.Detect(cmd.OutOrStdout(), os.Getenv)
			look.Live, look.Verbose, look.Folder = false, verbose, args[0]
			screen := report.Terminal(cmd.OutOrStdout(), look)
			for _, e := range events {
				screen.Emit(e)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&junit, "junit", "", "write the verdicts to this file, for CI systems")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell the whole story: every step, its command, and what was seen")
	output.addTo(cmd)
	return cmd
}

// writeFile writes a file whole or not at all.
func writeFile(path string, write func(io.Writer) error) error {
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
