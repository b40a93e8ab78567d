package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

const commandsPage = "../../../docs/cli.md"

// TestCommandsPageIsCurrent holds the page of commands to the commands.
func TestCommandsPageIsCurrent(t *testing.T) {
	t.Setenv(labEnv, "") // it is the default of a flag
	text := commandsDocument(newRootCommand())
	if *update {
		require.NoError(t, os.WriteFile(commandsPage, []byte(text), 0o644))
	}
	current, err := os.ReadFile(commandsPage)
	require.NoError(t, err)
	require.True(t, string(current) == text, "%s is not what the commands say: run `make generate`", commandsPage)
}

// commandsDocument is the page: an overview, then each command with its flags.
func commandsDocument(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Commands\n\n<!-- Written by `make generate` from the commands' own help. -->\n\n" + paragraphs(root.Long) + "\n")
	for _, group := range root.Groups() {
		fmt.Fprintf(&b, "\n| %s | |\n| --- | --- |\n", strings.TrimSuffix(group.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == group.ID && c.IsAvailableCommand() && c.Name() != "completion" {
				fmt.Fprintf(&b, "| [%s](#eastwest-%[1]s) | %s |\n", c.Name(), c.Short)
			}
		}
	}
	b.WriteString("\n`eastwest completion SHELL` writes completion for bash, zsh, fish or PowerShell. The environment variables are in\n" +
		"[environment.md](environment.md).\n")
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			commandSections(&b, c)
		}
	}
	return b.String()
}

// commandSections writes a command's section and those of the commands below it.
func commandSections(b *strings.Builder, c *cobra.Command) {
	if !c.IsAvailableCommand() {
		return
	}
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n", c.CommandPath(), paragraphs(text), c.UseLine())
	if c.HasExample() {
		fmt.Fprintf(b, "\n%s\n", c.Example)
	}
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(b, "\n%s", c.LocalFlags().FlagUsagesWrapped(130))
	}
	b.WriteString("```\n")
	for _, below := range c.Commands() {
		commandSections(b, below)
	}
}

// paragraphs is a help text as Markdown: what is indented in it becomes a block of code.
func paragraphs(text string) string {
	all := strings.Split(text, "\n\n")
	for i, p := range all {
		if strings.HasPrefix(p, "  ") {
			all[i] = "```\n" + p + "\n```"
		}
	}
	return strings.Join(all, "\n\n")
}
