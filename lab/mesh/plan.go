package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Step is one part of an installation, as shown to people.
type Step struct {
	Name    string // "install istiod"
	Cluster string // empty if the step is about all clusters
	Command string // what a person would type for it, one command per line
	State   State
	Began   time.Duration // since the installation began
	Took    time.Duration
	Err     error // why it failed or was canceled
	Proof   bool  // it proves the mesh by calls; there is one such step
}

// State of a step.
type State string

// The states. If a step fails, the steps that have not begun stay Planned.
const (
	Planned State = "planned"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
)

// task is a step with its work and the steps that must be done before it.
type task struct {
	Step
	after []*task
	run   func(context.Context) error
}

// plan is a list of tasks, each after those that it needs. It has no cycles, because a task can only name tasks that
// have been added before.
type plan []*task

func (p *plan) add(name, cluster, command string, run func(context.Context) error, after ...*task) *task {
	t := &task{Step: Step{Name: name, Cluster: cluster, Command: command, State: Planned}, run: run}
	for _, a := range after {
		if a != nil { // a step that this topology does not have
			t.after = append(t.after, a)
		}
	}
	*p = append(*p, t)
	return t
}

// run runs the tasks. Each starts as soon as those before it are done. The first error cancels the tasks that are
// running and starts no more; it is returned as a *StepError. When ctx ends, the error is that of a task that was
// running, which says what it was waiting for. tell is called when a step begins and when it ends, from several
// goroutines.
func (p plan) run(ctx context.Context, tell func(Step)) error {
	if tell == nil {
		tell = func(Step) {}
	}
	start := time.Now()
	done := make(map[*task]chan struct{}, len(p))
	for _, t := range p {
		done[t] = make(chan struct{})
	}
	var unreached atomic.Bool
	group, running := errgroup.WithContext(ctx)
	for _, t := range p {
		group.Go(func() error {
			for _, a := range t.after {
				select {
				case <-done[a]:
				case <-running.Done():
				}
			}
			if running.Err() != nil {
				unreached.Store(true)
				return nil
			}
			s := t.Step
			s.State, s.Began = Running, time.Since(start)
			tell(s)
			err := t.run(running)
			s.Took = time.Since(start) - s.Began
			if err != nil {
				s.State, s.Err = Failed, err
				tell(s)
				return &StepError{Step: s, Err: err}
			}
			s.State = Done
			tell(s)
			close(done[t])
			return nil
		})
	}
	err := group.Wait()
	if err == nil && unreached.Load() {
		err = context.Cause(ctx)
	}
	return err
}

// StepError is a step that failed.
type StepError struct {
	Step Step
	Err  error
}

func (e *StepError) Error() string {
	if e.Step.Cluster == "" {
		return fmt.Sprintf("%s: %v", e.Step.Name, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Step.Cluster, e.Step.Name, e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

var errNoSuchCluster = errors.New("no such cluster in the mesh")
