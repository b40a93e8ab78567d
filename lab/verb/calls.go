package verb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// callsArgs are the arguments of the verb calls: what the traffic of a stream must look like.
type callsArgs struct {
	// The stream of the section traffic that is judged.
	Stream string `yaml:"stream" ref:"stream" required:"true"`
	// Share of calls that the expected cluster answered with 200.
	Success *percentBounds `yaml:"success"`
	// In symptoms and healthy: the last stretch of traffic that is judged; if left out 1s, or six calls where that is
	// longer, and more where fewer than five calls have ended in it. It never reaches back before the phase.
	For strict.Duration `yaml:"for"`
	// In always: the phase whose traffic is judged; the whole recording if left out.
	During string `yaml:"during" enum:"baseline,break,operate,symptoms,diagnose,later,wrong-fixes,recover,healthy"`
	// Number of calls that were lost.
	Lost *countBounds `yaml:"lost"`
	// Longest time without a good answer that is allowed.
	LongestGap strict.Duration `yaml:"longest-gap"`
	// In always: time from the beginning of the recovery to the first of five good answers in a row.
	RecoversWithin strict.Duration `yaml:"recovers-within"`
	// A pattern that the text of at least one lost call matches.
	Errors *regexp.Regexp `yaml:"errors"`
}

type percentBounds struct {
	// Lower bound in percent.
	AtLeast *strict.Percent `yaml:"at-least" min:"0" max:"100"`
	// Upper bound in percent.
	AtMost *strict.Percent `yaml:"at-most" min:"0" max:"100"`
}

type countBounds struct {
	// Lower bound.
	AtLeast *int `yaml:"at-least" min:"0"`
	// Upper bound.
	AtMost *int `yaml:"at-most" min:"0"`
}

// Validate implements the loader's hook.
func (a *callsArgs) Validate() error {
	if a.Success == nil && a.Lost == nil && a.LongestGap == 0 && a.RecoversWithin == 0 && a.Errors == nil {
		return errors.New("it judges nothing: give success, lost, longest-gap, recovers-within or errors")
	}
	return nil
}

// JudgedCalls is how many calls fit into the window of a slow stream if the file does not say how long the window is.
const JudgedCalls = 6

// fewestCalls is how many finished calls a window needs before it says anything.
const fewestCalls = 5

// Check implements Checker.
func (a *callsArgs) Check(g Ground) (observe.Check, error) { return &callsCheck{a, g.Tape}, nil }

// callsCheck judges the recorded calls of a stream.
type callsCheck struct {
	*callsArgs
	tape Tape
}

func (c *callsCheck) String() string {
	var wants []string
	bounds := func(name string, atLeast, atMost *float64, unit string) {
		switch {
		case atLeast != nil && atMost != nil:
			wants = append(wants, fmt.Sprintf("%s from %g to %g%s", name, *atLeast, *atMost, unit))
		case atLeast != nil:
			wants = append(wants, fmt.Sprintf("%s at least %g%s", name, *atLeast, unit))
		case atMost != nil:
			wants = append(wants, fmt.Sprintf("%s at most %g%s", name, *atMost, unit))
		}
	}
	if c.Success != nil {
		bounds("success", (*float64)(c.Success.AtLeast), (*float64)(c.Success.AtMost), " %")
	}
	if c.Lost != nil {
		bounds("lost calls", number(c.Lost.AtLeast), number(c.Lost.AtMost), "")
	}
	if c.LongestGap != 0 {
		wants = append(wants, "no gap over "+c.LongestGap.String())
	}
	if c.RecoversWithin != 0 {
		wants = append(wants, "recovered within "+wait.Text(time.Duration(c.RecoversWithin)))
	}
	if c.Errors != nil {
		wants = append(wants, "errors like /"+c.Errors.String()+"/")
	}
	where := ""
	if c.During != "" {
		where = " during " + c.During
	}
	return fmt.Sprintf("calls of %s%s: %s", c.Stream, where, strings.Join(wants, ", "))
}

func number(n *int) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}

// Command implements observe.Check. A recording is no command.
func (c *callsCheck) Command() string { return "" }

// Look implements observe.Check.
func (c *callsCheck) Look(_ context.Context, _ *mesh.Mesh) (string, error) {
	recording := c.tape.Recording(c.Stream)
	window, err := c.window(recording)
	if err != nil {
		return "", &observe.Mismatch{Wanted: c.String(), Seen: err.Error()}
	}
	stats := window.Stats()
	if problem := c.judge(recording, stats); problem != "" {
		return "", &observe.Mismatch{Wanted: c.String(), Seen: problem + "; " + DescribeStats(stats)}
	}
	return DescribeStats(stats), nil
}

