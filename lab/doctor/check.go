package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/exam"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Nothing is what Diagnosis.Finds is for a healthy mesh.
const Nothing = "nothing"

// Diagnosis is a step of a scenario: what doctor finds in the mesh as it is now.
type Diagnosis struct {
	Finds string // the ID of the first finding, if no other error is a root cause; or Nothing
	Lab   string // for the command
}

var _ observe.Check = Diagnosis{}

// String implements observe.Check.
func (c Diagnosis) String() string {
	if c.Finds == Nothing {
		return "doctor finds nothing wrong"
	}
	return "doctor finds " + c.Finds + " first, and no other root cause"
}

// Command implements observe.Check.
func (c Diagnosis) Command() string { return "eastwest doctor --lab " + c.Lab }

// Look implements observe.Check.
func (c Diagnosis) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	return c.judge(Examine(ctx, Targets(m), Options{}))
}

// judge compares a report with what is wanted.
func (c Diagnosis) judge(r Report) (string, error) {
	found, holds := c.root(r)
	seen := "doctor finds nothing wrong"
	if len(found) > 0 {
		seen = "doctor finds " + strings.Join(found, "; ")
	}
	if c.Finds == Nothing {
		holds = len(found) == 0 && r.Complete()
	}
	if len(found) == 0 && !r.Complete() {
		var why []string
		for _, u := range r.Unread {
			why = append(why, fmt.Sprintf("%s of %s: %s", u.Part, u.Cluster, u.Why))
		}
		seen += ", but could not look everywhere: " + words.Some(why, 4)
	}
	if !holds {
		return seen, &observe.Mismatch{Wanted: c.String(), Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// root lists the root causes of a report, and reports whether the wanted one is the first and no other one is an error. A root
// cause that is only information counts if it is the wanted one, and its documentation says that it is information.
func (c Diagnosis) root(r Report) (found []string, only bool) {
	only = len(r.Findings) > 0 && r.Findings[0].ID == c.Finds && !softened(r.Findings[0])
	for i, f := range r.Findings {
		if f.Severity == findings.Info && (!only || f.ID != c.Finds) {
			continue
		}
		found = append(found, fmt.Sprintf("%s (%s)", f.ID, f.Says))
		if i > 0 && f.Severity == findings.Error && f.ID != c.Finds {
			only = false
		}
	}
	return found, only
}

// softened reports whether a case is information only, although such a finding is worse in general.
func softened(f exam.Finding) bool {
	id, ok := findings.Find(f.ID)
	return f.Severity == findings.Info && (!ok || id.Doc().Severity != findings.Info)
}
