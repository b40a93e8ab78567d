package traffic

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is a number of milliseconds after the epoch.
func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// timeline makes one call every 100 ms, each answered after 10 ms, from letters:
// b or a answered by cluster-b or cluster-a, 5 a 503, t a timeout after 1 s, x not issued, p pending,
// s not issued because the machine stood still, u a 200 from an unknown pod, r by cluster-b at the second try.
func timeline(letters string) Window {
	w := Window{From: epoch, To: at(100 * len(letters)), ExpectCluster: "cluster-b"}
	for i, letter := range letters {
		c := Call{Start: at(100 * i), End: at(100*i + 10), Issued: true, Code: 200, Pod: "pod-" + string(letter)}
		switch letter {
		case 'a', 'b':
			c.Cluster = "cluster-" + string(letter)
		case 'r':
			c.Cluster, c.Attempts = "cluster-b", 2
		case '5':
			c.Code, c.Pod, c.Err = 503, "", "HTTP 503: no healthy upstream"
		case 't':
			c.Code, c.Pod, c.Err, c.End = 0, "", "no answer within 1s", at(100*i+1000)
		case 'x':
			c = Call{Start: c.Start, End: c.End, Err: "connecting to client@cluster-a: refused"}
		case 's':
			c = Call{Start: c.Start, End: c.End, Err: "not made when due: " + wasLate + " by 1s"}
		case 'p':
			c = Call{Start: c.Start, Issued: true}
		case 'u':
			c.Pod = ""
		}
		w.Calls = append(w.Calls, c)
	}
	return w
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, letters                        string
		calls, ok, lost, notIssued, pending  int
		percent                              float64
		gap, away                            time.Duration
		byCluster, line, firstError, anybody string
	}{
		{
			name: "all answered", letters: "bbbbb", calls: 5, ok: 5, percent: 100, gap: ms(100),
			byCluster: "map[cluster-b:5]", line: "5 calls, 100 % answered, 0 lost, longest gap 100ms, answered by cluster-b 5",
		},
		{
			name: "a break in the middle", letters: "bb555bb", calls: 7, ok: 4, lost: 3, percent: 400. / 7, gap: ms(400),
			byCluster: "map[cluster-b:4]", firstError: "HTTP 503: no healthy upstream 3",
			line: "7 calls, 57.1 % answered, 3 lost, longest gap 400ms, answered by cluster-b 4",
		},
		{
			name: "local answers do not hide it", letters: "bbaaab", calls: 6, ok: 3, lost: 3, percent: 50, gap: ms(400),
			byCluster: "map[cluster-a:3 cluster-b:3]", firstError: "answered by cluster-a instead of cluster-b 3", anybody: "6 of 6",
			line: "6 calls, 50.0 % answered, 3 lost, longest gap 400ms, answered by cluster-a 3 and cluster-b 3",
		},
		{
			name: "an answer that names nobody", letters: "bu", calls: 2, ok: 1, lost: 1, percent: 50, gap: ms(190),
			byCluster: "map[cluster-b:1 unknown:1]", firstError: "answered by unknown instead of cluster-b 1", anybody: "2 of 2",
			line: "2 calls, 50.0 % answered, 1 lost, longest gap 190ms, answered by cluster-b 1 and unknown 1",
		},
		{
			name: "a machine that stands still", letters: "bt55ssss5bb", calls: 7, ok: 3, lost: 4, notIssued: 4, percent: 300. / 7,
			gap: ms(600 - 110 + 10), away: ms(400), byCluster: "map[cluster-b:3]",
			line: "7 calls, 42.9 % answered, 4 lost (2 while this machine stood still), longest gap 500ms, answered by cluster-b 3, " +
				"4 not issued while the source was away for 400ms",
		},
		{
			name: "an answer from elsewhere is an answer, also at a standstill", letters: "bbassbb", calls: 5, ok: 4, lost: 1, notIssued: 2,
			percent: 80, gap: ms(200), away: ms(200), byCluster: "map[cluster-a:1 cluster-b:4]",
			line: "5 calls, 80.0 % answered, 1 lost, longest gap 200ms, answered by cluster-a 1 and cluster-b 4, " +
				"2 not issued while the source was away for 200ms",
		},
		{
			name: "a gap that is open at the end", letters: "bb55555", calls: 7, ok: 2, lost: 5, percent: 200. / 7, gap: ms(590),
			byCluster: "map[cluster-b:2]", line: "7 calls, 28.6 % answered, 5 lost, longest gap 590ms, answered by cluster-b 2",
		},
		{
			name: "a gap that is open at the beginning", letters: "5555bb", calls: 6, ok: 2, lost: 4, percent: 200. / 6, gap: ms(410),
			byCluster: "map[cluster-b:2]", line: "6 calls, 33.3 % answered, 4 lost, longest gap 410ms, answered by cluster-b 2",
		},
		{
			name: "never answered", letters: "5t5", calls: 3, lost: 3, gap: ms(300),
			byCluster: "map[]", firstError: "HTTP 503: no healthy upstream 2", line: "3 calls, 0 % answered, 3 lost, longest gap 300ms",
		},
		{
			name: "calls that were not issued are no loss", letters: "bbxxxxbb", calls: 4, ok: 4, notIssued: 4, percent: 100,
			gap: ms(100), away: ms(400), byCluster: "map[cluster-b:4]",
			line: "4 calls, 100 % answered, 0 lost, longest gap 100ms, answered by cluster-b 4, 4 not issued while the source was away for 400ms",
		},
		{
			name: "loss before and after the source was away adds up", letters: "b5xx5b", calls: 4, ok: 2, lost: 2, notIssued: 2, percent: 50,
			gap: ms(300), away: ms(200), byCluster: "map[cluster-b:2]",
			line: "4 calls, 50.0 % answered, 2 lost, longest gap 300ms, answered by cluster-b 2, 2 not issued while the source was away for 200ms",
		},
		{
			name: "the source goes away for good", letters: "bbxx", calls: 2, ok: 2, notIssued: 2, percent: 100,
			gap: ms(100), away: ms(200), byCluster: "map[cluster-b:2]",
			line: "2 calls, 100 % answered, 0 lost, longest gap 100ms, answered by cluster-b 2, 2 not issued while the source was away for 200ms",
		},
		{
			name: "calls under way make a gap and no loss", letters: "bbppp", calls: 2, ok: 2, pending: 3, percent: 100, gap: ms(390),
			byCluster: "map[cluster-b:2]", line: "2 calls, 100 % answered, 0 lost, longest gap 390ms, answered by cluster-b 2, 3 under way",
		},
		{name: "nothing", letters: "", byCluster: "map[]", line: "no calls"},
		{
			name: "only away", letters: "xx", notIssued: 2, away: ms(200), byCluster: "map[]",
			line: "no calls, 2 not issued while the source was away for 200ms",
		},
		{
			name: "a single call", letters: "b", calls: 1, ok: 1, percent: 100, gap: ms(90), byCluster: "map[cluster-b:1]",
			line: "1 call, 100 % answered, 0 lost, longest gap 90ms, answered by cluster-b 1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := timeline(c.letters)
			s := w.Stats()
			assert.Equal(t, []int{c.calls, c.ok, c.lost, c.notIssued, c.pending}, []int{s.Calls, s.OK, s.Lost, s.NotIssued, s.Pending},
				"calls, ok, lost, not issued, pending")
			assert.InDelta(t, c.percent, s.SuccessPercent, 1e-9)
			assert.Equal(t, c.gap, s.LongestGap, "gap")
			assert.Equal(t, c.away, s.SourceAway, "away")
			assert.InDelta(t, c.gap.Seconds(), s.LongestGapSeconds, 1e-9)
			assert.Equal(t, c.byCluster, fmt.Sprint(s.ByCluster))
			assert.Equal(t, c.line, s.String())
			if c.firstError != "" {
				assert.Equal(t, c.firstError, fmt.Sprint(s.Errors[0].Text, " ", s.Errors[0].Count))
			}
			if c.anybody != "" {
				w.ExpectCluster = ""
				s := w.Stats()
				assert.Equal(t, c.anybody, fmt.Sprintf("%d of %d", s.OK, s.Calls))
			}
			codes := 0
			for _, n := range s.Codes {
				codes += n
			}
			assert.Equal(t, s.Calls, codes)
		})
	}
}

