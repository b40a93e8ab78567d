package cluster

import (
	"flag"
	"fmt"
	"regexp"
)

// Images says where nodes pull the images of the mesh: Hub/pilot:Tag, Hub/proxyv2:Tag and Hub/app:Tag. The zero value
// means those of the bundle.
type Images struct {
	Hub string `json:"hub,omitempty"`
	Tag string `json:"tag,omitempty"`
}

// Published reports whether nodes pull them from a registry.
func (i Images) Published() bool { return i != Images{} }

// Flags declares --hub and --tag.
func (i *Images) Flags(f *flag.FlagSet) {
	f.StringVar(&i.Hub, "hub", i.Hub, "the registry's folder that holds the images pilot, proxyv2 and app, like docker.io/istio; "+
		"nodes of kind pull them, so it implies --egress (default: the bundle's)")
	f.StringVar(&i.Tag, "tag", i.Tag, "the tag of the images of --hub, like 1.31.0")
}

// The parts of an image's name, as kubelets take them.
var (
	hubName = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
	tagName = regexp.MustCompile(`^\w[\w.-]{0,127}$`)
)

// Check returns an error if half of the name is missing, or if it cannot be part of an image's name.
func (i Images) Check() error {
	switch {
	case !i.Published():
		return nil
	case i.Tag == "":
		return fmt.Errorf("--hub %s: wanted --tag with it, the tag of its images pilot, proxyv2 and app", i.Hub)
	case i.Hub == "":
		return fmt.Errorf("--tag %s: wanted --hub with it, the registry's folder that has pilot, proxyv2 and app with this tag", i.Tag)
	case !hubName.MatchString(i.Hub) || !tagName.MatchString(i.Tag):
		return fmt.Errorf("--hub %s --tag %s: wanted the parts of an image's name, like --hub docker.io/istio --tag 1.31.0", i.Hub, i.Tag)
	}
	return nil
}
