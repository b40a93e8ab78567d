package observe

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// Baseline is what a mesh is like, as far as scenarios can leave it changed, with the objects that a repair puts
// back. It knows Secrets: its JSON belongs into a file that only its owner reads.
type Baseline struct {
	facts   map[fact]string
	objects map[fact]*unstructured.Unstructured // of the facts that are objects
	named   []Named
}

// fact is one thing that can change.
type fact struct{ cluster, what string }

// Beginnings of facts.
const (
	trustPrefix = "trust in use: " // a restart puts it right once the Secrets are right
	inNamespace = " in namespace "
)

// Named is an object that a baseline is to know besides those that every baseline knows.
type Named struct {
	Cluster   string `json:"cluster"`
	Kind      string `json:"kind"` // as people write it
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Faulty is offered by clusters that know which faults of the underlay are in force.
type Faulty interface {
	// Faults names them, sorted; none in a healthy cluster.
	Faults(ctx context.Context) ([]string, error)
}

// baselineWithin bounds what takes less than a second where all clusters answer.
const baselineWithin = 30 * time.Second

// IstiodPort is where istiod serves proxies, with a certificate of its own CA.
const IstiodPort = 15012

// proxyWithin bounds what is read of one proxy, or of istiod, in a mesh that may be broken.
const proxyWithin = 5 * time.Second

// notRead stands for the trust of what does not answer.
const notRead = "not to be read"

// TakeBaseline reads what the mesh is like now: roots and issuers in use by every proxy and by istiod, Secrets,
// labels, gateways, Deployments, Istio's own objects and settings, roles, admission, faults of the underlay, and
// the objects that are named.
func TakeBaseline(ctx context.Context, m *mesh.Mesh, named ...Named) (Baseline, error) {
	return take(ctx, m, named, false)
}

// Again reads what b knows anew.
func (b Baseline) Again(ctx context.Context, m *mesh.Mesh) (Baseline, error) {
	return take(ctx, m, b.named, false)
}

// AgainBroken is Again for a mesh that may be broken: a proxy or an istiod that does not answer is one whose trust
// is not what it was.
func (b Baseline) AgainBroken(ctx context.Context, m *mesh.Mesh) (Baseline, error) {
	return take(ctx, m, b.named, true)
}

func take(ctx context.Context, m *mesh.Mesh, named []Named, broken bool) (Baseline, error) {
	b := Baseline{facts: map[fact]string{}, objects: map[fact]*unstructured.Unstructured{}, named: named}
	ctx, cancel := context.WithTimeoutCause(ctx, baselineWithin, fmt.Errorf("not done within %s", baselineWithin))
	defer cancel()
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		r := reader{member: member, mesh: m, broken: broken, know: func(what, is string, o *unstructured.Unstructured) {
			mu.Lock()
			defer mu.Unlock()
			f := fact{member.Name(), what}
			b.facts[f] = is
			if o != nil {
				b.objects[f] = o
			}
		}}
		for _, read := range []func(context.Context) error{
			r.readProxies, r.readIstiod, r.readGateway, r.readObjects, r.readFaults,
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

// String says how much was written down.
func (b Baseline) String() string {
	trust, clusters := 0, map[string]bool{}
	for f := range b.facts {
		clusters[f.cluster] = true
		if strings.HasPrefix(f.what, trustPrefix) {
			trust++
		}
	}
	return fmt.Sprintf("%d facts of %s, %d of them about the certificates in use", len(b.facts), plural(len(clusters), "cluster"), trust)
}

// Difference is one thing that is not what it was.
type Difference struct {
	Cluster, What string
	Was, Is       string // empty: it was not there
	// Before and Now are the object, if it is one and was, or is, there. They are not to be changed.
	Before, Now *unstructured.Unstructured
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: was %s, is %s", d.Cluster, d.What, orNothing(d.Was), orNothing(d.Is))
}

// Object says whether it is an object that is other than it was. A Deployment whose pods alone are other is none.
func (d Difference) Object() bool {
	return (d.Before == nil) != (d.Now == nil) || d.Before != nil && content(d.Before) != content(d.Now)
}

// About says whether it is about the object of that kind, name and namespace.
func (d Difference) About(kind, namespace, name string) bool {
	return d.What == named(kind, namespace, name)
}

// Trust says whether it is about the certificates that are in use.
func (d Difference) Trust() bool { return strings.HasPrefix(d.What, trustPrefix) }

// Proxies returns the app whose proxies use other certificates; false if it is not about proxies.
func (d Difference) Proxies() (app, namespace string, ok bool) {
	if !d.Trust() {
		return "", "", false
	}
	return strings.Cut(strings.TrimPrefix(d.What, trustPrefix), inNamespace)
}

// Differences tells what is different now, sorted; nothing if the mesh is as it was.
func (b Baseline) Differences(now Baseline) []Difference {
	var all []Difference
	add := func(f fact) {
		if b.facts[f] != now.facts[f] {
			all = append(all, Difference{f.cluster, f.what, b.facts[f], now.facts[f], b.objects[f], now.objects[f]})
		}
	}
	for f := range b.facts {
		add(f)
	}
	for f := range now.facts {
		if _, ok := b.facts[f]; !ok {
			add(f)
		}
	}
	slices.SortFunc(all, func(a, b Difference) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.What, b.What))
	})
	return all
}

