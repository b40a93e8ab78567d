package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func guestRecord() record {
	return record{
		Name: "guest", ID: "7c1f", Provider: Existing, Topology: DefaultTopology(), Complete: true,
		Settings: &existing.Settings{Kubeconfig: "/etc/kube/config", Contexts: cluster.List{"east", "west"}},
	}
}

// decide writes the record and returns what is decided for a lab of that name.
func decide(t *testing.T, r record, o Options) (wanted record, err error) {
	t.Helper()
	o.Home, o.Name = t.TempDir(), r.Name
	if o.Topology.Kind == "" {
		o.Topology = DefaultTopology()
	}
	require.NoError(t, r.write(o.Home))
	wanted, there, err := o.decide(t.Context())
	if err == nil {
		require.NotNil(t, there)
		require.NotEqual(t, r.ID, wanted.ID)
	}
	return wanted, err
}

func TestALaterCommandNeedNotRepeatTheSettings(t *testing.T) {
	r := guestRecord()
	wanted, err := decide(t, r, Options{})
	require.NoError(t, err)
	require.Equal(t, Existing, wanted.Provider)
	require.Equal(t, r.Settings, wanted.Settings)
	_, err = decide(t, r, Options{Provider: Existing, Settings: Settings{"context": {"east", "west"}}})
	require.NoError(t, err)
}

// Each of these was asked for and is not what the lab has: nothing may be dropped without a word.
func TestALabThatIsThereIsNotChanged(t *testing.T) {
	guest := guestRecord()
	onKind := record{Name: "demo", Provider: Kind, Topology: DefaultTopology(), Complete: true, Settings: &kind.Settings{
		Settings: machine.Settings{Range: "10.77.0.0/16", Egress: true}, Images: cluster.Images{Hub: "docker.io/istio", Tag: "1.31.0"},
	}}
	single := DefaultTopology()
	single.Kind = scenario.Single
	for _, c := range []struct {
		there   record
		o       Options
		problem string
	}{
		{
			guest, Options{Provider: Existing, Settings: Settings{"adopt": {"true"}}},
			"lab guest is there, without --adopt: remove it with `eastwest down guest`, or choose another --name",
		},
		{guest, Options{Settings: Settings{"api-server": {"cluster-a=https://192.0.2.1:6443"}}}, "without --api-server"},
		{guest, Options{Settings: Settings{"kubeconfig": {"/else/where"}}}, "with --kubeconfig /etc/kube/config"},
		{guest, Options{Settings: Settings{"context": {"west", "east"}}}, "with --context east,west"},
		{guest, Options{Provider: Embedded}, "made by the provider existing"},
		{guest, Options{Topology: single}, "with the topology multi-primary"},
		{onKind, Options{Settings: Settings{"range": {"10.78.0.0/16"}}}, "with --range 10.77.0.0/16"},
		{onKind, Options{Settings: Settings{"egress": {"false"}, "tag": {"1.30.0"}}}, "with --tag 1.31.0"},
		{onKind, Options{Settings: Settings{"kind-image": {"kindest/node:v1.36.1"}}}, "without --kind-image"},
	} {
		_, err := decide(t, c.there, c.o)
		require.ErrorContains(t, err, c.problem)
		require.NotErrorAs(t, err, new(*SetupError), "it is about the command line")
		c.there.Complete = false
		_, err = decide(t, c.there, c.o)
		require.NoError(t, err, "what was never complete is made anew: %s", c.problem)
	}
}

