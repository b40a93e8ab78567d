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
	if strings.ContainsAny(arg, `/\`) || strings.HasSuffix(arg, ".yaml") || strings.HasSuffix(arg, ".yml") {
		return "", usagef("there is no file %s", arg)
	}
	if info, err := fs.Stat(scenarios.Files, arg); err == nil && info.IsDir() {
		dir, err := extractCatalogue()
		if err != nil {
			return "", err
		}
		return filepath.Join(dir, arg, scenarioFile), nil
	}
	names, err := scenarioNames()
	if err != nil {
		return "", err
	}
	if near := nearest(arg, names); near != "" {
		return "", usagef("there is no scenario %q: did you mean %s?\n`eastwest scenarios` lists them", arg, near)
	}
	return "", usagef("there is no scenario %q, and no file of that name\n`eastwest scenarios` lists the scenarios", arg)
}

// nearest returns the name that starts like s, or has a word of it.
func nearest(s string, names []string) string {
	best, most := "", 2
	for _, n := range names {
		same := 0
		for i := 0; i < min(len(n), len(s)) && n[i] == s[i]; i++ {
			same++
		}
		if s != "" && strings.Contains(n, s) {
			same = max(same, len(s))
		}
		if same > most {
			best, most = n, same
		}
	}
	return best
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

// completeScenarios completes names and files of scenarios.
func completeScenarios(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names, err := scenarioNames()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveDefault // files too
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
}

func newScenariosCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "scenarios",
		Short: "List the scenarios that can be run by name",
		Long:  `Scenarios lists the catalogue of this command and the folder ./` + scenariosDir + `, which comes first where both have a name.`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := scenarioNames()
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
	return cmd
}

func printScenarios(out io.Writer, list []scenarioJSON) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTOPOLOGY\tTRUST\tTITLE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Topology, cmp.Or(s.Trust, "-"), s.Title)
	}
	return w.Flush()
}

// problemJSON is what `lint -o json` prints of each problem; its names are stable.
type problemJSON struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	What   string `json:"what"`
	Wanted string `json:"wanted,omitempty"`
	Seen   string `json:"seen,omitempty"`
	Try    string `json:"try,omitempty"`
}

// lint checks a scenario, by name or file, or the file of a topology.
func lint(arg string) error {
	if scenario.IsTopology(arg) {
		_, err := scenario.LoadTopology(arg)
		return usageUnlessProblems(err)
	}
	_, err := loadScenarios([]string{arg})
	return err
}

func newLintCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "lint FILE…",
		Short: "Check scenario and topology files and show every problem with its place",
		Long: `Lint checks scenario files, by path or by name, and topology files, and prints all problems as file:line:column on
standard output. It touches no lab and needs none. The exit code is 2 if there are problems.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			list := []problemJSON{}
			var good []string
			for _, arg := range args {
				err := lint(arg)
				var problems *scenario.Problems
				switch {
				case err == nil:
					good = append(good, arg)
				case errors.As(err, &problems):
					for _, p := range problems.List {
						list = append(list, problemJSON{File: p.Place.File, Line: p.Place.Line, Column: p.Place.Column, What: p.What, Wanted: p.Wanted, Seen: p.Seen, Try: p.Try})
					}
					if !output.json() {
						fmt.Fprintln(cmd.OutOrStdout(), problems)
					}
				default:
					return err
				}
			}
			if output.json() {
				if err := printJSON(cmd.OutOrStdout(), list); err != nil {
					return err
				}
			}
			for _, arg := range good {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: no problems\n", arg)
			}
			switch len(list) {
			case 0:
				return nil
			case 1:
				return usagef("1 problem")
			}
			return usagef("%d problems", len(list))
		},
	}
	output.addTo(cmd)
	return cmd
}

func newSchemaCommand() *cobra.Command {
	var topology bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of scenario or topology files, for editors",
		Long: `Schema prints the JSON Schema (draft-07) of scenario files, or of topology files. Editors with the YAML language server
complete a file that starts with the line

  # yaml-language-server: $schema=../schema.json`,
		Args: cobra.NoArgs,
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
