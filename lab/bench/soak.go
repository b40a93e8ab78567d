package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// SoakHead is the first line of the file of a soak: what all its entries have in common. The JSON names are stable.
type SoakHead struct {
	Version  string  `json:"version"` // of the command, which names the commit
	Provider string  `json:"provider"`
	Seed     uint64  `json:"seed"` // of the order in which scenarios run
	Machine  Machine `json:"machine"`
}

// SoakEntry is every other line: a scenario that ran, or something that was killed.
type SoakEntry struct {
	At       time.Time `json:"at"` // its end
	Patience float64   `json:"patience"`

	Scenario string             `json:"scenario,omitempty"`
	Round    int                `json:"round"` // each has every scenario once, in an order of its own
	Lab      string             `json:"lab,omitempty"`
	Result   report.Result      `json:"result,omitempty"`
	Seconds  float64            `json:"seconds,omitempty"`
	Phases   map[string]float64 `json:"phases,omitempty"` // seconds
	Failed   string             `json:"failed,omitempty"` // the phase
	Reason   string             `json:"reason,omitempty"`
	Evidence string             `json:"evidence,omitempty"` // the folder of a run that did not pass

	Killed string   `json:"killed,omitempty"` // what was killed, such as "up" or "etcd"
	Signal string   `json:"signal,omitempty"`
	Left   []string `json:"left,omitempty"` // what was still there after all was taken down
}

// Soak is the file of one soak, which goes on in it whenever it is run again.
type Soak struct {
	Head    SoakHead
	Entries []SoakEntry
	file    string
}

// OpenSoak reads the file of a soak and fills in the head of a new one: a seed of 0 is drawn at random. A soak of another version,
// provider or seed is refused, since its numbers would be of two things.
func OpenSoak(file string, head SoakHead) (*Soak, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(data) == 0 { // nothing, or killed before its first line
		head.Seed = cmp.Or(head.Seed, rand.Uint64N(1_000_000))
		s := &Soak{Head: head, file: file}
		return s, s.write(head)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the soak: %w", err)
	}
	s, err := ParseSoak(file, data)
	if err != nil {
		return nil, err
	}
	head.Seed, head.Machine = cmp.Or(head.Seed, s.Head.Seed), s.Head.Machine
	if head != s.Head {
		return nil, fmt.Errorf("%s is of version %s, provider %s, seed %d; this one is of version %s, provider %s, seed %d: name another file",
			file, s.Head.Version, s.Head.Provider, s.Head.Seed, head.Version, head.Provider, head.Seed)
	}
	return s, nil
}

