package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Options of Up.
type Options struct {
	Home     string // folder of all labs; see Home
	Name     string
	Provider string // one of Providers; if empty, the provider of the lab that is there, or Auto
	Settings Settings
	Topology scenario.Topology
	Progress func(Progress) // is called for each step; may be nil

	// ClustersOnly makes no mesh, whatever the topology.
	ClustersOnly bool
	// Wrap, if it is not nil, returns the provider that makes the clusters in place of the given one. It is not written down:
	// whoever opens the lab's clusters has to know it, and Down removes the lab without. Benchmarks compare with it.
	Wrap func(cluster.Provider) cluster.Provider
}

// Progress is the begin or the end of one step of making a lab.
type Progress struct {
	Cluster, Step string
	Command       string        // that a person would type for the same
	Since         time.Duration // since Up was called
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
	Answers  []mesh.Answer // the proof that Up has made; empty if the lab was there already

	home   string
	bundle *bundle.Bundle
	istios map[string]bundle.Istio // the versions of Istio besides the bundle's own, by the names that topologies have for them
	record record
}

// check returns an error if the options are wrong on any machine.
func (o Options) check() (mesh.Topology, error) {
	if err := checkName(o.Name); err != nil {
		return mesh.Topology{}, err
	}
	topology, err := meshTopology(o.Topology)
	if o.ClustersOnly {
		for i := range topology.Clusters {
			topology.Clusters[i].Primary = ""
		}
	}
	return topology, err
}

// provider returns the provider that makes the lab of the record.
func (o Options) provider(r record, topology mesh.Topology, b *bundle.Bundle, istios map[string]bundle.Istio) cluster.Provider {
	of := cluster.Lab{Home: o.Home, ID: r.ID, Clusters: r.Topology.Clusters(), ReadByOthers: readByOthers(topology), Bundle: b}
	for _, name := range slices.Sorted(maps.Keys(istios)) {
		of.Images = append(of.Images, istios[name].Images...)
	}
	if o.Progress != nil {
		of.Progress = func(cluster, milestone string, since time.Duration) {
			o.Progress(Progress{Cluster: cluster, Step: milestone, Since: since, Took: since})
		}
	}
	p := r.Settings.New(of)
	if o.Wrap != nil {
		p = o.Wrap(p)
	}
	return p
}

// Up makes the lab, or finds it as it is. A lab that is there but does not work is made anew. If Up fails or ctx ends,
// nothing is left of a new lab.
func Up(ctx context.Context, o Options) (*Lab, error) {
	topology, err := o.check()
	if err := errors.Join(err, wait.Measure()); err != nil {
		return nil, err
	}
	unlock, err := lockLab(ctx, o.Home, o.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Only now: another process may have made or removed the lab while this one waited.
	wanted, there, err := o.decide(ctx)
	if err != nil {
		return nil, err
	}
	b, err := openBundle(wanted.onlyTools())
	if err != nil {
		return nil, err
	}
	if there != nil {
		if l, err := o.reuse(ctx, *there, b); l != nil || err != nil {
			return l, err
		}
	}
	istios, err := wanted.istios(b)
	if err != nil {
		return nil, err
	}
	p := o.provider(wanted, topology, b, istios)
	if err := willHaveKubernetes(p, o.Topology); err != nil {
		return nil, err
	}
	wanted.Bundle = b.Digest()
	l := &Lab{Name: o.Name, Topology: o.Topology, home: o.Home, bundle: b, istios: istios, record: wanted}
	release, err := l.begin(ctx, p)
	if err != nil { // nothing has been made, so there is nothing to remove
		return nil, &SetupError{Err: interrupted(ctx, err)}
	}
	defer release()
	if err := l.make(ctx, p, topology, o.Progress); err != nil {
		clean, cancel := wait.Timeout(context.WithoutCancel(ctx), RemoveWithin)
		defer cancel()
		err = interrupted(ctx, err)
		left := remove(clean, p, o.Home, o.Name)
		if left != nil && left.Error() == err.Error() {
			left = nil // one reason against both making and removing it is said once
		}
		return nil, errors.Join(&SetupError{Err: err}, left)
	}
	return l, nil
}

// begin checks that the provider can make the lab here, removes what a crash has left of it, and takes the lab's name where labs
// of several homes share names. The name comes last: a provider may hold it by a thing of the lab, which removing would take away.
func (l *Lab) begin(ctx context.Context, p cluster.Provider) (release func(), err error) {
	if err := p.Check(ctx); err != nil {
		return nil, err
	}
	if there, err := readRecord(l.home, l.Name); err == nil && there.Provider != l.record.Provider { // it was never complete
		if err := removeRecorded(ctx, l.home, l.Name); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(labDir(l.home, l.Name)); err == nil {
		if err := remove(ctx, p, l.home, l.Name); err != nil {
			return nil, err
		}
	}
	if claimer, ok := p.(cluster.Claimer); ok {
		return claimer.Claim(ctx, l.Name)
	}
	return func() {}, nil
}

// interrupted returns the error to tell. If time ran out, what was waited for is the news. If the user interrupted, only that is.
func interrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !(errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, cause)) {
		return cause
	}
	return err
}

