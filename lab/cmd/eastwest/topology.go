package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
)

// topologyFlags are the flags that say which clusters are wanted: a file, or a kind of topology.
type topologyFlags struct {
	cmd                               *cobra.Command // knows which flags are given
	file, kind, network, trust, istio string
}

func (f *topologyFlags) choices() []choice {
	return []choice{
		{&f.kind, "topology", "which clusters run a control plane", asStrings(scenario.Kinds())},
		{&f.network, "network", "how pods of different clusters meet", asStrings(scenario.Networks())},
		{&f.trust, "trust", "who signs the workloads' certificates", asStrings(scenario.Trusts())},
		{&f.istio, "istio", "version of Istio", asStrings(scenario.Versions())},
	}
}

func (f *topologyFlags) addTo(cmd *cobra.Command) {
	t := lab.DefaultTopology()
	f.cmd, f.kind, f.network, f.trust, f.istio = cmd, string(t.Kind), string(t.Network), string(t.Trust), string(scenario.Current)
	const file = "file"
	cmd.Flags().StringVarP(&f.file, file, "f", "", "topology file, instead of --topology, --network, --trust and --istio")
	_ = cmd.MarkFlagFilename(file, "yaml", "yml") // the only error is a flag that does not exist
	for _, c := range f.choices() {
		c.addTo(cmd)
		cmd.MarkFlagsMutuallyExclusive(file, c.flag)
	}
}

// given tells whether any of the flags is.
func (f *topologyFlags) given() bool {
	flags := f.cmd.Flags()
	return flags.Changed("file") || flags.Changed("topology") || flags.Changed("network") || flags.Changed("trust") || flags.Changed("istio")
}

// topology is what the flags ask for, checked; the error has everything that is wrong with it.
func (f *topologyFlags) topology() (scenario.Topology, error) {
	if f.cmd.Flags().Changed("file") {
		t, err := scenario.LoadTopology(f.file)
		return t, usageUnlessProblems(err)
	}
	var errs []error
	for _, c := range f.choices() {
		errs = append(errs, c.check())
	}
	if err := errors.Join(errs...); err != nil {
		return scenario.Topology{}, usageError{err}
	}
	t := scenario.Topology{Kind: scenario.Kind(f.kind), Network: scenario.Network(f.network), Trust: scenario.Trust(f.trust)}
	if f.istio != string(scenario.Current) { // what is left out is the current version
		t.Istio = scenario.Version(f.istio)
	}
	if err := t.Validate(); err != nil {
		return t, usagef("--topology %s --network %s --trust %s: %w", f.kind, f.network, f.trust, err)
	}
	return t, nil
}

// usageUnlessProblems makes a file that cannot be read a wrong command line; one with problems tells them itself.
func usageUnlessProblems(err error) error {
	if problems := new(strict.Problems); err != nil && !errors.As(err, &problems) {
		return usageError{err}
	}
	return err
}
