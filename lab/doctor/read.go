package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

const (
	rootMap        = "istio-ca-root-cert"
	crlMap         = "istio-ca-crl"
	gatewayTLSPort = 15443
	networkLabel   = "topology.istio.io/network"
	revisionLabel  = "istio.io/rev"
)

func (r *reader) readNamespaces(ctx context.Context) error {
	list, err := r.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		r.labels[n.Name] = n.Labels
		r.cluster.Namespaces = append(r.cluster.Namespaces, Namespace{
			Name: n.Name, Revision: n.Labels[revisionLabel],
			Injected: n.Labels["istio-injection"] == "enabled" || n.Labels[revisionLabel] != "" && n.Labels["istio-injection"] != "disabled",
		})
		if n.Name == r.System {
			r.cluster.Network = n.Labels[networkLabel]
		}
	}
	return nil
}

func (r *reader) readRootMaps(ctx context.Context) error {
	list, err := r.kube.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + rootMap})
	if err != nil {
		return err
	}
	for _, m := range list.Items {
		roots, _ := r.pem([]byte(m.Data[pki.RootCertFile])) // none is what it says then
		r.mapped[m.Namespace] = roots
	}
	list, err = r.kube.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + crlMap, Limit: 1})
	if err != nil {
		return err
	}
	for _, m := range list.Items {
		for _, text := range m.Data {
			r.cluster.CRLs = append(r.cluster.CRLs, crls([]byte(text))...)
		}
	}
	settings, err := r.kube.CoreV1().ConfigMaps(r.System).Get(ctx, "istio", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // a remote cluster, or another revision: istiod's own page tells
	}
	if err != nil {
		return err
	}
	data, err := yaml.YAMLToJSON([]byte(settings.Data["mesh"]))
	if err == nil {
		r.cluster.Settings, err = r.settings(data)
	}
	return err
}

// covers says whether istiod looks at a namespace: at all if the mesh configuration has no discoverySelectors.
func (r *reader) covers(namespace string) bool {
	selectors := r.cluster.Settings.selectors
	return len(selectors) == 0 || namespace == r.System || slices.ContainsFunc(selectors, func(s metav1.LabelSelector) bool {
		selector, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && selector.Matches(labels.Set(r.labels[namespace]))
	})
}

