package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// version is set by the Makefile.
var version = "devel"

// versionJSON is what `version -o json` prints; its names are stable.
type versionJSON struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Bundle   string            `json:"bundle,omitempty"` // digest; empty where no bundle has been built
	Parts    map[string]string `json:"parts,omitempty"`  // of the bundle
}

func newVersionCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of the command and of what its bundle holds",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionJSON{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if b, err := openTools(); err == nil {
				v.Bundle, v.Parts = b.Digest(), b.Versions()
				for _, i := range istios(b) {
					if i.Version != bundle.Current {
						v.Parts["istio-"+i.Version] = i.Tag
					}
				}
			}
			if output.json() {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return printVersion(cmd.OutOrStdout(), v)
		},
	}
	output.addTo(cmd)
	return cmd
}

func printVersion(out io.Writer, v versionJSON) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "eastwest\t%s\t%s, %s\n", v.Version, v.Go, v.Platform)
	if v.Bundle == "" {
		fmt.Fprintln(w, "bundle\tnone\tbuilt by the first `eastwest up`, or by `eastwest bundle build`")
		return w.Flush()
	}
	fmt.Fprintf(w, "bundle\t%.19s\t\n", v.Bundle)
	for _, name := range slices.Sorted(maps.Keys(v.Parts)) {
		fmt.Fprintf(w, "  %s\t%s\t\n", name, v.Parts[name])
	}
	return w.Flush()
}
