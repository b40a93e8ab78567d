package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// file is a file of this cluster in the lab's folder: what the printed commands name.
func (m *Member) file(name string) string { return filepath.Join(m.mesh.dir, m.Name(), name) }

// rendered holds what a cluster is installed from, once the files are written.
type rendered struct {
	control, definitions []object // istiod and what belongs to it; Istio's custom resource definitions
	gateway, gatewayPods []object // the east-west gateway; its Deployment, which needs istiod to inject
	expose               []object
	services, rules      []object // what clients call, and how
	workloads, myPod     []object
}

// plan is the whole installation. Reading it from top to bottom is a correct order; the arguments at the
// end of each add say what a step really needs, and everything else overlaps.
func (m *Mesh) plan(o Options) plan {
	var p plan
	files := make([]rendered, len(m.Members))
	tasks := func() []*task { return make([]*task, len(m.Members)) }
	namespaces, services, installed, serving := tasks(), tasks(), tasks(), tasks()
	var ready []*task

	for i, c := range m.Members {
		name, r := c.Name(), &files[i]
		at := " --context=" + name
		write := p.add("render Istio's manifests", name, "", func(ctx context.Context) (err error) {
			*r, err = c.render(ctx, o)
			return err
		})
		namespaces[i] = p.add("create the namespaces", name, "kubectl apply"+at+" -f "+c.file("namespaces.yaml"), func(ctx context.Context) error {
			objects, err := c.write(o, "namespaces.yaml", "istio/namespaces.yaml", "")
			if err != nil {
				return err
			}
			return c.apply(ctx, objects...)
		})
		trusted := namespaces[i]
		if m.Trust != SelfSigned {
			trusted = p.add("create cacerts", name, c.cacertsCommand(), c.installCACerts, namespaces[i])
		}
		if c.Spec.HasIstiod() {
			install := "istioctl install" + at + " -y -f " + strings.Join(c.operatorFiles(o), " -f ")
			installed[i] = p.add("install istiod", name, install, func(ctx context.Context) error {
				return c.apply(ctx, r.control...)
			}, trusted, write)
		}
		services[i] = p.add("create Services and accounts", name, "kubectl apply"+at+" -f "+c.file("services.yaml"), func(ctx context.Context) error {
			return c.apply(ctx, r.services...)
		}, namespaces[i], write)
		if m.Gateways() {
			p.add("create the east-west gateway's Service", name, "", func(ctx context.Context) error {
				return c.apply(ctx, r.gateway...)
			}, namespaces[i], write)
		}
	}

	// Each istiod reads the API servers of all other clusters. Given before it starts, it begins knowing all.
	for i, in := range m.Members {
		if !in.Spec.HasIstiod() {
			continue
		}
		for j, of := range m.Members {
			if i == j {
				continue
			}
			p.add("create remote secret for "+of.Name(), in.Name(),
				fmt.Sprintf("istioctl create-remote-secret --context=%s --name=%s | kubectl apply --context=%s -f -", of.Name(), of.Name(), in.Name()),
				func(ctx context.Context) error { return in.CreateRemoteSecret(ctx, of, RemoteSecret{}) },
				namespaces[i], installed[j])
		}
	}

	for i, c := range m.Members {
		name, r := c.Name(), &files[i]
		at := " --context=" + name
		serving[i] = p.add("wait for istiod", name, "kubectl rollout status"+at+" -n "+SystemNamespace+" deployment/"+Istiod, c.awaitIstiod, installed[i])
		// The definitions are the most work for the API server. istiod serves without them and takes them
		// when they come: with them it starts seconds later.
		before := serving[i]
		if !c.Spec.HasIstiod() {
			before = services[i]
		}
		definitions := p.add("create Istio's definitions", name, "", func(ctx context.Context) error {
			return c.apply(ctx, r.definitions...)
		}, before)
		p.add("create DestinationRules", name, "kubectl apply"+at+" -f "+c.file("rules.yaml"), func(ctx context.Context) error {
			return c.apply(ctx, r.rules...)
		}, definitions)
		if m.Gateways() {
			p.add("expose services", name, "kubectl apply"+at+" -f "+c.file("expose-services.yaml"), func(ctx context.Context) error {
				return c.apply(ctx, r.expose...)
			}, definitions)
		}
		apps := p.add("start the apps", name, "kubectl apply"+at+" -f "+c.file("workloads.yaml"), func(ctx context.Context) error {
			return c.apply(ctx, r.workloads...)
		}, serving[i], services[i])
		if m.Gateways() {
			gateway := p.add("install the east-west gateway", name, "istioctl install"+at+" -y -f "+c.file("eastwest-gateway.yaml"), func(ctx context.Context) error {
				return c.apply(ctx, r.gatewayPods...)
			}, serving[i])
			ready = append(ready, p.add("wait for the east-west gateway", name, "kubectl rollout status"+at+" -n "+SystemNamespace+" deployment/"+Gateway, func(ctx context.Context) error {
				return errors.Join(c.AwaitReady(ctx, Gateway), c.awaitGatewayAddress(ctx))
			}, gateway))
		}
		ready = append(ready, p.add("wait for the apps", name, "kubectl rollout status"+at+" -n "+AppNamespace+" deployment/client deployment/echo", func(ctx context.Context) error {
			return errors.Join(c.AwaitReady(ctx, "client"), c.AwaitReady(ctx, "echo"))
		}, apps))
	}

	proved := "prove calls between all clusters"
	if m.Trust != SharedRoot {
		proved = "prove calls inside each cluster" // those between them fail, and are meant to
	}
	proof := p.add(proved, "", "", func(ctx context.Context) error {
		answers, err := m.Verify(ctx)
		if err == nil && o.Proven != nil {
			o.Proven(answers)
		}
		return err
	}, ready...)

	for i, c := range m.Members {
		r := &files[i]
		p.add("start "+MyPod, c.Name(), "kubectl apply --context="+c.Name()+" -f "+c.file("my-pod.yaml"), func(ctx context.Context) error {
			if err := c.apply(ctx, r.myPod...); err != nil {
				return err
			}
			return c.AwaitReady(ctx, MyPod)
		}, proof)
	}
	return p
}

