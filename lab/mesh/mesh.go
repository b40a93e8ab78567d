// Package mesh installs Istio on clusters and works with the mesh while it runs: pods and their proxies, certificates,
// remote secrets, gateways, and the apps that lessons and scenarios call.
//
// Install runs a graph of steps on all clusters at once. Each step starts as soon as the steps that it needs are done,
// and has the command that a person would type for it. The manifests are Istio's own, rendered by the bundle's istioctl
// and cached on disk. Objects are applied in this process by server-side apply; waiting is done by watches. The API
// servers of the clusters must answer; nodes may become ready meanwhile. Attach opens a mesh that was installed before.
//
// `go test ./lab/mesh` needs no cluster.
package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// Where things are, as in the lesson and in Istio's own guides.
const (
	SystemNamespace = "istio-system"
	AppNamespace    = "production"
	Istiod          = "istiod"
	Gateway         = "istio-eastwestgateway"
)

// ClusterLabel is a label of the apps' pods. Its value is the name of their cluster.
const ClusterLabel = "eastwest.dev/cluster"

// Istio is the Istio to install.
type Istio struct {
	Istioctl string // path of the istioctl that renders
	Hub, Tag string // of its images; see Image
	Digest   string // changes whenever the output of istioctl may change
	// UpstreamEnvoy is set if the proxy image contains Envoy's own release, without Istio's filters.
	UpstreamEnvoy bool
}

// Image returns the reference of one of its images: pilot, proxyv2 or app.
func (i Istio) Image(name string) string { return i.Hub + "/" + name + ":" + i.Tag }

// FromBundle returns the Istio of a bundle.
func FromBundle(b *bundle.Bundle) Istio {
	return Istio{
		Istioctl: b.Bin("istioctl"), Hub: bundle.Hub, Tag: bundle.Tag,
		Digest: b.Digest(), UpstreamEnvoy: b.IstioProxy().Upstream,
	}
}

// FromVersion returns another version of Istio in a bundle.
func FromVersion(v bundle.Istio) Istio {
	return Istio{Istioctl: v.Istioctl, Hub: bundle.Hub, Tag: v.Tag, Digest: v.Digest, UpstreamEnvoy: v.Proxy.Upstream}
}

// Options of Install and Attach.
type Options struct {
	Lab      string            // name of the lab
	ID       string            // tells the lab from others with that name
	Dir      string            // the lab's folder: rendered files, CAs and the topology go to Dir/mesh
	Cache    string            // folder for rendered manifests, shared by labs; no cache if empty
	Topology Topology          // Attach reads it from Dir
	Clusters []cluster.Cluster // in the order of the topology
	Istio    Istio             // Attach needs only the Hub and the Tag, if nothing is installed later
	// Istios are further versions, by the names that clusters of the topology have for them. A version that is not here cannot be
	// installed.
	Istios map[string]Istio
	// Shared is set if the clusters have other users too. Then istiod watches, and its webhook changes, only what is in
	// the lab's namespaces.
	Shared bool
	// Adopted is set if the mesh exists and is somebody else's. Then only the apps are installed.
	Adopted bool
	// Steps is called when a step begins and when it ends, from several goroutines; may be nil.
	Steps func(Step)
	// Proven is called when all calls between the clusters have been answered; may be nil.
	Proven func([]Answer)
}

// Mesh is an installed mesh.
type Mesh struct {
	Topology
	Lab     string
	Members []*Member
	Adopted bool // it is somebody else's
	pulls   bool // nodes pull its images from a registry
	id      string
	dir     string
	options Options    // what it was opened with, for what is installed later
	making  sync.Mutex // of CAs
}

// Member is a cluster of the mesh.
type Member struct {
	cluster.Cluster
	Spec    ClusterSpec
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface

	mesh   *Mesh
	config *rest.Config
	server string // where istiods of other clusters reach the API
	raw    rest.Interface
	pods   podCache
	pages  *Pages
}

