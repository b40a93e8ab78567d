package lab

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
)

// Bench is the measurement of one lab that was made and removed. The JSON names are stable.
type Bench struct {
	ReadySeconds      float64     `json:"ready_seconds"`              // until every cluster was usable: API, node, DNS
	VerifiedSeconds   float64     `json:"verified_seconds,omitempty"` // until each cluster had been answered by the others; none without a mesh
	UpSeconds         float64     `json:"up_seconds"`                 // until Up returned
	DownSeconds       float64     `json:"down_seconds"`
	PeakMiB           float64     `json:"peak_mib"`            // of all processes of the lab, sampled; what only the page cache holds is left out
	CPUSeconds        float64     `json:"cpu_seconds"`         // of all processes of the lab until UpSeconds
	CommandCPUSeconds float64     `json:"command_cpu_seconds"` // of this command and of what it ran meanwhile
	DiskMiB           float64     `json:"disk_mib,omitempty"`  // free space that the lab had taken of where its provider keeps files; none where that is not to be seen
	Steps             []BenchStep `json:"steps,omitempty"`
}

// BenchStep is a step of making a lab.
type BenchStep struct {
	Cluster   string  `json:"cluster,omitempty"`
	Step      string  `json:"step"`
	AtSeconds float64 `json:"at_seconds"`        // when it ended, since the start
	Seconds   float64 `json:"seconds,omitempty"` // how long it took; milestones take none
}

// What making a lab tells of these moments.
const (
	usableStep = "usable"                           // told by providers for each cluster
	proofStep  = "prove calls between all clusters" // told by the mesh, once
)

// Median is the median of each figure, over runs of the same lab. Its steps are left out.
func Median(runs []Bench) Bench {
	return figures(func(figure func(Bench) float64) float64 { return medianOf(runs, figure) })
}

// figures is what of makes of each figure.
func figures(of func(figure func(Bench) float64) float64) Bench {
	return Bench{
		ReadySeconds:      of(func(b Bench) float64 { return b.ReadySeconds }),
		VerifiedSeconds:   of(func(b Bench) float64 { return b.VerifiedSeconds }),
		UpSeconds:         of(func(b Bench) float64 { return b.UpSeconds }),
		DownSeconds:       of(func(b Bench) float64 { return b.DownSeconds }),
		PeakMiB:           of(func(b Bench) float64 { return b.PeakMiB }),
		CPUSeconds:        of(func(b Bench) float64 { return b.CPUSeconds }),
		CommandCPUSeconds: of(func(b Bench) float64 { return b.CommandCPUSeconds }),
		DiskMiB:           of(func(b Bench) float64 { return b.DiskMiB }),
	}
}

