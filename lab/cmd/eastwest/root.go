package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/report"
)

// newRootCommand is `eastwest`.
func newRootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false // the order below is the order of use
	cmd := group(&cobra.Command{
		Use:   "eastwest",
		Short: "A lab for multi-cluster Istio and the trust between clusters",
		Long: `eastwest makes real Kubernetes clusters with a real Istio mesh across them, breaks the mesh in known ways, and proves
the symptom, the diagnosis, the recovery and the health.

  eastwest up
  eval "$(eastwest env)"
  eastwest run mismatched-root-ca
  eastwest down

Exit codes: 0 everything held, 1 a scenario or check failed, 2 wrong usage or an invalid file, 3 something could not be
set up or carried out, 130 interrupted. With -o json, a command that fails before it has printed anything prints
{"error": "…"} on standard output; the same text is on standard error.

eastwest help environment lists the environment variables.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	cmd.AddGroup(
		&cobra.Group{ID: "labs", Title: "Labs:"},
		&cobra.Group{ID: "scenarios", Title: "Scenarios:"},
		&cobra.Group{ID: "rest", Title: "The rest:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		cmd.AddCommand(commands...)
	}
	add("labs", newUpCommand(), newDownCommand(), newListCommand(), newStatusCommand(), newEnvCommand(), newDoctorCommand())
	add("scenarios", newRunCommand(), newScenariosCommand(), newExplainCommand(), newHintCommand(), newReportCommand(),
		newNewCommand(), newLintCommand(), newSchemaCommand())
	add("rest", newBundleCommand(), newBenchCommand(), newVersionCommand())
	cmd.SetHelpCommand(newHelpCommand())
	cmd.SetHelpCommandGroupID("rest")
	cmd.SetCompletionCommandGroupID("rest")
	cmd.InitDefaultCompletionCmd() // now, not when it runs: it is checked like the others
	if completion, _, err := cmd.Find([]string{"completion"}); err == nil {
		group(completion)
	}
	cmd.AddCommand(newEnvironmentTopic())
	cmd.SetGlobalNormalizationFunc(labAlias)
	addQuietFlag(cmd)
	addPatienceFlag(cmd)
	usageErrors(cmd)
	fillHelp(cmd)
	return cmd
}

// fillHelp fills help texts to the width of the terminal. Those that do not go to a terminal stay as they are.
func fillHelp(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		if width := report.Detect(c.OutOrStdout(), os.Getenv).Width; width > 0 {
			c.Long = report.Fill(c.Long, width)
			c.SetUsageTemplate(usageTemplate(c.UsageTemplate(), width))
		}
		help(c, args)
	})
}

// usageTemplate returns a template of cobra's with the flags filled to a width.
func usageTemplate(template string, width int) string {
	return strings.ReplaceAll(template, ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", width))
}

// newHelpCommand is `eastwest help`; cobra's own succeeds for words that do not exist.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if found, _, err := c.Root().Find(args); err == nil {
				for _, sub := range found.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			return found.Help()
		},
	}
}
