package cluster

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// Spec is a requested cluster.
type Spec struct {
	Lab     string // name of the lab that owns it
	Name    string // "cluster-a": also its context, Istio cluster id and part of every label
	Network string // Istio network, "network-a"
	Index   int    // 1-based position in the lab; providers derive addresses from it
	Of      int    // number of clusters in the lab
	// Neighbors are the positions of the clusters on the same network, whose pods reach each other by address.
	Neighbors []int
	// Definitions is a file with CustomResourceDefinitions, as a JSON list, that the cluster may have from its start. Only
	// a Seeder reads it.
	Definitions string
}

// Provider makes, finds and removes clusters on some kind of infrastructure.
type Provider interface {
	// Check returns nil, or everything this machine lacks and how to get it. It changes nothing that a lab needs.
	Check(ctx context.Context) error
	// Create returns a usable cluster: API up, node Ready, default ServiceAccount there; or, if the
	// cluster is Starting, one whose API answers. A cluster of this lab and name that already runs is
	// returned as it is.
	Create(ctx context.Context, spec Spec) (Cluster, error)
	// Open returns a cluster that was created before, also by another process, whether it runs or not.
	Open(lab, name string) (Cluster, error)
	// Delete removes a lab's clusters and everything made for them. It returns nil if they are already gone.
	Delete(ctx context.Context, lab string) error
}

// Claimer is implemented by providers whose labs share names with those of other homes, such as names of cgroups and links on
// one machine. Create and Delete look at what is there and then act, so two labs of one name would end each other.
type Claimer interface {
	Provider
	// Claim takes the name of a lab before anything is made for it, and removes what is left under that name of a lab that died
	// with its files. The error is a *TakenError where another home has
	// a lab of that name, or makes or removes one. Until release is called nobody else can claim the name. After that, or if
	// this process is killed, what was made of the lab keeps others from the name.
	Claim(ctx context.Context, lab string) (release func(), err error)
}

// TakenError says that the name of a lab is another home's.
type TakenError struct {
	Lab   string
	Home  string // the other one; empty if it is not known
	Where string // where names are shared; "on this machine" if empty
	Seen  string // of the other lab
}

func (e *TakenError) Error() string {
	home := "another EASTWEST_HOME"
	if e.Home != "" {
		home += " (" + e.Home + ")"
	}
	return fmt.Sprintf("lab %[1]s: wanted a name that is free %[2]s; seen: a lab %[1]s that was made with %[3]s, %[4]s: "+
		"choose another --name, or remove it where it was made", e.Lab, cmp.Or(e.Where, "on this machine"), home, e.Seen)
}

// Lab is the part of a lab that its provider needs to know. Opening and deleting clusters needs Home only.
type Lab struct {
	Home         string         // folder of all labs
	ID           string         // see IDLabel
	Clusters     []string       // names of the lab's clusters, in order
	ReadByOthers []string       // those of them whose API servers are read by istiods of other clusters
	Bundle       *bundle.Bundle // what nodes run
	Images       []bundle.Image // what nodes have besides the bundle's images
	// Progress is called when a cluster has reached a milestone, with the time since its making began. It may be nil.
	Progress func(cluster, milestone string, since time.Duration)
}

// Milestones returns the function that reports the milestones of a cluster whose making begins now.
func (l Lab) Milestones(cluster string) (tell func(milestone string)) {
	begin := time.Now()
	return func(milestone string) {
		if l.Progress != nil {
			l.Progress(cluster, milestone, time.Since(begin))
		}
	}
}

// Opened returns a cluster, or the error of opening it. A nil pointer to a cluster would be a Cluster that is not nil.
func Opened[C Cluster](c C, err error) (Cluster, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Settings are all that can be set for the clusters of one provider. They are written down with the lab, as JSON.
// A provider has one struct of them, whose pointer implements this interface.
type Settings interface {
	// Flags declares each setting as a flag, whose value is the setting's own variable. All flags of all providers are
	// flags of `eastwest up`, so a name means the same for every provider that has it.
	Flags(f *flag.FlagSet)
	// Complete fills in what follows from other settings. Its error names every setting with a value that cannot be meant.
	Complete() error
	// New returns the provider with these settings.
	New(lab Lab) Provider
}

// Seeder is implemented by providers whose clusters have the Definitions of their Spec from their start, which spares work.
// With others, whoever needs them applies them.
type Seeder interface {
	Provider
	Seeds()
}

// Chooser is implemented by Settings that know the possible values of some of their flags, for completion in a shell.
type Chooser interface {
	// Choices returns the values that fit the other settings. It returns none for a flag that takes anything.
	Choices(flag string) ([]string, error)
}

// Guest is implemented by Settings of providers whose clusters are not the lab's own: see Foreign.
type Guest interface {
	// Adopts reports whether the lab uses the mesh that is there, in place of one of its own.
	Adopts() bool
}

// Puller is implemented by Settings of providers whose nodes can pull the mesh's images from a registry.
type Puller interface {
	// Pulls returns those images. The zero value means the bundle's.
	Pulls() Images
}

// State says whether a provider can be used on this machine. The zero value means that it can.
type State struct {
	Problem error  // why it cannot be used
	Fix     string // what to do about that
}

// Err returns the problem with its fix, or nil if there is none.
func (s State) Err() error {
	if s.Problem == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", s.Problem, s.Fix)
}

// List is the value of a flag that may be given more than once.
type List []string

// Set implements flag.Value: it adds a value.
func (l *List) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// String implements flag.Value.
func (l *List) String() string { return strings.Join(*l, ",") }

// Reset empties the list. Values that were set earlier are not meant when the flag is given again.
func (l *List) Reset() { *l = nil }
