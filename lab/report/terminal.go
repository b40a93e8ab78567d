package report

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// TerminalOptions say how a terminal is written to. The zero value is plain: no color, no line that
// changes, quiet when green.
type TerminalOptions struct {
	Color   bool
	Live    bool   // the running step is shown on a last line that is overwritten
	Width   int    // columns, for wrapping and for the live line; 80 when zero
	Verbose bool   // the whole story: every step with its command and what was seen
	Quiet   bool   // what passed is one line for each scenario
	Folder  string // the run folder, named at the end
}

// Detect returns what w can do: plain lines only for files, pipes and TERM=dumb, and no color with NO_COLOR (https://no-color.org).
// A terminal is a writer with a method Fd, such as *os.File, whose file descriptor is one.
func Detect(w io.Writer, getenv func(string) string) TerminalOptions {
	var o TerminalOptions
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) || getenv("TERM") == "dumb" {
		return o
	}
	o.Live = true
	o.Color = getenv("NO_COLOR") == ""
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = width
	}
	return o
}

// Terminal shows a run as it goes: quiet when green (a line per phase), complete when red (every step
// of the phase, and what failed with its place, what was wanted and seen, and what to try). With
// Verbose it is a story to read along.
func Terminal(w io.Writer, o TerminalOptions) Sink {
	if o.Width <= 0 {
		o.Width = 80
	}
	return &terminal{out: w, o: o}
}

type terminal struct {
	mu  sync.Mutex
	out io.Writer
	o   TerminalOptions

	steps   []Event // of the phase that runs, ended and not shown yet
	counts  struct{ all, bad, skipped int }
	opened  bool     // the phase failed: its steps are shown as they come
	phases  int      // of the scenario, so far
	running []string // steps that started and have not ended, for the live line
	live    bool     // there is a live line
}

var _ Sink = (*terminal)(nil)

// Emit shows the event.
func (t *terminal) Emit(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e = e.clean()
	for _, text := range []*string{&e.Scenario, &e.Phase, &e.Place, &e.Cluster, &e.Name, &e.Command, &e.Wanted, &e.Seen, &e.Try, &e.Detail} {
		*text = harmless(*text)
	}
	switch e.Type {
	case ScenarioStarted:
		t.scenario(e)
	case PhaseStarted:
		t.startPhase(e)
	case StepStarted:
		t.running = append(t.running, e.Name)
	case StepEnded:
		t.ended(e.Name)
		t.step(e)
	case PhaseEnded:
		t.endPhase(e)
	case ScenarioEnded:
		t.end(e)
	case Note:
		if t.o.Verbose || e.Result != "" {
			t.line(t.mark(e.Result), e.Name, stepColumn, e.Took, "")
			t.more(e)
		}
	}
	t.drawLive()
}

func (t *terminal) scenario(e Event) {
	t.phases = 0
	if t.o.Quiet {
		return
	}
	t.printf("%s  %s\n", t.paint(bold, e.Scenario), e.Name)
	if !t.o.Verbose {
		return
	}
	t.text("  ", e.Detail)
	for _, name := range sortedNames(e.Properties) {
		t.printf("  %s\n", t.paint(dim, fmt.Sprintf("%-12s %s", name, e.Properties[name])))
	}
}

// What each phase is for, in a learner's words.
var titles = map[string]string{
	"baseline":    "Before: the mesh is healthy",
	"resume":      "Going on where it was stopped",
	"break":       "Breaking it",
	"operate":     "Changing it",
	"symptoms":    "What it looks like",
	"diagnose":    "Finding the cause",
	"later":       "What breaks later",
	"wrong-fixes": "What does not help",
	"recover":     "Repairing it",
	"healthy":     "Healthy again",
	"always":      "The whole recording, judged",
	"undo":        "Undoing what is left",
}

func (t *terminal) startPhase(e Event) {
	t.steps, t.opened, t.running = nil, false, nil
	t.counts.all, t.counts.bad, t.counts.skipped = 0, 0, 0
	t.phases++
	if !t.o.Verbose {
		return
	}
	title := titles[e.Phase]
	if e.Name != "" {
		title = strings.TrimPrefix(title+": "+e.Name, ": ")
	}
	t.printf("\n%s\n", t.paint(bold, fmt.Sprintf("%d. %s", t.phases, strings.TrimSpace(title+" ("+e.Phase+")"))))
	t.text("   ", e.Detail)
}

