// Package runs makes long runs of short ones, for tests of what is made of runs.
package runs

import (
	"time"

	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// Longer returns recordings with so many calls in all: what is there happens again and again.
func Longer(all []*traffic.Recording, calls int) (longer []*traffic.Recording) {
	for i, r := range all {
		l := *r
		l.Calls = nil
		length := r.Ended.Sub(r.Began)
		for n := range (calls + len(all) - 1 - i) / len(all) {
			c := r.Calls[n%len(r.Calls)]
			later := time.Duration(n/len(r.Calls)) * length
			c.Start = c.Start.Add(later)
			if !c.End.IsZero() {
				c.End = c.End.Add(later)
			}
			l.Calls = append(l.Calls, c)
			l.Ended = r.Ended.Add(later)
		}
		longer = append(longer, &l)
	}
	return longer
}