func TestSettingsAreOfTheProvider(t *testing.T) {
	unfinished := record{Name: "demo", Provider: Kind, Topology: DefaultTopology(), Settings: &kind.Settings{Image: "x"}}
	wanted, err := decide(t, unfinished, Options{Provider: Embedded})
	require.NoError(t, err)
	require.Equal(t, &embedded.Settings{}, wanted.Settings, "not those of an unfinished lab on kind")
	o := Options{Home: t.TempDir(), Name: "demo", Topology: DefaultTopology()}
	o.Settings = Settings{"context": {"east"}}
	_, _, err = o.decide(t.Context())
	require.EqualError(t, err, "--context: wanted --provider existing with it", "whether or not a provider works here")
	o.Provider, o.Settings = Kind, Settings{"hub": {"docker.io/istio"}, "range": {"10.0.0.0/8"}}
	_, _, err = o.decide(t.Context())
	require.ErrorContains(t, err, "wanted --tag with it")
	require.ErrorContains(t, err, "wanted a private IPv4 /16")
	o.Provider = "docker"
	_, _, err = o.decide(t.Context())
	require.ErrorContains(t, err, `unknown provider "docker": there are auto, embedded, `)
}

// Records of labs that an earlier eastwest has made.
func TestEarlierRecordsAreRead(t *testing.T) {
	for text, want := range map[string]cluster.Settings{
		`{"provider":"kind","kind_image":"kindest/node:v1.36.1","images":{"hub":"docker.io/istio","tag":"1.31.0"},"egress":true}`: &kind.Settings{
			Settings: machine.Settings{Egress: true}, Image: "kindest/node:v1.36.1",
			Images: cluster.Images{Hub: "docker.io/istio", Tag: "1.31.0"},
		},
		`{"provider":"embedded","egress":false}`: &embedded.Settings{},
		`{"provider":"existing","egress":false,
			"existing":{"kubeconfig":"/k","contexts":["east","west"],"api_servers":{"cluster-a":"https://192.0.2.1"},"adopt":true}}`: &existing.Settings{
			Kubeconfig: "/k", Contexts: cluster.List{"east", "west"}, Adopt: true,
			APIServers: map[string]string{"cluster-a": "https://192.0.2.1"},
		},
	} {
		home := t.TempDir()
		require.NoError(t, os.MkdirAll(labDir(home, "demo"), 0o755))
		require.NoError(t, os.WriteFile(recordFile(home, "demo"), []byte(text), 0o644))
		r, err := readRecord(home, "demo")
		require.NoError(t, err)
		require.Equal(t, want, r.Settings)
		r.Name = "demo"
		require.NoError(t, r.write(home))
		again, err := readRecord(home, "demo")
		require.NoError(t, err)
		require.Equal(t, r, again)
	}
}

// Another process makes a lab while this one waits for the lock: that lab is what this one has to look at.
func TestTheRecordIsReadUnderTheLock(t *testing.T) {
	home := t.TempDir()
	unlock, err := lockLab(t.Context(), home, "guest")
	require.NoError(t, err)
	opened := watchOpen(t, lockFile(home, "guest"))
	up := make(chan error, 1)
	go func() {
		adopt := Settings{"adopt": {"true"}}
		_, err := Up(t.Context(), Options{Home: home, Name: "guest", Provider: Existing, Topology: DefaultTopology(), Settings: adopt})
		up <- err
	}()
	require.NoError(t, opened())
	require.NoError(t, guestRecord().write(home))
	unlock()
	require.ErrorContains(t, <-up, "lab guest is there, without --adopt")
}

// watchOpen returns a function that waits until a file is opened after watchOpen was called.
func watchOpen(t *testing.T, file string) (wait func() error) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, file, unix.IN_OPEN)
	require.NoError(t, err)
	return func() error {
		_, err := unix.Read(fd, make([]byte, 4096))
		return err
	}
}

