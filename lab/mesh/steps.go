package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// file returns the path of a file of this cluster in the lab's folder. The printed commands name these files.
func (m *Member) file(name string) string { return filepath.Join(m.mesh.dir, m.Name(), name) }

// rendered holds the objects that a cluster is installed from.
type rendered struct {
	control, definitions []object // istiod, or what stands for it, and what belongs to it; Istio's definitions
	gateway, gatewayPods []object // the east-west gateway; its Deployment, which needs istiod to inject
	ingress, ingressPods []object // the same in front of an external istiod, with a control plane of its own
	services, rules      []object // what clients call, and how
	exposed, istiod      []object // what gateways let through: services, and istiod itself
	workloads, myPod     []object
}

// tasks are the steps of one kind, by cluster. A cluster may have none.
type tasks map[*Member]*task

// steps returns the steps of an installation, or those that put the apps on a mesh that is there.
func (m *Mesh) steps(o Options) plan {
	if m.Adopted {
		return m.adoption(o)
	}
	return m.plan(o)
}

// plan returns the steps of an installation. Run from top to bottom, they would work. The last arguments of each add are
// the steps that a step needs; everything else overlaps.
func (m *Mesh) plan(o Options) plan {
	var p plan
	var ready []*task
	files := map[*Member]*rendered{}
	namespaces, written, trusted, entrance := tasks{}, tasks{}, tasks{}, tasks{}
	installed, serving, reachable := tasks{}, tasks{}, tasks{}
	apply := func(what string, c *Member, command string, objects *[]object, after ...*task) *task {
		return p.add(what, c.Name(), command, func(ctx context.Context) error { return c.apply(ctx, *objects...) }, after...)
	}

	for _, c := range m.Members {
		files[c] = &rendered{}
		namespaces[c] = p.add("create the namespaces", c.Name(), c.kubectlApply("namespaces.yaml"), func(ctx context.Context) error {
			objects, err := c.write(c.values(o), "namespaces.yaml", c.namespaceFiles())
			if err != nil {
				return err
			}
			return c.apply(ctx, objects...)
		})
		if c.Spec.HasIstiod() && m.Trust != SelfSigned {
			trusted[c] = p.add("create cacerts", c.Name(), c.cacertsCommand(), c.installCACerts, namespaces[c])
		}
	}

	// Clusters with an istiod come first: the clusters that it serves need the address of the gateway that leads to it.
	for _, c := range slices.Concat(m.withIstiod(), m.remotes()) {
		r := files[c]
		written[c] = p.add("render Istio's manifests", c.Name(), "", func(ctx context.Context) (err error) {
			var discovery netip.Addr
			if m.IsRemote(c.Spec) {
				if discovery, err = c.Primary().entranceAddress(ctx); err != nil {
					return err
				}
			}
			*r, err = c.render(ctx, o, discovery)
			return err
		}, entrance[c.Primary()])
		if c.Spec.InMesh() {
			apply("create Services and accounts", c, c.kubectlApply("services.yaml"), &r.services, namespaces[c], written[c])
		}
		switch {
		case c.Spec.External():
			front := p.add("install the ingress gateway's control plane", c.Name(), c.istioctlInstall(c.ingressFiles(o)...),
				func(ctx context.Context) error {
					if err := c.define(ctx, r.definitions); err != nil {
						return err
					}
					return c.apply(ctx, r.ingress...)
				}, namespaces[c], written[c])
			entrance[c] = p.add("wait for the ingress gateway's address", c.Name(),
				c.kubectlGet(IngressNamespace, Ingress), c.awaitEntrance, front)
			injecting := p.add("wait for the ingress gateway's control plane", c.Name(),
				c.rolloutStatus(IngressNamespace, Istiod), c.awaitIngressControlPlane, front)
			pods := apply("install the ingress gateway", c, "", &r.ingressPods, injecting)
			opened := apply("expose istiod", c, c.kubectlApply("expose-istiod.yaml"), &r.istiod, front)
			reachable[c] = p.add("wait for the ingress gateway", c.Name(),
				c.rolloutStatus(IngressNamespace, Ingress), c.awaitIngress, pods, opened)
		case m.HasGateway(c.Spec):
			service := apply("create the east-west gateway's Service", c, "", &r.gateway, namespaces[c], written[c])
			entrance[c] = p.add("wait for the east-west gateway's address", c.Name(),
				c.kubectlGet(SystemNamespace, Gateway), c.awaitEntrance, service)
		}
		if m.IsRemote(c.Spec) {
			installed[c] = apply("install the remote profile", c, c.istioctlInstall(c.operatorFiles(o)...),
				&r.control, namespaces[c], written[c])
		}
	}
	for _, c := range m.withIstiod() {
		if c.Spec.External() {
			trusted[c] = p.add("give istiod access to its config cluster", c.Name(), c.configCommand(), c.createConfigSecret,
				namespaces[c], trusted[c], installed[c.ConfigCluster()])
		}
		installed[c] = apply("install istiod", c, c.istioctlInstall(c.operatorFiles(o)...), &files[c].control,
			namespaces[c], trusted[c], written[c])
		serving[c] = p.add("wait for istiod", c.Name(), c.rolloutStatus(SystemNamespace, Istiod), c.awaitIstiod, installed[c])
		if m.Versioned() && c.Spec.InMesh() {
			// The tag's webhook is a copy of the revision's, with the certificate that istiod has written into that by now.
			serving[c] = p.add("make it the default revision", c.Name(), SetTagCommand(c.Name(), DefaultTag, DefaultRevision),
				func(ctx context.Context) error { return c.SetTag(ctx, DefaultTag, DefaultRevision) }, serving[c])
		}
	}

	// Each istiod reads the API servers of all other clusters. With the remote secrets there before it starts, it knows all
	// clusters from the beginning.
	for _, in := range m.withIstiod() {
		for _, of := range m.InMesh() {
			if of != in && of != in.ConfigCluster() {
				p.add("create remote secret for "+of.Name(), in.Name(),
					fmt.Sprintf("istioctl create-remote-secret --context=%s --name=%s | kubectl apply --context=%s -f -", of.Name(), of.Name(), in.Name()),
					func(ctx context.Context) error { return in.createRemoteSecret(ctx, of, RemoteSecret{}) },
					namespaces[in], installed[of])
			}
		}
	}

	for _, c := range slices.Concat(m.primaries(), m.remotes()) {
		r := files[c]
		if m.IsRemote(c.Spec) {
			serving[c] = p.add("wait for injection from "+c.Primary().Name(), c.Name(), "", c.awaitInjection,
				installed[c], serving[c.Primary()], reachable[c.Primary()])
		}
		// Where the cluster does not have them from its start, the definitions are the most work for the API server. istiod
		// serves without them and notices when they come.
		definitions := p.add("create Istio's definitions", c.Name(), "", func(ctx context.Context) error {
			return c.define(ctx, r.definitions)
		}, serving[c])
		var opened *task
		if m.IsConfig(c.Spec) { // istiod reads these here and nowhere else
			apply("create DestinationRules", c, c.kubectlApply("rules.yaml"), &r.rules, definitions)
			if len(m.Networks()) > 1 {
				apply("expose services", c, c.kubectlApply("expose-services.yaml"), &r.exposed, definitions)
			}
			if c.Spec.HasIstiod() && m.Serves(c.Spec) {
				opened = apply("expose istiod", c, c.kubectlApply("expose-istiod.yaml"), &r.istiod, definitions)
			}
		}
		if m.HasGateway(c.Spec) {
			pods := apply("install the east-west gateway", c, c.istioctlInstall(c.file("eastwest-gateway.yaml")),
				&r.gatewayPods, serving[c])
			reachable[c] = p.add("wait for the east-west gateway", c.Name(), c.rolloutStatus(SystemNamespace, Gateway),
				func(ctx context.Context) error { return c.AwaitReady(ctx, Gateway) }, pods, entrance[c], opened)
			ready = append(ready, reachable[c])
		}
		ready = append(ready, p.addApps(c, r, serving[c]))
	}
	m.addProof(&p, o, files, ready)
	return p
}

