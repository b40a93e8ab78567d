package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Options of Up.
type Options struct {
	Home     string // folder of all labs; see Home
	Name     string
	Provider string // one of Providers
	Topology scenario.Topology
	Range    string // the private /16 of a lab that is embedded or kind's; a free one is found when empty
	Egress   bool   // let the lab reach what this machine reaches
	// KindImage is the node image of kind's clusters: the bundle's when empty, or kind's own.
	KindImage string
	Images    Images // of the mesh; with published ones kind's nodes are let out, as by Egress
	Existing  Foreign
	Progress  func(Progress)
	// Bare makes no mesh, whatever the topology, and kind's clusters by kind's own command. Benchmarks compare with it.
	Bare bool

	id string // of the lab that is made
}

// Foreign says which clusters the provider existing takes, and what it puts there.
type Foreign struct {
	Kubeconfig string            `json:"kubeconfig,omitempty"` // files as in $KUBECONFIG; what kubectl takes when empty
	Contexts   []string          `json:"contexts"`             // in the order of the topology's clusters
	APIServers map[string]string `json:"api_servers,omitempty"`
	Adopt      bool              `json:"adopt,omitempty"` // use the Istio that is there
}

// Progress is one step of making a lab, told when it begins and when it ends.
type Progress struct {
	Cluster, Step string
	Command       string        // what a person would type for the same
	Since         time.Duration // since the lab was asked for
	Took          time.Duration
	Started       bool // it begins now; otherwise it has ended
	Proof         bool // it proves the mesh by calls
	Err           error
}

// Lab is an open lab.
type Lab struct {
	Name     string
	Topology scenario.Topology
	Mesh     *mesh.Mesh // nil for topology none
	Clusters []cluster.Cluster
	Answers  []mesh.Answer // the proof that Up has made; empty when the lab was there already

	home   string
	bundle *bundle.Bundle
	record record
}

// DefaultTopology is the lesson's.
func DefaultTopology() scenario.Topology {
	return scenario.Topology{Kind: scenario.MultiPrimary, Network: scenario.SeparateNetworks, Trust: scenario.SharedRoot}
}

// Up makes the lab, or finds it as it is. A lab that is there but does not work is made anew. When
// it fails or ctx ends, nothing of a new lab is left.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if err := errors.Join(checkName(o.Name), wait.Measure()); err != nil {
		return nil, err
	}
	o = o.settled()
	name, err := ChooseProvider(ctx, o.Provider)
	if err != nil {
		return nil, err
	}
	if err := o.fits(name); err != nil {
		return nil, err
	}
	o.Egress = o.Egress || o.Images.Published()
	topology, err := meshTopology(o.Topology)
	if err != nil {
		return nil, err
	}
	if o.Bare {
		for i := range topology.Clusters {
			topology.Clusters[i].Primary = ""
		}
	}
	o.id = newID()
	b, err := openBundle(onlyTools(name, o.Images))
	if err != nil {
		return nil, err
	}
	if name == Embedded {
		if err := bundleHasKubernetes(b, o.Topology); err != nil {
			return nil, err
		}
	}
	p, err := newProvider(name, o.Home, b, o)
	if err != nil {
		return nil, err
	}
	unlock, err := lockLab(ctx, o.Home, o.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if l, err := open(o.Home, o.Name, b); err == nil {
		// What was never made to its end is nobody's, whatever it was to be.
		if other := l.record.other(name, o); l.record.Complete && other != "" {
			l.Close()
			return nil, fmt.Errorf("lab %s is there %s: remove it with `eastwest down %[1]s`, or choose another --name", o.Name, other)
		}
		problem := l.Works(ctx)
		if problem == nil {
			return l, nil
		}
		l.Close()
		if err := l.record.removable(); err != nil {
			return nil, err
		}
		if ctx.Err() != nil { // it was not given the time to answer
			return nil, &SetupError{Err: fmt.Errorf("looking at lab %s: %w", o.Name, context.Cause(ctx))}
		}
		if o.Progress != nil {
			o.Progress(Progress{Step: fmt.Sprintf("lab %s is made anew: %s", o.Name, words.FirstLine(problem.Error()))})
		}
	}
	l := &Lab{Name: o.Name, Topology: o.Topology, home: o.Home, bundle: b, record: record{
		Name: o.Name, ID: o.id, Provider: name, Topology: o.Topology, Egress: o.Egress, Made: time.Now(), Bundle: b.Digest(),
	}}
	l.record.KindImage, l.record.Images = o.KindImage, o.Images
	if name == Existing {
		l.record.Existing = &o.Existing
	}
	if err := l.make(ctx, p, topology, o); err != nil {
		clean, cancel := wait.Timeout(context.WithoutCancel(ctx), RemoveWithin)
		defer cancel()
		// Who ran out of time wants to know what was waited for; who interrupts does not.
		if cause := context.Cause(ctx); cause != nil && !(errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, cause)) {
			err = cause
		}
		left := remove(clean, p, o.Home, o.Name)
		if left != nil && left.Error() == err.Error() {
			left = nil // what keeps it from being made keeps it from being removed: said once
		}
		return nil, errors.Join(&SetupError{Err: err}, left)
	}
	return l, nil
}

