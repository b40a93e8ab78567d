// Package catalogue runs many scenarios in lanes, side by side, each lane with a lab of its own, and keeps what was
// measured of them. It needs what labs need; its own tests need no cluster: `go test ./lab/catalogue`.
package catalogue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Runner runs many scenarios in lanes, side by side. Each lane has one lab at a time, called PREFIX-1, PREFIX-2 and so on,
// without the numbers that other runs use at that time. It takes scenarios from one queue: first those that its lab suits,
// then those that need another lab. A lab is used again as long as scenarios put it back.
type Runner struct {
	Home, Provider string
	Prefix         string                   // of the labs' names
	Lanes          int                      // as many as LanesFor if zero
	Times          map[string]time.Duration // how long scenarios took: the longest go first
	Folder         string                   // for a run folder of each; those of scenarios that passed are removed
	Without        scenario.Phase           // see engine.RunOptions
	Keep           bool                     // leave the labs that are there at the end
	OnEnded        func(Ending) (goOn bool) // called after each scenario, one call at a time

	up      func(context.Context, lab.Options) (laneLab, error)
	down    func(ctx context.Context, home, name string) error
	reserve func(home, prefix string, after int) (number int, release func(), err error)
}

// laneLab is what a lane needs of a lab.
type laneLab interface {
	Run(context.Context, *scenario.Scenario, engine.RunOptions) (engine.Verdict, error)
	Suits(scenario.Topology) bool
	Close()
}

// realLab is a lab with the engine.
type realLab struct{ *lab.Lab }

func (l realLab) Run(ctx context.Context, s *scenario.Scenario, o engine.RunOptions) (engine.Verdict, error) {
	return engine.Run(ctx, l.Lab, s, o)
}

// Ending is the outcome of one scenario.
type Ending struct {
	Index    int // in the list
	Scenario *scenario.Scenario
	Lab      string
	Verdict  engine.Verdict
	Err      error // it was not run, and why; there is no verdict then
	Phases   []PhaseTime
	Story    string   // what a terminal shows of it: quiet when green, complete when red
	PutBack  bool     // the lab is what it was
	Symptoms []string // what the checks of that phase saw, in their order
	// Timetable is that of an upgrade of Istio, nil of another scenario.
	Timetable *report.Timetable
}

// PhaseTime is a phase that a scenario came to.
type PhaseTime struct {
	Phase  scenario.Phase
	Took   time.Duration
	Result report.Result
}

// Tally is what a run of the catalogue took.
type Tally struct {
	Lanes int
	Labs  int // that were made
	Took  time.Duration
}

// ErrNotRun is the error of scenarios that nobody ran because OnEnded said so.
var ErrNotRun = errors.New("not run: an earlier one has ended it")

const (
	memoryOfCluster = 1536 << 20       // bytes: half as much again as the peak of one with Istio and the apps
	assumedTime     = 40 * time.Second // of a scenario that was never measured
	namesTried      = 20               // names of labs that turn out to be taken
	labAttempts     = 2                // labs of a topology that fail before its scenarios are given up
)

// LanesFor returns how many lanes this machine has CPUs and memory for, one at least and no more than scenarios. Labs need more
// CPUs if those have half the usual speed (wait.Patience).
func LanesFor(all []*scenario.Scenario, provider string) int {
	clusters := 1
	for _, s := range all {
		clusters = max(clusters, len(s.Topology.Clusters()))
	}
	cpus := int(math.Round(float64(runtime.NumCPU())/wait.Patience())) / lab.CPUs(provider)
	lanes := min(cpus, len(all))
	if free, ok := memoryAvailable(); ok {
		lanes = min(lanes, int(free/(memoryOfCluster*uint64(clusters))))
	}
	return max(lanes, 1)
}

// memoryAvailable is the kernel's own estimate: what is free, and what of its cache it can do without.
func memoryAvailable() (uint64, bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib << 10, true
		}
	}
	return 0, false
}

