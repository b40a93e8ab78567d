package report

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Timetable is an upgrade of Istio, state by state: what the mesh was like before the first change and after each, and what became of
// the calls of each stream on the way to it. The JSON names are stable.
type Timetable struct {
	States []TimetableState `json:"states"`
}

// TimetableState is a column. It begins when the change before it ended, so that it has the checks that stood between the two, and
// ends with its own change. The first one is the time before all changes, the last one the time after them.
type TimetableState struct {
	Number   int               `json:"number"` // of the change
	Label    string            `json:"label"`
	Phase    string            `json:"phase,omitempty"`
	Result   Result            `json:"result,omitempty"` // of the change
	From     time.Time         `json:"from"`
	To       time.Time         `json:"to"`
	Seconds  float64           `json:"seconds"` // of the change alone
	Clusters []ClusterState    `json:"clusters,omitempty"`
	Streams  []TimetableStream `json:"streams,omitempty"`
}

// TimetableStream is what became of the calls of a stream that started in a state, whenever they ended.
type TimetableStream struct {
	Stream            string  `json:"stream"`
	Calls             int     `json:"calls"`
	Lost              int     `json:"lost"`
	LongestGapSeconds float64 `json:"longestGapSeconds"`
	Because           string  `json:"because,omitempty"` // the most frequent reason of the losses
}

// Labels of the states that no change ends.
const (
	stateBefore = "before"
	stateAfter  = "after"
)

// Recordings reads the recordings in a run folder, sorted by their streams. A run that was killed has none.
func Recordings(dir string) (all []*traffic.Recording, err error) {
	files, err := fs.Glob(os.DirFS(dir), "traffic-*.json") // the name of the folder is no pattern
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		r, failed := traffic.Load(filepath.Join(dir, file))
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *traffic.Recording) int { return strings.Compare(a.Stream, b.Stream) })
	return all, err
}

// TimetableIn makes the timetable of a run folder whose events these are.
func TimetableIn(dir string, events []Event) (*Timetable, error) {
	if !slices.ContainsFunc(events, func(e Event) bool { return e.State != nil }) {
		return nil, nil
	}
	recordings, err := Recordings(dir)
	return TimetableOf(events, recordings), err
}

// TimetableOf makes the timetable of a run of one scenario; nil if its events hold no state. A call belongs to the state in which it
// started. A gap is cut where a state ends.
func TimetableOf(events []Event, recordings []*traffic.Recording) *Timetable {
	var t Timetable
	var from, last time.Time
	var ended Event // the last step that did
	for _, e := range events {
		last = e.Time
		switch e.Type {
		case ScenarioStarted:
			from, ended, t.States = e.Time, Event{}, nil // of several scenarios, the last one
		case StepEnded:
			ended = e
		case StateRead:
			if e.State == nil {
				continue
			}
			s := TimetableState{Number: len(t.States), Label: e.Name, Phase: e.Phase, From: from, To: e.Time, Clusters: e.State.Clusters}
			if s.Number == 0 {
				s.Label = cmp.Or(s.Label, stateBefore)
			} else { // reading the state is no part of the change
				s.To, s.Result, s.Seconds = ended.Time, ended.Result, ended.Seconds
			}
			from, t.States = s.To, append(t.States, s)
		}
	}
	if len(t.States) == 0 {
		return nil
	}
	if len(recordings) > 0 { // the last state ends with the last call: putting the mesh back is no part of it
		last = from
	}
	for _, r := range recordings {
		if r.Ended.After(last) {
			last = r.Ended
		}
	}
	t.States = append(t.States, TimetableState{Number: len(t.States), Label: stateAfter, From: from, To: last})
	for i := range t.States {
		s := &t.States[i]
		for _, r := range recordings {
			to := s.To
			if i == len(t.States)-1 { // the very last call, too
				to = to.Add(time.Nanosecond)
			}
			s.Streams = append(s.Streams, streamIn(r, s.From, to))
		}
	}
	return &t
}

