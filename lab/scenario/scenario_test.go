package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// A vocabulary that has every type and tag once. The verbs do nothing: this package never runs one.
type bounded struct {
	AtLeast *strict.Percent `yaml:"at-least" doc:"Least success."`
	AtMost  *strict.Percent `yaml:"at-most" doc:"Most success."`
}

func (b bounded) Validate() error {
	if b.AtLeast != nil && b.AtMost != nil && *b.AtLeast > *b.AtMost {
		return strict.At("at-least", errors.New("more than at-most"))
	}
	return nil
}

type calls struct {
	Place      strict.Place    `yaml:"-"`
	Stream     string          `yaml:"stream" ref:"stream" required:"true" doc:"Which stream."`
	Success    *bounded        `yaml:"success" doc:"Success in percent."`
	For        strict.Duration `yaml:"for" doc:"How long."`
	LongestGap strict.Duration `yaml:"longest-gap" max:"1m" doc:"Longest time without an answer."`
}

type components []string

var vocabulary = Vocabulary{
	{"apply", "Applies a manifest.", []Phase{Break, Operate, Recover, WrongFixes}, func() any {
		return new(struct {
			In        strict.List[string] `yaml:"in" ref:"cluster" required:"true" doc:"Where."`
			File      string              `yaml:"file" ref:"file" required:"true" doc:"Manifest beside the scenario."`
			Namespace string              `yaml:"namespace" ref:"namespace" doc:"Where in the cluster."`
		})
	}},
	{"block-port", "Drops packets to a port.", []Phase{Break}, func() any {
		return new(struct {
			Of    string `yaml:"of" ref:"cluster" required:"true" doc:"Whose port."`
			Port  uint16 `yaml:"port" required:"true" min:"1" doc:"TCP port."`
			Ratio *int   `yaml:"ratio" min:"1" max:"9" doc:"One in how many."`
		})
	}},
	{"calls", "Judges the calls of a stream.", []Phase{Symptoms, Healthy, Always}, func() any { return new(calls) }},
	{"log", "Looks for a line in a log.", []Phase{Symptoms, Healthy, Diagnose}, func() any {
		return new(struct {
			App     App            `yaml:"app" ref:"app" required:"true" doc:"Whose log."`
			Matches *regexp.Regexp `yaml:"matches" required:"true" doc:"What the line says."`
			Absent  bool           `yaml:"absent" doc:"There is no such line."`
		})
	}},
	{"patch", "Merges a patch into an object.", []Phase{Break, Operate, Recover, WrongFixes}, func() any {
		return new(struct {
			In     strict.List[string] `yaml:"in" ref:"cluster" required:"true" doc:"Where."`
			Labels map[string]string   `yaml:"labels" doc:"Labels to set."`
			Merge  any                 `yaml:"merge" required:"true" doc:"The patch."`
		})
	}},
	{"remote-clusters", "Asks istiod for its remote clusters.", []Phase{Symptoms, Healthy, Diagnose}, func() any {
		return new(struct {
			Istiod string            `yaml:"istiod" ref:"cluster" required:"true" doc:"Whose istiod."`
			Expect map[string]string `yaml:"expect" keys:"cluster" enum:"synced,timeout,absent" required:"true" doc:"State per cluster."`
		})
	}},
	{"restart", "Restarts components.", []Phase{Break, Operate, Recover, WrongFixes}, func() any {
		return new(struct {
			In         strict.List[string] `yaml:"in" ref:"cluster" doc:"Where; everywhere without it."`
			Components components          `yaml:"components" enum:"istiod,gateway,apps" doc:"Which; all without it."`
			Services   []string            `yaml:"services" ref:"service" doc:"Which apps."`
		})
	}},
}

const minimal = `scenario: one
title: t
why: w
topology: {kind: multi-primary}
apps: [client@cluster-a, echo@cluster-b]
traffic:
  away: {from: client@cluster-a, to: echo@cluster-b, every: 50ms}
`

