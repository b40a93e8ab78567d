package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// stateWithin bounds ReadState.
const stateWithin = 5 * time.Second

// ReadState reads what an upgrade of Istio changes: control planes, proxies and who serves them, tags, webhooks, and certificates in
// use. It takes a few requests to each cluster, all at once. What cannot be read within 5 s is said in the state, and is no error.
func ReadState(ctx context.Context, m *mesh.Mesh) report.State {
	ctx, cancel := wait.Timeout(ctx, stateWithin)
	defer cancel()
	s := report.State{Clusters: make([]report.ClusterState, len(m.Members))}
	var all sync.WaitGroup
	for i, member := range m.Members {
		all.Go(func() {
			r := &stateReader{member: member, gateway: m.HasGateway(member.Spec), state: report.ClusterState{Cluster: member.Name()}}
			r.read(ctx)
			s.Clusters[i] = r.state
		})
	}
	all.Wait()
	return s
}

// stateReader reads one cluster.
type stateReader struct {
	member  *mesh.Member
	gateway bool
	mu      sync.Mutex
	state   report.ClusterState
}

// unread writes down what could not be read.
func (r *stateReader) unread(err error, what ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Unread == nil {
		r.state.Unread = map[string]string{}
	}
	for _, w := range what {
		r.state.Unread[w] = words.Short(err.Error(), 300)
	}
}

// read reads everything at once. The names of what was not read are those of the rows in a report.Timetable.
func (r *stateReader) read(ctx context.Context) {
	var parts sync.WaitGroup
	part := func(read func(context.Context) error, what ...string) {
		parts.Go(func() {
			if err := read(ctx); err != nil {
				r.unread(err, what...)
			}
		})
	}
	part(r.planes, "control planes")
	if r.member.Spec.InMesh() {
		part(r.proxies, "proxies", "gateway")
		part(r.certificates, "roots", "issuers")
		part(r.tags, "tags")
		part(r.injection, "new pods")
	}
	if r.member.Spec.External() {
		part(r.front, "gateway")
	}
	part(r.validation, "validation")
	parts.Wait()
}

// planes and the others write fields of their own, one each: only the map of what was not read needs the lock.
func (r *stateReader) planes(ctx context.Context) error {
	pods, err := r.member.Pods(ctx, mesh.Istiod)
	if err != nil {
		return err
	}
	for _, plane := range mesh.ControlPlanesOf(pods) {
		r.state.ControlPlanes = append(r.state.ControlPlanes, report.ControlPlane(plane))
	}
	return nil
}

func (r *stateReader) proxies(ctx context.Context) error {
	pods, err := proxyPods(ctx, r.member)
	if err != nil {
		return err
	}
	served := map[string]Served{}
	primary := r.member.Primary()
	istiods, err := primary.Pods(ctx, mesh.Istiod)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(istiods, mesh.Ready) { // otherwise nobody serves
		if served, err = Serving(ctx, primary); err != nil {
			return err
		}
	}
	r.state.Proxies = countProxies(pods, served, func(*corev1.Pod) bool { return true })
	if r.gateway {
		r.state.Gateway = countProxies(pods, served, func(p *corev1.Pod) bool { return p.Labels["app"] == mesh.Gateway })
	}
	return nil
}

// front is the gateway in front of an external istiod.
func (r *stateReader) front(ctx context.Context) error {
	pods, err := r.member.Pods(ctx, mesh.Ingress)
	if err != nil {
		return err
	}
	served, err := Serving(ctx, r.member)
	if err != nil {
		return err
	}
	var of []podOf
	for _, p := range pods {
		of = append(of, podOf{r.member, p})
	}
	r.state.Gateway = countProxies(of, served, func(*corev1.Pod) bool { return true })
	return nil
}

// countProxies counts the proxies of pods that stay, by their version and by the revision that serves them.
func countProxies(pods []podOf, served map[string]Served, of func(*corev1.Pod) bool) (all []report.ProxyCount) {
	for _, p := range pods {
		if p.DeletionTimestamp != nil || !of(p.Pod) {
			continue
		}
		one := report.ProxyCount{Version: proxyVersion(p.Pod), Revision: served[p.Name+"."+p.Namespace].Revision}
		i := slices.IndexFunc(all, func(c report.ProxyCount) bool { return c.Version == one.Version && c.Revision == one.Revision })
		if i < 0 {
			i, all = len(all), append(all, one)
		}
		all[i].Count++
	}
	slices.SortFunc(all, func(a, b report.ProxyCount) int {
		return cmp.Or(strings.Compare(a.Version, b.Version), strings.Compare(a.Revision, b.Revision))
	})
	return all
}

func proxyVersion(p *corev1.Pod) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == ProxyContainer {
			return mesh.ImageTag(c.Image)
		}
	}
	return ""
}

