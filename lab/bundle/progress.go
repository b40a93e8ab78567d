package bundle

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// Progress is a step of one component, or how far the build as a whole is where Component is empty. Build reports the latter every
// second, whatever happens.
type Progress struct {
	Component string
	State     State
	Done      int           // Go packages that are compiled
	Total     int           // Go packages in all; 0 while unknown
	Took      time.Duration // since the component, or the build, was begun
	Detail    string        // what is being done right now

	// Share is the part of the whole build's work that is done, from 0 to 1, by the size of the sources compiled and of the programs
	// linked. It is 0 while sources are missing.
	Share float64
	// Left is an estimate of how long the rest of the build takes, at the pace so far. It is 0 while there is too little to judge by.
	Left time.Duration
}

// State of a component, or of the build.
type State string

// The states, in the order in which a component passes them. Reused and Done are the good ends.
const (
	Waiting     State = "waiting"     // for its turn; for the whole build: another build in the same folder
	Downloading State = "downloading" // sources
	Building    State = "building"
	Packing     State = "packing" // an image
	Done        State = "done"
	Reused      State = "reused" // it was there and its files are what they should be
	Failed      State = "failed"
)

// reporter hands progress on, one call at a time, whoever reports, and counts how far the build as a whole is.
type reporter struct {
	to      func(Progress)
	started time.Time

	mu           sync.Mutex
	whole        Progress            // without what is counted
	names        []string            // of the components, in the order in which they were first heard of
	last         map[string]Progress // of each component
	begun        map[string]time.Time
	unlisted     int // runs of the Go command whose packages are not known yet
	compilations []*compilation
	compiling    time.Time // when the first compiler was started
}

func newReporter(to func(Progress)) *reporter {
	if to == nil {
		to = func(Progress) {}
	}
	return &reporter{to: to, started: time.Now(), last: map[string]Progress{}, begun: map[string]time.Time{}}
}

func (r *reporter) tell(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked(p)
}

func (r *reporter) tellLocked(p Progress) {
	if p.Component == "" {
		r.whole = p
		r.to(p)
		return
	}
	if _, ok := r.last[p.Component]; !ok {
		r.names = append(r.names, p.Component)
	}
	r.last[p.Component] = p
	if begun, ok := r.begun[p.Component]; ok {
		p.Took = time.Since(begun)
	} else if p.State == Building {
		r.begun[p.Component] = time.Now()
	}
	r.to(p)
}

// expect announces that many runs of the Go command.
func (r *reporter) expect(runs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlisted += runs
}

// listed announces what one of them has to do.
func (r *reporter) listed(c *compilation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlisted--
	r.compilations = append(r.compilations, c)
}

// start announces that one of them begins to compile.
func (r *reporter) start(c *compilation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.running = true
	if r.compiling.IsZero() {
		r.compiling = time.Now()
	}
	r.components(c)
}

// line counts a line of `go build -v` and returns whether it was a package.
func (r *reporter) line(c *compilation, line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.compile(line) {
		return false
	}
	r.components(c)
	return true
}

// standard returns whether a compilation has got all packages of the standard library.
func (r *reporter) standard(c *compilation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.standard == 0
}

// finish announces the end of a run that has succeeded.
func (r *reporter) finish(c *compilation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.finish()
	r.components(c)
}

// components tells how far the components of a compilation are.
func (r *reporter) components(c *compilation) {
	for _, t := range c.tallies {
		p := Progress{Component: t.component, State: Building, Done: t.done, Total: t.total}
		if last := r.last[p.Component]; last.State != Building || last.Done != p.Done || last.Total != p.Total {
			p.Detail = c.detail
			r.tellLocked(p)
		}
	}
}

// doing sets what is being done as long as nothing else is.
func (r *reporter) doing(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = Progress{State: Building, Detail: what}
}

// beat reports every second how far the build is, until end is called.
func (r *reporter) beat() (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticks.C:
				r.mu.Lock()
				r.to(r.now())
				r.mu.Unlock()
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// now returns how far the build as a whole is.
func (r *reporter) now() Progress {
	p := r.whole
	p.Took = time.Since(r.started)
	var doing []string
	var total, done, worked float64
	of := map[string]bool{}
	for _, c := range r.compilations {
		c.look()
		total, done, worked = total+c.total, done+c.done, worked+c.worked
		if c.running {
			doing = append(doing, c.name+": "+c.status())
			for _, t := range c.tallies {
				of[t.component] = true
			}
		}
	}
	for _, name := range r.names {
		last := r.last[name]
		if last.State == Downloading || last.State == Packing || last.State == Building && last.Total == 0 && !of[name] {
			doing = append(doing, strings.TrimSpace(fmt.Sprintf("%s: %s %s", name, last.State, last.Detail)))
		}
	}
	if len(doing) > 0 {
		p.State, p.Detail = Building, words.Some(doing, 3)
	}
	if r.unlisted > 0 || total == 0 {
		return p
	}
	p.Share = done / total
	const enough = 10 * time.Second
	if past := time.Since(r.compiling); !r.compiling.IsZero() && past >= enough && worked > 0 {
		p.Left = time.Duration(float64(past) * (total - done) / worked)
	}
	return p
}
