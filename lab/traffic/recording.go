package traffic

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Mark is the beginning of something, such as a phase of a scenario.
type Mark struct {
	Label string
	At    time.Time
}

// Recording is all that a stream did: its calls in the order in which they started.
//
// As JSON its times are seconds since it began, by the monotonic clock, so that setting the clock meanwhile does not
// change them.
type Recording struct {
	Stream        string
	From          string // the source
	URL           string
	ExpectCluster string // empty means that anybody may answer
	Every         time.Duration
	Began, Ended  time.Time
	Marks         []Mark
	Calls         []Call
}

func (r *Recording) sort() {
	slices.SortStableFunc(r.Calls, func(a, b Call) int { return a.Start.Compare(b.Start) })
}

// Resumed is the mark at which a recording goes on after a pause.
const Resumed = "resumed"

// Join makes one recording of two of the same stream with a pause between them, in which nobody called. It moves the
// times of the earlier one so that its next call would have been due when the later one began: the pause is not a gap,
// and is not part of any time that is measured across it.
func Join(earlier, later *Recording) *Recording {
	end := earlier.Ended
	if n := len(earlier.Calls); n > 0 { // after its last call it only waited for those under way
		end = earlier.Calls[n-1].Start.Add(earlier.Every)
	}
	// Computed from the later beginning, the times are on the later monotonic clock.
	moved := func(t time.Time) time.Time { return later.Began.Add(t.Sub(end)) }
	joined := *later
	joined.Began, joined.Marks, joined.Calls = moved(earlier.Began), nil, nil
	for _, m := range earlier.Marks {
		joined.Marks = append(joined.Marks, Mark{m.Label, moved(m.At)})
	}
	joined.Marks = append(append(joined.Marks, Mark{Resumed, later.Began}), later.Marks...)
	for _, c := range earlier.Calls {
		c.Start = moved(c.Start)
		if !c.End.IsZero() {
			c.End = moved(c.End)
		}
		joined.Calls = append(joined.Calls, c)
	}
	joined.Calls = append(joined.Calls, later.Calls...)
	joined.sort()
	return &joined
}

// Window is a part of a recording: the calls that started at From or later and before To.
type Window struct {
	From, To      time.Time
	ExpectCluster string
	Calls         []Call
}

// Stats judges the window.
func (w Window) Stats() Stats { return Judge(w) }

// Between returns the window from one time to another, cut to what was recorded.
func (r *Recording) Between(from, to time.Time) Window {
	if from.Before(r.Began) {
		from = r.Began
	}
	if to.After(r.Ended) {
		to = r.Ended
	}
	w := Window{From: from, To: to, ExpectCluster: r.ExpectCluster}
	for _, c := range r.Calls {
		if !c.Start.Before(from) && c.Start.Before(to) {
			w.Calls = append(w.Calls, c)
		}
	}
	return w
}

// All returns the whole recording as one window.
func (r *Recording) All() Window { return r.Between(r.Began, r.Ended) }

// Since returns the last d of the recording. If the stream goes on, its latest calls are still under way: see
// Stats.Pending.
func (r *Recording) Since(d time.Duration) Window { return r.Between(r.Ended.Add(-d), r.Ended) }

// Phase returns the window from the last mark of that label to the mark after it, or to the end.
func (r *Recording) Phase(label string) (Window, error) {
	for i := len(r.Marks) - 1; i >= 0; i-- {
		if r.Marks[i].Label != label {
			continue
		}
		to := r.Ended
		if i+1 < len(r.Marks) {
			to = r.Marks[i+1].At
		}
		return r.Between(r.Marks[i].At, to), nil
	}
	return Window{}, fmt.Errorf("reading traffic %q: it has no mark %q", r.Stream, label)
}

// TimeToRecover returns the time from a moment, such as the start of a repair, to the end of the first
// of n successes in a row that started after it. See TimeToRecover.
func (r *Recording) TimeToRecover(after time.Time, n int) (time.Duration, bool) {
	return TimeToRecover(r.Between(after, r.Ended), n)
}

// goodAgain is how many successes in a row count as recovered.
const goodAgain = 5

