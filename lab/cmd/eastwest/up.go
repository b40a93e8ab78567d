package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// labFlags are the flags that say which lab is wanted.
type labFlags struct {
	topologyFlags
	provider, addresses, kindImage string
	images                         lab.Images
	egress                         bool
}

func (f *labFlags) addTo(cmd *cobra.Command) {
	f.provider = lab.Auto
	choice{&f.provider, "provider", "who makes the clusters", lab.Providers()}.addTo(cmd)
	f.topologyFlags.addTo(cmd)
	cmd.Flags().
		StringVar(&f.addresses, "range", "", "the lab's private /16, like 10.77.0.0/16, with --provider embedded or kind (default: one "+
			"that is free)")
	cmd.Flags().
		StringVar(&f.kindImage, "kind-image", "", "with --provider kind: the node image, like kindest/node:v1.36.1 (default: the "+
			"bundle's, or kind's own where the bundle was built without)")
	cmd.Flags().BoolVar(&f.egress, "egress", false, "let the lab reach what this machine reaches; it is sealed otherwise")
	cmd.Flags().
		StringVar(&f.images.Hub, "hub", "", "with --provider kind or existing: the registry's folder with the images pilot, proxyv2 and "+
			"app, like docker.io/istio; nodes of kind pull them, so it implies --egress (default: the bundle's)")
	cmd.Flags().StringVar(&f.images.Tag, "tag", "", "the tag of the images of --hub, like 1.31.0")
}

func (f *labFlags) options(home, name string) (lab.Options, error) {
	t, err := f.topology()
	if wrong := (choice{value: &f.provider, flag: "provider", words: lab.Providers()}).check(); wrong != nil {
		err = usageError{errors.Join(wrong, err)}
	}
	return lab.Options{
		Home:      home,
		Name:      name,
		Provider:  f.provider,
		Range:     f.addresses,
		Egress:    f.egress,
		KindImage: f.kindImage,
		Images:    f.images,
		Topology:  t,
	}, err
}

// foreignFlags say which clusters the provider existing takes.
type foreignFlags struct {
	foreign    lab.Foreign
	apiServers []string
}

func (f *foreignFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().
		StringArrayVar(&f.foreign.Contexts, "context", nil, "with --provider existing: the kubeconfig context of a cluster; once for "+
			"each of the lab's, in their order")
	cmd.Flags().
		StringVar(&f.foreign.Kubeconfig, "kubeconfig", "", "with --provider existing: the kubeconfig that has them, which is only read "+
			"(default: what kubectl takes)")
	cmd.Flags().
		StringArrayVar(&f.apiServers, "api-server", nil, "with --provider existing: where other clusters reach the API server of one, "+
			"like cluster-a=https://10.0.0.1:6443 (default: what the kubeconfig says)")
	cmd.Flags().
		BoolVar(&f.foreign.Adopt, "adopt", false, "with --provider existing: use the Istio that is there, and install nothing but the lab's apps")
	_ = cmd.RegisterFlagCompletionFunc("context", completeContexts)
}

// options puts the flags into the lab's options.
func (f *foreignFlags) options(cmd *cobra.Command, o *lab.Options) error {
	for _, name := range []string{"context", "kubeconfig", "api-server", "adopt"} {
		if cmd.Flags().Changed(name) && o.Provider != lab.Existing {
			return usagef("--%s: only clusters that are there have it: wanted --provider %s with it", name, lab.Existing)
		}
	}
	for _, text := range f.apiServers {
		cluster, server, ok := strings.Cut(text, "=")
		if !ok {
			return usagef("--api-server %s: wanted the lab's name of a cluster and an address, like cluster-a=https://10.0.0.1:6443", text)
		}
		if f.foreign.APIServers == nil {
			f.foreign.APIServers = map[string]string{}
		}
		f.foreign.APIServers[cluster] = server
	}
	files := filepath.SplitList(f.foreign.Kubeconfig)
	for i, file := range files { // it is read again from elsewhere
		path, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		files[i] = path
	}
	f.foreign.Kubeconfig = strings.Join(files, string(filepath.ListSeparator))
	o.Existing = f.foreign
	return nil
}

// completeContexts completes the name of a context.
func completeContexts(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	kubeconfig, err := cmd.Flags().GetString("kubeconfig")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	contexts, err := lab.Contexts(kubeconfig)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return contexts, cobra.ShellCompDirectiveNoFileComp
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
		foreign foreignFlags
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

With --provider kind the clusters are made by kind, in containers of the Docker Engine of this machine, with a Docker
network for each lab. The node image is that of the bundle, if it was built for it (eastwest bundle build --with kind), so
that nothing is pulled; down removes all of it.

With --hub and --tag, which go together, the images of the mesh are published ones, HUB/pilot:TAG, HUB/proxyv2:TAG and
HUB/app:TAG, in place of the bundle's: nodes of kind pull them, and are not sealed for that (--egress). Nothing of the
bundle is needed then but kubectl and istioctl, nor of its node image with --kind-image. Istio's manifests stay those of
that istioctl, so TAG should be a version near it; images of the bundle that were pushed somewhere keep its tag. kind hands
HTTP_PROXY, HTTPS_PROXY and NO_PROXY on to its nodes. When an image cannot be pulled, up ends 20 s after the first try has
failed.

With --provider existing the clusters are contexts of a kubeconfig, made by whatever tool. Everything that up makes there
carries the lab's labels, and nothing else is changed: when an object of that name is there, up refuses before it makes
any. down removes what up has made and leaves the clusters. The images come from a registry (--hub and --tag), or from the
nodes, where the bundle's have been loaded into them. With --adopt an Istio that is there is used, for scenarios that say
how far they reach.

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
			if err := foreign.options(cmd, &o); err != nil {
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
	flags.addTo(cmd)
	foreign.addTo(cmd)
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