// make is the story of a lab: clusters side by side, Istio on them as soon as their APIs answer, proof.
func (l *Lab) make(ctx context.Context, p provider, topology mesh.Topology, o Options) error {
	if err := p.Check(ctx); err != nil {
		return err
	}
	if old, err := readRecord(l.home, l.Name); err == nil && old.Provider != l.record.Provider { // it was never made to its end
		if err := removeRecorded(ctx, l.home, l.Name); err != nil {
			return err
		}
	}
	if err := remove(ctx, p, l.home, l.Name); err != nil { // what a crash has left
		return err
	}
	if err := l.record.write(l.home); err != nil {
		return err
	}
	install := l.meshOptions()
	install.Topology, install.Cache = topology, filepath.Join(l.home, "rendered")
	definitions, err := l.definitions(ctx, install)
	if err != nil {
		return err
	}
	l.Clusters = make([]cluster.Cluster, len(topology.Clusters))
	making, ctx := errgroup.WithContext(ctx)
	// Not a group with a context: that one ends with Wait, and a node dies with the context it was made in.
	var apis errgroup.Group
	for i, c := range topology.Clusters {
		apis.Go(func() (err error) {
			spec := cluster.Spec{
				Lab: l.Name, Name: c.Name, Network: c.Network, Index: i + 1, Of: len(topology.Clusters), Neighbors: topology.Neighbors(c),
			}
			if topology.IsConfig(c) {
				spec.Definitions = definitions
			}
			l.Clusters[i], err = p.Create(ctx, spec)
			return err
		})
	}
	if err := apis.Wait(); err != nil {
		return err
	}
	if err := l.hasKubernetes(); err != nil {
		return err
	}
	if err := l.writeKubeconfig(); err != nil {
		return err
	}
	install.Clusters = l.Clusters
	install.Steps = func(s mesh.Step) { tell(o.Progress, s) }
	install.Proven = func(answers []mesh.Answer) { l.Answers = answers }
	if install.Shared {
		if err := mesh.Preflight(ctx, install); err != nil {
			return err
		}
	}
	for _, c := range l.Clusters {
		if starting, ok := c.(cluster.Starting); ok {
			making.Go(func() error { return starting.Usable(ctx) })
		}
	}
	making.Go(func() (err error) {
		l.Mesh, err = mesh.Install(ctx, install)
		return err
	})
	if err := making.Wait(); err != nil {
		return l.withoutImages(err)
	}
	l.record.Complete = true
	return l.record.write(l.home)
}

// definitions returns the file with Istio's definitions for clusters that can have them from their start; none if no cluster
// of this lab can.
func (l *Lab) definitions(ctx context.Context, o mesh.Options) (string, error) {
	if l.record.Provider != Embedded || !o.Topology.HasMesh() {
		return "", nil
	}
	return o.Istio.Definitions(ctx, o.Cache)
}

// meshOptions are what the record says of the lab's mesh.
func (l *Lab) meshOptions() mesh.Options {
	o := mesh.Options{Lab: l.Name, ID: l.record.ID, Dir: labDir(l.home, l.Name), Clusters: l.Clusters, Istio: mesh.FromBundle(l.bundle)}
	if e := l.record.Existing; e != nil {
		o.Shared, o.Adopted = true, e.Adopt
	}
	if i := l.record.Images; i.Published() {
		o.Istio.Hub, o.Istio.Tag = i.Hub, i.Tag
		o.Istio.UpstreamEnvoy = i.ofBundle()
	}
	return o
}

