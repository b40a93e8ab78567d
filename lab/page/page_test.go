package page

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
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
	assert.Contains(t, v.Story[2], "Wanted: doctor finds root-expired first, and no other root cause, within 30s × 6.9. Seen: ")
}

// TestStoryOfWhatDidNotEnd has runs that no failed check ended.
func TestStoryOfWhatDidNotEnd(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	at := func(second int, e report.Event) report.Event {
		e.Time = began.Add(time.Duration(second) * time.Second)
		return e
	}
	started := at(0, report.Event{Type: report.ScenarioStarted, Scenario: "s", Name: "The title"})
	phase := at(1, report.Event{Type: report.PhaseStarted, Phase: "break"})
	ended := func(seen string) report.Event {
		return at(9, report.Event{Type: report.ScenarioEnded, Result: report.Errored, Seen: seen, Seconds: 9})
	}
	phaseEnded := func(seen string) report.Event {
		return at(8, report.Event{Type: report.PhaseEnded, Phase: "break", Result: report.Errored, Seen: seen, Seconds: 7})
	}
	failedStep := at(5, report.Event{Type: report.StepEnded, Phase: "break", Name: "x", Result: report.Failed, Wanted: "w", Seen: "z."})
	for name, test := range map[string]struct {
		events      []report.Event
		first, last string
		holds       string
	}{
		"a phase that fails without a step": {
			[]report.Event{started, phase, phaseEnded("no such file"), ended("no such file")},
			"s could not be carried out in phase break after 9.0 s: The title.", "Seen: no such file.", "errored</span> the phase",
		},
		"Ctrl-C": {
			[]report.Event{started, phase, phaseEnded("interrupted: Ctrl-C."), ended("interrupted: Ctrl-C.")},
			"s was interrupted in phase break after 9.0 s: The title.", "Seen: interrupted: Ctrl-C.", "errored</span> the phase",
		},
		"an error outside of the phases": {
			[]report.Event{started, ended("there is no disk")},
			"s could not be carried out after 9.0 s: The title.", "Reason: there is no disk.", "No phase began.",
		},
		"killed after a failure": {
			[]report.Event{started, phase, failedStep, at(6, report.Event{Type: report.Note, Name: "collecting"})},
			"s failed in phase break after 6.0 s: The title.", "Wanted: w. Seen: z. The run was cut off before it ended.",
			`<span class="soft">5.0 s, began 12:00:01.0 UTC</span>`,
		},
		"killed": {
			[]report.Event{started, phase, at(4, report.Event{Type: report.StepStarted, Phase: "break", Name: "x"})},
			"s was interrupted after 4.0 s: The title.", "Reason: interrupted: the run ended before this did.", "errored</span> the run",
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := Run{Dir: t.TempDir(), Events: test.events}
			v, err := viewOf(run)
			require.NoError(t, err)
			assert.Equal(t, []string{test.first, "It recorded no calls.", test.last}, v.Story)
			text := pageOf(t, run)
			standsAlone(t, text)
			holds(t, text, test.holds)
			for _, f := range NewGrid([]Run{run}).Failures {
				assert.NotEmpty(t, f.Step)
			}
		})
	}
}