// golden compares got with the file, or rewrites the file with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "no golden file: run go test ./lab/scenario -update and read what it wrote")
	assert.Equal(t, string(want), got)
}

func fixtures(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

func TestGoodFiles(t *testing.T) {
	for _, file := range fixtures(t, "testdata/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := Load(file, vocabulary)
			require.NoError(t, err)
			got, err := json.MarshalIndent(s, "", "  ")
			require.NoError(t, err)
			golden(t, file+".golden", string(got)+"\n")
		})
	}
}

func TestBadFiles(t *testing.T) {
	for _, file := range fixtures(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := Load(file, vocabulary)
			assert.Nil(t, s)
			var problems *strict.Problems
			require.ErrorAs(t, err, &problems)
			golden(t, file+".golden", err.Error()+"\n")
			for i, p := range problems.List {
				assert.Positive(t, p.Place.Line, p)
				assert.Positive(t, p.Place.Column, p)
				if i > 0 {
					assert.GreaterOrEqual(t, p.Place.Line, problems.List[i-1].Place.Line, "sorted")
				}
			}
		})
	}
}

func TestPhasesInOrder(t *testing.T) {
	s, err := Load("testdata/good/full.yaml", vocabulary)
	require.NoError(t, err)
	var got []string
	for _, p := range s.Phases() {
		assert.Positive(t, p.Place.Line)
		line := fmt.Sprintf("%s %d", p.Phase, len(p.Steps))
		if p.Fix != nil {
			line += " " + p.Fix.Fix
		}
		if p.Within > 0 {
			line += " within " + p.Within.String()
		}
		got = append(got, line)
	}
	assert.Equal(
		t,
		[]string{"break 3", "symptoms 2 within 45s", "diagnose 2", "wrong-fixes 1 restart istiod only", "wrong-fixes 1 restart everything",
			"recover 2", "healthy 1 within 1m", "always 1"},
		got,
	)
	args, ok := s.Symptoms.Expect[0].Args.(*calls)
	require.True(t, ok)
	assert.Equal(t, s.Symptoms.Expect[0].Place.Line, args.Place.Line, "arguments know their place")
	stream, ok := s.Stream("away")
	assert.True(t, ok)
	assert.Equal(t, Fresh, stream.Connections, "the default")
	_, ok = s.Stream("nowhere")
	assert.False(t, ok)
}

// The first bad byte, after text whose characters have more than one byte.
func TestNotText(t *testing.T) {
	for text, want := range map[string]string{
		"a: é\nb: é\xff":       "x.yaml:2:5: the file is not UTF-8 text",
		"\xff\xfes\x00":        "x.yaml:1:1: the file is not UTF-8 text",
		"a: b\r\nc: \x00":      "x.yaml:2:4: a control character",
		"a: b\rc: \x1b":        "x.yaml:2:4: a control character",
		"\uFEFFa: \x01":        "x.yaml:1:4: a control character",
		"":                     "x.yaml:1:1: the file is empty",
		"# only a comment\n":   "x.yaml:1:1: the file is empty",
		"---\n":                "x.yaml:1:1: the file is empty",
		"\uFEFF":               "x.yaml:1:1: the file is empty",
		"just text":            "x.yaml:1:1: not a scenario",
		"- a\n- b\n":           "x.yaml:1:1: not a scenario",
		"? [a, b]\n: c\n":      "x.yaml:1:3: a field without a name",
		"a: b\n---\nc: d\n":    "x.yaml:2:1: a second YAML document",
		"a: [1, 2\nb: c\n":     "x.yaml:2:2: not YAML: did not find expected ',' or ']'",
		"a: b: c\n":            "x.yaml:1:5: not YAML: mapping values are not allowed in this context",
		"a:\n\tb: c\n":         "x.yaml:2:1: not YAML: found character that cannot start any token",
		"a: *b\n":              "x.yaml:1:4: not YAML: unknown anchor 'b' referenced",
		"a: &b 1\nc: *b\n":     "x.yaml:1:4: the anchor &b",
		"a: &b\n- *b\n":        "x.yaml:2:3: the alias *b",
		"a: !!binary aGk=\n":   "x.yaml:1:4: the tag !!binary",
		"<<: {title: x}\n":     "x.yaml:1:1: the merge key <<",
		"a: !mine {b: c}\n":    "x.yaml:1:4: the tag !mine",
		"%YAML 1.1\n--- \n[]":  "x.yaml:3:1: not a scenario",
		"title: a\ntitle: b\n": "x.yaml:2:1: \"title\" twice",
	} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(text), vocabulary)
			var problems *strict.Problems
			require.ErrorAs(t, err, &problems)
			var heads []string
			for _, p := range problems.List {
				heads = append(heads, fmt.Sprintf("%s: %s", p.Place, p.What))
			}
			assert.Contains(t, heads, want)
		})
	}
}