// Diff tells the same in words.
func (b Baseline) Diff(now Baseline) []string {
	var all []string
	for _, d := range b.Differences(now) {
		all = append(all, d.String())
	}
	return all
}

// Has says whether an object was there.
func (b Baseline) Has(cluster, kind, namespace, name string) bool {
	_, ok := b.objects[fact{cluster, named(kind, namespace, name)}]
	return ok
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// baselineJSON is the file format.
type baselineJSON struct {
	Facts []factJSON `json:"facts"`
	Named []Named    `json:"named,omitempty"`
}

type factJSON struct {
	Cluster string                     `json:"cluster"`
	What    string                     `json:"what"`
	Is      string                     `json:"is"`
	Object  *unstructured.Unstructured `json:"object,omitempty"`
}

// MarshalJSON writes the baseline.
func (b Baseline) MarshalJSON() ([]byte, error) {
	out := baselineJSON{Facts: make([]factJSON, 0, len(b.facts)), Named: b.named}
	for f, is := range b.facts {
		out.Facts = append(out.Facts, factJSON{f.cluster, f.what, is, b.objects[f]})
	}
	slices.SortFunc(out.Facts, func(a, b factJSON) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.What, b.What))
	})
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (b *Baseline) UnmarshalJSON(data []byte) error {
	var in baselineJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("reading a baseline: %w", err)
	}
	*b = Baseline{facts: map[fact]string{}, objects: map[fact]*unstructured.Unstructured{}, named: in.Named}
	for _, one := range in.Facts {
		f := fact{one.Cluster, one.What}
		b.facts[f] = one.Is
		if one.Object != nil {
			b.objects[f] = one.Object
		}
	}
	return nil
}

type reader struct {
	member *mesh.Member
	mesh   *mesh.Mesh
	broken bool
	know   func(what, is string, o *unstructured.Unstructured)
}

func (r *reader) readProxies(ctx context.Context) error {
	if !r.member.Spec.InMesh() { // the gateway in front of an external istiod is in no mesh
		return nil
	}
	pods, err := proxyPods(ctx, r.member)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[string][]string{}
	group, reading := errgroup.WithContext(ctx) // it ends with Wait
	group.SetLimit(16)
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
			of := trustPrefix + p.Labels["app"] + inNamespace + p.Namespace
			seen[of] = append(seen[of], text)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for of, texts := range seen {
		slices.Sort(texts)
		r.know(of, strings.Join(slices.Compact(texts), "; "), nil)
	}
	return nil
}

func (r *reader) trustOf(ctx context.Context, p podOf) (string, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	proxy, err := readProxy(ctx, p)
	if err != nil {
		return notRead, err
	}
	text := "roots " + pki.Labels(proxy.Roots) + ", signed by " + pki.Signer(proxy.Chain)
	if id := identity(proxy.Chain[0]); !strings.HasPrefix(id, "spiffe://cluster.local/") { // Istio's own is not worth words
		text += ", as " + id
	}
	return text + injected(p.Pod), nil
}

// injected tells the settings that a pod was given when it was made, as far as the mesh's configuration sets them.
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

