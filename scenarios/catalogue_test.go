package scenarios

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/words"
)

var update = flag.Bool("update", false, "write README.md of the catalogue")

// TestCatalogueIsCurrent holds README.md to the scenario files, to what was measured and to the lesson.
func TestCatalogueIsCurrent(t *testing.T) {
	text := document(load(t), measured(t), lesson(t))
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(text), 0o644))
	}
	current, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.True(t, string(current) == text, "README.md is not what the files say; run `make generate`")
}

// TestMeasurementsAreOfScenarios finds what was renamed or removed since it was measured.
func TestMeasurementsAreOfScenarios(t *testing.T) {
	for name := range measured(t) {
		assert.FileExists(t, filepath.Join(name, "scenario.yaml"), "measured.json has %s: take it out", name)
	}
}

// TestEachChangeRunsWhatThereIs finds what `make test` would no longer run since it was renamed or removed.
func TestEachChangeRunsWhatThereIs(t *testing.T) {
	for _, name := range inEachChange {
		assert.FileExists(t, filepath.Join(name, "scenario.yaml"), "inEachChange has %s: take it out", name)
	}
}

// TestEveryScenarioCanBeExplained holds every step to the files that it names.
func TestEveryScenarioCanBeExplained(t *testing.T) {
	for _, s := range load(t) {
		assert.NoError(t, engine.Explain(io.Discard, s), s.Name)
	}
}

// TestCallsThatMustNotBeLostHaveTime finds streams that may lose nothing and whose calls end early: on a busy machine a
// call takes seconds, and that is not lost.
func TestCallsThatMustNotBeLostHaveTime(t *testing.T) {
	const enough = 15 * time.Second
	for _, s := range load(t) {
		text, err := os.ReadFile(s.File)
		require.NoError(t, err)
		var judged struct {
			Always []struct {
				Calls struct {
					Stream  string `json:"stream"`
					Success struct {
						AtLeast float64 `json:"at-least"`
					} `json:"success"`
					Lost struct {
						AtMost *int `json:"at-most"`
					} `json:"lost"`
				} `json:"calls"`
			} `json:"always"`
		}
		require.NoError(t, yaml.Unmarshal(text, &judged))
		for _, c := range judged.Always {
			if c.Calls.Success.AtLeast < 100 && (c.Calls.Lost.AtMost == nil || *c.Calls.Lost.AtMost > 0) {
				continue
			}
			stream, ok := s.Stream(c.Calls.Stream)
			require.True(t, ok, "%s: %s", s.File, c.Calls.Stream)
			assert.GreaterOrEqual(t, time.Duration(stream.Timeout), enough, "%s: %s: want timeout: %s", stream.Place, stream.Name, enough)
		}
	}
}

// section is a part of the lesson, with the id that scenario files name it by.
type section struct {
	Section    string      `yaml:"section" required:"true" name:"id" doc:"The section's id."`
	Title      string      `yaml:"title" required:"true" doc:"The section's title."`
	Statements []statement `yaml:"statements" required:"true" doc:"What the section claims."`
}

// statement is one claim of the lesson and what the lab makes of it.
type statement struct {
	ID       string   `yaml:"id" required:"true" name:"id" doc:"The statement's id."`
	Says     string   `yaml:"says" required:"true" doc:"The claim, in our own words."`
	Verdict  verdict  `yaml:"verdict" required:"true" enum:"holds,partly,disproved,unproven" doc:"What the lab makes of it."`
	Evidence string   `yaml:"evidence" doc:"Why the verdict is not holds."`
	ProvenBy []string `yaml:"proven-by" doc:"Each a scenario, a folder with a test (folder TestName) or a bench command."`
}

