package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// GitHub is a sink for runs inside GitHub Actions: a group per scenario in the log, an annotation at
// the place of every failure, and a table in the step's summary. It returns nil where GITHUB_ACTIONS is
// not set. Put it before Terminal in Multi, so that the group encloses what the terminal shows.
func GitHub(w io.Writer, getenv func(string) string) Sink {
	if getenv("GITHUB_ACTIONS") != "true" {
		return nil
	}
	return &github{out: w, summary: getenv("GITHUB_STEP_SUMMARY")}
}

type github struct {
	mu      sync.Mutex
	out     io.Writer
	summary string  // path; none when empty
	events  []Event // of the scenario
	// A phase that failed has an annotation: by its step, or, where none ended, by itself.
	annotated bool
}

var _ Sink = (*github)(nil)

// Emit writes workflow commands:
// https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
func (g *github) Emit(e Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e = e.clean()
	if e.Type == ScenarioStarted {
		g.events = nil
	}
	g.events = append(g.events, e)
	switch {
	case e.Type == ScenarioStarted:
		g.command("group", "", e.Scenario)
	case e.Type == PhaseStarted:
		g.annotated = false
	case (e.Type == StepEnded || e.Type == PhaseEnded && !g.annotated) && e.Result.Bad():
		g.annotated = true
		file, line, column := splitPlace(e.Place)
		var properties []string
		add := func(name, value string) { properties = append(properties, name+"="+escapeProperty(value)) }
		if file != "" {
			add("file", file)
		}
		if line > 0 {
			add("line", fmt.Sprint(line))
		}
		if column > 0 {
			add("col", fmt.Sprint(column))
		}
		add("title", strings.Trim(e.Scenario+": "+e.Phase, ": "))
		g.command("error", strings.Join(properties, ","), failureOf(e).text(e.Phase))
	case e.Type == ScenarioEnded:
		g.command("endgroup", "", "")
		if e.Result.Bad() && e.Seen != "" {
			g.command("error", "title="+escapeProperty(e.Scenario), e.Seen)
		}
		g.appendSummary()
	}
}

func (g *github) command(name, properties, text string) {
	if properties != "" {
		name += " " + properties
	}
	_, _ = fmt.Fprintf(g.out, "::%s::%s\n", name, escapeText(text)) // a log that is gone stops no run
}

var (
	textEscapes     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	propertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func escapeText(text string) string     { return textEscapes.Replace(text) }
func escapeProperty(text string) string { return propertyEscapes.Replace(text) }

// appendSummary adds the scenario that ended to the step's summary. Not being able to is told in the
// log: it is no verdict about a mesh.
func (g *github) appendSummary() {
	if g.summary == "" {
		return
	}
	f, err := os.OpenFile(g.summary, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.WriteString(markdown(g.events))
		if closing := f.Close(); err == nil {
			err = closing
		}
	}
	if err != nil {
		g.command("warning", "", "writing the step summary: "+err.Error())
	}
}

// markdown is a section per scenario: a table of its phases and what failed.
func markdown(events []Event) string {
	var b strings.Builder
	for _, s := range Summarize(events) {
		fmt.Fprintf(&b, "### %s %s\n\n", icon(s.Result), cell(s.Scenario))
		if s.Title != "" {
			fmt.Fprintf(&b, "%s\n\n", cell(s.Title))
		}
		if s.Reason != "" {
			fmt.Fprintf(&b, "%s: %s\n\n", s.Result, cell(s.Reason))
		}
		if len(s.Phases) == 0 {
			continue
		}
		b.WriteString("| phase | result | seconds | steps |\n|---|---|--:|--:|\n")
		for _, p := range s.Phases {
			name := p.Phase
			if p.Title != "" {
				name += ": " + p.Title
			}
			fmt.Fprintf(&b, "| %s | %s %s | %.1f | %d |\n", cell(name), icon(p.Result), p.Result, p.Seconds, p.Steps)
		}
		b.WriteByte('\n')
		for _, p := range s.Phases {
			for _, f := range p.Failures {
				// Four backticks: the text may hold three.
				fmt.Fprintf(&b, "````text\n%s\n````\n\n", f.text(p.Phase))
			}
		}
	}
	return b.String()
}

func icon(r Result) string {
	switch r {
	case Passed:
		return "✅"
	case Skipped:
		return "⏭️"
	}
	return "❌"
}

// cell makes a text fit into one cell of a Markdown table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}
