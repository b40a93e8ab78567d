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

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// source is a list of objects that belong to every baseline.
type source struct {
	schema.GroupVersionResource
	namespace string // all if empty
	options   metav1.ListOptions
	keep      func(*unstructured.Unstructured) bool // all if nil
}

// sources are the same in every cluster. The kinds of Istio's own API are added to them.
func sources() []source {
	of := func(group, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	}
	const admission, rbac = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	return []source{
		{GroupVersionResource: of("", "secrets"), namespace: mesh.SystemNamespace, keep: matters},
		{GroupVersionResource: of("", "secrets"), options: metav1.ListOptions{ // those that were put into a wrong namespace
			LabelSelector: cluster.ManagedByLabel + "=" + cluster.ManagedBy, FieldSelector: "metadata.namespace!=" + mesh.SystemNamespace,
		}},
		{GroupVersionResource: of("", "configmaps"), namespace: mesh.SystemNamespace, keep: isSettings},
		{GroupVersionResource: of("", "namespaces")},
		{GroupVersionResource: of("", "services"), keep: notKubernetes},
		{GroupVersionResource: of("networking.k8s.io", "networkpolicies"), keep: notKubernetes},
		{GroupVersionResource: of("apps", "deployments"), namespace: mesh.SystemNamespace},
		{GroupVersionResource: of("apps", "deployments"), namespace: mesh.AppNamespace},
		{GroupVersionResource: of(admission, "validatingadmissionpolicies")},
		{GroupVersionResource: of(admission, "validatingadmissionpolicybindings")},
		{GroupVersionResource: of(admission, "validatingwebhookconfigurations"), keep: namedIstio},
		{GroupVersionResource: of(admission, "mutatingwebhookconfigurations"), keep: namedIstio},
		{GroupVersionResource: of(rbac, "clusterroles"), keep: namedIstio},
		{GroupVersionResource: of(rbac, "clusterrolebindings"), keep: namedIstio},
		// The rest of an installation of Istio: control planes come and go with it.
		{GroupVersionResource: of("", "serviceaccounts"), namespace: mesh.SystemNamespace, keep: namedIstio},
		{GroupVersionResource: of(rbac, "roles"), namespace: mesh.SystemNamespace, keep: namedIstio},
		{GroupVersionResource: of(rbac, "rolebindings"), namespace: mesh.SystemNamespace, keep: namedIstio},
		{GroupVersionResource: of("discovery.k8s.io", "endpointslices"), namespace: mesh.SystemNamespace, keep: namedIstio},
	}
}

// frontSources are those of the gateway in front of an external istiod, which has a control plane of its own. What has no namespace is
// in sources already.
func frontSources() (all []source) {
	for _, s := range sources() {
		switch s.Resource {
		case "configmaps", "deployments", "serviceaccounts", "roles", "rolebindings":
			if s.namespace == mesh.SystemNamespace {
				s.namespace = mesh.IngressNamespace
				all = append(all, s)
			}
		}
	}
	return all
}

// The objects of Istio's namespace that hold istiod's settings.
const (
	MeshSettings     = "istio"
	InjectorSettings = "istio-sidecar-injector"
	ConfigSecret     = "istio-kubeconfig" // an istiod that has it reads that cluster, not its own
)

// matters reports whether trust or discovery depends on a Secret of Istio's namespace: it holds istiod's CA, or access
// to a cluster that istiod reads.
func matters(o *unstructured.Unstructured) bool {
	return slices.Contains([]string{mesh.CACerts, SelfSignedSecret, ConfigSecret}, o.GetName()) ||
		o.GetLabels()["istio/multiCluster"] == "true"
}

func notKubernetes(o *unstructured.Unstructured) bool {
	return o.GetNamespace() != metav1.NamespaceSystem
}

func isSettings(o *unstructured.Unstructured) bool {
	return o.GetName() == MeshSettings || o.GetName() == InjectorSettings || o.GetLabels()[mesh.RevisionLabel] != ""
}

func namedIstio(o *unstructured.Unstructured) bool { return strings.Contains(o.GetName(), "istio") }

func (r *reader) readObjects(ctx context.Context) error {
	resources, err := discovery.ServerPreferredResources(r.member.Kube.Discovery())
	if err != nil && len(resources) == 0 {
		return err
	}
	all := sources()
	if r.member.Spec.External() {
		all = append(all, frontSources()...)
	}
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
	group.SetLimit(proxiesAtOnce)
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

// IstioGroup is how the names of Istio's API groups end.
const IstioGroup = ".istio.io"

func (r *reader) readNamed(ctx context.Context, all []Named) error {
	for _, n := range all {
		if n.Cluster != r.member.Name() {
			continue
		}
		client, err := Resource(r.member, n.Kind, n.Namespace)
		if meta.IsNoMatchError(err) { // the kind is not defined yet, or no longer
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

// object records an object. What another object owns, and Pods, are left out: their owners make them.
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
				seen = words.Plural(int(d.Status.Replicas), "pod")
			}
			is = seen + ", as " + is
		}
	}
	for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	r.record(ObjectFact("", o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName()), is, o)
}

// content is equal for two states of an object if they differ in nothing but what the cluster itself writes into it.
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
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		// istiod writes its root into both and, once it is Ready, the failure policy of the validating one.
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

// annotations returns those that people write, without those of Kubernetes itself.
func annotations(o *unstructured.Unstructured) map[string]string {
	all := o.GetAnnotations()
	maps.DeleteFunc(all, func(name, _ string) bool {
		domain, _, _ := strings.Cut(name, "/")
		return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
	})
	return all
}

// digest returns a short text that is equal for equal values.
func digest(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		data = fmt.Append(nil, values...) // JSON cannot express the value, which does not happen with ours
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
