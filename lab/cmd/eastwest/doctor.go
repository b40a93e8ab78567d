package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// doctorFlags say which clusters are examined, and how.
type doctorFlags struct {
	lab, kubeconfig string
	contexts        []string
	options         doctor.Options
	output          string
	probe           bool
	timeout         timeoutFlag
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [--context A --context B… | --lab NAME]",
		Short: "Find out what is wrong between the clusters of a mesh",
		Long: `Doctor reads all clusters of a mesh at once and compares what is in use: which certificates are accepted by whom, what each
istiod reads from the other clusters, the paths through the east-west gateways, and what should be the same in all clusters.
Root causes come first, with what they cause below them. Each finding says how to see it yourself, what follows now and later,
and how to repair it. Without --lab and --context doctor examines the lab that $` + labEnv + ` names, or the only lab there is.

Doctor changes nothing, unless you give --probe. It needs to read what the role "view" may read, Secrets in Istio's namespace,
webhooks, and pods/portforward or pods/exec. If a permission is missing, doctor lists the checks that it could not run. The
output of -o json and -o html contains no private keys and no tokens, so it can be shared.

Exit codes: 0 every check ran and found nothing, 1 there are errors or warnings, 3 nothing was found, but something could not
be read.`,
		Example: `  eastwest doctor
  eastwest doctor --context east --context west -o html > report.html
  eastwest doctor explain disjoint-roots`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.lab, "lab", "", "examine the clusters of this lab")
	_ = cmd.RegisterFlagCompletionFunc("lab", completeLabs) // fails only for a flag that does not exist
	flags.StringArrayVar(&f.contexts, "context", nil, "a context of the kubeconfig; give one for each cluster of the mesh")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig with the contexts (default: as kubectl finds it)")
	flags.StringVarP(&f.options.Namespace, "namespace", "n", "", "only the workloads and services of this namespace")
	flags.StringVarP(&f.options.System, "istio-namespace", "i", "istio-system", "where Istio is installed")
	given := func() lab.Settings { return lab.Settings{"kubeconfig": {f.kubeconfig}} }
	_ = cmd.RegisterFlagCompletionFunc("context", completeSetting("context", given)) // fails only for a flag that does not exist
	flags.IntVar(&f.options.Sample, "sample", 40, "most proxies of each cluster whose certificates are read")
	flags.BoolVar(&f.probe, "probe", false, "create a pod in each cluster, make calls between them, and remove them again")
	flags.StringVarP(&f.output, "output", "o", "table", "table, json or html; the names in json are stable")
	outputs := []cobra.Completion{"table", "json", "html"}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	f.timeout.addTo(cmd, 30*time.Second, "how long it may take")
	cmd.MarkFlagsMutuallyExclusive("lab", "context")
	cmd.MarkFlagsMutuallyExclusive("lab", "kubeconfig")
	cmd.AddCommand(newDoctorExplainCommand())
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command) error {
	if !slices.Contains([]string{"table", "json", "html"}, f.output) {
		return usagef("--output %s: wanted one of table, json, html", f.output)
	}
	targets, err := f.targets(cmd)
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("timeout") { // what nobody has typed grows, as the bounds of each single part do
		f.timeout = timeoutFlag(wait.Bound(time.Duration(f.timeout)))
	}
	ctx, cancel := f.timeout.bound(cmd.Context())
	defer cancel()
	f.options.Within = time.Duration(f.timeout)
	if fancy(cmd.ErrOrStderr()) {
		f.options.Progress = func(cluster, part string, took time.Duration) {
			fmt.Fprintf(cmd.ErrOrStderr(), "  %s: %s (%s)\n", cluster, part, words.Seconds(took))
		}
	}
	report, err := f.examine(ctx, targets)
	switch {
	case ctx.Err() != nil && cmd.Context().Err() != nil:
		return ctx.Err() // interrupted: a report of half of the facts would mislead
	case err != nil:
		return err
	}
	switch f.output {
	case "json":
		err = printJSON(cmd.OutOrStdout(), report)
	case "html":
		err = doctor.HTML(cmd.OutOrStdout(), report)
	default:
		err = doctor.Table(cmd.OutOrStdout(), report)
	}
	switch {
	case err != nil:
		return err
	case report.Counts():
		return failed("") // the report says it
	case !report.Complete():
		return errors.New("nothing was found, but not everything could be read: see the unknown checks")
	}
	return nil
}

func (f *doctorFlags) examine(ctx context.Context, targets []doctor.Target) (doctor.Report, error) {
	if f.probe {
		return doctor.Probe(ctx, targets, f.options)
	}
	return doctor.Examine(ctx, targets, f.options), nil
}

// targets returns the clusters that the flags name. Without any flag they are those of the lab that everybody means: the one of
// the environment, or the only one.
func (f *doctorFlags) targets(cmd *cobra.Command) ([]doctor.Target, error) {
	if len(f.contexts) > 0 {
		targets, err := doctor.FromKubeconfig(f.kubeconfig, f.contexts)
		if err != nil {
			return nil, usageError{err}
		}
		return targets, nil
	}
	home, err := lab.Home()
	if err != nil {
		return nil, err
	}
	name := f.lab
	if name == "" {
		if name, err = f.obviousLab(cmd.Context(), home); err != nil {
			return nil, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "examining the lab %q; --lab or --context choose other clusters\n", name)
	}
	l, err := lab.Open(home, name)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return doctor.Targets(l.Mesh), nil
}

// obviousLab returns the lab to examine if no flag names clusters.
func (f *doctorFlags) obviousLab(ctx context.Context, home string) (string, error) {
	const give = "give --lab NAME, or --context once for each cluster of the mesh"
	if f.kubeconfig != "" {
		return "", usagef("which clusters of the kubeconfig? Give --context once for each cluster of the mesh")
	}
	if name := os.Getenv(labEnv); name != "" {
		return name, nil
	}
	names, err := labNames(ctx, home)
	switch {
	case err != nil:
		return "", err
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", usagef("which clusters? There is no lab: %s", give)
	}
	return "", usagef("which clusters? There are the labs %s: %s", strings.Join(names, ", "), give)
}

func newDoctorExplainCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "explain [ID]",
		Short: "Explain a finding, or list all of them",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var ids []cobra.Completion
			for _, d := range doctor.Findings() {
				ids = append(ids, cobra.CompletionWithDesc(d.ID, d.Title))
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			all := doctor.Findings()
			if len(args) == 0 {
				if output.json() {
					return printJSON(cmd.OutOrStdout(), all)
				}
				for _, d := range all {
					fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-30s %s\n", d.Severity, d.ID, d.Title)
				}
				return nil
			}
			var ids []string
			for _, d := range all {
				if d.ID != args[0] {
					ids = append(ids, d.ID)
					continue
				}
				if output.json() {
					return printJSON(cmd.OutOrStdout(), d)
				}
				return doctor.Explain(cmd.OutOrStdout(), d)
			}
			meant := ""
			if near := nearest(args[0], ids); near != "" {
				meant = ": did you mean " + near + "?"
			}
			return usagef("there is no finding %q%s\n`eastwest doctor explain` lists all findings", args[0], meant)
		},
	}
	output.addTo(cmd)
	return cmd
}
