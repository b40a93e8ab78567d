// Package observe looks at a mesh and reports what it sees: which certificates the proxies use, which endpoints they
// know, who answers a call, what the gateways let through, what istiod reports.
//
// A Check is one such look, with what is wanted. Steps of scenario files are checks. Checks read and call, change
// nothing, and can be repeated. TakeBaseline reads everything that a scenario can change; Collect saves the evidence of
// all clusters for people. The package needs an installed mesh; `go test ./lab/observe` needs none and reads recorded
// answers of Envoy and istiod.
package observe

//go:generate go run ../strict/fielddocs

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"al.essio.dev/pkg/shellescape"
	corev1 "k8s.io/api/core/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Check is one look at the mesh.
type Check interface {
	// String says what is wanted, in a sentence that completes "checks that …".
	String() string
	// Command is what a person would paste to see the same, with the lab's kubeconfig and the bundle's kubectl and
	// istioctl; empty if there is no such command.
	Command() string
	// Look looks once. It returns short evidence, also on success. The error is a *Mismatch if what is wanted does not
	// hold, which may change with time, and any other error if the look itself failed.
	Look(ctx context.Context, m *mesh.Mesh) (seen string, err error)
}

// Mismatch says that a check does not hold.
type Mismatch struct {
	Wanted, Seen string
	Try          string // what to do, or where to look next; may be empty
}

func (e *Mismatch) Error() string { return fmt.Sprintf("wanted %s, saw %s", e.Wanted, e.Seen) }

// Tools are the programs of the lab, for checks that run them.
type Tools struct {
	Kubeconfig string // with a context for each cluster
	BinDir     string // where kubectl and istioctl are
	MoreBin    string // where the istioctls of other versions are; empty if there are none
	NoProxy    string // NO_PROXY for them; that of the environment when empty
}

// Workload is an app in one cluster. istiod and the east-west gateway count as apps.
type Workload struct{ App, Cluster string }

func (w Workload) String() string { return w.App + "@" + w.Cluster }

// UnmarshalText reads "client@cluster-a", or a service without a cluster, "echo".
func (w *Workload) UnmarshalText(text []byte) error {
	w.App, w.Cluster, _ = strings.Cut(string(text), "@")
	return nil
}

// object returns how kubectl and istioctl name the workload, for commands.
func (w Workload) object() string {
	if w.App == mesh.MyPod {
		return w.App
	}
	return "deploy/" + w.App
}

// Which selects pods of a workload. A pod keeps the certificates with which it started, so that old and new pods of one
// app can differ.
type Which string

// The pods of a workload.
const (
	All    Which = "all"
	Newest Which = "newest"
	Oldest Which = "oldest"
)

// pods returns the Ready pods that w selects, oldest first.
func (w Which) pods(ctx context.Context, m *mesh.Mesh, of Workload) (*mesh.Member, []*corev1.Pod, error) {
	member, err := m.Member(of.Cluster)
	if err != nil {
		return nil, nil, err
	}
	pods, err := member.ReadyPods(ctx, of.App)
	if err != nil {
		return nil, nil, err
	}
	switch w {
	case Newest:
		pods = pods[len(pods)-1:]
	case Oldest:
		pods = pods[:1]
	}
	return member, pods, nil
}

func (w Which) of(text string) string {
	if w == Newest || w == Oldest {
		return "the " + string(w) + " pod of " + text
	}
	return text
}

// list joins things into a phrase.
func list[T fmt.Stringer](things []T) string {
	texts := make([]string, len(things))
	for i, t := range things {
		texts[i] = t.String()
	}
	return words.And(texts)
}

// quoted puts a pattern between quotes as it is written in a scenario: no backslash is doubled.
func quoted(pattern *regexp.Regexp) string { return `"` + pattern.String() + `"` }

// grep returns the command that prints the lines that match. Patterns have the syntax of RE2. grep -P knows most of it;
// to grep -E, \d and (?i) mean something else.
func grep(pattern *regexp.Regexp) string { return "grep -P -e " + shellescape.Quote(pattern.String()) }
