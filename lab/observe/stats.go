package observe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Stat checks the sum of those counters and gauges of a workload's proxies whose names match.
type Stat struct {
	// Whose proxies: an app like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of Workload `yaml:"of" ref:"workload" required:"true"`
	// Which statistics, by their names in Envoy's page /stats; those that match are summed up.
	Stat *regexp.Regexp `yaml:"stat" required:"true"`
	// The sum is at least so much.
	AtLeast *int `yaml:"at-least" min:"0"`
	// The sum is at most so much.
	AtMost *int `yaml:"at-most" min:"0"`
	// Whether the sum grows within a few seconds. Proxies count from their start, so that what earlier scenarios left is
	// in it.
	Grows *bool `yaml:"grows"`
}

// Validate wants something to compare with.
func (c Stat) Validate() error {
	if c.AtLeast == nil && c.AtMost == nil && c.Grows == nil {
		return errors.New("want at-least, at-most, or grows")
	}
	if c.AtLeast != nil && c.AtMost != nil && *c.AtLeast > *c.AtMost {
		return strict.At("at-most", fmt.Errorf("less than at-least: %d", *c.AtLeast))
	}
	return nil
}

var _ Check = Stat{}

func (c Stat) wanted() string {
	var wanted []string
	if c.AtLeast != nil {
		wanted = append(wanted, fmt.Sprintf("is at least %d", *c.AtLeast))
	}
	if c.AtMost != nil {
		wanted = append(wanted, fmt.Sprintf("is at most %d", *c.AtMost))
	}
	if c.Grows != nil && *c.Grows {
		wanted = append(wanted, "grows")
	}
	if c.Grows != nil && !*c.Grows {
		wanted = append(wanted, "does not grow")
	}
	return fmt.Sprintf("the proxy statistic %s of %s %s", quoted(c.Stat), c.Of, words.And(wanted))
}

func (c Stat) String() string { return c.wanted() }

// Command implements Check.
func (c Stat) Command() string {
	return fmt.Sprintf("kubectl --context=%s exec -n %s %s -c %s -- pilot-agent request GET stats | %s",
		c.Of.Cluster, mesh.NamespaceOf(c.Of.App), c.Of.object(), ProxyContainer, grep(c.Stat))
}

const (
	growth     = 4 * time.Second // how long a statistic may take to grow
	standstill = 2 * time.Second // how long a statistic must not grow
)

// Look implements Check.
func (c Stat) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	sum, seen, err := c.read(ctx, m)
	if err != nil {
		return "", err
	}
	mismatch := &Mismatch{Wanted: c.wanted(), Seen: seen}
	if c.AtLeast != nil && sum < *c.AtLeast || c.AtMost != nil && sum > *c.AtMost {
		return seen, mismatch
	}
	if c.Grows == nil {
		return seen, nil
	}
	within := growth
	if !*c.Grows {
		within = standstill
	}
	before := sum
	o := wait.Options{Within: within, Every: 200 * time.Millisecond}
	err = wait.Until(ctx, "the statistic to grow", o, func(ctx context.Context) error {
		var err error
		if sum, seen, err = c.read(ctx, m); err == nil && sum <= before {
			err = fmt.Errorf("it is %d, as before", sum)
		}
		return err
	})
	if err != nil && !errors.Is(err, wait.ErrTimeout) {
		return "", err
	}
	if err != nil {
		seen = fmt.Sprintf("%d, and %d after %s", before, sum, wait.Bound(within))
	} else {
		seen = fmt.Sprintf("%d, then %d: %s", before, sum, seen)
	}
	if *c.Grows != (err == nil) {
		mismatch.Seen = seen
		return seen, mismatch
	}
	return seen, nil
}

func (c Stat) read(ctx context.Context, m *mesh.Mesh) (sum int, seen string, err error) {
	member, pods, err := All.pods(ctx, m, c.Of)
	if err != nil {
		return 0, "", err
	}
	var all []string
	zeros := 0
	for _, p := range pods {
		page, err := member.Admin(ctx, p, "/stats?filter="+url.QueryEscape(c.Stat.String()))
		if err != nil {
			return 0, "", err
		}
		n, lines, silent := parseStats(string(page), c.Stat)
		sum, zeros = sum+n, zeros+silent
		all = append(all, lines...)
	}
	switch {
	case len(all) == 0 && zeros == 0:
		return 0, "no such statistic", nil
	case len(all) == 0:
		return 0, words.Plural(zeros, "statistic") + " at 0", nil
	}
	slices.Sort(all)
	return sum, fmt.Sprintf("%d (%s)", sum, words.Short(strings.Join(all, ", "), 300)), nil
}

// parseStats adds up the numbers on Envoy's page /stats. It returns the lines of those that are not 0, and counts those
// that are.
func parseStats(page string, stat *regexp.Regexp) (sum int, lines []string, zeros int) {
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, ": ")
		n, err := strconv.Atoi(value)
		switch {
		case !ok || err != nil || !stat.MatchString(name):
		case n == 0:
			zeros++
		default:
			sum += n
			lines = append(lines, line)
		}
	}
	return sum, lines, zeros
}

// IstiodStat checks the sum of those metrics of an istiod whose names and labels match.
type IstiodStat struct {
	// Whose istiod.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// Which metrics, by their names and labels on its page /metrics; those that match are summed up.
	Stat *regexp.Regexp `yaml:"stat" required:"true"`
	// The sum is at least so much.
	AtLeast *float64 `yaml:"at-least"`
	// The sum is at most so much.
	AtMost *float64 `yaml:"at-most"`
}

// Validate wants something to compare with.
func (c IstiodStat) Validate() error {
	if c.AtLeast == nil && c.AtMost == nil {
		return errors.New("want at-least or at-most")
	}
	return nil
}

var _ Check = IstiodStat{}

func (c IstiodStat) String() string {
	var wanted []string
	if c.AtLeast != nil {
		wanted = append(wanted, fmt.Sprintf("is at least %g", *c.AtLeast))
	}
	if c.AtMost != nil {
		wanted = append(wanted, fmt.Sprintf("is at most %g", *c.AtMost))
	}
	return fmt.Sprintf("the metric %s of istiod in %s %s", quoted(c.Stat), c.In, words.And(wanted))
}

// Command implements Check. The image has no shell and no curl.
func (c IstiodStat) Command() string {
	return fmt.Sprintf("kubectl --context=%s get --raw /api/v1/namespaces/%s/services/%s:15014/proxy/metrics | %s",
		c.In, mesh.SystemNamespace, mesh.Istiod, grep(c.Stat))
}

// Look implements Check.
func (c IstiodStat) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	page, err := member.IstiodDebug(ctx, "/metrics")
	if err != nil {
		return "", err
	}
	sum, lines := parseMetrics(string(page), c.Stat)
	seen := "no such metric"
	if len(lines) > 0 {
		seen = fmt.Sprintf("%g (%s)", sum, words.Short(strings.Join(lines, ", "), 300))
	}
	if len(lines) == 0 && c.AtLeast != nil || c.AtLeast != nil && sum < *c.AtLeast || c.AtMost != nil && sum > *c.AtMost {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen}
	}
	return seen, nil
}

// parseMetrics adds up the samples that match on a page in Prometheus' text format, and returns their lines.
func parseMetrics(page string, stat *regexp.Regexp) (sum float64, lines []string) {
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") || !stat.MatchString(line[:at]) {
			continue
		}
		if n, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			sum += n
			lines = append(lines, line)
		}
	}
	return sum, lines
}
