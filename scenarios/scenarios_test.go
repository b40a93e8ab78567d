package scenarios

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/e2e-framework/pkg/env"
	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/features"
	"sigs.k8s.io/e2e-framework/pkg/types"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// providerEnv chooses the provider of the labs; keepEnv leaves the last lab for the next run.
const (
	providerEnv = "EASTWEST_PROVIDER"
	keepEnv     = "EASTWEST_KEEP"
	labName     = "scenarios"
)

// reserve is what each scenario leaves of the test's time for cleaning up: a `go test` that runs out of
// time panics, and then nothing is cleaned up at all.
const reserve = 2 * time.Minute

var (
	testenv env.Environment
	current *lab.Lab // the lab that is up; scenarios with the same topology share it
)

func TestMain(m *testing.M) {
	lab.Supervise()
	config, err := envconf.NewFromFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	testenv = env.NewWithConfig(config)
	testenv.Finish(func(ctx context.Context, _ *envconf.Config) (context.Context, error) {
		return ctx, closeLab(ctx, os.Getenv(keepEnv) != "")
	})
	os.Exit(testenv.Run(m))
}

// TestScenarios runs the catalogue: every scenario is a feature of e2e-framework, labeled with its
// topology and the parts of the lesson that it teaches, so that `-args --labels lesson=…`, `--feature …`,
// `--dry-run` and `--fail-fast` work.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	all := load(t)
	// Equal topologies follow each other, so that each needs one lab.
	slices.SortStableFunc(all, func(a, b *scenario.Scenario) int { return strings.Compare(topology(a), topology(b)) })
	var list []types.Feature
	for _, s := range all {
		feature := features.New(s.Name).WithLabel("topology", string(s.Topology.Kind)).WithLabel("trust", string(s.Topology.Trust))
		for _, part := range s.Lesson {
			feature = feature.WithLabel("lesson", part)
		}
		list = append(list, feature.Assess(s.Title, func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
			t.Helper()
			run(ctx, t, s)
			return ctx
		}).Feature())
	}
	testenv.Test(t, list...)
}

func run(ctx context.Context, t *testing.T, s *scenario.Scenario) {
	t.Helper()
	if os.Getenv(providerEnv) == "" && os.Geteuid() != 0 {
		t.Skip("needs root: run with sudo, or choose another provider with " + providerEnv)
	}
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-reserve), fmt.Errorf("go test's own time is nearly over: give it more with -timeout"))
		defer cancel()
	}
	home, err := lab.Home()
	require.NoError(t, err)
	open(ctx, t, home, s.Topology)
	folder, err := report.NewFolder(filepath.Join(home, "runs", time.Now().Format("20060102-150405.000"), s.Name))
	require.NoError(t, err)
	// Quiet when green, complete when red.
	verdict, err := current.Run(ctx, s, lab.RunOptions{Folder: folder, Sink: report.Multi(folder, report.Terminal(os.Stdout, report.TerminalOptions{Folder: folder.Dir()}))})
	require.NoError(t, folder.Close())
	require.NoError(t, err)
	switch verdict.Result {
	case report.Passed:
		require.NoError(t, os.RemoveAll(filepath.Dir(folder.Dir())))
	case report.Skipped:
		t.Skip(verdict.Reason)
	default:
		t.Errorf("%s\nevidence: %s", verdict.Reason, folder.Dir())
	}
}

// open makes sure that the current lab has the topology and is as it was made.
func open(ctx context.Context, t *testing.T, home string, topology scenario.Topology) {
	t.Helper()
	o := lab.Options{Home: home, Name: labName, Provider: os.Getenv(providerEnv), Topology: topology}
	if current != nil && !current.Suits(topology) {
		require.NoError(t, closeLab(ctx, false))
	}
	if current != nil {
		return
	}
	var err error
	current, err = lab.Up(ctx, o)
	require.NoError(t, err)
}

func closeLab(ctx context.Context, keep bool) error {
	if current == nil {
		return nil
	}
	current.Close()
	current = nil
	if keep {
		return nil
	}
	home, err := lab.Home()
	if err != nil {
		return err
	}
	return lab.Down(ctx, home, labName)
}