// Run runs all scenarios; one that is in the list twice runs twice. What could not be set up is the Err of its ending.
// No lab is left, also when ctx ends, unless Keep is set.
func (c Runner) Run(ctx context.Context, all []*scenario.Scenario) (Tally, error) {
	start := time.Now()
	if c.up == nil {
		c.up, c.down, c.reserve = upAnew, lab.Down, lab.Reserve
	}
	if err := wait.Measure(); err != nil {
		return Tally{}, err
	}
	q := newQueue(all, c.Times)
	provider, err := lab.ChooseProvider(ctx, c.Provider)
	if err != nil {
		return Tally{}, err
	}
	tally := Tally{Lanes: min(cmp.Or(c.Lanes, LanesFor(all, provider)), max(len(all), 1))}
	var (
		lanes    sync.WaitGroup
		mu       sync.Mutex
		problems []error
	)
	side := make([]*lane, tally.Lanes)
	for i := range side {
		side[i] = &lane{Runner: c, queue: q, number: i, group: -1}
		if err := side[i].rename(); err != nil {
			return tally, err
		}
		defer func() { side[i].release() }()
	}
	for _, n := range side {
		lanes.Go(func() {
			for {
				j, ok := q.take(n.number, n.group)
				if !ok {
					break
				}
				o := n.do(ctx, j)
				mu.Lock()
				if c.OnEnded != nil && !c.OnEnded(o) {
					q.stop(ErrNotRun)
				}
				mu.Unlock()
			}
			err := n.end(ctx, c.Keep)
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, err)
			tally.Labs += n.made
		})
	}
	lanes.Wait()
	if c.Folder != "" {
		_ = os.Remove(c.Folder) // only if every scenario passed and it is empty
	}
	tally.Took = time.Since(start)
	return tally, errors.Join(problems...)
}

// upAnew is lab.Up that first removes a lab of that name with another topology: an earlier run was killed.
func upAnew(ctx context.Context, o lab.Options) (laneLab, error) {
	if there, err := lab.TopologyOf(o.Home, o.Name); err == nil && !lab.SameTopology(there, o.Topology) {
		if err := lab.Down(ctx, o.Home, o.Name); err != nil {
			return nil, err
		}
	}
	l, err := lab.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	return realLab{l}, nil
}

// lane runs one scenario after another.
type lane struct {
	Runner
	queue   *queue
	number  int
	name    string
	taken   int    // the number in the name
	release func() // of the name
	group   int    // whose topology its lab has; -1 without one
	current laneLab
	made    int
}

func (n *lane) do(ctx context.Context, j job) (o Ending) {
	o = Ending{Index: j.index, Scenario: j.scenario, Lab: n.name}
	if o.Err = n.queue.given(j.group); o.Err == nil && ctx.Err() != nil {
		o.Err = context.Cause(ctx)
	}
	if o.Err != nil {
		return o
	}
	o.Err = n.open(ctx, j)
	o.Lab = n.name
	if o.Err != nil {
		if ctx.Err() == nil {
			n.queue.failed(j.group, o.Err)
		}
		return o
	}
	folder, err := report.NewFolder(filepath.Join(n.Folder, j.folder))
	if err != nil {
		o.Err = err
		return o
	}
	var (
		story  bytes.Buffer
		events report.Recording
	)
	sink := report.Multi(folder, &events, report.Terminal(&story, report.TerminalOptions{Folder: folder.Dir()}))
	o.Verdict, err = n.current.Run(ctx, j.scenario, engine.RunOptions{Folder: folder, Sink: sink, Without: n.Without})
	o.Err = errors.Join(err, folder.Close())
	o.Story, o.Phases, o.Symptoms = story.String(), phaseTimes(events.Events()), symptoms(events.Events())
	o.PutBack = n.current.Suits(j.scenario.Topology)
	o.Timetable, err = report.TimetableIn(folder.Dir(), events.Events())
	o.Err = errors.Join(o.Err, err)
	if o.Verdict.Result == report.Passed && o.Err == nil {
		o.Err = os.RemoveAll(folder.Dir())
	}
	if o.Err != nil || o.Verdict.Result == report.Errored || !o.PutBack { // nobody knows what it is like now
		o.Err = errors.Join(o.Err, n.end(ctx, false))
	}
	return o
}

func phaseTimes(events []report.Event) (all []PhaseTime) {
	for _, e := range events {
		if e.Type == report.PhaseEnded {
			all = append(all, PhaseTime{scenario.Phase(e.Phase), e.Took, e.Result})
		}
	}
	return all
}

func symptoms(events []report.Event) (all []string) {
	for _, e := range events {
		if e.Type == report.StepEnded && e.Phase == string(scenario.Symptoms) && e.Seen != "" {
			all = append(all, e.Seen)
		}
	}
	return all
}

// rename gives the lane the next name that no other run has.
func (n *lane) rename() error {
	number, release, err := n.reserve(n.Home, n.Prefix, n.taken)
	if err != nil {
		return err
	}
	if n.release != nil {
		n.release()
	}
	n.name, n.taken, n.release = fmt.Sprintf("%s-%d", n.Prefix, number), number, release
	return nil
}

