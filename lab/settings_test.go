package lab

import (
	"encoding/json"
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// someValue is a value that is not the default, for each setting that takes no string.
var someValue = map[string]string{"range": "10.77.0.0/16", "api-server": "cluster-a=https://192.0.2.1:6443", "hub": "docker.io/istio"}

// A setting that is not written down, or is not compared, would be dropped without a word.
func TestEverySettingIsWrittenDownAndCompared(t *testing.T) {
	for _, p := range providers {
		flags(p.settings()).VisitAll(func(f *flag.Flag) {
			t.Run(p.name+" "+f.Name, func(t *testing.T) {
				value, ok := someValue[f.Name]
				switch {
				case isBool(f):
					value = "true"
				case !ok:
					value = "/some-value"
				}
				s := p.settings()
				require.NoError(t, Settings{f.Name: {value}}.apply(s, p.name))
				data, err := json.Marshal(s)
				require.NoError(t, err)
				require.NotEqual(t, mustJSON(t, p.settings()), string(data), "it is not written down")
				again, err := p.clone(s)
				require.NoError(t, err)
				require.Empty(t, differences(s, again))
				require.Len(t, differences(p.settings(), s), 1)
				require.Equal(t, "without --"+f.Name, differences(p.settings(), s)[0])
				require.True(t, strings.HasPrefix(differences(s, p.settings())[0], "with --"+f.Name))
			})
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

// One flag of `up` sets a setting of whichever provider is meant.
func TestASettingMeansTheSameForAllProviders(t *testing.T) {
	of := map[string]*flag.Flag{}
	for _, p := range providers {
		flags(p.settings()).VisitAll(func(f *flag.Flag) {
			if other := of[f.Name]; other != nil {
				require.Equal(t, other.Usage, f.Usage)
				require.IsType(t, other.Value, f.Value)
			}
			of[f.Name] = f
		})
	}
	require.Len(t, SettingsOf(Providers()...), len(of))
	for _, s := range SettingsOf(Providers()...) {
		require.NotEmpty(t, s.Help)
		require.NotEmpty(t, s.Providers)
	}
	for _, s := range SettingsOf(Embedded) {
		require.Equal(t, []string{Embedded}, s.Providers)
	}
}

func TestProblemsOfSettings(t *testing.T) {
	for words, c := range map[string]struct {
		provider string
		settings Settings
	}{
		"--kind-image: wanted --provider kind with it, not embedded":         {Embedded, Settings{"kind-image": {"x"}}},
		"--hub: wanted --provider kind or existing with it, not embedded":    {Embedded, Settings{"hub": {"x"}}},
		"--egress: wanted --provider embedded or kind with it, not existing": {Existing, Settings{"egress": {"true"}}},
		"--egress maybe: wanted true or false":                               {Embedded, Settings{"egress": {"maybe"}}},
		`unknown setting "rnge": there are egress, range, `:                  {Embedded, Settings{"rnge": {"x"}}},
		"--api-server 10.0.0.1: wanted the lab's name of a cluster":          {Existing, Settings{"api-server": {"10.0.0.1"}}},
	} {
		p, err := providerNamed(c.provider)
		require.NoError(t, err)
		require.ErrorContains(t, c.settings.apply(p.settings(), p.name), words)
	}
	p, err := providerNamed(Embedded)
	require.NoError(t, err)
	err = Settings{"adopt": {"true"}, "egress": {"maybe"}, "tag": {"x"}}.apply(p.settings(), p.name)
	for _, words := range []string{"--adopt: wanted --provider existing", "--egress maybe", "--tag: wanted --provider kind or existing"} {
		require.ErrorContains(t, err, words, "all problems at once")
	}
	require.EqualError(t, Settings{"context": {"x"}, "egress": {"true"}}.fitAuto(), "--context: wanted --provider existing with it")
}

// A list that is given again replaces the one of the lab that is there.
func TestListsAreReplaced(t *testing.T) {
	s := &existing.Settings{Contexts: cluster.List{"east", "west"}, Adopt: true}
	require.NoError(t, Settings{"context": {"north", "south"}}.apply(s, Existing))
	require.Equal(t, &existing.Settings{Contexts: cluster.List{"north", "south"}, Adopt: true}, s)
}

func TestDifferencesAreReadable(t *testing.T) {
	require.Equal(t, []string{"without --egress", "with --kind-image kindest/node:v1.36.1", "with --range 10.77.0.0/16"}, differences(
		&kind.Settings{Settings: machine.Settings{Range: "10.77.0.0/16"}, Image: "kindest/node:v1.36.1"},
		&kind.Settings{Settings: machine.Settings{Egress: true}},
	))
	require.Equal(t, []string{"with --adopt", "with --context east,west"}, differences(
		&existing.Settings{Adopt: true, Contexts: cluster.List{"east", "west"}},
		&existing.Settings{Contexts: cluster.List{"west", "east"}},
	))
}

func TestChoices(t *testing.T) {
	choices, err := Settings{"kubeconfig": {"testdata/kubeconfig"}}.Choices("context")
	require.NoError(t, err)
	require.Equal(t, []string{"east", "west"}, choices)
	choices, err = Settings{}.Choices("range")
	require.NoError(t, err)
	require.Empty(t, choices)
}
