package doctor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
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
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Bounds of what is read, so that a large mesh costs no more than is said here.
const (
	defaultWithin = 30 * time.Second // everything
	oneWithin     = 5 * time.Second  // one page, one certificate, one connection
	atOnce        = 16               // requests to pods of one cluster
	defaultSample = 40               // proxies of one cluster whose certificates are read
	witnesses     = 2                // proxies of one cluster that are asked which connections fail
	podsPerPage   = 250
)

// Target is a cluster to read, by the name that findings give it.
type Target struct {
	Name   string
	Config *rest.Config
}

// Options of Gather.
type Options struct {
	System    string        // Istio's namespace; istio-system if empty
	Namespace string        // only the workloads and services of this one; of all if empty
	Within    time.Duration // 30 s if zero
	Sample    int           // proxies per cluster whose certificates are read; 40 if zero
	// Progress hears of each part of a cluster that was read, from several goroutines; may be nil.
	Progress func(cluster string, part Part, took time.Duration)
}

// Gather reads all clusters at once. What cannot be read is in Facts.Unread; Gather itself does not fail. It
// creates nothing, except that it asks API servers what an account may do (SelfSubjectAccessReview).
func Gather(ctx context.Context, targets []Target, o Options) Facts {
	o.System = cmp.Or(o.System, mesh.SystemNamespace)
	o.Within = cmp.Or(o.Within, defaultWithin)
	o.Sample = cmp.Or(o.Sample, defaultSample)
	ctx, cancel := context.WithTimeoutCause(ctx, o.Within, fmt.Errorf("not done within %s", o.Within))
	defer cancel()
	f := Facts{Taken: time.Now().UTC(), Clusters: make([]Cluster, len(targets)), Certificates: map[string][]byte{}}
	store := &store{facts: &f}
	var readers []*reader
	for i, t := range targets {
		f.Clusters[i].Context = t.Name
		r, err := newReader(t, o, &f.Clusters[i], store)
		if err != nil {
			store.unread(Unread{Cluster: t.Name, Part: APIServer, Why: err.Error()})
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
	across(ctx, readers) // what needs to be known of the others first
	slices.SortFunc(f.Unread, func(a, b Unread) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(string(a.Part), string(b.Part)), strings.Compare(a.Object, b.Object))
	})
	return f
}

// store is what the readers of all clusters share.
type store struct {
	mu    sync.Mutex
	facts *Facts
}

func (s *store) unread(u Unread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Unread = append(s.facts.Unread, u)
}

// keep puts certificates into the facts and returns their names.
func (s *store) keep(certs []*x509.Certificate) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, len(certs))
	for i, c := range certs {
		names[i] = id(c)
		s.facts.Certificates[names[i]] = c.Raw
	}
	return names
}

// pem reads a bundle as istiod does: what is no certificate in it does not hide the others.
func (s *store) pem(data []byte) (names []string, err error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" { // a key that stands where a certificate belongs is not kept
			err = errors.Join(err, fmt.Errorf("a block is a %s", block.Type))
			continue
		}
		cert, problem := x509.ParseCertificate(block.Bytes)
		if problem != nil {
			err = errors.Join(err, problem)
			continue
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 && err == nil {
		err = errors.New("there is no certificate in it")
	}
	return s.keep(certs), err
}

// reader reads one cluster.
type reader struct {
	Options
	*store
	cluster *Cluster
	config  *rest.Config
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	meta    metadata.Interface
	pages   *mesh.Pages

	mu      sync.Mutex
	pods    map[string]*corev1.Pod       // by NAMESPACE/POD: istiods, gateways, and those in the sample
	istiods []*corev1.Pod                // in Istio's namespace, oldest first
	mapped  map[string][]string          // roots in the ConfigMaps, by namespace
	labels  map[string]map[string]string // of namespaces
	exec    bool                         // port-forward is not allowed
}

func newReader(t Target, o Options, c *Cluster, s *store) (*reader, error) {
	config := rest.CopyConfig(t.Config)
	config.QPS, config.Burst = 100, 200 // a few dozen requests in all
	c.Server = config.Host
	r := &reader{Options: o, store: s, cluster: c, config: config, pods: map[string]*corev1.Pod{}, mapped: map[string][]string{}, labels: map[string]map[string]string{}}
	var err error
	if r.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if r.meta, err = metadata.NewForConfig(config); err != nil {
		return nil, err
	}
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	if r.kube, err = kubernetes.NewForConfig(binary); err != nil {
		return nil, err
	}
	r.pages = mesh.NewPages(config, r.kube)
	return r, nil
}

// look reads one part and notes if that was not possible.
func (r *reader) look(ctx context.Context, part Part, read func(context.Context) error) bool {
	start := time.Now()
	err := read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		r.unread(Unread{Cluster: r.cluster.Context, Part: part, Why: short(err.Error(), 300)})
	}
	if r.Progress != nil {
		r.Progress(r.cluster.Context, part, time.Since(start))
	}
	return err == nil
}

// together reads parts at once.
func (r *reader) together(ctx context.Context, parts map[Part]func(context.Context) error) {
	var all sync.WaitGroup
	for part, read := range parts {
		all.Go(func() { r.look(ctx, part, read) })
	}
	all.Wait()
}

