package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// noArgs is the check of a command that takes no arguments.
var noArgs = takes(0, 0, "argument")

// anyNumber is the most of takes for a command that takes as many arguments as there are.
const anyNumber = -1

// takes returns the check of a command that takes from least to most arguments. what is their name in the usage line.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		n := len(args)
		if n >= least && (most == anyNumber || n <= most) {
			return nil
		}
		seen := "none"
		if n > 0 {
			quoted := make([]string, n)
			for i, arg := range args {
				quoted[i] = strconv.Quote(arg)
			}
			seen = strings.Join(quoted, " ")
		}
		wanted := fmt.Sprintf("at most %d %s", most, what)
		switch {
		case most == 0:
			wanted = "no " + what
		case least == most:
			wanted = fmt.Sprintf("%d %s", least, what)
		case n < least:
			wanted = fmt.Sprintf("at least %d %s", least, what)
		}
		return fmt.Errorf("wanted %s, seen %s", wanted, seen)
	}
}

// flagError writes an error of the flag library in this command's own form: the flag, what was seen, what was wanted.
func flagError(c *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(c, unknown)
	case errors.As(err, &missing):
		return fmt.Errorf("--%s: wanted a value behind it", missing.GetFlag().Name)
	case errors.As(err, &invalid):
		reason := invalid.Unwrap().Error()
		switch invalid.GetFlag().Value.Type() {
		case "int":
			reason = "wanted a whole number"
		case "bool":
			reason = "wanted true or false"
		}
		return fmt.Errorf("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), reason)
	}
	return err
}

// unknownFlag names the nearest flag that the command has.
func unknownFlag(c *cobra.Command, err *pflag.NotExistError) error {
	name, letters := err.GetSpecifiedName(), err.GetSpecifiedShortnames()
	text := "unknown flag --" + name
	if letters != "" {
		text, name = "unknown flag -"+name, letters // -name is a slip for --name
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if near := nearest(name, known); near != "" && (letters == "" || len(letters) > 1) {
		text += ": did you mean --" + near + "?"
	}
	return errors.New(text)
}

// exclusive matches what cobra says of flags that exclude each other.
var exclusive = regexp.MustCompile(`\[([a-z -]+)\] were all set$`)

// groupError writes cobra's error about flags that exclude each other in this command's own form.
func groupError(err error) error {
	if m := exclusive.FindStringSubmatch(err.Error()); m != nil {
		flags := strings.Fields(m[1])
		for i, name := range flags {
			flags[i] = "--" + name
		}
		return fmt.Errorf("%s: wanted only one of them", words.And(flags))
	}
	return err
}

// nearest returns the name that a person who typed s probably meant, and "" if there is none: one that a slip of the keyboard
// explains, or the one that begins like s or contains it.
func nearest(s string, names []string) string {
	if near := words.Near(s, names); near != "" {
		return near
	}
	best, most := "", 2
	for _, n := range names {
		same := 0
		for i := 0; i < min(len(n), len(s)) && n[i] == s[i]; i++ {
			same++
		}
		if s != "" && strings.Contains(n, s) {
			same = max(same, len(s))
		}
		if same > most {
			best, most = n, same
		}
	}
	return best
}

// namedLab lets a command take the lab's name as its only argument too, besides --name. It puts the name into *name.
func namedLab(cmd *cobra.Command, name *string) {
	one := takes(0, 1, "NAME")
	cmd.Args = func(c *cobra.Command, args []string) error {
		if err := one(c, args); err != nil || len(args) == 0 {
			return err
		}
		if c.Flags().Changed("name") && *name != args[0] {
			return fmt.Errorf("%s and --name %s: wanted one lab", args[0], *name)
		}
		*name = args[0]
		return nil
	}
	cmd.ValidArgsFunction = completeLabs
}

// labAlias makes --lab another spelling of --name.
func labAlias(_ *pflag.FlagSet, flag string) pflag.NormalizedName {
	if flag == "lab" {
		flag = "name"
	}
	return pflag.NormalizedName(flag)
}

// without returns the candidates of a completion that are not among the arguments yet.
func without(candidates []cobra.Completion, args []string) []cobra.Completion {
	return slices.DeleteFunc(candidates, func(c cobra.Completion) bool {
		name, _, _ := strings.Cut(c, "\t")
		return slices.Contains(args, name)
	})
}
