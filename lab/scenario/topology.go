package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// Topology is a mesh, or clusters without one: one of the lesson's kinds, or any clusters in Istio's own
// words. It stands in a scenario as what the scenario needs, and in a file of its own.
type Topology struct {
	Name  string `yaml:"-"` // of a topology file; a topology in a scenario has none
	Title string `yaml:"-"` // of a topology file that has one

	// Which clusters run a control plane. none: two clusters without a mesh. Exactly one of kind and clusters.
	Kind Kind `yaml:"kind" enum:"none,single,multi-primary,primary-remote,external-control-plane"`
	// For a kind. separate (the default): pods meet through east-west gateways. shared: pods of all clusters reach each
	// other by address.
	Network Network `yaml:"network" enum:"separate,shared"`
	// shared-root (the default): one root, one intermediate per istiod. separate-roots: a root per istiod. self-signed:
	// no cacerts, every istiod makes its own root.
	Trust Trust `yaml:"trust" enum:"shared-root,separate-roots,self-signed"`
	// Lifetime of workload certificates, like 10m. Without it, Istio's default.
	CertificateLifetime strict.Duration `yaml:"certificate-lifetime"`
	// istiod and proxies take another set of roots while they run (ISTIO_MULTIROOT_MESH, PROXY_CONFIG_XDS_AGENT). Off,
	// as Istio has it, if left out.
	MultiRoot bool `yaml:"multi-root"`
	// The version of Istio in all clusters: current (the default), or previous, the minor version before it. A cluster may
	// have another one.
	Istio Version `yaml:"istio" enum:"current,previous"`
	// The clusters, one by one, in the order they are made. Instead of kind and network.
	Members []Cluster    `yaml:"clusters" least:"1" most:"15"`
	Place   strict.Place `yaml:"-"`

	unread bool // the file says more about it than could be read
}

// Unread tells the topology that the file says more about it than could be read.
func (t *Topology) Unread() { t.unread = true }

// Cluster is one cluster of a topology.
type Cluster struct {
	// The cluster's name: its id in Istio and its context in kubectl.
	Name string `yaml:"cluster" example:"cluster-a" required:"true" name:"cluster"`
	// The network its pods are on. Pods of one network reach each other by address, others through east-west gateways.
	Network string `yaml:"network" example:"network-a" required:"true" name:"network"`
	// The cluster whose istiod serves this one. Without it, the cluster has an istiod of its own.
	Primary string `yaml:"primary" name:"cluster"`
	// The cluster that this one's istiod reads its configuration from. Such an istiod is external: its cluster runs
	// nothing else of the mesh.
	Config string `yaml:"config-cluster" name:"cluster"`
	// false: no east-west gateway here, because another cluster of the network has one. Without it, the cluster has a
	// gateway where the topology needs one.
	Gateway *bool `yaml:"gateway"`
	// The version of Kubernetes that the cluster must have, like v1.36.1. Without it, whatever its nodes have.
	Kubernetes string `yaml:"kubernetes" name:"version"`
	// The version of Istio in this cluster, if it is not that of the topology.
	Istio Version      `yaml:"istio" enum:"current,previous"`
	Place strict.Place `yaml:"-"`

	unread bool // the file says more about it than could be read
}

// Unread tells the cluster that the file says more about it than could be read.
func (c *Cluster) Unread() { c.unread = true }

// NoGateway reports whether the cluster leaves the east-west gateway to another one of its network.
func (c Cluster) NoGateway() bool { return c.Gateway != nil && !*c.Gateway }

// hasIstiod reports whether the cluster has an istiod of its own, as those without a primary have.
func (c Cluster) hasIstiod() bool { return c.Primary == "" || c.Primary == c.Name }

// External reports whether the cluster runs a control plane for others and no part of the mesh itself.
func (c Cluster) External() bool { return c.hasIstiod() && c.Config != "" && c.Config != c.Name }

// Kind says which clusters run a control plane.
type Kind string

// The kinds, in the words of Istio's deployment models.
const (
	NoMesh               Kind = "none" // two clusters, for people who bring their own mesh
	Single               Kind = "single"
	MultiPrimary         Kind = "multi-primary"
	PrimaryRemote        Kind = "primary-remote"
	ExternalControlPlane Kind = "external-control-plane"
)

