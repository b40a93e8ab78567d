package docs

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// needs is what a console block needs before it can run.
type needs string

const (
	nothing  needs = ""
	aLab     needs = "a lab"
	recorded needs = "recorded"
)

// shown is a command of a document with the output that is printed below it.
type shown struct {
	command string
	output  []string
}

// block is a ```console block.
type block struct {
	needs needs
	shown []shown
}

var reason = regexp.MustCompile(`^<!-- recorded: \S.* -->$`)

// console returns the console blocks of a document. In output a line "…" stands for any lines, and "…" in a line for any text.
func console(t *testing.T, document string) []block {
	t.Helper()
	var all []block
	kind, before := "", "" // of the block we are in, and the line before it
	for _, line := range strings.Split(read(t, document), "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```") && kind == "":
			if kind = line; kind == "```console" {
				all = append(all, block{needs: needsOf(before)})
			}
		case strings.HasPrefix(line, "```"):
			kind = ""
		case kind == "":
		case kind != "```console":
			require.Falsef(t, isCommand, "%s: a command that is shown with its output belongs into a ```console block: %s", document, line)
		case isCommand:
			b := &all[len(all)-1]
			b.shown = append(b.shown, shown{command: command})
		default:
			b := &all[len(all)-1]
			require.NotEmptyf(t, b.shown, "%s: output without a command: %s", document, line)
			s := &b.shown[len(b.shown)-1]
			s.output = append(s.output, line)
		}
		before = line
	}
	return all
}

func needsOf(comment string) needs {
	switch {
	case comment == "<!-- needs a lab -->":
		return aLab
	case reason.MatchString(comment):
		return recorded
	}
	return nothing
}

// What differs from run to run: times and other numbers, the names of pods, how wide a column is. How many checks and steps
// there are does not.
var (
	podName = regexp.MustCompile(`-[0-9a-f]{8,10}-[0-9a-z]{5}\b`)
	hex     = regexp.MustCompile(`\b[0-9A-F]{2}(:[0-9A-F]{2})+\b`)
	number  = regexp.MustCompile(`\d+(\.\d+)?m?s?( (checks|steps)\b)?`)
	spaces  = regexp.MustCompile(`\s+`)
)

func normal(line string) string {
	line = podName.ReplaceAllString(line, "-POD")
	line = hex.ReplaceAllString(line, "HEX")
	line = number.ReplaceAllStringFunc(line, func(n string) string {
		if strings.Contains(n, " ") {
			return n
		}
		return "N"
	})
	return strings.TrimSpace(spaces.ReplaceAllString(line, " "))
}

// alike reports whether a line is as shown.
func alike(wanted, seen string) bool {
	parts := strings.Split(normal(wanted), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(normal(seen))
}

// same reports whether the output is as shown.
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
	return len(seen) > 0 && alike(wanted[0], seen[0]) && same(wanted[1:], seen[1:])
}

func TestSame(t *testing.T) {
	require.True(t, same([]string{"a 1.5s", "…", "z", ""}, []string{"a  22s", "b", "c", "z"}))
	require.True(t, same([]string{"a (…) z"}, []string{"a (b) z"}))
	require.False(t, same([]string{"a …"}, []string{"b c"}))
	require.False(t, same([]string{"1.5s 7 checks"}, []string{"1.5s 8 checks"}))
	require.False(t, same([]string{"a", "…", "z"}, []string{"a", "b", "y"}))
	require.False(t, same([]string{"a"}, []string{"a", "b"}))
	require.False(t, same([]string{"a", "b"}, []string{"a"}))
}

// shell is a bash at the top level of the repository that is given one command after another.
type shell struct {
	in  io.Writer
	out *bufio.Reader
}

// mark ends the output of each command.
const mark = "@@@@ end of output"

func newShell(t *testing.T) *shell {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Dir = root
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "EASTWEST_LAB=") }),
		"NO_COLOR=1", "KUBECONFIG=/nonexistent", "PATH="+filepath.Dir(string(eastwest))+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 10 * time.Second // whatever it has started may keep its output open
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = write.CloseWithError(cmp.Or(cmd.Wait(), io.ErrUnexpectedEOF))
	}()
	t.Cleanup(func() { cancel(); _ = out.Close(); <-ended })
	return &shell{in: in, out: bufio.NewReader(out)}
}

// run runs a command and returns the lines that it printed.
func (s *shell) run(command string) ([]string, error) {
	if _, err := io.WriteString(s.in, "{ "+command+"\n} </dev/null\necho; echo '"+mark+"'\n"); err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := s.out.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); err != nil || line == mark {
			return lines, err
		}
		lines = append(lines, line)
	}
}

// try runs the commands of blocks and compares what they print with what is shown.
func (s *shell) try(t *testing.T, document string, commands []shown) {
	t.Helper()
	for _, c := range commands {
		lines, err := s.run(c.command)
		require.NoError(t, err, "%s: $ %s\n%s", document, c.command, strings.Join(lines, "\n"))
		require.True(t, same(c.output, lines), "$ %s\n%s shows:\n%s\nseen:\n%s",
			c.command, document, strings.Join(c.output, "\n"), strings.Join(lines, "\n"))
	}
}

// TestCommandsWithoutLab runs what needs none.
func TestCommandsWithoutLab(t *testing.T) {
	s := newShell(t)
	for _, document := range documents(t) {
		if document == readme {
			continue
		}
		for _, b := range console(t, document) {
			if b.needs == nothing {
				s.try(t, document, b.shown)
			}
		}
	}
}

// TestWalk makes a lab as the README says, runs on it whatever the documents show of a lab, and the lesson's own commands, and
// takes it down as the README says.
func TestWalk(t *testing.T) {
	home := labs.Need(t)
	t.Cleanup(func() { _ = lab.Down(context.Background(), home, lab.DefaultName) })
	_ = lab.Down(t.Context(), home, lab.DefaultName) // the walk begins with nothing

	var walk []shown
	for _, b := range console(t, readme) {
		walk = append(walk, b.shown...)
	}
	last := len(walk) - 1
	require.Positive(t, last)
	require.Equal(t, "bin/eastwest down", walk[last].command, "the README ends with taking the lab down")

	s := newShell(t)
	s.try(t, readme, walk[:last])
	for _, document := range documents(t) {
		for _, b := range console(t, document) {
			if document != readme && b.needs == aLab {
				s.try(t, document, b.shown)
			}
		}
	}
	assert.True(t, t.Run("the lesson", theLessonsCommands))
	s.try(t, readme, walk[last:])
}