// A mesh that stays must not stay broken: nothing removes the files that say how to put it back.
func TestAMeshOfSomebodyElseIsPutBackBeforeTheLabGoes(t *testing.T) {
	home := t.TempDir()
	r := guestRecord()
	r.Left = "half-trust"
	require.NoError(t, r.write(home))
	require.NoError(t, Checkpoint{Scenario: "half-trust"}.write(home, "guest"))
	require.NoError(t, mayGo(home, "guest"), "what the lab has made goes as it is")

	r.Settings.(*existing.Settings).Adopt = true
	require.NoError(t, r.write(home))
	undo := "`eastwest run half-trust --undo --name guest`"
	require.ErrorContains(t, Down(t.Context(), home, "guest"), undo)

	// Its clusters cannot be opened: their files are not there.
	o := Options{Home: home, Name: "guest", Topology: DefaultTopology()}
	_, err := o.reuse(t.Context(), r, &bundle.Bundle{})
	require.ErrorContains(t, err, "opening lab guest: ")
	require.ErrorContains(t, err, "cluster-a.json")
	require.ErrorContains(t, err, "mend that, then put it back first, with "+undo)
	require.ErrorContains(t, remove(t.Context(), r.Settings.New(cluster.Lab{Home: home}), home, "guest"), undo)
	require.FileExists(t, checkpointFile(home, "guest"))

	// Nothing says any more that it was adopted.
	require.NoError(t, os.MkdirAll(machine.Dir(home, "guest", Existing), 0o700))
	for _, damage := range []func() error{
		func() error { return os.WriteFile(recordFile(home, "guest"), []byte(`{"name": "gue`), 0o644) },
		func() error { return os.Remove(recordFile(home, "guest")) },
	} {
		require.NoError(t, damage())
		err := Down(t.Context(), home, "guest")
		require.ErrorContains(t, err, "checkpoint.json is needed to put them back")
		require.ErrorContains(t, err, "lab.json")
	}
	require.NoError(t, os.Remove(checkpointFile(home, "guest")))
	require.NoError(t, Down(t.Context(), home, "guest"))
	require.NoDirExists(t, labDir(home, "guest"))
}

func TestADamagedRecordIsReported(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(machine.Dir(home, "demo", Existing), 0o700))
	require.NoError(t, os.WriteFile(recordFile(home, "demo"), []byte(`{"provider": "docker"}`), 0o644))
	_, err := Open(home, "demo")
	require.ErrorContains(t, err, `lab.json: unknown provider "docker"`)
	err = Check(t.Context(), Options{Home: home, Name: "demo", Topology: DefaultTopology()})
	require.ErrorContains(t, err, "remove the lab with `eastwest down demo`")
	require.ErrorAs(t, err, new(*SetupError))
	s, err := StatusOf(t.Context(), home, "demo")
	require.NoError(t, err)
	require.Equal(t, Incomplete, s.State)
	require.Contains(t, s.Problem, "unknown provider")
	require.NoError(t, Down(t.Context(), home, "demo"))
	require.NoDirExists(t, labDir(home, "demo"))
}

func TestNameOf(t *testing.T) {
	home := t.TempDir()
	r := guestRecord()
	require.NoError(t, r.write(home))
	name, err := NameOf(home, DefaultName, Existing)
	require.NoError(t, err)
	require.Equal(t, "guest", name, "the only one of the provider")
	_, err = NameOf(home, DefaultName, Embedded)
	require.ErrorContains(t, err, "no lab of the provider embedded")
	r.Name = "other"
	require.NoError(t, r.write(home))
	_, err = NameOf(home, DefaultName, Existing)
	require.ErrorContains(t, err, "guest, other")
}

// istiods of other clusters read these API servers, and have to reach them.
func TestAPIServersThatOthersRead(t *testing.T) {
	of := func(kind scenario.Kind) []string {
		m, err := meshTopology(scenario.Topology{Kind: kind, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot})
		require.NoError(t, err)
		return readByOthers(m)
	}
	require.Equal(t, []string{"cluster-a", "cluster-b"}, of(scenario.MultiPrimary))
	require.Equal(t, []string{"cluster-b"}, of(scenario.PrimaryRemote))
	require.Equal(t, []string{"cluster-a", "cluster-b"}, of(scenario.ExternalControlPlane))
	require.Empty(t, of(scenario.Single))
	require.Empty(t, of(scenario.NoMesh))
}