// Kinds returns all kinds, from the least to the most clusters with a part in the mesh, then none.
func Kinds() []Kind {
	return []Kind{Single, PrimaryRemote, MultiPrimary, ExternalControlPlane, NoMesh}
}

// Network says whether pods of one cluster reach pods of the other by address.
type Network string

// The networks: separate ones meet at east-west gateways, a shared one is flat.
const (
	SeparateNetworks Network = "separate"
	SharedNetwork    Network = "shared"
)

// Networks returns both.
func Networks() []Network { return []Network{SeparateNetworks, SharedNetwork} }

// Trust says what signs workload certificates when the mesh is installed.
type Trust string

// The kinds of trust between clusters.
const (
	SharedRoot    Trust = "shared-root"    // one root, one intermediate per istiod, cacerts before install
	SeparateRoots Trust = "separate-roots" // cacerts for each istiod, each with a root of its own
	SelfSigned    Trust = "self-signed"    // no cacerts: each istiod makes its own root
)

// Trusts returns all kinds of trust.
func Trusts() []Trust { return []Trust{SharedRoot, SeparateRoots, SelfSigned} }

// Version is a version of Istio that labs are made of. Which ones these are, the bundle says.
type Version string

// The versions. An empty Version stands for Current.
const (
	Current  Version = "current"
	Previous Version = "previous"
)

// Versions returns all versions of Istio, newest first.
func Versions() []Version { return []Version{Current, Previous} }

// Istios returns the versions of Istio that the topology's clusters have, newest first.
func (t Topology) Istios() []Version {
	all := t.All()
	return slices.DeleteFunc(Versions(), func(v Version) bool {
		return !slices.ContainsFunc(all, func(c Cluster) bool { return cmp.Or(c.Istio, Current) == v })
	})
}

// OtherIstios returns the versions besides the current one that the topology's clusters have.
func (t Topology) OtherIstios() []Version {
	return slices.DeleteFunc(t.Istios(), func(v Version) bool { return v == Current })
}

// Other returns the version's name, or "" for the current one, so that what names it and what leaves it out are the same.
func (v Version) Other() string {
	if v == Current {
		return ""
	}
	return string(v)
}

// All returns the topology's clusters, in the order they are made: those that it lists, or those of its kind.
// Those with an istiod of their own are their own primary; with kind none they have no primary.
func (t Topology) All() []Cluster {
	if len(t.Members) > 0 {
		all := slices.Clone(t.Members)
		for i := range all {
			all[i].Primary = cmp.Or(all[i].Primary, all[i].Name)
			all[i].Istio = cmp.Or(all[i].Istio, t.Istio)
		}
		return all
	}
	networkOf := func(cluster string) string {
		if t.Network == SharedNetwork {
			return "network-a"
		}
		return "network-" + strings.TrimPrefix(cluster, "cluster-") // as in Istio's own guides
	}
	a := Cluster{Name: "cluster-a", Network: networkOf("cluster-a"), Primary: "cluster-a", Istio: t.Istio}
	b := Cluster{Name: "cluster-b", Network: networkOf("cluster-b"), Primary: "cluster-b", Istio: t.Istio}
	switch t.Kind {
	case NoMesh:
		a.Primary, b.Primary = "", ""
	case Single:
		return []Cluster{a}
	case PrimaryRemote:
		b.Primary = a.Name
	case ExternalControlPlane:
		external := Cluster{Name: "external", Network: "network-external", Primary: "external", Config: a.Name, Istio: t.Istio}
		a.Primary, b.Primary = external.Name, external.Name
		return []Cluster{a, b, external}
	}
	return []Cluster{a, b}
}

// MostClusters is how many clusters a topology may have: providers plan addresses for this many.
const MostClusters = 15

// Primaries returns a topology of n clusters, cluster-a and so on, each with an istiod and a network of its own.
func Primaries(n int) Topology {
	t := Topology{Trust: SharedRoot}
	for i := range n {
		letter := string(rune('a' + i))
		t.Members = append(t.Members, Cluster{Name: "cluster-" + letter, Network: "network-" + letter})
	}
	return t
}

