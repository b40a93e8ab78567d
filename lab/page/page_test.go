package page

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/tests/runs"
)

// Two runs as they were recorded, with every eighth or twelfth of their calls (and all of the recovery) and a few of their logs.
const (
	passed = "testdata/passed/mismatched-root-ca"
	failed = "testdata/failed/root-expired"
)

func pageOf(t *testing.T, run Run) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, run))
	return b.String()
}

// holds is assert.Contains without printing a whole page.
func holds(t *testing.T, page, text string) {
	t.Helper()
	assert.Truef(t, strings.Contains(page, text), "the page does not hold %q", text)
}

func holdsNot(t *testing.T, page, text string) {
	t.Helper()
	assert.Falsef(t, strings.Contains(page, text), "the page holds %q", text)
}

func load(t *testing.T, dir string) Run {
	t.Helper()
	run, err := Load(dir)
	require.NoError(t, err)
	return run
}

func TestStory(t *testing.T) {
	v, err := viewOf(load(t, passed))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"mismatched-root-ca passed in 1m48s: Cluster B was given another root, so nobody across the border is trusted.",
		"Of 413 calls on 4 streams 149 were lost (2 while this machine stood still); the longest time without an answer was 85.0 s, " +
			"on a-to-b; every stream was answered again 43.3 s after the repair began.",
		"All 9 phases held, with 47 steps.",
	}, v.Story)
	v, err = viewOf(load(t, failed))
	require.NoError(t, err)
	require.Len(t, v.Story, 3)
	assert.Contains(t, v.Story[0], "root-expired failed in phase diagnose after 5m59s: ")
	assert.Contains(t, v.Story[2], "It wanted doctor finds root-expired first, and no other root cause, within 30s × 6.9, and saw ")
}

// TestPageStandsAlone reads pages the way a browser does: nothing in them is loaded from anywhere.
func TestPageStandsAlone(t *testing.T) {
	for _, dir := range []string{passed, failed} {
		standsAlone(t, pageOf(t, load(t, dir)))
	}
}

func standsAlone(t *testing.T, text string) {
	t.Helper()
	document, err := html.Parse(strings.NewReader(text))
	require.NoError(t, err)
	ids := map[string]bool{}
	policy := ""
	var links []string
	for n := range document.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		assert.NotContains(t, []string{"link", "iframe", "object", "embed", "img", "base", "form", "video", "audio"}, n.Data)
		for _, a := range n.Attr {
			switch a.Key {
			case "id":
				assert.Falsef(t, ids[a.Val], "id %s is there twice", a.Val)
				ids[a.Val] = true
			case "href":
				assert.Truef(t, strings.HasPrefix(a.Val, "#"), "%s leads out of the page", a.Val)
				links = append(links, strings.TrimPrefix(a.Val, "#"))
			case "http-equiv":
				policy = n.Attr[1].Val
			case "src", "srcset", "action", "data", "poster", "background", "style":
				assert.Failf(t, "an attribute that loads, or that the policy forbids", "<%s %s=%q>", n.Data, a.Key, a.Val)
			}
			assert.Falsef(t, strings.HasPrefix(a.Key, "on"), "<%s %s>", n.Data, a.Key)
		}
		if n.Data == "style" {
			assert.NotRegexp(t, `@import|url\(|//`, n.FirstChild.Data)
		}
		if n.Data == "script" && len(n.Attr) == 0 {
			assert.Contains(t, policy, look.Hash(n.FirstChild.Data), "the policy must allow this script and no other")
			assert.NotRegexp(t, `fetch\(|XMLHttpRequest|import\(|WebSocket|EventSource|https?:`, n.FirstChild.Data)
		}
	}
	for _, id := range links {
		assert.Truef(t, ids[id], "#%s leads nowhere", id)
	}
	assert.Contains(t, policy, "default-src 'none'")
}

func TestFailedRunOpensAtTheFailure(t *testing.T) {
	text := pageOf(t, load(t, failed))
	holds(t, text, `<a href="#failure">`)
	assert.True(t, regexp.MustCompile(`<details class="card failed" open>\s*<summary><span class="verdict">failed</span> <b>diagnose</b>`).MatchString(text))
	assert.True(t, regexp.MustCompile(`id="failure" tabindex="-1" open>\s*<summary>.*doctor finds root-expired first`).MatchString(text))
	holds(t, text, "eastwest doctor --lab scenarios-1")
	holds(t, text, "logs of that moment")
	holds(t, text, "12:02:21.248 cluster-a/production.client-86579fdb9c-wn9hg/istio-proxy: ")
	holds(t, text, "(and 5 more like it)")
	holdsNot(t, pageOf(t, load(t, passed)), `id="failure"`)
}

