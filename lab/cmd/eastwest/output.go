package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
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
		return fmt.Errorf("wanted json or text")
	}
	*o = outputFormat(s)
	return nil
}

// Type implements pflag.Value.
func (o *outputFormat) Type() string { return "json|text" }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// fancy tells whether w is a terminal that may be written to with colors and moving lines.
func fancy(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
