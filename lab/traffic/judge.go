package traffic

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// ErrUnreliable is wrapped by the error of a stream that made too few good calls to judge anything by.
var ErrUnreliable = errors.New("unreliable")

// Stats are the numbers of a window. A call succeeds if its HTTP status is 200 and, if a cluster is expected, that
// cluster answered. Answers from elsewhere count as lost: otherwise local answers would hide a broken border.
type Stats struct {
	Calls     int `json:"calls"` // issued and finished: OK + Lost
	OK        int `json:"ok"`
	Lost      int `json:"lost"`
	NotIssued int `json:"notIssued"` // not the mesh's fault; in no other number
	Pending   int `json:"pending"`   // still under way, in no other number but LongestGap

	SuccessPercent float64 `json:"successPercent"` // OK of Calls, 0 to 100; 0 without calls
	// LongestGap is the longest time without a success: between the ends of two successes, from the window's
	// beginning to the first, or from the last to the window's end. Time in which the source could not call
	// does not count.
	LongestGap time.Duration `json:"-"`
	// SourceAway is how long the source could not call: from the start of each call that was not issued
	// to the start of the next that was.
	SourceAway time.Duration `json:"-"`
	// LostAtStandstill is how many of Lost were under way while this machine stood still, and were not answered by anybody:
	// nothing on it got CPU time for that. They count as lost all the same.
	LostAtStandstill int `json:"lostAtStandstill,omitempty"`
	// The fields that end in Seconds are the same numbers for JSON.
	LongestGapSeconds float64       `json:"longestGapSeconds"`
	SourceAwaySeconds float64       `json:"sourceAwaySeconds,omitempty"`
	P50               time.Duration `json:"-"` // latency of successes: half took no longer
	P99               time.Duration `json:"-"`
	P50Seconds        float64       `json:"p50Seconds"`
	P99Seconds        float64       `json:"p99Seconds"`

	ByCluster map[string]int `json:"byCluster,omitempty"` // answers with HTTP 200 of each cluster, expected or not
	ByPod     map[string]int `json:"byPod,omitempty"`
	Codes     map[int]int    `json:"codes,omitempty"`  // of Calls; 0 stands for no answer
	Errors    []Count        `json:"errors,omitempty"` // why calls were lost, most frequent first, at most five

	Retried int `json:"retried,omitempty"` // answered at the second try or later, so that a sidecar hid a failure
}

// Count is a text and how often it was seen.
type Count struct {
	Text  string `json:"text"`
	Count int    `json:"count"`
}

// mostErrors is how many different texts Stats keep.
const mostErrors = 5

// nobody is the key in ByCluster for answers that name no cluster.
const nobody = "unknown"

// succeeded reports whether a call has finished and counts as a success.
func (w Window) succeeded(c Call) bool {
	return c.Issued && !c.End.IsZero() && c.Code == 200 && (w.ExpectCluster == "" || c.Cluster == w.ExpectCluster)
}

// lossOf returns the reason why a finished call that did not succeed is lost.
func (w Window) lossOf(c Call) string {
	switch {
	case c.Code == 200:
		return fmt.Sprintf("answered by %s instead of %s", cmp.Or(c.Cluster, nobody), w.ExpectCluster)
	case c.Err == "":
		return fmt.Sprintf("HTTP %d", c.Code)
	}
	return c.Err
}

