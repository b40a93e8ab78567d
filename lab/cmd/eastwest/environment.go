package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// variables are the environment variables that commands read, and what each does.
func variables() [][2]string {
	return [][2]string{
		{labEnv, "the lab that commands use if none is named (default: " + lab.DefaultName + ")"},
		{lab.HomeEnv, "the folder of labs and runs (default: eastwest in the user's cache folder)"},
		{"EASTWEST_BUNDLE", "the folder of the bundle (default: eastwest/bundle in the user's cache folder)"},
		{wait.PatienceEnv, "how many times as long every bound of time is, such as 2.5 (default: measured)"},
		{"KUBECONFIG", "where up --provider existing and doctor --context look for contexts; it is only read"},
		{"HTTP_PROXY", "handed on to nodes of kind, like HTTPS_PROXY and NO_PROXY"},
		{"NO_COLOR", "if it is not empty, nothing is colored"},
		{"TERM", "if it is dumb, nothing is colored and no line is overwritten"},
	}
}

// patienceFlag is the flag of the factor by which bounds of time are longer. The programs that a command starts, such as the
// supervisor of a node, read the variable.
type patienceFlag struct{ text string }

func addPatienceFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().Var(&patienceFlag{}, "patience", "how many times as long every bound of time is (default: measured)")
}

func (p *patienceFlag) String() string { return p.text }

func (p *patienceFlag) Type() string { return "factor" }

func (p *patienceFlag) Set(text string) error {
	if _, err := wait.ParsePatience(text); err != nil {
		return err
	}
	p.text = text
	return os.Setenv(wait.PatienceEnv, text)
}

// newEnvironmentTopic is the text of `eastwest help environment`. It is no command.
func newEnvironmentTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Commands read these environment variables. Flags come before them.\n\n")
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, v := range variables() {
		fmt.Fprintf(w, "  %s\t%s\n", v[0], v[1])
	}
	_ = w.Flush() // a strings.Builder takes everything
	return &cobra.Command{
		Use: "environment", Short: "The environment variables that commands read", Long: strings.TrimRight(text.String(), "\n"),
	}
}
