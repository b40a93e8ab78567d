package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/report"
)

// outputFormat is the value of -o.
type outputFormat string

func (o *outputFormat) addTo(cmd *cobra.Command) {
	cmd.Flags().VarP(o, "output", "o", "json for machines; its names are stable")
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (o outputFormat) json() bool { return o == "json" }

// String, Set and Type implement pflag.Value.
func (o *outputFormat) String() string { return string(*o) }

// Set implements pflag.Value.
func (o *outputFormat) Set(s string) error {
	if s != "json" && s != "text" {
		return errors.New("wanted one of text, json")
	}
	*o = outputFormat(s)
	return nil
}

// Type implements pflag.Value.
func (o *outputFormat) Type() string { return "json|text" }

// asksForJSON reports whether the command was given -o json.
func asksForJSON(cmd *cobra.Command) bool {
	output := cmd.Flags().Lookup("output")
	return output != nil && output.Value.String() == "json"
}

// errorJSON is what a command with -o json prints if an error leaves it nothing else to print; its names are stable.
type errorJSON struct {
	Error string `json:"error"`
}

// countingWriter remembers whether anything was written. It has the file descriptor of the writer, so that a terminal is still
// found to be one.
type countingWriter struct {
	io.Writer
	written bool
}

func (w *countingWriter) Write(data []byte) (int, error) {
	w.written = w.written || len(data) > 0
	return w.Writer.Write(data)
}

// Fd implements the interface by which package report finds terminals.
func (w *countingWriter) Fd() uintptr {
	if f, ok := w.Writer.(*os.File); ok {
		return f.Fd()
	}
	return ^uintptr(0) // no file has this one
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// fancy reports whether w is a terminal on which lines can be overwritten.
func fancy(w io.Writer) bool { return report.Detect(w, os.Getenv).Live }

// addQuietFlag adds -q to a command and to everything below it.
func addQuietFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().BoolP("quiet", "q", false, "show results and problems only, no progress")
}

// quiet reports whether the command was given -q.
func quiet(cmd *cobra.Command) bool {
	q, err := cmd.Flags().GetBool("quiet")
	return err == nil && q
}

// progress is where a command tells how far it is.
func progress(cmd *cobra.Command) io.Writer {
	if quiet(cmd) {
		return io.Discard
	}
	return cmd.ErrOrStderr()
}