// Files that are made to hurt: each is refused quickly and within little memory.
func TestBombs(t *testing.T) {
	for name, text := range map[string]string{
		"flow":        strings.Repeat("[", 300_000),
		"flow closed": strings.Repeat("[", 300_000) + strings.Repeat("]", 300_000),
		"block":       strings.Repeat("- ", 300_000) + "x",
		"mappings":    strings.Repeat("{a: ", 200_000),
		"lines":       deepLines(1000),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("x.yaml", []byte(text), vocabulary)
			require.ErrorContains(t, err, "max depth")
			require.ErrorContains(t, err, "x.yaml:")
			assert.Less(t, time.Since(start), 5*time.Second)
		})
	}
	_, err := Parse("x.yaml", []byte(strings.Repeat("ab: {}\n", 140_000)), vocabulary)
	require.ErrorContains(t, err, "more problems", "the text has an end")
	laughs := "a: &a [x, x, x, x]\n"
	for c := 'b'; c < 'j'; c++ {
		laughs += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1)
	}
	_, err = Parse("x.yaml", []byte(laughs), vocabulary)
	require.ErrorContains(t, err, "the anchor &a")
}

func deepLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

func TestTooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "scenario.yaml")
	f, err := os.Create(file)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(10<<20))
	require.NoError(t, f.Close())
	_, err = Load(file, vocabulary)
	require.EqualError(t, err, file+`:1:1: the file is too large
  wanted  at most 1048576 bytes
  seen    10485760 bytes
  try     put manifests into files beside the scenario, and check that this is a scenario at all`)
	_, err = Parse("x.yaml", make([]byte, strict.MaxSize+1), vocabulary)
	require.ErrorContains(t, err, "too large")
}

func TestWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.yaml"), vocabulary)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "reading scenario: ")
	_, err = Load(dir, vocabulary)
	require.ErrorContains(t, err, "is not a file")
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err = Load(pipe, vocabulary)
	require.ErrorContains(t, err, "is not a file", "and nobody waits for a writer")
}

