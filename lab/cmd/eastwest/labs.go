package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// labEnv names the environment variable with the lab that commands mean.
const labEnv = "EASTWEST_LAB"

// addLabFlag adds --name, the lab that a command works on.
func addLabFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", defaultLab(), "the lab, also as --lab; $"+labEnv+" changes the default")
	_ = cmd.RegisterFlagCompletionFunc("name", completeLabs) // fails for a flag that does not exist only
}

func defaultLab() string { return cmp.Or(os.Getenv(labEnv), lab.DefaultName) }

// nameFlag is what a pasted command needs to mean this lab.
func nameFlag(name string) string {
	if name == defaultLab() {
		return ""
	}
	return " --name " + name
}

// completeLabs completes the name of a lab.
func completeLabs(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	home, err := lab.Home()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := labNames(cmd.Context(), home)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func labNames(ctx context.Context, home string) ([]string, error) {
	labs, err := lab.List(ctx, home)
	var names []string
	for _, l := range labs {
		names = append(names, l.Name)
	}
	return names, err
}

// timeoutFlag is --timeout.
type timeoutFlag time.Duration

func (t *timeoutFlag) addTo(cmd *cobra.Command, def time.Duration, what string) {
	*t = timeoutFlag(def)
	cmd.Flags().Var(t, "timeout", what)
}

// Set implements pflag.Value.
func (t *timeoutFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New(`wanted a time such as "90s" or "10m"`)
	}
	*t = timeoutFlag(d)
	return nil
}

// String implements pflag.Value.
func (t *timeoutFlag) String() string { return time.Duration(*t).String() }

// Type implements pflag.Value.
func (t *timeoutFlag) Type() string { return "duration" }

// errTimeout is wrapped by the cause of a context that --timeout ended.
var errTimeout = errors.New("timed out")

// bound returns a context that ends after the timeout, with a cause that says so.
func (t timeoutFlag) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, time.Duration(t), fmt.Errorf("%w after %s (--timeout)", errTimeout, time.Duration(t)))
}

func newDownCommand() *cobra.Command {
	var (
		name    string
		all     bool
		timeout timeoutFlag
	)
	cmd := &cobra.Command{
		Use:   "down [NAME]",
		Short: "Remove a lab and everything that was made for it",
		Long: `Down removes a lab: its processes, mounts, links, cgroups and files. Without a name it removes the lab that ` + labEnv + `
names, or "` + lab.DefaultName + `". A lab that was interrupted or is broken is removed the same way. Of clusters that existed
before, it removes what carries the lab's labels, and nothing else.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			names := []string{name}
			switch {
			case all && (len(args) > 0 || cmd.Flags().Changed("name")):
				return usagef("--all and the name %s: wanted one of them", name)
			case all:
				if names, err = labNames(cmd.Context(), home); err != nil {
					return err
				}
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			var errs []error
			for _, name := range names {
				start := time.Now()
				if err := lab.Down(ctx, home, name); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s is gone (%s)\n", name, words.Seconds(time.Since(start)))
			}
			return errors.Join(errs...)
		},
	}
	addLabFlag(cmd, &name)
	namedLab(cmd, &name)
	cmd.Flags().BoolVar(&all, "all", false, "remove every lab of this user")
	timeout.addTo(cmd, 3*time.Minute, "how long it may take")
	return cmd
}

func newListCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the labs of this machine and whether they work",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			labs, err := lab.List(cmd.Context(), home)
			if err != nil {
				return err
			}
			if output.json() {
				return printJSON(cmd.OutOrStdout(), labs)
			}
			if len(labs) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no labs: `eastwest up` makes one")
				return nil
			}
			return printLabs(cmd.OutOrStdout(), labs)
		},
	}
	output.addTo(cmd)
	return cmd
}

func printLabs(out io.Writer, labs []lab.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tPROVIDER\tTOPOLOGY\tCLUSTERS\tAGE\tMIB\tCPU-SECONDS")
	for _, l := range labs {
		alive := 0
		for _, c := range l.Clusters {
			if c.Alive {
				alive++
			}
		}
		age := "-"
		if !l.Made.IsZero() {
			age = time.Since(l.Made).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d/%d\t%s\t%.0f\t%.1f\n",
			l.Name, l.State, dash(l.Provider), dash(l.Topology), alive, len(l.Clusters), age, l.MemoryMiB, l.CPUSeconds)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range labs {
		if l.Problem != "" {
			fmt.Fprintf(out, "%s: %s\n", l.Name, l.Problem)
		}
	}
	return nil
}

func newStatusCommand() *cobra.Command {
	var (
		output outputFormat
		name   string
	)
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show one lab: its clusters and their components",
		Long:  `Status asks every cluster of a lab. The exit code is 0 if the lab works and 1 if it does not.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			s, err := lab.StatusOf(cmd.Context(), home, name)
			if err != nil {
				return err
			}
			if output.json() {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				err = printStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && s.State != lab.Running {
				return failed("") // the problem stands in what was printed
			}
			return err
		},
	}
	addLabFlag(cmd, &name)
	namedLab(cmd, &name)
	output.addTo(cmd)
	return cmd
}