// withoutImages adds what to try where nodes cannot get an image.
func (l *Lab) withoutImages(err error) error {
	var pull *mesh.PullError
	switch {
	case !errors.As(err, &pull):
		return err
	case l.record.Images.Published():
		return fmt.Errorf(
			"%w: try `docker pull %s`: the registry has to have it (--hub, --tag) for everybody, and the nodes have to reach the registry",
			err,
			pull.Image,
		)
	case l.record.Existing != nil:
		return fmt.Errorf(
			"%w: no registry has the bundle's images: name one that has such with --hub and --tag, or load the bundle's (%s) into the nodes",
			err,
			filepath.Join(l.bundle.Dir(), "images"),
		)
	}
	return err
}

func tell(progress func(Progress), s mesh.Step) {
	if progress != nil && s.State != mesh.Planned {
		progress(Progress{
			Cluster: s.Cluster, Step: s.Name, Command: s.Command, Since: s.Began + s.Took, Took: s.Took,
			Started: s.State == mesh.Running, Proof: s.Proof, Err: s.Err,
		})
	}
}

// Works returns nil, or why the lab is not what Up makes: it was not made to the end, a scenario left it
// changed, a cluster does not answer, or a border cannot be crossed.
func (l *Lab) Works(ctx context.Context) error {
	switch {
	case !l.record.Complete:
		return errors.New("making it was interrupted")
	case l.record.Left != "":
		return fmt.Errorf("scenario %s was stopped in the middle", l.record.Left)
	}
	// Long enough for a machine that has much else to do: a lab that is made anew by mistake is lost work.
	ctx, cancel := wait.Timeout(ctx, 30*time.Second)
	defer cancel()
	for _, c := range l.Clusters {
		if err := alive(ctx, c); err != nil {
			return fmt.Errorf("%s does not answer: %w", c.Name(), err)
		}
	}
	if l.Mesh == nil || !l.Mesh.HasMesh() {
		return nil
	}
	_, err := l.Mesh.Verify(ctx)
	return err
}

// Open opens a lab that is there.
func Open(home, name string) (*Lab, error) {
	if err := wait.Measure(); err != nil {
		return nil, err
	}
	r, _ := readRecord(home, name) // open tells of one that cannot be read
	b, err := openBundle(onlyTools(r.Provider, r.Images))
	if err != nil {
		return nil, err
	}
	return open(home, name, b)
}

func open(home, name string, b *bundle.Bundle) (*Lab, error) {
	r, err := readRecord(home, name)
	if errors.Is(err, fs.ErrNotExist) {
		known, err := names(home)
		if err != nil {
			return nil, err
		}
		return nil, &UnknownLabError{Name: name, Known: known}
	}
	if err != nil {
		return nil, err
	}
	p, err := newProvider(r.Provider, home, b, Options{})
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: name, Topology: r.Topology, home: home, bundle: b, record: r}
	for _, name := range r.Topology.Clusters() {
		c, err := p.Open(l.Name, name)
		if err != nil {
			return nil, &SetupError{Err: fmt.Errorf("opening lab %s: %w: make it anew with `eastwest up`", l.Name, err)}
		}
		l.Clusters = append(l.Clusters, c)
	}
	l.Mesh, err = mesh.Attach(l.meshOptions())
	if err != nil {
		return nil, &SetupError{Err: fmt.Errorf("opening lab %s: %w: make it anew with `eastwest up`", l.Name, err)}
	}
	return l, nil
}

// Close ends watches and connections. The lab goes on.
func (l *Lab) Close() {
	if l.Mesh != nil {
		l.Mesh.Close()
	}
}

// Down removes the lab and everything that was made for it.
func Down(ctx context.Context, home, name string) error {
	known, err := names(home)
	if err != nil {
		return err
	}
	if _, err := os.Stat(labDir(home, name)); err != nil {
		return &UnknownLabError{Name: name, Known: known}
	}
	unlock, err := lockLab(ctx, home, name)
	if err != nil {
		return err
	}
	defer unlock()
	if r, err := readRecord(home, name); err == nil {
		if err := r.removable(); err != nil {
			return err
		}
	}
	return removeRecorded(ctx, home, name)
}

// RemoveWithin bounds the removal of a lab when nobody waits for it. Namespaces of clusters that exist take their time.
const RemoveWithin = 3 * time.Minute

