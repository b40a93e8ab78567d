package provider

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

var update = flag.Bool("update", false, "write the results of Kubernetes' tests into kubernetes.md")

const (
	kubernetesLab = labName + "-kubernetes"
	resultsFile   = "kubernetes.md"
	perCluster    = 2 // runs side by side: most of the tests wait most of their time
)

//go:embed kubernetes.txt
var selection string

// selected are the full names of the tests.
func selected() []string {
	var names []string
	for line := range strings.Lines(selection) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names
}

// TestKubernetesConformance runs the selection on the provider under test: `make conformance`.
func TestKubernetesConformance(t *testing.T) {
	chosen := os.Getenv("EASTWEST_CONFORMANCE")
	if chosen == "" {
		t.Skip("builds Kubernetes' tests and runs some of them, for minutes: make conformance")
	}
	provider := labs.NeedProvider(t)
	labs.Need(t)
	made, err := bundle.BuildConformance(t.Context(), bundle.BuildOptions{Progress: func(p bundle.Progress) {
		if p.State == bundle.Done || p.State == bundle.Failed {
			t.Log(p.Component, p.State, p.Took.Round(time.Second), p.Detail)
		}
	}})
	require.NoError(t, err)
	l := labs.Up(t, lab.Options{Name: kubernetesLab, Provider: provider, Topology: scenario.Topology{Kind: scenario.NoMesh}})
	for _, c := range l.Clusters {
		loader, ok := c.(cluster.ImageLoader)
		if !ok {
			t.Skipf("clusters of the provider %s take no images from files", provider)
		}
		for _, image := range made.Images() {
			require.NoError(t, loader.LoadImage(t.Context(), image.Archive))
		}
	}

	names := selected()
	if chosen != "1" { // a pattern, to look at some of them
		of := regexp.MustCompile(chosen)
		names = slices.DeleteFunc(names, func(name string) bool { return !of.MatchString(name) })
		require.NotEmpty(t, names, "kubernetes.txt has none of them")
	}
	results := make([]map[string]result, perCluster*len(l.Clusters))
	var group errgroup.Group
	for i := range results {
		var share []string
		for k := i; k < len(names); k += len(results) {
			share = append(share, names[k])
		}
		if len(share) == 0 {
			continue
		}
		group.Go(func() (err error) {
			results[i], err = runKubernetes(t, l, l.Clusters[i%len(l.Clusters)].Name(), made.Bin("e2e"), share)
			return err
		})
	}
	require.NoError(t, group.Wait())
	all := map[string]result{}
	for _, r := range results {
		for name, one := range r {
			all[name] = one
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			one, ran := all[name]
			require.True(t, ran, "Kubernetes %s has no such test", made.Versions()["conformance"])
			if one.state != passed {
				t.Errorf("%s\n%s", one.state, one.message)
			}
		})
	}
	if *update {
		require.Equal(t, "1", chosen, "the table is of all tests")
		require.NoError(t, writeResults(provider, made.Versions()["conformance"], names, all))
	}
}

// passed is Ginkgo's word.
const passed = "passed"

type result struct {
	state   string
	message string
}

// runKubernetes runs tests on one cluster and returns the results of those that there are, by full name.
func runKubernetes(t *testing.T, l *lab.Lab, cluster, e2e string, names []string) (map[string]result, error) {
	dir := t.TempDir()
	patterns := make([]string, len(names))
	for i, name := range names {
		patterns[i] = " " + regexp.QuoteMeta(name) + "$"
	}
	report := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(
		t.Context(),
		e2e,
		"--kubeconfig="+l.Env().Kubeconfig,
		"--context="+cluster,
		"--provider=skeleton",
		"--kubectl-path="+filepath.Join(l.Env().BinDir, "kubectl"),
		"--e2e-output-dir="+dir,
		"--ginkgo.focus="+strings.Join(patterns, "|"),
		"--ginkgo.json-report="+report,
		"--ginkgo.no-color",
		"--ginkgo.timeout=20m",
	)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // a failed test is told by the report
		return nil, fmt.Errorf("running Kubernetes' tests: %w", err)
	}
	data, rerr := os.ReadFile(report)
	if rerr != nil {
		return nil, fmt.Errorf("Kubernetes' tests left no report: %w\n%s", errors.Join(err, rerr), out)
	}
	results, err := readReport(data)
	if testing.Verbose() && len(names) < 3 {
		t.Logf("%s", out)
	}
	if err == nil && len(results) == 0 {
		err = fmt.Errorf("Kubernetes' tests ran none of %q:\n%s", names, out)
	}
	return results, err
}