// lessonFormat is what lesson.yaml is.
var lessonFormat = strict.Format{
	Name: "lesson", Fields: "a list of sections", File: "lesson.yaml",
	Begin: "take it from the history", Shrink: "check that this is the lesson",
	Forms: map[string]strict.Form{"id": {
		Pattern: regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`), What: "an id", Wanted: "small letters, digits and hyphens",
	}},
}

type verdict string

const (
	holds     verdict = "holds"
	partly    verdict = "partly"
	disproved verdict = "disproved"
	unproven  verdict = "unproven"
)

// TestLessonIsProven holds lesson.yaml to what there is: sections that scenarios teach, scenarios, tests and
// measurements that prove what it says.
func TestLessonIsProven(t *testing.T) {
	sections := lesson(t)
	known, ids := map[string]bool{}, map[string]bool{}
	for _, part := range sections {
		assert.False(t, known[part.Section], "the section %s is there twice", part.Section)
		known[part.Section] = true
		proofs := 0
		for _, s := range part.Statements {
			at := part.Section + ": " + s.ID
			assert.False(t, ids[s.ID], "%s is there twice", at)
			ids[s.ID] = true
			assert.True(t, s.Verdict == holds || s.Evidence != "", "%s is %s, and nothing says why", at, s.Verdict)
			assert.Equal(t, s.Verdict == unproven, len(s.ProvenBy) == 0, "%s is %s, with %d proofs", at, s.Verdict, len(s.ProvenBy))
			for _, by := range s.ProvenBy {
				assert.NoError(t, there(by), at)
			}
			proofs += len(s.ProvenBy)
		}
		assert.NotZero(t, proofs, "nothing proves anything of %s", part.Section)
	}
	for _, s := range load(t) {
		for _, id := range s.Lesson {
			assert.True(t, known[id], "%s: lesson: %s is no section of lesson.yaml", s.File, id)
		}
	}
}

// there looks for a proof in the sources.
func there(proof string) error {
	where, what, found := strings.Cut(proof, " ")
	if !found {
		if _, err := os.Stat(filepath.Join(where, "scenario.yaml")); err != nil {
			return fmt.Errorf("there is no scenario %s", where)
		}
		return nil
	}
	dir, wanted := filepath.Join("..", where), regexp.MustCompile(`(?m)^func `+regexp.QuoteMeta(what)+`\(t \*testing\.T\)`)
	if where == "bench" {
		dir, wanted = filepath.Join("..", "lab", "cmd", "eastwest"), regexp.MustCompile(`Use: +"`+regexp.QuoteMeta(what)+`["\s]`)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if wanted.Match(text) {
			return nil
		}
	}
	return fmt.Errorf("there is no %s in %s", what, dir)
}

func lesson(t *testing.T) []section {
	t.Helper()
	text, err := os.ReadFile("lesson.yaml")
	require.NoError(t, err)
	var sections []section
	require.NoError(t, strict.Read("lesson.yaml", text, &lessonFormat, &sections))
	require.NotEmpty(t, sections)
	return sections
}

func measured(t *testing.T) catalogue.Measurements {
	t.Helper()
	m, err := catalogue.ParseMeasurements("measured.json", Measured)
	require.NoError(t, err)
	return m
}

// load loads the catalogue, sorted by name.
func load(t *testing.T) []*scenario.Scenario {
	t.Helper()
	files, err := filepath.Glob("*/scenario.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all []*scenario.Scenario
	var problems []error
	for _, file := range files {
		s, err := scenario.Load(file, verb.Table())
		problems = append(problems, err)
		all = append(all, s)
	}
	require.NoError(t, errors.Join(problems...))
	return all
}

const none = "–"

// document is README.md.
func document(all []*scenario.Scenario, times catalogue.Measurements, sections []section) string {
	var b strings.Builder
	b.WriteString(`# Scenarios

<!-- Written by ` + "`make generate`" + ` from the scenario files, measured.json and lesson.yaml. -->

Run one with ` + "`eastwest run NAME`" + `, read its plan with ` + "`eastwest explain NAME`" + `, run all with ` + "`go test ./scenarios/...`" + `.

Blast radius is which calls are lost: none, inside a cluster, one way across the border, both ways. Each run proves it, and
that all other calls go on. What breaks at the next restart or renewal only stands behind "later".

Times are of a machine with 2 CPUs, one scenario at a time on a live lab (` + "`eastwest bench scenarios --lanes 1`" + `), from the proof of
health before it to the mesh put back.

| scenario | what happens | topology | of the lesson | blast radius | time | reproduced with |
| --- | --- | --- | --- | --- | ---: | --- |
`)
	for _, s := range all {
		var parts []string
		for _, part := range s.Lesson {
			parts = append(parts, fmt.Sprintf("[%s](#%[1]s)", part))
		}
		took, with := none, none
		if m, ok := times[s.Name]; ok {
			took, with = fmt.Sprintf("%.1f s", m.Seconds), fmt.Sprintf("Istio %s, Envoy %s", m.Istio, m.Envoy)
		}
		row(
			&b,
			fmt.Sprintf("[%s](%[1]s/scenario.yaml)", s.Name),
			s.Title,
			topology(s),
			cmp.Or(strings.Join(parts, ", "), none),
			radius(s),
			took,
			with,
		)
	}
	b.WriteString(`
## The lesson, statement by statement

`)
	count := map[verdict]int{}
	for _, part := range sections {
		for _, s := range part.Statements {
			count[s.Verdict]++
		}
	}
	fmt.Fprintf(
		&b,
		"%d statements hold, %d in part, %d are disproved, %d are not tried here.\n",
		count[holds],
		count[partly],
		count[disproved],
		count[unproven],
	)
	for _, part := range sections {
		fmt.Fprintf(
			&b,
			"\n### %s\n\n%s.\n\n| the lesson says | verdict | evidence | proven by |\n| --- | --- | --- | --- |\n",
			part.Section,
			part.Title,
		)
		for _, s := range part.Statements {
			var by []string
			for _, proof := range s.ProvenBy {
				by = append(by, link(proof))
			}
			row(&b, s.Says, string(s.Verdict), cmp.Or(s.Evidence, none), cmp.Or(strings.Join(by, ", "), none))
		}
	}
	return b.String()
}

func row(b *strings.Builder, cells ...string) { b.WriteString(words.Row(cells...)) }

func link(proof string) string {
	where, what, found := strings.Cut(proof, " ")
	switch {
	case !found:
		return fmt.Sprintf("[%s](%[1]s/scenario.yaml)", proof)
	case where == "bench":
		return "`eastwest " + proof + "`"
	}
	return fmt.Sprintf("[%s](../%s) `%s`", where, where, what)
}

func topology(s *scenario.Scenario) string {
	t := s.Topology
	words := slices.DeleteFunc([]string{string(t.Kind), string(t.Network), string(t.Trust)}, func(w string) bool { return w == "" })
	if t.Kind == "" {
		words = slices.Insert(words, 0, strings.Join(t.Clusters(), ", "))
	}
	if t.MultiRoot {
		words = append(words, "multi-root")
	}
	if t.CertificateLifetime > 0 {
		words = append(words, "certificates for "+t.CertificateLifetime.String())
	}
	return strings.Join(words, ", ")
}

func radius(s *scenario.Scenario) string {
	var parts []string
	if len(s.Radius) > 0 {
		parts = append(parts, strings.Join(s.Radius, ", "))
	}
	if l := s.Later; l != nil {
		parts = append(parts, fmt.Sprintf("later (%s): %s", l.When, cmp.Or(strings.Join(l.Radius, ", "), "see there")))
	}
	return cmp.Or(strings.Join(parts, "; "), none)
}

// TestEmbeddedIsWhole: what the command carries is what lies here.
func TestEmbeddedIsWhole(t *testing.T) {
	files, err := fs.Glob(Files, "*/scenario.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(load(t)))
}