// removeRecorded removes a lab with the provider that it was made by.
func removeRecorded(ctx context.Context, home, name string) error {
	r, err := readRecord(home, name)
	if err != nil { // it was killed before it could write that down: only one provider leaves such folders
		r.Provider = Embedded
	}
	p, err := newProvider(r.Provider, home, nil, Options{})
	if err != nil {
		return err
	}
	return remove(ctx, p, home, name)
}

func remove(ctx context.Context, p provider, home, name string) error {
	if err := p.Delete(ctx, name); err != nil {
		return fmt.Errorf("removing lab %s: %w", name, err)
	}
	if err := os.RemoveAll(labDir(home, name)); err != nil {
		return fmt.Errorf("removing lab %s: %w", name, err)
	}
	return nil
}

// OnlyTools tells whether a lab needs no more of the bundle than kubectl and istioctl.
func (o Options) OnlyTools() bool {
	o = o.settled()
	return onlyTools(o.Provider, o.Images)
}

func onlyTools(provider string, i Images) bool { return i.Published() && provider != Embedded }

// OpenBundle opens the bundle that labs are made of.
func OpenBundle() (*bundle.Bundle, error) { return openBundle(false) }

func openBundle(onlyTools bool) (*bundle.Bundle, error) {
	dir, err := bundle.DefaultDir()
	if err != nil {
		return nil, err
	}
	if onlyTools {
		return bundle.OpenTools(dir)
	}
	return bundle.Open(dir)
}

// meshTopology is the mesh that a scenario's topology asks for.
func meshTopology(t scenario.Topology) (mesh.Topology, error) {
	if err := t.Validate(); err != nil {
		return mesh.Topology{}, err
	}
	m := mesh.Topology{
		Trust:               mesh.Trust(cmp.Or(t.Trust, scenario.SharedRoot)),
		MeshID:              mesh.DefaultMeshID,
		CertificateLifetime: time.Duration(t.CertificateLifetime),
		MultiRoot:           t.MultiRoot,
	}
	for _, c := range t.All() {
		m.Clusters = append(
			m.Clusters,
			mesh.ClusterSpec{Name: c.Name, Network: c.Network, Primary: c.Primary, Config: c.Config, NoGateway: c.NoGateway()},
		)
	}
	return m, m.Validate()
}

// bundleHasKubernetes returns an error if a cluster wants another version than nodes of the bundle have.
func bundleHasKubernetes(b *bundle.Bundle, t scenario.Topology) error {
	for _, c := range t.Members {
		if version := b.Versions()["kubernetes"]; c.Kubernetes != "" && c.Kubernetes != version {
			return wrongKubernetes(c, "the bundle has", version)
		}
	}
	return nil
}

// hasKubernetes returns an error if a cluster has another version than it has to have. It knows nodes that are not of the
// bundle, too, but not before they are there.
func (l *Lab) hasKubernetes() error {
	for i, c := range l.Topology.Members {
		if c.Kubernetes == "" {
			continue
		}
		api, err := discovery.NewDiscoveryClientForConfig(l.Clusters[i].RESTConfig())
		if err != nil {
			return err
		}
		seen, err := api.ServerVersion()
		if err != nil {
			return fmt.Errorf("asking %s for its version: %w", c.Name, err)
		}
		if seen.GitVersion != c.Kubernetes {
			return wrongKubernetes(c, "its API server is", seen.GitVersion)
		}
	}
	return nil
}

func wrongKubernetes(c scenario.Cluster, has, version string) error {
	return fmt.Errorf(
		"%s: cluster %s: wanted Kubernetes %s, %s %s: write %[5]s, or leave kubernetes: out",
		c.Place,
		c.Name,
		c.Kubernetes,
		has,
		version,
	)
}

// SameTopology compares what is asked for, in whatever words and wherever in a file it was asked.
func SameTopology(a, b scenario.Topology) bool {
	x, err := meshTopology(a)
	y, other := meshTopology(b)
	return err == nil && other == nil && reflect.DeepEqual(x, y)
}

// Describe is a topology in one line: its kind, network and trust.
func Describe(t scenario.Topology) string {
	text := fmt.Sprintf("%s, network %s, trust %s", t.Kind, t.Network, t.Trust)
	if t.Kind == "" {
		text = fmt.Sprintf("%s, trust %s", cmp.Or(t.Name, strings.Join(t.Clusters(), ", ")), t.Trust)
	}
	if t.MultiRoot {
		text += ", multi-root"
	}
	return text
}

