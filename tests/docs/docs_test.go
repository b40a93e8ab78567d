// Package docs runs the commands that the documents show and compares what they print with what is
// printed there. It needs root and a bundle for the README's walk; the rest runs anywhere.
package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

const root = "../.."

// shown is a command of a document with the output that is printed below it.
type shown struct {
	command string
	output  []string
}

// console returns what the ```console blocks of a document show: lines that begin with "$ " are
// commands, what follows is their output, and a line "…" stands for any lines.
func console(t *testing.T, document string) []shown {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, document))
	require.NoError(t, err)
	var all []shown
	inside := false
	for _, line := range strings.Split(string(text), "\n") {
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			all = append(all, shown{command: command})
		case inside && len(all) > 0:
			all[len(all)-1].output = append(all[len(all)-1].output, line)
		}
	}
	require.NotEmpty(t, all, "%s shows no commands", document)
	return all
}

// What differs from run to run: numbers, the names of pods, how wide a column is.
var (
	podName = regexp.MustCompile(`-[0-9a-f]{8,10}-[0-9a-z]{5}\b`)
	hex     = regexp.MustCompile(`\b[0-9A-F]{2}(:[0-9A-F]{2})+\b`)
	number  = regexp.MustCompile(`\d+(\.\d+)?m?s?`)
	spaces  = regexp.MustCompile(`\s+`)
)

func normal(line string) string {
	line = podName.ReplaceAllString(line, "-POD")
	line = hex.ReplaceAllString(line, "HEX")
	line = number.ReplaceAllString(line, "N")
	return strings.TrimSpace(spaces.ReplaceAllString(line, " "))
}

// same tells whether the output is as shown, where "…" stands for any number of lines.
func same(wanted, seen []string) bool {
	for len(wanted) > 0 && normal(wanted[len(wanted)-1]) == "" {
		wanted = wanted[:len(wanted)-1]
	}
	for len(seen) > 0 && normal(seen[len(seen)-1]) == "" {
		seen = seen[:len(seen)-1]
	}
	if len(wanted) == 0 {
		return len(seen) == 0
	}
	if wanted[0] == "…" {
		for i := 0; i <= len(seen); i++ {
			if same(wanted[1:], seen[i:]) {
				return true
			}
		}
		return false
	}
	return len(seen) > 0 && normal(wanted[0]) == normal(seen[0]) && same(wanted[1:], seen[1:])
}

func TestSame(t *testing.T) {
	require.True(t, same([]string{"a 1.5s", "…", "z", ""}, []string{"a  22s", "b", "c", "z"}))
	require.False(t, same([]string{"a", "…", "z"}, []string{"a", "b", "y"}))
	require.False(t, same([]string{"a"}, []string{"a", "b"}))
	require.False(t, same([]string{"a", "b"}, []string{"a"}))
}

func TestReadmeWalk(t *testing.T) {
	home := labs.Need(t)
	_, err := labs.BuildCommand()
	require.NoError(t, err)
	t.Cleanup(func() { _ = lab.Down(context.Background(), home, lab.DefaultName) })
	_ = lab.Down(t.Context(), home, lab.DefaultName) // the walk begins with nothing

	walk := console(t, "README.md")
	const mark = "@@@@ "
	var script strings.Builder
	for _, s := range walk {
		script.WriteString("echo '" + mark + "'\n" + s.command + "\n")
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "KUBECONFIG=/nonexistent")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	parts := strings.Split(string(out), mark+"\n")[1:]
	require.Len(t, parts, len(walk))
	for i, s := range walk {
		seen := strings.Split(parts[i], "\n")
		require.True(t, same(s.output, seen), "$ %s\nthe README shows:\n%s\nseen:\n%s", s.command, strings.Join(s.output, "\n"), parts[i])
	}
}

// mention is a command line in a document, in code spans and blocks alike.
var mention = regexp.MustCompile("(?m)(?:bin/)?eastwest ((?:[a-z][a-z-]*)(?: [^`|\n#]*)?)|(?:^|`)make ([a-z]+)")

// subcommand is a word that may be a command: no flag, no FILE, no name with dashes or dots in it.
var subcommand = regexp.MustCompile("^[a-z]+$")

func TestMentionedCommandsExist(t *testing.T) {
	eastwest, err := labs.BuildCommand()
	require.NoError(t, err)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, document := range []string{"README.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(filepath.Join(root, document))
		require.NoError(t, err)
		for _, block := range regexp.MustCompile("(?s)```.*?```|`[^`\n]+`").FindAllString(string(text), -1) {
			for _, m := range mention.FindAllStringSubmatch(block, -1) {
				if m[2] != "" {
					require.Contains(t, string(makefile), "\n"+m[2]+":", "%s: make %s", document, m[2])
					continue
				}
				words := strings.Fields(m[1])
				path := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !subcommand.MatchString(w) })
				out, err := exec.CommandContext(t.Context(), eastwest, append(path, "--help")...).CombinedOutput()
				require.NoError(t, err, "%s: eastwest %s\n%s", document, m[1], out)
				for _, word := range words {
					if flag, _, _ := strings.Cut(word, "="); strings.HasPrefix(flag, "--") {
						require.Contains(t, string(out), flag, "%s: eastwest %s", document, m[1])
					}
				}
			}
		}
	}
}
