package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// problemJSON is what `lint -o json` prints of each problem; its names are stable.
type problemJSON struct {
	File   string `json:"file"`
	Line   int    `json:"line"` // 0, like column, where the problem is that the file cannot be read
	Column int    `json:"column"`
	What   string `json:"what"`
	Wanted string `json:"wanted,omitempty"`
	Seen   string `json:"seen,omitempty"`
	Try    string `json:"try,omitempty"`
}

func newLintCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "lint FILE|DIR|NAME…",
		Short: "Check scenario and topology files and show every problem with its place",
		Long: `Lint checks scenario files, by path or by name, and topology files, and prints all problems as file:line:column on
standard output. In a folder it checks every ` + scenarioFile + ` below it. It touches no lab and needs none. The exit code is 2
if there are problems.`,
		Example: `  eastwest lint my-scenario.yaml
  eastwest lint .`,
		Args:              takes(1, anyNumber, "FILE, DIR or NAME"),
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := lintFiles(args)
			if err != nil {
				return err
			}
			problems := []problemJSON{}
			for _, file := range files {
				found, text := lint(file)
				problems = append(problems, found...)
				switch {
				case len(found) == 0:
					fmt.Fprintf(progress(cmd), "%s: no problems\n", file)
				case !output.json():
					fmt.Fprintln(cmd.OutOrStdout(), text)
				}
			}
			if output.json() {
				if err := printJSON(cmd.OutOrStdout(), problems); err != nil {
					return err
				}
			}
			if len(problems) > 0 {
				return usageError{errors.New(words.Plural(len(problems), "problem"))}
			}
			return nil
		},
	}
	output.addTo(cmd)
	return cmd
}

// lintFiles replaces each folder among the arguments by the scenario files below it. A folder without any stays: findScenario says
// what is wrong with it.
func lintFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		below, err := scenariosBelow(arg)
		if err != nil {
			return nil, err
		}
		if len(below) == 0 {
			below = []string{arg}
		}
		files = append(files, below...)
	}
	return words.Unique(files), nil
}

// scenariosBelow returns the scenario files in a folder and in all folders below it, but not in hidden ones. It returns none if dir
// is no folder.
func scenariosBelow(dir string) ([]string, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, nil // the caller finds out what dir is
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.Name() == scenarioFile && d.Type().IsRegular():
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for scenarios below %s: %w", dir, err)
	}
	return files, nil
}

// lint checks a scenario, by name or file, or the file of a topology. It returns the problems, also as the text that people read.
func lint(arg string) (found []problemJSON, text string) {
	var err error
	if scenario.IsTopology(arg) {
		_, err = scenario.LoadTopology(arg)
	} else {
		_, err = loadScenarios([]string{arg})
	}
	if err == nil {
		return nil, ""
	}
	problems := new(strict.Problems)
	if !errors.As(err, &problems) { // there is no file that has a line
		what, try, _ := strings.Cut(err.Error(), "\n")
		problems.List = []strict.Problem{{What: arg + ": " + what, Try: try}}
		return []problemJSON{{File: arg, What: what, Try: try}}, problems.Error()
	}
	for _, p := range problems.List {
		found = append(found, problemJSON{
			File: p.Place.File, Line: p.Place.Line, Column: p.Place.Column, What: p.What, Wanted: p.Wanted, Seen: p.Seen, Try: p.Try,
		})
	}
	return found, problems.Error()
}