func TestStandstills(t *testing.T) {
	for letters, want := range map[string][]span{
		"bbb":      nil,
		"bbxxbb":   nil, // the source was away
		"bssb":     {{at(0), at(300)}},
		"ssb":      {{at(0), at(200)}},
		"bbss":     {{at(100), at(400)}},
		"bsxsb5sb": {{at(0), at(400)}, {at(500), at(700)}},
		"bxsb":     {{at(0), at(300)}},
		"s":        {{at(0), at(100)}},
	} {
		assert.Equal(t, want, standstills(timeline(letters)), letters)
	}
}

// TestLongStandstillIsJudgedAtOnce judges an hour without a call.
func TestLongStandstillIsJudgedAtOnce(t *testing.T) {
	require.NoError(t, wait.Measure())
	w := timeline("b" + strings.Repeat("s", 72_000) + "b")
	began := time.Now()
	assert.Equal(t, 72_000, w.Stats().NotIssued)
	assert.Less(t, time.Since(began), wait.Bound(time.Second))
}

func TestRecovery(t *testing.T) {
	for letters, want := range map[string]string{
		"bb55r5bbbbb": "210ms true true", "bb55r5bbbb": "0s false true", "bbbbbbb": "0s false false",
		"b5rbbbbbr55": "10ms true true",
	} {
		w := timeline(strings.ReplaceAll(letters, "r", "b"))
		r := Recording{Began: w.From, Ended: w.To, ExpectCluster: w.ExpectCluster, Calls: w.Calls}
		for i, letter := range letters {
			if letter == 'r' {
				r.Marks = append(r.Marks, Mark{"recover", at(100 * i)})
			}
		}
		took, recovered, repaired := r.Recovery()
		assert.Equal(t, want, fmt.Sprint(took, recovered, repaired), letters)
	}
}

