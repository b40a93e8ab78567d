package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// The test binary is also the command of the scripts, and the supervisor of the nodes that it makes.
func TestMain(m *testing.M) {
	lab.Supervise()
	testscript.Main(m, map[string]func(){"eastwest": func() { os.Exit(runMain()) }})
}

// TestCommand runs the command as a user would, without a lab: nothing here needs root, and nothing may be made.
func TestCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("EASTWEST_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("EASTWEST_BUNDLE", filepath.Join(e.WorkDir, "bundle"))
			command, err := exec.LookPath("eastwest")
			e.Setenv("COMMAND_DIR", filepath.Dir(command)) // with nothing else in it
			return err
		},
		Cmds:      commands,
		Condition: condition,
	})
}

// TestLab runs the command on a real lab.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: run with sudo")
	}
	const labName = "command-test"
	home, err := lab.Home()
	require.NoError(t, err)
	bundles, err := bundle.DefaultDir()
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/lab",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// The real home and bundle: unpacked images are shared by all labs of a home.
			e.Setenv("EASTWEST_HOME", home)
			e.Setenv("EASTWEST_BUNDLE", bundles)
			e.Setenv("EASTWEST_LAB", labName)
			e.Setenv("HOME", filepath.Join(e.WorkDir, "user"))
			e.Defer(func() {
				var unknown *lab.UnknownLabError
				if err := lab.Down(context.Background(), home, labName); !errors.As(err, &unknown) {
					assert.NoError(t, err)
				}
			})
			return nil
		},
		Cmds:      commands,
		Condition: condition,
	})
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits CODE PROGRAM ARG…: like exec, with the exit code that is wanted.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: exits CODE PROGRAM ARG…")
		}
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		err = ts.Exec(args[1], args[2:]...)
		got := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if got != want {
			ts.Fatalf("exit code of %s: wanted %d, seen %d", strings.Join(args[1:], " "), want, got)
		}
	},
	// await FILE REGEXP: waits until a file that another process writes has it.
	"await": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: await FILE REGEXP")
		}
		wanted, err := regexp.Compile(args[1])
		ts.Check(err)
		ts.Check(wait.Until(context.Background(), args[0], wait.Options{Within: time.Minute}, func(context.Context) error {
			data, err := os.ReadFile(ts.MkAbs(args[0]))
			if err == nil && !wanted.Match(data) {
				err = fmt.Errorf("no %s in it", wanted)
			}
			return err
		}))
	},
	// repeat FILE TEXT N: a file of N times the text.
	"repeat": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 3 {
			ts.Fatalf("usage: repeat FILE TEXT N")
		}
		text, err := strconv.Unquote(`"` + args[1] + `"`)
		ts.Check(err)
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Repeat(text, n)), 0o644))
	},
}

// condition knows [root] and [namespaces]: whether this user may make user namespaces.
func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "namespaces":
		return exec.Command("unshare", "--user", "true").Run() == nil, nil
	}
	return false, errors.New("unknown condition")
}