// Install installs the mesh on the clusters and proves it with calls from each cluster to each. It may be repeated:
// what is there already stays as it is. The error is that of the first step that failed.
func Install(ctx context.Context, o Options) (*Mesh, error) {
	m, err := open(o)
	if err != nil {
		return nil, err
	}
	if err := m.save(); err != nil {
		return nil, err
	}
	if !o.Topology.HasMesh() {
		return m, nil
	}
	if err := m.steps(o).run(ctx, o.Steps); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Plan returns the steps that Install would run. It changes nothing.
func Plan(o Options) ([]Step, error) {
	m := &Mesh{Topology: o.Topology, Lab: o.Lab, Adopted: o.Adopted, id: o.ID, dir: filepath.Join(o.Dir, "mesh")}
	for _, spec := range o.Topology.Clusters {
		m.Members = append(m.Members, &Member{Cluster: named{name: spec.Name}, Spec: spec, mesh: m})
	}
	if !o.Topology.HasMesh() {
		return nil, nil
	}
	p := m.steps(o)
	steps := make([]Step, len(p))
	for i, t := range p {
		steps[i] = t.Step
	}
	return steps, nil
}

// named is a cluster of which only the name is known.
type named struct {
	cluster.Cluster
	name string
}

func (n named) Name() string { return n.name }

// Attach opens the mesh that Install has installed, from the files in o.Dir. It does not connect to the clusters.
func Attach(o Options) (*Mesh, error) {
	path := filepath.Join(o.Dir, "mesh", topologyFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening the mesh of lab %q: %w", o.Lab, err)
	}
	if err := json.Unmarshal(data, &o.Topology); err != nil {
		return nil, fmt.Errorf("opening the mesh of lab %q: reading %s: %w", o.Lab, path, err)
	}
	return open(o)
}

const topologyFile = "topology.json"

func (m *Mesh) save() error {
	data, err := json.MarshalIndent(m.Topology, "", "  ")
	if err != nil {
		return fmt.Errorf("saving the topology: %w", err)
	}
	return writeFile(filepath.Join(m.dir, topologyFile), append(data, '\n'), 0o644)
}

func open(o Options) (*Mesh, error) {
	if err := o.Topology.Validate(); err != nil {
		return nil, err
	}
	if len(o.Clusters) != len(o.Topology.Clusters) {
		return nil, fmt.Errorf("opening the mesh of lab %q: the topology has %d clusters, %d were given",
			o.Lab, len(o.Topology.Clusters), len(o.Clusters))
	}
	m := &Mesh{
		Topology: o.Topology, Lab: o.Lab, Adopted: o.Adopted,
		pulls: o.Istio.Hub != bundle.Hub, id: o.ID, dir: filepath.Join(o.Dir, "mesh"), options: o,
	}
	for i, spec := range o.Topology.Clusters {
		if name := o.Clusters[i].Name(); name != spec.Name {
			return nil, fmt.Errorf("opening the mesh of lab %q: cluster %d is %q, in the topology it is %q", o.Lab, i+1, name, spec.Name)
		}
		member, err := newMember(m, o.Clusters[i], spec)
		if err != nil {
			return nil, fmt.Errorf("opening the mesh of lab %q: %s: %w", o.Lab, spec.Name, err)
		}
		m.Members = append(m.Members, member)
	}
	return m, nil
}

func newMember(m *Mesh, c cluster.Cluster, spec ClusterSpec) (*Member, error) {
	config := c.RESTConfig()
	// On the lab's own clusters, client-go's limit of 5 requests per second would only slow everything down. Clusters
	// of others have a limit set.
	if config.QPS == 0 {
		config.QPS, config.Burst = -1, -1
	}
	member := &Member{Cluster: c, Spec: spec, mesh: m, config: config, server: config.Host}
	if a, ok := c.(cluster.Advertiser); ok {
		member.server = a.APIServer()
	}
	var err error
	if member.Kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if member.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if member.raw, err = rawClient(config); err != nil {
		return nil, err
	}
	member.pages = NewPages(config, member.Kube)
	return member, nil
}

// Labels returns the labels that every object of the mesh gets.
func (m *Mesh) Labels() map[string]string { return cluster.Labels(m.Lab, m.id) }

// Labels returns the labels that every object of the mesh gets.
func (m *Member) Labels() map[string]string { return m.mesh.Labels() }

// Covers reports whether an object belongs to the mesh. On a cluster of the lab's own, all objects do. On a cluster with
// other users, those in Istio's and the apps' namespaces do, and those with the lab's labels.
func (m *Member) Covers(o metav1.Object) bool {
	if _, others := m.Cluster.(cluster.Foreign); !others {
		return true
	}
	own := []string{SystemNamespace, IngressNamespace, AppNamespace}
	// An object without a namespace that has one of these names is that namespace.
	if slices.Contains(own, o.GetNamespace()) || o.GetNamespace() == "" && slices.Contains(own, o.GetName()) {
		return true
	}
	for name, value := range m.Labels() {
		if o.GetLabels()[name] != value {
			return m.mesh.Adopted && o.GetNamespace() == "" && o.GetLabels()["app.kubernetes.io/part-of"] == "istio"
		}
	}
	return true
}

// InMesh returns the clusters that workloads of the mesh run in.
func (m *Mesh) InMesh() []*Member {
	return slices.DeleteFunc(slices.Clone(m.Members), func(member *Member) bool { return !member.Spec.InMesh() })
}

// ServedBy returns the clusters in the mesh that the istiod of a cluster serves, including that cluster.
func (m *Mesh) ServedBy(primary string) []*Member {
	return slices.DeleteFunc(m.InMesh(), func(member *Member) bool { return member.Spec.Primary != primary })
}

// Primary returns the cluster whose istiod serves this one.
func (m *Member) Primary() *Member {
	i := slices.IndexFunc(m.mesh.Members, func(member *Member) bool { return member.Spec.Name == m.Spec.Primary })
	return m.mesh.Members[i] // Validate has checked that there is one
}

// ConfigCluster returns the cluster from which the istiod that serves this one reads its configuration.
func (m *Member) ConfigCluster() *Member {
	name := m.mesh.ConfigOf(m.Spec)
	i := slices.IndexFunc(m.mesh.Members, func(member *Member) bool { return member.Spec.Name == name })
	return m.mesh.Members[i]
}

// Member returns the cluster of that name.
func (m *Mesh) Member(name string) (*Member, error) {
	for _, member := range m.Members {
		if member.Spec.Name == name {
			return member, nil
		}
	}
	names := make([]string, len(m.Members))
	for i, member := range m.Members {
		names[i] = member.Spec.Name
	}
	return nil, fmt.Errorf("%w: %q; it has %v", errNoSuchCluster, name, names)
}

// Close ends watches and connections. The mesh keeps running.
func (m *Mesh) Close() {
	var all sync.WaitGroup
	for _, member := range m.Members {
		all.Go(func() {
			member.pods.close()
			member.pages.Close()
		})
	}
	all.Wait()
}

// Source returns a function that connects to the order port of a Ready pod of app in the cluster, where the traffic of a
// scenario starts. Each call chooses a pod again, without a request to the API server.
func (m *Mesh) Source(app, cluster string) (func(context.Context) (net.Conn, error), error) {
	member, err := m.Member(cluster)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) { return member.DialPod(ctx, app, OrderPort) }, nil
}

// URL returns the URL of an app inside the mesh: its pods in all clusters, or in one cluster if that is named. If fresh
// is set, every call opens a connection of its own, with its own TLS handshake.
func URL(app, cluster string, fresh bool) string {
	host := app
	if cluster != "" {
		host += "-" + cluster
	}
	if fresh {
		host += "-fresh"
	}
	return "http://" + host + "." + AppNamespace + ".svc.cluster.local/"
}

func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
