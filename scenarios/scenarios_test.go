package scenarios

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/e2e-framework/pkg/env"
	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/features"
	"sigs.k8s.io/e2e-framework/pkg/types"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

const (
	providerEnv  = "EASTWEST_PROVIDER"  // chooses the provider of the labs
	lanesEnv     = "EASTWEST_LANES"     // how many labs are used side by side; as many as CPUs and memory allow without it
	keepEnv      = "EASTWEST_KEEP"      // leaves the last lab, scenarios-1, for the next run; there is one lane only then
	mutationsEnv = "EASTWEST_MUTATIONS" // runs TestMutations
	nightlyEnv   = "EASTWEST_NIGHTLY"   // runs all scenarios with two versions of Istio
)

// reserve is what scenarios leave of the test's time for cleaning up: a `go test` that runs out of time
// panics, and then nothing is cleaned up at all.
const reserve = 2 * time.Minute

var (
	testenv env.Environment
	config  *envconf.Config
)

func TestMain(m *testing.M) {
	lab.Supervise()
	var err error
	if config, err = envconf.NewFromFlags(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	testenv = env.NewWithConfig(config)
	os.Exit(testenv.Run(m))
}

// TestScenarios runs the catalogue: every scenario is a feature of e2e-framework, labeled with its
// topology, the parts of the lesson that it teaches and the tests that run it, so that `-args --labels lesson=…`, `--feature …`,
// `--dry-run` and `--fail-fast` work. What was chosen runs side by side, see the variables above.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	chosen := newBatch(t, catalogue.Runner{Keep: os.Getenv(keepEnv) != "", OnEnded: func(e catalogue.Ending) bool {
		os.Stdout.WriteString(e.Story) // at once, so that no other comes between
		return !config.FailFast() || e.Err == nil && !e.Verdict.Result.Bad()
	}})
	var list []types.Feature
	for _, s := range load(t) {
		feature := features.New(s.Name).WithLabel("topology", string(s.Topology.Kind)).WithLabel("trust", string(s.Topology.Trust))
		for _, part := range s.Lesson {
			feature = feature.WithLabel("lesson", part)
		}
		if slices.Contains(inEachChange, s.Name) {
			feature = feature.WithLabel("tests", "change")
		}
		list = append(list, feature.
			// Only features that were chosen come here. A parallel test goes on when all others have come so far.
			Setup(func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
				t.Helper()
				chosen.add(t, s)
				return ctx
			}).
			Assess(s.Title, func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
				t.Helper()
				judge(t, chosen.ending(s))
				return ctx
			}).Feature())
	}
	testenv.Test(t, list...)
	// A label that no scenario has must not pass as a run of all.
	require.True(t, config.DryRunMode() || t.Failed() || chosen.asked, "no scenario has these labels: %v", config.Labels())
	chosen.run(t)
}

func judge(t *testing.T, e catalogue.Ending) {
	t.Helper()
	require.NoError(t, e.Err)
	switch e.Verdict.Result {
	case report.Passed:
		t.Logf("%.1f s on lab %s", e.Verdict.Seconds, e.Lab)
	case report.Skipped:
		t.Skip(e.Verdict.Reason)
	default:
		t.Errorf("%s\nevidence: %s", e.Verdict.Reason, e.Verdict.Folder)
	}
}

// TestMutations runs every scenario without its recovery: it has to fail, and in its health checks. One
// that passed would prove nothing of its recovery.
func TestMutations(t *testing.T) {
	if os.Getenv(mutationsEnv) == "" {
		t.Skip("takes as long as the catalogue: run with " + mutationsEnv + "=1, or `make mutations`")
	}
	chosen := newBatch(t, catalogue.Runner{Without: scenario.Recover})
	for _, s := range load(t) {
		if len(s.Recover) == 0 {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			chosen.add(t, s)
			e := chosen.ending(s)
			require.NoError(t, e.Err)
			if e.Verdict.Result == report.Skipped {
				t.Skip(e.Verdict.Reason)
			}
			var failed []scenario.Phase
			for _, p := range e.Phases {
				if p.Result.Bad() {
					failed = append(failed, p.Phase)
				}
			}
			assert.Equal(t, report.Failed, e.Verdict.Result, e.Story)
			assert.Equal(t, []scenario.Phase{scenario.Healthy}, failed, e.Story)
			assert.True(t, e.PutBack, "the lab is not what it was:\n%s", e.Story)
			if !t.Failed() {
				t.Logf("%.1f s on lab %s: %s", e.Verdict.Seconds, e.Lab, e.Verdict.Reason)
				require.NoError(t, os.RemoveAll(e.Verdict.Folder))
			}
		})
	}
	chosen.run(t)
}

