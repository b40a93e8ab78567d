package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "no golden file: run go test ./lab/report -update and read what it wrote")
	assert.Equal(t, string(want), got)
}

// recorded is a run with everything in it: green, red, errored, skipped and cut-off scenarios, and a
// torn last line.
func recorded(t *testing.T) []Event {
	t.Helper()
	events, err := Read("testdata/run")
	require.NoError(t, err)
	require.Greater(t, len(events), 50)
	return events
}

func TestTerminal(t *testing.T) {
	for name, o := range map[string]TerminalOptions{
		"quiet.txt":   {Folder: "/home/you/runs/1"},
		"color.txt":   {Color: true, Folder: "/home/you/runs/1"},
		"live.txt":    {Live: true, Width: 40},
		"verbose.txt": {Verbose: true, Width: 100, Folder: "/home/you/runs/1"},
		"narrow.txt":  {Verbose: true, Width: 50},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			sink := Terminal(&out, o)
			for _, e := range recorded(t) {
				sink.Emit(e)
			}
			golden(t, name, out.String())
			assert.NotContains(t, out.String(), "PRIVATE KEY")
			if !o.Color && !o.Live {
				assert.NotContains(t, out.String(), "\x1b", "plain is plain, whatever a log says")
			}
			for line := range strings.Lines(out.String()) {
				assert.Equal(t, strings.TrimRight(line, " \n"), strings.TrimRight(line, "\n"), "no blanks at the end")
			}
		})
	}
}

func TestDetectWritesPlainLinesToWhatIsNoTerminal(t *testing.T) {
	environment := func(values ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(values); i += 2 {
				if values[i] == name {
					return values[i+1]
				}
			}
			return ""
		}
	}
	assert.Equal(t, TerminalOptions{}, Detect(io.Discard, environment()))
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer file.Close()
	assert.Equal(t, TerminalOptions{}, Detect(file, environment("TERM", "xterm")))
}

func TestJUnitIsWellFormedAndCounts(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, JUnit(&out, recorded(t)))
	golden(t, "junit.xml", out.String())
	var parsed junitSuites
	require.NoError(t, xml.Unmarshal(out.Bytes(), &parsed))
	assert.Len(t, parsed.Suites, 6)
	assert.Equal(t, 1, parsed.Failures)
	assert.Equal(t, 3, parsed.Errors)
	assert.Equal(t, 1, parsed.Skipped)
	// Characters that XML cannot hold are no reason for a broken file.
	out.Reset()
	require.NoError(t, JUnit(&out, []Event{
		{Type: ScenarioStarted, Scenario: "x", Name: "a\x00b"},
		{Type: PhaseStarted, Scenario: "x", Phase: "break"},
		{Type: StepEnded, Scenario: "x", Phase: "break", Name: "\x1b]]>\xff<&\"", Result: Failed, Seen: "]]>\x01\uFFFE"},
		{Type: PhaseEnded, Scenario: "x", Phase: "break", Result: Failed},
		{Type: ScenarioEnded, Scenario: "x", Result: Failed},
	}))
	decoder := xml.NewDecoder(&out)
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, JSON(&out, Summarize(recorded(t))))
	golden(t, "summary.json", out.String())
	decoder := json.NewDecoder(&out)
	var results []Result
	for decoder.More() {
		var s Summary
		require.NoError(t, decoder.Decode(&s))
		results = append(results, s.Result)
	}
	assert.Equal(t, []Result{Passed, Failed, Skipped, Errored, Errored, Errored}, results)
	assert.Empty(t, Summarize(nil))
}

func TestGitHub(t *testing.T) {
	assert.Nil(t, GitHub(io.Discard, func(string) string { return "" }))
	summary := filepath.Join(t.TempDir(), "summary.md")
	environment := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": summary}
	var out bytes.Buffer
	sink := Multi(nil, GitHub(&out, func(name string) string { return environment[name] }))
	for _, e := range recorded(t) {
		sink.Emit(e)
	}
	golden(t, "github.txt", out.String())
	text, err := os.ReadFile(summary)
	require.NoError(t, err)
	golden(t, "summary.md", string(text))

	environment["GITHUB_STEP_SUMMARY"] = filepath.Join(summary, "not-a-folder")
	out.Reset()
	sink = GitHub(&out, func(name string) string { return environment[name] })
	sink.Emit(Event{Type: ScenarioStarted, Scenario: "x"})
	sink.Emit(Event{Type: ScenarioEnded, Scenario: "x", Result: Passed})
	assert.Contains(t, out.String(), "::warning::writing the step summary: ")
}

