// Package browser opens the pages of runs in a real browser: what is drawn, what the keyboard does, what is asked of the network. It
// needs Chromium (scripts/deps.sh --with browser) and no lab: go test ./tests/browser
package browser

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/page"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/runs"
)

const (
	passed = "../../lab/page/testdata/passed/mismatched-root-ca"
	failed = "../../lab/page/testdata/failed/root-expired"
)

// chromium returns the path of a browser.
func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a browser, which takes seconds: run it without -short")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Chromium: scripts/deps.sh --with browser installs it")
	return ""
}

// tab is a page that is open in a browser, and what it complained about and asked for.
type tab struct {
	context.Context
	mu         sync.Mutex
	complaints []string
	requests   []string
}

// open opens a file in a new browser.
func open(t *testing.T, file string) *tab {
	t.Helper()
	path := chromium(t)
	require.NoError(t, wait.Measure())
	options := append(chromedp.DefaultExecAllocatorOptions[:], // a user namespace, which the sandbox needs, is not everywhere
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1200, 800), chromedp.WSURLReadTimeout(wait.Bound(20*time.Second)))
	ctx, cancel := wait.Timeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{Context: ctx}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			p.requests = append(p.requests, e.Request.URL)
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			p.complaints = append(p.complaints, fmt.Sprintf("console.%s", e.Type))
		case *log.EventEntryAdded: // what the policy refuses, too
			p.complaints = append(p.complaints, e.Entry.Text)
		}
	}))
	address, err := filepath.Abs(file)
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	p.do(t, chromedp.Navigate((&url.URL{Scheme: "file", Path: address}).String()))
	p.becomes(t, `document.readyState === "complete"`)
	return p
}

// becomes waits for a condition in JavaScript. The page's policy forbids what Poll of chromedp does.
func (p *tab) becomes(t *testing.T, condition string) {
	t.Helper()
	require.NoError(t, wait.Until(p, condition, wait.Options{Within: 10 * time.Second}, func(ctx context.Context) error {
		switch is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](condition)); {
		case err != nil:
			return err
		case !is:
			return errors.New("it is not so")
		}
		return nil
	}))
}

func (p *tab) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(p, actions...))
}

// number evaluates JavaScript.
func (p *tab) number(t *testing.T, script string) float64 { return evaluate[float64](t, p, script) }

func evaluate[T any](t *testing.T, p *tab, script string) T {
	t.Helper()
	result, err := chromedp.Run(p, chromedp.Evaluate[T](script))
	require.NoError(t, err)
	return result
}

// isQuiet checks that the page asked for itself alone and complained of nothing.
func (p *tab) isQuiet(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.Empty(t, p.complaints)
	require.Len(t, p.requests, 1, "a page asks for itself and for nothing else")
	assert.True(t, strings.HasPrefix(p.requests[0], "file://"))
}

// write writes the page of a run, with so many calls if they are not 0.
func write(t *testing.T, dir string, calls int) string {
	t.Helper()
	run, err := page.Load(dir)
	require.NoError(t, err)
	if calls > 0 {
		run.Recordings = runs.Longer(run.Recordings, calls)
	}
	file := filepath.Join(t.TempDir(), "run.html")
	f, err := os.Create(file)
	require.NoError(t, err)
	require.NoError(t, page.Write(f, run))
	require.NoError(t, f.Close())
	return file
}

// pixels counts those of the canvas that have the color of a custom property.
const pixels = `(name => {
	const c = document.getElementById("canvas");
	const copy = new OffscreenCanvas(c.width, c.height + 1).getContext("2d", {willReadFrequently: true});
	copy.drawImage(c, 0, 0);
	copy.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	copy.fillRect(0, c.height, 1, 1);
	const want = copy.getImageData(0, c.height, 1, 1).data;
	const data = copy.getImageData(0, 0, c.width, c.height).data;
	let n = 0;
	for (let i = 0; i < data.length; i += 4) if (data[i] === want[0] && data[i+1] === want[1] && data[i+2] === want[2]) n++;
	return n;
})(%q)`

