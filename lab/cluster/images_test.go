package cluster

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImagesAreNamedWhole(t *testing.T) {
	require.NoError(t, Images{}.Check())
	require.False(t, Images{}.Published())
	for _, i := range []Images{{Hub: "docker.io/istio", Tag: "1.31.0"}, {Hub: "localhost:5000/istio", Tag: "x"}} {
		require.NoError(t, i.Check())
		require.True(t, i.Published())
	}
	for words, i := range map[string]Images{
		"--hub docker.io/istio: wanted --tag with it": {Hub: "docker.io/istio"},
		"--tag 1.31.0: wanted --hub with it":          {Tag: "1.31.0"},
		"wanted the parts of an image's name":         {Hub: "https://docker.io/istio", Tag: "1.31.0"},
		"--tag 1.31.0:x: wanted the parts":            {Hub: "docker.io/istio", Tag: "1.31.0:x"},
		"--hub docker.io/istio/ ":                     {Hub: "docker.io/istio/", Tag: "1.31.0"},
	} {
		require.ErrorContains(t, i.Check(), words)
	}
}

func TestStateSaysWhatToDo(t *testing.T) {
	require.NoError(t, State{}.Err())
	require.EqualError(t, State{Problem: errors.New("needs root"), Fix: "run with sudo"}.Err(), "needs root: run with sudo")
}