// ParseSoak reads what a soak has written. A last line that was cut off, as by SIGKILL, is no entry.
func ParseSoak(file string, data []byte) (*Soak, error) {
	s := &Soak{file: file}
	lines := bufio.NewScanner(bytes.NewReader(data[:bytes.LastIndexByte(data, '\n')+1]))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var err error
		if n == 1 {
			err = json.Unmarshal(lines.Bytes(), &s.Head)
		} else {
			var e SoakEntry
			err = json.Unmarshal(lines.Bytes(), &e)
			s.Entries = append(s.Entries, e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if s.Head == (SoakHead{}) {
		return nil, fmt.Errorf("%s: wanted the file of a soak, seen none of its lines", file)
	}
	return s, nil
}

// Add appends an entry to the file. Two programs may add at once.
func (s *Soak) Add(e SoakEntry) error {
	e.At, e.Patience = time.Now().UTC().Truncate(time.Second), wait.Patience()
	s.Entries = append(s.Entries, e)
	return s.write(e)
}

// write appends a line, and ends one before it that was cut off.
func (s *Soak) write(line any) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	f := flock.New(s.file, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	if err := f.Lock(); err != nil {
		return fmt.Errorf("writing the soak: %w", err)
	}
	defer func() { _ = f.Unlock() }()
	there, err := os.ReadFile(s.file)
	if err != nil {
		return fmt.Errorf("writing the soak: %w", err)
	}
	whole := int64(bytes.LastIndexByte(there, '\n') + 1)
	file, err := os.OpenFile(s.file, os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the soak: %w", err)
	}
	_, err = file.WriteAt(append(data, '\n'), whole)
	if err == nil {
		err = file.Truncate(whole + int64(len(data)) + 1)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// Order returns the order of the scenarios in a round.
func (h SoakHead) Order(all []*scenario.Scenario, round int) []*scenario.Scenario {
	order := slices.Clone(all)
	random := rand.New(rand.NewPCG(h.Seed, uint64(round)))
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// Scenarios runs all scenarios in rounds, each round in another order, until the file has as many runs as are wanted, with those
// that it had before, or ctx ends. It begins nothing new after the time until. Told is called for each run.
func (s *Soak) Scenarios(
	ctx context.Context, c catalogue.Runner, all []*scenario.Scenario, runs int, until time.Time, told func(SoakEntry, catalogue.Ending),
) error {
	var failure error
	for round := 0; s.Runs() < runs && time.Now().Before(until) && ctx.Err() == nil && failure == nil; round++ {
		var left []*scenario.Scenario
		for _, sc := range s.Head.Order(all, round) {
			if !slices.ContainsFunc(s.Entries, func(e SoakEntry) bool { return e.Scenario == sc.Name && e.Round == round }) {
				left = append(left, sc)
			}
		}
		if left = left[:min(len(left), runs-s.Runs())]; len(left) == 0 {
			continue
		}
		c.OnEnded = func(e catalogue.Ending) bool {
			if errors.Is(e.Err, catalogue.ErrNotRun) || ctx.Err() != nil {
				return false
			}
			entry := newSoakEntry(e, round)
			failure = errors.Join(failure, s.Add(entry))
			told(entry, e)
			return failure == nil && time.Now().Before(until)
		}
		_, err := c.Run(ctx, left)
		failure = errors.Join(failure, err)
	}
	return errors.Join(failure, context.Cause(ctx))
}

func newSoakEntry(e catalogue.Ending, round int) SoakEntry {
	entry := SoakEntry{
		Scenario: e.Scenario.Name, Round: round, Lab: e.Lab, Result: e.Verdict.Result, Seconds: tenths(e.Verdict.Seconds),
		Reason: e.Verdict.Reason, Phases: map[string]float64{},
	}
	if e.Err != nil {
		entry.Result, entry.Reason = report.Errored, e.Err.Error()
	}
	for _, p := range e.Phases {
		entry.Phases[string(p.Phase)] += tenths(p.Took.Seconds())
		if p.Result.Bad() && entry.Failed == "" {
			entry.Failed = string(p.Phase)
		}
	}
	if entry.Result.Bad() {
		entry.Evidence = e.Verdict.Folder
	}
	return entry
}

func tenths(seconds float64) float64 { return float64(int(seconds*10+0.5)) / 10 }

// runs returns the entries of scenarios.
func (s *Soak) runs() []SoakEntry {
	return slices.DeleteFunc(slices.Clone(s.Entries), func(e SoakEntry) bool { return e.Scenario == "" })
}

// kills returns the entries of what was killed.
func (s *Soak) kills() []SoakEntry {
	return slices.DeleteFunc(slices.Clone(s.Entries), func(e SoakEntry) bool { return e.Killed == "" })
}

// Runs returns how many scenarios ran.
func (s *Soak) Runs() int { return len(s.runs()) }

// Killed returns how often something was killed.
func (s *Soak) Killed(what, signal string) (n int) {
	for _, e := range s.Entries {
		if e.Killed == what && e.Signal == signal {
			n++
		}
	}
	return n
}

// Bad returns the entries that should not be: scenarios that did not pass, and kills that left something or were not recovered from.
func (s *Soak) Bad() []SoakEntry {
	return slices.DeleteFunc(slices.Clone(s.Entries), func(e SoakEntry) bool {
		return !e.Result.Bad() && len(e.Left) == 0
	})
}

// Markdown writes the tables for documents: all in all, each scenario, each thing that was killed, and what failed.
func (s *Soak) Markdown() string {
	var out strings.Builder
	h := s.Head
	fmt.Fprintf(&out, "- Version %s, provider %s, seed %d\n", h.Version, h.Provider, h.Seed)
	m := h.Machine
	fmt.Fprintf(&out, "- Machine: %s, %d MiB of memory, Linux %s\n", words.Plural(m.CPUs, "CPU"), m.MemoryMiB, m.Kernel)
	if len(s.Entries) == 0 {
		return out.String()
	}
	first, last := s.Entries[0].At, s.Entries[len(s.Entries)-1].At
	fmt.Fprintf(&out, "- From %s to %s, patience %s\n\n", first.Format(minute), last.Format(minute), s.patience())
	if runs := s.runs(); len(runs) > 0 {
		fmt.Fprintf(&out, "%s of scenarios, %s.\n\n", words.Plural(len(runs), "run"), words.Plural(bad(runs), "failure"))
		fmt.Fprint(&out, words.Row("scenario", "runs", "failures", "shortest", "half", "nine of ten", "longest"))
		fmt.Fprintln(&out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
		for _, of := range groups(runs, func(e SoakEntry) string { return e.Scenario }) {
			cells := []string{of[0].Scenario, fmt.Sprint(len(of)), fmt.Sprint(bad(of))}
			for _, share := range []float64{0, 0.5, 0.9, 1} {
				cells = append(cells, quantile(of, share))
			}
			fmt.Fprint(&out, words.Row(cells...))
		}
	}
	if kills := s.kills(); len(kills) > 0 {
		left := 0
		for _, e := range kills {
			left += len(e.Left)
		}
		fmt.Fprintf(&out, "\n%s, %s, %s.\n\n",
			words.Plural(len(kills), "kill"), words.Plural(left, "leftover"), words.Plural(bad(kills), "failure"))
		fmt.Fprint(&out, words.Row("killed", "signal", "times", "leftovers", "failures"))
		fmt.Fprintln(&out, "| --- | --- | ---: | ---: | ---: |")
		for _, of := range groups(kills, func(e SoakEntry) string { return e.Killed + " " + e.Signal }) {
			left := 0
			for _, e := range of {
				left += len(e.Left)
			}
			fmt.Fprint(&out, words.Row(of[0].Killed, of[0].Signal, fmt.Sprint(len(of)), fmt.Sprint(left), fmt.Sprint(bad(of))))
		}
	}
	if failures := s.Bad(); len(failures) > 0 {
		fmt.Fprint(&out, "\nWhat failed:\n\n")
		for _, e := range failures {
			fmt.Fprintf(&out, "- %s, %s: %s\n", cmp.Or(e.Scenario, e.Killed), cmp.Or(e.Failed, string(e.Result)),
				cmp.Or(strings.ReplaceAll(e.Reason, "\n", " "), words.And(e.Left)))
		}
	}
	return out.String()
}

// minute is how the tables write a time: UTC, without seconds.
const minute = "2006-01-02 15:04"

func (s *Soak) patience() string {
	least, most := s.Entries[0].Patience, s.Entries[0].Patience
	for _, e := range s.Entries {
		least, most = min(least, e.Patience), max(most, e.Patience)
	}
	return fmt.Sprintf("%.1f to %.1f", least, most)
}

func bad(entries []SoakEntry) (n int) {
	for _, e := range entries {
		if e.Result.Bad() {
			n++
		}
	}
	return n
}

// groups returns the entries of each name together, in the order of the names.
func groups(entries []SoakEntry, name func(SoakEntry) string) (all [][]SoakEntry) {
	by := map[string][]SoakEntry{}
	for _, e := range entries {
		by[name(e)] = append(by[name(e)], e)
	}
	for _, n := range slices.Sorted(maps.Keys(by)) {
		all = append(all, by[n])
	}
	return all
}

// quantile returns the seconds that a share of the runs that passed did not exceed, or a dash if none passed.
func quantile(of []SoakEntry, share float64) string {
	var all []float64
	for _, e := range of {
		if e.Result == report.Passed {
			all = append(all, e.Seconds)
		}
	}
	if len(all) == 0 {
		return "–"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.1f s", all[int(share*float64(len(all)-1)+0.5)])
}
