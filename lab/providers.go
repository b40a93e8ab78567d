package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
)

// The providers by name.
const (
	Auto     = "auto"
	Embedded = "embedded"
)

// Providers lists what --provider takes.
func Providers() []string { return []string{Auto, Embedded} }

// provider is what package lab needs of a provider beyond making clusters: finding those that are there.
type provider interface {
	cluster.Provider
	// Open returns a cluster that was created before, whether it runs or not.
	Open(lab, name string) (cluster.Cluster, error)
}

// newProvider is the one place that knows providers by name.
func newProvider(name, home string, b *bundle.Bundle, o Options) (provider, error) {
	switch name {
	case Embedded:
		p := &embedded.Provider{Home: home, Bundle: b, Range: o.Range, Egress: o.Egress}
		if o.Progress != nil {
			p.Progress = func(cluster, milestone string, since time.Duration) {
				o.Progress(Progress{Cluster: cluster, Step: milestone, Since: since, Took: since})
			}
		}
		return embeddedProvider{p}, nil
	default:
		return nil, fmt.Errorf("unknown provider %q: there are %v", name, Providers())
	}
}

// chooseProvider turns "auto" into a provider that works here.
func chooseProvider(name string) (string, error) {
	if name != Auto && name != "" {
		return name, nil
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		return Embedded, nil
	}
	return "", &SetupError{Err: errors.New("no provider works here: embedded needs Linux and root (run with sudo)")}
}

type embeddedProvider struct{ *embedded.Provider }

func (p embeddedProvider) Open(lab, name string) (cluster.Cluster, error) {
	return p.Provider.Open(lab, name)
}
