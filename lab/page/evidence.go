package page

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// evidence is what a page says of a run's evidence. The whole is tens of megabytes: the page lists it, shows the short texts that
// people read first, and has the lines of logs that stand out.
type evidence struct {
	files    []fileView // the first of them
	count    int        // of all
	shown    []textFile
	clusters []look.Cluster // what certificates.txt says
	logs     []logLine      // by time
}

type fileView struct {
	Name string
	Size string
}

type textFile struct {
	Name, Text string
	Part       string // which, where it is not all of the file
}

// logLine is a line that stands out: a warning, an error, a call that failed.
type logLine struct {
	at       time.Time
	who      string // cluster/namespace.pod/container
	text     string
	likeness string // the text without what differs from one line to the next
}

// Bounds of what is read and shown, so that a page stays small.
const (
	mostOfFile = 8 << 20 // bytes that are read, from the end
	mostOfText = 48 << 10
	mostFiles  = 400
	mostOfLine = 400
)

func readEvidence(dir string) (evidence, error) {
	var e evidence
	root := filepath.Join(dir, "evidence")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = report.Redact(filepath.ToSlash(name))
		e.count++
		if len(e.files) < mostFiles {
			e.files = append(e.files, fileView{name, size(info.Size())})
		}
		switch {
		case filepath.Base(name) == "certificates.txt", name == "problems.txt":
			text, err := tail(path, mostOfFile)
			text = report.Redact(text)
			if cluster, isCertificates := strings.CutSuffix(name, "/certificates.txt"); isCertificates {
				e.clusters = append(e.clusters, look.Cluster{Name: cluster, Holders: holdersOf(text)})
			}
			shown := textFile{Name: name, Text: lastLines(text, mostOfText)}
			if len(shown.Text) < len(text) || info.Size() > mostOfFile {
				shown.Part = fmt.Sprintf("the last %s of %s", size(int64(len(shown.Text))), size(info.Size()))
			}
			e.shown = append(e.shown, shown)
			return err
		case strings.HasSuffix(name, ".log") && strings.Contains(name, "/pods/"):
			text, err := tail(path, mostOfFile)
			who := strings.TrimSuffix(strings.Replace(name, "/pods/", "/", 1), ".log")
			e.logs = append(e.logs, standingOut(who, text)...)
			return err
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return evidence{}, fmt.Errorf("reading evidence: %w", err)
	}
	slices.SortStableFunc(e.logs, func(a, b logLine) int { return a.at.Compare(b.at) })
	return e, nil
}

// tail reads the end of a file, in whole lines.
func tail(path string, most int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, most))
	text := string(data)
	if info.Size() > most {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text, err
}

// lastLines returns the end of a text, in whole lines. It keeps nothing else of the text.
func lastLines(text string, most int) string {
	if len(text) <= most {
		return text
	}
	_, text, _ = strings.Cut(text[len(text)-most:], "\n")
	return strings.Clone(text)
}

func size(bytes int64) string {
	if bytes < 10_000 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%d kB", bytes/1000)
}

var (
	// The beginning of a line: of istiod, of a sidecar, and of its access log.
	lineTime = regexp.MustCompile(`^\[?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)\]?\s+`)
	// A level, or a status of an access log that is no success. A connection without HTTP has
	// status 0; with a flag after it, it failed.
	standsOut = regexp.MustCompile(`^(?:(?:error|warn|warning|fatal)\b|"[^"]*" (?:[45]\d\d |0 [A-Z]))`)
	differs   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{20,}|\d+`)
)

func standingOut(who, text string) (found []logLine) {
	for line := range strings.Lines(text) {
		m := lineTime.FindStringSubmatchIndex(line)
		if m == nil || !standsOut.MatchString(line[m[1]:]) {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, line[m[2]:m[3]])
		if err != nil {
			continue
		}
		rest := line[m[1]:]
		likeness := who + differs.ReplaceAllString(rest[:min(len(rest), 240)], "0")
		found = append(found, logLine{at, who, strings.Clone(strings.TrimSpace(rest)), likeness}) // and nothing else of the file
	}
	return found
}

// excerpt is what stood out in a stretch of time, the latest last: of lines that are alike the last one, and how many there were.
func excerpt(all []logLine, from, to time.Time, most int) (shown []string) {
	first, _ := slices.BinarySearchFunc(all, from, func(l logLine, t time.Time) int { return l.at.Compare(t) })
	counts := map[string]int{}
	last := map[string]logLine{}
	var order []string
	for _, l := range all[first:] {
		if l.at.After(to) {
			break
		}
		if counts[l.likeness]++; counts[l.likeness] == 1 {
			order = append(order, l.likeness)
		}
		last[l.likeness] = l
	}
	slices.SortStableFunc(order, func(a, b string) int { return last[a].at.Compare(last[b].at) })
	if left := len(order) - most; left > 0 {
		shown = append(shown, fmt.Sprintf("… before these, %s of other kinds", words.Plural(left, "line")))
		order = order[left:]
	}
	for _, likeness := range order {
		l := last[likeness]
		// Half a secret is none that Redact knows: it comes before the cut.
		text := fmt.Sprintf("%s %s: %s", l.at.UTC().Format("15:04:05.000"), l.who, words.Short(report.Redact(l.text), mostOfLine))
		if n := counts[likeness] - 1; n > 0 {
			text += fmt.Sprintf(" (and %d more like it)", n)
		}
		shown = append(shown, text)
	}
	return shown
}