func streamIn(r *traffic.Recording, from, to time.Time) TimetableStream {
	in := TimetableStream{Stream: r.Stream}
	w := r.Between(from, to)
	if !w.From.Before(w.To) && len(w.Calls) == 0 { // nothing was recorded then
		return in
	}
	stats := w.Stats()
	in.Calls, in.Lost, in.LongestGapSeconds = stats.Calls, stats.Lost, stats.LongestGapSeconds
	if len(stats.Errors) > 0 {
		in.Because = Redact(stats.Errors[0].Text)
	}
	return in
}

// Lost is how many calls were lost in all.
func (t *Timetable) Lost() (n int) {
	for _, s := range t.States {
		n += s.Lost()
	}
	return n
}

// Lost is how many calls were lost in a state.
func (s TimetableState) Lost() (n int) {
	for _, stream := range s.Streams {
		n += stream.Lost
	}
	return n
}

// Title is the head of the state's column.
func (s TimetableState) Title() string {
	if s.Number == 0 || s.Label == stateAfter {
		return s.Label
	}
	title := fmt.Sprintf("%d %s", s.Number, s.Label)
	if s.Result.Bad() {
		title += " (" + string(s.Result) + ")"
	}
	return title
}

// Text is what became of the calls, in a cell.
func (s TimetableStream) Text() string {
	if s.Calls == 0 {
		return "no calls"
	}
	gap := time.Duration(s.LongestGapSeconds * float64(time.Second))
	return fmt.Sprintf("%s, %d lost, gap %s", words.Plural(s.Calls, "call"), s.Lost, hundredths(gap))
}