func TestNameOfTheFolder(t *testing.T) {
	text := minimal + "operate: []\nhealthy: {within: 1s, expect: [{calls: {stream: away}}]}\n"
	for folder, ok := range map[string]bool{"one": true, "other": false} {
		dir := filepath.Join(t.TempDir(), folder)
		require.NoError(t, os.Mkdir(dir, 0o755))
		file := filepath.Join(dir, "scenario.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		_, err := Load(file, vocabulary)
		if ok {
			require.NoError(t, err)
			t.Chdir(dir) // a path without a folder in it has one all the same
			_, err = Load("scenario.yaml", vocabulary)
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, file+`:1:1: the scenario is not named like its folder
  wanted  other
  seen    one
  try     rename one of the two: eastwest run finds a scenario by its folder`)
	}
}

func TestFilesBesideTheScenario(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "one")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("manifest.yaml", "kind: Namespace\nmetadata:\n  name: shop\n---\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: till\n")
	write("sub/policy.yaml", "")
	write("../secret.yaml", "")
	require.NoError(t, os.Symlink("../secret.yaml", filepath.Join(dir, "link.yaml")))
	load := func(args string) error {
		write("scenario.yaml", minimal+"operate:\n- apply: {in: cluster-a, "+args+"}\nalways: [{calls: {stream: away}}]\n")
		_, err := Load(filepath.Join(dir, "scenario.yaml"), vocabulary)
		return err
	}
	require.NoError(t, load("file: manifest.yaml"))
	require.NoError(t, load("file: sub/policy.yaml"))
	require.NoError(t, load("file: manifest.yaml, namespace: shop"), "a manifest makes it")
	require.NoError(t, load("file: manifest.yaml, namespace: till"), "a manifest speaks of it")
	require.NoError(t, load("file: manifest.yaml, namespace: istio-system"))
	require.ErrorContains(t, load("file: manifest.yaml, namespace: istio-systen"), "did you mean istio-system?")
	require.ErrorContains(t, load("file: manifest.yaml, namespace: Shop_1"), "not a namespace")
	require.ErrorContains(t, load("file: manifests.yaml"), "did you mean manifest.yaml?")
	require.ErrorContains(t, load("file: sub"), "no such file")
	for _, escape := range []string{"../secret.yaml", "/etc/passwd", "sub/../../secret.yaml", ".", `"a\\b"`} {
		require.ErrorContains(t, load("file: "+escape), "not a file of the scenario's folder")
	}
	require.ErrorContains(t, load("file: link.yaml"), "no such file", "a link that leads out")
}

// Manifests beside the scenario say which namespaces there are, however they are written.
func TestNamespacesOfManifests(t *testing.T) {
	for manifest, want := range map[string][]string{
		"kind: ConfigMap\nmetadata: {name: x, namespace: half}\n":                                  {"half"},
		"kind: Namespace\nmetadata: {name: shop}\n---\nkind: Service\nmetadata:\n  name: till\n":   {"shop"},
		"metadata:\n  labels: {a: b}\n  name: shop\nkind: Namespace\n":                             {"shop"},
		"kind: List\nitems:\n- kind: Namespace\n  metadata:\n    name: shop\n":                     {"shop"},
		`{"kind": "Namespace", "metadata": {"name": "shop"}}`:                                      {"shop"},
		"kind: RoleBinding\nsubjects:\n- {kind: ServiceAccount, name: default, namespace: half}\n": {"half"},
		"kind: ConfigMap\nmetadata: {name: x}\ndata:\n  text: |\n    namespace: not-meant\n":       nil,
		"# namespace: not-meant\nkind: Namespace\nmetadata:\n  # name: not-meant\n  name: shop\n":  {"shop"},
		"metadata: &m {namespace: half}\nspec: {template: {metadata: *m}}\n":                       {"half"},
		"kind: Namespace\nmetadata: [a]\nnamespace: {a: b}\n---\n---\n7\n":                         nil,
		"a: [": nil,
	} {
		dir := filepath.Join(t.TempDir(), "one")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "m.yaml"), []byte(manifest), 0o644))
		var known []string
		for _, name := range []string{"half", "shop", "till", "not-meant", "default"} {
			text := minimal + "operate:\n- apply: {in: cluster-a, file: m.yaml, namespace: " + name + "}\nalways: [{calls: {stream: away}}]\n"
			require.NoError(t, os.WriteFile(filepath.Join(dir, "scenario.yaml"), []byte(text), 0o644))
			if _, err := Load(filepath.Join(dir, "scenario.yaml"), vocabulary); err == nil {
				known = append(known, name)
			} else {
				require.ErrorContains(t, err, "unknown namespace")
			}
		}
		require.Equal(t, append(want, "default"), known, manifest)
	}
}

