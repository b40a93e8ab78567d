package lab

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// HomeEnv names the environment variable that moves everything labs write.
const HomeEnv = "EASTWEST_HOME"

// DefaultName is the lab that commands mean when none is named.
const DefaultName = "eastwest"

// Home returns the folder of all labs: $EASTWEST_HOME, or eastwest in the user's cache folder.
func Home() (string, error) {
	if dir := os.Getenv(HomeEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &SetupError{Err: fmt.Errorf("finding a folder for labs: %w: set %s", err, HomeEnv)}
	}
	return filepath.Join(dir, "eastwest"), nil
}

// Supervise turns this process into the supervisor of an embedded node, or the part inside a node of kind, if it was
// started as one.
func Supervise() {
	embedded.Supervise()
	kind.Supervise()
}

// SetupError says that a lab could not be made or opened: the machine, the bundle or Kubernetes is at
// fault, not the command line and not a scenario.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// UnknownLabError says that there is no lab of that name, and which there are.
type UnknownLabError struct {
	Name  string
	Known []string
}

func (e *UnknownLabError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("there is no lab %q, nor any other: make one with `eastwest up`", e.Name)
	}
	return fmt.Sprintf("there is no lab %q: there is %s", e.Name, strings.Join(e.Known, ", "))
}

var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// checkName keeps names fit for labels, host names and file names.
func checkName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("the lab's name %q: wanted up to 40 lower-case letters, digits and dashes, such as %q", name, DefaultName)
	}
	return nil
}

// record is what is written down of a lab. It is there before anything else is made and goes last.
type record struct {
	Name     string   `json:"name"`
	ID       string   `json:"id,omitempty"` // tells it from others of that name, wherever they were made
	Provider string   `json:"provider"`
	Existing *Foreign `json:"existing,omitempty"` // of that provider
	// KindImage is the node image that was asked for.
	KindImage string            `json:"kind_image,omitempty"`
	Images    Images            `json:"images,omitzero"`
	Topology  scenario.Topology `json:"topology"`
	Egress    bool              `json:"egress"`
	Made      time.Time         `json:"made"`
	Complete  bool              `json:"complete"`         // false while it is being made
	Left      string            `json:"left,omitempty"`   // the scenario that left it other than it found it
	Bundle    string            `json:"bundle,omitempty"` // digest of the bundle it runs
}

// newID returns an id that no other lab has.
func newID() string { return strings.ToLower(rand.Text()[:12]) }

// settled fills in what the lab was made with that is there, where nothing else is asked for.
func (o Options) settled() Options {
	r, err := readRecord(o.Home, o.Name)
	if err != nil {
		return o
	}
	if o.Provider == "" || o.Provider == Auto {
		o.Provider = r.Provider
	}
	if o.Provider == r.Provider && o.KindImage == "" {
		o.KindImage = r.KindImage
	}
	if o.Provider == r.Provider && !o.Images.Published() {
		o.Images = r.Images
	}
	if o.Provider == r.Provider {
		o.Egress = o.Egress || r.Egress
	}
	if r.Existing != nil && o.Provider == r.Provider && len(o.Existing.Contexts) == 0 {
		o.Existing = *r.Existing
	}
	return o
}

// other says how a lab is other than is asked for; nothing if it is not.
func (r record) other(provider string, o Options) string {
	switch {
	case r.Provider != provider:
		return "by another provider (" + r.Provider + ")"
	case !SameTopology(r.Topology, o.Topology):
		return fmt.Sprintf("with another topology (%s)", Describe(r.Topology))
	case r.KindImage != o.KindImage:
		return fmt.Sprintf("with the node image %s", cmp.Or(r.KindImage, "of the bundle"))
	case r.Images != o.Images:
		return "with " + r.Images.String()
	case r.Egress != o.Egress:
		return "without --egress"
	case r.Existing == nil:
		return ""
	case !slices.Equal(r.Existing.Contexts, o.Existing.Contexts):
		return fmt.Sprintf("on other contexts (%s)", strings.Join(r.Existing.Contexts, ", "))
	case r.Existing.Adopt != o.Existing.Adopt:
		return fmt.Sprintf("with --adopt=%t", r.Existing.Adopt)
	}
	return ""
}

// removable returns why a lab must not go as it is: a mesh that somebody else has made stays, and so would what a
// scenario has done to it.
func (r record) removable() error {
	if r.Existing == nil || !r.Existing.Adopt || r.Left == "" {
		return nil
	}
	return &SetupError{
		Err: fmt.Errorf(
			"lab %s was left in the middle of scenario %s, on a mesh that is not eastwest's: put it back first, with `eastwest run %[2]s "+
				"--undo --name %[1]s`",
			r.Name,
			r.Left,
		),
	}
}

func labDir(home, name string) string     { return filepath.Join(home, "labs", name) }
func lockFile(home, name string) string   { return filepath.Join(home, "labs", "."+name+".lock") }
func recordFile(home, name string) string { return filepath.Join(labDir(home, name), "lab.json") }

func readRecord(home, name string) (record, error) {
	var r record
	err := machine.ReadJSON(recordFile(home, name), &r)
	return r, err
}

// TopologyOf returns the topology of a lab that is there.
func TopologyOf(home, name string) (scenario.Topology, error) {
	r, err := readRecord(home, name)
	return r.Topology, err
}

func (r record) write(home string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	file := recordFile(home, r.Name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("making the lab's folder: %w", err)
	}
	if err := os.WriteFile(file+".new", data, 0o644); err != nil {
		return fmt.Errorf("writing down the lab: %w", err)
	}
	return os.Rename(file+".new", file)
}

// names lists the labs that have a folder, sorted.
func names(home string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(home, "labs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing labs: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	slices.Sort(all)
	return all, nil
}

// NameOf returns the name of the lab of a provider: the given one, or the only one that there is.
func NameOf(home, name, provider string) (string, error) {
	known, err := names(home)
	if err != nil {
		return "", err
	}
	var of []string
	for _, n := range known {
		if r, err := readRecord(home, n); err == nil && r.Provider == provider {
			of = append(of, n)
		}
	}
	switch {
	case slices.Contains(of, name):
		return name, nil
	case len(of) == 1:
		return of[0], nil
	case len(of) == 0:
		return "", fmt.Errorf("there is no lab of the provider %s: make one with `eastwest up --provider %[1]s`", provider)
	}
	return "", fmt.Errorf("there are several labs of the provider %s: name one with --name: %s", provider, strings.Join(of, ", "))
}

// lockLab keeps other processes from changing the lab. The lock file lies beside the lab's folder, so
// that it outlives it: a lock that is removed with what it guards can be held by two.
func lockLab(ctx context.Context, home, name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(home, "labs"), 0o755); err != nil {
		return nil, &SetupError{Err: fmt.Errorf("making the folder of labs: %w", err)}
	}
	l := flock.New(lockFile(home, name))
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for another eastwest that works on lab %s: %w", name, context.Cause(ctx))
	}
	return func() { _ = l.Unlock() }, nil
}

// locked tells whether another process has locked the lab.
func locked(home, name string) bool {
	file := lockFile(home, name)
	if _, err := os.Stat(file); err != nil {
		return false
	}
	l := flock.New(file)
	free, err := l.TryRLock() // shared: two that look do not see each other
	if free {
		_ = l.Unlock()
	}
	return err == nil && !free
}