// readReport reads Ginkgo's report: tests that were run, by full name.
func readReport(data []byte) (map[string]result, error) {
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("reading the report of Kubernetes' tests: %w", err)
	}
	results := map[string]result{}
	for _, r := range reports {
		for _, s := range r.SpecReports {
			switch {
			case s.LeafNodeType != "It" && s.State != passed:
				return nil, fmt.Errorf("Kubernetes' tests could not begin or end: %s: %s", s.LeafNodeType, s.Failure.Message)
			case s.LeafNodeType == "It" && (s.State != "skipped" || s.Failure.Message != ""): // without a message it was not asked for
				results[strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")] = result{s.State, s.Failure.Message}
			}
		}
	}
	return results, nil
}

// columns are the providers in the table.
var columns = []string{lab.Embedded, lab.Kind}

// notRun stands where a provider has not been asked.
const notRun = "not run"

// writeResults writes one provider's column of the table anew.
func writeResults(provider, version string, names []string, all map[string]result) error {
	old, err := readTable()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, `# Kubernetes' own conformance tests

Code generated by make conformance; DO NOT EDIT.

These tests of Kubernetes %s are run on clusters of each provider, in images that are built from the same module. Which, and why
not others: `+"[kubernetes.txt](kubernetes.txt)"+`.

| test | %s |
|---|%s
`, version, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, name := range names {
		fmt.Fprintf(&text, "| %s |", strings.ReplaceAll(name, "|", `\|`))
		for i, column := range columns {
			state := notRun
			if row, ok := old[name]; ok && i < len(row) {
				state = row[i]
			}
			if column == provider {
				state = all[name].state
			}
			fmt.Fprintf(&text, " %s |", state)
		}
		text.WriteString("\n")
	}
	return os.WriteFile(resultsFile, []byte(text.String()), 0o644)
}

// readTable returns the states in the table, by test, in the order of the columns.
func readTable() (map[string][]string, error) {
	file, err := os.Open(resultsFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows := map[string][]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		cells := strings.Split(strings.Trim(lines.Text(), "| "), " | ")
		if strings.HasPrefix(cells[0], "[sig-") {
			rows[cells[0]] = cells[1:]
		}
	}
	return rows, lines.Err()
}

// TestResultsAreOfTheSelection holds the table to the list, and lets no failure stand in it.
func TestResultsAreOfTheSelection(t *testing.T) {
	names := selected()
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(names))), len(names), "kubernetes.txt names a test twice")
	rows, err := readTable()
	require.NoError(t, err)
	require.Len(t, rows, len(names), "kubernetes.md is not of the tests in kubernetes.txt; run `make conformance`")
	for _, name := range names {
		require.Contains(t, name, "[Conformance]")
		require.Contains(t, rows, name, "run `make conformance`")
		for _, state := range rows[name] {
			require.Contains(t, []string{passed, notRun}, state, name)
		}
	}
}

// The reports are Ginkgo's own, of a dry run and of a run without a cluster, shortened to what is read.
func TestReadReport(t *testing.T) {
	read := func(name string) (map[string]result, error) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		return readReport(data)
	}
	results, err := read("report.json")
	require.NoError(t, err)
	require.Equal(t, map[string]result{
		"[sig-storage] Projected downwardAPI should update labels on modification [NodeConformance] [Conformance]":           {state: passed},
		"[sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly] [Conformance]": {state: passed},
	}, results)
	_, err = read("no-cluster.json")
	require.ErrorContains(t, err, "SynchronizedBeforeSuite")
}
