// Package docs holds the documents to what is true: links lead somewhere, commands that are mentioned exist, generated
// pages are fresh, and commands that are shown with their output print that output.
//
// A ```console block shows commands (lines that begin with "$ ") with their output. A comment in the line before it says what
// becomes of it:
//
//	(none)                    the commands run here, without a lab
//	<!-- needs a lab -->      they run in the lab that the README makes
//	<!-- recorded: REASON --> they do not run; REASON says why
//
// What needs a lab needs root and a bundle; the rest runs anywhere: go test -short ./tests/docs
package docs

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

//go:generate go test . -run IsCurrent -args -update

const (
	module = "github.com/eastwest-lab/eastwest"
	root   = "../.."
	readme = "README.md"
)

// eastwest is the command under test.
var eastwest labs.Command

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

// documents returns the paths of all Markdown files, from the top level.
func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.Type().IsRegular() && strings.HasSuffix(p, ".md"):
			rel, err := filepath.Rel(root, p)
			all = append(all, filepath.ToSlash(rel))
			return err
		}
		return nil
	}))
	require.Contains(t, all, readme)
	return all
}

func read(t *testing.T, document string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, document))
	require.NoError(t, err)
	return string(text)
}

func TestREADMEIsShort(t *testing.T) {
	require.LessOrEqual(t, len(read(t, readme)), 7*1024, "put it into a page of docs/ and link it")
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	span    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	linked  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns what links into a document may name: its headings, in the form that GitHub gives them.
func anchors(text string) []string {
	var all []string
	times := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		title := linked.ReplaceAllString(m[1], "$1")
		slug := strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		if n := times[slug]; n > 0 {
			all = append(all, fmt.Sprintf("%s-%d", slug, n))
		} else {
			all = append(all, slug)
		}
		times[slug]++
	}
	return all
}

func TestAnchors(t *testing.T) {
	require.Equal(t, []string{"a-b-c", "sever-and-others", "a-b-c-1"},
		anchors("# A `b` (c)\n```\n# none\n```\n## [sever](x) and-others\n### a b c\n"))
}

// TestLinksLeadSomewhere follows the links between documents, and from them to files, without network.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, document := range documents(t) {
		text := span.ReplaceAllString(fence.ReplaceAllString(read(t, document), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := document
			if file != "" {
				target = path.Join(path.Dir(document), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links %s: there is no %s", document, m[1], target)
				continue
			}
			if anchor != "" {
				assert.Contains(t, anchors(read(t, target)), anchor, "%s links %s", document, m[1])
			}
		}
	}
}

// mention is a command line in a document, in code spans and blocks alike.
var mention = regexp.MustCompile("(?m)(?:bin/)?eastwest ((?:[a-z][a-z-]*)(?: [^`|\n#]*)?)|(?:^|`)make ([a-z]+)")

// subcommand is a word that may be a command: no flag, no FILE, no name with dashes or dots in it.
var subcommand = regexp.MustCompile("^[a-z]+$")

// TestMentionedCommandsExist looks for each command and each flag that a document mentions, and for each target of make.
func TestMentionedCommandsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	helps := map[string]string{}
	for _, document := range documents(t) {
		if document == "CHANGELOG.md" {
			continue // it is about the past, too
		}
		for _, block := range regexp.MustCompile("(?s)```.*?```|`[^`\n]+`").FindAllString(read(t, document), -1) {
			for _, m := range mention.FindAllStringSubmatch(block, -1) {
				if m[2] != "" {
					assert.Contains(t, makefile, "\n"+m[2]+":", "%s: make %s", document, m[2])
					continue
				}
				words := strings.Fields(m[1])
				commands := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !subcommand.MatchString(w) })
				key := strings.Join(commands, " ")
				if _, asked := helps[key]; !asked {
					out, err := exec.CommandContext(t.Context(), string(eastwest), append(commands, "--help")...).CombinedOutput()
					assert.NoError(t, err, "%s: eastwest %s\n%s", document, m[1], out)
					helps[key] = string(out)
				}
				for _, word := range words {
					if flag, _, _ := strings.Cut(word, "="); strings.HasPrefix(flag, "--") {
						assert.Contains(t, helps[key], flag, "%s: eastwest %s", document, m[1])
					}
				}
			}
		}
	}
}

// TestInsideShowsEveryPackage holds the page about the inside to the packages that there are: each has a row in the table, and
// the rows are in the order of imports, so that a package imports only what comes after it.
func TestInsideShowsEveryPackage(t *testing.T) {
	rows := map[string]int{}
	for i, m := range regexp.MustCompile("(?m)^\\| `(lab[a-z/]*)` \\|").FindAllStringSubmatch(read(t, "docs/inside.md"), -1) {
		rows[m[1]] = i
	}
	for _, name := range packages(t) {
		at, there := rows[name]
		if !assert.True(t, there, "docs/inside.md has no row for %s", name) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(root, name, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, i := range parsed.Imports {
				imported, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/")
				if below, there := rows[imported]; ours && there {
					assert.Greater(t, below, at, "docs/inside.md: %s imports %s and has to come before it", name, imported)
				}
			}
		}
		delete(rows, name)
	}
	assert.Empty(t, rows, "docs/inside.md has rows for packages that are gone")
}

// packages returns the folders below lab that have Go files, from the top level.
func packages(t *testing.T) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "lab"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		files, err := filepath.Glob(filepath.Join(p, "*.go"))
		if err != nil || len(files) == 0 {
			return err
		}
		rel, err := filepath.Rel(root, p)
		all = append(all, filepath.ToSlash(rel))
		return err
	}))
	return all
}