func (r *reader) read(ctx context.Context) {
	if !r.look(ctx, APIServer, r.readServer) {
		return // what is behind it is unknown, and once is enough to say so
	}
	r.together(ctx, map[Part]func(context.Context) error{
		Namespaces: r.readNamespaces, RootMaps: r.readRootMaps, Pods: r.readPods, Secrets: r.readSecrets,
		Services: r.readServices, Policies: r.readPolicies, Gateways: r.readExposed, Webhooks: r.readWebhooks,
	})
	r.settle()
	r.together(ctx, map[Part]func(context.Context) error{
		IstiodPage: r.readIstiod, Signer: r.readSigners, Proxies: r.readProxies, Reach: r.readGateways,
	})
}

func (r *reader) readServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, oneWithin)
	defer cancel()
	space, err := r.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err == nil {
		r.cluster.UID = string(space.UID)
	}
	if err != nil && !apierrors.IsForbidden(err) { // that one is let in, and no more
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown { // it is no answer
			r.cluster.Down = short(err.Error(), 300)
		}
		return err
	}
	version, err := r.kube.Discovery().ServerVersion()
	if err == nil {
		r.cluster.Version = version.GitVersion
	}
	return err
}

// page reads a page of a pod, by port-forward or, where that is not allowed, by a command in the pod.
func (r *reader) page(ctx context.Context, pod *corev1.Pod, port int, path string) (io.ReadCloser, error) {
	r.mu.Lock()
	exec := r.exec
	r.mu.Unlock()
	if !exec {
		body, err := r.pages.Open(ctx, pod, port, path)
		if err == nil || !strings.Contains(err.Error(), "forbidden") {
			return body, err
		}
	}
	container, program := "istio-proxy", "pilot-agent"
	if port == mesh.IstiodDebugPort {
		container, program = "discovery", "pilot-discovery"
	}
	out, err := r.run(ctx, pod, container, program, "request", "GET", path)
	if err == nil {
		r.mu.Lock()
		r.exec = true
		r.mu.Unlock()
	}
	return io.NopCloser(bytes.NewReader(out)), err
}

func (r *reader) whole(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, oneWithin)
	defer cancel()
	body, err := r.page(ctx, pod, port, path)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	return io.ReadAll(body)
}

func (r *reader) run(ctx context.Context, pod *corev1.Pod, container string, command ...string) ([]byte, error) {
	req := r.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(r.config, "POST", req.URL())
	if err != nil {
		return nil, err
	}
	var out, problem bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problem}); err != nil {
		return nil, fmt.Errorf("%w %s", err, short(problem.String(), 200))
	}
	return out.Bytes(), nil
}

// settle brings together what several parts have read, before pods are asked.
func (r *reader) settle() {
	c := r.cluster
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		n.Roots, n.HasRoot = r.mapped[n.Name]
		n.Injected = n.Injected && r.covers(n.Name) // what istiod does not look at, another mesh does
	}
	injected := map[string]bool{}
	for _, n := range c.Namespaces {
		injected[n.Name] = n.Injected
	}
	inMesh := map[string]bool{}
	for _, p := range c.Proxies {
		inMesh[p.Namespace] = true
	}
	// Only namespaces of the mesh matter from here on.
	c.Namespaces = slices.DeleteFunc(c.Namespaces, func(n Namespace) bool { return !n.Injected && !inMesh[n.Name] })
	c.Plain = slices.DeleteFunc(c.Plain, func(pod string) bool { space, _, _ := strings.Cut(pod, "/"); return !injected[space] })
	c.Services = slices.DeleteFunc(c.Services, func(s Service) bool {
		return s.Namespace == r.System || !injected[s.Namespace] && !inMesh[s.Namespace] || r.Namespace != "" && s.Namespace != r.Namespace
	})
	c.ID = most(c.Proxies, func(p Proxy) string { return p.Cluster })
	c.Network = cmp.Or(most(c.Proxies, func(p Proxy) string { return p.Network }), c.Network)
	for i := range c.Gateways { // the Ready pods behind each
		g := &c.Gateways[i]
		for _, p := range r.pods {
			if p.Namespace == g.Namespace && matches(g.Labels, p.Labels) && mesh.Ready(p) {
				g.Pods++
			}
		}
	}
}

// most returns what most of them say, "" not counted.
func most[T any](all []T, what func(T) string) string {
	count, best := map[string]int{}, ""
	for _, v := range all {
		if w := what(v); w != "" {
			if count[w]++; best == "" || count[w] > count[best] {
				best = w
			}
		}
	}
	return best
}

// matches says whether a selector, which is not empty, selects the labels.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// sample chooses proxies whose certificates are read: the oldest and the newest Ready pod of every workload,
// or of those as many as the limit lets through, spread over their ages.
func sample(proxies []Proxy, limit int) []int {
	byWorkload := map[string][]int{}
	for i, p := range proxies {
		if p.Ready {
			key := p.Namespace + "/" + p.Workload
			byWorkload[key] = append(byWorkload[key], i)
		}
	}
	age := func(a, b int) int {
		return cmp.Or(proxies[a].Created.Compare(proxies[b].Created), strings.Compare(proxies[a].Name(), proxies[b].Name()))
	}
	var chosen []int
	for _, its := range byWorkload {
		slices.SortFunc(its, age)
		chosen = append(chosen, its[0])
		if len(its) > 1 {
			chosen = append(chosen, its[len(its)-1])
		}
	}
	slices.SortFunc(chosen, age)
	if len(chosen) <= limit {
		return chosen
	}
	spread := make([]int, limit)
	for i := range spread {
		spread[i] = chosen[i*(len(chosen)-1)/max(limit-1, 1)]
	}
	return spread
}

// each does something for many at once, a few at a time.
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

// short keeps evidence to a line that people read.
func short(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}