// TestRecordingsAreFoundInAnyFolder has a folder whose name would be a pattern.
func TestRecordingsAreFoundInAnyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run [2]*")
	require.NoError(t, os.CopyFS(dir, os.DirFS(passed)))
	assert.Len(t, load(t, dir).Recordings, 4)
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
		assert.Equalf(t, n > 1, strings.Contains(text, `id="failure"`), "after %d events", n)
		assert.Equalf(t, n > 1, strings.Contains(text, `href="#failure"`), "after %d events", n)
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
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(made)
	require.NoError(t, err)
	key := base64.StdEncoding.EncodeToString(der)
	late := strings.Repeat("x ", 125) + key // a text that is cut within the key
	dir := t.TempDir()
	pod := filepath.Join(dir, "evidence", "cluster-a", "pods", "x")
	require.NoError(t, os.MkdirAll(pod, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(pod, "a.log"), []byte("2026-11-30T12:00:01.5Z\terror\tgot "+secret+"\n"+
		"2026-11-30T12:00:01.7Z\twarn\t"+late+"\n"), 0o644))
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
			Stream: secret, ExpectCluster: secret, URL: "http://u:" + secret + "@h/", Began: began, Ended: began.Add(time.Second),
			Marks: []traffic.Mark{{Label: "break", At: began}},
			Calls: []traffic.Call{
				{Start: began, End: began.Add(time.Second), Issued: true, Code: 503, Err: secret, Cluster: secret, Pod: secret},
				{Start: began, End: began.Add(time.Second), Issued: true, Code: 200, Cluster: secret + "x"},
				{Start: began, End: began.Add(time.Second), Issued: true, Code: 503, Err: late},
			},
		}},
	})
	holdsNot(t, text, key[:20])
	holds(t, text, "x x [redacted]")
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
	assert.Equal(t, []string{
		"break: put a CA below a new root that lives 24s into the Secret cacerts of cluster-a and cluster-b",
		"break: restart istiod in cluster-a and cluster-b",
		"break: restart client@cluster-a, echo@cluster-a, client@cluster-b and echo@cluster-b",
	}, faults)
	assert.True(t, p.Phases[3].Bad)
}

func TestPlotHasChangesAlone(t *testing.T) {
	p, _ := plotOf(load(t, passed))
	var faults []string
	for _, s := range p.Faults {
		faults = append(faults, s.Label)
		assert.Equal(t, strings.HasPrefix(s.Label, "recover: "), s.Mend)
	}
	assert.Equal(t, []string{
		"break: put a CA below a root that nobody else has into the Secret cacerts of cluster-b",
		"break: restart istiod in cluster-b",
		"break: restart all workloads and gateways in cluster-b",
		"break: restart client@cluster-a",
		"wrong-fixes: restart istiod in cluster-a and cluster-b",
		"recover: put a CA below the lab's shared root into the Secret cacerts of cluster-b",
		"recover: restart istiod in cluster-b",
		"recover: restart all workloads and gateways in cluster-b",
	}, faults, "looking whether the mesh is still broken is no change")
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
		Tip: "spiffe://cluster.local/ns/production/sa/client, signed by scenarios-1 intermediate cluster-a (made 11:58:34), " +
			"ends 2026-11-30T11:58:58Z",
	}, last.Clusters[0].Holders[1])
	text := pageOf(t, load(t, failed))
	holds(t, text, "<title>spiffe://cluster.local/ns/production/sa/client, signed by")
}

// TestLargeEvidenceSaysWhatIsMissing has more files, and a longer list of certificates, than a page shows.
func TestLargeEvidenceSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "evidence", "cluster-a")
	require.NoError(t, os.MkdirAll(kept, 0o755))
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "\npod-%d in namespace n, made 2026-11-30T11:58:10Z\n  trusts:\n", i)
		for range 4 {
			text.WriteString("    CN=the root,OU=x+O=y, self-signed, until 2036-11-27T11:58:00Z, " +
				"sha256 2F:4C:CB:4C" + strings.Repeat(":00", 28) + "\n")
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(kept, "certificates.txt"), []byte(text.String()), 0o644))
	for i := range mostFiles {
		require.NoError(t, os.WriteFile(filepath.Join(kept, fmt.Sprintf("file-%d.txt", i)), nil, 0o644))
	}
	e, err := readEvidence(dir)
	require.NoError(t, err)
	require.Len(t, e.clusters, 1)
	require.Len(t, e.clusters[0].Holders, 100, "the picture has all of them")
	assert.Equal(t, "the root (2F:4C:CB:4C)", e.clusters[0].Holders[99].Roots[0], "as the checks call it")
	require.Len(t, e.shown, 1)
	assert.LessOrEqual(t, len(e.shown[0].Text), mostOfText)
	assert.Regexp(t, `^the last 4\d kB of 7\d kB$`, e.shown[0].Part)
	page := pageOf(t, Run{Dir: dir, Events: []report.Event{{Type: report.ScenarioStarted, Scenario: "s"}}})
	holds(t, page, "cluster-a/certificates.txt (the last 4")
	holds(t, page, "The first 400 of 401 files in the folder evidence of ")
}

