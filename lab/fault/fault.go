// Package fault breaks a mesh, and changes it. Each change has a sentence that describes it and the command that a
// person would type for it, and knows whether it can be made on a given mesh.
//
// A fault does not know how to take itself back. Restore does that for all of them: it puts a mesh back to the
// baseline that package observe took before the first change, from whatever state the mesh is in and from any process.
// So a fault that has failed half-way leaves its half in place, and may change only what a baseline knows: the objects
// that observe.TakeBaseline always reads, the objects that Names returns, and what Heal takes back.
//
// Faults write; to see what they did, use package observe. The package needs an installed mesh; faults of the machines
// below a cluster need one that is a cluster.Underlay.
package fault

//go:generate go run ../strict/fielddocs

import (
	"context"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Fault is one change of a mesh.
type Fault interface {
	// String says what is done: "restart istiod in cluster-b".
	String() string
	// Command is what a person would type for the same, one line per command; empty if there is no such command.
	Command() string
	// Available returns nil, or the reason why this mesh cannot be changed in this way.
	Available(m *mesh.Mesh) error
	// Inject makes the change. If it fails half-way the mesh may be changed: see Restore.
	Inject(ctx context.Context, m *mesh.Mesh) error
}