func TestGapWhenCallsOverlap(t *testing.T) {
	// A slow success that ends after later ones closes no gap twice and opens none.
	w := timeline("bbbbbbbbbb")
	w.Calls[1].End = at(750)
	assert.Equal(t, ms(200), w.Stats().LongestGap, "between call 0 and call 2")
	// Only the order of the ends counts: here it is the sole success for long.
	w = timeline("b55555555b")
	w.Calls[1] = w.Calls[9]
	w.Calls[1].Start, w.Calls[1].End = at(100), at(500)
	assert.Equal(t, ms(490), w.Stats().LongestGap)
}

func TestTimeToRecover(t *testing.T) {
	for _, c := range []struct {
		letters string
		n       int
		want    time.Duration
		ok      bool
	}{
		{"555bbb", 3, ms(310), true},
		{"bbb", 3, ms(10), true},
		{"b5bb5bbb", 3, ms(510), true},
		{"b5bb5bbb", 1, ms(10), true},
		{"5bxxbb", 3, ms(110), true},
		{"5bpbb", 3, 0, false},
		{"5baabb", 3, 0, false},
		{"555", 1, 0, false},
		{"", 1, 0, false},
		{"xx", 1, 0, false},
	} {
		got, ok := TimeToRecover(timeline(c.letters), c.n)
		assert.Equal(t, c.ok, ok, c.letters)
		assert.Equal(t, c.want, got, c.letters)
	}
}

func recordingOf(letters string, marks ...Mark) *Recording {
	w := timeline(letters)
	for i := range w.Calls {
		w.Calls[i].Stream, w.Calls[i].Connection = "a-to-b", Fresh
	}
	return &Recording{
		Stream: "a-to-b", From: "client@cluster-a", URL: "http://echo/", ExpectCluster: w.ExpectCluster, Every: ms(100),
		Began: w.From, Ended: w.To, Marks: marks, Calls: w.Calls,
	}
}

