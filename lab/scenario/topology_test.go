package scenario

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

func TestGoodTopologies(t *testing.T) {
	for _, file := range fixtures(t, "testdata/topologies/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			topology, err := LoadTopology(file)
			require.NoError(t, err)
			assert.True(t, IsTopology(file))
			got, err := json.MarshalIndent(topology, "", "  ")
			require.NoError(t, err)
			golden(t, file+".golden", string(got)+"\n")
		})
	}
}

func TestBadTopologies(t *testing.T) {
	for _, file := range fixtures(t, "testdata/topologies/bad/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			topology, err := LoadTopology(file)
			assert.Zero(t, topology)
			var problems *strict.Problems
			require.ErrorAs(t, err, &problems)
			golden(t, file+".golden", err.Error()+"\n")
			for i, p := range problems.List {
				assert.Positive(t, p.Place.Line, p)
				assert.Positive(t, p.Place.Column, p)
				if i > 0 {
					assert.GreaterOrEqual(t, p.Place.Line, problems.List[i-1].Place.Line, "sorted")
				}
			}
		})
	}
}

// What people copy.
func TestExamplesOfTopologies(t *testing.T) {
	schema := compile(t, TopologySchema)
	for _, file := range fixtures(t, "../../manifests/topologies/*.yaml") {
		topology, err := LoadTopology(file)
		require.NoError(t, err)
		assert.Equal(t, strings.TrimSuffix(filepath.Base(file), ".yaml"), topology.Name)
		assert.NotEmpty(t, topology.Title)
		require.NoError(t, validate(t, schema, file))
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.True(
			t,
			bytes.HasPrefix(data, []byte("# yaml-language-server: $schema=schema.json\n")),
			"%s: editors find the schema by its first line",
			file,
		)
	}
}

// Each mistake alone, in a file of its own and in a scenario: both say the same.
func TestWhatCannotBeAMesh(t *testing.T) {
	const (
		a     = "{cluster: cluster-a, network: network-a}"
		b     = "{cluster: cluster-b, network: network-b}"
		bOfA  = "{cluster: cluster-b, network: network-b, primary: cluster-a}"
		bOfB  = "{cluster: cluster-b, network: network-b, primary: cluster-b}"
		bNoGW = "{cluster: cluster-b, network: network-b, gateway: false}"
	)
	for text, want := range map[string][]string{
		"kind: multi-primary": nil,
		"kind: none":          nil,
		"kind: external-control-plane, network: shared":              nil,
		"clusters: [" + a + ", " + b + "], trust: separate-roots":    nil,
		"clusters: [" + a + ", " + bOfB + "], trust: separate-roots": nil,
		"clusters: [" + a + ", " + bOfA + "]":                        nil,
		"clusters: [" + bNoGW + "]":                                  nil,
		"trust: shared-root":                                         {"neither kind nor clusters"},
		"kind: single, clusters: [" + a + "]":                        {"clusters: both kind and clusters"},
		"network: shared, clusters: [" + a + "]":                     {"network: network beside clusters"},
		"kind: single, network: shared": {"network: one cluster has no other to " +
			"share a network with"},
		"kind: primary-remote, trust: separate-roots": {"trust: one istiod signs everything: " +
			"there are no two roots that could differ"},
		"kind: external-control-plane, trust: separate-roots": {"trust: one istiod signs everything: " +
			"there are no two roots that could differ"},
		"clusters: [" + a + ", " + bOfA + "], trust: separate-roots": {"trust: one istiod signs everything: " +
			"there are no two roots that could differ"},
		"clusters: [" + a + ", " + a + "]": {"clusters: cluster: two clusters are " +
			"called cluster-a"},
		"clusters: [" + bOfA + "]": {`clusters: primary: unknown cluster "cluster-a"`},
		"clusters: [" + a + ", " + bOfA + ", {cluster: c, network: n, primary: cluster-b}]": {"clusters: primary: cluster-b has no " +
			"istiod that could serve others"},
		"clusters: [{cluster: cluster-a, network: n, primary: cluster-b}, " + bOfA + "]": {
			"clusters: primary: cluster-b has no istiod that could serve others",
			"clusters: primary: cluster-a has no istiod that could serve others"},
		"clusters: [" + a + ", {cluster: c, network: n, primary: cluster-a, config-cluster: cluster-a}]": {
			"clusters: config-cluster: there is no istiod here that would read a configuration"},
		"clusters: [" + a + ", {cluster: c, network: n, config-cluster: " +
			"d}]": {`clusters: config-cluster: unknown cluster "d"`},
		"clusters: [" + a + ", {cluster: c, network: n, config-cluster: " +
			"cluster-a}]": {"clusters: config-cluster: c reads its configuration from " +
			"cluster-a, which it does not serve"},
		"clusters: [" + a + ", " + bNoGW + "]": {"clusters: gateway: network-b has no east-west gateway: nobody gets in from network-a"},
		"clusters: [" + bOfA + ", {cluster: cluster-a, network: network-b, gateway: " +
			"false}]": {"clusters: gateway: cluster-a needs its east-west gateway: the clusters " +
			"that its istiod serves reach it there"},
		"clusters: [{cluster: x, network: n, config-cluster: cluster-b}, {cluster: cluster-b, network: m, primary: x, gateway: false}]": nil,
	} {
		t.Run(text, func(t *testing.T) {
			heads := func(err error, below string) (all []string) {
				if err == nil {
					return nil
				}
				var problems *strict.Problems
				require.ErrorAs(t, err, &problems)
				for _, p := range problems.List {
					if head, ok := strings.CutPrefix(p.What, below); ok {
						all = append(all, head)
					}
				}
				return all
			}
			_, err := ParseTopology("x.yaml", []byte("{topology: x, "+text+"}"))
			assert.Equal(t, want, heads(err, ""))
			_, err = Parse("x.yaml", []byte("{scenario: x, topology: {"+text+"}}"), vocabulary)
			assert.Equal(t, want, heads(err, "topology: "))
		})
	}
}

