package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// record is what is written down of a lab. It is written before anything else of the lab is made, and removed last.
type record struct {
	Name     string            `json:"name"`
	ID       string            `json:"id,omitempty"` // see cluster.IDLabel
	Provider string            `json:"provider"`
	Settings cluster.Settings  `json:"settings"` // of that provider
	Topology scenario.Topology `json:"topology"`
	Made     time.Time         `json:"made"`
	Complete bool              `json:"complete"`         // false while it is being made
	Left     string            `json:"left,omitempty"`   // the scenario that has changed the lab and not put it back
	Bundle   string            `json:"bundle,omitempty"` // digest of the bundle it runs
}

// newID returns an id that no other lab has.
func newID() string { return strings.ToLower(rand.Text()[:12]) }

func labDir(home, name string) string     { return filepath.Join(home, "labs", name) }
func recordFile(home, name string) string { return filepath.Join(labDir(home, name), "lab.json") }

// readRecord reads the record of a lab. The error is fs.ErrNotExist if there is none.
func readRecord(home, name string) (record, error) {
	var r record
	err := machine.ReadJSON(recordFile(home, name), &r)
	return r, err
}

// UnmarshalJSON implements json.Unmarshaler: which settings there are depends on the provider.
func (r *record) UnmarshalJSON(data []byte) error {
	type plain record
	raw := struct {
		*plain
		Settings json.RawMessage `json:"settings"`
		earlier
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	p, err := providerNamed(r.Provider)
	if err != nil {
		return err
	}
	r.Settings = p.settings()
	if raw.Settings == nil {
		if raw.Settings, err = raw.earlier.settings(); err != nil {
			return err
		}
	}
	return json.Unmarshal(raw.Settings, r.Settings)
}

// earlier is where records had settings before each provider had its own.
type earlier struct {
	Existing  map[string]any `json:"existing"`
	KindImage string         `json:"kind_image"`
	Images    cluster.Images `json:"images"`
	Egress    bool           `json:"egress"`
}

// settings returns them in today's form. A provider ignores those that it does not have.
func (e earlier) settings() (json.RawMessage, error) {
	all := map[string]any{"egress": e.Egress, "image": e.KindImage, "images": e.Images}
	for name, value := range e.Existing {
		all[name] = value
	}
	return json.Marshal(all)
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
	if err := machine.WriteDurably(file, data, 0o644); err != nil {
		return fmt.Errorf("writing down the lab: %w", err)
	}
	return nil
}

// TopologyOf returns the topology of a lab that is there.
func TopologyOf(home, name string) (scenario.Topology, error) {
	r, err := readRecord(home, name)
	return r.Topology, err
}

// istios returns the versions of Istio that the lab has besides the bundle's own. The error says how to get one that is missing.
func (r record) istios(b *bundle.Bundle) (map[string]bundle.Istio, error) {
	all := map[string]bundle.Istio{}
	for _, version := range r.Topology.OtherIstios() {
		if isGuest(r.Settings) || pulls(r.Settings).Published() {
			return nil, &SetupError{Err: fmt.Errorf("topology: istio %s: its images are in the bundle alone, and the nodes of this lab pull "+
				"theirs: use --provider %s, without --hub and --tag", version, words.Or(Makers()))}
		}
		istio, err := b.Istio(string(version))
		if err != nil {
			return nil, err
		}
		all[string(version)] = istio
	}
	return all, nil
}

// decide returns the record that the lab is to have, and the one that it has, or nil if there is no lab of that name. It
// returns an error if the lab that is there is complete and not the wanted one.
func (o Options) decide(ctx context.Context) (wanted record, there *record, err error) {
	r, err := readRecord(o.Home, o.Name)
	switch {
	case err == nil:
		there = &r
	case !errors.Is(err, fs.ErrNotExist):
		return record{}, nil, &SetupError{Err: fmt.Errorf("lab %s: %w: remove the lab with `eastwest down %[1]s`", o.Name, err)}
	}
	wanted = record{Name: o.Name, ID: newID(), Provider: o.Provider, Topology: o.Topology, Made: time.Now()}
	if o.Provider == "" || o.Provider == Auto {
		if there != nil {
			wanted.Provider = there.Provider
		} else if err := o.Settings.fitAuto(); err != nil {
			return wanted, nil, err
		}
	}
	if wanted.Provider, err = ChooseProvider(ctx, wanted.Provider); err != nil {
		return wanted, there, err
	}
	p, err := providerNamed(wanted.Provider)
	if err != nil {
		return wanted, there, err
	}
	wanted.Settings = p.settings()
	if there != nil && there.Provider == wanted.Provider {
		if wanted.Settings, err = p.clone(there.Settings); err != nil {
			return wanted, there, err
		}
	}
	if err := o.Settings.apply(wanted.Settings, p.name); err != nil {
		return wanted, there, err
	}
	if err := wanted.Settings.Complete(); err != nil {
		return wanted, there, err
	}
	// A lab that was never complete is made anew, whatever it was to be.
	if there != nil && there.Complete {
		if differs := there.differs(wanted); differs != "" {
			return wanted, there, fmt.Errorf("lab %s is there, %s: remove it with `eastwest down %[1]s`, or choose another --name", o.Name, differs)
		}
	}
	return wanted, there, nil
}

// differs describes how the lab is not the wanted one, or returns "".
func (r record) differs(wanted record) string {
	if r.Provider != wanted.Provider {
		return "made by the provider " + r.Provider
	}
	all := differences(r.Settings, wanted.Settings)
	if !SameTopology(r.Topology, wanted.Topology) {
		all = append(all, fmt.Sprintf("with the topology %s", Describe(r.Topology)))
	}
	return words.And(all)
}

// onAnothersMesh reports whether a scenario has changed a mesh that somebody else has made, and not put it back.
func (r record) onAnothersMesh() bool { return r.Left != "" && adopts(r.Settings) }

// mayGo returns an error if the lab must not be removed: a scenario has changed a mesh that stays when the lab goes, and
// the lab's files are the only way to put it back.
func mayGo(home, name string) error {
	r, err := readRecord(home, name)
	if err == nil {
		if !r.onAnothersMesh() {
			return nil
		}
		return &SetupError{Err: fmt.Errorf("lab %s was left in the middle of scenario %s, on a mesh that is not eastwest's: %s",
			name, r.Left, r.putBack())}
	}
	// Without the record, nothing says whose mesh it is. The checkpoint is there as long as it is needed.
	if _, missing := os.Stat(checkpointFile(home, name)); missing != nil || !isGuest(providerOf(home, name).settings()) {
		return nil
	}
	return &SetupError{Err: fmt.Errorf("lab %s: %w: a scenario was left in the middle, on clusters that are not eastwest's, "+
		"and %s is needed to put them back: mend %s first, or give the changes up and delete %s",
		name, err, checkpointFile(home, name), recordFile(home, name), checkpointFile(home, name))}
}

// putBack says how a mesh of somebody else is put back.
func (r record) putBack() string {
	return fmt.Sprintf("put it back first, with `eastwest run %s --undo --name %s`", r.Left, r.Name)
}

// providerOf returns the provider that has made files for a lab without a readable record.
func providerOf(home, name string) provider {
	for _, p := range providers {
		if _, err := os.Stat(machine.Dir(home, name, p.name)); err == nil {
			return p
		}
	}
	return providers[0]
}
