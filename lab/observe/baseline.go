package observe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// Baseline is what a mesh is like, as far as scenarios can leave it changed. It lives in memory only,
// since it knows the Secrets that a repair has to put back.
type Baseline struct {
	facts   map[fact]string
	secrets map[string]map[string]*corev1.Secret // by cluster and name
}

// fact is one thing that can change.
type fact struct{ cluster, what string }

func (f fact) trust() bool { return strings.HasPrefix(f.what, trustPrefix) }

// Beginnings of facts.
const (
	trustPrefix  = "trust in use: " // a restart puts it right once the Secrets are right
	secretPrefix = "Secret "
)

// Faulty is offered by clusters that know which faults of the underlay are in force.
type Faulty interface {
	// Faults names them, sorted; none in a healthy cluster.
	Faults(ctx context.Context) ([]string, error)
}

// baselineWithin bounds what takes less than a second where all clusters answer.
const baselineWithin = 30 * time.Second

// TakeBaseline reads what the mesh is like now: roots and issuers in use by every proxy, the CA's
// Secrets, remote secrets, labels, gateways, Deployments, Istio's own objects, faults of the underlay.
func TakeBaseline(ctx context.Context, m *mesh.Mesh) (Baseline, error) {
	b := Baseline{facts: map[fact]string{}, secrets: map[string]map[string]*corev1.Secret{}}
	ctx, cancel := context.WithTimeoutCause(ctx, baselineWithin, fmt.Errorf("not done within %s", baselineWithin))
	defer cancel()
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		r := reader{member: member, mesh: m, facts: map[string]string{}, secrets: map[string]*corev1.Secret{}}
		group.Go(func() error {
			for _, read := range []func(context.Context) error{r.readTrust, r.readSecrets, r.readNamespaces, r.readGateway, r.readDeployments, r.readObjects, r.readFaults} {
				if err := read(ctx); err != nil {
					return fmt.Errorf("taking the baseline of %s: %w", member.Name(), err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for what, is := range r.facts {
				b.facts[fact{member.Name(), what}] = is
			}
			b.secrets[member.Name()] = r.secrets
			return nil
		})
	}
	return b, group.Wait()
}

// String says how much was written down.
func (b Baseline) String() string {
	trust := 0
	for f := range b.facts {
		if f.trust() {
			trust++
		}
	}
	return fmt.Sprintf("%d facts of %s, %d of them about the certificates in use", len(b.facts), plural(len(b.secrets), "cluster"), trust)
}

// Diff tells what is different now, in words, sorted; nothing if the mesh is as it was.
func (b Baseline) Diff(now Baseline) []string {
	var all []string
	for _, f := range b.different(now) {
		all = append(all, fmt.Sprintf("%s: %s: was %s, is %s", f.cluster, f.what, orNothing(b.facts[f]), orNothing(now.facts[f])))
	}
	slices.Sort(all)
	return all
}

func (b Baseline) different(now Baseline) []fact {
	var all []fact
	for f, was := range b.facts {
		if now.facts[f] != was {
			all = append(all, f)
		}
	}
	for f := range now.facts {
		if _, ok := b.facts[f]; !ok {
			all = append(all, f)
		}
	}
	return all
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// Distrusted lists the clusters, sorted, whose proxies or istiod use other certificates now than then, or
// whose istiod may do so because it may have read another CA.
func (b Baseline) Distrusted(now Baseline) []string {
	clusters := map[string]bool{}
	for _, f := range b.different(now) {
		// An istiod that is being restarted may have read what the undo has taken back since.
		if f.trust() || f.what == secretPrefix+mesh.CACerts || f.what == secretPrefix+SelfSignedSecret || f.what == deployment(mesh.SystemNamespace, mesh.Istiod) {
			clusters[f.cluster] = true
		}
	}
	return slices.Sorted(maps.Keys(clusters))
}

// Secrets returns the Secrets of a cluster that matter, by name. They are not to be changed.
func (b Baseline) Secrets(cluster string) map[string]*corev1.Secret { return b.secrets[cluster] }

type reader struct {
	member  *mesh.Member
	mesh    *mesh.Mesh
	facts   map[string]string
	secrets map[string]*corev1.Secret
}

func (r *reader) readTrust(ctx context.Context) error {
	proxies, err := Proxies(ctx, r.mesh, r.member.Name())
	if err != nil {
		return err
	}
	seen := map[string][]string{}
	for _, p := range proxies {
		of := trustPrefix + p.App + " in namespace " + p.Namespace
		seen[of] = append(seen[of], "roots "+names(p.Roots)+", signed by "+signer(p.Chain))
	}
	for of, texts := range seen {
		slices.Sort(texts)
		r.facts[of] = strings.Join(slices.Compact(texts), "; ")
	}
	// Istiod leaves its root here: this is the one that it uses, whatever its Secrets say.
	root, err := r.member.Kube.CoreV1().ConfigMaps(mesh.AppNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r.facts[trustPrefix+"istiod"] = "root " + digest(root.Data[pki.RootCertFile])
	return nil
}

func (r *reader) readSecrets(ctx context.Context) error {
	list, err := r.member.Kube.CoreV1().Secrets(mesh.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		s := &list.Items[i]
		if Matters(s) {
			r.secrets[s.Name] = s
			r.facts[secretPrefix+s.Name] = digest(s.Type, s.Labels, s.Data)
		}
	}
	return nil
}

// Matters says whether trust or discovery hangs on a Secret of Istio's namespace: cacerts, istiod's
// self-signed CA, and the Secrets by which istiod reads other clusters.
func Matters(s *corev1.Secret) bool {
	return s.Name == mesh.CACerts || s.Name == SelfSignedSecret || s.Labels["istio/multiCluster"] == "true"
}

func (r *reader) readNamespaces(ctx context.Context) error {
	list, err := r.member.Kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		r.facts["labels of namespace "+n.Name] = pairs(n.Labels)
	}
	return nil
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
	r.facts["address of the east-west gateway"] = address
	return nil
}

func deployment(namespace, name string) string {
	return "Deployment " + name + " in namespace " + namespace
}

func (r *reader) readDeployments(ctx context.Context) error {
	for _, namespace := range []string{mesh.SystemNamespace, mesh.AppNamespace} {
		list, err := r.member.Kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			d := &list.Items[i]
			seen, through := Rollout(d)
			if through {
				seen = plural(int(d.Status.Replicas), "pod")
			}
			template := d.Spec.Template.DeepCopy()
			for key := range template.Annotations {
				if strings.HasSuffix(key, "/restartedAt") {
					delete(template.Annotations, key)
				}
			}
			if len(template.Annotations) == 0 {
				template.Annotations = nil
			}
			r.facts[deployment(namespace, d.Name)] = seen + ", as " + digest(d.Labels, template)
		}
	}
	return nil
}

// readObjects reads the objects that steer traffic: Istio's own kinds, Services, NetworkPolicies, and
// Istio's settings.
func (r *reader) readObjects(ctx context.Context) error {
	resources, err := discovery.ServerPreferredResources(r.member.Kube.Discovery())
	if err != nil && len(resources) == 0 {
		return err
	}
	kinds := map[schema.GroupVersionResource]string{
		{Version: "v1", Resource: "services"}:                                    "Service",
		{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}: "NetworkPolicy",
	}
	for _, list := range resources {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || !strings.HasSuffix(gv.Group, ".istio.io") {
			continue
		}
		for _, resource := range list.APIResources {
			kinds[gv.WithResource(resource.Name)] = resource.Kind
		}
	}
	var mu sync.Mutex
	group, listing := errgroup.WithContext(ctx) // it ends with Wait
	group.SetLimit(8)
	for gvr, kind := range kinds {
		group.Go(func() error {
			list, err := r.member.Dynamic.Resource(gvr).List(listing, metav1.ListOptions{})
			if err != nil {
				return fmt.Errorf("listing %s: %w", gvr.Resource, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range list.Items {
				if o.GetNamespace() != "kube-system" && len(o.GetOwnerReferences()) == 0 {
					r.facts[kind+" "+o.GetName()+" in namespace "+o.GetNamespace()] = content(o)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, name := range []string{"istio", "istio-sidecar-injector"} {
		cm, err := r.member.Kube.CoreV1().ConfigMaps(mesh.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			r.facts["ConfigMap "+name] = digest(cm.Data)
		} else if !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// content tells one state of an object from another.
func content(o unstructured.Unstructured) string { return digest(o.GetLabels(), o.Object["spec"]) }

func (r *reader) readFaults(ctx context.Context) error {
	faulty, ok := r.member.Cluster.(Faulty)
	if !ok {
		return nil
	}
	faults, err := faulty.Faults(ctx)
	r.facts["faults of the underlay"] = join(faults)
	return err
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