// settings reads a mesh configuration as JSON.
func (r *reader) settings(data []byte) (MeshSettings, error) {
	var c struct {
		TrustDomain        string                 `json:"trustDomain"`
		TrustDomainAliases []string               `json:"trustDomainAliases"`
		RootNamespace      string                 `json:"rootNamespace"`
		DiscoverySelectors []metav1.LabelSelector `json:"discoverySelectors"`
		CACertificates     []struct {
			PEM          string   `json:"pem"`
			TrustDomains []string `json:"trustDomains"`
		} `json:"caCertificates"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return MeshSettings{}, fmt.Errorf("reading the mesh configuration: %w", err)
	}
	s := MeshSettings{Read: true, selectors: c.DiscoverySelectors, TrustDomain: cmp.Or(c.TrustDomain, "cluster.local"), Aliases: c.TrustDomainAliases, RootNamespace: cmp.Or(c.RootNamespace, r.System)}
	for _, ca := range c.CACertificates {
		roots, _ := r.pem([]byte(ca.PEM)) // one that names a URL has none
		s.CACertificates = append(s.CACertificates, CACertificates{Roots: roots, TrustDomains: ca.TrustDomains})
	}
	return s, nil
}

func crls(data []byte) [][]byte {
	var all [][]byte
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		if block.Type == "X509 CRL" {
			all = append(all, block.Bytes)
		}
	}
}

// readPods goes through the pods of the cluster page by page and keeps little of each.
func (r *reader) readPods(ctx context.Context) error {
	options := metav1.ListOptions{Limit: podsPerPage}
	for {
		list, err := r.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			r.readPod(&list.Items[i])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	oldest := func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) }
	slices.SortFunc(r.istiods, oldest)
	for _, p := range r.istiods {
		r.cluster.Istiods = append(r.cluster.Istiods, Istiod{
			Pod: p.Name, Version: version(p, "discovery"), Ready: mesh.Ready(p), Created: p.CreationTimestamp.UTC(), State: state(p),
			Env: env(p, "discovery", "CLUSTER_ID", "ISTIO_MULTIROOT_MESH", "PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "LOCAL_CLUSTER_SECRET_WATCHER"),
		})
	}
	// A Deployment without pods is an istiod as well.
	found, err := r.kube.AppsV1().Deployments(r.System).List(ctx, metav1.ListOptions{LabelSelector: "app=" + mesh.Istiod})
	if err == nil {
		r.cluster.IstiodDeployed = len(found.Items) > 0
	}
	return err
}

func (r *reader) readPod(p *corev1.Pod) {
	c := r.cluster
	switch {
	case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return
	case p.Namespace == r.System && p.Labels["app"] == mesh.Istiod:
		r.istiods = append(r.istiods, p)
		return
	case !observe.HasProxy(p):
		_, job := p.Labels["job-name"]
		if !job && !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning && (r.Namespace == "" || p.Namespace == r.Namespace) {
			c.Plain = append(c.Plain, p.Namespace+"/"+p.Name) // settle knows whether that is as it should be
		}
		return
	}
	gateway := slices.Contains(container(p, observe.ProxyContainer).Args, "router")
	if r.Namespace != "" && p.Namespace != r.Namespace && !gateway {
		return
	}
	its := env(p, observe.ProxyContainer, "ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK", "ISTIO_META_MESH_ID")
	c.Proxies = append(c.Proxies, Proxy{
		Namespace: p.Namespace, Pod: p.Name, Workload: workload(p), Created: p.CreationTimestamp.UTC(), Ready: mesh.Ready(p),
		Gateway: gateway, Version: version(p, observe.ProxyContainer), Cluster: its["ISTIO_META_CLUSTER_ID"],
		Network: cmp.Or(p.Labels[networkLabel], its["ISTIO_META_NETWORK"]), MeshID: its["ISTIO_META_MESH_ID"],
	})
	if !mesh.Ready(p) {
		c.Stuck = append(c.Stuck, Stuck{p.Namespace + "/" + p.Name, cmp.Or(state(p), string(p.Status.Phase))})
	}
	// What is needed to ask it later, and nothing else of it.
	r.pods[p.Namespace+"/"+p.Name] = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID, Labels: p.Labels},
		Status:     corev1.PodStatus{Conditions: p.Status.Conditions},
	}
}

// container returns a container of a pod by its name; an empty one if the pod has none of that name.
func container(p *corev1.Pod, name string) corev1.Container {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == name {
			return c
		}
	}
	return corev1.Container{}
}

// version is the tag of a container's image.
func version(p *corev1.Pod, name string) string {
	image := container(p, name).Image
	_, tag, _ := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return tag
}

// workload is what a pod belongs to: the Deployment and not its ReplicaSet.
func workload(p *corev1.Pod) string {
	if len(p.OwnerReferences) == 0 {
		return p.Name
	}
	return strings.TrimSuffix(p.OwnerReferences[0].Name, "-"+cmp.Or(p.Labels["pod-template-hash"], "-")) // no name ends in two
}

// env reads settings of a container that stand in the pod as they are.
func env(p *corev1.Pod, of string, names ...string) map[string]string {
	found := map[string]string{}
	for _, e := range container(p, of).Env {
		if e.Value != "" && slices.Contains(names, e.Name) {
			found[e.Name] = e.Value
		}
	}
	return found
}

// state tells what keeps a pod from being Ready.
func state(p *corev1.Pod) string {
	if mesh.Ready(p) {
		return ""
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return short(strings.TrimSpace(s.Name+": "+w.Reason+" "+w.Message), 300)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return short(c.Message, 300)
		}
	}
	return string(p.Status.Phase)
}

// readSecrets reads Secrets with a CA or with access to another cluster, and keeps the public part of them.
func (r *reader) readSecrets(ctx context.Context) error {
	secrets := r.kube.CoreV1().Secrets(r.System)
	for name, to := range map[string]**CASecret{mesh.CACerts: &r.cluster.CACerts, observe.SelfSignedSecret: &r.cluster.SelfSigned} {
		s, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		*to = r.public(s)
	}
	if r.cluster.CACerts == nil {
		// Names are enough to find one that is in the wrong place.
		list, err := r.meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + mesh.CACerts})
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		if err == nil {
			for _, s := range list.Items {
				r.cluster.Elsewhere = append(r.cluster.Elsewhere, s.Namespace)
			}
		}
	}
	list, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "istio/multiCluster=true"})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range list.Items {
		s := &list.Items[i]
		for name, kubeconfig := range s.Data {
			all.Go(func() {
				remote := RemoteSecret{Name: s.Name, ID: name, Created: s.CreationTimestamp.UTC()}
				remote.try(ctx, r.config, kubeconfig)
				mu.Lock()
				defer mu.Unlock()
				r.cluster.Remotes = append(r.cluster.Remotes, remote)
			})
		}
	}
	all.Wait()
	slices.SortFunc(r.cluster.Remotes, func(a, b RemoteSecret) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return nil
}

// public keeps what may be known of a Secret with a CA. Its private key is looked at once, for its public half.
func (r *reader) public(s *corev1.Secret) *CASecret {
	p := &CASecret{Keys: slices.Sorted(maps.Keys(s.Data)), Modified: modified(s.ObjectMeta), CRLs: crls(s.Data[pki.CRLFile]), Damaged: map[string]string{}}
	ca, key, chain, root := pki.CACertFile, pki.CAKeyFile, pki.CertChainFile, pki.RootCertFile
	if s.Data["tls.crt"] != nil { // the layout of cert-manager
		ca, key, chain, root = "tls.crt", "tls.key", "tls.crt", "ca.crt"
	}
	for name, to := range map[string]*[]string{ca: &p.CA, root: &p.Roots} {
		if data, ok := s.Data[name]; ok {
			var err error
			if *to, err = r.pem(data); err != nil {
				p.Damaged[name] = err.Error()
			}
		}
	}
	if data := s.Data[chain]; len(strings.TrimSpace(string(data))) > 0 { // empty is a case of its own
		var err error
		if p.Chain, err = r.pem(data); err != nil {
			p.Damaged[chain] = err.Error()
		}
	}
	if data, ok := s.Data[key]; ok && len(p.CA) > 0 {
		p.Key = r.compare(data, p.CA[0])
		clear(data)
	}
	return p
}

// compare says whose private key it is. Its errors never quote what it read.
func (r *reader) compare(key []byte, ca string) string {
	r.store.mu.Lock()
	cert, err := x509.ParseCertificate(r.facts.Certificates[ca])
	r.store.mu.Unlock()
	if err != nil {
		return "unknown"
	}
	public, err := pki.PublicKey(key)
	switch {
	case err != nil:
		return "damaged"
	case public.Equal(cert.PublicKey):
		return "matches"
	}
	return "another"
}

// modified is when the content was last written.
func modified(m metav1.ObjectMeta) time.Time {
	last := m.CreationTimestamp.Time
	for _, f := range m.ManagedFields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last.UTC()
}

func (r *reader) readServices(ctx context.Context) error {
	list, err := r.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		one := Service{Namespace: s.Namespace, Name: s.Name, Headless: s.Spec.ClusterIP == corev1.ClusterIPNone}
		gateway := Gateway{Namespace: s.Namespace, Name: s.Name, Type: string(s.Spec.Type), Network: s.Labels[networkLabel], Labels: s.Spec.Selector}
		for _, p := range s.Spec.Ports {
			one.Ports = append(one.Ports, strings.TrimSpace(fmt.Sprintf("%d/%s %s", p.Port, p.Protocol, p.Name)))
			if p.Port == gatewayTLSPort {
				gateway.Port = int(p.Port)
			}
		}
		slices.Sort(one.Ports)
		r.cluster.Services = append(r.cluster.Services, one)
		if gateway.Port == 0 && s.Labels["istio"] != "eastwestgateway" && (gateway.Network == "" || s.Spec.Selector["istio"] == "") {
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

// list lists objects of Istio's. A cluster without that kind has none of them.
func (r *reader) list(ctx context.Context, group, resource string) ([]unstructured.Unstructured, error) {
	for _, version := range []string{"v1", "v1beta1"} {
		list, err := r.dynamic.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}).List(ctx, metav1.ListOptions{})
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
		var spec struct {
			Action string
			Rules  []struct {
				From []struct{ Source struct{ Principals []string } }
			}
		}
		if err := into(p.Object["spec"], &spec); err != nil {
			return fmt.Errorf("reading AuthorizationPolicy %s: %w", p.GetName(), err)
		}
		one := Principals{Policy: p.GetNamespace() + "/" + p.GetName(), Action: cmp.Or(spec.Action, "ALLOW")}
		for _, rule := range spec.Rules {
			for _, from := range rule.From {
				one.Names = append(one.Names, from.Source.Principals...)
			}
		}
		if len(one.Names) > 0 {
			r.cluster.Principals = append(r.cluster.Principals, one)
		}
	}
	r.keepConfig("AuthorizationPolicy", policies)
	strict, err := r.list(ctx, "security.istio.io", "peerauthentications")
	if err != nil {
		return err
	}
	for _, p := range strict {
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
	r.keepConfig("PeerAuthentication", strict)
	rules, err := r.list(ctx, "networking.istio.io", "destinationrules")
	r.keepConfig("DestinationRule", rules)
	return err
}

// keepConfig keeps what tells whether other clusters have the same objects.
func (r *reader) keepConfig(kind string, objects []unstructured.Unstructured) {
	for _, o := range objects {
		spec, _ := json.Marshal(o.Object["spec"]) // it came as JSON
		sum := sha256.Sum256(spec)
		one := Config{Kind: kind, Name: o.GetNamespace() + "/" + o.GetName(), Hash: hex.EncodeToString(sum[:8])}
		mode, _, _ := unstructured.NestedString(o.Object, "spec", "trafficPolicy", "tls", "mode")
		if mode != "" && mode != "ISTIO_MUTUAL" {
			one.Host, _, _ = unstructured.NestedString(o.Object, "spec", "host")
			one.TLS = mode
		}
		r.cluster.Config = append(r.cluster.Config, one)
	}
}

func into(from, to any) error {
	data, err := json.Marshal(from)
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
		if err := into(g.Object["spec"], &spec); err != nil {
			return fmt.Errorf("reading Gateway %s: %w", g.GetName(), err)
		}
		for _, s := range spec.Servers {
			if s.TLS.Mode == "AUTO_PASSTHROUGH" {
				r.cluster.Exposed = append(r.cluster.Exposed, Exposed{Name: g.GetNamespace() + "/" + g.GetName(), Selector: spec.Selector, Hosts: s.Hosts, Port: s.Port.Number})
			}
		}
	}
	return nil
}

func (r *reader) readWebhooks(ctx context.Context) error {
	list, err := r.kube.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: "app=sidecar-injector"})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		for _, w := range c.Webhooks {
			if len(w.ClientConfig.CABundle) == 0 {
				continue // signed by somebody whom the API server knows
			}
			roots, _ := r.pem(w.ClientConfig.CABundle) // none is what it says then
			r.cluster.Webhooks = append(r.cluster.Webhooks, Webhook{Name: c.Name, Roots: roots})
			break // the others of a configuration have the same
		}
	}
	return nil
}

// ofCA are the lines of istiod's log that say what it made of its CA.
var ofCA = regexp.MustCompile(`Use self-signed certificate|Use local CA certificate|Failed to update new Plug-in CA certs|Multi root is disabled|Updating new ROOT-CA not supported|failed to create (an istiod CA|CA KeyCertBundle|discovery service)|ignoring cluster as it would overwrite|signing certificate has expired|istio-ca-root-cert.*(denied|forbidden)|x509: certificate has expired or is not yet valid`)

const mostLines = 12 // of each istiod's log

// ofWatch is what istiod logs when a list or a watch of a cluster fails (informermetric.ErrorHandlerForCluster). A kind
// that the cluster does not have is none of it.
var ofWatch = regexp.MustCompile(`^(\S+)\s+error\s+watch error in cluster (\S+): (.*)$`)

const (
	watchesSince = 10 * time.Minute
	unknownKind  = "the server could not find the requested resource"
)

func (i *Istiod) readWatch(line string, now time.Time) {
	m := ofWatch.FindStringSubmatch(line)
	if m == nil || strings.Contains(m[3], unknownKind) {
		return
	}
	at, err := time.Parse(time.RFC3339Nano, m[1])
	if err != nil || now.Sub(at) > watchesSince {
		return
	}
	w := i.Watches[m[2]]
	if w.First.IsZero() {
		w.First = at
	}
	w.Last, w.Why = at, short(m[3], 300)
	if i.Watches == nil {
		i.Watches = map[string]Watch{}
	}
	i.Watches[m[2]] = w
}

// readLog reads the end of an istiod's log, and of the one before if it crashed.
func (r *reader) readLog(ctx context.Context, p *corev1.Pod, i *Istiod) error {
	tail, bytes := int64(3000), int64(1<<20)
	var lines []string
	read := func(previous bool) error {
		stream, err := r.kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: "discovery", TailLines: &tail, LimitBytes: &bytes, Previous: previous}).Stream(ctx)
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // it was only read
		scanner := bufio.NewScanner(stream)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			line := scanner.Text()
			if ofCA.MatchString(line) {
				lines = append(lines, short(line, 300))
			}
			i.readWatch(line, r.facts.Taken)
		}
		return scanner.Err()
	}
	var err error
	if !mesh.Ready(p) {
		_ = read(true) // there may be none
	}
	err = read(false)
	i.Lines = lines[max(len(lines)-mostLines, 0):]
	return err
}

// readIstiod reads the logs of all istiods and the pages of the newest one that is Ready.
func (r *reader) readIstiod(ctx context.Context) error {
	var errs []error
	for i, p := range r.istiods {
		if err := r.readLog(ctx, p, &r.cluster.Istiods[i]); err != nil && mesh.Ready(p) {
			errs = append(errs, fmt.Errorf("reading the log of %s: %w", p.Name, err))
		}
	}
	for i := len(r.istiods) - 1; i >= 0; i-- {
		if mesh.Ready(r.istiods[i]) {
			return errors.Join(append(errs, r.readPages(ctx, r.istiods[i], &r.cluster.Istiods[i]))...)
		}
	}
	return errors.Join(errs...) // that there is none is a finding and no failure to look
}

func (r *reader) readPages(ctx context.Context, p *corev1.Pod, i *Istiod) error {
	var all sync.WaitGroup
	errs := make([]error, 6)
	for n, read := range []func() error{
		func() error {
			page, err := r.whole(ctx, p, mesh.IstiodDebugPort, "/debug/mesh")
			if err == nil {
				r.cluster.Settings, err = r.settings(page)
			}
			return err
		},
		func() error {
			page, err := r.whole(ctx, p, mesh.IstiodDebugPort, "/debug/clusterz")
			var known []struct{ ID, SyncStatus string }
			if err == nil {
				err = json.Unmarshal(page, &known)
			}
			i.Clusters = map[string]string{}
			for _, k := range known {
				i.Clusters[k.ID] = k.SyncStatus
			}
			return err
		},
		func() error {
			page, err := r.whole(ctx, p, mesh.IstiodDebugPort, "/debug/syncz")
			var synced []observe.Synced
			if err == nil {
				synced, err = observe.ParseSync(page)
			}
			i.Serves = map[string]int{}
			for _, s := range synced {
				i.Serves[s.Cluster]++
				if s.Problem != "" && len(i.Behind) < mostLines {
					i.Behind = append(i.Behind, s.Proxy+": "+s.Problem)
				}
			}
			return err
		},
		func() error {
			page, err := r.whole(ctx, p, mesh.IstiodDebugPort, "/debug/networkz")
			if err == nil && len(page) > 0 {
				err = json.Unmarshal(page, &i.Networks)
			}
			return err
		},
		func() error {
			ctx, cancel := context.WithTimeout(ctx, 2*oneWithin)
			defer cancel()
			page, err := r.page(ctx, p, mesh.IstiodDebugPort, "/debug/endpointShardz")
			if err != nil {
				return err
			}
			defer page.Close() //nolint:errcheck // it was only read
			i.Endpoints, i.Placed, err = countEndpoints(page)
			return err
		},
		func() (err error) {
			page, err := r.whole(ctx, p, mesh.IstiodDebugPort, "/metrics")
			i.Errors = map[string]int{}
			for _, m := range ofErrors.FindAllSubmatch(page, -1) {
				i.Errors[string(m[1])], _ = strconv.Atoi(string(m[2])) // the pattern lets numbers through only
			}
			return err
		},
	} {
		all.Go(func() { errs[n] = read() })
	}
	all.Wait()
	err := errors.Join(errs...)
	i.Read = err == nil
	return err
}

// ofErrors are istiod's counters of lists and watches that failed.
var ofErrors = regexp.MustCompile(`(?m)^controller_sync_errors_total\{cluster="([^"]*)"\} (\d+)$`)

// countEndpoints reads istiod's page /debug/endpointShardz service by service and keeps numbers only: endpoints by
// service and cluster, and those with a proxy by cluster and network.
func countEndpoints(page io.Reader) (counts, placed map[string]map[string]int, err error) {
	d := json.NewDecoder(page)
	if _, err := d.Token(); err != nil {
		return nil, nil, fmt.Errorf("reading istiod's endpoints: %w", err)
	}
	counts, placed = map[string]map[string]int{}, map[string]map[string]int{}
	for d.More() {
		host, err := d.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("reading istiod's endpoints: %w", err)
		}
		var byNamespace map[string]struct {
			Shards map[string][]struct{ Network, TLSMode string }
		}
		if err := d.Decode(&byNamespace); err != nil {
			return nil, nil, fmt.Errorf("reading istiod's endpoints of %v: %w", host, err)
		}
		for namespace, its := range byNamespace {
			key := fmt.Sprintf("%s/%v", namespace, host)
			counts[key] = map[string]int{}
			for shard, endpoints := range its.Shards { // Kubernetes/cluster-a
				cluster := shard[strings.LastIndexByte(shard, '/')+1:]
				counts[key][cluster] += len(endpoints)
				for _, e := range endpoints {
					if placed[cluster] == nil {
						placed[cluster] = map[string]int{}
					}
					if e.TLSMode == "istio" { // others are never behind a gateway
						placed[cluster][e.Network]++
					}
				}
			}
		}
	}
	return counts, placed, nil
}