// addApps adds the steps that start the apps of a cluster, and returns the one that waits until they are ready.
func (p *plan) addApps(c *Member, r *rendered, after ...*task) *task {
	apps := p.add("start the apps", c.Name(), c.kubectlApply("workloads.yaml"), func(ctx context.Context) error {
		return c.apply(ctx, r.workloads...)
	}, after...)
	return p.add("wait for the apps", c.Name(), c.rolloutStatus(AppNamespace, "client", "echo"), func(ctx context.Context) error {
		return errors.Join(c.AwaitReady(ctx, "client"), c.AwaitReady(ctx, "echo"))
	}, apps)
}

// addProof adds the calls that prove the mesh, after everything in ready, and the steps that start MyPod.
func (m *Mesh) addProof(p *plan, o Options, files map[*Member]*rendered, ready []*task) {
	proof := p.add(m.promise(), "", "", func(ctx context.Context) error {
		answers, err := m.Verify(ctx)
		if err == nil && o.Proven != nil {
			o.Proven(answers)
		}
		return err
	}, ready...)
	proof.Proof = true
	for _, c := range m.InMesh() {
		p.add("start "+MyPod, c.Name(), c.kubectlApply(MyPod+".yaml"), func(ctx context.Context) error {
			if err := c.apply(ctx, files[c].myPod...); err != nil {
				return err
			}
			return c.AwaitReady(ctx, MyPod)
		}, proof)
	}
}

