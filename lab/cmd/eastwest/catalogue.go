package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/scenarios"
)

const (
	scenariosDir = "scenarios" // in the current folder: it comes before the catalogue of this command
	scenarioFile = "scenario.yaml"
)

// scenarioNames returns the names of the scenarios that can be run by name, sorted.
func scenarioNames() ([]string, error) {
	here, err := filepath.Glob(filepath.Join(scenariosDir, "*", scenarioFile))
	if err != nil {
		return nil, err
	}
	built, err := fs.Glob(scenarios.Files, "*/"+scenarioFile)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range here {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	for _, f := range built {
		names = append(names, path.Dir(f))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// findScenario returns the path of a scenario file: the argument itself, the file in a folder of that name, or the
// scenario of that name, first of ./scenarios and then of the command's own catalogue.
func findScenario(arg string) (string, error) {
	for _, file := range []string{arg, filepath.Join(arg, scenarioFile), filepath.Join(scenariosDir, arg, scenarioFile)} {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	if _, err := fs.Stat(scenarios.Files, path.Join(arg, scenarioFile)); err == nil && path.Base(arg) == arg {
		dir, err := extractCatalogue()
		if err != nil {
			return "", err
		}
		return filepath.Join(dir, arg, scenarioFile), nil
	}
	return "", noScenario(arg)
}

// noScenario says why an argument names no scenario, and what it may have been meant to be.
func noScenario(arg string) error {
	info, err := os.Stat(arg)
	switch {
	case err == nil && info.IsDir():
		return usagef("%q is a folder without %s\n`eastwest lint %s` checks all scenarios below it", arg, scenarioFile, arg)
	case strings.ContainsAny(arg, `/\`) || strings.HasSuffix(arg, ".yaml") || strings.HasSuffix(arg, ".yml"):
		return usagef("there is no file %s", arg)
	}
	if home, err := lab.Home(); err == nil {
		if known, _ := lab.Exists(home, arg); known {
			return usagef("there is no scenario %q, but a lab: its name goes behind --name", arg)
		}
	}
	names, err := scenarioNames()
	if err != nil {
		return err
	}
	if near := nearest(arg, names); near != "" {
		return usagef("there is no scenario %q: did you mean %s?\n`eastwest scenarios` lists them", arg, near)
	}
	return usagef("there is no scenario %q, and no file of that name\n`eastwest scenarios` lists the scenarios", arg)
}

// extractCatalogue writes the command's own catalogue below the home of labs, once per content: scenario files name
// files beside them, and places in reports should be files that can be opened.
func extractCatalogue() (string, error) {
	home, err := lab.Home()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := fs.WalkDir(scenarios.Files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := scenarios.Files.ReadFile(p)
		fmt.Fprintf(sum, "%s %d\n", p, len(data))
		sum.Write(data)
		return err
	}); err != nil {
		return "", err
	}
	dir := filepath.Join(home, scenariosDir, hex.EncodeToString(sum.Sum(nil))[:12])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("making the folder of the catalogue: %w", err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), ".partial-")
	if err != nil {
		return "", fmt.Errorf("making the folder of the catalogue: %w", err)
	}
	defer os.RemoveAll(partial) // gone when it was renamed
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", err
	}
	if err := os.CopyFS(partial, scenarios.Files); err != nil {
		return "", fmt.Errorf("writing the catalogue: %w", err)
	}
	if err := os.Rename(partial, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("writing the catalogue: %w", err)
	}
	return dir, nil
}

// loadScenarios loads and checks scenarios by name or file. The error has the problems of all of them.
func loadScenarios(args []string) ([]*scenario.Scenario, error) {
	var (
		all  []*scenario.Scenario
		errs []error
	)
	for _, arg := range args {
		file, err := findScenario(arg)
		if err == nil {
			var s *scenario.Scenario
			s, err = scenario.Load(file, verb.Table())
			all = append(all, s)
		}
		errs = append(errs, usageUnlessProblems(err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, nil
}

// completeScenarios completes names of scenarios, with their titles, and files.
func completeScenarios(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names, err := scenarioNames()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all := make([]cobra.Completion, len(names))
	for i, name := range names {
		all[i] = cobra.CompletionWithDesc(name, scenarioTitle(name))
	}
	return without(all, args), cobra.ShellCompDirectiveDefault // files too
}

// completeOneScenario completes the only argument of a command.
func completeOneScenario(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeScenarios(cmd, args, word)
}

// scenarioTitle returns the title of a scenario, and "" if its file cannot be read. It checks nothing: completion must be quick.
func scenarioTitle(name string) string {
	data, err := os.ReadFile(filepath.Join(scenariosDir, name, scenarioFile))
	if err != nil {
		data, _ = scenarios.Files.ReadFile(path.Join(name, scenarioFile))
	}
	for line := range strings.Lines(string(data)) {
		if title, ok := strings.CutPrefix(line, "title:"); ok {
			return strings.Trim(strings.TrimSpace(title), `"'`)
		}
	}
	return ""
}

// scenarioJSON is what `scenarios -o json` prints of each; its names are stable.
type scenarioJSON struct {
	Name     string           `json:"name"`
	Title    string           `json:"title"`
	Why      string           `json:"why"`
	Lesson   []string         `json:"lesson"`
	File     string           `json:"file"`
	Topology string           `json:"topology"`
	Network  string           `json:"network"`
	Trust    string           `json:"trust"`
	Phases   []scenario.Phase `json:"phases"`

	BlastRadius []string              `json:"blast_radius,omitempty"`
	Measured    *scenarioMeasuredJSON `json:"measured,omitempty"` // when it passed last; only of this command's own catalogue
}

// scenarioMeasuredJSON is how long a scenario took, and with which versions.
type scenarioMeasuredJSON struct {
	Seconds    float64 `json:"seconds"` // median of the runs
	Istio      string  `json:"istio"`
	Envoy      string  `json:"envoy"`
	Kubernetes string  `json:"kubernetes"`
	Date       string  `json:"date"`
}

func newScenariosCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "scenarios",
		Short: "List the scenarios that can be run by name",
		Long:  `Scenarios lists the catalogue of this command and the folder ./` + scenariosDir + `, which comes first where both have a name.`,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := scenarioNames()
			if err != nil {
				return err
			}
			measured, err := catalogue.ParseMeasurements("measured.json", scenarios.Measured)
			if err != nil {
				return err
			}
			list := make([]scenarioJSON, 0, len(names))
			var bad []error // they hide none of the others
			for _, name := range names {
				loaded, err := loadScenarios([]string{name})
				if err != nil {
					bad = append(bad, err)
					continue
				}
				s := loaded[0]
				one := scenarioJSON{
					Name: s.Name, Title: s.Title, Why: s.Why, Lesson: slices.Concat([]string{}, s.Lesson), File: s.File,
					Topology: cmp.Or(string(s.Topology.Kind), "clusters"), Network: string(s.Topology.Network), Trust: string(s.Topology.Trust),
					BlastRadius: s.Radius,
				}
				if m, ok := measured[s.Name]; ok {
					one.Measured = &scenarioMeasuredJSON{m.Seconds, m.Istio, m.Envoy, m.Kubernetes, m.Date}
				}
				for _, p := range s.Phases() {
					if len(one.Phases) == 0 || one.Phases[len(one.Phases)-1] != p.Phase { // one per wrong fix
						one.Phases = append(one.Phases, p.Phase)
					}
				}
				list = append(list, one)
			}
			if output.json() {
				err = printJSON(cmd.OutOrStdout(), list)
			} else {
				err = printScenarios(cmd.OutOrStdout(), list)
			}
			return errors.Join(err, errors.Join(bad...))
		},
	}
	output.addTo(cmd)
	cmd.AddCommand(newScenariosShowCommand())
	return cmd
}

func printScenarios(out io.Writer, list []scenarioJSON) error {
	if look := report.Detect(out, os.Getenv); look.Width > 0 {
		return printScenariosFor(out, list, look)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTOPOLOGY\tTRUST\tTITLE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Topology, cmp.Or(s.Trust, "-"), s.Title)
	}
	return w.Flush()
}

// printScenariosFor prints the table for a terminal, each title on a line of its own.
func printScenariosFor(out io.Writer, list []scenarioJSON, look report.TerminalOptions) error {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Topology, cmp.Or(s.Trust, "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	page := report.NewPage(out, look)
	lines := strings.Split(table.String(), "\n")
	for i, s := range list {
		fmt.Fprintf(page, "%s\n  %s\n", lines[i], s.Title)
	}
	return page.Flush()
}

func newSchemaCommand() *cobra.Command {
	var topology bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of scenario or topology files, for editors",
		Long: `Schema prints the JSON Schema (draft-07) of scenario files, or of topology files. Write it beside your files:

  eastwest schema > schema.json

Editors with the YAML language server then complete a file that starts with the line

  # yaml-language-server: $schema=schema.json

eastwest new writes both.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			of := func() ([]byte, error) { return scenario.Schema(verb.Table()) }
			if topology {
				of = scenario.TopologySchema
			}
			schema, err := of()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", strings.TrimRight(string(schema), "\n"))
			return err
		},
	}
	cmd.Flags().BoolVar(&topology, "topology", false, "of topology files, which eastwest up -f reads")
	return cmd
}