// What has the wrong shape is shown in the right one.
func TestAdvice(t *testing.T) {
	table := append(Vocabulary{}, vocabulary...)
	table = append(table, Verb{"restart-istiod", "Restarts istiod.", []Phase{Break}, func() any {
		return new(struct {
			In strict.List[string] `yaml:"in" ref:"cluster" required:"true" doc:"Where."`
		})
	}})
	slices.SortFunc(table, func(a, b Verb) int { return strings.Compare(a.Name, b.Name) })
	for text, want := range map[string]string{
		"topology: multi-primry":               "topology: {kind: multi-primary}",
		"break: [restart: istiod]":             "did you mean restart-istiod: {in: cluster-a}?",
		"break: [restart-istiod: cluster-a]":   "restart-istiod: {in: cluster-a}",
		"break: [restart-istiod]":              "- restart-istiod: {in: cluster-a}",
		"break: [restart-istiod: [cluster-a]]": "restart-istiod: {in: [cluster-a]}",
		"symptoms: [restart: {}]": "symptoms:\n  within: 30s  # How long the checks may take to hold, all together\n  " +
			"expect: [ … ]  # The checks",
		"apps: client@cluster-a": "put it into a list: [client@cluster-a]",
		"break: {restart: {}}":   "put it into a list: [ … ]",
		"wrong-fixes: [restart]": "- fix: …  # What people try, in a few words\n  why: …  # Why people try it and why it " +
			"cannot work\n  do: [ … ]  # The steps of the wrong fix",
		"title: t\n\twhy: w": "indent with spaces, never with tabs",
		"title:\n\t- a":      "indent with spaces, never with tabs",
		"title: @a":          "put a text that starts with a special character into quotes",
	} {
		_, err := Parse("x.yaml", []byte("scenario: one\n"+text+"\n"), table)
		var problems *strict.Problems
		require.ErrorAs(t, err, &problems, text)
		var tries []string
		for _, p := range problems.List {
			tries = append(tries, p.Try)
		}
		assert.Contains(t, tries, want, text)
	}
}

// What a misspelled field means is neither missing, nor are the names in it unknown.
func TestASlipIsOneProblem(t *testing.T) {
	text := strings.NewReplacer("traffic:", "trafic:", "title:", "titel:").
		Replace(minimal) +
		"operate: []\nalways: [{calls: {stream: away}}]\n"
	_, err := Parse("x.yaml", []byte(text), vocabulary)
	var problems *strict.Problems
	require.ErrorAs(t, err, &problems)
	var heads []string
	for _, p := range problems.List {
		heads = append(heads, p.What)
	}
	require.Equal(t, []string{`unknown field "titel"`, `unknown field "trafic"`}, heads)
}

func TestBreakHasSteps(t *testing.T) {
	_, err := Parse(
		"x.yaml",
		[]byte(
			minimal+"break: []\nrecover: []\nsymptoms: {within: 1s, expect: [{calls: {stream: away}}]}\nhealthy: {within: 1s, expect: "+
				"[{calls: {stream: away}}]}\n",
		),
		vocabulary,
	)
	require.ErrorContains(t, err, "x.yaml:8:8: break: too few\n  wanted  at least 1\n  seen    0")
}

// compile returns a validator of the schema: what an editor would use.
func compile(t *testing.T, schema func() ([]byte, error)) *jsonschema.Schema {
	t.Helper()
	text, err := schema()
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	require.NoError(t, c.AddResource("schema.json", doc))
	s, err := c.Compile("schema.json")
	require.NoError(t, err)
	return s
}

