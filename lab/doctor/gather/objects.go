package gather

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

const (
	crlConfigMap  = "istio-ca-crl"
	meshConfigMap = "istio"
)

func (r *reader) readNamespaces(ctx context.Context) error {
	list, err := r.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		r.labels[n.Name] = n.Labels
		injection, revision := n.Labels[facts.InjectionLabel], n.Labels[facts.RevisionLabel]
		r.cluster.Namespaces = append(r.cluster.Namespaces, facts.Namespace{
			Name: n.Name, Injection: injection, Revision: revision,
			Injected: injection == "enabled" || revision != "" && injection == "", // an injector wants one label or the other
		})
		if n.Name == r.System {
			r.cluster.Network = n.Labels[facts.NetworkLabel]
		}
	}
	return nil
}

func (r *reader) readRootMaps(ctx context.Context) error {
	configMaps := r.kube.CoreV1().ConfigMaps
	all := configMaps(metav1.NamespaceAll)
	list, err := all.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + facts.RootConfigMap})
	if err != nil {
		return err
	}
	for _, m := range list.Items {
		r.mapped[m.Namespace] = r.addBundle([]byte(m.Data[pki.RootCertFile]))
	}
	list, err = all.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + crlConfigMap, Limit: 1})
	if err != nil {
		return err
	}
	for _, m := range list.Items {
		for _, text := range m.Data {
			r.cluster.CRLs = append(r.cluster.CRLs, facts.ParseRevocationLists([]byte(text))...)
		}
	}
	return r.readMeshMaps(ctx)
}

// readMeshMaps reads the mesh configuration of every revision. A remote cluster has none: istiod's own page has the settings.
func (r *reader) readMeshMaps(ctx context.Context) error {
	configMaps := r.kube.CoreV1().ConfigMaps(r.System)
	var all []corev1.ConfigMap
	switch own, err := configMaps.Get(ctx, meshConfigMap, metav1.GetOptions{}); {
	case err == nil:
		all = append(all, *own)
	case !apierrors.IsNotFound(err):
		return err
	}
	list, err := configMaps.List(ctx, metav1.ListOptions{LabelSelector: facts.RevisionLabel})
	if err != nil {
		return err
	}
	for _, m := range list.Items {
		if revision := m.Labels[facts.RevisionLabel]; m.Name != meshConfigMap && m.Name == facts.Revisioned(meshConfigMap, revision) {
			all = append(all, m)
		}
	}
	everything := false // a revision looks at all namespaces
	for _, m := range all {
		data, err := yaml.YAMLToJSON([]byte(m.Data["mesh"]))
		if err != nil {
			return err
		}
		settings, selectors, err := r.parseSettings(data)
		if err != nil {
			return err
		}
		if !r.cluster.Settings.Read {
			r.cluster.Settings = settings
		}
		revision := facts.DefaultRevision
		if m.Name != meshConfigMap {
			revision = m.Labels[facts.RevisionLabel]
		}
		r.settings[revision] = settings
		everything = everything || len(selectors) == 0
		r.selectors = append(r.selectors, selectors...)
	}
	if everything {
		r.selectors = nil
	}
	return nil
}

// covers reports whether an istiod looks at a namespace. Without discoverySelectors it looks at all.
func (r *reader) covers(namespace string) bool {
	return len(r.selectors) == 0 || namespace == r.System || slices.ContainsFunc(r.selectors, func(s metav1.LabelSelector) bool {
		selector, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && selector.Matches(labels.Set(r.labels[namespace]))
	})
}