// open makes sure that the lane has a lab which the scenario suits.
func (n *lane) open(ctx context.Context, j job) error {
	if n.current != nil && n.current.Suits(j.scenario.Topology) {
		return nil
	}
	if err := n.end(ctx, false); err != nil {
		return err
	}
	l, err := n.up(ctx, lab.Options{Home: n.Home, Name: n.name, Provider: n.Provider, Topology: j.scenario.Topology})
	var taken *cluster.TakenError
	for tries := 0; errors.As(err, &taken) && tries < namesTried; tries++ { // a run in another home has left a lab of that name
		if err = n.rename(); err == nil {
			l, err = n.up(ctx, lab.Options{Home: n.Home, Name: n.name, Provider: n.Provider, Topology: j.scenario.Topology})
		}
	}
	if err != nil {
		return fmt.Errorf("making lab %s for %s: %w", n.name, j.scenario.Name, err)
	}
	n.current, n.group = l, j.group
	n.made++
	return nil
}

// end takes the lab down, in time of its own: it happens after an interrupt too.
func (n *lane) end(ctx context.Context, keep bool) error {
	if n.current == nil {
		return nil
	}
	n.current.Close()
	n.current, n.group = nil, -1
	if keep {
		return nil
	}
	clean, cancel := wait.Timeout(context.WithoutCancel(ctx), lab.RemoveWithin)
	defer cancel()
	return n.down(clean, n.Home, n.name)
}

// queue is what is still to be run.
type queue struct {
	mu       sync.Mutex
	jobs     []job         // the longest first
	lanes    map[int]int   // the group that each lane works on
	failures map[int]int   // labs that could not be made, by group
	problem  map[int]error // the last of them
	stopped  error
}

type job struct {
	index    int
	scenario *scenario.Scenario
	group    int    // those with equal topologies
	folder   string // a name that no other has
	time     time.Duration
}

func newQueue(all []*scenario.Scenario, times map[string]time.Duration) *queue {
	q := &queue{lanes: map[int]int{}, failures: map[int]int{}, problem: map[int]error{}}
	var groups []scenario.Topology
	seen := map[string]int{}
	for i, s := range all {
		group := slices.IndexFunc(groups, func(t scenario.Topology) bool { return lab.SameTopology(t, s.Topology) })
		if group < 0 {
			group = len(groups)
			groups = append(groups, s.Topology)
		}
		seen[s.Name]++
		folder := s.Name
		if seen[s.Name] > 1 {
			folder = fmt.Sprintf("%s-%d", s.Name, seen[s.Name])
		}
		q.jobs = append(q.jobs, job{i, s, group, folder, cmp.Or(times[s.Name], assumedTime)})
	}
	slices.SortStableFunc(q.jobs, func(a, b job) int { return cmp.Compare(b.time, a.time) })
	return q
}

// take returns the next job of a lane whose lab has the topology of a group, or -1 without a lab: the longest of the
// group; or else of a group that nobody works on, that with the least to do, so that in the end all lanes share the
// largest and end together; or else of the group with the most to do.
func (q *queue) take(lane, group int) (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.lanes, lane)
	if len(q.jobs) == 0 {
		return job{}, false
	}
	if !slices.ContainsFunc(q.jobs, func(j job) bool { return j.group == group }) {
		group = q.choose()
	}
	i := slices.IndexFunc(q.jobs, func(j job) bool { return j.group == group })
	next := q.jobs[i]
	q.jobs = slices.Delete(q.jobs, i, i+1)
	q.lanes[lane] = group
	return next, true
}

func (q *queue) choose() int {
	left, held := map[int]time.Duration{}, map[int]bool{}
	for _, j := range q.jobs {
		left[j.group] += j.time
	}
	for _, group := range q.lanes {
		held[group] = true
	}
	best := -1
	for _, j := range q.jobs { // in this order, so that the choice is the same each time
		switch g := j.group; {
		case best < 0, held[best] && !held[g]:
			best = g
		case !held[g] && left[g] < left[best], held[best] && held[g] && left[g] > left[best]:
			best = g
		}
	}
	return best
}

// failed notes that a lab could not be made for the group.
func (q *queue) failed(group int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failures[group]++
	q.problem[group] = err
}

// stop lets nothing else be run.
func (q *queue) stop(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = why
}

// given returns why the scenarios of a group are given up; nil if they are not.
func (q *queue) given(group int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped == nil && q.failures[group] >= labAttempts {
		return fmt.Errorf("not tried again after %d labs of the same topology: %w", q.failures[group], q.problem[group])
	}
	return q.stopped
}