// validate is what an editor says of the file.
func validate(t *testing.T, schema *jsonschema.Schema, file string) error {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var v any
	if err := yaml.Load(data, &v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err // .inf and .nan, which JSON cannot hold
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return schema.Validate(doc)
}

func TestSchemaAgreesWithTheLoader(t *testing.T) {
	schema := compile(t, func() ([]byte, error) { return Schema(vocabulary) })
	for _, file := range fixtures(t, "testdata/good/*.yaml") {
		require.NoError(t, validate(t, schema, file), file)
	}
	// One slip at a time, in a file that is good otherwise: both see it.
	full, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	manifest, err := os.ReadFile("testdata/good/manifest.yml")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifest.yml"), manifest, 0o644))
	slip := filepath.Join(dir, "slip.yaml")
	for _, c := range [][2]string{ // the text, and what it becomes
		{"title: ", "titel: "}, {"why: |", "why: |\nextra: |"}, {"kind: multi-primary", "kind: multi"}, {"network: separate, ",
			"networks: separate, "},
		{"lifetime: 10m", "lifetime: 10"}, {"client@cluster-a, echo@cluster-a,", "client@cluster-a, 7,"}, {"apps: [client@cluster-a",
			"apps: [Client@cluster-a"},
		{"every: 50ms, connections: reused", "every: 50, connections: reused"}, {"connections: reused", "connections: pooled"},
		{"from: client@cluster-a, to: echo,", "to: echo,"},
		{"  home: {", "  Home_: {"}, {"in: [cluster-a, cluster-b]", "in: [cluster-a, cluster-a]"}, {"in: [cluster-a, cluster-b]",
			"in: []"}, {"in: [cluster-a, cluster-b]", "in: Cluster_X"},
		{"port: 15443", "port: -1"}, {"port: 15443", "port: '15443'"}, {"ratio: 3", "ratio: 10"}, {"labels: {a: \"1\"}", "labels: {a: 1}"},
		{"    merge: ", "    merged: "}, {"within: 45s", "within: soon"}, {"at-most: 0}, for: 5s", "at-most: 101}, for: 5s"},
		{"cluster-b: absent}}\n\n", "cluster_b: absent}}\n\n"},
		{"cluster-b: absent}}\n\n", "cluster-b: gone}}\n\n"}, {"absent: true", "absent: yes please"}, {"- remote-clusters:",
			"- restart:"}, {"- restart:\n  still", "- {}\n  still"},
		{"- restart:\n  still", "- restart:\n    calls: {stream: home}\n  still"}, {"- apply: ", "- aply: "}, {"components: istiod",
			"components: pilot"}, {"components: istiod", "components: {}"},
		{"recover:", "operate:"}, {"healthy:\n  within: 1m\n", "healthy:\n"}, {"- fix: restart istiod only\n",
			"- how: restart istiod only\n"}, {"symptoms:", "diagnosis:"},
		{"scenario: remote-secret-revoked", "scenario: Remote Secret"}, {"hints:\n- Ask", "hints:\n  Ask"},
	} {
		text := strings.Replace(string(full), c[0], c[1], 1)
		require.NotEqual(t, string(full), text, "nothing to replace: %q", c[0])
		require.NoError(t, os.WriteFile(slip, []byte(text), 0o644))
		_, err := Load(slip, vocabulary)
		var problems *strict.Problems
		assert.ErrorAs(t, err, &problems, c[1])
		assert.Error(t, validate(t, schema, slip), "the schema takes %q", c[1])
	}
	// What only the loader can know: names in this scenario, files, duplicate keys, ranges of versions, Validate methods.
	only := map[string]bool{"names.yaml": true, "plain.yaml": true, "rules.yaml": true, "versions-of-istio.yaml": true}
	for _, file := range fixtures(t, "testdata/bad/*.yaml") {
		if !only[filepath.Base(file)] {
			require.Error(t, validate(t, schema, file), file)
		}
	}
}

// Every property in the schema says what it is: editors show it on hover.
func TestSchemaDescribesEverything(t *testing.T) {
	text, err := Schema(vocabulary)
	require.NoError(t, err)
	again, err := Schema(vocabulary)
	require.NoError(t, err)
	assert.Equal(t, string(text), string(again), "the same for the same table")
	var root map[string]any
	require.NoError(t, json.Unmarshal(text, &root))
	assert.Equal(t, "http://json-schema.org/draft-07/schema#", root["$schema"])
	definitions, ok := root["definitions"].(map[string]any)
	require.True(t, ok)
	count := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for name, p := range properties {
					count++
					one, ok := p.(map[string]any)
					require.True(t, ok)
					if ref, ok := one["$ref"].(string); ok {
						one, ok = definitions[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
						require.True(t, ok, ref)
					}
					assert.NotEmpty(t, one["description"], path+"/"+name)
				}
			}
			for k, child := range v {
				walk(path+"/"+k, child)
			}
		case []any:
			for _, child := range v {
				walk(path, child)
			}
		}
	}
	walk("", root)
	assert.Greater(t, count, 40)
}

