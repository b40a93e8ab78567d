// Package fault breaks a mesh, and changes it: every change knows the sentence that describes it, the
// command that a person would type for it, whether it can be made here, and how to take it back.
//
// Faults write; to look at what they did, see package observe. Restore puts a mesh back to a baseline that
// observe took. The package needs an installed mesh; faults of the machines below it need clusters that
// are a cluster.Underlay.
package fault

import (
	"context"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Fault is one change of a mesh.
type Fault interface {
	// String says what is done: "restart istiod in cluster-b".
	String() string
	// Command is what a person would type for the same, one line per command; empty if there is none.
	Command() string
	// Available returns nil, or why this mesh cannot be changed so.
	Available(m *mesh.Mesh) error
	// Inject makes the change and returns how to take it back, nil if there is nothing to take back. When
	// it fails half-way it has taken its half back.
	Inject(ctx context.Context, m *mesh.Mesh) (Undo, error)
}

// Undo takes a change back. It may be called when the change is gone already.
type Undo func(context.Context) error
