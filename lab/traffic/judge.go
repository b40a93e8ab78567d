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
)

// ErrUnreliable is wrapped by the error of a stream that made too few good calls to judge anything by.
var ErrUnreliable = errors.New("unreliable")

// Stats are the numbers of a window. A call succeeds if its HTTP status is 200 and, where a cluster is
// expected, that cluster answered: answers from elsewhere are lost calls, or local ones would hide a
// broken border.
type Stats struct {
	Calls     int `json:"calls"` // issued and finished: OK + Lost
	OK        int `json:"ok"`
	Lost      int `json:"lost"`
	NotIssued int `json:"notIssued"` // not the mesh's doing, in no other number
	Pending   int `json:"pending"`   // still under way, in no other number but LongestGap

	SuccessPercent float64 `json:"successPercent"` // OK of Calls, 0 to 100; 0 without calls
	// LongestGap is the longest time between the ends of two successes that follow each other, or from the
	// window's beginning to the first, or from the last to the window's end; without the time in which
	// the source could not call.
	LongestGap time.Duration `json:"-"`
	// SourceAway is how long the source could not call: from the start of each call that was not issued
	// to the start of the next that was.
	SourceAway time.Duration `json:"-"`
	// Those that end in Seconds are the same numbers for JSON.
	LongestGapSeconds float64       `json:"longestGapSeconds"`
	SourceAwaySeconds float64       `json:"sourceAwaySeconds,omitempty"`
	P50               time.Duration `json:"-"` // latency of successes: half took no longer
	P99               time.Duration `json:"-"`
	P50Seconds        float64       `json:"p50Seconds"`
	P99Seconds        float64       `json:"p99Seconds"`

	ByCluster map[string]int `json:"byCluster,omitempty"` // HTTP 200 by who answered, expected or not
	ByPod     map[string]int `json:"byPod,omitempty"`
	Codes     map[int]int    `json:"codes,omitempty"`  // of Calls; 0 is a call without any answer
	Errors    []Count        `json:"errors,omitempty"` // why calls were lost, most frequent first, at most five

	Retried int `json:"retried,omitempty"` // answered at the second try or later: failures that a sidecar hid
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

// succeeded says whether a finished call counts as a success.
func (w Window) succeeded(c Call) bool {
	return c.Issued && !c.End.IsZero() && c.Code == 200 && (w.ExpectCluster == "" || c.Cluster == w.ExpectCluster)
}

// lossOf says why a call that did not succeed is lost.
func (w Window) lossOf(c Call) string {
	switch {
	case c.Code == 200:
		return fmt.Sprintf("answered by %s instead of %s", cmp.Or(c.Cluster, nobody), w.ExpectCluster)
	case c.Err == "":
		return fmt.Sprintf("HTTP %d", c.Code)
	}
	return c.Err
}

// Judge computes the numbers of a window. It depends on nothing but the window.
func Judge(w Window) Stats {
	s := Stats{ByCluster: map[string]int{}, ByPod: map[string]int{}, Codes: map[int]int{}}
	losses := map[string]int{}
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

// awayTimes are the times in which the source could not call, in order.
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

// longestGap is the longest stretch from one time to another that holds none of the ends, less the part
// of it in which the source was away.
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

// percentile returns the smallest value that at least p percent of all values do not exceed; 0 of none.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(p/100*float64(len(values))))-1)]
}

// TimeToRecover returns the time from the window's beginning to the end of the first of n successes in a
// row, in the order in which the calls started; false if there are none. Calls that were not issued are
// passed over; calls under way end a row, since nothing is known of them.
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
		return strings.Join(append([]string{"no calls"}, s.apart()...), ", ")
	}
	parts := []string{
		plural(s.Calls, "call"),
		percent(s.SuccessPercent) + " answered",
		fmt.Sprintf("%d lost", s.Lost),
		"longest gap " + short(s.LongestGap),
	}
	if len(s.ByCluster) > 0 {
		var who []string
		for _, name := range slices.Sorted(maps.Keys(s.ByCluster)) {
			who = append(who, fmt.Sprintf("%s %d", name, s.ByCluster[name]))
		}
		parts = append(parts, "answered by "+strings.Join(who, " and "))
	}
	return strings.Join(append(parts, s.apart()...), ", ")
}

func (s Stats) apart() (parts []string) {
	if s.Pending > 0 {
		parts = append(parts, fmt.Sprintf("%d under way", s.Pending))
	}
	if s.NotIssued > 0 {
		parts = append(parts, fmt.Sprintf("%d not issued while the source was away for %s", s.NotIssued, short(s.SourceAway)))
	}
	return parts
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// percent shows one decimal, but neither 0 nor 100 unless it is exactly that.
func percent(p float64) string {
	switch {
	case p == 0 || p == 100:
		return fmt.Sprintf("%.0f %%", p)
	case p > 99.9:
		p = 99.9
	case p < 0.1:
		p = 0.1
	}
	return fmt.Sprintf("%.1f %%", p)
}

// short rounds a time to what people can use.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
