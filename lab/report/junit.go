package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The subset of JUnit's XML that CI systems agree on: https://github.com/testmoapp/junitxml.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string           `xml:"name,attr"`
	Tests      int              `xml:"tests,attr"`
	Failures   int              `xml:"failures,attr"`
	Errors     int              `xml:"errors,attr"`
	Skipped    int              `xml:"skipped,attr"`
	Time       string           `xml:"time,attr"`
	Timestamp  string           `xml:"timestamp,attr,omitempty"`
	Properties *junitProperties `xml:"properties"`
	Cases      []junitCase      `xml:"testcase"`
}

type junitProperties struct {
	List []junitProperty `xml:"property"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	Classname string        `xml:"classname,attr"`
	Time      string        `xml:"time,attr"`
	File      string        `xml:"file,attr,omitempty"`
	Line      int           `xml:"line,attr,omitempty"`
	Failure   *junitFailure `xml:"failure"`
	Error     *junitFailure `xml:"error"`
	Skipped   *junitSkipped `xml:"skipped"`
	Output    string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

// JUnit writes recorded events for CI systems: a test suite per scenario, a test case per phase.
func JUnit(w io.Writer, events []Event) error {
	started := map[string]time.Time{}
	for _, e := range events {
		if e.Type == ScenarioStarted {
			started[e.Scenario] = e.Time
		}
	}
	all := junitSuites{Name: "eastwest", Suites: []junitSuite{}}
	total := 0.0
	for _, s := range Summarize(events) {
		suite := suiteOf(s)
		if at := started[s.Scenario]; !at.IsZero() {
			suite.Timestamp = at.UTC().Format("2006-01-02T15:04:05")
		}
		all.Suites = append(all.Suites, suite)
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		all.Errors += suite.Errors
		all.Skipped += suite.Skipped
		total += s.Seconds
	}
	all.Time = junitTime(total)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("writing JUnit: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("writing JUnit: %w", err)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("writing JUnit: %w", err)
	}
	return nil
}

func suiteOf(s Summary) junitSuite {
	suite := junitSuite{Name: s.Scenario, Time: junitTime(s.Seconds)}
	if len(s.Properties) > 0 {
		suite.Properties = &junitProperties{}
		for _, name := range sortedNames(s.Properties) {
			suite.Properties.List = append(suite.Properties.List, junitProperty{name, s.Properties[name]})
		}
	}
	phaseFailed := false
	for _, p := range s.Phases {
		suite.Cases = append(suite.Cases, caseOf(s.Scenario, p))
		phaseFailed = phaseFailed || p.Result.Bad()
	}
	// What happened outside of the phases needs a case too, or the suite would look green.
	whole := junitCase{Name: "scenario", Classname: s.Scenario, Time: junitTime(s.Seconds)}
	switch {
	case s.Result == Skipped:
		whole.Skipped = &junitSkipped{s.Reason}
		suite.Cases = append(suite.Cases, whole)
	case s.Result.Bad() && !phaseFailed:
		reason := s.Reason
		if reason == "" {
			reason = string(s.Result)
		}
		whole.Error = &junitFailure{Message: reason, Type: string(s.Result), Text: reason}
		suite.Cases = append(suite.Cases, whole)
	}
	for _, c := range suite.Cases {
		suite.Tests++
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
	}
	return suite
}

func caseOf(scenario string, p PhaseSummary) junitCase {
	c := junitCase{Name: p.Phase, Classname: scenario, Time: junitTime(p.Seconds), Output: strings.Join(p.lines, "\n")}
	if p.Title != "" {
		c.Name += ": " + p.Title
	}
	switch {
	case p.Result == Skipped:
		c.Skipped = &junitSkipped{p.Reason}
	case p.Result.Bad():
		failure := &junitFailure{Type: string(p.Result), Message: p.Reason, Text: p.Reason}
		var texts []string
		for _, f := range p.Failures {
			texts = append(texts, f.text(p.Phase))
		}
		if len(p.Failures) > 0 {
			first := p.Failures[0]
			failure.Message = first.Step
			if first.Seen != "" {
				failure.Message += ": seen " + first.Seen
			}
			failure.Text = strings.Join(texts, "\n")
			c.File, c.Line, _ = splitPlace(first.Place)
		}
		if p.Result == Failed {
			c.Failure = failure
		} else {
			c.Error = failure
		}
	}
	return c
}

func junitTime(seconds float64) string { return fmt.Sprintf("%.3f", seconds) }