func TestWindows(t *testing.T) {
	r := recordingOf("bbbb5555bbbb", Mark{"break", at(400)}, Mark{"recover", at(800)})
	assert.Equal(t, 12, r.All().Stats().Calls)
	assert.Equal(t, ms(500), r.All().Stats().LongestGap)

	phase, err := r.Phase("break")
	require.NoError(t, err)
	s := phase.Stats()
	assert.Equal(t, []int{4, 0}, []int{s.Calls, s.OK})
	assert.Equal(t, ms(400), s.LongestGap)
	phase, err = r.Phase("recover")
	require.NoError(t, err)
	assert.Equal(t, 4, phase.Stats().OK)
	_, err = r.Phase("symptoms")
	require.ErrorContains(t, err, `no mark "symptoms"`)

	assert.Equal(t, 3, r.Since(ms(300)).Stats().Calls)
	assert.Equal(t, 12, r.Since(time.Hour).Stats().Calls)
	assert.Equal(t, ms(100), r.Since(time.Hour).Stats().LongestGap-ms(400), "cut to what was recorded")
	assert.Empty(t, r.Between(at(100), at(100)).Calls)
	assert.Zero(t, r.Between(at(500), at(100)).Stats().LongestGap)

	took, ok := r.TimeToRecover(at(400), 3)
	assert.True(t, ok)
	assert.Equal(t, ms(410), took)

	require.NoError(t, r.Reliable(at(400), 4))
	err = r.Reliable(at(400), 5)
	require.ErrorIs(t, err, ErrUnreliable)
	assert.ErrorContains(t, err, "4 calls succeeded before the break, want 5")
	require.ErrorIs(t, recordingOf("xxxxb").Reliable(at(500), 3), ErrUnreliable)
}