// Judge computes the numbers of a window, from the window alone.
func Judge(w Window) Stats {
	s := Stats{ByCluster: map[string]int{}, ByPod: map[string]int{}, Codes: map[int]int{}}
	losses := map[string]int{}
	still := standstills(w)
	var ends []time.Time
	var latencies []time.Duration
	for _, c := range w.Calls {
		switch {
		case !c.Issued:
			s.NotIssued++
			continue
		case c.End.IsZero():
			s.Pending++
			continue
		}
		s.Calls++
		s.Codes[c.Code]++
		if c.Code == 200 {
			s.ByCluster[cmp.Or(c.Cluster, nobody)]++
			s.ByPod[cmp.Or(c.Pod, nobody)]++
		}
		if !w.succeeded(c) {
			s.Lost++
			if c.Code != 200 && slices.ContainsFunc(still, c.overlaps) {
				s.LostAtStandstill++
			}
			losses[w.lossOf(c)]++
			continue
		}
		s.OK++
		if c.Attempts > 1 {
			s.Retried++
		}
		ends = append(ends, c.End)
		latencies = append(latencies, c.Latency())
	}
	if s.Calls > 0 {
		s.SuccessPercent = 100 * float64(s.OK) / float64(s.Calls)
	}
	away := awayTimes(w)
	for _, a := range away {
		s.SourceAway += a.to.Sub(a.from)
	}
	s.LongestGap = longestGap(w.From, w.To, ends, away)
	s.P50, s.P99 = percentile(latencies, 50), percentile(latencies, 99)
	s.LongestGapSeconds, s.SourceAwaySeconds = seconds(s.LongestGap), seconds(s.SourceAway)
	s.P50Seconds, s.P99Seconds = seconds(s.P50), seconds(s.P99)
	for text, n := range losses {
		s.Errors = append(s.Errors, Count{text, n})
	}
	slices.SortFunc(s.Errors, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	s.Errors = s.Errors[:min(len(s.Errors), mostErrors)]
	return s
}

// span is a stretch of time.
type span struct{ from, to time.Time }

// awayTimes returns the times in which the source could not call, in order.
func awayTimes(w Window) []span {
	var away []span
	open := false
	for _, c := range w.Calls {
		switch {
		case !c.Issued && !open:
			away, open = append(away, span{c.Start, w.To}), true
		case c.Issued && open:
			away[len(away)-1].to, open = c.Start, false
		}
	}
	return away
}

// standstills returns the times in which this machine made no calls because it stood still. Such a time begins with the last
// call before it: the first call that was not made was due up to Plan.Every later.
func standstills(w Window) []span {
	var still []span
	from, open := w.From, false
	for _, c := range w.Calls {
		switch {
		case c.Issued:
			if open {
				still[len(still)-1].to, open = c.Start, false
			}
			from = c.Start
		case !open && strings.Contains(c.Err, wasLate):
			still, open = append(still, span{from, w.To}), true
		}
	}
	return still
}

// overlaps reports whether a finished call was under way in a stretch of time.
func (c Call) overlaps(s span) bool { return c.Start.Before(s.to) && !c.End.Before(s.from) }

// longestGap returns the longest stretch between from and to that holds none of the ends, less the time in it in which
// the source was away.
func longestGap(from, to time.Time, ends []time.Time, away []span) time.Duration {
	slices.SortFunc(ends, time.Time.Compare)
	last, longest := from, time.Duration(0)
	for _, end := range append(ends, to) {
		gap := end.Sub(last)
		for _, a := range away {
			gap -= max(0, earlier(a.to, end).Sub(later(a.from, last)))
		}
		longest = max(longest, gap)
		last = later(last, end)
	}
	return longest
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// percentile returns the smallest of the values that at least p percent of them do not exceed; 0 if there are none.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(p/100*float64(len(values))))-1)]
}

// TimeToRecover returns the time from the window's beginning to the end of the first of n successes in a row, in the
// order in which the calls started; false if there is no such row. It skips calls that were not issued. A call under way
// ends a row, since nothing is known about it.
func TimeToRecover(w Window, n int) (time.Duration, bool) {
	row := 0
	var first time.Time
	for _, c := range w.Calls {
		switch {
		case !c.Issued:
		case !w.succeeded(c):
			row = 0
		default:
			if row++; row == 1 {
				first = c.End
			}
			if row >= n {
				return first.Sub(w.From), true
			}
		}
	}
	return 0, false
}

// String is one line for reports:
//
//	412 calls, 97.1 % answered, 12 lost, longest gap 1.34s, answered by cluster-b 400
func (s Stats) String() string {
	if s.Calls == 0 {
		return strings.Join(append([]string{"no calls"}, s.notCounted()...), ", ")
	}
	parts := []string{
		words.Plural(s.Calls, "call"),
		words.Percent(s.SuccessPercent) + " answered",
		s.lost(),
		"longest gap " + rounded(s.LongestGap),
	}
	if len(s.ByCluster) > 0 {
		var who []string
		for _, name := range slices.Sorted(maps.Keys(s.ByCluster)) {
			who = append(who, fmt.Sprintf("%s %d", name, s.ByCluster[name]))
		}
		parts = append(parts, "answered by "+words.And(who))
	}
	return strings.Join(append(parts, s.notCounted()...), ", ")
}

// lost says how many calls were lost, and how many of them at a standstill.
func (s Stats) lost() string {
	if s.LostAtStandstill == 0 {
		return fmt.Sprintf("%d lost", s.Lost)
	}
	return fmt.Sprintf("%d lost (%d while this machine stood still)", s.Lost, s.LostAtStandstill)
}

// notCounted says how many calls are in none of the other numbers.
func (s Stats) notCounted() (parts []string) {
	if s.Pending > 0 {
		parts = append(parts, fmt.Sprintf("%d under way", s.Pending))
	}
	if s.NotIssued > 0 {
		parts = append(parts, fmt.Sprintf("%d not issued while the source was away for %s", s.NotIssued, rounded(s.SourceAway)))
	}
	return parts
}

// rounded writes a duration with the digits that people can use.
func rounded(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
