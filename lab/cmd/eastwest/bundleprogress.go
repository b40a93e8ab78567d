package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// bundleProgress returns a listener for bundle.Build and what has to be called when the build is over.
func bundleProgress(w io.Writer) (show func(bundle.Progress), end func()) {
	if fancy(w) {
		return bundleBars(w)
	}
	return bundleLines(w), func() {}
}

// bundleLines prints a line when a component begins, at each quarter of its packages, and when it ends.
func bundleLines(w io.Writer) func(bundle.Progress) {
	start := time.Now()
	last := map[string]bundle.Progress{}
	return func(p bundle.Progress) {
		was := last[p.Component]
		last[p.Component] = p
		quarters := func(p bundle.Progress) int { return 4 * p.Done / max(p.Total, 1) }
		var text string
		switch {
		case p.Component == "":
			text = "waiting: " + p.Detail
		case p.State == bundle.Waiting && p.Detail != "":
			text = p.Detail
		case p.State == bundle.Done:
			text = fmt.Sprintf("done in %.1f s", p.Took.Seconds())
		case p.State == bundle.Failed:
			text = "failed"
		case p.State == bundle.Downloading && was.State != bundle.Downloading, p.State == bundle.Packing:
			text = fmt.Sprintf("%s %s", p.State, p.Detail)
		case p.State == bundle.Building && p.Done > 0 && p.Done < p.Total && quarters(p) > quarters(was):
			text = fmt.Sprintf("%d of %d packages compiled", p.Done, p.Total)
		case p.State == bundle.Building && p.Total > 0 && was.Total == 0:
			text = fmt.Sprintf("building %d packages, less those in Go's cache", p.Total)
		default:
			return
		}
		fmt.Fprintf(w, "%7.1f s  %-10s  %s\n", time.Since(start).Seconds(), p.Component, text)
	}
}

// bundleBars draws a bar per component, with what is being done right now behind it.
func bundleBars(w io.Writer) (show func(bundle.Progress), end func()) {
	var mu sync.Mutex // the bars are drawn by a goroutine of their own
	last := map[string]bundle.Progress{}
	begun := map[string]time.Time{}
	bars := map[string]*mpb.Bar{}
	all := mpb.New(mpb.WithOutput(w), mpb.WithWidth(24), mpb.WithRefreshRate(150*time.Millisecond))

	tail := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		p := last[name]
		switch p.State {
		case bundle.Waiting:
			return p.Detail
		case bundle.Reused:
			return "ready"
		case bundle.Done:
			return fmt.Sprintf("built in %s", p.Took.Round(100*time.Millisecond))
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
		if p.Component == "" {
			fmt.Fprintln(all, p.Detail+": waiting for it")
			return
		}
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