// certificates reads the certificates that the Ready proxies use. One that does not answer is missing in the counts.
func (r *stateReader) certificates(ctx context.Context) error {
	pods, err := proxyPods(ctx, r.member)
	if err != nil {
		return err
	}
	proxies := make([]*Proxy, len(pods))
	var all sync.WaitGroup
	for i, p := range pods {
		if !mesh.Ready(p.Pod) {
			continue
		}
		all.Go(func() {
			proxy, err := readProxy(ctx, p)
			if err != nil {
				r.unread(err, "the certificates of "+p.Name)
				return
			}
			proxies[i] = &proxy
		})
	}
	all.Wait()
	proxies = slices.DeleteFunc(proxies, func(p *Proxy) bool { return p == nil })
	if len(proxies) == 0 && len(pods) > 0 {
		return errors.New("no proxy is Ready and has told its certificates")
	}
	r.state.Roots = countInUse(proxies, rootsText)
	r.state.Issuers = countInUse(proxies, issuerText)
	return nil
}

func countInUse(proxies []*Proxy, text func(*Proxy) string) (all []report.InUse) {
	for _, p := range proxies {
		certificates := text(p)
		i := slices.IndexFunc(all, func(u report.InUse) bool { return u.Certificates == certificates })
		if i < 0 {
			i, all = len(all), append(all, report.InUse{Certificates: certificates})
		}
		all[i].Proxies++
	}
	slices.SortFunc(all, func(a, b report.InUse) int {
		return cmp.Or(cmp.Compare(b.Proxies, a.Proxies), strings.Compare(a.Certificates, b.Certificates))
	})
	return all
}

func rootsText(p *Proxy) string {
	var all []string
	for _, c := range p.Roots { // they are sorted
		all = append(all, pki.ShortFingerprint(c))
	}
	return strings.Join(all, " + ")
}

// issuerText names the certificate that signed the proxy's own: one that it shows, or a root.
func issuerText(p *Proxy) string {
	if len(p.Chain) == 0 {
		return "nobody"
	}
	for _, ca := range slices.Concat(p.Chain[1:], p.Roots) {
		if p.Chain[0].CheckSignatureFrom(ca) == nil {
			return pki.ShortFingerprint(ca)
		}
	}
	return p.Chain[0].Issuer.String()
}

func (r *stateReader) tags(ctx context.Context) (err error) {
	r.state.Tags, err = r.member.Tags(ctx)
	return err
}

// injection is what a new pod of the apps' namespace would get.
func (r *stateReader) injection(ctx context.Context) error {
	got, err := r.member.Inject(ctx, mesh.AppNamespace, nil)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		r.state.Injection = Refused + ": " + words.Short(err.Error(), 200)
	default:
		r.state.Injection = cmp.Or(got.Revision, Nobody)
	}
	return nil
}

func (r *stateReader) validation(ctx context.Context) error {
	list, err := r.member.Kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing validating webhooks of %s: %w", r.member.Name(), err)
	}
	for i := range list.Items {
		if !r.member.Covers(&list.Items[i]) {
			continue
		}
		w, ok := validatorOf(&list.Items[i])
		if !ok {
			continue
		}
		if strings.Contains(w.Service, "://") { // of an istiod in another cluster: only its API server knows whether it answers
			r.state.Validation = append(r.state.Validation, w)
			continue
		}
		_, err := r.member.Kube.CoreV1().Services(mesh.SystemNamespace).Get(ctx, w.Service, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading Service %s in %s: %w", w.Service, r.member.Name(), err)
		}
		w.Gone = err != nil
		r.state.Validation = append(r.state.Validation, w)
	}
	return nil
}

// validatorOf returns a configuration that leads to a Service of Istio's namespace, or to the URL of an istiod elsewhere.
func validatorOf(c *admissionv1.ValidatingWebhookConfiguration) (w report.Webhook, ok bool) {
	w = report.Webhook{Name: c.Name, Labelled: true}
	for _, hook := range c.Webhooks {
		switch s, url := hook.ClientConfig.Service, hook.ClientConfig.URL; {
		case s != nil && s.Namespace == mesh.SystemNamespace:
			w.Service, ok = s.Name, true
		case url != nil && strings.Contains(c.Name, "istio"):
			w.Service, ok = *url, true
		default:
			continue
		}
		w.Labelled = w.Labelled && hook.ObjectSelector != nil && slices.ContainsFunc(hook.ObjectSelector.MatchExpressions,
			func(e metav1.LabelSelectorRequirement) bool {
				return e.Key == mesh.RevisionLabel && e.Operator == metav1.LabelSelectorOpIn
			})
	}
	return w, ok
}
