// Package gather reads what doctor examines. It reads all clusters at once, through their kubeconfigs and from nowhere else,
// and changes nothing; only Probe creates something, and removes it again. It keeps no private key and no token. Its tests
// replay an API server and need no cluster: `go test ./lab/doctor/gather`.
package gather

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Bounds of what is read, so that a large mesh costs no more.
const (
	defaultWithin = 30 * time.Second // everything
	atOnce        = 16               // requests to pods of one cluster
	defaultSample = 40               // proxies of one cluster whose certificates are read
	witnesses     = 2                // proxies of one cluster that are asked which connections fail
	podsPerPage   = 250
)

// oneWithin bounds one page, one certificate, one connection.
func oneWithin() time.Duration { return wait.Bound(5 * time.Second) }

// Target is a cluster to read, and its name in findings.
type Target struct {
	Name   string
	Config *rest.Config
}

// Options of Gather and Probe.
type Options struct {
	System    string        // Istio's namespace; istio-system if empty
	Namespace string        // read workloads and services of this namespace only; of all if empty
	Within    time.Duration // 30 s, times wait.Patience, if zero
	Sample    int           // number of proxies per cluster whose certificates are read; 40 if zero
	// Progress is called after each part of a cluster was read, from several goroutines. It may be nil.
	Progress func(cluster, part string, took time.Duration)
}

// Gather reads all clusters at once. It never fails: what it cannot read is listed in Facts.Unread. It creates nothing,
// apart from SelfSubjectAccessReviews, with which it asks API servers what an account may do.
func Gather(ctx context.Context, targets []Target, o Options) facts.Facts {
	o.System = cmp.Or(o.System, mesh.SystemNamespace)
	o.Within = cmp.Or(o.Within, wait.Bound(defaultWithin))
	o.Sample = cmp.Or(o.Sample, defaultSample)
	ctx, cancel := context.WithTimeoutCause(ctx, o.Within, fmt.Errorf("not done within %s", o.Within))
	defer cancel()
	f := facts.Facts{Taken: time.Now().UTC(), System: o.System, Clusters: make([]facts.Cluster, len(targets))}
	store := &store{facts: &f}
	var readers []*reader
	for i, t := range targets {
		f.Clusters[i].Context = t.Name
		r, err := newReader(t, o, &f.Clusters[i], store)
		if err != nil {
			store.unread(facts.Unread{Cluster: t.Name, Part: facts.APIServer, Why: err.Error()})
			continue
		}
		defer r.pages.Close()
		readers = append(readers, r)
	}
	var all sync.WaitGroup
	for _, r := range readers {
		all.Go(func() { r.read(ctx) })
	}
	all.Wait()
	across(ctx, readers) // needs what was read from all clusters
	slices.SortFunc(f.Unread, func(a, b facts.Unread) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Part, b.Part), cmp.Compare(a.Object, b.Object))
	})
	return f
}

// store is what the readers of all clusters share.
type store struct {
	mu    sync.Mutex
	facts *facts.Facts
}

func (s *store) unread(u facts.Unread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Unread = append(s.facts.Unread, u)
}

// add puts certificates into the facts and returns their IDs.
func (s *store) add(certs []*x509.Certificate) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts.Add(certs)
}

// addBundle adds the certificates of a PEM bundle. Blocks that are not certificates are left out.
func (s *store) addBundle(data []byte) []string {
	certs, _ := facts.ParseBundle(data) // a bundle without certificates has no IDs: that is what exam judges
	return s.add(certs)
}

// reader reads one cluster.
type reader struct {
	Options
	*store
	cluster *facts.Cluster
	config  *rest.Config
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	meta    metadata.Interface
	pages   *mesh.Pages

	mu        sync.Mutex
	pods      map[string]*corev1.Pod        // by NAMESPACE/POD: those with a proxy, cut down to what is needed later
	istiods   []*corev1.Pod                 // in Istio's namespace, oldest first
	mapped    map[string][]string           // roots in the ConfigMaps, by namespace
	settings  map[string]facts.MeshSettings // in the ConfigMaps of istiods, by revision
	labels    map[string]map[string]string  // of namespaces
	leads     map[string]map[string]string  // selectors of the Services of webhooks, by name
	injectors map[string][]injector         // selectors of injectors and tags, by name
	selectors []metav1.LabelSelector        // discoverySelectors: the namespaces that an istiod looks at
	exec      bool                          // port-forward is not allowed, exec is
}

func newReader(t Target, o Options, c *facts.Cluster, s *store) (*reader, error) {
	config := rest.CopyConfig(t.Config)
	config.QPS, config.Burst = 100, 200 // a few dozen requests in all
	c.Server = config.Host
	r := &reader{
		Options: o, store: s, cluster: c, config: config,
		pods: map[string]*corev1.Pod{}, mapped: map[string][]string{},
		settings: map[string]facts.MeshSettings{}, labels: map[string]map[string]string{}, injectors: map[string][]injector{},
		leads: map[string]map[string]string{},
	}
	var err error
	if r.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if r.meta, err = metadata.NewForConfig(config); err != nil {
		return nil, err
	}
	binary := rest.CopyConfig(config)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	if r.kube, err = kubernetes.NewForConfig(binary); err != nil {
		return nil, err
	}
	r.pages = mesh.NewPages(config, r.kube)
	return r, nil
}

