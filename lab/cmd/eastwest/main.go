// Command eastwest is a lab for multi-cluster Istio and the trust between clusters: it makes clusters with a mesh
// across them, breaks the mesh as a scenario file says, and proves symptom, diagnosis, recovery and health.
//
// The package holds flags, texts and exit codes; everything else is in package lab and below. Labs of the embedded
// provider need Linux and root. `make build` makes bin/eastwest; `eastwest up` makes the first lab.
//
// Results go to standard output, progress and problems to standard error. The exit code is 0 if everything held, 1 if a
// scenario or check failed, 2 for wrong usage or an invalid file, 3 if something could not be set up or carried out, and
// 130 if it was interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/strict"
)

func main() {
	lab.Supervise() // a node's supervisor is this program, started again: then this never returns
	os.Exit(runMain())
}

// runMain is main without the supervisor, so that tests can be this command.
func runMain() int {
	ctx, stop := withSignals(context.Background(), os.Stderr)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// withSignals returns a context that the first SIGINT or SIGTERM cancels, so that faults are undone and evidence is
// collected. The second one ends the process at once.
func withSignals(parent context.Context, stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s, ok := <-signals
		if !ok {
			return
		}
		fmt.Fprintf(stderr, "eastwest: %s: cleaning up; once more to stop at once\n", s)
		cancel(errInterrupted)
		if s, ok = <-signals; ok {
			fmt.Fprintf(stderr, "eastwest: %s: stopped at once; `eastwest down` removes what is left\n", s)
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

// run is the whole command: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	out := &countingWriter{Writer: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitHeld
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted && errors.Is(err, context.Canceled) {
		err = errInterrupted // where it was interrupted is of no use
	}
	text := err.Error()
	if problems := new(strict.Problems); text != "" && !errors.As(err, &problems) {
		text = "eastwest: " + text // problems begin with their place, which editors look for
	}
	if text != "" {
		fmt.Fprintln(stderr, text)
		if asksForJSON(cmd) && !out.written {
			if err := printJSON(stdout, errorJSON{err.Error()}); err != nil {
				return exitSetup
			}
		}
	}
	return code
}
