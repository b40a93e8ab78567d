package lab

import (
	"fmt"
	"regexp"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// Images says where nodes pull the images of the mesh from: Hub/pilot:Tag, Hub/proxyv2:Tag and Hub/app:Tag. The zero
// value means those of the bundle.
type Images struct {
	Hub string `json:"hub,omitempty"`
	Tag string `json:"tag,omitempty"`
}

// Published says that nodes pull them from a registry.
func (i Images) Published() bool { return i != Images{} }

// ofBundle tells that published ones are the bundle's, which somebody has pushed under their tag: the mesh has to be
// installed for the Envoy in them. All others are taken for Istio's own.
func (i Images) ofBundle() bool { return i.Tag == bundle.Tag }

// What kubelets take as parts of an image's name.
var (
	hubName = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
	tagName = regexp.MustCompile(`^\w[\w.-]{0,127}$`)
)

func (i Images) String() string {
	if !i.Published() {
		return "the bundle's images"
	}
	return fmt.Sprintf("images of %s with the tag %s", i.Hub, i.Tag)
}

// check returns an error that is about the command line: half of the name is missing, it is none, or nodes of the
// provider cannot pull.
func (i Images) check(provider string) error {
	switch {
	case !i.Published():
		return nil
	case i.Tag == "":
		return fmt.Errorf("--hub %s: wanted --tag with it, the tag of its images pilot, proxyv2 and app", i.Hub)
	case i.Hub == "":
		return fmt.Errorf("--tag %s: wanted --hub with it, the registry's folder that has pilot, proxyv2 and app with this tag", i.Tag)
	case provider == Embedded:
		return fmt.Errorf(
			"--hub and --tag: nodes of the provider %s reach no registry: wanted --provider %s or %s with them",
			Embedded,
			Kind,
			Existing,
		)
	case !hubName.MatchString(i.Hub) || !tagName.MatchString(i.Tag):
		return fmt.Errorf("--hub %s --tag %s: wanted the parts of an image's name, like --hub docker.io/istio --tag 1.31.0", i.Hub, i.Tag)
	}
	return nil
}
