// Package mesh puts Istio on clusters and handles the mesh while it lives: pods and their proxies,
// certificates, remote secrets, gateways, and the apps that lessons and scenarios call.
//
// Install runs Istio's own manifests (rendered by the bundle's istioctl, cached on disk) as a graph of
// steps: both clusters at once, each step the moment those before it are done, each with the command that
// a person would type for the same. Everything is applied in this process by server-side apply and waited
// for by watches. It needs clusters whose API answers; nodes may become ready meanwhile. Attach opens a
// mesh that was installed before. `go test ./lab/mesh` needs no cluster.
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

// ClusterLabel tells pods of one app in different clusters apart.
const ClusterLabel = "eastwest.dev/cluster"

// Istio says which Istio is installed, and with which istioctl.
type Istio struct {
	Istioctl string // path of the binary that renders
	Hub, Tag string // of its images; see Image
	Digest   string // changes whenever what istioctl renders may change
	// UpstreamEnvoy says that the proxy image holds Envoy's own release, without Istio's filters.
	UpstreamEnvoy bool
}

// Image is the name of one of its images: pilot, proxyv2 or app.
func (i Istio) Image(name string) string { return i.Hub + "/" + name + ":" + i.Tag }

// FromBundle returns the Istio of a bundle.
func FromBundle(b *bundle.Bundle) Istio {
	return Istio{
		Istioctl: b.Bin("istioctl"), Hub: bundle.Hub, Tag: bundle.Tag,
		Digest: b.Digest(), UpstreamEnvoy: b.IstioProxy().Upstream,
	}
}

// Options of Install and Attach.
type Options struct {
	Lab      string            // name of the lab
	ID       string            // tells it from others of that name
	Dir      string            // the lab's folder: rendered files, CAs and the topology go to Dir/mesh
	Cache    string            // folder for rendered manifests, shared by labs; none when empty
	Topology Topology          // Attach reads it from Dir
	Clusters []cluster.Cluster // in the order of the topology
	Istio    Istio             // Attach needs no more than where its images are
	// Shared says that the clusters have other users, too: istiod sees, and its webhook changes, what is in the lab's
	// namespaces alone.
	Shared bool
	// Adopted says that the mesh is there, and is somebody else's: nothing is installed but the apps.
	Adopted bool
	// Steps hears of every step when it begins and when it ends, from several goroutines; may be nil.
	Steps func(Step)
	// Proven hears of the moment when each cluster has been answered by all; may be nil.
	Proven func([]Answer)
}

// Mesh is an installed mesh.
type Mesh struct {
	Topology
	Lab     string
	Members []*Member
	Adopted bool // it is somebody else's
	pulls   bool // nodes get its images over the network
	id      string
	dir     string
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

// Install puts the mesh on the clusters and proves it with calls from each cluster to each. It may be
// repeated: what is there already stays as it is. The error is that of the first step that failed.
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

// Plan returns the steps that Install would run, without touching anything.
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

// named is a cluster that only has its name yet.
type named struct {
	cluster.Cluster
	name string
}

func (n named) Name() string { return n.name }

// Attach opens the mesh that Install left in o.Dir. It asks the clusters nothing.
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
		return nil, fmt.Errorf("opening the mesh of lab %q: the topology has %d clusters, %d were given", o.Lab, len(o.Topology.Clusters), len(o.Clusters))
	}
	m := &Mesh{Topology: o.Topology, Lab: o.Lab, Adopted: o.Adopted, pulls: o.Istio.Hub != bundle.Hub, id: o.ID, dir: filepath.Join(o.Dir, "mesh")}
	for i, spec := range o.Topology.Clusters {
		if name := o.Clusters[i].Name(); name != spec.Name {
			return nil, fmt.Errorf("opening the mesh of lab %q: cluster %d is %q, the topology says %q", o.Lab, i+1, name, spec.Name)
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
	// We are the API server's main guest on a machine of our own: client-side throttling (5 per second by
	// default) would only make everything slow. Clusters of others come with their own bound.
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

// Labels are those of everything that is made for the mesh.
func (m *Mesh) Labels() map[string]string { return cluster.Labels(m.Lab, m.id) }

// Labels are those of the mesh.
func (m *Member) Labels() map[string]string { return m.mesh.Labels() }

// Covers reports whether an object is the mesh's concern: all are where the cluster is the lab's own. Where it has
// other users, those in Istio's and the apps' namespaces are, and what else carries the lab's labels.
func (m *Member) Covers(o metav1.Object) bool {
	if _, others := m.Cluster.(cluster.Foreign); !others {
		return true
	}
	own := []string{SystemNamespace, IngressNamespace, AppNamespace}
	if slices.Contains(own, o.GetNamespace()) || o.GetNamespace() == "" && slices.Contains(own, o.GetName()) { // nothing but a namespace is called so
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

// ServedBy returns the clusters in the mesh that the istiod of a cluster serves, itself included.
func (m *Mesh) ServedBy(primary string) []*Member {
	return slices.DeleteFunc(m.InMesh(), func(member *Member) bool { return member.Spec.Primary != primary })
}

// Primary is the cluster whose istiod serves this one.
func (m *Member) Primary() *Member {
	i := slices.IndexFunc(m.mesh.Members, func(member *Member) bool { return member.Spec.Name == m.Spec.Primary })
	return m.mesh.Members[i] // Validate has made sure that there is one
}

// ConfigCluster is the cluster that holds what this one's istiod reads.
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

// Close ends watches and connections. The mesh goes on.
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

// Source returns a dialer of the order port of a pod that runs app in the cluster: the traffic of a
// scenario starts there. Each call finds a Ready pod anew, without asking the API server.
func (m *Mesh) Source(app, cluster string) (func(context.Context) (net.Conn, error), error) {
	member, err := m.Member(cluster)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) { return member.DialPod(ctx, app, OrderPort) }, nil
}

// URL returns how the app is called inside the mesh: pods of all clusters, or of one if it is named.
// fresh makes every call open its own connection, with its own TLS handshake.
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