// Clusters returns the names of All.
func (t Topology) Clusters() []string {
	var names []string
	for _, c := range t.All() {
		names = append(names, c.Name)
	}
	return names
}

// Validate finds everything that no single field shows: what cannot be a mesh.
func (t Topology) Validate() error {
	var errs []error
	bad := func(field string, p strict.Problem) { errs = append(errs, strict.At(field, p)) }
	const one = "exactly one: kind for a topology of the lesson, clusters to list them one by one"
	switch {
	case t.Kind == "" && t.Members == nil && !t.unread:
		errs = append(errs, strict.Problem{What: "neither kind nor clusters", Wanted: one, Try: "kind: " + string(MultiPrimary)})
	case t.Kind != "" && t.Members != nil:
		bad(
			"clusters",
			strict.Problem{What: "both kind and clusters", Wanted: one, Seen: "kind: " + string(t.Kind),
				Try: "remove kind: the clusters say it all"},
		)
	}
	switch {
	case t.Network != "" && t.Members != nil:
		bad(
			"network",
			strict.Problem{
				What:   "network beside clusters",
				Wanted: "the network of each cluster, in its own entry",
				Seen:   "network: " + string(t.Network),
				Try:    "remove it here",
			},
		)
	case t.Kind == Single && t.Network == SharedNetwork:
		bad(
			"network",
			strict.Problem{
				What:   "one cluster has no other to share a network with",
				Wanted: string(SeparateNetworks) + ", or a kind with two clusters",
				Seen:   string(t.Network),
			},
		)
	}
	if t.Kind == NoMesh && t.Istio != "" {
		bad("istio", strict.Problem{What: "a version of Istio without a mesh", Wanted: "a kind with a mesh", Seen: string(t.Istio),
			Try: "remove it, or choose " + string(MultiPrimary)})
	}
	known := t.checkNames(bad)
	for i, c := range t.Members {
		key := func(field string) string { return fmt.Sprintf("clusters.%d.%s", i, field) }
		known.checkPrimary(c, key, bad)
		known.checkConfig(c, key, bad)
	}
	if known.unsure { // what follows from a problem is not complained about
		return errors.Join(errs...)
	}
	t.checkGateways(bad)
	if istiods := t.istiods(); t.Trust == SeparateRoots && len(istiods) == 1 {
		bad("trust", strict.Problem{What: "one istiod signs everything: there are no two roots that could differ",
			Wanted: "two clusters with an istiod of their own, or another trust", Seen: "only " + istiods[0] + " has one", Try: string(SharedRoot)})
	}
	return errors.Join(errs...)
}

// SchemaRules is what the schema of a topology can say of what Validate finds.
func (Topology) SchemaRules() strict.Object {
	kind, clusters := required("kind"), required("clusters")
	others := strict.Object{{Name: "anyOf", Value: []strict.Object{required("kind"), required("network")}}}
	return strict.Object{{Name: "oneOf", Value: []strict.Object{
		append(kind, strict.Member{Name: "not", Value: clusters}),
		append(clusters, strict.Member{Name: "not", Value: others}),
	}}}
}

// istiods returns the clusters with an istiod of their own.
func (t Topology) istiods() []string {
	var names []string
	for _, c := range t.All() {
		if c.Primary == c.Name {
			names = append(names, c.Name)
		}
	}
	return names
}

// directory is what the entries of a list of clusters may refer to.
type directory struct {
	names    []string
	clusters map[string]Cluster
	vague    map[string]bool // not all that is meant about the cluster is known
	nameless bool            // there are clusters whose names are not known
	unsure   bool            // something about some cluster is not known
}

