package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// TestRenewalSaysWhatHappens keeps a lab that another process only holds from being called made anew.
func TestRenewalSaysWhatHappens(t *testing.T) {
	busy := renewal(lab.Status{Name: "x", State: lab.Busy})
	assert.Contains(t, busy, "waiting for it")
	assert.NotContains(t, busy, "anew")
	assert.Equal(t, "lab x is broken: making it anew", renewal(lab.Status{Name: "x", State: lab.Broken}))
}

func TestComponentState(t *testing.T) {
	assert.Equal(t, "running", componentState(host.ProcessState{PID: 7, Starts: 1}))
	assert.Equal(t, "stopped", componentState(host.ProcessState{PID: 7, Starts: 1, Stopped: true}))
	assert.Equal(t, "not running, started 2 times, last exit: killed", componentState(host.ProcessState{Starts: 2, LastExit: "killed"}))
}

// TestEveryScenarioCanBeCopied starts a scenario from each of the catalogue.
func TestEveryScenarioCanBeCopied(t *testing.T) {
	t.Setenv(lab.HomeEnv, t.TempDir())
	names, err := scenarioNames()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range names {
		copied := filepath.Join(dir, "copy-of-"+name)
		require.Equal(t, exitHeld, run(t.Context(), []string{"new", "--from", name, copied}, new(strings.Builder), os.Stderr))
		problems, text := lint(copied)
		assert.Empty(t, problems, text)
	}
}

// TestEnvironmentIsDocumented holds the topic to the page of the documents.
func TestEnvironmentIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/environment.md")
	require.NoError(t, err)
	for _, v := range variables() {
		assert.Contains(t, string(page), "`"+v[0], "docs/environment.md")
	}
}

// TestEveryCommandTakesTheLab finds commands that know --name but not --lab.
func TestEveryCommandTakesTheLab(t *testing.T) {
	root := newRootCommand()
	for _, name := range []string{"up", "down", "status", "env", "run", "hint", "doctor"} {
		cmd, _, err := root.Find([]string{name})
		require.NoError(t, err)
		require.NoError(t, cmd.ParseFlags([]string{"--lab", "demo"}), name)
		assert.Equal(t, "demo", cmd.Flags().Lookup("name").Value.String(), name)
	}
}

// TestHelpFitsATerminal finds lines of flags that are wider than the terminal.
func TestHelpFitsATerminal(t *testing.T) {
	cmd, _, err := newRootCommand().Find([]string{"up"})
	require.NoError(t, err)
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetUsageTemplate(usageTemplate(cmd.UsageTemplate(), 80))
	require.NoError(t, cmd.Usage())
	_, flags, found := strings.Cut(out.String(), "Flags:")
	require.True(t, found)
	for line := range strings.Lines(flags) {
		assert.LessOrEqual(t, len([]rune(line)), 81, line)
	}
}

func TestFlagsAreCompleted(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "config"))
	require.NoError(t, os.WriteFile(os.Getenv("KUBECONFIG"), []byte("apiVersion: v1\nkind: Config\n"+
		"clusters: [{name: e, cluster: {server: \"https://127.0.0.1:1\"}}]\nusers: [{name: e, user: {token: t}}]\n"+
		"contexts: [{name: east, context: {cluster: e, user: e}}]\n"), 0o600))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"doctor", "--context", ""}, "east"},
		{[]string{"up", "--context", ""}, "east"},
		{[]string{"bundle", "build", "--with", ""}, "kind"},
		{[]string{"bench", "scenarios", "--provider", ""}, "embedded"},
		{[]string{"run", "--without", ""}, "recover"},
		{[]string{"new", "--from", ""}, "late-cacerts\tcacerts came after"},
	} {
		var out strings.Builder
		require.Equal(t, exitHeld, run(t.Context(), append([]string{"__complete"}, c.args...), &out, new(strings.Builder)))
		assert.Contains(t, out.String(), c.want, c.args)
	}
}
