package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value       *string // holds the default when the flag is added
	flag, usage string
	words       []string
}

func (c choice) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(c.value, c.flag, *c.value, c.usage+": "+strings.Join(c.words, ", "))
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(c.flag, cobra.FixedCompletions(c.words, cobra.ShellCompDirectiveNoFileComp))
}

// check returns nil, or which words there are.
func (c choice) check() error {
	if slices.Contains(c.words, *c.value) {
		return nil
	}
	if len(c.words) == 1 {
		return fmt.Errorf("--%s %s: wanted %s", c.flag, *c.value, c.words[0])
	}
	return fmt.Errorf("--%s %s: wanted one of %s", c.flag, *c.value, strings.Join(c.words, ", "))
}

// asStrings returns the values as plain strings.
func asStrings[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}