func (t *terminal) step(e Event) {
	t.counts.all++
	switch {
	case e.Result.Bad():
		t.counts.bad++
	case e.Result == Skipped:
		t.counts.skipped++
	}
	if e.Phase == "" || t.o.Verbose || t.opened {
		t.show(e)
		return
	}
	t.steps = append(t.steps, e)
	if e.Result.Bad() {
		t.opened = true
		for _, step := range t.steps {
			t.show(step)
		}
		t.steps = nil
	}
}

// show writes one step that ended.
func (t *terminal) show(e Event) {
	if e.Result.Bad() {
		t.failure(e)
		return
	}
	note := ""
	if e.Result == Skipped {
		note = "skipped: " + e.Seen
	}
	name := e.Name
	if e.Cluster != "" && !strings.Contains(name, e.Cluster) {
		name = e.Cluster + ": " + name
	}
	indent := ""
	if e.Phase != "" && !t.o.Verbose {
		indent = "  "
	}
	t.line(indent+t.mark(e.Result), name, stepColumn, e.Took, note)
	if t.o.Verbose {
		t.more(e)
	}
}

// more is what only a reader of the story wants to know of a step that went well.
func (t *terminal) more(e Event) {
	if e.Command != "" {
		for i, line := range lines(e.Command) {
			prompt := "$ "
			if i > 0 {
				prompt = "  "
			}
			t.printf("      %s\n", t.paint(cyan, prompt+line))
		}
	}
	if e.Seen != "" && e.Result != Skipped {
		t.text("      ", e.Seen)
	}
	const most = 30
	detail := lines(e.Detail)
	for i, line := range detail {
		if i == most {
			t.printf("      %s\n", t.paint(dim, fmt.Sprintf("| … %d more lines in %s", len(detail)-most, eventsFile)))
			break
		}
		t.printf("      %s\n", t.paint(dim, "| "+line))
	}
}

// failure is the whole of a step that failed, in the form that editors and people find their way from.
func (t *terminal) failure(e Event) {
	t.printf("%s\n", t.paint(red, headline(e)))
	for _, field := range [][2]string{
		{"wanted", e.Wanted}, {"seen", e.Seen}, {"try", e.Try}, {"command", e.Command}, {"detail", e.Detail}, {"kept", t.o.Folder},
	} {
		for i, line := range lines(field[1]) {
			name := field[0]
			if i > 0 {
				name = ""
			}
			t.printf("  %s %s\n", t.paint(dim, fmt.Sprintf("%-7s", name)), line)
		}
	}
}

// headline is "place: phase: step", or what of it is known.
func headline(e Event) string {
	parts := make([]string, 0, 4)
	for _, part := range []string{e.Place, e.Phase, e.Cluster, e.Name} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	text := strings.Join(parts, ": ")
	if e.Result == Errored {
		text += " (could not be carried out)"
	}
	return text
}

func (t *terminal) endPhase(e Event) {
	word := "step"
	switch e.Phase {
	case "baseline", "symptoms", "healthy", "always", "diagnose":
		word = "check"
	}
	note := words.Plural(t.counts.all, word)
	switch {
	case e.Result.Bad() && t.counts.bad > 0:
		note = fmt.Sprintf("%d of %s failed", t.counts.bad, note)
	case e.Result.Bad():
		// The phase itself failed, by a step that never ended or before its first.
		t.failure(e)
		note = "failed"
	case e.Result == Skipped:
		note = "skipped: " + e.Seen
	case t.counts.all == 0:
		note = ""
	case t.counts.skipped > 0:
		note += fmt.Sprintf(", %d skipped", t.counts.skipped)
	}
	t.running, t.steps = nil, nil
	if t.o.Verbose {
		// The title stands above; this line only closes the phase.
		t.printf("   %s\n", t.paint(dim, strings.TrimSpace(fmt.Sprintf("%s in %s", note, seconds(e.Took)))))
		return
	}
	if t.o.Quiet && !e.Result.Bad() {
		return
	}
	t.line(t.mark(e.Result), e.Phase, phaseColumn, e.Took, note)
}

