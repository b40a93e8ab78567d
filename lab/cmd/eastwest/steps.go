package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// stepPrinter shows the steps of making a lab: a line for each that ends, and on a terminal a last line with those that
// are under way.
type stepPrinter struct {
	mu      sync.Mutex // steps of several clusters run at once
	start   time.Time
	w       io.Writer
	live    bool // draw the last line
	verbose bool // show the commands
	drawn   bool
	running []string
	last    string   // that was done
	stopped []string // by a timeout, an interruption, or a step that failed
}

func newStepPrinter(w io.Writer, verbose bool) *stepPrinter {
	return &stepPrinter{start: time.Now(), w: w, live: fancy(w), verbose: verbose}
}

func (p *stepPrinter) show(s lab.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	name := strings.TrimSpace(s.Cluster + " " + s.Step)
	if s.Started {
		p.running = append(p.running, name)
		p.draw()
		return
	}
	note := ""
	if i := slices.Index(p.running, name); i >= 0 { // otherwise it is a milestone, which takes no time
		p.running = slices.Delete(p.running, i, i+1)
		note = " (" + words.Seconds(s.Took) + ")"
	}
	switch {
	case errors.Is(s.Err, context.Canceled), errors.Is(s.Err, context.DeadlineExceeded), errors.Is(s.Err, errTimeout):
		note += " stopped"
		p.stopped = append(p.stopped, name)
	case s.Err != nil:
		note += " failed"
	default:
		p.last = name
	}
	fmt.Fprintf(p.w, "%6.1f s  %-9s  %s%s\n", time.Since(p.start).Seconds(), s.Cluster, s.Step, note)
	if p.verbose && s.Command != "" {
		fmt.Fprintf(p.w, "             $ %s\n", strings.ReplaceAll(strings.TrimSpace(s.Command), "\n", "\n               "))
	}
	p.draw()
}

// end takes the last line away and adds to an error of running out of time what was under way.
func (p *stepPrinter) end(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	switch {
	case !errors.Is(err, errTimeout):
		return err
	case len(p.stopped) > 0:
		return fmt.Errorf("%w; stopped: %s", err, strings.Join(p.stopped, ", "))
	}
	return fmt.Errorf("%w; done last: %s", err, cmp.Or(p.last, "nothing"))
}

func (p *stepPrinter) erase() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *stepPrinter) draw() {
	if p.live && len(p.running) > 0 {
		fmt.Fprintf(p.w, "          … %s", shorten(strings.Join(p.running, ", "), 66))
		p.drawn = true
	}
}
