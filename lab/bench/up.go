// Package bench measures labs: how long making and removing one takes, what is lost while a part of one is away, what the
// path of a call costs, how providers compare, and how long scenarios take. Each measurement makes its lab, or is given
// one, and leaves nothing. It needs what labs need.
package bench

import (
	"context"
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab"
)

// Up is the measurement of one lab that was made and removed. The JSON names are stable.
type Up struct {
	ReadySeconds      float64 `json:"ready_seconds"`              // until every cluster was usable: API, node, DNS
	VerifiedSeconds   float64 `json:"verified_seconds,omitempty"` // until each cluster had been answered by the others; none without a mesh
	UpSeconds         float64 `json:"up_seconds"`                 // until Up returned
	DownSeconds       float64 `json:"down_seconds"`
	PeakMiB           float64 `json:"peak_mib"`            // of all processes of the lab, sampled; what only the page cache holds is left out
	CPUSeconds        float64 `json:"cpu_seconds"`         // of all processes of the lab until UpSeconds
	CommandCPUSeconds float64 `json:"command_cpu_seconds"` // of this command and of what it ran meanwhile
	// free space that the lab had taken of where its provider keeps files; none where that is not to be seen
	DiskMiB float64 `json:"disk_mib,omitempty"`
	// CPUSeconds by program, those of programs that had ended under Ended; none where processes are not to be seen
	Programs map[string]float64 `json:"program_cpu_seconds,omitempty"`
	Steps    []Step             `json:"steps,omitempty"`
}

// Ended stands, among programs, for all processes that have ended.
const Ended = "(ended)"

// Step is a step of making a lab.
type Step struct {
	Cluster   string  `json:"cluster,omitempty"`
	Step      string  `json:"step"`
	AtSeconds float64 `json:"at_seconds"`        // when it ended, since the start
	Seconds   float64 `json:"seconds,omitempty"` // how long it took; milestones take none
}

// Median is the median of each figure, over runs of the same lab. Its steps are left out.
func Median(runs []Up) Up {
	median := figures(func(figure func(Up) float64) float64 { return medianOf(runs, figure) })
	for _, r := range runs {
		for program := range r.Programs {
			if median.Programs == nil {
				median.Programs = map[string]float64{}
			}
			median.Programs[program] = medianOf(runs, func(b Up) float64 { return b.Programs[program] })
		}
	}
	return median
}

// figures is what of makes of each figure.
func figures(of func(figure func(Up) float64) float64) Up {
	return Up{
		ReadySeconds:      of(func(b Up) float64 { return b.ReadySeconds }),
		VerifiedSeconds:   of(func(b Up) float64 { return b.VerifiedSeconds }),
		UpSeconds:         of(func(b Up) float64 { return b.UpSeconds }),
		DownSeconds:       of(func(b Up) float64 { return b.DownSeconds }),
		PeakMiB:           of(func(b Up) float64 { return b.PeakMiB }),
		CPUSeconds:        of(func(b Up) float64 { return b.CPUSeconds }),
		CommandCPUSeconds: of(func(b Up) float64 { return b.CommandCPUSeconds }),
		DiskMiB:           of(func(b Up) float64 { return b.DiskMiB }),
	}
}

// MeasureUp makes a lab, measures that, and removes the lab, also when ctx ends. A lab of that name must not be there.
func MeasureUp(ctx context.Context, o lab.Options) (b Up, err error) {
	free, seen := lab.FreeMiB(ctx, o)
	down, err := do(ctx, o, func(ctx context.Context, _ *lab.Lab, made *making) error {
		b = made.up
		b.Programs, b.CPUSeconds = lab.ProgramsOf(o), lab.UsageOf(o).CPUSeconds
		if b.Programs != nil {
			b.Programs[Ended] = ended(b)
		}
		if left, ok := lab.FreeMiB(ctx, o); ok && seen {
			b.DiskMiB = max(0, free-left)
		}
		if b.ReadySeconds == 0 {
			return errors.New("measuring the lab: no cluster reported that it was usable")
		}
		return nil
	})
	if err != nil {
		return Up{}, err
	}
	b.DownSeconds = down.Seconds()
	return b, nil
}

// ended is what a lab's CPU seconds are more than those of its running programs.
func ended(b Up) float64 {
	left := b.CPUSeconds
	for _, used := range b.Programs {
		left -= used
	}
	return max(0, left)
}

// samplePeak returns the most memory that was seen until ctx ended. The kernel's own high-water mark counts the page
// cache too, which is mostly the bundle's files.
func samplePeak(ctx context.Context, o lab.Options) float64 {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	most := 0.0
	for {
		select {
		case <-ctx.Done():
			return max(most, lab.UsageOf(o).MemoryMiB)
		case <-tick.C:
			most = max(most, lab.UsageOf(o).MemoryMiB)
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
