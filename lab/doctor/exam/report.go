package exam

import (
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
)

// Report is the result of Examine. The JSON names are stable.
type Report struct {
	Taken    time.Time `json:"taken"`
	Clusters []Seen    `json:"clusters"`
	Findings []Finding `json:"findings"` // root causes, the worst first
	Trust    []Pair    `json:"trust"`
	// Identities are the certificates of istiods, and of the proxies in the sample.
	Identities []Identity     `json:"identities"`
	Reads      []Reads        `json:"reads"` // what istiods know about other clusters
	Checks     []Check        `json:"checks"`
	Unread     []facts.Unread `json:"unread,omitempty"`
}

// Seen says how much of a cluster was examined.
type Seen struct {
	Context    string `json:"context"`
	ID         string `json:"id"`
	Network    string `json:"network"`
	Kubernetes string `json:"kubernetes"`
	ServedBy   string `json:"served_by"` // the context where its istiod runs
	Proxies    int    `json:"proxies"`
	Ready      int    `json:"ready"`
	Sampled    int    `json:"sampled"` // number of Ready proxies whose certificates were read
}

// Finding is one thing that is wrong, with its effects.
type Finding struct {
	ID       string            `json:"id"` // that of its documentation in package findings
	Severity findings.Severity `json:"severity"`
	Says     string            `json:"says"` // one sentence
	Clusters []string          `json:"clusters"`
	Evidence []Evidence        `json:"evidence"`
	Now      string            `json:"now"`
	Later    string            `json:"later"`
	Fix      string            `json:"fix"`
	Disrupts string            `json:"disrupts"`
	Effects  []Finding         `json:"effects,omitempty"` // findings that this one causes
}

// Evidence is what was seen, and a command that shows it.
type Evidence struct {
	Object  string `json:"object"`
	Seen    string `json:"seen"`
	Command string `json:"command,omitempty"`
}

// Pair says whether both sides of a call from one cluster to another accept the other's certificate.
type Pair struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Works Works  `json:"works"`
	Pairs int    `json:"pairs"` // number of comparisons; proxies with the same certificates and roots are compared once
	Why   string `json:"why,omitempty"`
	Grow  string `json:"grow,omitempty"` // whose roots, or trust domains, must grow
}

// Works says for which of the compared proxies something works.
type Works string

// The values of Works.
const (
	WorksAll     Works = "all"
	WorksSome    Works = "some"
	WorksNone    Works = "none"
	WorksUnknown Works = "unknown" // none could be compared
)

// Check says what became of looking for one finding.
type Check struct {
	ID    string `json:"id"` // of the finding
	State State  `json:"state"`
	Why   string `json:"why,omitempty"` // what could not be read
}

// State is the state of a check.
type State string

// The states. A check with a finding is StateFound, even if it could not look everywhere.
const (
	StateOK      State = "ok"
	StateFound   State = "finding"
	StateUnknown State = "unknown" // nothing was found, and something could not be read
)

// Counts reports whether there is a finding that is more than information.
func (r Report) Counts() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != findings.Info })
}

// Complete reports whether every check could look everywhere.
func (r Report) Complete() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.State == StateUnknown })
}

// Lost returns the IDs of the checks that are unknown because a part could not be read.
func (r Report) Lost(part facts.Part) (ids []string) {
	for _, c := range r.Checks {
		if c.State == StateUnknown && strings.Contains(c.Why, string(part)+" of ") {
			ids = append(ids, c.ID)
		}
	}
	return ids
}
