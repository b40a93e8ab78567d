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
)

// labFlags are the flags that say which lab is wanted.
type labFlags struct {
	topologyFlags
	provider, addresses string
	egress              bool
}

func (f *labFlags) addTo(cmd *cobra.Command) {
	f.provider = lab.Auto
	choice{&f.provider, "provider", "who makes the clusters", lab.Providers()}.addTo(cmd)
	f.topologyFlags.addTo(cmd)
	cmd.Flags().StringVar(&f.addresses, "range", "", "the embedded lab's private /16, like 10.77.0.0/16 (default: one that is free)")
	cmd.Flags().BoolVar(&f.egress, "egress", false, "let the lab reach what this machine reaches; it is sealed otherwise")
}

func (f *labFlags) options(home, name string) (lab.Options, error) {
	t, err := f.topology()
	return lab.Options{Home: home, Name: name, Provider: f.provider, Range: f.addresses, Egress: f.egress, Topology: t}, err
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
		Use:   "up",
		Short: "Make a lab: clusters, Istio across them, and a proof that they trust each other",
		Long: `Up makes a lab and proves that each cluster gets an answer from the other over mutual TLS. A lab that is there already
and works is left as it is; one that does not work is made anew. When up fails or is interrupted, nothing is left behind.

The clusters are those of a topology of the lesson (--topology) or of a file that lists them (-f); eastwest explain
--topology or -f prints the steps of making it, eastwest schema --topology the schema of such files.

The first lab on a machine needs the bundle: up builds it (see eastwest bundle --help).`,
		Example: `  eastwest up --topology primary-remote --network shared
  eastwest up -f manifests/topologies/three-primaries.yaml`,
		Args: cobra.NoArgs,
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
			if err := ensureBundle(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			steps := newStepPrinter(cmd.ErrOrStderr(), verbose)
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
	flags.addTo(cmd)
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
		Name: l.Name, Kubeconfig: l.Env().Kubeconfig, Contexts: l.Topology.Clusters(), Seconds: took.Seconds(), Made: len(l.Answers) > 0, Proof: []callJSON{},
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
	fmt.Fprintf(w, "lab %s works: %s (%s), %s\n", l.Name, clusters, what, seconds(took))
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
