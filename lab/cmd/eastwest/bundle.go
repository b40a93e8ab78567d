package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// newBundleCommand is `eastwest bundle`.
func newBundleCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "bundle",
		Short: "Build, inspect, hand out and take in what labs are made of",
		Long: `The bundle holds everything that a lab runs: Kubernetes, etcd, containerd, Istio and the container images, built
from pinned sources. It lives in the user's cache folder, or where $` + bundle.EnvDir + ` says.`,
	})
	cmd.AddCommand(
		newBundleBuildCommand(),
		newBundleListCommand(),
		newBundleVerifyCommand(),
		newBundleExportCommand(),
		newBundleImportCommand(),
	)
	return cmd
}

func newBundleBuildCommand() *cobra.Command {
	var (
		parallel int
		with     []string
		tools    bool
		timeout  timeoutFlag
	)
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build what is missing or damaged",
		Long: `Build makes the bundle from pinned sources: about 12 minutes on two cores the first time. It checks what is there
byte by byte, keeps it, and goes on where an interrupted build stopped.

--with kind adds what labs of the provider kind need to pull nothing: a node image, made by kind's own command from
the bundle's files and a Debian, with all images in it. It needs root and a running Docker (scripts/docker-up starts
one), and takes a few minutes more.

--with istio-previous adds the version of Istio before the current one, for labs that show an upgrade: istioctl, and the
images of istiod and the proxy.

--tools builds kubectl and istioctl alone, which is all that labs need whose nodes pull published images (eastwest up
--hub, --tag).`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start := time.Now()
			for _, w := range with {
				if !slices.Contains(bundle.ExtraNames(), w) {
					return usagef("--with %s: wanted one of %s", w, strings.Join(bundle.ExtraNames(), ", "))
				}
			}
			ctx, cancel := timeout.bound(cmd.Context())
			defer cancel()
			b, err := buildBundle(ctx, cmd.ErrOrStderr(), bundle.BuildOptions{Parallel: parallel, With: with, Tools: tools})
			if err != nil {
				return err
			}
			return printBundle(cmd.OutOrStdout(), b, start)
		},
	}
	cmd.Flags().IntVar(&parallel, "parallel", 0, "components built at once; 0 means the number of CPUs")
	cmd.Flags().StringSliceVar(&with, "with", nil, "what else to build: "+strings.Join(bundle.ExtraNames(), ", "))
	cmd.Flags().BoolVar(&tools, "tools", false, "build kubectl and istioctl alone")
	cmd.MarkFlagsMutuallyExclusive("with", "tools")
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("with", cobra.FixedCompletions(bundle.ExtraNames(), cobra.ShellCompDirectiveNoFileComp))
	timeout.addTo(cmd, 2*time.Hour, "how long it may take; what is done by then is kept")
	return cmd
}

func newBundleListCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show versions, images and files",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := openTools()
			if err != nil {
				return err
			}
			if output.json() {
				return printBundleJSON(cmd.OutOrStdout(), b)
			}
			return printBundleTable(cmd.OutOrStdout(), b)
		},
	}
	output.addTo(cmd)
	return cmd
}

func newBundleVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read every file and compare it with its digest",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start := time.Now()
			b, err := openTools()
			if err != nil {
				return err
			}
			problems, err := b.Verify()
			if err != nil {
				return err
			}
			if len(problems) > 0 {
				damage := &bundle.SetupError{
					What: "the bundle in " + b.Dir() + " is damaged",
					Try:  "run `" + bundle.Repair(problems) + "`, which makes only the damaged parts again",
				}
				for _, p := range problems {
					damage.Missing = append(damage.Missing, p.String())
				}
				return damage
			}
			return printBundle(cmd.OutOrStdout(), b, start)
		},
	}
}

func newBundleExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the bundle to one file, for machines without network",
		Args:  takes(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := time.Now()
			b, err := openBundle()
			if err != nil {
				return err
			}
			if err := b.ExportFile(cmd.Context(), args[0]); err != nil {
				return err
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d MiB, %.1f s\n", args[0], info.Size()>>20, time.Since(start).Seconds())
			return err
		},
	}
}

func newBundleImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take in a file that `bundle export` wrote",
		Args:  takes(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := time.Now()
			dir, err := bundle.DefaultDir()
			if err != nil {
				return err
			}
			b, err := bundle.Import(cmd.Context(), args[0], dir)
			if err != nil {
				return err
			}
			return printBundle(cmd.OutOrStdout(), b, start)
		},
	}
}

func openBundle() (*bundle.Bundle, error) { return openWith(bundle.Open) }

// openTools opens what there is of the bundle: it may be its tools alone.
func openTools() (*bundle.Bundle, error) { return openWith(bundle.OpenTools) }

func openWith(open func(dir string) (*bundle.Bundle, error)) (*bundle.Bundle, error) {
	dir, err := bundle.DefaultDir()
	if err != nil {
		return nil, err
	}
	return open(dir)
}

// ensureBundle builds the bundle where there is none or a damaged one.
func ensureBundle(ctx context.Context, stderr io.Writer) error {
	return ensure(ctx, stderr, openBundle, bundle.BuildOptions{})
}

// ensureBundleFor does the same with what a lab needs of it.
func ensureBundleFor(ctx context.Context, stderr io.Writer, o lab.Options) error {
	if o.OnlyTools(ctx) {
		return ensure(ctx, stderr, openTools, bundle.BuildOptions{Tools: true})
	}
	if err := ensureBundle(ctx, stderr); err != nil {
		return err
	}
	return ensureIstios(ctx, stderr, o.Topology)
}

