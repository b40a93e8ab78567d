package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/manifests"
)

func explained(t *testing.T, topology scenario.Topology) string {
	t.Helper()
	t.Setenv("EASTWEST_BUNDLE", t.TempDir()) // the same with and without a bundle
	var out bytes.Buffer
	require.NoError(t, ExplainTopology(&out, topology))
	return out.String()
}

func TestExplainTopology(t *testing.T) {
	for _, kind := range scenario.Kinds() {
		text := explained(t, scenario.Topology{Kind: kind, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot})
		assert.True(t, strings.HasPrefix(text, string(kind)+", network separate, trust shared-root\n"), text)
		for i, c := range (scenario.Topology{Kind: kind}).Clusters() {
			assert.Contains(t, text, fmt.Sprintf("\n  %2d. %s: create the cluster\n", i+1, c))
		}
		numbers := regexp.MustCompile(`(?m)^ *(\d+)\. `).FindAllStringSubmatch(text, -1)
		for i, n := range numbers {
			assert.Equal(t, fmt.Sprint(i+1), n[1])
		}
		if kind == scenario.NoMesh {
			assert.Len(t, numbers, 2)
			assert.NotContains(t, text, "$ ")
			continue
		}
		last := numbers[len(numbers)-1][0]
		assert.Contains(t, text, "prove calls")
		assert.Less(t, strings.Index(text, "install istiod"), strings.Index(text, last), "the proof comes after what it proves")
		for _, line := range strings.Split(text, "\n") {
			assert.Equal(t, strings.TrimRight(line, " "), line)
			if strings.Contains(line, "$") {
				assert.Regexp(t, `^      \$ \S`, line, "commands alone in their lines")
			}
		}
	}
	assert.Contains(t, explained(t, scenario.Topology{Kind: scenario.MultiPrimary}), "$ istioctl install --context=cluster-b ")
	assert.Contains(
		t,
		explained(t, scenario.Topology{Kind: scenario.PrimaryRemote}),
		"  cluster-b on network-b: served by istiod of cluster-a, an east-west gateway\n",
	)
	assert.Contains(
		t,
		explained(t, scenario.Topology{Kind: scenario.PrimaryRemote, Network: scenario.SharedNetwork}),
		"  cluster-b on network-a: served by istiod of cluster-a\n",
	)
	assert.Contains(
		t,
		explained(t, scenario.Topology{Kind: scenario.ExternalControlPlane}),
		"  external on network-external: runs istiod for others, with its configuration in cluster-a\n",
	)
	require.Error(t, ExplainTopology(&bytes.Buffer{}, scenario.Topology{Members: []scenario.Cluster{{Name: "a", Network: "n", Primary: "b"}}}))
	require.ErrorIs(t, ExplainTopology(full{}, lab.DefaultTopology()), errFull)
}

// The examples in files are topologies that have a plan.
func TestExplainExamples(t *testing.T) {
	files, err := fs.Glob(manifests.FS, "topologies/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, file := range files {
		data, err := manifests.FS.ReadFile(file)
		require.NoError(t, err)
		topology, err := scenario.ParseTopology(file, data)
		require.NoError(t, err)
		text := explained(t, topology)
		assert.True(t, strings.HasPrefix(text, topology.Name+": "+topology.Title+"\n"), text)
		for _, c := range topology.Clusters() {
			assert.Contains(t, text, c+": create the cluster\n")
		}
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