func (p *tab) pixels(t *testing.T, color string) float64 {
	t.Helper()
	return p.number(t, fmt.Sprintf(pixels, color))
}

func (p *tab) drawn(t *testing.T) float64 {
	return p.number(t, `+document.getElementById("canvas").dataset.points`)
}

func TestPlotIsDrawn(t *testing.T) {
	p := open(t, write(t, passed, 0))
	run, err := page.Load(passed)
	require.NoError(t, err)
	calls := 0
	for _, r := range run.Recordings {
		calls += len(r.Calls)
	}
	assert.InDelta(t, calls, p.drawn(t), 0)
	for _, color := range []string{"--c0", "--c1", "--bad", "--fault", "--mend", "--shade", "--shade2", "--soft"} {
		assert.Greaterf(t, p.pixels(t, color), 50.0, "pixels of %s", color)
	}
	light := p.pixels(t, "--paper")
	_, err = chromedp.Call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	})
	require.NoError(t, err)
	p.becomes(t, `matchMedia("(prefers-color-scheme: dark)").matches`)
	p.becomes(t, fmt.Sprintf(pixels, "--paper")+fmt.Sprintf(" > %f", light*0.9)) // the plot is drawn anew, dark
	p.isQuiet(t)
}

func TestKeysZoom(t *testing.T) {
	p := open(t, write(t, passed, 0))
	span := func() float64 {
		return p.number(t, `document.getElementById("canvas").dataset.to - document.getElementById("canvas").dataset.from`)
	}
	from := func() float64 { return p.number(t, `+document.getElementById("canvas").dataset.from`) }
	tip := func() string { return evaluate[string](t, p, `document.getElementById("tip").textContent`) }
	whole, all := span(), p.drawn(t)
	p.do(t, chromedp.Focus("#canvas"), chromedp.KeyEvent("+"), chromedp.KeyEvent("+"))
	assert.InDelta(t, whole/4, span(), 2)
	assert.Less(t, p.drawn(t), all)
	before := from()
	p.do(t, chromedp.KeyEvent(kb.ArrowRight))
	assert.InDelta(t, before+span()/4, from(), 2)
	p.do(t, chromedp.KeyEvent("n"))
	assert.Contains(t, tip(), "lost after")
	assert.Contains(t, tip(), "HTTP 503")
	p.do(t, chromedp.KeyEvent("-"))
	assert.InDelta(t, whole/2, span(), 2)
	p.do(t, chromedp.KeyEvent(kb.Escape))
	assert.Empty(t, tip(), "no call is chosen")
	p.do(t, chromedp.KeyEvent("0"))
	assert.InDelta(t, whole, span(), 0)
	assert.InDelta(t, all, p.drawn(t), 0)

	p.do(t, chromedp.Click("#list > summary"))
	p.becomes(t, `document.querySelectorAll("#rows tr").length > 0`)
	assert.InDelta(t, min(all, 500), p.number(t, `document.querySelectorAll("#rows tr").length`), 0)
	p.do(t, chromedp.Focus("#canvas"), chromedp.KeyEvent("+"), chromedp.KeyEvent("+"))
	assert.InDelta(t, p.drawn(t), p.number(t, `document.querySelectorAll("#rows tr").length`), 0, "the table has what is drawn")
	p.isQuiet(t)
}

func TestMouseZooms(t *testing.T) {
	p := open(t, write(t, passed, 0))
	whole := p.number(t, `+document.getElementById("canvas").dataset.to`)
	p.do(t, chromedp.ScrollIntoView("#canvas"))
	box := evaluate[[]float64](t, p, `(r => [r.left, r.top, r.width])(document.getElementById("canvas").getBoundingClientRect())`)
	at := func(share float64) (x, y float64) { return box[0] + box[2]*share, box[1] + 60 }
	x, y := at(0.25)
	p.do(t, chromedp.MouseEvent(chromedp.MousePressed, x, y, chromedp.ButtonLeft))
	x, y = at(0.75)
	p.do(t, chromedp.MouseEvent(chromedp.MouseMoved, x, y, chromedp.ButtonLeft),
		chromedp.MouseEvent(chromedp.MouseReleased, x, y, chromedp.ButtonLeft))
	span := p.number(t, `document.getElementById("canvas").dataset.to - document.getElementById("canvas").dataset.from`)
	assert.InDelta(t, whole/2, span, whole/50)
	p.do(t, chromedp.Click(`button[data-do="whole"]`))
	assert.InDelta(t, whole, p.number(t, `+document.getElementById("canvas").dataset.to`), 0)
}

