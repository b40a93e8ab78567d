package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/doctor"
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
		Use:   "doctor (--context A --context B… | --lab NAME)",
		Short: "Find out what is wrong between the clusters of a mesh",
		Long: `Doctor reads all clusters of a mesh at once and compares what is in use: who trusts whom by which certificates, what each
istiod reads of the other clusters, the way through the east-west gateways, and what should be the same on both sides.
Root causes come first, with what follows from them below. Each finding tells how to see it oneself, what follows now and
later, and how to repair it.

It changes nothing, unless --probe is given. It needs to read what the role "view" reads, Secrets in Istio's namespace, webhooks,
and pods/portforward or pods/exec. What it may not read makes checks unknown, never green; it says which. The
output of -o json and -o html has no private keys and no tokens, and can be shared.

Exit codes: 0 every check has looked and found nothing, 1 there are findings (information alone is none), 3 nothing was found and
something could not be read.`,
		Example: `  eastwest doctor --lab lab
  eastwest doctor --context east --context west -o html > report.html
  eastwest doctor explain disjoint-roots`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.lab, "lab", "", "examine the clusters of this lab")
	_ = cmd.RegisterFlagCompletionFunc("lab", completeLabs) // fails for a flag that does not exist only
	flags.StringArrayVar(&f.contexts, "context", nil, "a context of the kubeconfig; give one for each cluster of the mesh")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig with the contexts (default: as kubectl finds it)")
	flags.StringVarP(&f.options.Namespace, "namespace", "n", "", "only the workloads and services of this namespace")
	flags.StringVarP(&f.options.System, "istio-namespace", "i", "istio-system", "where Istio is installed")
	flags.IntVar(&f.options.Sample, "sample", 40, "most proxies of each cluster whose certificates are read")
	flags.BoolVar(&f.probe, "probe", false, "create a pod in each cluster, make calls between them, and remove them again")
	flags.StringVarP(&f.output, "output", "o", "table", "table, json or html; the names in json are stable")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"table", "json", "html"}, cobra.ShellCompDirectiveNoFileComp))
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
	targets, err := f.targets()
	if err != nil {
		return err
	}
	ctx, cancel := f.timeout.bound(cmd.Context())
	defer cancel()
	f.options.Within = time.Duration(f.timeout)
	if fancy(cmd.ErrOrStderr()) {
		f.options.Progress = func(cluster string, part doctor.Part, took time.Duration) {
			fmt.Fprintf(cmd.ErrOrStderr(), "  %s: %s (%s)\n", cluster, part, seconds(took))
		}
	}
	facts := doctor.Gather(ctx, targets, f.options)
	if f.probe {
		facts.Calls, err = doctor.Probe(ctx, targets, f.options)
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil && cmd.Context().Err() != nil {
		return ctx.Err() // interrupted: half of the facts say nothing
	}
	report := doctor.Examine(facts)
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
		return failed("") // it stands in what was printed
	case !report.Complete():
		return errors.New("nothing was found, and not everything could be read: see what is unknown")
	}
	return nil
}

func (f *doctorFlags) targets() ([]doctor.Target, error) {
	switch {
	case f.lab != "":
		home, err := lab.Home()
		if err != nil {
			return nil, err
		}
		l, err := lab.Open(home, f.lab)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return doctor.Targets(l.Mesh), nil
	case len(f.contexts) == 0:
		return nil, usagef("which clusters? Give --lab NAME, or --context once for each cluster of the mesh")
	}
	targets, err := doctor.FromKubeconfig(f.kubeconfig, f.contexts)
	if err != nil {
		return nil, usageError{err}
	}
	return targets, nil
}

func newDoctorExplainCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "explain [ID]",
		Short: "Explain a finding, or list all of them",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var ids []cobra.Completion
			for _, k := range doctor.Findings() {
				ids = append(ids, cobra.CompletionWithDesc(k.ID, k.Title))
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			all := doctor.Findings()
			if len(args) == 0 {
				if output.json() {
					return printJSON(cmd.OutOrStdout(), all)
				}
				for _, k := range all {
					fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-30s %s\n", k.Severity, k.ID, k.Title)
				}
				return nil
			}
			i := slices.IndexFunc(all, func(k doctor.Kind) bool { return k.ID == args[0] })
			if i < 0 {
				var ids []string
				for _, k := range all {
					ids = append(ids, k.ID)
				}
				if near := nearest(args[0], ids); near != "" {
					return usagef("there is no finding %q: did you mean %s?", args[0], near)
				}
				return usagef("there is no finding %q: they are %s", args[0], strings.Join(ids, ", "))
			}
			if output.json() {
				return printJSON(cmd.OutOrStdout(), all[i])
			}
			return all[i].Explain(cmd.OutOrStdout())
		},
	}
	output.addTo(cmd)
	return cmd
}
