package bundle

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// recipeVersion goes into every key. Raise it when a change to this package alters what is built and the key would stay the same
// otherwise.
const recipeVersion = 1

// component is a part of the bundle that is built on its own. The build engine knows nothing else: tests give it
// small ones.
type component struct {
	name     string
	from     goModule          // whose programs it is made of; without a name where there are none
	programs []string          // main packages of this module or of its dependencies
	inputs   []string          // what else decides the result
	version  string            // as its project numbers it
	contains map[string]string // what else Bundle.Versions tells of it
	tools    []tool            // what the machine must have to build it
	last     bool              // it is made of the others and built when they are there
	space    int64             // bytes of free disk that building it takes, results included
	// download gets what is no Go module, while the programs are compiled; nil if there is nothing.
	download func(context.Context, *bench) error
	// build puts the component together when its programs are there.
	build func(context.Context, *bench) ([]Image, error)
}

// key names the result of a component before it is built.
func (c component) key() string {
	return hashOf(struct {
		Recipe   int
		Platform string
		Name     string
		Inputs   []string
	}{recipeVersion, runtime.GOOS + "/" + runtime.GOARCH, c.name, slices.Concat(c.from.inputs(), c.inputs)})
}

// bundleKey names the bundle that consists of components.
func bundleKey(components []component) string {
	keys := make([]string, len(components))
	for i, c := range components {
		keys[i] = c.key()
	}
	return hashOf(keys)[:16]
}

// record is what a finished component leaves beside its blobs.
type record struct {
	Name    string  `json:"name"`
	Version string  `json:"version,omitempty"` // in the manifest only: it follows from the recipe
	Key     string  `json:"key"`
	Files   []File  `json:"files"`
	Images  []Image `json:"images,omitempty"`
}

// store is the bundle folder.
type store string

func (s store) lock() string           { return filepath.Join(string(s), "lock") }
func (s store) tmp() string            { return filepath.Join(string(s), "tmp") }
func (s store) blobs() string          { return filepath.Join(string(s), "blobs", "sha256") }
func (s store) blob(sha string) string { return filepath.Join(s.blobs(), sha) }
func (s store) note(key string) string { return filepath.Join(string(s), "components", key+".json") }
func (s store) root(key string) string { return filepath.Join(string(s), key) }

// recorded returns the record of a component, or false where it was never finished or its record is unreadable.
func (s store) recorded(c component) (record, bool) {
	var r record
	data, err := os.ReadFile(s.note(c.key()))
	if err != nil || json.Unmarshal(data, &r) != nil || r.Key != c.key() {
		return record{}, false
	}
	return r, true
}

// writeFile writes a file in one step: readers see the old one or the whole new one.
func (s store) writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.tmp(), "file-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone once renamed
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o444)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