// TestCutOffRunHasAPage cuts a run off after each of its events, as when it was killed.
func TestCutOffRunHasAPage(t *testing.T) {
	run := load(t, failed)
	all := run.Events
	for n := 1; n < len(all); n++ {
		text := pageOf(t, Run{Dir: failed, Events: all[:n]})
		if n > 1 {
			assert.Truef(t, strings.Contains(text, `id="failure"`), "after %d events", n)
		}
	}
	var b bytes.Buffer
	assert.ErrorContains(t, Write(&b, Run{Dir: "empty"}), "writing the page of empty: no scenario began in this run")
}

const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(1)>"'` + "`${alert(1)}`\n``` &amp; \u2028 -->"

func TestHostileTextIsOnlyText(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	evidence := filepath.Join(dir, "evidence", "cluster-a", "pods", "x")
	require.NoError(t, os.MkdirAll(evidence, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(evidence, "a.log"), []byte("2026-11-30T12:00:01.5Z\terror\t"+hostile), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "evidence", "problems.txt"), []byte(hostile), 0o644))
	step := report.Event{
		Type: report.StepEnded, Scenario: hostile, Phase: hostile, Place: hostile, Cluster: hostile, Name: hostile, Command: hostile,
		Result: report.Failed, Wanted: hostile, Seen: hostile, Try: hostile, Detail: hostile, Time: began.Add(2 * time.Second),
	}
	run := Run{
		Dir: dir,
		Events: []report.Event{
			{Type: report.ScenarioStarted, Scenario: hostile, Name: hostile, Properties: map[string]string{hostile: hostile}, Time: began},
			{Type: report.PhaseStarted, Phase: hostile, Name: hostile, Time: began},
			step,
			{Type: report.PhaseEnded, Phase: hostile, Result: report.Failed, Time: began.Add(3 * time.Second)},
			{Type: report.ScenarioEnded, Scenario: hostile, Result: report.Failed, Seen: hostile, Time: began.Add(3 * time.Second)},
		},
		Recordings: []*traffic.Recording{{
			Stream: hostile, From: hostile, URL: hostile, ExpectCluster: hostile, Began: began, Ended: began.Add(time.Second),
			Marks: []traffic.Mark{{Label: hostile, At: began}},
			Calls: []traffic.Call{{
				Start: began, End: began.Add(time.Second), Issued: true, Code: 503, Err: hostile, Cluster: hostile, Pod: hostile,
			}},
		}},
	}
	text := pageOf(t, run)
	standsAlone(t, text)
	document, err := html.Parse(strings.NewReader(text))
	require.NoError(t, err)
	scripts := 0
	for n := range document.Descendants() {
		if n.Type == html.ElementNode && n.Data == "script" {
			scripts++
		}
	}
	assert.Equal(t, 2, scripts, "the data and the script of the page")
	v, err := viewOf(run)
	require.NoError(t, err)
	fence := regexp.MustCompile("(?m)^`{4,}").FindAllString(v.Issue, -1)
	assert.NotEmpty(t, fence, "the fence has to be longer than that in the text")
}

