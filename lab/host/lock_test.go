package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Environment variables that turn this test's program into one that takes locks.
const (
	takerEnv = "EASTWEST_TEST_TAKER" // the folder of the locks
	asksEnv  = "EASTWEST_TEST_ASKS"  // how many locks it takes
)

const races = 50

func TestMain(m *testing.M) {
	if dir := os.Getenv(takerEnv); dir != "" {
		take(Locks(dir))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// take is a process that, for each line that it reads, tries to take the lock of that name and says what came of it. It
// gives the lock up when it reads the next line.
func take(locks Locks) {
	var held *Lock
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if held != nil {
			held.Release()
			held = nil
		}
		if lines.Text() == "" {
			os.Stdout.WriteString("free\n")
			continue
		}
		lock, err := locks.Try(lines.Text(), fmt.Sprint(os.Getpid()))
		if err != nil {
			os.Stdout.WriteString("no: " + err.Error() + "\n")
			continue
		}
		held = lock
		os.Stdout.WriteString("yes\n")
	}
}

// taker is such a process, seen from outside.
type taker struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
}

func startTaker(t *testing.T, dir string) *taker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), takerEnv+"="+dir), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &taker{cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

func (p *taker) ask(name string) string {
	if _, err := io.WriteString(p.in, name+"\n"); err != nil {
		return err.Error()
	}
	if !p.answers.Scan() {
		return "it has ended"
	}
	return p.answers.Text()
}

// both asks two at the same moment.
func both(first, second func() string) (answers []string) {
	answers = make([]string, 2)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, ask := range []func() string{first, second} {
		all.Go(func() {
			<-begin
			answers[i] = ask()
		})
	}
	close(begin)
	all.Wait()
	return answers
}

// Of two processes that want a lock at the same moment one gets it, whatever is removed and made anew meanwhile.
func TestOneOfTwoProcessesGetsALock(t *testing.T) {
	dir := t.TempDir()
	a, b := startTaker(t, dir), startTaker(t, dir)
	for round := range races {
		answers := both(func() string { return a.ask("twin") }, func() string { return b.ask("twin") })
		won := strings.Count(strings.Join(answers, "\n"), "yes")
		require.Equal(t, 1, won, "round %d: %q", round, answers)
		require.Contains(t, strings.Join(answers, "\n"), "no: the lock twin is held by ")
		// Both give up what they have, and try again while the other does.
		both(func() string { return a.ask("") }, func() string { return b.ask("") })
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		require.Empty(t, left, "round %d", round)
	}
}

// Locks are taken and given up all the time, and nobody waits: the file is removed and made again under everybody's hands.
func TestALockHasOneHolder(t *testing.T) {
	locks := Locks(t.TempDir())
	var holders atomic.Int32
	var shared atomic.Bool
	var all sync.WaitGroup
	problems := make([]error, 4)
	for i := range problems {
		all.Go(func() {
			for taken := 0; taken < races && problems[i] == nil; {
				lock, err := locks.Try("twin", "somebody")
				var held *HeldError
				if errors.As(err, &held) {
					continue
				}
				if problems[i] = err; err != nil {
					return
				}
				if holders.Add(1) != 1 {
					shared.Store(true)
				}
				runtime.Gosched() // so that others find it held
				holders.Add(-1)
				lock.Release()
				taken++
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(problems...))
	require.False(t, shared.Load(), "two held it at once")
}

// A process that is killed leaves no lock behind, and a process that has inherited one holds it until it lets go.
func TestWhoHoldsALock(t *testing.T) {
	dir := t.TempDir()
	locks := Locks(dir)
	for range races / 5 { // each of them starts a process
		p := startTaker(t, dir)
		require.Equal(t, "yes", p.ask("twin"))
		_, err := locks.Try("twin", "me")
		var held *HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, fmt.Sprint(p.cmd.Process.Pid), held.By)
		require.NoError(t, p.cmd.Process.Kill())
		_ = p.cmd.Wait() // it was killed
		lock, err := locks.Try("twin", "me")
		require.NoError(t, err, "its holder was killed")
		lock.Release()
	}

	lock, err := locks.Try("twin", "me")
	require.NoError(t, err)
	heir := exec.Command("cat")
	heir.ExtraFiles = []*os.File{lock.File()}
	in, err := heir.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, heir.Start())
	lock.Release()
	_, err = locks.Try("twin", "another")
	var held *HeldError
	require.ErrorAs(t, err, &held, "its heir runs")
	require.NoError(t, in.Close())
	require.NoError(t, heir.Wait())
	lock, err = locks.Take(t.Context(), "twin", "another")
	require.NoError(t, err)
	lock.Release()
	require.NoFileExists(t, filepath.Join(dir, "twin.lock"))
}
