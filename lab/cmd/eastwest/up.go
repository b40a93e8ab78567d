package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// labFlags are the flags that say which lab is wanted. The settings of its provider are among them.
type labFlags struct {
	topologyFlags
	provider string
	settings lab.Settings // the given ones
}

// addTo adds the flags to a command that can use the providers.
func (f *labFlags) addTo(cmd *cobra.Command, providers []string) {
	f.provider, f.settings = lab.Auto, lab.Settings{}
	choice{&f.provider, "provider", "who makes the clusters", providers}.addTo(cmd)
	f.topologyFlags.addTo(cmd)
	for _, s := range lab.SettingsOf(providers...) {
		flag := cmd.Flags().VarPF(settingFlag{s, f.settings}, s.Name, "", "with --provider "+words.Or(s.Providers)+": "+s.Help)
		if s.Bool {
			flag.NoOptDefVal = "true"
		}
		// The only error is a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc(s.Name, completeSetting(s.Name, func() lab.Settings { return f.settings }))
	}
}

func (f *labFlags) options(home, name string) (lab.Options, error) {
	t, err := f.topology()
	if wrong := (choice{value: &f.provider, flag: "provider", words: lab.Providers()}).check(); wrong != nil {
		err = usageError{errors.Join(wrong, err)}
	}
	return lab.Options{Home: home, Name: name, Provider: f.provider, Settings: f.settings, Topology: t}, err
}

// completeSetting completes the value of a setting, where the other settings are those that given returns.
func completeSetting(name string, given func() lab.Settings) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		choices, err := given().Choices(name)
		switch {
		case err != nil:
			return nil, cobra.ShellCompDirectiveError
		case choices == nil:
			return nil, cobra.ShellCompDirectiveDefault // files
		}
		return choices, cobra.ShellCompDirectiveNoFileComp
	}
}

// settingFlag collects the values of one setting. Which values a setting takes, its provider decides once it is chosen.
type settingFlag struct {
	setting lab.Setting
	given   lab.Settings
}

// Set implements pflag.Value.
func (f settingFlag) Set(value string) error {
	f.given[f.setting.Name] = append(f.given[f.setting.Name], value)
	return nil
}

// String implements pflag.Value.
func (f settingFlag) String() string { return strings.Join(f.given[f.setting.Name], ",") }

// Type implements pflag.Value.
func (f settingFlag) Type() string {
	switch {
	case f.setting.Bool:
		return "bool"
	case f.setting.List:
		return "stringArray"
	}
	return "string"
}

// upJSON is what `up -o json` prints; its names are stable.
type upJSON struct {
	Name       string     `json:"name"`
	Kubeconfig string     `json:"kubeconfig"`
	Contexts   []string   `json:"contexts"`
	Seconds    float64    `json:"seconds"`
	Made       bool       `json:"made"` // false: it was there and works
	Proof      []callJSON `json:"proof"`
}

// callJSON is a call between two clusters that was answered.
type callJSON struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Pod    string `json:"pod"`
	Client string `json:"client"` // SPIFFE identities
	Server string `json:"server"`
}

