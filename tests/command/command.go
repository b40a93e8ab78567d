// Package command builds the command that tests run as a user would: as a process of its own.
package command

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds bin/eastwest of this checkout and returns its path.
func Build() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	binary := filepath.Join(root, "bin", "eastwest")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", binary, "./lab/cmd/eastwest")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the command: %w\n%s", err, out)
	}
	return binary, nil
}
