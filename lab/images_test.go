package lab

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/mesh"
)

func TestImagesAreNamedWhole(t *testing.T) {
	published := Images{Hub: "docker.io/istio", Tag: "1.31.0"}
	for _, provider := range []string{Kind, Existing} {
		require.NoError(t, published.check(provider))
	}
	require.NoError(t, Images{}.check(Embedded))
	require.NoError(t, Images{Hub: "localhost:5000/istio", Tag: "x"}.check(Kind))
	for words, of := range map[string]Images{
		"--hub docker.io/istio: wanted --tag with it": {Hub: "docker.io/istio"},
		"--tag 1.31.0: wanted --hub with it":          {Tag: "1.31.0"},
		"wanted the parts of an image's name":         {Hub: "https://docker.io/istio", Tag: "1.31.0"},
		"--tag 1.31.0:x: wanted the parts":            {Hub: "docker.io/istio", Tag: "1.31.0:x"},
		"--hub docker.io/istio/ ":                     {Hub: "docker.io/istio/", Tag: "1.31.0"},
	} {
		require.ErrorContains(t, of.check(Kind), words)
	}
	require.ErrorContains(t, Options{KindImage: "kindest/node:v1.36.1"}.fits(Embedded), "--kind-image: wanted --provider kind with it")
	require.NoError(t, Options{KindImage: "kindest/node:v1.36.1"}.fits(Kind))
	require.ErrorContains(t, published.check(Embedded), "nodes of the provider embedded reach no registry: wanted --provider kind or existing")
}

// Images of the bundle hold Envoy's own release wherever they are, others Istio's.
func TestTheMeshIsInstalledForTheProxyOfTheImages(t *testing.T) {
	l := &Lab{bundle: &bundle.Bundle{}}
	for tag, upstream := range map[string]bool{bundle.Tag: true, "1.31.0": false} {
		l.record.Images = Images{Hub: "registry.example/istio", Tag: tag}
		istio := l.meshOptions().Istio
		require.Equal(t, upstream, istio.UpstreamEnvoy, tag)
		require.Equal(t, "registry.example/istio", istio.Hub)
		require.Equal(t, tag, istio.Tag)
	}
}

// Labs of published images need no more of the bundle than its tools, those that were made of them before, too.
func TestOnlyTools(t *testing.T) {
	published := Images{Hub: "registry.example/istio", Tag: "1.31.0"}
	require.True(t, Options{Provider: Kind, Images: published}.OnlyTools())
	require.True(t, Options{Provider: Existing, Images: published}.OnlyTools())
	require.False(t, Options{Provider: Kind, KindImage: "kindest/node:v1.36.1"}.OnlyTools(), "the mesh's images are the bundle's")
	home := t.TempDir()
	r := record{Name: "demo", Provider: Kind, Topology: DefaultTopology(), Images: published, Complete: true}
	require.NoError(t, r.write(home))
	require.True(t, Options{Home: home, Name: "demo"}.OnlyTools())
}

// A lab keeps its images; others are another lab.
func TestImagesOfALabAreKnown(t *testing.T) {
	home := t.TempDir()
	r := record{
		Name:     "demo",
		Provider: Kind,
		Topology: DefaultTopology(),
		Images:   Images{Hub: "docker.io/istio", Tag: "1.31.0"},
		Complete: true,
	}
	require.NoError(t, r.write(home))
	o := Options{Home: home, Name: "demo", Topology: DefaultTopology()}
	same := o.settled()
	require.Equal(t, r.Images, same.Images)
	require.Empty(t, r.other(Kind, same))

	o.Images = Images{Hub: "docker.io/istio", Tag: "1.30.0"}
	require.Equal(t, "with images of docker.io/istio with the tag 1.31.0", r.other(Kind, o.settled()))
	r.Images = Images{}
	require.Equal(t, "with the bundle's images", r.other(Kind, o))

	r.Images, o.Images, o.Egress = Images{}, Images{}, true
	require.NoError(t, r.write(home))
	require.Equal(t, "without --egress", r.other(Kind, o.settled()), "it is sealed, and stays so")
	r.Egress = true
	require.NoError(t, r.write(home))
	o.Egress = false
	require.True(t, o.settled().Egress, "made anew it is as it was")
	require.Empty(t, r.other(Kind, o.settled()))

	o.Images, o.Provider = Images{}, Embedded
	require.False(t, o.settled().Images.Published(), "of another provider")
}

func TestWhatToTryWhereImagesCannotBePulled(t *testing.T) {
	pull := fmt.Errorf("waiting: %w", &mesh.PullError{Cluster: "cluster-a", Image: "docker.io/istio/pilot:x", Said: "not found"})
	published := &Lab{record: record{Provider: Kind, Images: Images{Hub: "docker.io/istio", Tag: "x"}}}
	err := published.withoutImages(pull)
	require.ErrorContains(t, err, "cluster-a cannot pull docker.io/istio/pilot:x: not found")
	require.ErrorContains(t, err, "try `docker pull docker.io/istio/pilot:x`: the registry has to have it (--hub, --tag)")
	require.Equal(t, pull, (&Lab{record: record{Provider: Kind}}).withoutImages(pull))
	other := errors.New("something else")
	require.Equal(t, other, published.withoutImages(other))
}