// readIstiod reads what an istiod signs with, whatever its Secrets say: it leaves its root in every namespace, and
// its own certificate comes from its CA.
func (r *reader) readIstiod(ctx context.Context) error {
	root, err := r.member.Kube.CoreV1().ConfigMaps(mesh.AppNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
	switch {
	case err == nil:
		r.know(trustPrefix+"istiod", "root "+digest(root.Data[pki.RootCertFile]), nil)
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
	var all []string
	for i := range pods.Items {
		p := &pods.Items[i]
		if !mesh.Ready(p) {
			continue
		}
		chain, err := r.istiodsChain(ctx, p)
		switch {
		case err == nil:
			all = append(all, "signed by "+pki.Signer(chain))
		case !r.broken:
			return fmt.Errorf("reading the certificate of %s: %w", p.Name, err)
		default:
			all = append(all, notRead)
		}
	}
	if slices.Sort(all); len(all) > 0 {
		r.know(trustPrefix+"istiod's own certificate", strings.Join(slices.Compact(all), "; "), nil)
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

// PeerChain makes a TLS handshake and returns what the other side shows, whoever has signed it.
func PeerChain(ctx context.Context, conn net.Conn) ([]*x509.Certificate, error) {
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // whom to trust is the question
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured.ConnectionState().PeerCertificates, nil
}

// bound keeps one proxy that hangs from taking the time of all others, where that is to be expected.
func (r *reader) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.broken {
		return context.WithTimeout(ctx, proxyWithin)
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
	r.know("address of the east-west gateway", address, nil)
	return nil
}

func (r *reader) readFaults(ctx context.Context) error {
	faulty, ok := r.member.Cluster.(Faulty)
	if !ok {
		return nil
	}
	faults, err := faulty.Faults(ctx)
	r.know("faults of the underlay", join(faults), nil)
	return err
}

// source is a list of objects that belong to a baseline.
type source struct {
	schema.GroupVersionResource
	namespace string // all if empty
	options   metav1.ListOptions
	keep      func(*unstructured.Unstructured) bool // all if nil
}

// sources are the same in every cluster; Istio's own kinds come on top.
func sources() []source {
	of := func(group, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	}
	const admission, rbac = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	return []source{
		{GroupVersionResource: of("", "secrets"), namespace: mesh.SystemNamespace, keep: matters},
		{GroupVersionResource: of("", "secrets"), options: metav1.ListOptions{ // what was put into a wrong namespace
			LabelSelector: cluster.ManagedByLabel + "=" + cluster.ManagedBy, FieldSelector: "metadata.namespace!=" + mesh.SystemNamespace,
		}},
		{GroupVersionResource: of("", "configmaps"), namespace: mesh.SystemNamespace, keep: isSettings},
		{GroupVersionResource: of("", "namespaces")},
		{GroupVersionResource: of("", "services"), keep: notKubes},
		{GroupVersionResource: of("networking.k8s.io", "networkpolicies"), keep: notKubes},
		{GroupVersionResource: of("apps", "deployments"), namespace: mesh.SystemNamespace},
		{GroupVersionResource: of("apps", "deployments"), namespace: mesh.AppNamespace},
		{GroupVersionResource: of(admission, "validatingadmissionpolicies")},
		{GroupVersionResource: of(admission, "validatingadmissionpolicybindings")},
		{GroupVersionResource: of(admission, "validatingwebhookconfigurations"), keep: isIstios},
		{GroupVersionResource: of(admission, "mutatingwebhookconfigurations"), keep: isIstios},
		{GroupVersionResource: of(rbac, "clusterroles"), keep: isIstios},
		{GroupVersionResource: of(rbac, "clusterrolebindings"), keep: isIstios},
	}
}

// The objects of Istio's namespace that hold istiod's settings.
const (
	MeshSettings     = "istio"
	InjectorSettings = "istio-sidecar-injector"
	ConfigSecret     = "istio-kubeconfig" // an istiod that finds it reads another cluster than its own
)

// matters says whether trust or discovery hangs on a Secret of Istio's namespace: istiod's CA, and the Secrets by
// which it reads clusters.
func matters(o *unstructured.Unstructured) bool {
	return slices.Contains([]string{mesh.CACerts, SelfSignedSecret, ConfigSecret}, o.GetName()) || o.GetLabels()["istio/multiCluster"] == "true"
}

func notKubes(o *unstructured.Unstructured) bool { return o.GetNamespace() != metav1.NamespaceSystem }

func isSettings(o *unstructured.Unstructured) bool {
	return o.GetName() == MeshSettings || o.GetName() == InjectorSettings
}

func isIstios(o *unstructured.Unstructured) bool { return strings.Contains(o.GetName(), "istio") }

func (r *reader) readObjects(ctx context.Context) error {
	resources, err := discovery.ServerPreferredResources(r.member.Kube.Discovery())
	if err != nil && len(resources) == 0 {
		return err
	}
	all := sources()
	for _, list := range resources {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || !strings.HasSuffix(gv.Group, IstioGroup) {
			continue
		}
		for _, resource := range list.APIResources {
			all = append(all, source{GroupVersionResource: gv.WithResource(resource.Name)})
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, from := range all {
		group.Go(func() error {
			list, err := r.member.Dynamic.Resource(from.GroupVersionResource).Namespace(from.namespace).List(ctx, from.options)
			if err != nil {
				return fmt.Errorf("listing %s: %w", from.Resource, err)
			}
			for i := range list.Items {
				if o := &list.Items[i]; r.member.Covers(o) && (from.keep == nil || from.keep(o)) {
					r.object(o)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// IstioGroup ends the names of Istio's API groups.
const IstioGroup = ".istio.io"

func (r *reader) readNamed(ctx context.Context, all []Named) error {
	for _, n := range all {
		if n.Cluster != r.member.Name() {
			continue
		}
		client, err := Resource(r.member, n.Kind, n.Namespace)
		if meta.IsNoMatchError(err) { // a kind that is not there yet, or not any more
			continue
		}
		if err != nil {
			return err
		}
		switch o, err := client.Get(ctx, n.Name, metav1.GetOptions{}); {
		case err == nil:
			r.object(o)
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("reading %s %s: %w", n.Kind, n.Name, err)
		}
	}
	return nil
}

// object makes a fact of an object that stands for itself.
func (r *reader) object(o *unstructured.Unstructured) {
	if len(o.GetOwnerReferences()) > 0 || o.GetKind() == "Pod" {
		return
	}
	is := content(o)
	switch o.GetKind() {
	case "Namespace":
		is = pairs(o.GetLabels())
		if others := pairs(annotations(o)); others != "" {
			is += ", annotated " + others
		}
	case "Deployment":
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err == nil {
			seen, through := Rollout(&d)
			if through {
				seen = plural(int(d.Status.Replicas), "pod")
			}
			is = seen + ", as " + is
		}
	}
	for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	r.know(named(o.GetKind(), o.GetNamespace(), o.GetName()), is, o)
}

// named is what the fact of an object is called.
func named(kind, namespace, name string) string {
	switch {
	case kind == "Namespace":
		return "labels of namespace " + name
	case namespace == "", namespace == mesh.SystemNamespace && (kind == "Secret" || kind == "ConfigMap"):
		return kind + " " + name
	}
	return kind + " " + name + inNamespace + namespace
}

// content tells one state of an object from another: all of it but what the cluster writes into it by itself.
func content(o *unstructured.Unstructured) string {
	fields := map[string]any{}
	for name, value := range o.Object {
		switch name {
		case "apiVersion", "kind", "metadata", "status":
		default:
			fields[name] = value
		}
	}
	switch o.GetKind() {
	case "Deployment":
		fields = runtime.DeepCopyJSON(fields)
		template := []string{"spec", "template", "metadata", "annotations"}
		annotations, _, _ := unstructured.NestedStringMap(fields, template...)
		for key := range annotations {
			if strings.HasSuffix(key, "/restartedAt") {
				unstructured.RemoveNestedField(fields, append(template, key)...)
			}
		}
		if left, _, _ := unstructured.NestedStringMap(fields, template...); len(left) == 0 {
			unstructured.RemoveNestedField(fields, template...)
		}
		unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration": // istiod writes into them what it signs with, and that it is there
		fields = runtime.DeepCopyJSON(fields)
		hooks, _, _ := unstructured.NestedSlice(fields, "webhooks")
		for _, hook := range hooks {
			if hook, ok := hook.(map[string]any); ok {
				unstructured.RemoveNestedField(hook, "clientConfig", "caBundle")
				if o.GetKind() == "ValidatingWebhookConfiguration" {
					delete(hook, "failurePolicy")
				}
			}
		}
		fields["webhooks"] = hooks
	}
	return digest(pairs(o.GetLabels()), pairs(annotations(o)), fields)
}

// annotations are those that people write, not Kubernetes itself.
func annotations(o *unstructured.Unstructured) map[string]string {
	all := o.GetAnnotations()
	maps.DeleteFunc(all, func(name, _ string) bool {
		domain, _, _ := strings.Cut(name, "/")
		return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
	})
	return all
}

// digest is a short name for a value: equal values have equal names.
func digest(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		data = fmt.Append(nil, values...) // what JSON cannot say, which none of ours is
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:4])
}

func pairs(of map[string]string) string {
	texts := make([]string, 0, len(of))
	for _, k := range slices.Sorted(maps.Keys(of)) {
		texts = append(texts, k+"="+of[k])
	}
	return strings.Join(texts, " ")
}
