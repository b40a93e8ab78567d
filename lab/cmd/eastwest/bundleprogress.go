package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// bundleProgress returns a listener for bundle.Build, and a function to call when the build is over.
func bundleProgress(w io.Writer) (show func(bundle.Progress), end func()) {
	if fancy(w) {
		return bundleBars(w)
	}
	return bundleLines(w), func() {}
}

// bundleLines prints a line when a component begins to compile or pack, and when it ends. Between them it prints how far the whole
// build is, so that there is a line at least every 10 s: bundle.Build reports that every second.
func bundleLines(w io.Writer) func(bundle.Progress) {
	const quiet = 9 * time.Second
	start := time.Now()
	last := map[string]bundle.Progress{}
	var printed time.Time
	return func(p bundle.Progress) {
		was := last[p.Component]
		last[p.Component] = p
		name, text := p.Component, ""
		switch {
		case p.Component == "" && p.State == bundle.Waiting && was.Detail != p.Detail, p.Component == "" && time.Since(printed) >= quiet:
			name, text = wholeBuild(p)
		case p.Component == "":
		case p.State == bundle.Waiting && p.Detail != "", p.State == bundle.Failed:
			text = cmp.Or(p.Detail, "failed")
		case p.State == bundle.Done:
			text = "done in " + words.Seconds(p.Took)
		case p.State == bundle.Packing:
			text = fmt.Sprintf("%s %s", p.State, p.Detail)
		case p.State == bundle.Building && p.Total > 0 && was.Total == 0:
			text = fmt.Sprintf("building %d packages, less those in Go's cache", p.Total)
		}
		if text == "" {
			return
		}
		printed = time.Now()
		fmt.Fprintf(w, "%7.1f s  %-10s  %s\n", time.Since(start).Seconds(), name, text)
	}
}

// wholeBuild returns the share that is done, "31 %", and what is being done, with the time that is left.
func wholeBuild(p bundle.Progress) (share, text string) {
	if p.State == bundle.Waiting {
		return "", "waiting: " + p.Detail
	}
	if p.Share > 0 {
		share = fmt.Sprintf("%.0f %%", math.Floor(100*p.Share))
	}
	if p.Left > 0 {
		return share, p.Detail + "; " + left(p.Left)
	}
	return share, p.Detail
}

// left says how long something will still take, no more precisely than anybody can know.
func left(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "a few seconds left"
	case d < 2*time.Minute:
		return fmt.Sprintf("about %.0f s left", d.Round(10*time.Second).Seconds())
	}
	return fmt.Sprintf("about %.0f min left", d.Round(time.Minute).Minutes())
}

// bundleBars draws a bar for each component, followed by what is being done for it, and one for the whole build.
func bundleBars(w io.Writer) (show func(bundle.Progress), end func()) {
	const whole = "all"
	var mu sync.Mutex // the bars are drawn by a goroutine of their own
	waiting := false
	last := map[string]bundle.Progress{}
	begun := map[string]time.Time{}
	bars := map[string]*mpb.Bar{}
	all := mpb.New(mpb.WithOutput(w), mpb.WithWidth(24), mpb.WithRefreshRate(150*time.Millisecond))

	tail := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		p := last[name]
		if name == whole {
			share, text := wholeBuild(p)
			return strings.TrimSpace(share + " " + text)
		}
		switch p.State {
		case bundle.Waiting:
			return p.Detail
		case bundle.Reused:
			return "ready"
		case bundle.Done:
			return "built in " + words.Seconds(p.Took)
		case bundle.Failed:
			return "failed"
		}
		s := fmt.Sprintf("%4s %s", time.Since(begun[name]).Round(time.Second), p.State)
		if p.Total > 0 {
			s += fmt.Sprintf(" %d/%d", p.Done, p.Total)
		}
		return s + " " + shorten(p.Detail, 48)
	}
	show = func(p bundle.Progress) {
		if p.Component == "" && p.State == bundle.Waiting {
			if !waiting {
				fmt.Fprintln(all, "waiting: "+p.Detail)
			}
			waiting = true
			return
		}
		p.Component = cmp.Or(p.Component, whole)
		mu.Lock()
		if _, ok := begun[p.Component]; !ok && p.State != bundle.Waiting {
			begun[p.Component] = time.Now()
		}
		last[p.Component] = p
		mu.Unlock()
		bar := bars[p.Component]
		if bar == nil {
			name := p.Component
			bar = all.AddBar(0, mpb.BarFillerTrim(),
				mpb.PrependDecorators(decor.Name(name, decor.WC{W: 12, C: decor.DindentRight})),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + tail(name) })))
			bars[name] = bar
		}
		if p.Component == whole {
			bar.SetTotal(1000, false)
			bar.SetCurrent(int64(1000 * p.Share))
			return
		}
		switch p.State {
		case bundle.Done, bundle.Reused:
			bar.SetTotal(1, false)
			bar.SetCurrent(1)
			bar.SetTotal(1, true)
		case bundle.Failed:
			bar.Abort(false)
		case bundle.Building:
			if p.Total > 0 {
				bar.SetTotal(int64(p.Total)+1, false) // one more for what follows the packages
				bar.SetCurrent(int64(p.Done))
			}
		}
	}
	end = func() {
		for _, bar := range bars {
			bar.Abort(false) // those that a failure elsewhere left unfinished
		}
		all.Wait()
	}
	return show, end
}

// shorten keeps the end of a text, which is the telling part of a package's path.
func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return "…" + string(r[len(r)-most+1:])
	}
	return s
}
