package observe

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

const (
	// baselineWithin bounds what takes less than a second if all clusters answer.
	baselineWithin = 30 * time.Second
	// proxyWithin bounds what is read of one proxy, or of istiod, in a mesh that may be broken.
	proxyWithin = 5 * time.Second
	// proxiesAtOnce bounds how many proxies of a cluster are read at the same time, and how many lists of objects.
	proxiesAtOnce = 16
	// notRead stands for the trust of a proxy or an istiod that does not answer.
	notRead = "not to be read"
)

// Faulty is offered by clusters that know which faults of the underlay are in force.
type Faulty interface {
	// Faults names them, sorted; none in a healthy cluster.
	Faults(ctx context.Context) ([]string, error)
}

// TakeBaseline reads what the mesh is like now: the roots and issuers that every proxy and istiod use, Secrets, labels,
// gateways, Deployments, Istio's own objects and settings, roles, admission, faults of the underlay, and the objects
// that are named.
func TakeBaseline(ctx context.Context, m *mesh.Mesh, named ...Named) (Baseline, error) {
	return take(ctx, m, named, false)
}

// Reread reads everything that b knows as it is now.
func (b Baseline) Reread(ctx context.Context, m *mesh.Mesh) (Baseline, error) {
	return take(ctx, m, b.named, false)
}

// RereadBroken is Reread for a mesh that may be broken: a proxy or an istiod that does not answer is no error, but
// counts as one whose trust has changed.
func (b Baseline) RereadBroken(ctx context.Context, m *mesh.Mesh) (Baseline, error) {
	return take(ctx, m, b.named, true)
}

func take(ctx context.Context, m *mesh.Mesh, named []Named, broken bool) (Baseline, error) {
	b := Baseline{facts: map[Fact]string{}, objects: map[Fact]*unstructured.Unstructured{}, named: named}
	ctx, cancel := wait.TimeoutCause(ctx, baselineWithin, "not done")
	defer cancel()
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		r := reader{member: member, mesh: m, broken: broken, record: func(f Fact, is string, o *unstructured.Unstructured) {
			mu.Lock()
			defer mu.Unlock()
			f.Cluster = member.Name()
			b.facts[f] = is
			if o != nil {
				b.objects[f] = o
			}
		}}
		for _, read := range []func(context.Context) error{
			r.readProxies, r.readIstiod, r.readGateway, r.readObjects, r.readFaults, r.readDefinitions,
			func(ctx context.Context) error { return r.readNamed(ctx, named) },
		} {
			group.Go(func() error {
				if err := read(ctx); err != nil {
					return fmt.Errorf("taking the baseline of %s: %w", member.Name(), err)
				}
				return nil
			})
		}
	}
	return b, group.Wait()
}

// reader reads the facts of one cluster.
type reader struct {
	member *mesh.Member
	mesh   *mesh.Mesh
	broken bool
	// record takes a fact of the cluster, with the object that it is about, if any.
	record func(f Fact, is string, o *unstructured.Unstructured)
}

