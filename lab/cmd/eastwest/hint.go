package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func newHintCommand() *cobra.Command {
	var (
		name  string
		first bool
	)
	cmd := &cobra.Command{
		Use:   "hint [NAME|FILE]",
		Short: "Show the next hint of a scenario, one more each time",
		Long: `Hint helps a learner who looks around in a lab that eastwest run --until has left. Each time it shows one more hint of the
scenario; after the last one it shows that again. Without a name it means the scenario that left the lab changed.`,
		Example: `  eastwest run --until symptoms mismatched-root-ca
  eastwest hint`,
		Args:              takes(0, 1, "NAME or FILE"),
		ValidArgsFunction: completeOneScenario,
		RunE: func(cmd *cobra.Command, args []string) error {
			home, err := lab.Home()
			if err != nil {
				return err
			}
			s, err := hintedScenario(home, name, args)
			if err != nil {
				return err
			}
			if len(s.Hints) == 0 {
				return usagef("scenario %s has no hints", s.Name)
			}
			file, err := hintsFile(home, name)
			if err != nil {
				return err
			}
			shown, err := readHints(file)
			if err != nil {
				return err
			}
			if first {
				shown[s.Name] = 0
			}
			shown[s.Name] = min(shown[s.Name]+1, len(s.Hints))
			if err := writeHints(file, shown); err != nil {
				return err
			}
			return onPage(cmd, func(w io.Writer) error { return printHint(w, s, shown[s.Name]) })
		},
	}
	addLabFlag(cmd, &name)
	cmd.Flags().BoolVar(&first, "first", false, "begin again with the first hint")
	return cmd
}

// hintedScenario loads the scenario that the arguments name, or the one that left the lab changed.
func hintedScenario(home, name string, args []string) (*scenario.Scenario, error) {
	if len(args) == 0 {
		l, err := lab.Open(home, name)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if l.Changed() == "" {
			return nil, usagef("lab %s is as it was: no scenario was stopped on it; `eastwest hint NAME` shows hints of any scenario", name)
		}
		c, err := l.Checkpoint()
		if err != nil {
			return nil, err
		}
		args = []string{c.File}
	}
	loaded, err := loadScenarios(args)
	if err != nil {
		return nil, err
	}
	return loaded[0], nil
}

// hintsFile is where the number of hints that were shown is kept: in the lab's folder, so that it goes with the lab, or, where there
// is no such lab, in the home of labs.
func hintsFile(home, name string) (string, error) {
	const file = "hints.json"
	known, err := lab.Exists(home, name)
	if err != nil || !known {
		return filepath.Join(home, file), err
	}
	l, err := lab.Open(home, name)
	if err != nil { // half of a lab has no hints
		return filepath.Join(home, file), nil
	}
	defer l.Close()
	return filepath.Join(l.Dir(), file), nil
}

// readHints returns how many hints of each scenario were shown.
func readHints(file string) (map[string]int, error) {
	shown := map[string]int{}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return shown, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which hints were shown: %w", err)
	}
	if err := json.Unmarshal(data, &shown); err != nil {
		return nil, fmt.Errorf("reading %s: %w: remove it to begin again", file, err)
	}
	return shown, nil
}

func writeHints(file string, shown map[string]int) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing down which hints were shown: %w", err)
	}
	return writeFile(file, func(w io.Writer) error { return printJSON(w, shown) })
}

func printHint(w io.Writer, s *scenario.Scenario, n int) error {
	_, err := fmt.Fprintf(w, "hint %d of %d for %s\n\n  %s\n", n, len(s.Hints), s.Name, strings.Join(strings.Fields(s.Hints[n-1]), " "))
	if err == nil && n == len(s.Hints) {
		_, err = fmt.Fprintf(w, "\nThis was the last one. `eastwest explain %s` shows the diagnosis and the recovery.\n", s.Name)
	}
	return err
}
