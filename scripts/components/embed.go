// Package components carries the pins of everything that the bundle builds: one nested Go module per upstream project,
// whose go.mod and go.sum fix every source by hash, and the source of the pause program.
//
// Go refuses to embed files of a nested module, so modules.txtar is a copy of them; a test compares the two, and
// `go generate ./scripts/components` writes it anew after a change of a pin (`go get …@version` in the module's folder).
package components

import (
	_ "embed" // for modules.txtar
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

//go:generate go test -run TestModulesAreCurrent -update .

//go:embed modules.txtar
var archive string

var marker = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// files maps "istio/go.mod" and so on to contents.
var files = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	at := marker.FindAllStringSubmatchIndex(archive, -1)
	for i, a := range at {
		end := len(archive)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		m[archive[a[2]:a[3]]] = archive[a[1]:end]
	}
	return m
})

// Module returns the files of a module, "go.mod" and so on, by their names.
func Module(name string) (map[string]string, error) {
	m := map[string]string{}
	for path, content := range files() {
		if file, ok := strings.CutPrefix(path, name+"/"); ok {
			m[file] = content
		}
	}
	if len(m) == 0 {
		return nil, fmt.Errorf("no component module is named %q", name)
	}
	return m, nil
}

// Extract writes the files of a module into dir, which it makes.
func Extract(name, dir string) error {
	m, err := Module(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("extracting module %s: %w", name, err)
	}
	for file, content := range m {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return fmt.Errorf("extracting module %s: %w", name, err)
		}
	}
	return nil
}

// Version returns the version at which a module pins a dependency, "v1.36.1".
func Version(name, dependency string) (string, error) {
	m, err := Module(name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(m["go.mod"]) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == dependency {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("module %s does not require %s", name, dependency)
}
