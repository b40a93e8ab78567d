package gather

import (
	"context"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// readWebhooks reads the injectors, the revision tags and the validators of Istio, and where their Services lead.
func (r *reader) readWebhooks(ctx context.Context) error {
	admission := r.kube.AdmissionregistrationV1()
	injectors, err := admission.MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: "app=sidecar-injector"})
	if err != nil {
		return err
	}
	validators, err := admission.ValidatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: "app=" + facts.IstiodName})
	if err != nil {
		return err
	}
	for _, c := range injectors.Items {
		w := facts.Webhook{Name: c.Name, Revision: c.Labels[facts.RevisionLabel], Tag: c.Labels[facts.TagLabel]}
		for _, hook := range c.Webhooks { // all have one istiod and one policy
			r.readWebhook(&w, hook.ClientConfig, hook.FailurePolicy)
			r.injectors[c.Name] = append(r.injectors[c.Name], injector{hook.NamespaceSelector, hook.ObjectSelector})
		}
		r.cluster.Webhooks = append(r.cluster.Webhooks, w)
	}
	for _, c := range validators.Items {
		w := facts.Webhook{Name: c.Name, Validates: true, Revision: c.Labels[facts.RevisionLabel]}
		for _, hook := range c.Webhooks {
			r.readWebhook(&w, hook.ClientConfig, hook.FailurePolicy)
			w.Narrow = hook.ObjectSelector != nil && len(hook.ObjectSelector.MatchLabels)+len(hook.ObjectSelector.MatchExpressions) > 0
		}
		r.cluster.Webhooks = append(r.cluster.Webhooks, w)
	}
	return r.followWebhooks(ctx)
}

// readWebhook reads one webhook of an object.
func (r *reader) readWebhook(w *facts.Webhook, client admissionv1.WebhookClientConfig, policy *admissionv1.FailurePolicyType) {
	if len(client.CABundle) > 0 && len(w.Roots) == 0 {
		w.Roots = r.addBundle(client.CABundle)
	}
	if s := client.Service; s != nil && s.Namespace == r.System {
		w.Service = s.Name
	}
	w.Refuses = w.Refuses || policy == nil || *policy == admissionv1.Fail // Fail is the default
}

// followWebhooks finds out whether the Services of webhooks lead to anybody. The EndpointSlices say it of an istiod in the cluster
// and of one elsewhere, for which Istio's chart writes one (remote-istiod-endpointslices.yaml).
func (r *reader) followWebhooks(ctx context.Context) error {
	services, err := r.kube.CoreV1().Services(r.System).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	slicesOf, err := r.kube.DiscoveryV1().EndpointSlices(r.System).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	ready, leads := map[string]bool{}, map[string][]string{}
	for _, s := range slicesOf.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				name := s.Labels["kubernetes.io/service-name"]
				ready[name], leads[name] = true, append(leads[name], e.Addresses...)
			}
		}
	}
	for i := range r.cluster.Webhooks {
		w := &r.cluster.Webhooks[i]
		at := slices.IndexFunc(services.Items, func(s corev1.Service) bool { return s.Name == w.Service })
		switch {
		case w.Service == "": // somewhere that doctor does not look at
		case at < 0:
			w.Nowhere = "it does not exist"
		case !ready[w.Service] && services.Items[at].Spec.Type != corev1.ServiceTypeExternalName:
			w.Nowhere = "it has no endpoint that is Ready"
			r.leads[w.Service] = services.Items[at].Spec.Selector
		case len(services.Items[at].Spec.Selector) == 0:
			w.Leads = leads[w.Service]
		}
	}
	return nil
}

// injector has the selectors of one webhook of an injector.
type injector struct{ namespaces, objects *metav1.LabelSelector }

// settleWebhooks finds the namespaces whose pods an injector or a tag gives proxies. The selectors tell it, and no name: when a tag
// takes over istio-injection=enabled, istioctl leaves the injector of before there, with selectors that match nothing
// (DeactivateIstioInjectionWebhook in istioctl/pkg/tag).
func (r *reader) settleWebhooks() {
	for i := range r.cluster.Webhooks {
		w := &r.cluster.Webhooks[i]
		if slices.ContainsFunc(r.istiods, func(p *corev1.Pod) bool { return mesh.Ready(p) && facts.Selects(r.leads[w.Service], p.Labels) }) {
			w.Nowhere = "" // it became Ready a moment ago, and the EndpointSlice does not say so yet
		}
		for _, n := range r.cluster.Namespaces {
			if slices.ContainsFunc(r.injectors[w.Name], func(j injector) bool {
				return selects(j.namespaces, r.labels[n.Name]) && selects(j.objects, nil) // a pod without labels of its own
			}) {
				w.Injects = append(w.Injects, n.Name)
			}
		}
	}
}

// selects reports whether the selector of a webhook selects labels. One that is not there selects everything.
func selects(s *metav1.LabelSelector, of map[string]string) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(of))
}
