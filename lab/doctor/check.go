package doctor

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

// Nothing is what a Check wants of a healthy mesh.
const Nothing = "nothing"

// Diagnosis is a step of a scenario: what doctor finds in the mesh as it is now.
type Diagnosis struct {
	Finds string // the id of the first finding, while no other error is blamed; or Nothing
	Lab   string // for the command
}

var _ observe.Check = Diagnosis{}

func (c Diagnosis) String() string {
	if c.Finds == Nothing {
		return "doctor finds nothing wrong"
	}
	return "doctor finds " + c.Finds + " first, and blames nothing else"
}

// Command implements observe.Check.
func (c Diagnosis) Command() string { return "eastwest doctor --lab " + c.Lab }

// Look implements observe.Check.
func (c Diagnosis) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	return c.judge(Examine(Gather(ctx, Targets(m), Options{})))
}

// judge compares a report with what is wanted.
func (c Diagnosis) judge(r Report) (string, error) {
	var counts, others []string
	first := len(r.Findings) > 0 && r.Findings[0].ID == c.Finds
	for i, f := range r.Findings {
		if f.Severity == Info {
			if i == 0 && first { // a kind that is an error elsewhere is not what was wanted
				first = kind(f.ID).Severity == Info
			}
			if !first || f.ID != c.Finds {
				continue
			}
		}
		counts = append(counts, fmt.Sprintf("%s (%s)", f.ID, f.Says))
		if i > 0 && f.Severity == Error && f.ID != c.Finds {
			others = append(others, f.ID)
		}
	}
	seen := "doctor finds nothing wrong"
	if len(counts) > 0 {
		seen = "doctor finds " + strings.Join(counts, "; ")
	}
	switch {
	case c.Finds == Nothing && len(counts) == 0 && !r.Complete():
		var why []string
		for _, u := range r.Unread {
			why = append(why, fmt.Sprintf("%s of %s: %s", u.Part, u.Cluster, u.Why))
		}
		seen += ", and could not look everywhere: " + some(why)
	case c.Finds == Nothing && len(counts) == 0,
		c.Finds != Nothing && first && len(others) == 0:
		return seen, nil
	}
	return seen, &observe.Mismatch{Wanted: c.String(), Seen: seen, Try: c.Command()}
}

// Targets are the clusters of a mesh.
func Targets(m *mesh.Mesh) []Target {
	targets := make([]Target, len(m.Members))
	for i, member := range m.Members {
		targets[i] = Target{Name: member.Name(), Config: member.RESTConfig()}
	}
	return targets
}

// FromKubeconfig are clusters by contexts of a kubeconfig; those that kubectl would read if file is empty.
func FromKubeconfig(file string, contexts []string) ([]Target, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	all, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	var targets []Target
	for _, name := range contexts {
		if all.Contexts[name] == nil {
			return nil, fmt.Errorf("the kubeconfig has no context %q: it has %s", name, cmp.Or(words(keys(all.Contexts)), "none"))
		}
		config, err := clientcmd.NewNonInteractiveClientConfig(*all, name, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("reading context %s of the kubeconfig: %w", name, err)
		}
		targets = append(targets, Target{name, config})
	}
	return targets, nil
}
