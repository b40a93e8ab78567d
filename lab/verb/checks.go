package verb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
)

// Most checks are read as they stand in package observe. Those here need something that no file says.

// callArgs are the same calls from several callers.
type callArgs struct {
	// Who calls, like client@cluster-a; each of them if there are several. my-pod is as old as the lab.
	From strict.List[observe.Workload] `yaml:"from" ref:"app" required:"true"`
	observe.Call
	// fresh (the default): a new connection per call, so every call proves trust. reused: connections that are kept, which
	// go on working after trust is gone.
	Connections scenario.Connections `yaml:"connections" enum:"fresh,reused"`
}

// Check implements Checker.
func (a *callArgs) Check(Ground) (observe.Check, error) {
	calls := make(observe.Calls, len(a.From))
	for i, from := range a.From {
		calls[i] = a.Call
		calls[i].From, calls[i].Reused = from, a.Connections == scenario.Reused
	}
	return calls, nil
}

type commandArgs struct{ observe.Command }

// Check implements Checker.
func (a *commandArgs) Check(g Ground) (observe.Check, error) {
	check := a.Command
	check.Tools = g.Tools
	return check, nil
}

type doctorArgs struct {
	// The id of the first finding, as eastwest doctor explain lists them, or nothing.
	Finds string `yaml:"finds" required:"true"`
}

// Validate refuses findings that there are not.
func (a *doctorArgs) Validate() error {
	ids := []string{doctor.Nothing}
	for _, k := range doctor.Findings() {
		ids = append(ids, k.ID)
	}
	if !slices.Contains(ids, a.Finds) {
		return strict.At("finds", fmt.Errorf("there is no finding %q: they are %s", a.Finds, strings.Join(ids, ", ")))
	}
	return nil
}

func (a *doctorArgs) Check(g Ground) (observe.Check, error) {
	return doctor.Diagnosis{Finds: a.Finds, Lab: cmp.Or(g.Lab, "eastwest")}, nil
}

type eventArgs struct{ observe.Event }

// Check implements Checker.
func (a *eventArgs) Check(g Ground) (observe.Check, error) {
	check := a.Event
	check.From = g.Began
	return check, nil
}

type logArgs struct{ observe.Log }

// Check implements Checker.
func (a *logArgs) Check(g Ground) (observe.Check, error) {
	check := a.Log
	check.From = g.Began
	return check, nil
}

// Finds returns what the diagnosis of a scenario wants doctor to find; ok is false if it does not ask.
func Finds(s *scenario.Scenario) (id string, ok bool) {
	for _, step := range s.Diagnose {
		if a, is := step.Args.(*doctorArgs); is {
			return a.Finds, true
		}
	}
	return "", false
}

// Diagnosed is what doctor found in the broken state of a scenario, in so many runs. The JSON names are stable.
type Diagnosed struct {
	Runs    int            `json:"runs"`
	Blamed  map[string]int `json:"blamed"`            // errors and warnings that are no effects, by how many runs had them
	Effects map[string]int `json:"effects,omitempty"` // what was told as following from them
}