// BenchUp makes a lab, measures that, and removes the lab, also when ctx ends. A lab of that name must not be there.
func BenchUp(ctx context.Context, o Options) (Bench, error) {
	if known, err := names(o.Home); err != nil {
		return Bench{}, err
	} else if slices.Contains(known, o.Name) {
		return Bench{}, fmt.Errorf("lab %s is there: a measurement needs a name that is free", o.Name)
	}
	var (
		mu sync.Mutex // clusters make progress side by side
		b  Bench
	)
	free, seen := freeMiB(ctx, o)
	start, before := time.Now(), commandCPU()
	told := o.Progress
	o.Progress = func(p Progress) {
		if told != nil {
			told(p)
		}
		if p.Started {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if p.Step == kind.CommandStep {
			start, before = time.Now(), commandCPU()
			return
		}
		at := time.Since(start).Seconds()
		step := BenchStep{Cluster: p.Cluster, Step: p.Step, AtSeconds: at}
		if p.Took != p.Since {
			step.Seconds = p.Took.Seconds()
		}
		b.Steps = append(b.Steps, step)
		switch p.Step {
		case usableStep:
			b.ReadySeconds = at
		case proofStep:
			b.VerifiedSeconds = at
		}
	}
	sampling, stop := context.WithCancel(ctx)
	peak := make(chan float64, 1)
	go func() { peak <- samplePeak(sampling, o) }()
	l, err := Up(ctx, o)
	b.UpSeconds = time.Since(start).Seconds()
	stop()
	b.PeakMiB = <-peak
	if err != nil {
		return Bench{}, err
	}
	b.CommandCPUSeconds = commandCPU() - before
	b.CPUSeconds = usage(o).cpuSeconds
	if left, ok := freeMiB(ctx, o); ok && seen {
		b.DiskMiB = max(0, free-left)
	}
	l.Close()
	if b.DownSeconds, err = benchDown(ctx, l); err != nil {
		return Bench{}, err
	}
	if b.ReadySeconds == 0 {
		return Bench{}, errors.New("measuring the lab: no cluster told that it was usable")
	}
	return b, nil
}

// benchDown removes the lab and tells how long that took. Nothing may stay, so it goes on when ctx ends.
func benchDown(ctx context.Context, l *Lab) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
	defer cancel()
	start := time.Now()
	for _, c := range l.Clusters {
		if bare, ok := c.(*kind.BareNode); ok {
			err = errors.Join(err, bare.Delete(ctx))
			seconds = time.Since(start).Seconds() // what is left is there for the labels alone
		}
	}
	err = errors.Join(err, Down(ctx, l.home, l.Name))
	if seconds == 0 {
		seconds = time.Since(start).Seconds()
	}
	return seconds, err
}

// freeMiB is how much may still be written where the lab's provider keeps files; not ok where that cannot be told.
func freeMiB(ctx context.Context, o Options) (free float64, ok bool) {
	name, err := chooseProvider(ctx, o.Provider)
	if err != nil {
		return 0, false
	}
	p, err := newProvider(name, o.Home, nil, o)
	if err != nil {
		return 0, false
	}
	own, ok := p.(interface {
		FreeBytes(context.Context) (uint64, error)
	})
	if !ok {
		return 0, false
	}
	bytes, err := own.FreeBytes(ctx)
	return float64(bytes) / (1 << 20), err == nil
}

type labUsage struct{ cpuSeconds, memoryMiB float64 }

// usage is what all clusters of the lab use; those that are not there yet use nothing.
func usage(o Options) labUsage {
	var sum labUsage
	r, err := readRecord(o.Home, o.Name)
	if err != nil {
		return sum
	}
	p, err := newProvider(r.Provider, o.Home, nil, Options{bare: o.bare})
	if err != nil {
		return sum
	}
	for _, name := range o.Topology.Clusters() {
		if node, err := p.Open(o.Name, name); err == nil {
			if own, ok := node.(ownNode); ok {
				if u, err := own.Usage(); err == nil {
					sum.cpuSeconds += u.CPUSeconds
					sum.memoryMiB += u.MemoryMiB
				}
			}
		}
	}
	return sum
}

// samplePeak returns the most memory that was seen until ctx ended. The kernel's own high-water mark counts the page
// cache too, which is mostly the bundle's files.
func samplePeak(ctx context.Context, o Options) float64 {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	most := 0.0
	for {
		select {
		case <-ctx.Done():
			return max(most, usage(o).memoryMiB)
		case <-tick.C:
			most = max(most, usage(o).memoryMiB)
		}
	}
}

// commandCPU is the CPU time in seconds of this process and of its children that have ended.
func commandCPU() float64 {
	sum := 0.0
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			sum += time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
		}
	}
	return sum
}

// Machine is what a measurement was made on.
type Machine struct {
	CPUs      int    `json:"cpus"`
	MemoryMiB uint64 `json:"memory_mib"`
	Kernel    string `json:"kernel"`
}

// ThisMachine describes the machine.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU()}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryMiB = uint64(info.Totalram) * uint64(info.Unit) >> 20
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}