func newUpCommand() *cobra.Command {
	var (
		name    string
		flags   labFlags
		timeout timeoutFlag
		output  outputFormat
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Make a lab: clusters, Istio across them, and a proof that they trust each other",
		Long: `Up makes a lab and proves that each cluster gets an answer from the other over mutual TLS. A lab that is there already
and works is left as it is; one that does not work is made anew. When up fails or is interrupted, nothing is left behind.

The clusters are those of a topology of the lesson (--topology) or of a file that lists them (-f); eastwest explain
--topology or -f prints the steps of making it, eastwest schema --topology the schema of such files.

` + lab.ProvidersHelp() + `

With --hub and --tag, which go together, the images of the mesh are published ones, HUB/pilot:TAG, HUB/proxyv2:TAG and
HUB/app:TAG, in place of the bundle's: nodes of kind pull them, and are not sealed for that (--egress). Nothing of the
bundle is needed then but kubectl and istioctl, nor of its node image with --kind-image. Istio's manifests stay those of
that istioctl, so TAG should be a version near it; images of the bundle that were pushed somewhere keep its tag. If
an image cannot be pulled, up ends 20 s after the first try has failed.

The first lab on a machine needs the bundle: up builds what the lab needs of it (see eastwest bundle --help).`,
		Example: `  eastwest up --topology primary-remote --network shared
  eastwest up -f manifests/topologies/three-primaries.yaml
  eastwest up --provider kind
  eastwest up --provider kind --hub docker.io/istio --tag 1.31.0
  eastwest up --provider existing --context kind-east --context kind-west --hub registry.example/istio --tag 1.31.0`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			o, err := flags.options(home, name)
			if err != nil {
				return err
			}
			if err := lab.Check(cmd.Context(), o); err != nil {
				return wrongUnlessSetup(err)
			}
			if err := ensureBundleFor(cmd.Context(), progress(cmd), o); err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			steps := newStepPrinter(progress(cmd), verbose)
			o.Progress = steps.show
			start := time.Now()
			l, err := lab.Up(ctx, o)
			if err := steps.end(err); err != nil {
				return wrongUnlessSetup(err)
			}
			defer l.Close()
			took := time.Since(start)
			if output.json() {
				return printJSON(cmd.OutOrStdout(), upResult(l, took))
			}
			return printUp(cmd.OutOrStdout(), l, took)
		},
	}
	addLabFlag(cmd, &name)
	namedLab(cmd, &name)
	flags.addTo(cmd, lab.Providers())
	timeout.addTo(cmd, 10*time.Minute, "how long making the lab may take, the bundle aside")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show for each step the commands that do the same by hand")
	output.addTo(cmd)
	return cmd
}

// wrongUnlessSetup sorts the errors of making a lab: what is not about the machine is about the command line.
func wrongUnlessSetup(err error) error {
	var (
		inLab    *lab.SetupError
		inBundle *bundle.SetupError
	)
	if errors.As(err, &inLab) || errors.As(err, &inBundle) {
		return err
	}
	return usageError{err}
}

func upResult(l *lab.Lab, took time.Duration) upJSON {
	j := upJSON{
		Name: l.Name, Kubeconfig: l.Env().Kubeconfig, Contexts: l.Topology.Clusters(), Seconds: took.Seconds(), Made: len(l.Answers) > 0,
		Proof: []callJSON{},
	}
	for _, a := range l.Answers {
		j.Proof = append(j.Proof, callJSON{From: a.From, To: a.To, Pod: a.Pod, Client: a.Client, Server: a.Server})
	}
	return j
}

func printUp(w io.Writer, l *lab.Lab, took time.Duration) error {
	t := l.Topology
	what := string(t.Kind)
	switch t.Kind {
	case scenario.NoMesh:
	case "":
		what = fmt.Sprintf("%s, trust %s", cmp.Or(t.Name, "as listed"), t.Trust)
	default:
		what += fmt.Sprintf(", network %s, trust %s", t.Network, t.Trust)
	}
	clusters := strings.Join(t.Clusters(), ", ")
	if i := strings.LastIndex(clusters, ", "); i >= 0 {
		clusters = clusters[:i] + " and " + clusters[i+2:]
	}
	fmt.Fprintf(w, "lab %s works: %s (%s), %s\n", l.Name, clusters, what, words.Seconds(took))
	for _, a := range l.Answers {
		if a.From != a.To {
			fmt.Fprintf(w, "  %s → %s: answered by %s over mutual TLS, %s to %s\n", a.From, a.To, a.Pod, a.Client, a.Server)
		}
	}
	label := nameFlag(l.Name)
	next := "eastwest run" + label + " mismatched-root-ca"
	if t.Kind != scenario.MultiPrimary {
		next = "kubectl --context=" + t.Clusters()[0] + " get pods -A"
	}
	_, err := fmt.Fprintf(w, "\nnext:\n  eval \"$(eastwest env%s)\"\n  %s\n", label, next)
	return err
}