// promise returns the name of the step that proves the mesh. Clusters that do not trust each other cannot call each
// other.
func (m *Mesh) promise() string {
	for _, a := range m.InMesh() {
		for _, b := range m.InMesh() {
			if !m.Trusts(a.Spec, b.Spec) {
				return "prove calls between clusters that trust each other"
			}
		}
	}
	return "prove calls between all clusters"
}

func (m *Mesh) withIstiod() []*Member {
	return slices.DeleteFunc(slices.Clone(m.Members), func(c *Member) bool { return !c.Spec.HasIstiod() })
}

func (m *Mesh) primaries() []*Member {
	return slices.DeleteFunc(m.withIstiod(), func(c *Member) bool { return c.Spec.External() })
}

func (m *Mesh) remotes() []*Member {
	return slices.DeleteFunc(m.InMesh(), func(c *Member) bool { return c.Spec.HasIstiod() })
}

// The following functions return what a person would type for a step.

func (m *Member) kubectlApply(file string) string {
	return "kubectl apply --context=" + m.Name() + " -f " + m.file(file)
}

func (m *Member) kubectlGet(namespace, service string) string {
	return "kubectl get service --context=" + m.Name() + " -n " + namespace + " " + service
}

func (m *Member) rolloutStatus(namespace string, deployments ...string) string {
	return "kubectl rollout status --context=" + m.Name() + " -n " + namespace + " deployment/" + strings.Join(deployments, " deployment/")
}

func (m *Member) istioctlInstall(files ...string) string {
	return "istioctl install --context=" + m.Name() + " -y -f " + strings.Join(files, " -f ")
}

func (m *Member) configCommand() string {
	return "istioctl create-remote-secret --context=" + m.ConfigCluster().Name() + " --type=config --service-account=" + istiodAccount +
		" --create-service-account=false | kubectl apply --context=" + m.Name() + " -f -"
}

// operatorNames returns the names of the IstioOperator files for istiod, or for what takes its place in a remote cluster.
// Each file goes on top of those before it.
func (m *Member) operatorNames(o Options) []string {
	names := []string{"mesh.yaml"}
	for _, f := range []struct {
		name string
		when bool
	}{
		{"primary.yaml", m.Spec.HasIstiod()},
		{"serves-remotes.yaml", m.Spec.HasIstiod() && m.Spec.InMesh() && m.mesh.Serves(m.Spec)},
		{"external.yaml", m.Spec.External()},
		{"remote.yaml", m.mesh.IsRemote(m.Spec)},
		{"config-cluster.yaml", m.mesh.IsRemote(m.Spec) && m.mesh.IsConfig(m.Spec)},
		{"multi-root.yaml", m.mesh.MultiRoot},
		{"upstream-envoy.yaml", o.Version(m.Spec.Istio).UpstreamEnvoy},
		{sharedFile, o.Shared},
	} {
		if f.when {
			names = append(names, f.name)
		}
	}
	return names
}

// IstioOperator files that go on top if the cluster has other users.
const (
	sharedFile        = "shared.yaml"
	sharedIngressFile = "shared-ingress.yaml"
)

func (m *Member) ingressFiles(o Options) []string {
	files := []string{m.file("ingress.yaml")}
	if o.Shared {
		files = append(files, m.file(sharedIngressFile))
	}
	return files
}

func (m *Member) operatorFiles(o Options) []string {
	files := m.operatorNames(o)
	for i, name := range files {
		files[i] = m.file(name)
	}
	return files
}

func (m *Member) namespaceFiles() []string {
	switch {
	case m.mesh.Adopted:
		return []string{"apps/namespace.yaml"}
	case m.Spec.External():
		return []string{"istio/namespace.yaml", "istio/ingress-namespace.yaml"}
	case m.mesh.IsRemote(m.Spec) && !m.mesh.IsConfig(m.Spec):
		return []string{"istio/remote-namespace.yaml", "apps/namespace.yaml"}
	}
	return []string{"istio/namespace.yaml", "apps/namespace.yaml"}
}