func TestFailureIsInView(t *testing.T) {
	p := open(t, write(t, failed, 0))
	const place = `(r => r.top >= 0 && r.top < innerHeight && r.height > 0 ? 1 : 0)(document.getElementById("failure").getBoundingClientRect())`
	assert.InDelta(t, 1, p.number(t, place), 0)
	assert.InDelta(t, 1, p.number(t, `document.activeElement.id === "failure" ? 1 : 0`), 0)
	p.isQuiet(t)

	p = open(t, write(t, passed, 0))
	assert.InDelta(t, 0, p.number(t, `scrollY`), 0, "a run that passed opens at its top")
}

func TestPaperHasEverything(t *testing.T) {
	p := open(t, write(t, failed, 0))
	evaluate[bool](t, p, `dispatchEvent(new Event("beforeprint"))`)
	assert.InDelta(t, 0, p.number(t, `document.querySelectorAll("details:not([open]):not(.screen, .screen *)").length`), 0)
	evaluate[bool](t, p, `dispatchEvent(new Event("afterprint"))`)
	assert.Greater(t, p.number(t, `document.querySelectorAll("details:not([open])").length`), 5.0)
	_, err := chromedp.Call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
	require.NoError(t, err)
	p.becomes(t, `matchMedia("print").matches`)
	// The shape of the plot in a box that is narrower than the screen, before anything could draw it anew.
	shape := evaluate[[]float64](t, p, `(c => {
		document.body.style.width = "700px";
		const box = c.getBoundingClientRect();
		document.body.style.width = "";
		return [c.width / c.height, box.width / box.height, box.width];
	})(document.getElementById("canvas"))`)
	assert.InDelta(t, shape[0], shape[1], 0.02, "the plot is not squashed")
	assert.Less(t, shape[2], 701.0)
	pdf, err := chromedp.Run(p, chromedp.PrintToPDF())
	require.NoError(t, err)
	assert.Greater(t, len(pdf), 20_000)
	p.isQuiet(t)
}

func TestGridIsQuiet(t *testing.T) {
	var all []page.Run
	for _, dir := range []string{passed, failed} {
		run, err := page.Load(dir)
		require.NoError(t, err)
		all = append(all, run)
	}
	file := filepath.Join(t.TempDir(), "grid.html")
	f, err := os.Create(file)
	require.NoError(t, err)
	require.NoError(t, page.NewGrid(all).HTML(f))
	require.NoError(t, f.Close())
	p := open(t, file)
	assert.InDelta(t, 2, p.number(t, `document.querySelectorAll(".grid tbody tr").length`), 0)
	p.isQuiet(t)
}

// TestPageOpensAtOnce opens a page with 20,000 calls.
func TestPageOpensAtOnce(t *testing.T) {
	file := write(t, failed, 20_000)
	best := math.Inf(1) // of three: what else the machine does is not the page's
	for range 3 {
		p := open(t, file)
		took := p.number(t, `document.documentElement.dataset.ready - performance.getEntriesByType("navigation")[0].responseEnd`)
		best = min(best, took)
		assert.InDelta(t, 20_000, p.drawn(t), 0)
		p.isQuiet(t)
	}
	require.NoError(t, wait.Measure())
	bound := wait.Bound(500 * time.Millisecond)
	t.Logf("drawn after %.0f ms of %s", best, bound)
	assert.Less(t, best, float64(bound.Milliseconds()))
}