func TestSecretsAreRedacted(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2VjcmV0LXNpZ25hdHVyZQ"
	dir := t.TempDir()
	pod := filepath.Join(dir, "evidence", "cluster-a", "pods", "x")
	require.NoError(t, os.MkdirAll(pod, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(pod, "a.log"), []byte("2026-11-30T12:00:01.5Z\terror\tgot "+secret+"\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "evidence", "problems.txt"), []byte("bearer "+secret), 0o644))
	text := pageOf(t, Run{
		Dir: dir,
		Events: []report.Event{
			{Type: report.ScenarioStarted, Scenario: "s", Properties: map[string]string{"p": secret}, Time: began},
			{Type: report.PhaseStarted, Phase: "break", Time: began},
			{Type: report.StepEnded, Name: "n", Command: secret, Result: report.Failed, Seen: secret, Time: began.Add(2 * time.Second)},
			{Type: report.ScenarioEnded, Result: report.Failed, Seen: secret, Time: began.Add(3 * time.Second)},
		},
		Recordings: []*traffic.Recording{{
			Stream: "s", URL: "http://u:" + secret + "@h/", Began: began, Ended: began.Add(time.Second),
			Marks: []traffic.Mark{{Label: "break", At: began}},
			Calls: []traffic.Call{{Start: began, End: began.Add(time.Second), Issued: true, Code: 503, Err: secret}},
		}},
	})
	holdsNot(t, text, "eyJhbGci")
	holds(t, text, "[redacted]")
	holds(t, text, "a: error got [redacted]") // the line of the log is there
}

func TestPlotHasEveryCall(t *testing.T) {
	run := load(t, failed)
	p, streams := plotOf(run)
	require.Len(t, p.Streams, 4)
	for i, s := range p.Streams {
		require.Len(t, s.Calls, 3*len(run.Recordings[i].Calls))
		lost, at := 0, int64(0)
		for n := 0; n < len(s.Calls); n += 3 {
			at += s.Calls[n]
			assert.Equal(t, run.Recordings[i].Calls[n/3].Start.Sub(p.Began).Milliseconds(), at)
			if o := s.Kinds[s.Calls[n+2]].Outcome; o == traffic.Lost || o == traffic.Elsewhere {
				lost++
			}
		}
		assert.Equal(t, streams[i].All.Lost, lost, "what is drawn is what is counted")
	}
	var phases, faults []string
	for _, s := range p.Phases {
		phases = append(phases, s.Label)
		assert.Less(t, s.From, s.To)
	}
	for _, s := range p.Faults {
		faults = append(faults, s.Label)
		assert.LessOrEqual(t, s.From, s.To)
	}
	assert.Equal(t, []string{"baseline", "break", "symptoms", "diagnose"}, phases)
	assert.Contains(t, faults, "break: restart istiod in cluster-a and cluster-b")
	assert.True(t, p.Phases[3].Bad)
}

func TestPageOfTwentyThousandCallsIsSmall(t *testing.T) {
	run := load(t, failed)
	run.Recordings = runs.Longer(run.Recordings, 20_000)
	text := pageOf(t, run)
	t.Logf("%d bytes", len(text))
	assert.Less(t, len(text), 1_000_000)
	from := strings.Index(text, `id="data">`) + len(`id="data">`)
	var p plot
	require.NoError(t, json.Unmarshal([]byte(text[from:from+strings.Index(text[from:], "</script>")]), &p))
	calls := 0
	for _, s := range p.Streams {
		calls += len(s.Calls) / 3
	}
	assert.Equal(t, 20_000, calls)
}

func TestPicturesOfTheMesh(t *testing.T) {
	run := load(t, passed)
	meshes := meshesOf(run.Events, evidence{})
	var titles, roots []string
	for _, m := range meshes {
		titles = append(titles, m.Title)
		require.Len(t, m.Clusters, 2)
		roots = append(roots, m.Clusters[1].Holders[0].Roots...)
	}
	assert.Equal(t, []string{"baseline: Before: the mesh is healthy", "diagnose: Finding the cause", "healthy: Healthy again"}, titles)
	const shared = "existing-test root (8D:E0:A6:A7)"
	require.Len(t, roots, 3)
	assert.Equal(t, []string{shared, shared}, []string{roots[0], roots[2]})
	assert.NotEqual(t, shared, roots[1])
	assert.Contains(t, roots[1], "existing-test root-cluster-b (CD:9E:")

	kept, err := readEvidence(failed)
	require.NoError(t, err)
	meshes = meshesOf(load(t, failed).Events, kept)
	last := meshes[len(meshes)-1]
	assert.Equal(t, "after the failure, from the evidence", last.Title)
	require.Len(t, last.Clusters, 2)
	assert.Equal(t, look.Holder{
		Name: "production/client-86579fdb9c-wn9hg", Roots: []string{"scenarios-1 expiring root (0D:85:7B:7C)"},
		Tip: "spiffe://cluster.local/ns/production/sa/client, signed by scenarios-1 intermediate cluster-a (made 11:58:34),O=eastwest, " +
			"ends 2026-11-30T11:58:58Z",
	}, last.Clusters[0].Holders[1])
	text := pageOf(t, load(t, failed))
	holds(t, text, "<title>spiffe://cluster.local/ns/production/sa/client, signed by")
}

func TestExcerptHasWhatStandsOut(t *testing.T) {
	const log = `2026-11-30T12:00:01.000000Z	info	ads	nothing to see
2026-11-30T12:00:02.000000Z	warn	ca	request 1 failed
[2026-11-30T12:00:03.000Z] "GET / HTTP/1.1" 200 - via_upstream - "-" 0
[2026-11-30T12:00:04.000Z] "GET / HTTP/1.1" 503 URX,UF upstream_reset - "-" 0
[2026-11-30T12:00:05.000Z] "- - -" 0 - - - "-" 547
[2026-11-30T12:00:06.000Z] "- - -" 0 NR filter_chain_not_found - "-" 0
2026-11-30T12:00:07.000000Z	warn	ca	request 2 failed
2026-11-30T12:01:00.000000Z	error	too late
a line without a time
`
	at := func(second int) time.Time { return time.Date(2026, 11, 30, 12, 0, second, 0, time.UTC) }
	all := standingOut("x", log)
	assert.Equal(t, []string{
		`12:00:04.000 x: "GET / HTTP/1.1" 503 URX,UF upstream_reset - "-" 0`,
		`12:00:06.000 x: "- - -" 0 NR filter_chain_not_found - "-" 0`,
		`12:00:07.000 x: warn ca request 2 failed (and 1 more like it)`,
	}, excerpt(all, at(0), at(30), 5))
	assert.Equal(t, []string{
		"… before these, 2 lines of other kinds",
		`12:00:07.000 x: warn ca request 2 failed (and 1 more like it)`,
	}, excerpt(all, at(0), at(30), 1))
	assert.Empty(t, excerpt(all, at(8), at(30), 5))
}