// write fills in the manifests sources once, and the manifests each once for every cluster of the mesh. It writes the
// result to one file in the lab's folder and returns its objects.
func (m *Member) write(values map[string]string, name string, sources []string, each ...string) ([]object, error) {
	var text []byte
	add := func(source string) error {
		more, err := expand(source, values)
		if len(text) > 0 {
			text = append(text, "---\n"...)
		}
		text = append(text, more...)
		return err
	}
	for _, source := range sources {
		if err := add(source); err != nil {
			return nil, err
		}
	}
	for _, target := range m.mesh.InMesh() {
		values["TARGET"] = target.Name()
		for _, source := range each {
			if err := add(source); err != nil {
				return nil, err
			}
		}
	}
	if err := writeFile(m.file(name), text, 0o644); err != nil {
		return nil, fmt.Errorf("writing manifest: %w", err)
	}
	objects, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", m.file(name), err)
	}
	return objects, nil
}

// istiosLifetime is Istio's default lifetime of workload certificates.
const istiosLifetime = 24 * time.Hour

// drain returns for how many seconds a stopping proxy goes on serving: by then all proxies have heard that it stops. They hear
// it later on a slow machine. The app, which lingers and then takes up to ten seconds, has to be gone before the pod is killed after 30 s;
// its proxy, which stops after it, then has nobody left to serve. There are few values, since manifests are rendered anew for each.
//
// A mesh that is made for upgrades always has the longest time: its pods are replaced again and again while calls are counted, and
// the machine may be busier then than when the mesh was made.
func (m *Mesh) drain() int {
	switch factor := wait.Patience(); {
	case m.Versioned():
		return 8
	case factor < 1.5:
		return 2
	case factor < 3:
		return 4
	}
	return 8
}

// settle returns for how many seconds the old pod of an app stays after a new one is Ready. Without it, calls on a machine at a load of 48
// met a proxy that knew neither.
func (m *Mesh) settle() int {
	if m.Versioned() {
		return 5
	}
	return 0
}

// linger returns for how many seconds a stopping app goes on serving. In a mesh that is made for upgrades it answers calls that take ten
// seconds.
func (m *Mesh) linger() int {
	if m.Versioned() {
		return 15
	}
	return m.drain()
}

// values returns the values of the placeholders in the manifests. An external istiod has the name and the network of its
// config cluster.
func (m *Member) values(o Options) map[string]string {
	known := m
	if m.Spec.External() {
		known = m.ConfigCluster()
	}
	istio := o.Version(m.Spec.Istio)
	return map[string]string{
		"CLUSTER": m.Spec.Name, "ID": known.Spec.Name, "NETWORK": known.Spec.Network, "CONTROLPLANE": m.ConfigCluster().Spec.Name,
		"LAB": m.mesh.Lab, "SYSTEM": SystemNamespace, "INJECTOR": "istio-sidecar-injector",
		"MESH": m.mesh.MeshID, "HUB": istio.Hub, "TAG": istio.Tag, "APP": o.Istio.Image("app"),
		"TTL":   cmp.Or(m.mesh.CertificateLifetime, istiosLifetime).String(),
		"DRAIN": strconv.Itoa(m.mesh.drain()), "LINGER": strconv.Itoa(m.mesh.linger()), "SETTLE": strconv.Itoa(m.mesh.settle()),
		// Elsewhere scenarios keep connections through gateways for as long as they run, and no gateway would end in time.
		"UNTILIDLE": strconv.FormatBool(m.mesh.Versioned()),
	}
}