// checkNames finds names that stand for two clusters.
func (t Topology) checkNames(bad func(field string, p strict.Problem)) directory {
	d := directory{clusters: map[string]Cluster{}, vague: map[string]bool{}}
	for i, c := range t.Members {
		first, twice := d.clusters[c.Name]
		if c.unread || twice {
			d.vague[c.Name] = true
		}
		d.unsure = d.unsure || c.unread || c.Name == ""
		switch {
		case c.Name == "":
			d.nameless = true
		case twice:
			p := strict.Problem{
				What:   "two clusters are called " + c.Name,
				Wanted: "a name of its own for each: remote secrets, contexts and metrics tell clusters apart by it",
				Try:    "rename one of the two",
			}
			if first.Place.Line > 0 {
				p.Seen = fmt.Sprintf("the first at line %d", first.Place.Line)
			}
			bad(fmt.Sprintf("clusters.%d.cluster", i), p)
		default:
			d.clusters[c.Name] = c
			d.names = append(d.names, c.Name)
		}
	}
	return d
}

// find returns the cluster of that name, if all is known about it, and reports a name that no cluster has.
func (d directory) find(name, field string, bad func(field string, p strict.Problem)) (Cluster, bool) {
	c, there := d.clusters[name]
	if !there && !d.nameless {
		bad(field, strict.Unknown("cluster", name, d.names))
	}
	return c, there && !d.vague[name]
}

// checkPrimary: whose istiod serves a cluster has one.
func (d directory) checkPrimary(c Cluster, key func(string) string, bad func(field string, p strict.Problem)) {
	if c.hasIstiod() {
		return
	}
	primary, ok := d.find(c.Primary, key("primary"), bad)
	if ok && !primary.hasIstiod() {
		bad(key("primary"), strict.Problem{What: primary.Name + " has no istiod that could serve others",
			Wanted: "a cluster with an istiod of its own",
			Seen: fmt.Sprintf(
				"%s is a remote of %s",
				primary.Name,
				primary.Primary,
			), Try: "primary: " + primary.Primary + ", or remove the primary of " + primary.Name})
	}
}

// checkConfig: only an istiod reads configuration, and from a cluster that it serves.
func (d directory) checkConfig(c Cluster, key func(string) string, bad func(field string, p strict.Problem)) {
	if c.Config == "" {
		return
	}
	config, ok := d.find(c.Config, key("config-cluster"), bad)
	switch {
	case !c.hasIstiod():
		bad(
			key("config-cluster"),
			strict.Problem{What: "there is no istiod here that would read a configuration",
				Wanted: "config-cluster only in a cluster without primary",
				Seen:   "primary: " + c.Primary, Try: "remove one of the two"},
		)
	case ok && c.External() && !d.vague[c.Name] && config.Primary != c.Name:
		served := "an istiod of its own"
		if !config.hasIstiod() {
			served = "the primary " + config.Primary
		}
		bad(key("config-cluster"), strict.Problem{
			What:   fmt.Sprintf("%s reads its configuration from %s, which it does not serve", c.Name, c.Config),
			Wanted: "a cluster whose primary is " + c.Name, Seen: fmt.Sprintf("%s has %s", c.Config, served),
			Try: fmt.Sprintf("primary: %s in the entry of %s", c.Name, c.Config)})
	}
}

// checkGateways finds networks that nobody can enter, and istiods that their remotes cannot reach.
func (t Topology) checkGateways(bad func(field string, p strict.Problem)) {
	closed := map[string]int{} // networks with workloads, and their first cluster
	var networks []string
	for i, c := range t.Members {
		if c.External() {
			continue
		}
		if !slices.Contains(networks, c.Network) {
			networks, closed[c.Network] = append(networks, c.Network), i
		}
		served := slices.IndexFunc(t.Members, func(other Cluster) bool { return other.Name != c.Name && other.Primary == c.Name })
		switch {
		case !c.NoGateway():
			delete(closed, c.Network)
		case served >= 0:
			delete(closed, c.Network) // one complaint is enough
			bad(
				fmt.Sprintf("clusters.%d.gateway", i),
				strict.Problem{What: c.Name + " needs its east-west gateway: the clusters that its istiod serves reach it there",
					Wanted: "a gateway, as " + t.Members[served].Name + " has the primary " + c.Name, Seen: "gateway: false", Try: "remove it"},
			)
		}
	}
	for _, network := range networks {
		i, none := closed[network]
		if !none || len(networks) == 1 {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(networks), func(n string) bool { return n == network })
		bad(
			fmt.Sprintf("clusters.%d.gateway", i),
			strict.Problem{What: network + " has no east-west gateway: nobody gets in from " + strict.Choice(others),
				Wanted: "a gateway in one cluster of each network, since there are several", Seen: "gateway: false in all clusters of " + network,
				Try: "remove gateway: false from one of them"},
		)
	}
}

