// Package wait is how eastwest waits for anything that has to become true.
//
// A wait always has a bound. Its error says what it waited for, how long, how often it looked, and what it saw last. Bounds
// are written for a machine of usual speed; a slow or a busy one is given more time, by the factor Patience. Prefer a watch
// where Kubernetes offers one; Until is for questions that have to be asked again and again, such as whether a call succeeds
// now.
package wait

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrTimeout is wrapped by the error of a wait that ran out of time.
var ErrTimeout = errors.New("timed out")

// Permanent marks an error that waiting cannot mend. Until returns it at once.
func Permanent(err error) error { return &permanent{err} }

type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

// Options bound a wait. The zero value looks every 50 ms for up to 30 s until one look succeeds.
type Options struct {
	Within time.Duration // bound of the whole wait, times Patience; 30 s when zero
	Every  time.Duration // pause between two looks; 50 ms when zero
	InARow int           // how many looks in a row must succeed; 1 when zero
}

// Until calls look until it returns nil (InARow times), ctx ends, or Within is over.
// what completes the sentence "waiting for …".
func Until(ctx context.Context, what string, o Options, look func(context.Context) error) error {
	if o.Within == 0 {
		o.Within = 30 * time.Second
	}
	if o.Every == 0 {
		o.Every = 50 * time.Millisecond
	}
	if o.InARow == 0 {
		o.InARow = 1
	}
	bound, cancel := Timeout(ctx, o.Within)
	defer cancel()
	start := time.Now()
	var last error
	for tries, row := 1, 0; ; tries++ {
		err := look(bound)
		if err == nil {
			if row++; row >= o.InARow {
				return nil
			}
		} else {
			var p *permanent
			if errors.As(err, &p) {
				return fmt.Errorf("waiting for %s: %w", what, p.error)
			}
			// The bound has cut this look off, so that it says nothing new: keep what was seen before.
			if row = 0; bound.Err() == nil || last == nil {
				last = err
			}
		}
		timer := time.NewTimer(o.Every)
		select {
		case <-timer.C:
		case <-bound.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return Stopped(ctx, what, last)
			}
			return &TimeoutError{What: what, After: time.Since(start), Tries: tries, Last: last}
		}
	}
}

// Stopped returns the error of a wait whose context has ended. It wraps the context's cause and, if that is a time limit,
// says what was seen last.
func Stopped(ctx context.Context, what string, last error) error {
	err := fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
	if last != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w; last seen: %s", err, last.Error()) // not wrapped: it is not the cause
	}
	return err
}

// TimeoutError says what was waited for and what was seen last. It wraps ErrTimeout and the last error.
type TimeoutError struct {
	What  string
	After time.Duration
	Tries int
	Last  error
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("waiting for %s: timed out after %s (%d tries); last seen: %v",
		e.What, e.After.Round(time.Millisecond), e.Tries, e.Last)
}

// Unwrap lets errors.Is find ErrTimeout and the last error.
func (e *TimeoutError) Unwrap() []error { return []error{ErrTimeout, e.Last} }