func TestFolderKeepsWhatItWasGiven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs", "1")
	folder, err := NewFolder(dir)
	require.NoError(t, err)
	assert.Equal(t, dir, folder.Dir())
	assert.DirExists(t, folder.Evidence())
	want := recorded(t)
	for i, e := range want {
		folder.Emit(e)
		// Every event is there at once: a run may be killed at any time.
		got, err := Read(dir)
		require.NoError(t, err)
		require.Len(t, got, i+1)
	}
	folder.Emit(Event{Type: Note, Name: "now", Took: 1500 * time.Millisecond})
	require.NoError(t, folder.Close())
	got, err := Read(dir)
	require.NoError(t, err)
	last := got[len(got)-1]
	assert.Equal(t, 1500*time.Millisecond, last.Took)
	assert.WithinDuration(t, time.Now(), last.Time, time.Minute, "a time is filled in")
	for i, e := range want {
		got[i].cleaned = true
		assert.Equal(t, e.clean(), got[i])
	}
	_, err = NewFolder(dir)
	require.ErrorIs(t, err, os.ErrExist)
	require.ErrorContains(t, err, "holds a run already")
	folder.Emit(Event{Type: Note})
	require.ErrorIs(t, folder.Close(), os.ErrClosed, "an event that was lost is told")
}

func TestFolderTakesEventsOfManyAtOnce(t *testing.T) {
	folder, err := NewFolder(t.TempDir())
	require.NoError(t, err)
	sink := Multi(folder, Terminal(io.Discard, TerminalOptions{Live: true}), &Recording{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				sink.Emit(Event{Type: StepStarted, Name: "x"})
				sink.Emit(Event{Type: StepEnded, Name: "x", Result: Passed, Detail: strings.Repeat("long ", 2000)})
			}
		})
	}
	all.Wait()
	require.NoError(t, folder.Close())
	events, err := Read(folder.Dir())
	require.NoError(t, err)
	assert.Len(t, events, 800)
}

func TestReadTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	_, err := Read(dir)
	require.ErrorContains(t, err, "is not a run folder")
	require.NoError(t, os.WriteFile(filepath.Join(dir, eventsFile), []byte("{}\n\n{\"time\":\"torn\n{}\n"), 0o644))
	_, err = Read(dir)
	require.ErrorContains(t, err, eventsFile+":3: ")
	_, err = NewFolder(filepath.Join(dir, eventsFile, "x"))
	require.ErrorContains(t, err, "making run folder: ")
}

func TestCloseRedactsEvidence(t *testing.T) {
	folder, err := NewFolder(t.TempDir())
	require.NoError(t, err)
	secrets := filepath.Join(folder.Evidence(), "cluster-a", "secret.yaml")
	require.NoError(t, os.MkdirAll(filepath.Dir(secrets), 0o755))
	require.NoError(t, os.WriteFile(secrets, []byte("kind: Secret\ndata:\n  ca-key.pem: "+strings.Join(keys(t).base64, "\n")+"\n"), 0o600))
	plain := filepath.Join(folder.Evidence(), "plain.txt")
	require.NoError(t, os.WriteFile(plain, []byte("nothing to see\n"), 0o644))
	link := filepath.Join(folder.Evidence(), "link")
	require.NoError(t, os.Symlink("/etc/passwd", link))
	require.NoError(t, folder.Close())
	got, err := os.ReadFile(secrets)
	require.NoError(t, err)
	assert.Equal(t, "kind: Secret\ndata:\n  ca-key.pem: [redacted]\n", string(got))
	got, err = os.ReadFile(plain)
	require.NoError(t, err)
	assert.Equal(t, "nothing to see\n", string(got))
	_, err = os.Lstat(link)
	assert.True(t, errors.Is(err, os.ErrNotExist))
}

func TestWrap(t *testing.T) {
	assert.Equal(t, []string{"  ab cd", "  ef"}, wrap("  ab cd ef", 8))
	assert.Equal(t, []string{"überlang"}, wrap("überlang", 3))
	assert.Equal(t, []string{""}, wrap("", 3))
	for place, want := range map[string][3]any{
		"a/b.yaml:22:5": {"a/b.yaml", 22, 5}, "a:22": {"a", 22, 0}, "a": {"a", 0, 0}, "": {"", 0, 0}, "a:b:3": {"a:b", 3, 0},
	} {
		file, line, column := splitPlace(place)
		assert.Equal(t, want, [3]any{file, line, column}, place)
	}
}