// Recovery returns the time from the first mark "recover", when the repair began, to the first of five successes in a row.
// It is repaired if there is such a mark, and recovered if there is such a row after it.
func (r *Recording) Recovery() (took time.Duration, recovered, repaired bool) {
	for _, m := range r.Marks {
		if m.Label == "recover" {
			took, recovered = r.TimeToRecover(m.At, goodAgain)
			return took, recovered, true
		}
	}
	return 0, false, false
}

// Reliable returns an error that wraps ErrUnreliable if fewer than n calls succeeded before a moment, usually the break.
// Such a stream has not shown that it works, and its later failures prove nothing.
func (r *Recording) Reliable(before time.Time, n int) error {
	s := r.Between(r.Began, before).Stats()
	if s.OK >= n {
		return nil
	}
	return fmt.Errorf("traffic %q from %s to %s: %w: %d calls succeeded before the break, want %d (%s)",
		r.Stream, r.From, r.URL, ErrUnreliable, s.OK, n, s)
}

// recordingJSON and its parts are the file format.
type recordingJSON struct {
	Stream        string     `json:"stream"`
	From          string     `json:"from"`
	URL           string     `json:"url"`
	ExpectCluster string     `json:"expectCluster,omitempty"`
	EverySeconds  float64    `json:"everySeconds"`
	Began         time.Time  `json:"began"`
	EndedSeconds  float64    `json:"endedSeconds"`
	Marks         []markJSON `json:"marks"`
	Calls         []callJSON `json:"calls"`
}

type markJSON struct {
	Label     string  `json:"label"`
	AtSeconds float64 `json:"atSeconds"`
}

type callJSON struct {
	StartSeconds float64  `json:"startSeconds"`
	EndSeconds   *float64 `json:"endSeconds,omitempty"` // absent while the call is under way
	Call
	// These hide the fields of Call with the same names, which hold wall times.
	Start *struct{} `json:"start,omitempty"`
	End   *struct{} `json:"end,omitempty"`
}

// seconds rounds to microseconds, so that the float has no noise in its last digits.
func seconds(d time.Duration) float64 { return float64(d.Round(time.Microsecond).Microseconds()) / 1e6 }

func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond
}

// MarshalJSON writes the recording.
func (r Recording) MarshalJSON() ([]byte, error) {
	out := recordingJSON{
		Stream: r.Stream, From: r.From, URL: r.URL, ExpectCluster: r.ExpectCluster,
		EverySeconds: seconds(r.Every), Began: r.Began, EndedSeconds: seconds(r.Ended.Sub(r.Began)),
		Marks: make([]markJSON, len(r.Marks)), Calls: make([]callJSON, len(r.Calls)),
	}
	for i, m := range r.Marks {
		out.Marks[i] = markJSON{m.Label, seconds(m.At.Sub(r.Began))}
	}
	for i, c := range r.Calls {
		out.Calls[i] = callJSON{StartSeconds: seconds(c.Start.Sub(r.Began)), Call: c}
		if !c.End.IsZero() {
			end := seconds(c.End.Sub(r.Began))
			out.Calls[i].EndSeconds = &end
		}
		out.Calls[i].Stream = "" // it is the recording's
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Recording) UnmarshalJSON(data []byte) error {
	var in recordingJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("reading a recording: %w", err)
	}
	at := func(s float64) time.Time { return in.Began.Add(duration(s)) }
	*r = Recording{
		Stream: in.Stream, From: in.From, URL: in.URL, ExpectCluster: in.ExpectCluster,
		Every: duration(in.EverySeconds), Began: in.Began, Ended: at(in.EndedSeconds),
	}
	for _, m := range in.Marks {
		r.Marks = append(r.Marks, Mark{m.Label, at(m.AtSeconds)})
	}
	for _, c := range in.Calls {
		call := c.Call
		call.Stream, call.Start = in.Stream, at(c.StartSeconds)
		if c.EndSeconds != nil {
			call.End = at(*c.EndSeconds)
		}
		r.Calls = append(r.Calls, call)
	}
	r.sort()
	return nil
}

// Save writes the recording to a file, which appears whole or not at all.
func (r *Recording) Save(path string) error {
	doing := fmt.Sprintf("saving the recording of traffic %q", r.Stream)
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(append(data, '\n'))
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Load reads a saved recording.
func Load(path string) (*Recording, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading a recording: %w", err)
	}
	r := &Recording{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("loading %s: %w", path, err)
	}
	return r, nil
}