// setDefaults fills in what a file may leave out.
func (t *Topology) setDefaults() {
	if t.Network == "" && t.Members == nil {
		t.Network = SeparateNetworks
	}
	t.Trust = cmp.Or(t.Trust, SharedRoot)
}

// clusterNames returns the clusters that steps may name, like appNames. Nil where not every name can be read.
func clusterNames(n *yaml.Node) []string {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		value := n.Content[i+1]
		switch n.Content[i].Value {
		case "kind":
			if !slices.Contains(Kinds(), Kind(value.Value)) {
				return nil
			}
			names = append(names, Topology{Kind: Kind(value.Value)}.Clusters()...)
		case "clusters":
			for _, item := range value.Content {
				name := strict.Child(item, "cluster").Value
				if name == nil || name.Kind != yaml.ScalarNode || name.Value == "" {
					return nil
				}
				names = append(names, name.Value)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return unique(names)
}

// topologyFile is a topology in a file of its own.
type topologyFile struct {
	// The topology's name, like three-primaries.
	Name string `yaml:"topology" required:"true" name:"topology"`
	// One line that says what is special about it.
	Title string `yaml:"title"`
	Topology
}

// LoadTopology reads and checks a topology file. The error is a *strict.Problems with everything that is wrong with the
// file, or another error if the file cannot be read. LoadTopology looks at nothing but the file.
func LoadTopology(path string) (Topology, error) {
	data, err := topologyFormat.ReadFile(path)
	if problems, ok := err.(*strict.Problems); ok {
		return Topology{}, problems
	}
	if err != nil {
		return Topology{}, fmt.Errorf("reading topology: %w", err)
	}
	return ParseTopology(path, data)
}

// ParseTopology checks a topology that is not, or not yet, a file. The places of problems say name.
func ParseTopology(name string, data []byte) (Topology, error) {
	r := strict.NewReader(name, &topologyFormat)
	var f topologyFile
	if root := r.Document(data); root != nil {
		if key := strict.Child(root, "scenario").Key; key != nil {
			r.Add(key, strict.Problem{What: "not a topology but a scenario", Wanted: topologyFormat.Fields, Seen: "scenario:",
				Try: "eastwest run " + name})
		} else {
			r.Decode(root, &f, nil)
		}
	}
	if err := r.Err(); err != nil {
		return Topology{}, err
	}
	f.Topology.Name, f.Topology.Title = f.Name, f.Title
	f.setDefaults()
	return f.Topology, nil
}

// IsTopology reports whether the file is a topology rather than a scenario: it names a topology and no
// scenario. It returns false for what cannot be read.
func IsTopology(path string) bool {
	data, err := topologyFormat.ReadFile(path)
	if err != nil {
		return false
	}
	documents, err := strict.Documents(data)
	return err == nil && len(documents) > 0 && len(documents[0].Content) > 0 && isTopology(documents[0].Content[0])
}

// isTopology looks at the fields of a file: in a scenario, topology is a mapping.
func isTopology(root *yaml.Node) bool {
	has := func(name string) bool { return strict.Child(root, name).Key != nil }
	name := strict.Child(root, "topology").Value
	named := name != nil && name.Kind == yaml.ScalarNode && name.ShortTag() != "!!null"
	return !has("scenario") && (named || has("clusters") || has("kind"))
}

// TopologySchema returns the JSON Schema of topology files.
func TopologySchema() ([]byte, error) {
	if err := (Vocabulary{}).Check(); err != nil {
		return nil, err
	}
	return strict.SchemaFile("eastwest topology",
		"Clusters and the mesh across them, in Istio's own words: which clusters have an istiod, which networks they are on, "+
			"and who signs.", topologyFormat.Schema(reflect.TypeFor[topologyFile]()))
}