// The bundle's images hold Envoy's own release wherever they are, others Istio's.
func TestTheMeshIsInstalledForTheProxyOfTheImages(t *testing.T) {
	l := &Lab{bundle: &bundle.Bundle{}}
	for tag, upstream := range map[string]bool{bundle.Tag: true, "1.31.0": false} {
		l.record.Settings = &kind.Settings{Images: cluster.Images{Hub: "registry.example/istio", Tag: tag}}
		istio := l.meshOptions().Istio
		require.Equal(t, upstream, istio.UpstreamEnvoy, tag)
		require.Equal(t, "registry.example/istio", istio.Hub)
		require.Equal(t, tag, istio.Tag)
	}
}

// Labs of published images need only the bundle's tools, including those that are there already.
func TestOnlyTools(t *testing.T) {
	published := Settings{"hub": {"registry.example/istio"}, "tag": {"1.31.0"}}
	onlyTools := func(o Options) bool {
		o.Home, o.Name = t.TempDir(), "demo"
		return o.OnlyTools(t.Context())
	}
	require.True(t, onlyTools(Options{Provider: Kind, Settings: published}))
	require.True(t, onlyTools(Options{Provider: Existing, Settings: published}))
	image := Settings{"kind-image": {"kindest/node:v1.36.1"}}
	require.False(t, onlyTools(Options{Provider: Kind, Settings: image}), "the mesh's images are the bundle's")
	home := t.TempDir()
	r := record{Name: "demo", Provider: Kind, Topology: DefaultTopology(), Complete: true, Settings: &kind.Settings{
		Images: cluster.Images{Hub: "registry.example/istio", Tag: "1.31.0"}, Settings: machine.Settings{Egress: true},
	}}
	require.NoError(t, r.write(home))
	require.True(t, Options{Home: home, Name: "demo", Topology: DefaultTopology()}.OnlyTools(t.Context()))
}

func TestWhatToTryIfImagesCannotBePulled(t *testing.T) {
	pull := fmt.Errorf("waiting: %w", &mesh.PullError{Cluster: "cluster-a", Image: "docker.io/istio/pilot:x", Said: "not found"})
	published := &Lab{record: record{Settings: &kind.Settings{Images: cluster.Images{Hub: "docker.io/istio", Tag: "x"}}}}
	err := published.withoutImages(pull)
	require.ErrorContains(t, err, "cluster-a cannot pull docker.io/istio/pilot:x: not found")
	require.ErrorContains(t, err, "try `docker pull docker.io/istio/pilot:x`: the registry has to have it (--hub, --tag)")
	require.Equal(t, pull, (&Lab{record: record{Settings: &kind.Settings{}}}).withoutImages(pull))
	other := errors.New("something else")
	require.Equal(t, other, published.withoutImages(other))
}

// Without a provider that works, each says what it needs.
func TestNoProviderWorks(t *testing.T) {
	all := providers
	t.Cleanup(func() { providers = all })
	broken := func(problem, fix string) func(context.Context) cluster.State {
		return func(context.Context) cluster.State { return cluster.State{Problem: errors.New(problem), Fix: fix} }
	}
	own := func() cluster.Settings { return &embedded.Settings{} }
	others := func() cluster.Settings { return &existing.Settings{} }
	providers = []provider{
		{name: Embedded, available: broken("needs root", "run with sudo"), settings: own},
		{name: Kind, available: broken("Docker does not run", "start it"), settings: own},
		{name: Existing, available: existing.Available, settings: others},
	}
	_, err := ChooseProvider(t.Context(), Auto)
	require.EqualError(t, err, `no provider works here:
  embedded  needs root: run with sudo
  kind      Docker does not run: start it
  existing  needs clusters that are there, and the names of their contexts: --provider existing --context …`)
	require.ErrorAs(t, err, new(*SetupError))
	providers[1].available = func(context.Context) cluster.State { return cluster.State{} }
	name, err := ChooseProvider(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, Kind, name, "the first that works")
	require.Equal(t, []string{Embedded, Kind}, Makers())
	require.Equal(t, []string{Auto, Embedded, Kind, Existing}, Providers())
}

func TestHelpOfProviders(t *testing.T) {
	for _, p := range providers {
		require.Contains(t, p.help, "With --provider "+p.name)
		require.Positive(t, p.cpus)
	}
}