func TestCheckFindsWhatIsWrongWithTheTable(t *testing.T) {
	type loop struct {
		Again []*loop `yaml:"again" doc:"d"`
	}
	table := Vocabulary{
		{"b", "d", []Phase{Break}, func() any { return new(struct{}) }},
		{"a", "", nil, func() any { return 1 }},
		{"C d", "d", []Phase{"brake"}, func() any {
			return new(struct {
				NoTag   string
				NoDoc   string          `yaml:"no-doc"`
				Channel chan int        `yaml:"channel" doc:"d"`
				Numbers map[int]int     `yaml:"numbers" doc:"d"`
				Ref     string          `yaml:"ref" doc:"d" ref:"clutser"`
				Low     int             `yaml:"low" doc:"d" min:"a"`
				Wait    strict.Duration `yaml:"wait" doc:"d" max:"9"`
				Loop    loop            `yaml:"loop" doc:"d"`
				Name    string          `yaml:"name" doc:"d" name:"camel"`
				Most    int             `yaml:"most" doc:"d" most:"3"`
				Least   []int           `yaml:"least" doc:"d" least:"few"`
			})
		}},
	}
	err := table.Check()
	for _, want := range []string{"verb a: stands after b", "verb a: no description", "verb a: may stand in no phase",
		"verb a: New makes no pointer",
		`verb "C d": not a name`, `unknown phase "brake"`, "NoTag: no yaml tag", "NoDoc: no description", "no file can hold chan int",
		"a map whose keys are no texts", `unknown ref "clutser"`, `cannot read min "a"`, `cannot read max "9"`, "contains itself",
		`unknown form of name "camel"`, `cannot read most "3" of a list`, `cannot read least "few" of a list`} {
		require.ErrorContains(t, err, want)
	}
	_, schemaErr := Schema(table)
	require.EqualError(t, schemaErr, err.Error())
	require.NoError(t, vocabulary.Check())
	require.NoError(t, Vocabulary(nil).Check())
}

// A scenario's text is data: whatever stands there, Parse returns, and every problem has a place.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	for _, seed := range []string{"", "\xff", minimal, "a: &a [*a]", "? {a: b}\n: c", "<<: *x", "[[[[", "a: !!int x",
		"break: [{calls: ~}]", "apps: [\"@\", \"a@\", \"@b\"]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("x.yaml", data, vocabulary)
		if err == nil {
			if s.Name == "" || len(s.Break) > 0 && len(s.Operate) > 0 {
				t.Fatalf("accepted: %+v", s)
			}
			s.Phases()
			return
		}
		if s != nil {
			t.Fatalf("a scenario beside problems: %v", err)
		}
		checkProblems(t, err)
	})
}

// checkProblems: every problem has a place.
func checkProblems(t *testing.T, err error) {
	t.Helper()
	var problems *strict.Problems
	if !errors.As(err, &problems) || len(problems.List) == 0 {
		t.Fatalf("not a list of problems: %v", err)
	}
	for _, p := range problems.List {
		if p.Place.Line < 1 || p.Place.Column < 1 || p.What == "" {
			t.Fatalf("a problem without a place: %#v", p)
		}
	}
}
