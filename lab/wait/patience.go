package wait

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// PatienceEnv is the environment variable that fixes the patience of a process.
const PatienceEnv = "EASTWEST_PATIENCE"

// MostPatience is the largest factor that is measured. A machine that needs more stands still.
const MostPatience = 10

// measureEvery is how long what was measured holds.
const measureEvery = 10 * time.Second

var (
	measuring sync.Mutex
	measured  time.Time // the last time
)

// patience holds the bits of the factor; 0 stands for 1.
var patience atomic.Uint64

// Patience returns the factor by which bounds of time are longer than they are written: 1 on a machine of usual speed with
// nothing else to do, and until Measure or SetPatience is called.
func Patience() float64 { return max(1, math.Float64frombits(patience.Load())) }

// SetPatience sets the factor. One below 1 counts as 1.
func SetPatience(factor float64) { patience.Store(math.Float64bits(factor)) }

// Bound returns the bound of time that d is on this machine: d times Patience.
func Bound(d time.Duration) time.Duration { return time.Duration(float64(d) * Patience()) }

// Lifetime returns Bound(d), in whole seconds, for a certificate that lives less than five minutes: it is made to end while
// somebody looks, and before that, as much has to happen on a slow machine as on another. A longer lifetime stays as it is.
func Lifetime(d time.Duration) time.Duration {
	if d >= 5*time.Minute {
		return d
	}
	return Bound(d).Round(time.Second)
}

// Timeout is context.WithTimeout with Bound(d).
func Timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, Bound(d))
}

// TimeoutCause is Timeout with a cause for its end: what did not happen, and within which time.
func TimeoutCause(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, Bound(d), fmt.Errorf("%s within %s", what, Text(d)))
}

// Text writes the bound d for people: as it is written in a file or in the code and, where this machine is given more time,
// by which factor: "30s", "30s × 2.2".
func Text(d time.Duration) string {
	if factor := Patience(); factor >= 1.05 {
		return fmt.Sprintf("%s × %.1f", words.Duration(d), factor)
	}
	return words.Duration(d)
}

// Measure sets the patience to what a short piece of work takes on all CPUs at once, as a multiple of what it takes on a
// machine of usual speed, so that a slow machine and a busy one are given more time. It takes some 15 ms of each CPU, and
// does nothing if it was called less than 10 s ago. A number in the environment variable EASTWEST_PATIENCE comes before
// what is measured.
func Measure() error {
	if text := os.Getenv(PatienceEnv); text != "" {
		factor, err := ParsePatience(text)
		if err != nil {
			return fmt.Errorf("%s=%s: %w", PatienceEnv, text, err)
		}
		SetPatience(factor)
		return nil
	}
	measuring.Lock()
	defer measuring.Unlock()
	if !measured.IsZero() && time.Since(measured) < measureEvery {
		return nil
	}
	measured = time.Now()
	rounds := make([]time.Duration, 3)
	for i := range rounds {
		rounds[i] = onAllCPUs(work)
	}
	slices.Sort(rounds)
	SetPatience(min(MostPatience, float64(rounds[len(rounds)/2])/float64(usual)))
	return nil
}

// ParsePatience reads a factor that somebody has written.
func ParsePatience(text string) (float64, error) {
	factor, err := strconv.ParseFloat(text, 64)
	if err != nil || !(factor >= 1 && factor <= 100) {
		return 0, fmt.Errorf("wanted a number from 1 to 100, such as 2.5")
	}
	return factor, nil
}

// usual is how long work takes on both CPUs of a machine on which `eastwest up` takes 21 seconds of CPU time for two
// clusters. The bounds in this repository were chosen on such machines.
const usual = 4 * time.Millisecond

// entries is how many numbers work goes through: more than a CPU's own cache holds, since what labs are made of misses it.
const entries = 1 << 14

// work does what API servers and proxies do most: it allocates, and looks up what is all over the memory.
func work() {
	index := map[uint64][]byte{}
	x := uint64(88172645463325252)
	for range entries {
		x ^= x << 13 // Marsaglia's xorshift: no two runs differ
		x ^= x >> 7
		x ^= x << 17
		index[x%entries] = append(index[x%entries], make([]byte, 64)...)
	}
	runtime.KeepAlive(index)
}

// onAllCPUs returns how long it takes until every CPU has done the work. It reads the clock of the kernel, which also goes
// on in tests whose time stands still.
func onAllCPUs(work func()) time.Duration {
	start := kernelTime()
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(work)
	}
	all.Wait()
	return kernelTime() - start
}

func kernelTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every kernel has this clock
	return time.Duration(now.Nano())
}