func TestRecordingRoundTrip(t *testing.T) {
	r := recordingOf("bar5txp", Mark{"break", at(250)})
	r.Calls[0].ClientID, r.Calls[0].XFCC, r.Calls[0].RequestID = "spiffe://x", "By=y", "id"
	path := filepath.Join(t.TempDir(), "a-to-b.json")
	require.NoError(t, r.Save(path))
	back, err := Load(path)
	require.NoError(t, err)
	assert.Equal(t, r, back)
	assert.Equal(t, r.All().Stats(), back.All().Stats())

	text, err := json.Marshal(r)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"startSeconds":0.2,"endSeconds":0.21`)
	assert.NotContains(t, string(text), `"start":`, "no wall times of calls")
	for _, bad := range []string{``, `[]`, `{"calls":[{"startSeconds":"x"}]}`} {
		assert.Error(t, json.Unmarshal([]byte(bad), &Recording{}), bad)
	}
	_, err = Load(filepath.Join(t.TempDir(), "none"))
	require.Error(t, err)
	require.Error(t, r.Save(filepath.Join(t.TempDir(), "no", "folder")))
}

// Whatever the calls are, the numbers have to fit together.
// A recording with a pause in it is judged as if there had been none.
func TestJoin(t *testing.T) {
	record := func(letters string, from time.Time, marks ...Mark) *Recording {
		w := timeline(letters)
		r := &Recording{Stream: "a-to-b", ExpectCluster: w.ExpectCluster, Every: ms(100), Marks: marks, Calls: w.Calls}
		for i := range r.Calls {
			c := &r.Calls[i]
			c.Start = from.Add(c.Start.Sub(epoch))
			if !c.End.IsZero() {
				c.End = from.Add(c.End.Sub(epoch))
			}
		}
		r.Began, r.Ended = from, from.Add(ms(100*len(letters)))
		return r
	}
	for _, c := range []struct{ name, earlier, later string }{
		{"a good one", "bbbbb", "bbbbb"},
		{"broken across the pause", "bbb55", "5555b"},
		{"the recovery before it", "555bb", "bbbbb"},
		{"calls under way at the end", "bbbtt", "ttbbb"},
		{"the source away across it", "bbbxx", "xxbbb"},
		{"nothing before it", "", "b5b"},
		{"nothing after it", "b5b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := record(c.earlier+c.later, epoch)
			earlier, later := record(c.earlier, epoch), record(c.later, epoch.Add(time.Hour))
			earlier.Ended = earlier.Ended.Add(time.Second * time.Duration(min(1, len(c.earlier)))) // it waited for calls under way
			joined := Join(earlier, later)
			require.Equal(t, Judge(whole.All()), Judge(joined.All()))
			took, ok := whole.TimeToRecover(whole.Began, 3)
			again, okAgain := joined.TimeToRecover(joined.Began, 3)
			require.Equal(t, ok, okAgain)
			require.Equal(t, took, again)
			require.Equal(t, later.Ended, joined.Ended)
		})
	}
	earlier := record("bb55", epoch, Mark{"baseline", epoch}, Mark{"break", at(200)})
	later := record("55bb", epoch.Add(time.Hour), Mark{"recover", epoch.Add(time.Hour + ms(100))})
	joined := Join(earlier, later)
	broken, err := joined.Phase("break")
	require.NoError(t, err)
	require.Equal(t, 2, broken.Stats().Lost, "what comes after the pause is not the phase before it")
	require.Equal(t, ms(200), broken.To.Sub(broken.From))
	recovery, err := joined.Phase("recover")
	require.NoError(t, err)
	require.Equal(t, 1, recovery.Stats().Lost)
	require.Equal(t, at(0), earlier.Calls[0].Start, "the earlier one stays as it is")
}

func TestJudgeAddsUp(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var letters strings.Builder
		for range random.IntN(40) {
			letters.WriteByte("aabbbbbb55txxpur"[random.IntN(16)])
		}
		w := timeline(letters.String())
		s := w.Stats()
		require.Equal(t, len(w.Calls), s.Calls+s.NotIssued+s.Pending, letters.String())
		require.Equal(t, s.Calls, s.OK+s.Lost, letters.String())
		require.GreaterOrEqual(t, s.LongestGap, time.Duration(0))
		require.LessOrEqual(t, s.LongestGap+s.SourceAway, w.To.Sub(w.From), letters.String())
		if s.OK > 0 {
			_, ok := TimeToRecover(w, 1)
			require.True(t, ok)
		}
		text, err := json.Marshal(s)
		require.NoError(t, err)
		require.NotContains(t, string(text), "NaN")
	}
}

func TestEqualFailuresHaveEqualTexts(t *testing.T) {
	for text, want := range map[string]string{
		`1/1 requests had errors; first error: Get "http:/": ` +
			`read tcp 10.0.0.1:53422->10.0.0.2:80: read: connection reset by peer`: "read tcp 10.0.0.2:80: read: connection reset by peer",
		"  several\nlines \t of text ": "several lines of text",
		"":                             "no text",
		"bad \xff byte":                "bad ? byte",
		strings.Repeat("ä", 300):       strings.Repeat("ä", 200) + "…",
		strings.Repeat("äx", 300):      strings.Repeat("äx", 133) + "…",
	} {
		assert.Equal(t, want, callError(text))
	}
}

func TestCertificateHeader(t *testing.T) {
	for header, want := range map[string][2]string{
		"":                             {},
		"By=spiffe://a;URI=spiffe://b": {"spiffe://a", "spiffe://b"},
		`By=spiffe://far;URI=spiffe://x,Hash=1;By=spiffe://near;Subject="O=\",;URI=no";URI="spiffe://y"`: {"spiffe://near", "spiffe://y"},
		`By=spiffe://a;Subject="never closed;URI=spiffe://b`:                                             {"spiffe://a", ""},
		";;,,=;": {},
	} {
		by, uri := xfccIDs(header)
		assert.Equal(t, want, [2]string{by, uri}, header)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("[0] Url=http://x\n[0] StatusCode=200\n[0 body] Cluster=c\n[0 body] RequestHeader=X-Forwarded-Client-Cert:By=a;URI=b\n")
	f.Add("[0] StatusCode=503\n[0 body] upstream connect error\n[0 error] EOF\n")
	f.Add("] StatusCode=]\n[0 body] ")
	f.Fuzz(func(t *testing.T, output string) {
		var c Call
		c.read(output)
		if c.Code != 200 && c.Err == "" {
			t.Fatalf("code %d and no error", c.Code)
		}
		if c.Code != 200 && c.Cluster != "" {
			t.Fatal("an app answered although the call failed")
		}
	})
}