func (c *callsCheck) window(recording *traffic.Recording) (traffic.Window, error) {
	if c.tape.Phase() == scenario.Always {
		if c.During == "" {
			return recording.All(), nil
		}
		return recording.Phase(c.During)
	}
	length := time.Duration(c.For)
	if length == 0 {
		length = max(time.Second, JudgedCalls*recording.Every)
	}
	now := time.Now()
	if length > now.Sub(c.tape.Since()) {
		return traffic.Window{}, fmt.Errorf("only %s of traffic so far", now.Sub(c.tape.Since()).Round(time.Millisecond))
	}
	window := recording.Between(now.Add(-length), now)
	n := window.Stats().Calls
	for c.For == 0 && n < fewestCalls && length < now.Sub(c.tape.Since()) { // calls take long: look further back
		length = min(2*length, now.Sub(c.tape.Since()))
		window = recording.Between(now.Add(-length), now)
		n = window.Stats().Calls
	}
	if n < fewestCalls {
		return window, fmt.Errorf("only %d finished calls in the last %s", n, length.Round(time.Millisecond))
	}
	return window, nil
}

// judge returns what is wrong, or nothing.
func (c *callsCheck) judge(recording *traffic.Recording, s traffic.Stats) string {
	percent := s.SuccessPercent
	if b := c.Success; b != nil && (b.AtLeast != nil && percent < float64(*b.AtLeast) || b.AtMost != nil && percent > float64(*b.AtMost)) {
		return "success " + words.Percent(percent)
	}
	if b := c.Lost; b != nil && (b.AtLeast != nil && s.Lost < *b.AtLeast || b.AtMost != nil && s.Lost > *b.AtMost) {
		return fmt.Sprintf("%d calls lost", s.Lost)
	}
	if c.LongestGap != 0 && s.LongestGap > time.Duration(c.LongestGap) {
		return fmt.Sprintf("a gap of %s", s.LongestGap.Round(time.Millisecond))
	}
	if c.RecoversWithin != 0 {
		took, ok, _ := recording.Recovery()
		if !ok {
			return "it did not recover"
		}
		if took > wait.Bound(time.Duration(c.RecoversWithin)) {
			return fmt.Sprintf("it took %s to recover", took.Round(time.Millisecond))
		}
	}
	if c.Errors != nil {
		for _, e := range s.Errors {
			if c.Errors.MatchString(e.Text) {
				return ""
			}
		}
		return "no lost call with such an error"
	}
	return ""
}

// DescribeStats is one line, with the most frequent error where calls were lost.
func DescribeStats(s traffic.Stats) string {
	line := s.String()
	if len(s.Errors) > 0 {
		line += fmt.Sprintf("; %d times: %s", s.Errors[0].Count, words.FirstLine(s.Errors[0].Text))
	}
	return line
}

// radiusCheck judges which streams lose calls: those that a failure is said to hit do, all others do not.
type radiusCheck struct {
	radius  scenario.Radius
	traffic []scenario.Stream
	tape    Tape
}

// Command implements observe.Check. A recording is no command.
func (c *radiusCheck) Command() string { return "" }

func (c *radiusCheck) String() string {
	return "the blast radius is " + strings.Join(c.radius, " and ")
}

// Look implements observe.Check.
func (c *radiusCheck) Look(context.Context, *mesh.Mesh) (string, error) {
	var texts []string
	inside, ways := false, map[string]bool{}
	for _, t := range c.traffic {
		if t.AnswerAfter > 0 {
			continue // a long call shows later what short ones show now
		}
		last := &callsCheck{&callsArgs{Stream: t.Name}, c.tape}
		window, err := last.window(c.tape.Recording(t.Name))
		if err != nil {
			return "", &observe.Mismatch{Wanted: c.String(), Seen: t.Name + ": " + err.Error()}
		}
		stats := window.Stats()
		texts = append(texts, fmt.Sprintf("%s %s", t.Name, words.Percent(stats.SuccessPercent)))
		switch hit := stats.SuccessPercent < 100; {
		case !hit || t.To.Cluster == "":
		case t.From.Cluster == t.To.Cluster:
			inside = true
		default:
			ways[t.From.Cluster] = true
		}
	}
	seen := scenario.Radius{}
	if inside {
		seen = append(seen, scenario.Inside)
	}
	switch len(ways) {
	case 0:
		if !inside {
			seen = append(seen, scenario.Nowhere)
		}
	case 1:
		seen = append(seen, scenario.OneWay)
	default:
		seen = append(seen, scenario.BothWays)
	}
	text := fmt.Sprintf("%s: %s", strings.Join(seen, " and "), strings.Join(texts, ", "))
	wanted := slices.Sorted(slices.Values(c.radius))
	if slices.Sort(seen); !slices.Equal(seen, wanted) {
		return text, &observe.Mismatch{Wanted: c.String(), Seen: text}
	}
	return text, nil
}
