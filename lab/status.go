package lab

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// State of a lab.
type State string

// The states.
const (
	Running    State = "running"    // every cluster answers
	Broken     State = "broken"     // some clusters do not
	Stopped    State = "stopped"    // none does
	Incomplete State = "incomplete" // it was never made to the end
	Changed    State = "changed"    // a scenario was stopped in the middle and left it as it was then
	Busy       State = "busy"       // another eastwest makes it, removes it, or runs a scenario on it right now
)

// Status is what List tells of a lab.
type Status struct {
	Name       string          `json:"name"`
	State      State           `json:"state"`
	Provider   string          `json:"provider"`
	Topology   string          `json:"topology"`
	Made       time.Time       `json:"made"`
	Clusters   []ClusterStatus `json:"clusters"`
	CPUSeconds float64         `json:"cpu_seconds"`
	MemoryMiB  float64         `json:"memory_mib"`
	Problem    string          `json:"problem,omitempty"`
}

// ClusterStatus is one cluster of a lab.
type ClusterStatus struct {
	Name       string              `json:"name"`
	Alive      bool                `json:"alive"`
	Server     string              `json:"server,omitempty"`
	Context    string              `json:"context,omitempty"` // what the user calls a cluster that is not the lab's own
	Problem    string              `json:"problem,omitempty"`
	Components []host.ProcessState `json:"components,omitempty"`
}

// List tells of every lab under home, by asking, not by remembering.
func List(ctx context.Context, home string) ([]Status, error) {
	all, err := names(home)
	if err != nil {
		return nil, err
	}
	list := []Status{}
	for _, name := range all {
		list = append(list, status(ctx, home, name))
	}
	return list, nil
}

// StatusOf tells of one lab.
func StatusOf(ctx context.Context, home, name string) (Status, error) {
	if _, err := os.Stat(labDir(home, name)); err != nil {
		known, err := names(home)
		if err != nil {
			return Status{}, err
		}
		return Status{}, &UnknownLabError{Name: name, Known: known}
	}
	return status(ctx, home, name), nil
}

// ownNode is a cluster whose node the lab has made.
type ownNode interface {
	Status(context.Context) (machine.Status, error)
	Usage() (host.CgroupUsage, error)
}

// alive returns nil if the cluster answers.
func alive(ctx context.Context, c cluster.Cluster) error {
	if pinger, ok := c.(interface{ Alive(context.Context) error }); ok {
		return pinger.Alive(ctx)
	}
	return nil
}

func status(ctx context.Context, home, name string) Status {
	s := Status{Name: name, State: Incomplete}
	busy := locked(home, name)
	r, err := readRecord(home, name)
	if err != nil && busy {
		s.State = Busy
		return s
	}
	if err != nil {
		s.Problem = "it was interrupted before it was written down: remove it with `eastwest down " + name + "`"
		return s
	}
	s.Provider, s.Topology, s.Made = r.Provider, Describe(r.Topology), r.Made
	p, err := newProvider(r.Provider, home, nil, Options{})
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	up := 0
	for _, member := range r.Topology.Clusters() {
		c := ClusterStatus{Name: member}
		node, err := p.Open(name, member)
		if err == nil {
			c.Server = node.RESTConfig().Host
			if err = alive(ctx, node); err == nil {
				c.Alive = true
				up++
			}
			if own, ok := node.(ownNode); ok { // of others we know no more
				if now, err := own.Status(ctx); err == nil {
					c.Components = now.Components
				}
				if usage, err := own.Usage(); err == nil {
					s.CPUSeconds += usage.CPUSeconds
					s.MemoryMiB += usage.MemoryMiB
				}
			}
			if f, ok := node.(cluster.Foreign); ok {
				c.Context = f.Context()
			}
		}
		if err != nil {
			c.Problem = err.Error()
		}
		s.Clusters = append(s.Clusters, c)
	}
	switch {
	case busy:
		s.State = Busy
	case up == len(s.Clusters) && !r.Complete:
		s.Problem = fmt.Sprintf("making it was interrupted: `eastwest up --name %s` makes it anew", name)
	case up == len(s.Clusters) && r.Left != "":
		left, _ := readCheckpoint(home, name) // the zero one if it cannot be read
		s.State, s.Problem = Changed, fmt.Sprintf("scenario %s was stopped in the middle: %s", r.Left, left.HowToGoOn(name))
	case up == len(s.Clusters):
		s.State = Running
	case up > 0:
		s.State, s.Problem = Broken, fmt.Sprintf("not every cluster answers: `eastwest up --name %s` makes it anew", name)
	case r.Complete:
		s.State, s.Problem = Stopped, fmt.Sprintf("no cluster answers: `eastwest up --name %s` makes it anew", name)
	}
	return s
}
