package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// State of a lab.
type State string

// The states.
const (
	Running    State = "running"    // every cluster answers
	Broken     State = "broken"     // some clusters do not
	Stopped    State = "stopped"    // none does
	Incomplete State = "incomplete" // it was never made to the end
	Changed    State = "changed"    // a scenario was stopped in the middle and has not put it back
	Busy       State = "busy"       // another process makes it, removes it, or runs a scenario on it right now
)

// Status is the state of one lab.
type Status struct {
	Name       string          `json:"name"`
	State      State           `json:"state"`
	Provider   string          `json:"provider"`
	Topology   string          `json:"topology"`
	Made       time.Time       `json:"made"`
	Clusters   []ClusterStatus `json:"clusters"`
	CPUSeconds float64         `json:"cpu_seconds"`
	MemoryMiB  float64         `json:"memory_mib"`
	Guest      bool            `json:"guest,omitempty"` // its clusters are not its own, so nobody knows what they use for it
	Problem    string          `json:"problem,omitempty"`
}

// ClusterStatus is one cluster of a lab.
type ClusterStatus struct {
	Name       string              `json:"name"`
	Alive      bool                `json:"alive"`
	Server     string              `json:"server,omitempty"`
	Context    string              `json:"context,omitempty"` // the user's name for a cluster that is not the lab's own
	Problem    string              `json:"problem,omitempty"`
	Components []host.ProcessState `json:"components,omitempty"`
	Frozen     []string            `json:"frozen,omitempty"` // pods, as NAMESPACE/NAME

	// ControlPlanes are the istiods that run in the cluster. Only StatusOf asks for them.
	ControlPlanes []mesh.ControlPlane `json:"control_planes,omitempty"`
}

// List returns the status of every lab under home. It asks the clusters of all of them.
func List(ctx context.Context, home string) ([]Status, error) {
	all, err := names(home)
	if err != nil {
		return nil, err
	}
	list := []Status{}
	for _, name := range all {
		list = append(list, status(ctx, home, name, nil))
	}
	return list, nil
}

// StatusOf returns the status of one lab.
func StatusOf(ctx context.Context, home, name string) (Status, error) {
	if _, err := os.Stat(labDir(home, name)); err != nil {
		known, err := names(home)
		if err != nil {
			return Status{}, err
		}
		return Status{}, &UnknownLabError{Name: name, Known: known}
	}
	return status(ctx, home, name, readControlPlanes), nil
}

// controlPlanesWithin bounds what is asked of an API server that has just answered.
const controlPlanesWithin = 5 * time.Second

// readControlPlanes reads which istiods run in a cluster that answers.
func readControlPlanes(ctx context.Context, node cluster.Cluster, c *ClusterStatus) {
	ctx, cancel := wait.Timeout(ctx, controlPlanesWithin)
	defer cancel()
	kube, err := kubernetes.NewForConfig(node.RESTConfig())
	if err == nil {
		c.ControlPlanes, err = mesh.ControlPlanes(ctx, kube)
	}
	if err != nil {
		c.Problem = err.Error()
	}
}

// usage is implemented by clusters whose node the lab has made.
type usage interface {
	Usage() (host.CgroupUsage, error)
}

// components is implemented by clusters whose node the lab has made and that eastwest can ask.
type components interface {
	Status(context.Context) (machine.Status, error)
}

// alive returns nil if the cluster answers.
func alive(ctx context.Context, c cluster.Cluster) error {
	if pinger, ok := c.(interface{ Alive(context.Context) error }); ok {
		return pinger.Alive(ctx)
	}
	return nil
}

// status asks each cluster that answers for more by the function more, unless that is nil.
func status(ctx context.Context, home, name string, more func(context.Context, cluster.Cluster, *ClusterStatus)) Status {
	s := Status{Name: name, State: Incomplete}
	busy := locked(home, name)
	r, err := readRecord(home, name)
	if err != nil && busy {
		s.State = Busy
		return s
	}
	if err != nil {
		reason := "it was interrupted before it was written down"
		if !errors.Is(err, fs.ErrNotExist) {
			reason = err.Error()
		}
		s.Problem = reason + ": remove it with `eastwest down " + name + "`"
		return s
	}
	s.Provider, s.Topology, s.Made, s.Guest = r.Provider, Describe(r.Topology), r.Made, isGuest(r.Settings)
	p := r.Settings.New(cluster.Lab{Home: home})
	up := 0
	for _, member := range r.Topology.Clusters() {
		c := ClusterStatus{Name: member}
		node, err := p.Open(name, member)
		if err == nil {
			c.Server = node.RESTConfig().Host
			if err = alive(ctx, node); err == nil {
				c.Alive = true
				up++
				if more != nil {
					more(ctx, node, &c)
				}
			}
			if own, ok := node.(components); ok {
				if now, err := own.Status(ctx); err == nil {
					c.Components = now.Components
					for _, p := range now.Pods {
						if p.Frozen {
							c.Frozen = append(c.Frozen, p.Name)
						}
					}
				}
			}
			if own, ok := node.(usage); ok {
				if used, err := own.Usage(); err == nil {
					s.CPUSeconds += used.CPUSeconds
					s.MemoryMiB += used.MemoryMiB
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
		left, _ := readCheckpoint(home, name) // the zero Checkpoint if it cannot be read
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
