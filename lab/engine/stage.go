package engine

import (
	"context"
	"encoding/json"
	"fmt"
	neturl "net/url"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// stage is what the engine knows of a lab. The engine's own tests run on a stage without clusters.
type stage struct {
	lab      string // the lab's name
	topology scenario.Topology
	adopted  bool              // the mesh was made by somebody else
	adopt    func()            // allows changes of such a mesh
	istio    map[string]string // the version of each cluster's control plane when a scenario begins; empty if nobody knows
	ground   verb.Ground
	ledger   ledger
	mesh     keeper
	caller   caller
	state    func(context.Context) report.State // what upgrades change; nil for a mesh that is not made for them
}

// ledger is where a lab writes down that a scenario changes it. *lab.Lab is one.
type ledger interface {
	Changed() string
	Checkpoint() (lab.Checkpoint, error)
	Leave(c lab.Checkpoint) error
	Back() error
}

// keeper remembers what a mesh is like and puts it back. What Remember returns may be kept in a file and used by
// another process.
type keeper interface {
	// Remember waits until all proxies are in sync, then writes down the mesh with the objects that will change.
	Remember(ctx context.Context, changes []observe.Named) (json.RawMessage, error)
	// Same reports whether the mesh is what it was. Faults below Kubernetes are healed first.
	Same(ctx context.Context, before json.RawMessage) bool
	Restore(ctx context.Context, before json.RawMessage) error
	// Collect saves evidence in a folder.
	Collect(ctx context.Context, dir string) error
}

// caller makes the calls of a stream, as the continuation of an earlier recording if there is one.
type caller interface {
	Call(s scenario.Stream, earlier *traffic.Recording) (stream, error)
}

// stream is traffic that flows. *traffic.Stream is one.
type stream interface {
	Recording() *traffic.Recording
	Mark(label string) time.Time
	Stop() (*traffic.Recording, error)
}

// stageOf is the stage that a lab is.
func stageOf(l *lab.Lab) stage {
	st := stage{
		lab: l.Name, topology: l.Topology, adopted: l.Adopted(), adopt: l.Adopt,
		istio:  l.Mesh.InstalledVersions(),
		ground: verb.Ground{Mesh: l.Mesh, Shape: l.Topology, Tools: observe.Tools(l.Env()), Lab: l.Name},
		ledger: l, mesh: meshKeeper{l.Mesh}, caller: meshCaller{l.Mesh},
	}
	if l.Mesh.Versioned() {
		st.state = func(ctx context.Context) report.State { return observe.ReadState(ctx, l.Mesh) }
	}
	return st
}

// meshKeeper keeps a real mesh.
type meshKeeper struct{ *mesh.Mesh }

func (k meshKeeper) Remember(ctx context.Context, changes []observe.Named) (json.RawMessage, error) {
	inSync := func(ctx context.Context) error { return observe.InSync(ctx, k.Mesh) }
	bound := wait.Options{Within: gateWithin, Every: lookEvery}
	if err := wait.Until(ctx, "all proxies to be in sync with their istiod", bound, inSync); err != nil {
		return nil, err
	}
	before, err := observe.TakeBaseline(ctx, k.Mesh, changes...)
	if err != nil {
		return nil, err
	}
	return json.Marshal(before)
}

func (k meshKeeper) Same(ctx context.Context, data json.RawMessage) bool {
	var before observe.Baseline
	if json.Unmarshal(data, &before) != nil {
		return false
	}
	if fault.Heal(ctx, k.Mesh) != nil { // where an API server is stopped, no other question has an answer
		return false
	}
	now, err := before.Reread(ctx, k.Mesh)
	return err == nil && len(before.Diff(now)) == 0
}

func (k meshKeeper) Restore(ctx context.Context, data json.RawMessage) error {
	var before observe.Baseline
	if err := json.Unmarshal(data, &before); err != nil {
		return fmt.Errorf("reading what the mesh was like: %w", err)
	}
	return fault.Restore(ctx, k.Mesh, before)
}

func (k meshKeeper) Collect(ctx context.Context, dir string) error {
	return observe.Collect(ctx, k.Mesh, dir)
}

// meshCaller calls from pods of a real mesh.
type meshCaller struct{ *mesh.Mesh }

func (c meshCaller) Call(s scenario.Stream, earlier *traffic.Recording) (stream, error) {
	from, err := c.Member(s.From.Cluster)
	if err != nil {
		return nil, err
	}
	fresh := s.Connections != scenario.Reused
	url := mesh.URL(s.To.Name, s.To.Cluster, fresh)
	if s.AnswerAfter > 0 {
		url += "?" + neturl.Values{"delay": {s.AnswerAfter.String()}}.Encode() // Istio's echo waits that long
	}
	// Not in the context of the run: calls go on after an interrupt, until the engine stops the stream and saves what it
	// recorded.
	return traffic.Start(context.Background(), traffic.Plan{
		Name: s.Name, From: observe.Source(from, s.From.Name), URL: url,
		ExpectCluster: s.To.Cluster, Every: time.Duration(s.Every), Fresh: fresh, OneByOne: !fresh,
		Timeout: time.Duration(s.Timeout), Earlier: earlier,
	})
}
