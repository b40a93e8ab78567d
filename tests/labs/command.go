package labs

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

const (
	runsWithin = 3 * time.Minute  // a command; times wait.Patience, like the next one
	endsWithin = 40 * time.Second // a command, after a signal
)

// Command is the path of the command under test.
type Command string

// Run runs it to its end and returns what it says and its exit code.
func (c Command) Run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := wait.Timeout(context.Background(), runsWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(c), args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Until starts it and sends it a signal after a time, or lets it end before that. It returns the exit code.
func (c Command) Until(t *testing.T, after time.Duration, sig os.Signal, args ...string) int {
	t.Helper()
	begin := time.Now()
	return c.When(t, func() bool { return time.Since(begin) >= after }, sig, args...)
}

// When does the same, as soon as something is seen.
func (c Command) When(t *testing.T, seen func() bool, sig os.Signal, args ...string) int {
	t.Helper()
	cmd := exec.Command(string(c), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !seen() {
		select {
		case <-ended:
			return cmd.ProcessState.ExitCode()
		case <-time.After(10 * time.Millisecond):
		}
	}
	require.NoError(t, cmd.Process.Signal(sig))
	select {
	case <-ended:
	case <-time.After(wait.Bound(endsWithin)):
		_ = cmd.Process.Kill()
		t.Fatalf("%s after %s it still runs:\n%s", wait.Bound(endsWithin), sig, out.String())
	}
	return cmd.ProcessState.ExitCode()
}

// State is what `eastwest list` says of a lab; "" if it does not know it.
func (c Command) State(t *testing.T, name string) lab.State {
	t.Helper()
	out, err := exec.Command(string(c), "list", "-o", "json").Output()
	require.NoError(t, err)
	var all []lab.Status
	require.NoError(t, json.Unmarshal(out, &all), string(out))
	for _, s := range all {
		if s.Name == name {
			return s.State
		}
	}
	return ""
}