// readSigners reads the certificate of each istiod, which its own CA has signed.
func (r *reader) readSigners(ctx context.Context) error {
	errs := make([]error, len(r.istiods))
	var all sync.WaitGroup
	for i, p := range r.istiods {
		if !mesh.Ready(p) {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, oneWithin)
			defer cancel()
			conn, err := r.pages.Dial(ctx, p, observe.IstiodPort)
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close() //nolint:errcheck // it was only read
			chain, err := observe.PeerChain(ctx, conn)
			if err != nil {
				errs[i] = fmt.Errorf("reading the certificate of %s: %w", p.Name, err)
				return
			}
			r.cluster.Istiods[i].Signer = r.keep(chain)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// readProxies reads the certificates of the proxies in the sample, and asks some which connections fail.
func (r *reader) readProxies(ctx context.Context) error {
	c := r.cluster
	var mu sync.Mutex
	var errs []error
	chosen := sample(c.Proxies, r.Sample)
	each(chosen, func(i int) {
		p := &c.Proxies[i]
		page, err := r.whole(ctx, r.pods[p.Name()], mesh.EnvoyAdminPort, observe.SecretsPage)
		if err == nil {
			var roots, chain []*x509.Certificate
			if roots, chain, err = observe.ParseSecrets(page); err == nil {
				p.Roots, p.Chain = r.keep(roots), r.keep(chain)
			}
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("%s: %w", p.Name(), err))
		}
	})
	asked := 0
	for i := len(chosen) - 1; i >= 0 && asked < witnesses; i-- {
		if p := &c.Proxies[chosen[i]]; !p.Gateway {
			asked++
			r.failing(ctx, p)
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// failing finds gateways of other networks to which a proxy cannot connect: none of its connections to them was
// ever made, and more have failed when it is asked again.
func (r *reader) failing(ctx context.Context, p *Proxy) {
	look := func() map[string]int {
		page, err := r.whole(ctx, r.pods[p.Name()], mesh.EnvoyAdminPort, "/clusters?format=json")
		if err != nil {
			return nil // its certificates were read: what is lost is a hint
		}
		made, refused, err := observe.Reached(page, gatewayTLSPort)
		p.Asked, p.Through = err == nil, keys(made)
		return refused
	}
	before := look()
	if len(before) == 0 {
		return
	}
	select {
	case <-time.After(700 * time.Millisecond): // what is counted is calls of others in this time
	case <-ctx.Done():
	}
	for host, n := range look() {
		if was, ok := before[host]; ok && n > was {
			p.Failing = append(p.Failing, host)
		}
	}
	slices.Sort(p.Failing)
}

// readGateways finds out whether the pods of gateways listen.
func (r *reader) readGateways(ctx context.Context) error {
	var errs []error
	for i := range r.cluster.Gateways {
		g := &r.cluster.Gateways[i]
		p := r.behind(*g)
		if p == nil {
			continue
		}
		page, err := r.whole(ctx, p, mesh.EnvoyAdminPort, "/listeners")
		errs = append(errs, err)
		g.Looked, g.Listens = err == nil, strings.Contains(string(page), ":"+strconv.Itoa(gatewayTLSPort))
	}
	return errors.Join(errs...)
}