func (t *terminal) end(e Event) {
	t.running, t.steps = nil, nil
	took := seconds(e.Took)
	if t.o.Verbose {
		t.printf("\n")
	}
	switch e.Result {
	case Skipped:
		t.printf("%s %s  skipped: %s\n", t.mark(e.Result), t.paint(bold, e.Scenario), e.Seen)
	case Failed, Errored:
		if e.Wanted != "" || e.Seen != "" {
			if e.Name == "" {
				e.Name = e.Scenario
			}
			t.failure(e)
		}
		t.printf("%s %s  %s after %s\n", t.mark(e.Result), t.paint(bold, e.Scenario), e.Result, took)
		if t.o.Folder != "" {
			t.printf("%s\n", t.o.Folder)
		}
	default:
		t.printf("%s %s  %s\n", t.mark(e.Result), t.paint(bold, e.Scenario), t.paint(dim, took))
		if t.o.Folder != "" && !t.o.Quiet {
			t.printf("  %s\n", t.paint(dim, "kept    "+t.o.Folder))
		}
	}
}

// line is a mark, a name, a time and a note, in columns.
func (t *terminal) line(mark, name string, width int, took time.Duration, note string) {
	text := fmt.Sprintf("  %s %s", mark, pad(name, width))
	if took > 0 {
		text += " " + t.paint(dim, fmt.Sprintf("%6s", seconds(took)))
	} else if note != "" {
		text += strings.Repeat(" ", 7)
	}
	if note != "" {
		text += "  " + note
	}
	t.printf("%s\n", strings.TrimRight(text, " "))
}

// The widths of the column of names.
const (
	phaseColumn = 13
	stepColumn  = 52
)

func (t *terminal) mark(r Result) string {
	switch r {
	case Passed:
		return t.paint(green, "✓")
	case Failed, Errored:
		return t.paint(red, "✗")
	case Skipped:
		return t.paint(yellow, "-")
	}
	return "·"
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (t *terminal) paint(code, text string) string { return t.o.paint(code, text) }

func (o TerminalOptions) paint(code, text string) string {
	if !o.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// printf writes lines that stay. A terminal that is gone is no reason to stop a run: the folder has
// everything.
func (t *terminal) printf(format string, args ...any) {
	if t.live {
		t.live = false
		_, _ = io.WriteString(t.out, "\r\x1b[K")
	}
	_, _ = fmt.Fprintf(t.out, format, args...)
}

// text writes prose, wrapped.
func (t *terminal) text(indent, prose string) {
	width := min(t.o.Width, 100) - len(indent)
	for _, line := range lines(prose) {
		for _, part := range wrap(line, width) {
			t.printf("%s%s\n", indent, part)
		}
	}
}

func (t *terminal) ended(name string) {
	for i, running := range t.running {
		if running == name {
			t.running = append(t.running[:i:i], t.running[i+1:]...)
			return
		}
	}
}

// drawLive shows the step that started last. It changes with events only: nothing spins.
func (t *terminal) drawLive() {
	if !t.o.Live {
		return
	}
	if t.live {
		t.live = false
		_, _ = io.WriteString(t.out, "\r\x1b[K")
	}
	if len(t.running) == 0 {
		return
	}
	text := "  … " + lines(t.running[len(t.running)-1] + "\n")[0]
	if more := len(t.running) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	// A line that wraps could not be taken back.
	if runes := []rune(text); len(runes) > t.o.Width-1 {
		text = string(runes[:max(0, t.o.Width-2)]) + "…"
	}
	_, _ = io.WriteString(t.out, t.paint(dim, text))
	t.live = true
}

// harmless makes control characters of foreign output visible: a log must not steer a terminal.
func harmless(text string) string {
	control := func(r rune) bool { return r < 0x20 && r != '\n' || r >= 0x7F && r < 0xA0 }
	if !strings.ContainsFunc(text, control) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case r == '\r':
		case control(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