// look reads one part, and notes the part as unread if that fails.
func (r *reader) look(ctx context.Context, part facts.Part, read func(context.Context) error) bool {
	start := time.Now()
	err := read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		r.unread(facts.Unread{Cluster: r.cluster.Context, Part: part, Why: words.Short(err.Error(), 300)})
	}
	if r.Progress != nil {
		r.Progress(r.cluster.Context, string(part), time.Since(start))
	}
	return err == nil
}

// together reads several parts at once.
func (r *reader) together(ctx context.Context, parts map[facts.Part]func(context.Context) error) {
	var all sync.WaitGroup
	for part, read := range parts {
		all.Go(func() { r.look(ctx, part, read) })
	}
	all.Wait()
}

// read reads everything that one cluster shows by itself.
func (r *reader) read(ctx context.Context) {
	if !r.look(ctx, facts.APIServer, r.readServer) {
		return // everything behind it is unknown, and one entry in Unread is enough to say so
	}
	r.together(ctx, map[facts.Part]func(context.Context) error{
		facts.Namespaces: r.readNamespaces, facts.RootMaps: r.readRootMaps, facts.Pods: r.readPods, facts.Secrets: r.readSecrets,
		facts.Services: r.readServices, facts.Policies: r.readPolicies, facts.Gateways: r.readExposed, facts.Webhooks: r.readWebhooks,
	})
	r.settle()
	r.together(ctx, map[facts.Part]func(context.Context) error{
		facts.IstiodPage: r.readIstiod, facts.Signer: r.readSigners, facts.Proxies: r.readProxies, facts.Reach: r.readListeners,
	})
}

func (r *reader) readServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, oneWithin())
	defer cancel()
	space, err := r.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err == nil {
		r.cluster.UID = string(space.UID)
	}
	if err != nil && !apierrors.IsForbidden(err) { // forbidden is an answer: the account may still read other things
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown { // not an answer of an API server
			r.cluster.Down = words.Short(err.Error(), 300)
		}
		return err
	}
	version, err := r.kube.Discovery().ServerVersion()
	if err == nil {
		r.cluster.Version = version.GitVersion
	}
	return err
}

// settle combines what several parts have read, before pods are asked. From here on only namespaces of the mesh matter.
func (r *reader) settle() {
	c := r.cluster
	injected, inMesh := map[string]bool{}, map[string]bool{}
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		n.Roots, n.HasRoot = r.mapped[n.Name]
		n.Injected = n.Injected && r.covers(n.Name) // a namespace that this istiod does not look at belongs to another mesh
		injected[n.Name] = n.Injected
	}
	for _, p := range c.Proxies {
		inMesh[p.Namespace] = true
	}
	c.Namespaces = slices.DeleteFunc(c.Namespaces, func(n facts.Namespace) bool {
		contradicts := n.Injection != "" && n.Revision != "" && r.covers(n.Name)
		return !n.Injected && !inMesh[n.Name] && !contradicts
	})
	c.Plain = slices.DeleteFunc(c.Plain, func(pod string) bool {
		space, _, _ := strings.Cut(pod, "/")
		return !injected[space]
	})
	c.Services = slices.DeleteFunc(c.Services, func(s facts.Service) bool {
		other := r.Namespace != "" && s.Namespace != r.Namespace
		return other || s.Namespace == r.System || !injected[s.Namespace] && !inMesh[s.Namespace]
	})
	for i := range c.Istiods {
		c.Istiods[i].Settings = r.settings[cmp.Or(c.Istiods[i].Revision, facts.DefaultRevision)]
	}
	c.ID = facts.MostCommon(c.Proxies, func(p facts.Proxy) string { return p.Cluster })
	c.Network = cmp.Or(facts.MostCommon(c.Proxies, func(p facts.Proxy) string { return p.Network }), c.Network)
	for i := range c.Gateways {
		g := &c.Gateways[i]
		for _, p := range c.Proxies {
			if serves(r.pods[p.Name()], *g) {
				g.Pods++
				g.Revisions, g.Versions = append(g.Revisions, p.Revision), append(g.Versions, p.Version)
			}
		}
		slices.Sort(g.Revisions)
		slices.Sort(g.Versions)
		g.Revisions, g.Versions = slices.Compact(g.Revisions), slices.Compact(g.Versions)
	}
	r.settleWebhooks()
}

// serves reports whether a pod is a Ready one of a gateway.
func serves(p *corev1.Pod, g facts.Gateway) bool {
	return p.Namespace == g.Namespace && facts.Selects(g.Selector, p.Labels) && mesh.Ready(p)
}

// behind returns a Ready pod of a gateway, nil if there is none.
func (r *reader) behind(g facts.Gateway) *corev1.Pod {
	for _, name := range slices.Sorted(maps.Keys(r.pods)) {
		if p := r.pods[name]; serves(p, g) {
			return p
		}
	}
	return nil
}

// each calls do for every element, some at once.
func each[T any](all []T, do func(T)) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, v := range all {
		group.Go(func() error {
			do(v)
			return nil
		})
	}
	_ = group.Wait() // nothing returns an error
}