// operatorFiles are the IstioOperator files of the control plane.
func (m *Member) operatorFiles(o Options) []string {
	files := []string{m.file("istio.yaml")}
	if o.Istio.UpstreamEnvoy {
		files = append(files, m.file("upstream-envoy.yaml"))
	}
	return files
}

// write fills in a file of the manifests, adds another that is filled in for each cluster of the mesh, puts
// the result into the lab's folder, and returns its objects.
func (m *Member) write(o Options, name, source, each string) ([]object, error) {
	text, err := expand(source, m.values(o))
	if err != nil {
		return nil, err
	}
	for _, target := range m.mesh.Clusters {
		if each == "" {
			break
		}
		values := m.values(o)
		values["TARGET"] = target.Name
		more, err := expand(each, values)
		if err != nil {
			return nil, err
		}
		text = append(append(text, "---\n"...), more...)
	}
	if err := writeFile(m.file(name), text, 0o644); err != nil {
		return nil, fmt.Errorf("writing manifest: %w", err)
	}
	objects, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading manifests/%s: %w", source, err)
	}
	return objects, nil
}

func (m *Member) values(o Options) map[string]string {
	return map[string]string{
		"CLUSTER": m.Spec.Name, "NETWORK": m.Spec.Network, "MESH": m.mesh.MeshID, "HUB": o.Istio.Hub, "TAG": o.Istio.Tag,
	}
}

// render writes all files that the cluster is installed from and returns what is in them.
func (m *Member) render(ctx context.Context, o Options) (rendered, error) {
	var r rendered
	var unused []object
	for _, f := range []struct {
		name, source, each string // each is added once for every cluster of the mesh
		into               *[]object
	}{
		{"istio.yaml", "istio/primary.yaml", "", &unused},
		{"upstream-envoy.yaml", "istio/upstream-envoy.yaml", "", &unused},
		{"eastwest-gateway.yaml", "istio/eastwest-gateway.yaml", "", &unused},
		{"expose-services.yaml", "istio/expose-services.yaml", "", &r.expose},
		{"services.yaml", "apps/services.yaml", "apps/services-of-cluster.yaml", &r.services},
		{"rules.yaml", "apps/rules.yaml", "apps/rules-of-cluster.yaml", &r.rules},
		{"workloads.yaml", "apps/workloads.yaml", "", &r.workloads},
		{"my-pod.yaml", "apps/my-pod.yaml", "", &r.myPod},
	} {
		objects, err := m.write(o, f.name, f.source, f.each)
		if err != nil {
			return r, err
		}
		*f.into = objects
	}
	control, err := o.Istio.render(ctx, o.Cache, m.operatorFiles(o)...)
	if err != nil {
		return r, err
	}
	gateway, err := o.Istio.render(ctx, o.Cache, m.file("eastwest-gateway.yaml"))
	r.definitions, r.control = split(control, "CustomResourceDefinition")
	r.gatewayPods, r.gateway = split(gateway, "Deployment")
	return r, err
}

// split takes the objects of a kind out of a list.
func split(objects []object, kind string) (of, others []object) {
	for _, o := range objects {
		if o.Kind == kind {
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

// installCACerts writes the four files that the lesson names and creates the Secret from them.
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

// awaitIstiod waits until pods of the app namespace can start with a proxy: istiod is Ready, it has told
// the namespace its root and the webhook its certificate, and the API server reaches it. A dry run of a
// pod proves the latter two.
func (m *Member) awaitIstiod(ctx context.Context) error {
	if err := m.AwaitReady(ctx, Istiod); err != nil {
		return err
	}
	if err := m.awaitRoot(ctx); err != nil {
		return err
	}
	probe := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "injected-", Namespace: AppNamespace},
		Spec:       corev1.PodSpec{ServiceAccountName: "echo", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	return wait.Until(ctx, "the sidecar injector of "+m.Name(), wait.Options{Within: patience, Every: 20 * time.Millisecond}, func(ctx context.Context) error {
		pod, err := m.Kube.CoreV1().Pods(AppNamespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if c.Name == "istio-proxy" {
				return nil
			}
		}
		return errors.New("a pod would be made without a proxy")
	})
}

// GatewayAddress returns the address that other networks reach the cluster's east-west gateway at.
func (m *Member) GatewayAddress(ctx context.Context) (netip.AddrPort, error) {
	s, err := m.Kube.CoreV1().Services(SystemNamespace).Get(ctx, Gateway, metav1.GetOptions{})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the gateway's address in %s: %w", m.Name(), err)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(in.IP); err == nil {
			return netip.AddrPortFrom(addr, GatewayPort), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("reading the gateway's address in %s: the Service %s has none", m.Name(), Gateway)
}

// GatewayPort is where an east-west gateway takes the mTLS connections of other networks.
const GatewayPort = 15443

func (m *Member) awaitGatewayAddress(ctx context.Context) error {
	return watchOne(ctx, "an address of the gateway in "+m.Name(), Gateway,
		func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return m.Kube.CoreV1().Services(SystemNamespace).Watch(ctx, o)
		},
		func(o runtime.Object) (bool, string) {
			return len(o.(*corev1.Service).Status.LoadBalancer.Ingress) > 0, "the Service has no address; does the cluster serve type LoadBalancer?"
		})
}