// batch is scenarios that run together, each for a test of its own.
type batch struct {
	catalogue catalogue.Runner
	list      []*scenario.Scenario
	asked     bool // whether any scenario was chosen, skipped or not
	endings   map[string]chan catalogue.Ending
}

// newBatch reads all that can be wrong: once tests wait for their scenarios it is too late to fail.
func newBatch(t *testing.T, c catalogue.Runner) *batch {
	t.Helper()
	home, err := lab.Home()
	require.NoError(t, err)
	c.Home, c.Provider, c.Prefix = home, os.Getenv(providerEnv), "scenarios"
	c.Folder = filepath.Join(home, "runs", time.Now().Format("20060102-150405.000"))
	c.Times = measured(t).Times()
	if text := os.Getenv(lanesEnv); text != "" {
		c.Lanes, err = strconv.Atoi(text)
		require.True(t, err == nil && c.Lanes > 0, "%s=%s: wanted a number from 1", lanesEnv, text)
	}
	if c.Keep {
		c.Lanes = 1
	}
	return &batch{catalogue: c, endings: map[string]chan catalogue.Ending{}}
}

// inEachChange is what `make test` runs of the catalogue: -args --labels tests=change. Together they use multi-primary and primary-remote,
// and every phase. `make nightly` runs all.
var inEachChange = []string{
	"cluster-name-twice", "combined-root-rotation", "crl-blocks-rotation", "cross-cluster-call", "intermediate-rotation", "late-cacerts",
	"mismatched-root-ca", "policy-on-gateway", "primary-lost", "root-configmap-missing", "strict-plaintext-client", "trust-domain-mismatch",
	"upgrade-by-revision", "workload-cert-expired",
}

// needsVersions skips a scenario whose versions of Istio are not there, or that is nightly.
func needsVersions(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	if len(s.Topology.OtherIstios()) == 0 {
		return
	}
	b, err := lab.OpenBundle()
	require.NoError(t, err)
	for _, version := range s.Topology.OtherIstios() {
		if _, err := b.Istio(string(version)); err != nil {
			t.Skip(err)
		}
	}
	if !slices.Contains(inEachChange, s.Name) && os.Getenv(nightlyEnv) == "" {
		t.Skipf("it takes a lab and minutes of its own: run with %s=1, or `make nightly`", nightlyEnv)
	}
}

// add is called by the scenario's test, before anything runs. It returns when run is called.
func (b *batch) add(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	b.asked = true
	needsVersions(t, s)
	if b.catalogue.Provider == "" && os.Geteuid() != 0 {
		t.Skip("needs root: run with sudo, or choose another provider with " + providerEnv)
	}
	b.list = append(b.list, s)
	b.endings[s.Name] = make(chan catalogue.Ending, 1)
	t.Parallel()
}

// ending waits until the scenario has ended.
func (b *batch) ending(s *scenario.Scenario) catalogue.Ending { return <-b.endings[s.Name] }

// run runs what was added, beside the tests that wait for it. It is the last thing that a test does.
func (b *batch) run(t *testing.T) {
	t.Helper()
	if len(b.list) == 0 {
		return
	}
	told := b.catalogue.OnEnded
	b.catalogue.OnEnded = func(e catalogue.Ending) bool {
		goOn := told == nil || told(e)
		b.endings[e.Scenario.Name] <- e
		return goOn
	}
	ctx, cancel := t.Context(), context.CancelFunc(func() {})
	if deadline, ok := t.Deadline(); ok {
		ctx, cancel = context.WithDeadlineCause(
			ctx,
			deadline.Add(-reserve),
			fmt.Errorf("go test's own time is nearly over: give it more with -timeout"),
		)
	}
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		tally, err := b.catalogue.Run(ctx, b.list)
		fmt.Fprintf(os.Stdout, "%d scenarios in %.1f s on %d lanes, %d labs\n", len(b.list), tally.Took.Seconds(), tally.Lanes, tally.Labs)
		ended <- err
	}()
	t.Cleanup(func() { assert.NoError(t, <-ended, "taking labs down") })
}