// readProxies records for each app what its proxies trust and who signed their certificates.
func (r *reader) readProxies(ctx context.Context) error {
	if !r.member.Spec.InMesh() { // the gateway in front of an external istiod is in no mesh
		return r.readFront(ctx)
	}
	pods, err := proxyPods(ctx, r.member)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[Fact][]string{}
	group, reading := errgroup.WithContext(ctx) // it ends with Wait
	group.SetLimit(proxiesAtOnce)
	for _, p := range pods {
		if !mesh.Ready(p.Pod) {
			continue
		}
		group.Go(func() error {
			text, err := r.trustOf(reading, p)
			if err != nil && !r.broken {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			f := Fact{Topic: ProxyTrust, Namespace: p.Namespace, Name: p.Labels["app"]}
			seen[f] = append(seen[f], text)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for f, texts := range seen {
		r.record(f, eachOnce(texts), nil)
	}
	return nil
}

// readFront records of which version the gateway in front of an external istiod is, where that can change.
func (r *reader) readFront(ctx context.Context) error {
	if !r.mesh.Versioned() || !r.member.Spec.External() {
		return nil
	}
	list, err := r.member.Kube.CoreV1().Pods(mesh.IngressNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + mesh.Ingress})
	if err != nil {
		return err
	}
	var seen []string
	for i := range list.Items {
		if p := &list.Items[i]; mesh.Ready(p) {
			seen = append(seen, "proxy "+proxyVersion(p))
		}
	}
	if len(seen) > 0 {
		r.record(Fact{Topic: ProxyTrust, Namespace: mesh.IngressNamespace, Name: mesh.Ingress}, eachOnce(seen), nil)
	}
	return nil
}

// eachOnce joins texts, sorted, without those that are there already.
func eachOnce(texts []string) string {
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), "; ")
}

func (r *reader) trustOf(ctx context.Context, p podOf) (string, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	proxy, err := readProxy(ctx, p)
	if err != nil {
		return notRead, err
	}
	text := "roots " + pki.Labels(proxy.Roots) + ", signed by " + pki.Signer(proxy.Chain)
	if id := identity(proxy.Chain[0]); !strings.HasPrefix(id, "spiffe://cluster.local/") { // Istio's own trust domain goes without saying
		text += ", as " + id
	}
	return text + injected(p.Pod) + r.release(p.Pod), nil
}

// release says of which version and revision a proxy is, in a mesh where that can change.
func (r *reader) release(p *corev1.Pod) string {
	if !r.mesh.Versioned() {
		return ""
	}
	return fmt.Sprintf(", proxy %s of revision %s", proxyVersion(p), p.Annotations[mesh.RevisionLabel])
}

// readDefinitions records which definitions of Istio's kinds the cluster has, in a mesh where that can change.
func (r *reader) readDefinitions(ctx context.Context) error {
	if !r.mesh.Versioned() {
		return nil
	}
	is, err := r.member.Definitions(ctx)
	if err == nil {
		r.record(Fact{Topic: Definitions}, is, nil)
	}
	return err
}

// injected stands for the settings of the mesh configuration that a pod got when it was made.
func injected(p *corev1.Pod) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, e := range c.Env {
			if c.Name == ProxyContainer && e.Name == "PROXY_CONFIG" {
				return ", injected with " + digest(e.Value)
			}
		}
	}
	return ""
}

// readIstiod records what an istiod signs with, whatever its Secrets say: istiod leaves its root in every namespace, and
// its own certificate comes from its CA.
func (r *reader) readIstiod(ctx context.Context) error {
	root, err := r.member.Kube.CoreV1().ConfigMaps(mesh.AppNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
	switch {
	case err == nil:
		r.record(Fact{Topic: IstiodRoot}, "root "+digest(root.Data[pki.RootCertFile]), nil)
	case !apierrors.IsNotFound(err):
		return err
	}
	if !r.member.Spec.HasIstiod() {
		return nil
	}
	pods, err := r.member.Kube.CoreV1().Pods(mesh.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + mesh.Istiod})
	if err != nil {
		return err
	}
	var signers []string
	for i := range pods.Items {
		p := &pods.Items[i]
		if !mesh.Ready(p) {
			continue
		}
		chain, err := r.istiodsChain(ctx, p)
		switch {
		case err == nil:
			signers = append(signers, "signed by "+pki.Signer(chain))
		case !r.broken:
			return fmt.Errorf("reading the certificate of %s: %w", p.Name, err)
		default:
			signers = append(signers, notRead)
		}
	}
	if len(signers) > 0 {
		r.record(Fact{Topic: IstiodCertificate}, eachOnce(signers), nil)
	}
	return nil
}

func (r *reader) istiodsChain(ctx context.Context, p *corev1.Pod) ([]*x509.Certificate, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	addr, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return nil, err
	}
	conn, err := r.member.Dial(ctx, netip.AddrPortFrom(addr, IstiodPort))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // it was only read
	return PeerChain(ctx, conn)
}

// bound keeps one proxy that hangs from using up the time of all others, in a mesh where that is to be expected.
func (r *reader) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.broken {
		return wait.Timeout(ctx, proxyWithin)
	}
	return context.WithCancel(ctx)
}

func (r *reader) readGateway(ctx context.Context) error {
	if !r.mesh.HasGateway(r.member.Spec) {
		return nil
	}
	address := "none"
	if a, err := r.member.GatewayAddress(ctx); err == nil {
		address = a.String()
	} else if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.record(Fact{Topic: GatewayAddress}, address, nil)
	return nil
}

func (r *reader) readFaults(ctx context.Context) error {
	faulty, ok := r.member.Cluster.(Faulty)
	if !ok {
		return nil
	}
	faults, err := faulty.Faults(ctx)
	r.record(Fact{Topic: UnderlayFaults}, words.And(faults), nil)
	return err
}