func printStatus(out io.Writer, s lab.Status) error {
	fmt.Fprintf(out, "lab %s is %s\n", s.Name, s.State)
	if s.Problem != "" {
		fmt.Fprintf(out, "  %s\n", s.Problem)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if s.Provider != "" {
		fmt.Fprintf(w, "  provider\t%s\n  topology\t%s\n  made\t%s\n", s.Provider, s.Topology, s.Made.Local().Format(time.DateTime))
	}
	if s.Provider != "" && !s.Guest {
		fmt.Fprintf(w, "  memory\t%.0f MiB\n  CPU\t%.1f s\n", s.MemoryMiB, s.CPUSeconds)
	}
	for _, c := range s.Clusters {
		fmt.Fprintf(w, "\n%s\t%s\n", c.Name, dash(c.Server))
		if c.Context != "" {
			fmt.Fprintf(w, "  context\t%s\n", c.Context)
		}
		if c.Problem != "" {
			fmt.Fprintf(w, "  %s\n", c.Problem)
		}
		for _, p := range c.ControlPlanes {
			fmt.Fprintf(w, "  istiod\t%s\n", p)
		}
		for _, p := range c.Components {
			fmt.Fprintf(w, "  %s\t%s\n", p.Name, componentState(p))
		}
		for _, pod := range c.Frozen { // as freeze leaves it
			fmt.Fprintf(w, "  %s\tfrozen\n", pod)
		}
	}
	return w.Flush()
}

// componentState is the state of one component in a few words.
func componentState(p host.ProcessState) string {
	state := "running"
	switch {
	case p.PID == 0:
		state = "not running"
	case p.Stopped: // it is there and does nothing, as stop-component leaves it
		state = "stopped"
	}
	if p.Starts > 1 {
		state += fmt.Sprintf(", started %d times, last exit: %s", p.Starts, p.LastExit)
	}
	return state
}

func newEnvCommand() *cobra.Command {
	var name, kubeContext string
	cmd := &cobra.Command{
		Use:   "env [NAME]",
		Short: `Print what a shell needs: eval "$(eastwest env)"`,
		Long: `Env prints lines for a POSIX shell: KUBECONFIG with a context for every cluster of the lab, PATH with the lab's own
kubectl and istioctl in front, and, for those who have set HTTPS_PROXY, NO_PROXY with the addresses of the lab.

  eval "$(eastwest env)"
  kubectl --context=cluster-a get pods -A
  istioctl --context=cluster-a remote-clusters

Your own kubeconfig and its current context stay as they are.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			l, err := lab.Open(home, name)
			if err != nil {
				return err
			}
			defer l.Close()
			env := l.Env()
			if kubeContext != "" {
				if known := l.Topology.Clusters(); !slices.Contains(known, kubeContext) {
					return usagef("unknown context %q: lab %s has %s", kubeContext, name, strings.Join(known, ", "))
				}
				env.Kubeconfig += "-" + kubeContext
			}
			path := shellescape.Quote(env.BinDir)
			if env.MoreBin != "" {
				path += ":" + shellescape.Quote(env.MoreBin)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "export KUBECONFIG=%s\nexport PATH=%s:\"$PATH\"\n", shellescape.Quote(env.Kubeconfig), path)
			if env.NoProxy != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "export NO_PROXY=%s\n", shellescape.Quote(env.NoProxy))
			}
			return nil
		},
	}
	addLabFlag(cmd, &name)
	namedLab(cmd, &name)
	cmd.Flags().StringVar(&kubeContext, "context", "", "the cluster that kubectl means without --context (default: the first)")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		home, err := lab.Home()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		l, err := lab.Open(home, name)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer l.Close()
		return l.Topology.Clusters(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func dash(s string) string { return cmp.Or(s, "-") }
