package kind

import (
	"errors"
	"flag"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// Settings are all that can be set for kind clusters.
type Settings struct {
	machine.Settings
	// Image is the node image. When empty, it is the bundle's, or kind's own default if the bundle has none.
	Image  string         `json:"image,omitempty"`
	Images cluster.Images `json:"images,omitzero"`
}

var (
	_ cluster.Settings = (*Settings)(nil)
	_ cluster.Puller   = (*Settings)(nil)
)

// Flags implements cluster.Settings.
func (s *Settings) Flags(f *flag.FlagSet) {
	s.Settings.Flags(f)
	f.StringVar(&s.Image, "kind-image", s.Image, "the node image, like kindest/node:v1.36.1 "+
		"(default: the bundle's, or kind's own where the bundle was built without)")
	s.Images.Flags(f)
}

// Complete implements cluster.Settings. Nodes that pull images must be able to leave the lab.
func (s *Settings) Complete() error {
	s.Egress = s.Egress || s.Images.Published()
	return errors.Join(s.Check(), s.Images.Check())
}

// New implements cluster.Settings.
func (s *Settings) New(lab cluster.Lab) cluster.Provider { return &Provider{Lab: lab, Settings: *s} }

// Pulls implements cluster.Puller.
func (s *Settings) Pulls() cluster.Images { return s.Images }

// Help is the paragraph about this provider in `eastwest up --help`.
const Help = `With --provider kind the clusters are made by kind, in containers of the Docker Engine of this machine, with a Docker
network for each lab. The node image is the bundle's, if it was built for that (eastwest bundle build --with kind), so
that nothing is pulled. down removes all of it. kind hands HTTP_PROXY, HTTPS_PROXY and NO_PROXY on to its nodes.`