// reuse returns the lab of the record if it works. It returns nil and no error if the lab has to be made anew.
func (o Options) reuse(ctx context.Context, r record, b *bundle.Bundle) (*Lab, error) {
	l, problem := open(o.Home, r, b)
	if problem == nil {
		if problem = l.Works(ctx); problem == nil {
			return l, nil
		}
		l.Close()
	} else if r.onAnothersMesh() {
		return nil, r.doesNotOpen(problem)
	}
	if err := mayGo(o.Home, o.Name); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // it was not given the time to answer
		return nil, &SetupError{Err: fmt.Errorf("looking at lab %s: %w", o.Name, context.Cause(ctx))}
	}
	if o.Progress != nil {
		o.Progress(Progress{Step: fmt.Sprintf("lab %s is made anew: %s", o.Name, words.FirstLine(problem.Error()))})
	}
	return nil, nil
}

// make is the story of a lab: the clusters at the same time, Istio on them as soon as their APIs answer, and the proof.
func (l *Lab) make(ctx context.Context, p cluster.Provider, topology mesh.Topology, progress func(Progress)) error {
	if err := l.record.write(l.home); err != nil {
		return err
	}
	install := l.meshOptions()
	install.Topology = topology
	definitions, err := definitions(ctx, p, install)
	if err != nil {
		return err
	}
	if err := l.linkIstioctls(); err != nil {
		return err
	}
	l.Clusters = make([]cluster.Cluster, len(topology.Clusters))
	making, ctx := errgroup.WithContext(ctx)
	// Not a group with a context: that context would end at Wait, and nodes die with the context that they were made in.
	var apis errgroup.Group
	for i, c := range topology.Clusters {
		apis.Go(func() (err error) {
			spec := cluster.Spec{
				Lab: l.Name, Name: c.Name, Network: c.Network, Index: i + 1, Of: len(topology.Clusters), Neighbors: topology.Neighbors(c),
			}
			if topology.IsConfig(c) {
				spec.Definitions = definitions[c.Istio]
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
	install.Steps = func(s mesh.Step) { report(progress, s) }
	install.Proven = func(answers []mesh.Answer) { l.Answers = answers }
	if install.Shared {
		if err := mesh.Preflight(ctx, install); err != nil {
			return err
		}
		if err := mesh.Claim(ctx, install); err != nil {
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

// definitions returns the files with Istio's definitions for clusters that can have them from their start, by the version of Istio;
// none if the provider's cannot.
func definitions(ctx context.Context, p cluster.Provider, o mesh.Options) (map[string]string, error) {
	if _, ok := p.(cluster.Seeder); !ok || !o.Topology.HasMesh() {
		return nil, nil
	}
	files := map[string]string{}
	for _, c := range o.Topology.Clusters {
		if files[c.Istio] != "" {
			continue
		}
		var err error
		if files[c.Istio], err = o.Version(c.Istio).Definitions(ctx, o.Cache); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// report passes a step of the mesh's installation on.
func report(progress func(Progress), s mesh.Step) {
	if progress != nil && s.State != mesh.Planned {
		progress(Progress{
			Cluster: s.Cluster, Step: s.Name, Command: s.Command,
			Since: s.Began + s.Took, Took: s.Took, Started: s.State == mesh.Running, Proof: s.Proof, Err: s.Err,
		})
	}
}

// meshOptions returns the options of the lab's mesh that its record decides.
func (l *Lab) meshOptions() mesh.Options {
	o := mesh.Options{Lab: l.Name, ID: l.record.ID, Dir: labDir(l.home, l.Name), Clusters: l.Clusters, Istio: mesh.FromBundle(l.bundle)}
	o.Cache = filepath.Join(l.home, "rendered")
	for name, istio := range l.istios {
		if o.Istios == nil {
			o.Istios = map[string]mesh.Istio{}
		}
		o.Istios[name] = mesh.FromVersion(istio)
	}
	o.Shared, o.Adopted = isGuest(l.record.Settings), adopts(l.record.Settings)
	if i := pulls(l.record.Settings); i.Published() {
		o.Istio.Hub, o.Istio.Tag = i.Hub, i.Tag
		// Images with the bundle's tag are the bundle's, pushed to a registry. All others hold Istio's own proxy.
		o.Istio.UpstreamEnvoy = i.Tag == bundle.Tag
	}
	return o
}

// withoutImages adds to an error what to try if nodes cannot get an image.
func (l *Lab) withoutImages(err error) error {
	var pull *mesh.PullError
	switch {
	case !errors.As(err, &pull):
		return err
	case pulls(l.record.Settings).Published():
		return fmt.Errorf("%w: try `docker pull %s`: the registry has to have it (--hub, --tag) for everybody, "+
			"and the nodes have to reach the registry", err, pull.Image)
	case isGuest(l.record.Settings):
		return fmt.Errorf("%w: no registry has the bundle's images: name one that has images with --hub and --tag, "+
			"or load the bundle's (%s) into the nodes", err, filepath.Join(l.bundle.Dir(), "images"))
	}
	return err
}

// Works returns nil, or why the lab is not as Up has made it: it was not made to the end, a scenario has left it changed, a
// cluster does not answer, or calls between clusters fail.
func (l *Lab) Works(ctx context.Context) error {
	switch {
	case !l.record.Complete:
		return errors.New("making it was interrupted")
	case l.record.Left != "":
		return fmt.Errorf("scenario %s was stopped in the middle", l.record.Left)
	}
	// Long enough for a busy machine: a lab that is made anew by mistake is lost work.
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
	r, err := readRecord(home, name)
	if errors.Is(err, fs.ErrNotExist) {
		known, err := names(home)
		if err != nil {
			return nil, err
		}
		return nil, &UnknownLabError{Name: name, Known: known}
	}
	if err != nil {
		return nil, &SetupError{Err: fmt.Errorf("opening lab %s: %w: remove the lab with `eastwest down %[1]s`", name, err)}
	}
	b, err := openBundle(r.onlyTools())
	if err != nil {
		return nil, err
	}
	l, err := open(home, r, b)
	if err != nil {
		return nil, r.doesNotOpen(err)
	}
	return l, nil
}

func open(home string, r record, b *bundle.Bundle) (*Lab, error) {
	istios, err := r.istios(b)
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: r.Name, Topology: r.Topology, home: home, bundle: b, istios: istios, record: r}
	p := r.Settings.New(cluster.Lab{Home: home, Bundle: b})
	for _, name := range r.Topology.Clusters() {
		c, err := p.Open(l.Name, name)
		if err != nil {
			return nil, err
		}
		l.Clusters = append(l.Clusters, c)
	}
	l.Mesh, err = mesh.Attach(l.meshOptions())
	return l, err
}

// doesNotOpen says what to do about a lab that open returns an error for.
func (r record) doesNotOpen(err error) error {
	try := "make it anew with `eastwest up`"
	if r.onAnothersMesh() {
		try = fmt.Sprintf("it was left in the middle of scenario %s, on a mesh that is not eastwest's: mend that, then %s", r.Left, r.putBack())
	}
	return &SetupError{Err: fmt.Errorf("opening lab %s: %w: %s", r.Name, err, try)}
}

// Close ends watches and connections. The lab itself stays.
func (l *Lab) Close() {
	if l.Mesh != nil {
		l.Mesh.Close()
	}
}

// OnlyTools reports whether the lab needs only kubectl and istioctl of the bundle.
func (o Options) OnlyTools(ctx context.Context) bool {
	wanted, _, err := o.decide(ctx)
	return err == nil && wanted.onlyTools()
}

func (r record) onlyTools() bool { return pulls(r.Settings).Published() }

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

// Image returns the reference of an image of the mesh in the lab's nodes: "pilot", "proxyv2" or "app".
func (l *Lab) Image(name string) string { return l.meshOptions().Istio.Image(name) }

// Provider returns the name of the provider that has made the clusters.
func (l *Lab) Provider() string { return l.record.Provider }

// Dir returns the lab's folder, which holds the files that printed commands name.
func (l *Lab) Dir() string { return labDir(l.home, l.Name) }

// Adopted reports whether the lab's mesh was made by somebody else.
func (l *Lab) Adopted() bool { return adopts(l.record.Settings) }

// Adopt allows changes to the mesh of the lab's clusters, though somebody else has made it.
func (l *Lab) Adopt() {
	for _, c := range l.Clusters {
		if f, ok := c.(cluster.Foreign); ok {
			f.Adopt()
		}
	}
}

// Suits reports whether a scenario that needs the topology can run on the lab as it is.
func (l *Lab) Suits(t scenario.Topology) bool {
	return l.record.Left == "" && SameTopology(l.Topology, t)
}
