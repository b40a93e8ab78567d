package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/strict"
)

// The exit codes. They are part of the command's interface.
const (
	exitHeld        = 0
	exitFailed      = 1 // a scenario or a check failed
	exitUsage       = 2 // wrong usage, or an invalid file
	exitSetup       = 3 // something could not be set up or carried out
	exitInterrupted = 130
)

// usageError is a wrong command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// failed is a scenario or check that did not hold. It is empty where everything has been told already.
type failed string

func (f failed) Error() string { return string(f) }

// exitCode sorts an error. Whatever is neither the user's mistake nor a check that failed could not be carried out:
// a CI job can tell "the mesh behaves differently" (1) from "the machine is in trouble" (3).
func exitCode(ctx context.Context, err error) int {
	var (
		usage    usageError
		problems *strict.Problems
		unknown  *lab.UnknownLabError
		resume   *engine.ResumeError
		adopt    *engine.AdoptError
		f        failed
	)
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &problems), errors.As(err, &unknown), errors.As(err, &resume), errors.As(err, &adopt):
		return exitUsage
	case errors.As(err, &f):
		return exitFailed
	}
	return exitSetup
}

// usageErrors makes the mistakes that cobra finds by itself usage errors, with the command's usage line, in cmd and
// everything below it.
func usageErrors(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return withUsage(c, flagError(c, err)) })
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return withUsage(c, err)
			}
			return nil
		}
	}
	cmd.PreRunE = func(c *cobra.Command, _ []string) error { // cobra finds it next, with an error like any other
		if err := c.ValidateFlagGroups(); err != nil {
			return withUsage(c, groupError(err))
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

func withUsage(c *cobra.Command, err error) error {
	return usagef("%w\nusage: %s\n`%s --help` explains it", err, c.UseLine(), c.CommandPath())
}

// group makes cmd a command that only has subcommands: alone it prints its help, and an unknown word is an error with
// the nearest known ones (cobra alone prints the help and succeeds).
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return unknownCommand(c, args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

func unknownCommand(c *cobra.Command, word string) error {
	text := fmt.Sprintf("unknown command %q", c.CommandPath()+" "+word)
	if near := c.SuggestionsFor(word); len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s\n`%s --help` lists the commands", text, c.CommandPath())
}
