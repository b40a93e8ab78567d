package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// do is what all benchmarks that make a lab have in common: it makes the lab under a name that must be free, hands it to
// measure with what the making took, and removes it, whatever happened and also when ctx has ended. It returns how long the
// removal took.
func do(ctx context.Context, o lab.Options, measure func(context.Context, *lab.Lab, *making) error) (down time.Duration, err error) {
	there, err := lab.Exists(o.Home, o.Name)
	if err != nil {
		return 0, err
	}
	if there {
		return 0, fmt.Errorf("lab %s is there: a measurement needs a name that is free", o.Name)
	}
	made := &making{start: time.Now(), cpu: commandCPU()}
	l, err := made.lab(ctx, o)
	if err != nil {
		return 0, err
	}
	failure := measure(ctx, l, made)
	l.Close()
	down, err = remove(ctx, o, l)
	return down, errors.Join(failure, err)
}

// remove removes the lab. Nothing may stay, so it has time of its own.
func remove(ctx context.Context, o lab.Options, l *lab.Lab) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lab.RemoveWithin)
	defer cancel()
	start := time.Now()
	for _, c := range l.Clusters {
		if bare, ok := c.(*bareNode); ok {
			err = errors.Join(err, bare.delete(ctx))
			took = time.Since(start) // what is left is there for the labels alone
		}
	}
	err = errors.Join(err, lab.Down(ctx, o.Home, o.Name))
	if took == 0 {
		took = time.Since(start)
	}
	return took, err
}

// making follows a lab that is made.
type making struct {
	mu       sync.Mutex // clusters make progress side by side
	start    time.Time
	cpu      float64 // of this command at the start
	up       Up
	commands []string // what a person would type
}

// lab makes the lab and measures it meanwhile.
func (m *making) lab(ctx context.Context, o lab.Options) (*lab.Lab, error) {
	outer := o.Progress
	o.Progress = func(p lab.Progress) {
		if outer != nil {
			outer(p)
		}
		m.note(p)
	}
	sampling, stop := context.WithCancel(ctx)
	peak := make(chan float64, 1)
	go func() { peak <- samplePeak(sampling, o) }()
	l, err := lab.Up(ctx, o)
	m.up.UpSeconds = time.Since(m.start).Seconds()
	m.up.CommandCPUSeconds = commandCPU() - m.cpu
	stop()
	m.up.PeakMiB = <-peak
	return l, err
}

// note takes down one step.
func (m *making) note(p lab.Progress) {
	if p.Started {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Step == commandStep { // what was before it is for the lab's labels alone
		m.start, m.cpu = time.Now(), commandCPU()
		return
	}
	at := time.Since(m.start).Seconds()
	step := Step{Cluster: p.Cluster, Step: p.Step, AtSeconds: at}
	if p.Took != p.Since {
		step.Seconds = p.Took.Seconds()
	}
	m.up.Steps = append(m.up.Steps, step)
	m.commands = append(m.commands, p.Command)
	if p.Step == cluster.Usable {
		m.up.ReadySeconds = at
	}
	if p.Proof {
		m.up.VerifiedSeconds = at
	}
}