// A topology that no file holds says the same, without a place.
func TestValidate(t *testing.T) {
	require.NoError(t, Topology{Kind: MultiPrimary}.Validate())
	require.EqualError(t, Topology{}.Validate(), `neither kind nor clusters
  wanted  exactly one: kind for a topology of the lesson, clusters to list them one by one
  try     kind: multi-primary`)
	two := Topology{Members: []Cluster{{Name: "a", Network: "n", Primary: "b"}, {Name: "a", Network: "n"}}}
	require.EqualError(t, two.Validate(), `two clusters are called a
  wanted  a name of its own for each: remote secrets, contexts and metrics tell clusters apart by it
  try     rename one of the two
unknown cluster "b"
  wanted  a
  try     did you mean a?`)
}

func TestClustersOfTopologies(t *testing.T) {
	for _, c := range []struct {
		topology Topology
		want     []Cluster
	}{
		{Topology{Kind: NoMesh, Network: SeparateNetworks, Trust: SharedRoot}, []Cluster{
			{Name: "cluster-a", Network: "network-a"}, {Name: "cluster-b", Network: "network-b"}}},
		{Topology{Kind: Single, Network: SeparateNetworks, Trust: SelfSigned}, []Cluster{
			{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"}}},
		{Topology{Kind: MultiPrimary, Network: SharedNetwork, Trust: SeparateRoots}, []Cluster{
			{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"}, {Name: "cluster-b", Network: "network-a", Primary: "cluster-b"}}},
		{Topology{Kind: PrimaryRemote, Network: SeparateNetworks, Trust: SharedRoot}, []Cluster{
			{Name: "cluster-a", Network: "network-a", Primary: "cluster-a"}, {Name: "cluster-b", Network: "network-b", Primary: "cluster-a"}}},
		{Topology{Kind: ExternalControlPlane, Network: SeparateNetworks, Trust: SharedRoot}, []Cluster{
			{Name: "cluster-a", Network: "network-a", Primary: "external"}, {Name: "cluster-b", Network: "network-b", Primary: "external"},
			{Name: "external", Network: "network-external", Primary: "external", Config: "cluster-a"}}},
		{Topology{Trust: SharedRoot, Members: []Cluster{{Name: "x", Network: "n"}, {Name: "y", Network: "n", Primary: "x"}}}, []Cluster{
			{Name: "x", Network: "n", Primary: "x"}, {Name: "y", Network: "n", Primary: "x"}}},
		{Topology{Name: "mine", Trust: SharedRoot, Members: []Cluster{{Name: "x", Network: "n"}}}, []Cluster{
			{Name: "x", Network: "n", Primary: "x"}}},
	} {
		require.NoError(t, c.topology.Validate())
		assert.Equal(t, c.want, c.topology.All())
		var names []string
		for _, cluster := range c.want {
			names = append(names, cluster.Name)
		}
		assert.Equal(t, names, c.topology.Clusters())
	}
}

func TestIsTopology(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]bool{
		"topology: x":                true,
		"topology: 7":                true,
		"clusters: []":               true,
		"kind: single":               true,
		"topology: {kind: single}":   false,
		"topology:":                  false,
		"scenario: x\ntopology: y":   false,
		"title: x":                   false,
		"- topology: x":              false,
		"topology: [":                false,
		"":                           false,
		strings.Repeat("[", 100_000): false,
		"topology: x\n" + strings.Repeat("#", strict.MaxSize): false,
	} {
		file := filepath.Join(dir, "x.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		assert.Equal(t, want, IsTopology(file), "%.40q", text)
	}
	assert.False(t, IsTopology(dir))
	assert.False(t, IsTopology(filepath.Join(dir, "none.yaml")))
}

func TestTopologyFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	_, err := LoadTopology(filepath.Join(dir, "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "reading topology: ")
	_, err = LoadTopology(dir)
	require.ErrorContains(t, err, "is not a file (a topology is a file, such as "+filepath.Join(dir, "topology.yaml"))
	large := filepath.Join(dir, "large.yaml")
	require.NoError(t, os.WriteFile(large, make([]byte, strict.MaxSize+1), 0o644))
	_, err = LoadTopology(large)
	require.ErrorContains(t, err, large+":1:1: the file is too large")
	for text, want := range map[string]string{
		string(make([]byte, strict.MaxSize+1)): "x.yaml:1:1: the file is too large",
		"topology: é\xff":                      "x.yaml:1:12: the file is not UTF-8 text",
		"topology: \x00":                       "x.yaml:1:11: a control character",
		"":                                     "x.yaml:1:1: the file is empty\n  wanted  a topology",
		"- a":                                  "x.yaml:1:1: not a topology\n  wanted  fields such as topology: and clusters:",
		"topology: x\n---\nkind: none":         "x.yaml:2:1: a second YAML document",
		"kind: none\nkind: none":               `x.yaml:2:1: "kind" twice`,
		strings.Repeat("[", 100_000):           "max depth",
	} {
		_, err := ParseTopology("x.yaml", []byte(text))
		require.ErrorContains(t, err, want)
	}
	_, err = Parse("x.yaml", []byte("topology: x\nkind: none\n"), vocabulary)
	require.EqualError(t, err, `x.yaml:1:1: not a scenario but a topology
  wanted  fields such as scenario:, title: and topology:
  seen    no scenario:
  try     eastwest up -f x.yaml`)
}

func TestTopologySchemaAgreesWithTheLoader(t *testing.T) {
	schema := compile(t, TopologySchema)
	for _, file := range fixtures(t, "testdata/topologies/good/*.yaml") {
		require.NoError(t, validate(t, schema, file), file)
	}
	everything, err := os.ReadFile("testdata/topologies/good/everything.yaml")
	require.NoError(t, err)
	slip := filepath.Join(t.TempDir(), "slip.yaml")
	for _, c := range [][2]string{
		{"topology: everything", "topology: Every thing"}, {"topology: everything", "title: x"}, {"title: ", "titel: "},
		{"trust: separate-roots", "trust: many-roots"},
		{"10m", "10"}, {"trust:", "kind: single\ntrust:"}, {"trust:", "kind: single\nnetwork: shared\ntrust:"}, {"trust:",
			"network: shared\ntrust:"},
		{"clusters:", "members:"}, {"cluster: config,", "cluster: Config,"}, {"cluster: config,", ""}, {"network: network-a, ", ""},
		{"network: network-a", "network: a_b"},
		{"primary: external", "primary: [external]"}, {"v1.36.1", "1.36.1"}, {"v1.36.1", "v1.36"}, {"gateway: false", "gateway: none"},
		{"config-cluster: config", "config: config"},
		{"cluster: worker", "cluster: " + strings.Repeat("w", 41)},
	} {
		text := strings.Replace(string(everything), c[0], c[1], 1)
		require.NotEqual(t, string(everything), text, "nothing to replace: %q", c[0])
		require.NoError(t, os.WriteFile(slip, []byte(text), 0o644))
		_, err := LoadTopology(slip)
		var problems *strict.Problems
		assert.ErrorAs(t, err, &problems, c[1])
		assert.Error(t, validate(t, schema, slip), "the schema takes %q", c[1])
	}
	// What only the loader can know: which clusters there are, and what a mesh needs.
	only := map[string]bool{"gateways.yaml": true, "kind-trust.yaml": true, "trust.yaml": true}
	for _, file := range fixtures(t, "testdata/topologies/bad/*.yaml") {
		assert.Equal(t, only[filepath.Base(file)], validate(t, schema, file) == nil, file)
	}
}

// The words that programs offer are those that files may have.
func TestWordsOfTopologies(t *testing.T) {
	schema, err := TopologySchema()
	require.NoError(t, err)
	var root struct {
		Properties map[string]struct {
			Enum        []string
			Description string
		}
	}
	require.NoError(t, json.Unmarshal(schema, &root))
	texts := func(words any) []string {
		var all []string
		data, err := json.Marshal(words)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &all))
		return all
	}
	assert.ElementsMatch(t, root.Properties["kind"].Enum, texts(Kinds()))
	assert.Equal(t, root.Properties["network"].Enum, texts(Networks()))
	assert.Equal(t, root.Properties["trust"].Enum, texts(Trusts()))
	for name, p := range root.Properties {
		assert.NotEmpty(t, p.Description, name)
	}
}

func FuzzParseTopology(f *testing.F) {
	for _, pattern := range []string{"testdata/topologies/good/*.yaml", "testdata/topologies/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		topology, err := ParseTopology("x.yaml", data)
		if err == nil {
			if topology.Name == "" || topology.Validate() != nil {
				t.Fatalf("accepted: %+v", topology)
			}
			return
		}
		checkProblems(t, err)
	})
}