// Env is what a shell needs to work with the lab.
type Env struct {
	Kubeconfig string // of all clusters, one context each
	BinDir     string // the bundle's kubectl and istioctl
	// NoProxy is NO_PROXY with the lab's API servers in it; empty where the user has no proxy, or it may be the way to them.
	NoProxy string
}

// Image is the reference of an image of the mesh in the lab's nodes: "pilot", "proxyv2" or "app".
func (l *Lab) Image(name string) string { return l.meshOptions().Istio.Image(name) }

// Provider is the name of who has made its clusters.
func (l *Lab) Provider() string { return l.record.Provider }

// Dir is the lab's folder, which holds the files that printed commands name.
func (l *Lab) Dir() string { return labDir(l.home, l.Name) }

// Env returns the lab's kubeconfig and programs.
func (l *Lab) Env() Env {
	e := Env{Kubeconfig: filepath.Join(labDir(l.home, l.Name), "kubeconfig"), BinDir: l.bundle.BinDir()}
	proxy := httpproxy.FromEnvironment()
	if proxy.HTTPSProxy == "" || l.record.Provider == Existing {
		return e
	}
	var direct []string
	if proxy.NoProxy != "" {
		direct = append(direct, proxy.NoProxy)
	}
	for _, c := range l.Clusters {
		if u, err := url.Parse(c.RESTConfig().Host); err == nil {
			direct = append(direct, u.Hostname())
		}
	}
	e.NoProxy = strings.Join(direct, ",")
	return e
}

// writeKubeconfig writes one file with a context per cluster, and one per cluster in which that
// cluster's context is the current one. The user's own kubeconfig is never touched.
func (l *Lab) writeKubeconfig() error {
	all := api.NewConfig()
	for _, c := range l.Clusters {
		has, ok := c.(interface{ Kubeconfig() string })
		if !ok {
			return fmt.Errorf("cluster %s has no kubeconfig", c.Name())
		}
		one, err := clientcmd.LoadFromFile(has.Kubeconfig())
		if err != nil {
			return fmt.Errorf("reading the kubeconfig of %s: %w", c.Name(), err)
		}
		for name, v := range one.Clusters {
			v.LocationOfOrigin = ""
			all.Clusters[name] = v
		}
		for name, v := range one.AuthInfos {
			v.LocationOfOrigin = ""
			all.AuthInfos[name] = v
		}
		for name, v := range one.Contexts {
			v.LocationOfOrigin = ""
			all.Contexts[name] = v
		}
	}
	for i, c := range l.Clusters {
		all.CurrentContext = c.Name()
		files := []string{l.Env().Kubeconfig + "-" + c.Name()}
		if i == 0 {
			files = append(files, l.Env().Kubeconfig)
		}
		for _, file := range files {
			if err := clientcmd.WriteToFile(*all, file); err != nil {
				return fmt.Errorf("writing the lab's kubeconfig: %w", err)
			}
		}
	}
	return nil
}

// Adopted reports whether the lab's mesh was made by somebody else.
func (l *Lab) Adopted() bool { return l.record.Existing != nil && l.record.Existing.Adopt }

// Adopt lets the clusters' mesh be changed.
func (l *Lab) Adopt() {
	for _, c := range l.Clusters {
		if f, ok := c.(cluster.Foreign); ok {
			f.Adopt()
		}
	}
}

// Plan returns the mesh that a topology asks for and the steps of installing it, in an order in which a person could
// carry them out. It touches nothing.
func Plan(t scenario.Topology) (mesh.Topology, []mesh.Step, error) {
	wanted, err := meshTopology(t)
	if err != nil {
		return wanted, nil, err
	}
	o := mesh.Options{Lab: DefaultName, Topology: wanted}
	if b, err := openBundle(false); err == nil { // what is installed depends a little on the Envoy that it holds
		o.Istio = mesh.FromBundle(b)
	}
	steps, err := mesh.Plan(o)
	return wanted, steps, err
}

// Suits tells whether a scenario that needs the topology can run on the lab as it is.
func (l *Lab) Suits(t scenario.Topology) bool {
	return l.record.Left == "" && SameTopology(l.Topology, t)
}
