package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestOutcomeIsWhatJudgeCounts(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	call := func(code int, cluster string) Call {
		return Call{Start: at, End: at.Add(time.Millisecond), Issued: true, Code: code, Cluster: cluster}
	}
	refused := call(0, "")
	refused.Err = "connection refused"
	underWay := call(0, "")
	underWay.End = time.Time{}
	for _, test := range []struct {
		call    Call
		outcome Outcome
		why     string
		lost    int
	}{
		{call(200, "cluster-b"), Answered, "", 0},
		{call(200, "cluster-a"), Elsewhere, "answered by cluster-a instead of cluster-b", 1},
		{call(503, ""), Lost, "HTTP 503", 1},
		{refused, Lost, "connection refused", 1},
		{Call{Start: at, End: at, Err: "the source was away"}, NotIssued, "the source was away", 0},
		{underWay, UnderWay, "", 0},
	} {
		w := Window{From: at, To: at.Add(time.Second), ExpectCluster: "cluster-b", Calls: []Call{test.call}}
		outcome, why := w.Outcome(test.call)
		assert.Equal(t, test.outcome, outcome)
		assert.Equal(t, test.why, why)
		assert.Equal(t, test.lost, Judge(w).Lost, test.outcome)
	}
}
