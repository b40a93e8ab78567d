package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// Settings are all that can be set for embedded clusters.
type Settings struct{ machine.Settings }

var _ cluster.Settings = (*Settings)(nil)

// Complete implements cluster.Settings.
func (s *Settings) Complete() error { return s.Check() }

// New implements cluster.Settings.
func (s *Settings) New(lab cluster.Lab) cluster.Provider { return &Provider{Lab: lab, Settings: *s} }

// Available reports whether this user can make embedded clusters on this machine. It does not look at what is easily
// mended, such as tools that are not installed: Provider.Check does.
func Available(context.Context) cluster.State {
	switch {
	case runtime.GOOS != "linux":
		return cluster.State{
			Problem: fmt.Errorf("needs Linux, and this machine runs %s", runtime.GOOS),
			Fix:     "run eastwest on Linux, in a virtual machine for example",
		}
	case os.Geteuid() != 0:
		return cluster.State{Problem: errors.New("needs root"), Fix: "run with sudo"}
	}
	return cluster.State{}
}

// Help is the paragraph about this provider in `eastwest up --help`.
const Help = `With --provider embedded each cluster is a Kubernetes node in namespaces of this machine, under one supervisor process. It
needs Linux and root.`