// render writes all files that the cluster is installed from and returns their objects. In a cluster without an istiod,
// discovery is the address of the gateway that leads to the istiod that serves it.
func (m *Member) render(ctx context.Context, o Options, discovery netip.Addr) (rendered, error) {
	var r rendered
	values := m.values(o)
	values["DISCOVERY"] = discovery.String()
	operators := m.operatorNames(o)
	if m.mesh.Adopted {
		operators = nil
	}
	for _, name := range operators {
		if _, err := m.write(values, name, []string{"istio/" + name}); err != nil {
			return r, err
		}
	}
	if o.Shared && m.Spec.External() {
		ingress := maps.Clone(values)
		ingress["SYSTEM"], ingress["INJECTOR"] = IngressNamespace, "istio-sidecar-injector-"+IngressNamespace
		if _, err := m.write(ingress, sharedIngressFile, []string{"istio/" + sharedFile}); err != nil {
			return r, err
		}
	}
	istiod := "istio/expose-istiod.yaml"
	if m.Spec.External() {
		istiod = "istio/expose-external-istiod.yaml"
	}
	var unused []object
	for _, f := range []struct {
		when         bool
		name, source string
		into         *[]object
		each         []string // added once for every cluster of the mesh
	}{
		{m.Spec.External(), "ingress.yaml", "istio/ingress.yaml", &unused, nil},
		{m.mesh.HasGateway(m.Spec), "eastwest-gateway.yaml", "istio/eastwest-gateway.yaml", &unused, nil},
		{m.mesh.IsConfig(m.Spec), "expose-services.yaml", "istio/expose-services.yaml", &r.exposed, nil},
		{m.Spec.HasIstiod() && m.mesh.Serves(m.Spec), "expose-istiod.yaml", istiod, &r.istiod, nil},
		{m.Spec.InMesh(), "services.yaml", "apps/services.yaml", &r.services, []string{"apps/services-of-cluster.yaml"}},
		{m.mesh.IsConfig(m.Spec), "rules.yaml", "apps/rules.yaml", &r.rules, []string{"apps/rules-of-cluster.yaml"}},
		{m.Spec.InMesh(), "workloads.yaml", "apps/workloads.yaml", &r.workloads, nil},
		{m.Spec.InMesh(), MyPod + ".yaml", "apps/my-pod.yaml", &r.myPod, nil},
	} {
		if !f.when || m.mesh.Adopted && strings.HasPrefix(f.source, "istio/") {
			continue
		}
		objects, err := m.write(values, f.name, []string{f.source}, f.each...)
		if err != nil {
			return r, err
		}
		*f.into = objects
	}
	if m.mesh.Adopted {
		return r, nil
	}
	istio := o.Version(m.Spec.Istio)
	control, err := istio.render(ctx, o.Cache, m.operatorFiles(o)...)
	if err != nil {
		return r, err
	}
	if control, err = m.owned(control, DefaultRevision); err != nil {
		return r, err
	}
	r.definitions, r.control = split(control, kind("CustomResourceDefinition"))
	if m.mesh.HasGateway(m.Spec) {
		gateway, err := istio.render(ctx, o.Cache, m.file("eastwest-gateway.yaml"))
		if err != nil {
			return r, err
		}
		if gateway, err = m.owned(gateway, DefaultRevision); err != nil {
			return r, err
		}
		r.gatewayPods, r.gateway = split(gateway, kind("Deployment"))
	}
	if m.Spec.External() {
		ingress, err := istio.render(ctx, o.Cache, m.ingressFiles(o)...)
		if err != nil {
			return r, err
		}
		_, ingress = split(ingress, kind("CustomResourceDefinition")) // istiod's own has the same
		r.ingressPods, r.ingress = split(ingress, isIngress)
	}
	return r, nil
}

// isIngress matches the Deployment of the gateway in front of an external istiod.
func isIngress(o object) bool { return o.Kind == "Deployment" && o.Name == Ingress }

// split divides a list of objects into those for which a function is true and the others.
func split(objects []object, those func(object) bool) (of, others []object) {
	for _, o := range objects {
		if those(o) {
			of = append(of, o)
		} else {
			others = append(others, o)
		}
	}
	return of, others
}

func (m *Member) cacertsCommand() string {
	command := "kubectl create secret generic " + CACerts + " --context=" + m.Name() + " -n " + SystemNamespace
	for _, name := range []string{pki.CACertFile, pki.CAKeyFile, pki.RootCertFile, pki.CertChainFile} {
		command += " --from-file=" + m.file(name)
	}
	return command
}