// parseSettings reads a mesh configuration in JSON, and its discoverySelectors.
func (r *reader) parseSettings(data []byte) (facts.MeshSettings, []metav1.LabelSelector, error) {
	var c struct {
		TrustDomain        string                 `json:"trustDomain"`
		TrustDomainAliases []string               `json:"trustDomainAliases"`
		RootNamespace      string                 `json:"rootNamespace"`
		DiscoverySelectors []metav1.LabelSelector `json:"discoverySelectors"`
		CACertificates     []struct {
			PEM          string   `json:"pem"` // empty for an entry that names a URL
			TrustDomains []string `json:"trustDomains"`
		} `json:"caCertificates"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return facts.MeshSettings{}, nil, fmt.Errorf("reading the mesh configuration: %w", err)
	}
	s := facts.MeshSettings{
		Read: true, TrustDomain: cmp.Or(c.TrustDomain, "cluster.local"), Aliases: c.TrustDomainAliases,
		RootNamespace: cmp.Or(c.RootNamespace, r.System),
	}
	for _, ca := range c.CACertificates {
		s.CACertificates = append(s.CACertificates, facts.CACertificates{Roots: r.addBundle([]byte(ca.PEM)), TrustDomains: ca.TrustDomains})
	}
	return s, c.DiscoverySelectors, nil
}

func (r *reader) readServices(ctx context.Context) error {
	list, err := r.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		// Where an istiod elsewhere serves the cluster, the Service of this name has no selector.
		if s.Namespace == r.System && s.Spec.Selector["app"] == facts.IstiodName {
			r.cluster.IstiodService = s.Name
		}
		service := facts.Service{Namespace: s.Namespace, Name: s.Name, Headless: s.Spec.ClusterIP == corev1.ClusterIPNone}
		gateway := facts.Gateway{
			Namespace: s.Namespace, Name: s.Name, Type: string(s.Spec.Type),
			Network: s.Labels[facts.NetworkLabel], Selector: s.Spec.Selector,
		}
		for _, p := range s.Spec.Ports {
			service.Ports = append(service.Ports, strings.TrimSpace(fmt.Sprintf("%d/%s %s", p.Port, p.Protocol, p.Name)))
			if p.Port == facts.GatewayPort {
				gateway.Port = facts.GatewayPort
			}
		}
		slices.Sort(service.Ports)
		r.cluster.Services = append(r.cluster.Services, service)
		labeled := s.Labels["istio"] == "eastwestgateway" || gateway.Network != "" && s.Spec.Selector["istio"] != ""
		if gateway.Port == 0 && !labeled {
			continue
		}
		for _, a := range s.Status.LoadBalancer.Ingress {
			gateway.Addresses = append(gateway.Addresses, cmp.Or(a.IP, a.Hostname))
		}
		gateway.Addresses = append(gateway.Addresses, s.Spec.ExternalIPs...)
		r.cluster.Gateways = append(r.cluster.Gateways, gateway)
	}
	return nil
}

// list lists objects of a kind that Istio defines. A cluster without the kind has none of them.
func (r *reader) list(ctx context.Context, group, resource string) ([]unstructured.Unstructured, error) {
	for _, version := range []string{"v1", "v1beta1"} {
		kind := schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
		list, err := r.dynamic.Resource(kind).List(ctx, metav1.ListOptions{})
		if err == nil {
			return list.Items, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return nil, nil
}

func (r *reader) readPolicies(ctx context.Context) error {
	policies, err := r.list(ctx, "security.istio.io", "authorizationpolicies")
	if err != nil {
		return err
	}
	for _, p := range policies {
		if err := r.readPrincipals(p); err != nil {
			return fmt.Errorf("reading AuthorizationPolicy %s: %w", p.GetName(), err)
		}
	}
	r.keepConfig("AuthorizationPolicy", policies)
	authentications, err := r.list(ctx, "security.istio.io", "peerauthentications")
	if err != nil {
		return err
	}
	for _, p := range authentications {
		_, selects, _ := unstructured.NestedMap(p.Object, "spec", "selector")
		mode, _, _ := unstructured.NestedString(p.Object, "spec", "mtls", "mode")
		if selects || mode == "" || mode == "UNSET" {
			continue
		}
		space := p.GetNamespace()
		if space == r.System {
			space = ""
		}
		if r.cluster.Strict == nil {
			r.cluster.Strict = map[string]bool{}
		}
		r.cluster.Strict[space] = mode == "STRICT"
	}
	r.keepConfig("PeerAuthentication", authentications)
	rules, err := r.list(ctx, "networking.istio.io", "destinationrules")
	r.keepConfig("DestinationRule", rules)
	return err
}

func (r *reader) readPrincipals(p unstructured.Unstructured) error {
	var spec struct {
		Action string
		Rules  []struct {
			From []struct{ Source struct{ Principals []string } }
		}
	}
	if err := decodeSpec(p, &spec); err != nil {
		return err
	}
	principals := facts.Principals{Policy: p.GetNamespace() + "/" + p.GetName(), Action: cmp.Or(spec.Action, "ALLOW")}
	for _, rule := range spec.Rules {
		for _, from := range rule.From {
			principals.Names = append(principals.Names, from.Source.Principals...)
		}
	}
	if len(principals.Names) > 0 {
		r.cluster.Principals = append(r.cluster.Principals, principals)
	}
	return nil
}

// keepConfig keeps what shows whether other clusters have the same objects.
func (r *reader) keepConfig(kind string, objects []unstructured.Unstructured) {
	for _, o := range objects {
		spec, _ := json.Marshal(o.Object["spec"]) // it came as JSON
		sum := sha256.Sum256(spec)
		config := facts.Config{Kind: kind, Name: o.GetNamespace() + "/" + o.GetName(), Hash: hex.EncodeToString(sum[:8])}
		mode, _, _ := unstructured.NestedString(o.Object, "spec", "trafficPolicy", "tls", "mode")
		if mode != "" && mode != "ISTIO_MUTUAL" {
			config.Host, _, _ = unstructured.NestedString(o.Object, "spec", "host")
			config.TLS = mode
		}
		r.cluster.Config = append(r.cluster.Config, config)
	}
}

func decodeSpec(o unstructured.Unstructured, to any) error {
	data, err := json.Marshal(o.Object["spec"])
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

func (r *reader) readExposed(ctx context.Context) error {
	list, err := r.list(ctx, "networking.istio.io", "gateways")
	if err != nil {
		return err
	}
	for _, g := range list {
		var spec struct {
			Selector map[string]string
			Servers  []struct {
				Port  struct{ Number int }
				TLS   struct{ Mode string }
				Hosts []string
			}
		}
		if err := decodeSpec(g, &spec); err != nil {
			return fmt.Errorf("reading Gateway %s: %w", g.GetName(), err)
		}
		for _, s := range spec.Servers {
			if s.TLS.Mode == "AUTO_PASSTHROUGH" {
				r.cluster.Exposed = append(r.cluster.Exposed, facts.Exposed{
					Name: g.GetNamespace() + "/" + g.GetName(), Selector: spec.Selector, Hosts: s.Hosts, Port: s.Port.Number,
				})
			}
		}
	}
	return r.readRoutes(ctx)
}

// readRoutes reads how gateways lead API servers of other clusters to istiods, as expose-istiod.yaml of Istio's samples says it.
func (r *reader) readRoutes(ctx context.Context) error {
	list, err := r.list(ctx, "networking.istio.io", "virtualservices")
	if err != nil {
		return err
	}
	for _, v := range list {
		var spec struct {
			TLS []struct {
				Match []struct {
					Port     int
					SNIHosts []string
				}
				Route []struct{ Destination struct{ Host string } }
			}
		}
		if err := decodeSpec(v, &spec); err != nil {
			return fmt.Errorf("reading VirtualService %s: %w", v.GetName(), err)
		}
		for _, t := range spec.TLS {
			for _, m := range t.Match {
				if m.Port == facts.WebhookPort && len(t.Route) > 0 {
					service, _, _ := strings.Cut(t.Route[0].Destination.Host, ".")
					route := facts.IstiodRoute{Name: v.GetNamespace() + "/" + v.GetName(), Hosts: m.SNIHosts, Service: service}
					r.cluster.Routes = append(r.cluster.Routes, route)
				}
			}
		}
	}
	return nil
}
