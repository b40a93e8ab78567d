package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

// starter is the scenario that `eastwest new` writes without --from.
//
//go:embed new.yaml
var starter []byte

const schemaFile = "schema.json"

func newNewCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Start a scenario of your own",
		Long: `New makes a folder with a ` + scenarioFile + ` that lint accepts and that says what each part is for. NAME is the scenario's
name, or a path that ends with it. With --from it is a copy of a scenario of the catalogue, or of a file. Beside it lies the
schema by which editors complete it, unless the folder above has one.`,
		Example: `  eastwest new my-scenario
  eastwest new --from mismatched-root-ca scenarios/other-root`,
		Args:              takes(1, 1, "NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Clean(args[0])
			files, err := newScenario(filepath.Base(dir), from)
			if err != nil {
				return err
			}
			if err := editorSchema(dir, files); err != nil {
				return err
			}
			if err := writeFolder(dir, files); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n\nnext:\n  eastwest lint %[2]s\n  eastwest explain %[2]s\n  eastwest run %[2]s\n",
				filepath.Join(dir, scenarioFile), dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "copy this scenario, by name or file")
	_ = cmd.RegisterFlagCompletionFunc("from", completeScenarios) // fails only for a flag that does not exist
	return cmd
}

var (
	scenarioLine = regexp.MustCompile(`(?m)^scenario:.*$`)
	schemaLine   = regexp.MustCompile(`(?m)^# yaml-language-server: .*\n`)
)

// newScenario returns the files of a new scenario: the starter's, or those of the scenario from.
func newScenario(name, from string) (map[string][]byte, error) {
	files := map[string][]byte{scenarioFile: starter}
	if from != "" {
		file, err := findScenario(from)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		if files, err = copyOf(file); err != nil {
			return nil, fmt.Errorf("--from %s: %w", from, err)
		}
	}
	// A function, not a text: a name is no pattern with $1 in it.
	text := scenarioLine.ReplaceAllStringFunc(string(files[scenarioFile]), func(string) string { return "scenario: " + name })
	files[scenarioFile] = []byte(text)
	if _, err := scenario.Parse(scenarioFile, files[scenarioFile], verb.Table()); err != nil {
		return nil, usagef("the new scenario %q would have problems:\n%w", name, err)
	}
	return files, nil
}

// copyOf reads a scenario file and, if it has a folder of its own, what lies beside it.
func copyOf(file string) (map[string][]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if filepath.Base(file) == scenarioFile {
		dir := filepath.Dir(file)
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			files[name], err = os.ReadFile(path)
			return err
		})
	}
	files[scenarioFile] = data
	return files, err
}

// editorSchema makes the scenario's first line name the schema: that of the folder above, if there is one, or else its own.
func editorSchema(dir string, files map[string][]byte) error {
	schema := schemaFile
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), schemaFile)); err == nil {
		schema = "../" + schemaFile
		delete(files, schemaFile)
	} else if files[schemaFile], err = scenario.Schema(verb.Table()); err != nil {
		return err
	}
	text := schemaLine.ReplaceAllString(string(files[scenarioFile]), "")
	files[scenarioFile] = []byte("# yaml-language-server: $schema=" + schema + "\n" + text)
	return nil
}

// writeFolder makes a folder with these files, whole or not at all. It refuses one that is there.
func writeFolder(dir string, files map[string][]byte) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s is there already: wanted the name of a new folder", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", dir, err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), ".partial-")
	if err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	defer os.RemoveAll(partial) // gone when it was renamed
	errs := []error{os.Chmod(partial, 0o755)}
	for name, data := range files {
		path := filepath.Join(partial, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
	}
	if err := errors.Join(append(errs, os.Rename(partial, dir))...); err != nil {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	return nil
}

func newScenariosShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Print the file of a scenario",
		Long: `Show prints the file of a scenario as it is, to read it or to copy from it. eastwest new --from NAME makes a copy to
change.`,
		Args:              takes(1, 1, "NAME"),
		ValidArgsFunction: completeOneScenario,
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := findScenario(args[0])
			if err != nil {
				return err
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("reading scenario: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", strings.TrimRight(string(data), "\n"))
			return err
		},
	}
}
