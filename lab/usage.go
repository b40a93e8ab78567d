package lab

import (
	"context"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Usage is what all clusters of a lab use.
type Usage struct {
	CPUSeconds float64 // since they were made
	MemoryMiB  float64 // now, without memory that only holds files of the page cache
}

// UsageOf returns what the lab uses. Clusters that are not there yet, or are not on this machine, use nothing.
func UsageOf(o Options) (sum Usage) {
	for _, node := range nodes(o) {
		own, ok := node.(usage)
		if !ok {
			continue
		}
		if u, err := own.Usage(); err == nil {
			sum.CPUSeconds += u.CPUSeconds
			sum.MemoryMiB += u.MemoryMiB
		}
	}
	return sum
}

// ProgramsOf returns the CPU seconds that the lab's running processes have used, by program, or nil if its provider does not
// see them.
func ProgramsOf(o Options) map[string]float64 {
	var sum map[string]float64
	for _, node := range nodes(o) {
		own, ok := node.(interface {
			ProgramSeconds() (map[string]float64, error)
		})
		if !ok {
			continue
		}
		programs, err := own.ProgramSeconds()
		if err != nil {
			continue
		}
		if sum == nil {
			sum = map[string]float64{}
		}
		for program, used := range programs {
			sum[program] += used
		}
	}
	return sum
}

// nodes returns the lab's clusters that are there.
func nodes(o Options) (there []cluster.Cluster) {
	r, err := readRecord(o.Home, o.Name)
	if err != nil {
		return nil
	}
	p := o.provider(r, mesh.Topology{}, nil, nil)
	for _, name := range r.Topology.Clusters() {
		if node, err := p.Open(o.Name, name); err == nil {
			there = append(there, node)
		}
	}
	return there
}

// FreeMiB returns the free space of the disk that holds the files of the lab's provider. ok is false if that cannot be known.
func FreeMiB(ctx context.Context, o Options) (free float64, ok bool) {
	r, _, err := o.decide(ctx)
	if err != nil {
		return 0, false
	}
	own, ok := o.provider(r, mesh.Topology{}, nil, nil).(interface {
		FreeBytes(context.Context) (uint64, error)
	})
	if !ok {
		return 0, false
	}
	bytes, err := own.FreeBytes(ctx)
	return float64(bytes) / (1 << 20), err == nil
}

// Exists reports whether there is a lab of that name, whatever state it is in.
func Exists(home, name string) (bool, error) {
	known, err := names(home)
	return slices.Contains(known, name), err
}
