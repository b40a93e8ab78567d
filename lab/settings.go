package lab

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Settings are values for the settings of a lab's provider, by the names of their flags: {"range": {"10.77.0.0/16"}}. Those that
// are left out keep the value that they have for the lab that is there, or their default. Only a list has several values.
type Settings map[string][]string

// Setting is one thing that can be set for the clusters of some providers.
type Setting struct {
	Name      string // of its flag
	Help      string // one line
	Bool      bool   // its values are true and false
	List      bool   // it may have several values
	Providers []string
}

// SettingsOf lists the settings of the named providers.
func SettingsOf(names ...string) []Setting {
	var all []Setting
	for _, p := range providers {
		if !slices.Contains(names, p.name) {
			continue
		}
		flags(p.settings()).VisitAll(func(f *flag.Flag) {
			if i := slices.IndexFunc(all, func(s Setting) bool { return s.Name == f.Name }); i >= 0 {
				all[i].Providers = append(all[i].Providers, p.name)
				return
			}
			_, list := f.Value.(resetter)
			all = append(all, Setting{Name: f.Name, Help: f.Usage, Bool: isBool(f), List: list, Providers: []string{p.name}})
		})
	}
	return all
}

// Choices returns the possible values of a setting, if its provider knows them.
func (s Settings) Choices(name string) ([]string, error) {
	for _, p := range providers {
		of := p.settings()
		chooser, ok := of.(cluster.Chooser)
		if !ok || flags(of).Lookup(name) == nil {
			continue
		}
		if err := s.apply(of, p.name); err != nil {
			return nil, err
		}
		return chooser.Choices(name)
	}
	return nil, nil
}

// resetter is implemented by values of flags that may be given more than once.
type resetter interface{ Reset() }

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// flags returns the flags of settings. Setting one of them sets the setting.
func flags(s cluster.Settings) *flag.FlagSet {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	s.Flags(f)
	return f
}

// apply changes settings of a provider to the given values. It returns all problems.
func (s Settings) apply(to cluster.Settings, provider string) error {
	var problems []error
	set := flags(to)
	for _, name := range slices.Sorted(maps.Keys(s)) {
		f := set.Lookup(name)
		if f == nil {
			problems = append(problems, notOf(name, provider))
			continue
		}
		if r, ok := f.Value.(resetter); ok {
			r.Reset()
		}
		for _, value := range s[name] {
			err := f.Value.Set(value)
			if err != nil && isBool(f) {
				err = errors.New("wanted true or false")
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("--%s %s: %w", name, value, err))
			}
		}
	}
	return errors.Join(problems...)
}

// fitAuto returns an error for each setting that no provider has which Auto may stand for.
func (s Settings) fitAuto() error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if !slices.ContainsFunc(owners(name), func(p string) bool { return slices.Contains(Makers(), p) }) {
			problems = append(problems, notOf(name, ""))
		}
	}
	return errors.Join(problems...)
}

// owners lists the providers that have a setting.
func owners(setting string) []string {
	for _, s := range SettingsOf(Providers()...) {
		if s.Name == setting {
			return s.Providers
		}
	}
	return nil
}

// notOf says that a setting is not one of the provider's.
func notOf(setting, provider string) error {
	of := owners(setting)
	switch {
	case len(of) == 0:
		var known []string
		for _, s := range SettingsOf(Providers()...) {
			known = append(known, s.Name)
		}
		return fmt.Errorf("unknown setting %q: there are %s", setting, words.And(known))
	case provider == "":
		return fmt.Errorf("--%s: wanted --provider %s with it", setting, words.Or(of))
	}
	return fmt.Errorf("--%s: wanted --provider %s with it, not %s", setting, words.Or(of), provider)
}

// differences describes the settings that a lab has and that are not the wanted ones: "without --egress".
func differences(has, wanted cluster.Settings) []string {
	var all []string
	asked := flags(wanted)
	flags(has).VisitAll(func(f *flag.Flag) {
		value := f.Value.String()
		switch {
		case value == asked.Lookup(f.Name).Value.String():
		case value == "" || value == "false":
			all = append(all, "without --"+f.Name)
		case isBool(f):
			all = append(all, "with --"+f.Name)
		default:
			all = append(all, fmt.Sprintf("with --%s %s", f.Name, value))
		}
	})
	return all
}

// clone returns a copy of a provider's settings, as the record would hold them.
func (p provider) clone(s cluster.Settings) (cluster.Settings, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	twin := p.settings()
	return twin, json.Unmarshal(data, twin)
}
