package bundle

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/words"
)

// tool is something the machine must have.
type tool struct {
	name   string
	debian string                       // the package that brings it
	way    string                       // how else to come by it
	find   func(context.Context) string // what is wrong with it, or ""
}

// program is a tool that only has to be on PATH.
func program(name, debian string) tool {
	return tool{name: name, debian: debian, find: func(context.Context) string {
		if _, err := hostProgram(name); err != nil {
			return "not found"
		}
		return ""
	}}
}

// hostProgram looks in PATH and where Debian keeps an administrator's programs, which a user's PATH lacks.
func hostProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s is not on this machine", name)
}

var (
	toolGo = tool{name: "go", debian: "golang-go", find: func(context.Context) string {
		if _, err := goTool(); err != nil {
			return "not found on PATH nor in /usr/local/go (https://go.dev/dl/ has it if the distribution's is too old)"
		}
		return ""
	}}
	toolGCC     = program("gcc", "gcc")
	toolSeccomp = tool{name: "libseccomp", debian: "libseccomp-dev pkg-config", find: func(ctx context.Context) string {
		out, err := exec.CommandContext(ctx, "pkg-config", "--exists", "--print-errors", "libseccomp").CombinedOutput()
		if err != nil {
			return words.FirstLine(fmt.Sprintf("%s: %v", strings.TrimSpace(string(out)), err))
		}
		return ""
	}}
	toolPip = tool{name: "pip", debian: "python3-pip", find: func(ctx context.Context) string {
		if _, err := pip(ctx); err != nil {
			return err.Error()
		}
		return ""
	}}
	toolCA = tool{name: "CA certificates", debian: "ca-certificates", find: func(context.Context) string {
		if _, err := caCertificates(); err != nil {
			return err.Error()
		}
		return ""
	}}
)

// pip returns the command line of a working pip.
func pip(ctx context.Context) ([]string, error) {
	for _, c := range [][]string{{"python3", "-m", "pip"}, {"pip3"}, {"pip"}} {
		if exec.CommandContext(ctx, c[0], append(c[1:], "--version")...).Run() == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("neither `python3 -m pip` nor pip3 works")
}