// ensureBundleForAll does the same with what scenarios need.
func ensureBundleForAll(ctx context.Context, stderr io.Writer, all []*scenario.Scenario) error {
	if err := ensureBundle(ctx, stderr); err != nil {
		return err
	}
	for _, s := range all {
		if err := ensureIstios(ctx, stderr, s.Topology); err != nil {
			return err
		}
	}
	return nil
}

// ensureIstios builds the versions of Istio that a topology names and the bundle lacks.
func ensureIstios(ctx context.Context, stderr io.Writer, t scenario.Topology) error {
	for _, version := range t.OtherIstios() {
		part := bundle.IstioPart(string(version))
		has := func() (*bundle.Bundle, error) {
			b, err := openBundle()
			if err == nil {
				_, err = b.Istio(string(version))
			}
			return b, err
		}
		if err := ensure(ctx, stderr, has, bundle.BuildOptions{With: []string{part}}); err != nil {
			return err
		}
	}
	return nil
}

func ensure(ctx context.Context, stderr io.Writer, open func() (*bundle.Bundle, error), o bundle.BuildOptions) error {
	if _, err := open(); err == nil {
		return nil
	}
	_, err := buildBundle(ctx, stderr, o)
	return err
}

// buildBundle builds with progress on stderr: a bar per component on a terminal, lines elsewhere.
func buildBundle(ctx context.Context, stderr io.Writer, o bundle.BuildOptions) (*bundle.Bundle, error) {
	show, end := bundleProgress(stderr)
	o.Progress = show
	b, err := bundle.Build(ctx, o)
	end()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, fmt.Errorf("building the bundle: %w; what is done is kept", cause) // whatever it cut off
	}
	return b, err
}

func printBundle(w io.Writer, b *bundle.Bundle, start time.Time) error {
	_, err := fmt.Fprintf(w, "bundle %s in %s (%.1f s)\n", b.Digest(), b.Dir(), time.Since(start).Seconds())
	return err
}

// bundleJSON is what `bundle list -o json` prints; its names are stable.
type bundleJSON struct {
	Digest     string            `json:"digest"`
	Dir        string            `json:"dir"`
	Versions   map[string]string `json:"versions"`
	IstioProxy bundle.IstioProxy `json:"istioProxy"`
	Images     []bundle.Image    `json:"images"`
	Components []bundle.Part     `json:"components"`
	KindNode   *kindNodeJSON     `json:"kindNodeImage,omitempty"`
	Istio      []istioJSON       `json:"istio"` // the versions that are there, newest first
}

// istioJSON is one version of Istio.
type istioJSON struct {
	Version  string            `json:"version"` // "current", "previous"
	Tag      string            `json:"tag"`
	Digest   string            `json:"digest"` // of the part that holds it
	Istioctl string            `json:"istioctl"`
	Proxy    bundle.IstioProxy `json:"proxy"`
	Images   []bundle.Image    `json:"images"`
}

// istios returns the versions of Istio that are there and whole.
func istios(b *bundle.Bundle) []bundle.Istio {
	var all []bundle.Istio
	for _, name := range bundle.IstioVersions() {
		if istio, err := b.Istio(name); err == nil {
			all = append(all, istio)
		}
	}
	return all
}

// kindNodeJSON is the node image for kind, where it was built.
type kindNodeJSON struct {
	Ref     string `json:"ref"`
	Archive string `json:"archive"` // for `docker load`
}

func printBundleJSON(w io.Writer, b *bundle.Bundle) error {
	all := bundleJSON{
		Digest: b.Digest(), Dir: b.Dir(), Versions: b.Versions(), IstioProxy: b.IstioProxy(), Images: b.Images(), Components: b.Parts(),
	}
	if archive, ref, ok := b.KindNodeImage(); ok {
		all.KindNode = &kindNodeJSON{Ref: ref, Archive: archive}
	}
	for _, i := range istios(b) {
		all.Istio = append(all.Istio, istioJSON{
			Version: i.Version, Tag: i.Tag, Digest: i.Digest, Istioctl: i.Istioctl, Proxy: i.Proxy, Images: i.Images,
		})
	}
	return printJSON(w, all)
}

func printBundleTable(out io.Writer, b *bundle.Bundle) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "digest\t%s\nfolder\t%s\n\n", b.Digest(), b.Dir())
	fmt.Fprintln(w, "COMPONENT\tVERSION\tMIB\tFILE")
	for _, p := range b.Parts() {
		name, version := p.Name, p.Version
		for i, f := range p.Files {
			if i > 0 {
				name, version = "", ""
			}
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\n", name, version, float64(f.Size)/(1<<20), f.Path)
		}
	}
	fmt.Fprintln(w, "\nIMAGE\t\t\tDIGEST")
	images := b.Images()
	for _, istio := range istios(b) {
		if istio.Version != bundle.Current {
			images = append(images, istio.Images...)
		}
	}
	for _, i := range images {
		fmt.Fprintf(w, "%s\t\t\t%s\n", i.Ref, i.Digest)
	}
	if archive, ref, ok := b.KindNodeImage(); ok {
		fmt.Fprintf(w, "\nNODE IMAGE FOR KIND\t\t\tARCHIVE\n%s\t\t\t%s\n", ref, archive)
	}
	fmt.Fprintln(w, "\nISTIO\tTAG\tENVOY\tISTIOCTL")
	for _, i := range istios(b) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.Version, i.Tag, i.Proxy.Version, i.Istioctl)
	}
	return w.Flush()
}