// TestTailHasWholeLines cuts a file within a line, which may be a secret.
func TestTailHasWholeLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.log")
	require.NoError(t, os.WriteFile(file, []byte("first\nsecond\nthird\n"), 0o644))
	for most, want := range map[int64]string{100: "first\nsecond\nthird\n", 10: "third\n", 3: ""} {
		text, err := tail(file, most)
		require.NoError(t, err)
		assert.Equal(t, want, text)
		assert.Equal(t, want, lastLines("first\nsecond\nthird\n", int(most)))
	}
}

// TestIssueHasTheLatestLogs has more lines of logs than an issue has room for.
func TestIssueHasTheLatestLogs(t *testing.T) {
	step := stepView{Event: report.Event{Name: "x", Result: report.Failed}}
	for i := range 10 {
		step.Logs = append(step.Logs, fmt.Sprintf("line %d", i))
	}
	text := issueOf(report.Summary{}, view{Phases: []phaseView{{Steps: []stepView{step}}}})
	assert.Contains(t, text, "line 9")
	assert.NotContains(t, text, "line 1\n")
}

// TestPaperIsWhiteForThePlotToo compares the colors that the script has for paper with those of the style.
func TestPaperIsWhiteForThePlotToo(t *testing.T) {
	paper := string(look.Style())
	paper = paper[strings.Index(paper, "@media print"):]
	of := regexp.MustCompile(`"(--\w+)": "(#[0-9a-f]{6})"`).FindAllStringSubmatch(plotScript, -1)
	require.Len(t, of, 14)
	for _, m := range of {
		holds(t, paper[:strings.Index(paper, "}")], m[1]+": "+m[2]+";")
	}
}

// TestPictureHasEveryProxy reads texts of observe's group and of pki.Labels.
func TestPictureHasEveryProxy(t *testing.T) {
	const (
		a = `"a" (SHA-256 8D:E0:A6:A7…)`
		b = `"b \"x\"" (SHA-256 CD:9E:93:1F…)`
	)
	type has = map[string][]string // holders with their roots, by cluster
	for seen, want := range map[string]has{
		"cluster-a (all 2 proxies) and echo-2 in cluster-b: trusts " + a + "; client-2 in cluster-b: trusts " + b: {
			"cluster-a": {"all 2 proxies: a (8D:E0:A6:A7)"}, "cluster-b": {"echo-2: a (8D:E0:A6:A7)", `client-2: b "x" (CD:9E:93:1F)`},
		},
		"x, y and z in a and cluster-b (all 3 proxies): trusts " + a + " and " + b: {
			"a": {
				`x: a (8D:E0:A6:A7)+b "x" (CD:9E:93:1F)`, `y: a (8D:E0:A6:A7)+b "x" (CD:9E:93:1F)`, `z: a (8D:E0:A6:A7)+b "x" (CD:9E:93:1F)`,
			},
			"cluster-b": {`all 3 proxies: a (8D:E0:A6:A7)+b "x" (CD:9E:93:1F)`},
		},
		"x in cluster-a: trusts nobody":                            {"cluster-a": {"x: "}},
		"there is no Secret; x in cluster-a: trusts " + a:          {"cluster-a": {"x: a (8D:E0:A6:A7)"}},
		"x in cluster-a: trusts " + a + "; some pods: trusts " + b: {},
		"x in cluster-a: trusts " + a + "; y in b: trusts many":    {},
		"x: trusts " + a: {},
		`x in cluster-a: trusts "a; b" (SHA-256 8D:E0:A6:A7…)`: {},
		"nothing": {},
	} {
		got := has{}
		for _, c := range trusted(seen) {
			for _, h := range c.Holders {
				got[c.Name] = append(got[c.Name], h.Name+": "+strings.Join(h.Roots, "+"))
			}
		}
		assert.Equal(t, want, got, seen)
	}
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
