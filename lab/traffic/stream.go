package traffic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// mostInFlight bounds how many calls of one stream may be under way: each is a goroutine here and in the pod.
const mostInFlight = 400

// tooLate is how long after it was due a call is still made. A busy machine is late by less. A machine that slept, or a
// process that was stopped, must not make all the calls that it has missed at once.
const tooLate = 500 * time.Millisecond

// wasLate stands in the Err of a call that was not made because this machine, or this process, stood still.
const wasLate = "this machine was late"

// Plan is what a stream does.
type Plan struct {
	Name          string
	From          Source
	URL           string
	ExpectCluster string        // the cluster that must answer for a call to succeed; any if empty
	Every         time.Duration // time between two calls
	Fresh         bool          // what the URL's host is; see the package comment
	Timeout       time.Duration // of each call; DefaultTimeout when zero
	Headers       map[string]string
	Earlier       *Recording // what it goes on from; see Join

	// OneByOne leaves out a call that is due while the one before is under way. Two calls at once need two connections: on
	// kept connections a slow call would make the following calls test new connections.
	OneByOne bool
}

// limit returns how many calls are under way if none is answered.
func (p Plan) limit() int {
	if p.OneByOne {
		return 1
	}
	return int((p.Timeout+orderMargin)/p.Every) + 2
}

func (p *Plan) complete() error {
	if p.Timeout == 0 {
		most := (mostInFlight-2)*p.Every - orderMargin // a patient stream may not have more calls under way than are allowed
		p.Timeout = max(DefaultTimeout, min(wait.Bound(DefaultTimeout), most))
	}
	var errs []error
	if p.Name == "" {
		errs = append(errs, errors.New("it has no name"))
	}
	if p.From == nil {
		errs = append(errs, errors.New("it has no source"))
	}
	if err := checkURL(p.URL); err != nil {
		errs = append(errs, err)
	}
	switch {
	case p.Every <= 0 || p.Timeout < 0:
		errs = append(errs, fmt.Errorf("every %s and timeout %s must be positive", p.Every, p.Timeout))
	case p.limit() > mostInFlight:
		errs = append(errs, fmt.Errorf("a call every %s that takes up to %s makes %d at once: want at most %d; "+
			"call less often or with a shorter timeout",
			p.Every, p.Timeout, p.limit(), mostInFlight))
	}
	if len(errs) > 0 {
		return fmt.Errorf("starting traffic %q: %w", p.Name, errors.Join(errs...))
	}
	return nil
}

// Stream makes calls until it is stopped. It is an open loop unless Plan.OneByOne is set: a call is due every Plan.Every
// whether or not earlier ones have come back, so that a stall delays no call and hides no loss. A call that could not be
// made because this machine was late by half a second is recorded as not issued, and is not made later.
// All methods are safe for concurrent use.
type Stream struct {
	plan    Plan
	began   time.Time
	orders  *orders
	cancel  context.CancelFunc // ends the loop; calls under way go on
	abort   context.CancelFunc // ends the calls too
	looping chan struct{}
	calls   sync.WaitGroup

	mu      sync.Mutex
	done    []Call
	flying  map[int]Call // by number
	marks   []Mark
	stopped time.Time
	cut     error // why ctx ended before Stop
}

// Start begins a stream. It ends with Stop, or when ctx ends, which also ends the calls under way.
func Start(ctx context.Context, plan Plan) (*Stream, error) {
	if err := plan.complete(); err != nil {
		return nil, err
	}
	loop, cancel := context.WithCancel(ctx)
	calls, abort := context.WithCancel(ctx)
	s := &Stream{
		plan: plan, began: time.Now(), orders: openOrders(plan.From),
		cancel: cancel, abort: abort, looping: make(chan struct{}), flying: map[int]Call{},
	}
	go s.run(ctx, loop, calls)
	return s, nil
}

func (s *Stream) run(ctx, loop, calls context.Context) {
	defer close(s.looping)
	slots := make(chan struct{}, s.plan.limit())
	options := Options{Timeout: s.plan.Timeout, Headers: s.plan.Headers, Fresh: s.plan.Fresh, Stream: s.plan.Name}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		due := s.began.Add(time.Duration(n) * s.plan.Every)
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-loop.Done():
			s.mu.Lock()
			s.cut = context.Cause(ctx)
			s.mu.Unlock()
			return
		}
		if late := time.Since(due); late > tooLate {
			s.missed(due, fmt.Sprintf("%s by %s", wasLate, late.Round(time.Millisecond)))
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			if !s.plan.OneByOne {
				s.missed(due, fmt.Sprintf("%d calls were under way", cap(slots)))
			}
			continue
		}
		s.mu.Lock()
		s.flying[n] = Call{Start: time.Now(), Stream: s.plan.Name, Connection: options.connection(), Issued: true}
		s.mu.Unlock()
		s.calls.Go(func() {
			call := s.orders.call(calls, s.plan.URL, options)
			s.mu.Lock()
			delete(s.flying, n)
			s.done = append(s.done, call)
			s.mu.Unlock()
			<-slots
		})
	}
}

func (s *Stream) missed(due time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, Call{
		Start: due, End: due, Stream: s.plan.Name, Connection: Options{Fresh: s.plan.Fresh}.connection(), Err: "not made when due: " + why,
	})
}

// Mark notes that something begins now, such as a phase of a scenario, and returns when that was.
func (s *Stream) Mark(label string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := Mark{Label: label, At: time.Now()}
	s.marks = append(s.marks, m)
	return m.At
}

// Recording returns what has been recorded so far. Calls under way are in it, without an end.
func (s *Stream) Recording() *Recording {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Recording{
		Stream: s.plan.Name, From: s.plan.From.String(), URL: s.plan.URL, ExpectCluster: s.plan.ExpectCluster,
		Every: s.plan.Every, Began: s.began, Ended: s.stopped,
		Marks: append([]Mark(nil), s.marks...), Calls: append([]Call(nil), s.done...),
	}
	if r.Ended.IsZero() {
		r.Ended = time.Now()
	}
	for _, call := range s.flying {
		r.Calls = append(r.Calls, call)
	}
	r.sort()
	if s.plan.Earlier != nil {
		return Join(s.plan.Earlier, r)
	}
	return r
}

// Stop makes no more calls, waits for those under way (for their timeout and a second at most) and returns the whole
// recording. The error says that the stream's context had ended before, so that the recording is shorter than it should
// be. Stopping again returns the same.
func (s *Stream) Stop() (*Recording, error) {
	s.cancel()
	<-s.looping
	s.calls.Wait()
	s.abort()
	s.mu.Lock()
	if s.stopped.IsZero() {
		s.stopped = time.Now()
		s.orders.close()
	}
	cut := s.cut
	s.mu.Unlock()
	r := s.Recording()
	if cut != nil {
		return r, fmt.Errorf("recording traffic %q: it ended early: %w", s.plan.Name, cut)
	}
	return r, nil
}
