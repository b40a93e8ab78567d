package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Command checks the output of kubectl or istioctl. There is no shell: no pipes, no variables.
type Command struct {
	// The command, as a person would paste it: kubectl … or istioctl …, with --context=cluster-a.
	Run string `yaml:"run" required:"true"`
	// What its output has.
	Expect *regexp.Regexp `yaml:"expect"`
	// What its output does not have.
	Absent *regexp.Regexp `yaml:"absent"`
	// It ends with an error.
	Fails   bool          `yaml:"fails"`
	Tools   Tools         `yaml:"-"`
	Timeout time.Duration `yaml:"-"` // 30 s if zero
}

// Validate refuses commands that are none, or that may change something.
func (c Command) Validate() error {
	if _, err := c.Parse(); err != nil {
		return strict.At("run", err)
	}
	return nil
}

var _ Check = Command{}

func (c Command) wanted() string {
	var wanted []string
	if c.Fails {
		wanted = append(wanted, "fails")
	}
	if c.Expect != nil {
		wanted = append(wanted, "says something like "+quoted(c.Expect))
	}
	if c.Absent != nil {
		wanted = append(wanted, "says nothing like "+quoted(c.Absent))
	}
	if len(wanted) == 0 {
		wanted = []string{"succeeds"}
	}
	return fmt.Sprintf("`%s` %s", c.Run, words.And(wanted))
}

func (c Command) String() string { return c.wanted() }

// Command implements Check.
func (c Command) Command() string { return c.Run }

// reading holds the subcommands that only read. Others are refused: what they change would not be put back.
var reading = map[string][]string{
	"kubectl": {"api-resources", "api-versions", "auth", "cluster-info", "describe", "events", "exec", "explain", "get", "logs", "rollout",
		"top", "version", "wait"},
	"istioctl": {"admin", "analyze", "authz", "bug-report", "describe", "experimental", "pc", "precheck", "proxy-config", "proxy-status", "ps",
		"remote-clusters", "tag", "validate", "version", "x", "zc", "ztunnel-config"},
}

// halves holds the parts that only read of subcommands that can also change something.
var halves = map[string][]string{
	"kubectl auth": {"can-i", "whoami"}, "kubectl rollout": {"history", "status"}, "istioctl tag": {"list"},
}

// trying holds the subcommands of kubectl that change nothing if they have the flag --dry-run=server, with which the API
// server and its webhooks only answer.
var trying = []string{"apply", "create", "run"}

// Parse splits the command into words. The error says what is wrong with it.
func (c Command) Parse() ([]string, error) {
	args, err := split(c.Run)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, errors.New("empty")
	}
	known, ok := reading[args[0]]
	if !ok {
		return nil, fmt.Errorf("want kubectl or istioctl, not %q", args[0])
	}
	for i := 1; i < len(args); i++ {
		switch word := args[i]; {
		case strings.HasPrefix(word, "--") && strings.Contains(word, "="):
		case strings.HasPrefix(word, "-"):
			i++ // its value
		case slices.Contains(known, word):
			half, both := halves[args[0]+" "+word]
			if both && (i+1 == len(args) || !slices.Contains(half, args[i+1])) {
				return nil, fmt.Errorf("%s %s may change the mesh: want one of %s right after it", args[0], word, strings.Join(half, ", "))
			}
			return args, nil
		case args[0] == "kubectl" && slices.Contains(trying, word) && slices.Contains(args, "--dry-run=server"):
			return args, nil
		default:
			return nil, fmt.Errorf("%s %s may change the mesh: want one of %s (flags with a value go after it, or are written --flag=value)",
				args[0], word, strings.Join(known, ", "))
		}
	}
	return nil, fmt.Errorf("want a subcommand of %s: one of %s", args[0], strings.Join(known, ", "))
}

// split reads words as a shell does, with quotes and backslashes and nothing else.
func split(text string) ([]string, error) {
	var args []string
	var word strings.Builder
	quote, inside := rune(0), false
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inside = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case strings.ContainsRune(" \t\n", r):
			if inside {
				args = append(args, word.String())
				word.Reset()
			}
			inside = false
		case strings.ContainsRune("|&;<>`$", r):
			return nil, fmt.Errorf("%q means something to a shell only, and there is none: put it into quotes if it is meant as it is", r)
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote has no end")
	}
	if inside {
		args = append(args, word.String())
	}
	return args, nil
}

// Look implements Check.
func (c Command) Look(ctx context.Context, _ *mesh.Mesh) (string, error) {
	args, err := c.Parse()
	if err != nil {
		return "", fmt.Errorf("reading the command %q: %w", c.Run, err)
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := wait.Timeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.Tools.BinDir, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Tools.Kubeconfig)
	if c.Tools.NoProxy != "" {
		cmd.Env = append(cmd.Env, "NO_PROXY="+c.Tools.NoProxy)
	}
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("running `%s`: no end within %s", c.Run, timeout)
	case err != nil && !errors.As(err, &exit):
		return "", fmt.Errorf("running `%s`: %w", c.Run, err)
	}
	seen := c.seen(out.String())
	if err != nil {
		seen = err.Error() + ": " + seen
	}
	if c.Fails != (err != nil) ||
		c.Expect != nil && !c.Expect.MatchString(out.String()) || c.Absent != nil && c.Absent.MatchString(out.String()) {
		return seen, &Mismatch{Wanted: c.wanted(), Seen: seen}
	}
	return seen, nil
}

// seen returns the part of the output that matters: the line that matches or, if there is none, the beginning.
func (c Command) seen(out string) string {
	for _, p := range []*regexp.Regexp{c.Absent, c.Expect} {
		if p == nil {
			continue
		}
		if at := p.FindStringIndex(out); at != nil {
			from := strings.LastIndexByte(out[:at[0]], '\n') + 1
			to := at[1]
			if end := strings.IndexByte(out[to:], '\n'); end >= 0 {
				to += end
			} else {
				to = len(out)
			}
			return words.Short(out[from:to], 500)
		}
	}
	return words.Short(out, 500)
}
