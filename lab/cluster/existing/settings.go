package existing

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// Settings say which clusters a lab takes, and what it puts there.
type Settings struct {
	Kubeconfig files          `json:"kubeconfig,omitempty"` // as in $KUBECONFIG; what kubectl takes when empty
	Contexts   cluster.List   `json:"contexts"`             // in the order of the lab's clusters
	APIServers servers        `json:"api_servers,omitempty"`
	Adopt      bool           `json:"adopt,omitempty"` // use the Istio that is there
	Images     cluster.Images `json:"images,omitzero"`
}

var (
	_ cluster.Settings = (*Settings)(nil)
	_ cluster.Guest    = (*Settings)(nil)
	_ cluster.Puller   = (*Settings)(nil)
	_ cluster.Chooser  = (*Settings)(nil)
)

// Flags implements cluster.Settings.
func (s *Settings) Flags(f *flag.FlagSet) {
	f.Var(&s.Contexts, "context", "the kubeconfig context of a cluster; once for each of the lab's, in their order")
	f.Var(&s.Kubeconfig, "kubeconfig", "the kubeconfig that has them, which is only read (default: what kubectl takes)")
	f.Var(&s.APIServers, "api-server", "where other clusters reach the API server of one, "+
		"like cluster-a=https://10.0.0.1:6443 (default: what the kubeconfig says)")
	f.BoolVar(&s.Adopt, "adopt", s.Adopt, "use the Istio that is there, and install nothing but the lab's apps")
	s.Images.Flags(f)
}

// Complete implements cluster.Settings. What the kubeconfig says is for Provider.Check.
func (s *Settings) Complete() error { return s.Images.Check() }

// New implements cluster.Settings.
func (s *Settings) New(lab cluster.Lab) cluster.Provider { return &Provider{Lab: lab, Settings: *s} }

// Adopts implements cluster.Guest.
func (s *Settings) Adopts() bool { return s.Adopt }

// Pulls implements cluster.Puller.
func (s *Settings) Pulls() cluster.Images { return s.Images }

// Choices implements cluster.Chooser.
func (s *Settings) Choices(flag string) ([]string, error) {
	if flag != "context" {
		return nil, nil
	}
	config, err := load(s.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(config.Contexts)), nil
}

// Available returns what the provider needs: it is never chosen without being asked for.
func Available(context.Context) cluster.State {
	return cluster.State{
		Problem: errors.New("needs clusters that are there, and the names of their contexts"), Fix: "--provider existing --context …",
	}
}

// files is a list of files as in $PATH. The files are read again by commands that run elsewhere, so their paths are absolute.
type files string

// Set implements flag.Value.
func (f *files) Set(text string) error {
	list := filepath.SplitList(text)
	for i, file := range list {
		path, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		list[i] = path
	}
	*f = files(strings.Join(list, string(filepath.ListSeparator)))
	return nil
}

// String implements flag.Value.
func (f *files) String() string { return string(*f) }

// servers are addresses of API servers by the lab's names of their clusters.
type servers map[string]string

// Set implements flag.Value: it adds an address.
func (s *servers) Set(text string) error {
	name, address, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("wanted the lab's name of a cluster and an address, like cluster-a=https://10.0.0.1:6443")
	}
	if *s == nil {
		*s = servers{}
	}
	(*s)[name] = address
	return nil
}

// String implements flag.Value.
func (s *servers) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(*s)) {
		list = append(list, fmt.Sprintf("%s=%s", name, (*s)[name]))
	}
	return strings.Join(list, ",")
}

// Reset forgets all addresses. Those of earlier are not meant when the flag is given again.
func (s *servers) Reset() { *s = nil }

// Help is the paragraph about this provider in `eastwest up --help`.
const Help = `With --provider existing the clusters are contexts of a kubeconfig, made by any other tool. Everything that up makes there
carries the lab's labels, and nothing else is changed: if an object of that name is there, up makes nothing. down removes
what up has made and leaves the clusters. The images come from a registry (--hub and --tag), or from the nodes, if the
bundle's have been loaded into them. With --adopt the lab uses an Istio that is there, for scenarios that say how far
they reach.`