func hundredths(d time.Duration) string {
	if d >= 10*time.Second {
		return words.Seconds(d)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// TimetableRow is a row: what one thing of a cluster, or a stream, was in each state.
type TimetableRow struct {
	Group string // the cluster, or "calls"
	Name  string
	Cells []TimetableCell
}

// TimetableCell is a cell.
type TimetableCell struct {
	Text    string
	Changed bool // from the state before it
	Bad     bool
}

// timetableCalls is the group of the rows of streams.
const timetableCalls = "calls"

// Rows are the rows of the table: those of each cluster, then a row for each stream.
func (t *Timetable) Rows() (rows []TimetableRow) {
	versions := t.versions()
	for _, cluster := range t.clusters() {
		for _, what := range []struct {
			name string
			cell func(ClusterState) string
		}{
			{"control planes", func(c ClusterState) string { return c.planes(versions) }},
			{"proxies", func(c ClusterState) string { return counts(c.Proxies, versions, "none") }},
			{"gateway", func(c ClusterState) string { return counts(c.Gateway, versions, "none") }},
			{"tags", ClusterState.tags},
			{"new pods", func(c ClusterState) string { return cmp.Or(c.Injection, "no proxy") }},
			{"validation", ClusterState.validation},
			{"roots", func(c ClusterState) string { return inUse(c.Roots) }},
			{"issuers", func(c ClusterState) string { return inUse(c.Issuers) }},
		} {
			row := TimetableRow{Group: cluster, Name: what.name}
			before := ""
			for i, s := range t.States {
				at := slices.IndexFunc(s.Clusters, func(c ClusterState) bool { return c.Cluster == cluster })
				if at < 0 { // nobody read it: at the end nothing was changed any more
					row.Cells = append(row.Cells, TimetableCell{})
					continue
				}
				cell := TimetableCell{Text: what.cell(s.Clusters[at])}
				if s.Clusters[at].Unread[what.name] != "" {
					cell.Text = "not read"
				}
				cell.Changed = i > 0 && cell.Text != before
				cell.Bad = strings.Contains(cell.Text, gone) || strings.Contains(cell.Text, notReady) || strings.HasPrefix(cell.Text, "refused")
				before, row.Cells = cell.Text, append(row.Cells, cell)
			}
			rows = append(rows, row)
		}
	}
	for i, stream := range t.States[0].Streams {
		row := TimetableRow{Group: timetableCalls, Name: stream.Stream}
		for _, s := range t.States {
			row.Cells = append(row.Cells, TimetableCell{Text: s.Streams[i].Text(), Bad: s.Streams[i].Lost > 0})
		}
		rows = append(rows, row)
	}
	return rows
}

func (t *Timetable) clusters() (names []string) {
	for _, s := range t.States {
		for _, c := range s.Clusters {
			names = append(names, c.Cluster)
		}
	}
	return words.Unique(names)
}

const (
	gone     = "(gone)"
	notReady = "(not Ready)"
)

// versions returns the short form of each version, 1.31 for 1.31-eed52ebb66ad, as long as no two have the same.
func (t *Timetable) versions() func(string) string {
	long := map[string]string{} // by short form
	for _, s := range t.States {
		for _, c := range s.Clusters {
			var all []string
			for _, p := range c.ControlPlanes {
				all = append(all, p.Version)
			}
			for _, p := range slices.Concat(c.Proxies, c.Gateway) {
				all = append(all, p.Version)
			}
			for _, version := range all {
				short, _, _ := strings.Cut(version, "-")
				if other, known := long[short]; known && other != version {
					return func(version string) string { return version }
				}
				long[short] = version
			}
		}
	}
	return func(version string) string {
		short, _, _ := strings.Cut(version, "-")
		return short
	}
}

func (c ClusterState) planes(versions func(string) string) string {
	var all []string
	for _, p := range c.ControlPlanes {
		text := p.Revision + ": " + versions(p.Version)
		if !p.Ready {
			text += " " + notReady
		}
		all = append(all, text)
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

func counts(proxies []ProxyCount, versions func(string) string, none string) string {
	var all []string
	for _, p := range proxies {
		by := "by nobody"
		if p.Revision != "" {
			by = "by " + p.Revision
		}
		all = append(all, fmt.Sprintf("%d × %s %s", p.Count, versions(p.Version), by))
	}
	return cmp.Or(strings.Join(all, ", "), none)
}

func (c ClusterState) tags() string {
	var all []string
	for _, tag := range slices.Sorted(maps.Keys(c.Tags)) {
		all = append(all, tag+" → "+c.Tags[tag])
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

// validation shows where objects go that are no revision's, and every other webhook that leads nowhere.
func (c ClusterState) validation() string {
	var all, labelled []string
	for _, w := range c.Validation {
		text := w.Service
		if w.Gone {
			text += " " + gone
		}
		switch {
		case !w.Labelled:
			all = append(all, text)
		case w.Gone:
			labelled = append(labelled, w.Name+" → "+text)
		}
	}
	if len(all) == 0 {
		all = []string{"off"}
	}
	return strings.Join(words.Unique(append(all, labelled...)), ", ")
}

// inUse is one value if all proxies agree.
func inUse(sets []InUse) string {
	if len(sets) == 1 {
		return sets[0].Certificates
	}
	var all []string
	for _, s := range sets {
		all = append(all, fmt.Sprintf("%d × %s", s.Proxies, s.Certificates))
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

// Unread are sentences about what could not be read.
func (t *Timetable) Unread() (all []string) {
	for _, s := range t.States {
		for _, c := range s.Clusters {
			for _, what := range slices.Sorted(maps.Keys(c.Unread)) {
				all = append(all, fmt.Sprintf("%s: %s of %s: %s", s.Title(), what, c.Cluster, words.Short(c.Unread[what], 200)))
			}
		}
	}
	return all
}

// Losses are sentences about the calls that were lost, in the order of the states.
func (t *Timetable) Losses() (all []string) {
	for _, s := range t.States {
		for _, stream := range s.Streams {
			if stream.Lost > 0 {
				all = append(all, fmt.Sprintf("%s: %d of %s of %s, %s", s.Title(), stream.Lost, words.Plural(stream.Calls, "call"),
					stream.Stream, words.Short(stream.Because, 200)))
			}
		}
	}
	return all
}

// Says is the timetable in a line.
func (t *Timetable) Says() string {
	calls, changes := 0, 0
	for _, s := range t.States {
		if s.Number > 0 && s.Label != stateAfter {
			changes++
		}
		for _, stream := range s.Streams {
			calls += stream.Calls
		}
	}
	if calls == 0 {
		return fmt.Sprintf("%s, and no calls are recorded", words.Plural(changes, "change"))
	}
	text := fmt.Sprintf("%s, %s, %d lost", words.Plural(changes, "change"), words.Plural(calls, "call"), t.Lost())
	if losses := t.Losses(); len(losses) > 0 {
		text += " (" + strings.Join(losses, "; ") + ")"
	}
	return text
}

// Write writes the timetable for a terminal, which has no room for a column for each state: a row for each state with its calls, and
// what changed in the mesh. Without losses it is one line, unless all is wanted.
func (t *Timetable) Write(out io.Writer, all bool) error {
	if t.Lost() == 0 && !all {
		_, err := fmt.Fprintf(out, "upgrade: %s\n", t.Says())
		return err
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "STATE\tSECONDS\tCALLS\tLOST\tLONGEST GAP\n")
	for _, s := range t.States {
		calls, gap := 0, TimetableStream{}
		for _, stream := range s.Streams {
			calls += stream.Calls
			if stream.LongestGapSeconds > gap.LongestGapSeconds {
				gap = stream
			}
		}
		longest := "–"
		if gap.Stream != "" {
			longest = fmt.Sprintf("%s, %s", hundredths(time.Duration(gap.LongestGapSeconds*float64(time.Second))), gap.Stream)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%s\n", s.Title(), s.To.Sub(s.From).Seconds(), calls, s.Lost(), longest)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(out, "\n%s\n", title)
		for _, line := range lines {
			fmt.Fprintf(out, "  %s\n", harmless(line))
		}
	}
	section("lost", t.Losses())
	section("the mesh", t.changes())
	section("not read", t.Unread())
	return nil
}

// changes are lines about what the mesh was, and what each change made of it.
func (t *Timetable) changes() (lines []string) {
	rows := t.Rows()
	for i, s := range t.States {
		var made []string
		for _, r := range rows {
			if r.Group == timetableCalls || r.Cells[i].Text == "" || i > 0 && !r.Cells[i].Changed {
				continue
			}
			made = append(made, fmt.Sprintf("  %s: %s %s", r.Group, pad(r.Name, len("control planes")), r.Cells[i].Text))
		}
		if len(made) > 0 {
			lines = append(append(lines, s.Title()), made...)
		}
	}
	return lines
}

// Markdown is the whole table.
func (t *Timetable) Markdown() string {
	var b strings.Builder
	head, line := []string{"", ""}, "| --- | --- |"
	for _, s := range t.States {
		head, line = append(head, escapeMarkdown(s.Title())), line+" --- |"
	}
	b.WriteString(words.Row(head...))
	b.WriteString(line + "\n")
	group := ""
	for _, r := range t.Rows() {
		cells := []string{"", escapeMarkdown(r.Name)}
		if r.Group != group {
			cells[0], group = escapeMarkdown(r.Group), r.Group
		}
		for _, c := range r.Cells {
			text := escapeMarkdown(c.Text)
			if text != "" && (c.Bad || c.Changed) {
				text = "**" + text + "**"
			}
			cells = append(cells, text)
		}
		b.WriteString(words.Row(cells...))
	}
	for _, sentence := range t.Unread() {
		fmt.Fprintf(&b, "\nNot read: %s.\n", escapeMarkdown(sentence))
	}
	return b.String()
}

func escapeMarkdown(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`).Replace(text)
}