// installCACerts writes the four files of cacerts and creates the Secret from them.
func (m *Member) installCACerts(ctx context.Context) error {
	ca, err := m.mesh.CA(m.Name())
	if err != nil {
		return err
	}
	data, err := ca.CACerts()
	if err != nil {
		return err
	}
	for name, content := range data {
		if err := writeFile(m.file(name), content, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return m.ApplyCACerts(ctx, data)
}

func kind(name string) func(object) bool { return func(o object) bool { return o.Kind == name } }

// The gateway in front of an external istiod, in a namespace of its own.
const (
	IngressNamespace = "istio-ingress"
	Ingress          = "istio-ingressgateway"
)

// awaitIstiod waits until istiod is Ready and, if its own cluster is in the mesh, until proxies can start there.
func (m *Member) awaitIstiod(ctx context.Context) error {
	if err := m.AwaitReady(ctx, Istiod); err != nil {
		return err
	}
	if !m.Spec.InMesh() {
		return nil
	}
	return m.awaitInjection(ctx)
}

// awaitInjection waits until pods of the app namespace can start with a proxy: istiod has written its root into the
// namespace and its certificate into the webhook, and the API server reaches it. A dry run of a pod proves the latter
// two.
func (m *Member) awaitInjection(ctx context.Context) error {
	if err := m.awaitRoot(ctx); err != nil {
		return err
	}
	return m.injects(ctx, AppNamespace, "echo")
}

// injects waits until a pod of the account would be created with a proxy.
func (m *Member) injects(ctx context.Context, namespace, account string) error {
	often := wait.Options{Within: UsuallyWithin, Every: 20 * time.Millisecond}
	return wait.Until(ctx, "the sidecar injector of "+m.Name(), often, func(ctx context.Context) error {
		_, err := m.injected(ctx, namespace, account)
		return err
	})
}

// injected returns the proxy that a pod of the account would be created with now.
func (m *Member) injected(ctx context.Context, namespace, account string) (*corev1.Container, error) {
	probe := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "injected-", Namespace: namespace, Labels: map[string]string{"sidecar.istio.io/inject": "true"},
		},
		Spec: corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	pod, err := m.Kube.CoreV1().Pods(namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == "istio-proxy" {
			return &c, nil
		}
	}
	return nil, errors.New("a pod would be created without a proxy")
}

func (m *Member) awaitIngressControlPlane(ctx context.Context) error {
	if err := m.awaitPods(ctx, "a Ready istiod for the ingress gateway", ingressPods(Istiod), anyReady); err != nil {
		return err
	}
	return m.injects(ctx, IngressNamespace, "default")
}

func (m *Member) awaitIngress(ctx context.Context) error {
	return m.awaitPods(ctx, "a Ready pod of the ingress gateway", ingressPods(Ingress), anyReady)
}

func ingressPods(app string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Namespace == IngressNamespace && p.Labels["app"] == app }
}

// GatewayPort is the port on which an east-west gateway accepts mTLS connections from other networks.
const GatewayPort = 15443

// GatewayAddress returns the address at which other networks reach the cluster's east-west gateway.
func (m *Member) GatewayAddress(ctx context.Context) (netip.AddrPort, error) {
	address, err := m.loadBalancer(ctx, SystemNamespace, Gateway)
	return netip.AddrPortFrom(address, GatewayPort), err
}

// entrance returns the Service through which other networks reach the cluster. For an external cluster it leads to the
// istiod.
func (m *Member) entrance() (namespace, service string) {
	if m.Spec.External() {
		return IngressNamespace, Ingress
	}
	return SystemNamespace, Gateway
}

func (m *Member) entranceAddress(ctx context.Context) (netip.Addr, error) {
	namespace, service := m.entrance()
	return m.loadBalancer(ctx, namespace, service)
}

func (m *Member) loadBalancer(ctx context.Context, namespace, service string) (netip.Addr, error) {
	s, err := m.Kube.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading the address of %s in %s: %w", service, m.Name(), err)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(in.IP); err == nil {
			return addr, nil
		}
		if in.Hostname != "" { // on some clouds; istiod resolves it, too
			addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", in.Hostname)
			if err != nil {
				return netip.Addr{}, fmt.Errorf("reading the address of %s in %s: %w", service, m.Name(), err)
			}
			return addrs[0].Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("reading the address of %s in %s: the Service has none", service, m.Name())
}

// noAddress tells people what to do if a gateway gets no address.
const noAddress = "the Service has no address: nothing in this cluster serves type LoadBalancer. " +
	"Install MetalLB, or run cloud-provider-kind beside kind clusters; " +
	"clusters whose pods reach each other need no gateway with `--network shared`"

func (m *Member) awaitEntrance(ctx context.Context) error {
	namespace, service := m.entrance()
	return watchOne(ctx, "an address of "+service+" in "+m.Name(), service,
		func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return m.Kube.CoreV1().Services(namespace).Watch(ctx, o)
		},
		func(o runtime.Object) (bool, string) {
			return len(o.(*corev1.Service).Status.LoadBalancer.Ingress) > 0, noAddress
		})
}
