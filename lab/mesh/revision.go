package mesh

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Labels and names by which Istio tells revisions and tags.
const (
	RevisionLabel = "istio.io/rev"
	TagLabel      = "istio.io/tag"
	// DefaultRevision is the revision of a control plane that was installed without one.
	DefaultRevision = "default"
	// DefaultTag is the tag that namespaces with the label istio-injection=enabled use.
	DefaultTag = "default"
)

// Release is an installation of Istio: a version, as a revision beside others, or without one.
type Release struct {
	Istio    string // the version's name, as in ClusterSpec: empty for the bundle's own
	Revision string // empty: the installation without a revision
}

// revision returns the revision as Istio's labels have it.
func (r Release) revision() string { return cmp.Or(r.Revision, DefaultRevision) }

// suffix is what the names of the release's objects end with.
func (r Release) suffix() string {
	if r.revision() == DefaultRevision {
		return ""
	}
	return "-" + r.Revision
}

// IstiodOf returns the name of the Deployment and the Service of a revision's istiod.
func IstiodOf(revision string) string { return Istiod + Release{Revision: revision}.suffix() }

// IsIstiod reports whether a Deployment of Istio's namespace is an istiod, of whatever revision.
func IsIstiod(deployment string) bool {
	return deployment == Istiod || strings.HasPrefix(deployment, Istiod+"-")
}

// Version returns the Istio that a cluster names. Plan and Preflight have checked that it is there.
func (o Options) Version(name string) Istio {
	if i, ok := o.Istios[name]; ok {
		return i
	}
	return o.Istio
}

// Release returns the version of Istio of that name.
func (m *Mesh) Release(istio string) (Istio, error) {
	if istio == "" {
		return m.options.Istio, nil
	}
	i, ok := m.options.Istios[istio]
	if !ok {
		return i, fmt.Errorf("the lab has no other version of Istio than %s: use a lab whose topology has `istio: %s`",
			m.options.Istio.Tag, istio)
	}
	return i, nil
}

// InstalledVersions returns the version of Istio that each cluster with a control plane was made with, by the tag of its
// images. Of a mesh that is somebody else's nobody has written it down.
func (m *Mesh) InstalledVersions() map[string]string {
	tags := map[string]string{}
	for _, c := range m.Clusters {
		if c.HasIstiod() && !m.Adopted {
			tags[c.Name] = m.options.Version(c.Istio).Tag
		}
	}
	return tags
}

// Istioctl is the name under which the istioctl of a version is on the PATH of `eastwest env`.
func Istioctl(version string) string {
	if version == "" {
		return "istioctl"
	}
	return "istioctl-" + version
}

// InstallCommand is what a person would type for InstallIstiod. The files are in the lab's folder once it has run.
func (r Release) InstallCommand(cluster string) string { return r.command(cluster, istiodPart) }

// GatewayCommand is what a person would type for UpgradeGateway. The files are in the lab's folder once it has run.
func (r Release) GatewayCommand(cluster string) string {
	return fmt.Sprintf("%s\nkubectl rollout restart deployment/%s -n %s --context=%s",
		r.command(cluster, gatewayPart), Gateway, SystemNamespace, cluster)
}

// IngressCommand is GatewayCommand for the gateway in front of an external istiod.
func (r Release) IngressCommand(cluster string) string {
	return fmt.Sprintf("%s\nkubectl rollout restart deployment/%s -n %s --context=%s",
		r.command(cluster, ingressPart), Ingress, IngressNamespace, cluster)
}

func (r Release) command(cluster, part string) string {
	command := Istioctl(r.Istio) + " install --context=" + cluster + " -y"
	if r.Revision != "" {
		command += " --revision=" + r.Revision
	}
	return command + fmt.Sprintf(` $(printf -- '-f %%s ' "$(dirname "$KUBECONFIG")"/mesh/%s/*.yaml)`, path.Join(cluster, r.folder(part)))
}

// The parts of a release that are installed on their own.
const (
	istiodPart  = "istiod"
	gatewayPart = "gateway"
	ingressPart = "ingress" // the gateway in front of an external istiod, with its control plane
)

// operatorOf has the names of the IstioOperators in the files of the parts.
var operatorOf = map[string]string{istiodPart: "istio", gatewayPart: "eastwest", ingressPart: "ingress"}

// folder is where the operator files of a part are, below those of the cluster. Their names have the order of their application.
func (r Release) folder(part string) string {
	return path.Join(cmp.Or(r.Istio, "current")+r.suffix(), part)
}

// InstallIstiod installs a control plane, or what stands for it in a remote cluster, beside those that are there or in place of
// one: as `istioctl install --revision=REV` does. It waits until that istiod serves: its pods are Ready, none of an older version is
// left under that name, and a pod that asks for the revision gets its proxy. For an external istiod, that is a pod in each cluster that
// it serves.
func (m *Member) InstallIstiod(ctx context.Context, r Release) error {
	istio, err := m.mesh.Release(r.Istio)
	if err == nil {
		err = m.free(ctx, r)
	}
	if err != nil {
		return err
	}
	// Versions have objects of the same names, as a test shows: nothing of the old one has to be deleted.
	objects, err := m.renderRelease(ctx, r, istio, istiodPart, m.operatorNames(m.mesh.as(r)))
	if err != nil {
		return err
	}
	if err := m.applyRelease(ctx, istio, objects); err != nil {
		return err
	}
	if m.Spec.HasIstiod() {
		if err := m.awaitRevision(ctx, r.revision(), istio); err != nil {
			return err
		}
	}
	if r.suffix() == "" {
		if err := m.retag(ctx); err != nil {
			return err
		}
	}
	if m.Spec.InMesh() {
		return m.AwaitInjector(ctx, r.revision(), r.revision())
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, served := range m.mesh.ServedBy(m.Name()) {
		group.Go(func() error { return served.awaitProxies(ctx, AppNamespace, istio) })
	}
	return group.Wait()
}

// applyRelease applies the objects of a version. Definitions never go back: objects may use what the newer ones allow.
func (m *Member) applyRelease(ctx context.Context, istio Istio, objects []object) error {
	definitions, control := split(objects, kind("CustomResourceDefinition"))
	if !m.mesh.hasNewer(istio) {
		if err := m.define(ctx, definitions); err != nil {
			return err
		}
	}
	return m.apply(ctx, control...)
}

// hasNewer reports whether the lab has a newer version of Istio.
func (m *Mesh) hasNewer(than Istio) bool {
	older := func(i Istio) bool { return minor(than.Tag) < minor(i.Tag) }
	return older(m.options.Istio) || slices.ContainsFunc(slices.Collect(maps.Values(m.options.Istios)), older)
}

// minor returns 31 for 1.31-eed52ebb66ad.
func minor(tag string) int {
	_, rest, _ := strings.Cut(tag, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, _ := strconv.Atoi(rest[:end]) // 0 if it is no version
	return n
}

// retag makes the default revision the tag default again: applying its webhook has undone what the tag changed in it.
func (m *Member) retag(ctx context.Context) error {
	tags, err := m.Tags(ctx)
	if err != nil || tags[DefaultTag] != DefaultRevision {
		return err
	}
	return m.SetTag(ctx, DefaultTag, DefaultRevision)
}

// as returns the options with which a release is rendered.
func (m *Mesh) as(r Release) Options {
	o := m.options
	if i, ok := o.Istios[r.Istio]; ok {
		o.Istio = i
	}
	o.Istios = nil // the clusters' own versions do not count
	return o
}

// free returns an error if the revision is taken. The installation without a revision may be replaced by another version.
func (m *Member) free(ctx context.Context, r Release) error {
	if !revisionName.MatchString(r.revision()) {
		return fmt.Errorf("revision %q: wanted lower-case letters, digits and dashes, like 1-31", r.Revision)
	}
	if r.suffix() == "" {
		return nil
	}
	known, err := m.Revisions(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(known, r.Revision) {
		return fmt.Errorf("%s has a revision %s already: install under another name, or remove it with `%s`",
			m.Name(), r.Revision, UninstallCommand(m.Name(), r.Revision))
	}
	return nil
}

var revisionName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$`)

// renderRelease writes the operator files of a part of a release into its folder and returns the objects that its istioctl makes of them.
func (m *Member) renderRelease(ctx context.Context, r Release, istio Istio, part string, sources []string) ([]object, error) {
	o := m.mesh.as(r)
	values := m.values(o)
	values["REVISION"], values["OPERATOR"], values["DISCOVERY"] = r.Revision, operatorOf[part], ""
	if m.mesh.IsRemote(m.Spec) {
		discovery, err := m.Primary().entranceAddress(ctx)
		if err != nil {
			return nil, err
		}
		values["DISCOVERY"] = discovery.String()
	}
	if r.suffix() != "" {
		sources = append(slices.Clone(sources), "revision.yaml")
	}
	var files []string
	for i, source := range sources {
		file := path.Join(r.folder(part), fmt.Sprintf("%d-%s", i+1, source))
		if _, err := m.write(values, file, []string{"istio/" + source}); err != nil {
			return nil, err
		}
		files = append(files, m.file(file))
	}
	objects, err := istio.render(ctx, o.Cache, files...)
	if err != nil {
		return nil, err
	}
	if part == ingressPart { // it has no revisions
		return objects, nil
	}
	return m.owned(objects, r.revision())
}

// owned returns objects with the labels by which istioctl uninstall finds them, as istioctl install adds them. Only meshes that
// are made for upgrades have them.
func (m *Member) owned(objects []object, revision string) ([]object, error) {
	if !m.mesh.Versioned() {
		return objects, nil
	}
	all := slices.Clone(objects)
	for i, o := range objects {
		if o.Kind == "CustomResourceDefinition" { // istioctl uninstall leaves it
			continue
		}
		var head struct {
			Metadata struct{ Labels map[string]string }
		}
		if err := json.Unmarshal(o.JSON, &head); err != nil {
			return nil, fmt.Errorf("reading %s: %w", o, err)
		}
		component := "Pilot"
		switch {
		case o.Name == readerAccount:
			component = "Base"
		case strings.HasPrefix(o.Name, Gateway):
			component = "IngressGateways"
		}
		component = cmp.Or(head.Metadata.Labels["operator.istio.io/component"], component)
		var err error
		if all[i], err = o.labeled(map[string]string{
			"operator.istio.io/component": component, RevisionLabel: revision,
			"install.operator.istio.io/owning-resource-namespace": SystemNamespace,
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// UpgradeGateway makes the east-west gateway one of a release, in place, and waits until all its pods are. Its old pods end as
// Kubernetes ends pods of a rollout: when a new one is Ready. In an external cluster it is the gateway in front of istiod.
func (m *Member) UpgradeGateway(ctx context.Context, r Release) error {
	istio, err := m.mesh.Release(r.Istio)
	if err != nil {
		return err
	}
	if m.Spec.External() {
		return m.upgradeIngress(ctx, r, istio)
	}
	known, err := m.Revisions(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(known, r.revision()) {
		return fmt.Errorf("%s has no revision %s that could make the gateway's proxies: it has %s", m.Name(), r.revision(), words.And(known))
	}
	objects, err := m.renderRelease(ctx, r, istio, gatewayPart, []string{"eastwest-gateway.yaml"})
	if err != nil {
		return err
	}
	if err := m.apply(ctx, objects...); err != nil {
		return err
	}
	// In place, nothing in the Deployment may have changed, and its pods keep the proxy that they were made with.
	return m.Restart(ctx, Gateway)
}

// upgradeIngress replaces the control plane of the gateway in front of an external istiod, and then the gateway.
func (m *Member) upgradeIngress(ctx context.Context, r Release, istio Istio) error {
	objects, err := m.renderRelease(ctx, r, istio, ingressPart, []string{"ingress.yaml"})
	if err != nil {
		return err
	}
	pods, control := split(objects, isIngress)
	if err := m.applyRelease(ctx, istio, control); err != nil {
		return err
	}
	if err := m.awaitIngressOf(ctx, istio); err != nil {
		return err
	}
	if err := m.apply(ctx, pods...); err != nil {
		return err
	}
	return m.Restart(ctx, Ingress)
}

// RestoreIngress gives the gateway in front of an external istiod new pods, of the version that the cluster was made with. Its
// objects have been put back already.
func (m *Member) RestoreIngress(ctx context.Context) error {
	istio, err := m.mesh.Release(m.Spec.Istio)
	if err != nil {
		return err
	}
	if err := m.awaitIngressOf(ctx, istio); err != nil {
		return err
	}
	return m.Restart(ctx, Ingress)
}

// awaitIngressOf waits until the control plane of the gateway in front of an external istiod runs in this version and makes proxies
// of it.
func (m *Member) awaitIngressOf(ctx context.Context, istio Istio) error {
	what := fmt.Sprintf("istiod %s for the ingress gateway in %s", istio.Tag, m.Name())
	if err := m.awaitVersion(ctx, what, ingressPods(Istiod), istio); err != nil {
		return err
	}
	return m.awaitProxies(ctx, IngressNamespace, istio)
}

// rightAnswers is how many answers of an injector have to be right in a row. Behind one Service there may be two.
const rightAnswers = 5

// awaitProxies waits until a new pod of a namespace would get a proxy of this version. The old istiod may answer for as long as the
// API server keeps its connection.
func (m *Member) awaitProxies(ctx context.Context, namespace string, istio Istio) error {
	what := fmt.Sprintf("proxies of istio %s for pods of namespace %s in %s", istio.Tag, namespace, m.Name())
	often := wait.Options{Within: UsuallyWithin, Every: 50 * time.Millisecond}
	right := 0
	return wait.Until(ctx, what, often, func(ctx context.Context) error {
		got, err := m.Inject(ctx, namespace, map[string]string{"sidecar.istio.io/inject": "true"})
		if err == nil && got.Image != istio.Image("proxyv2") {
			err = fmt.Errorf("it would be %s", cmp.Or(got.Image, "none"))
		}
		if err != nil {
			right = 0
			return err
		}
		if right++; right < rightAnswers {
			return fmt.Errorf("%d of %d answers in a row were right", right, rightAnswers)
		}
		return nil
	})
}

// Revisions returns the revisions of Istio in the cluster, sorted: as istioctl, by their injectors.
func (m *Member) Revisions(ctx context.Context) ([]string, error) {
	hooks, err := m.injectors(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, h := range hooks {
		if h.Labels[TagLabel] == "" {
			all = append(all, h.Labels[RevisionLabel])
		}
	}
	slices.Sort(all)
	return words.Unique(all), nil
}

// Tags returns the tags of the cluster and the revisions that they stand for.
func (m *Member) Tags(ctx context.Context) (map[string]string, error) {
	hooks, err := m.injectors(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, h := range hooks {
		if tag := h.Labels[TagLabel]; tag != "" {
			all[tag] = h.Labels[RevisionLabel]
		}
	}
	return all, nil
}

func (m *Member) injectors(ctx context.Context) ([]admissionv1.MutatingWebhookConfiguration, error) {
	list, err := m.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: RevisionLabel})
	if err != nil {
		return nil, fmt.Errorf("listing the injectors of %s: %w", m.Name(), err)
	}
	return slices.DeleteFunc(list.Items, func(h admissionv1.MutatingWebhookConfiguration) bool { return !m.Covers(&h) }), nil
}

// SetTagCommand is what SetTag runs.
func SetTagCommand(cluster, tag, revision string) string {
	return "istioctl tag set " + tag + " --revision=" + revision + " --overwrite --context=" + cluster
}

// SetTag makes a tag stand for a revision, and waits until a pod that asks for the tag gets a proxy of the revision. For the tag
// default istioctl also moves the webhook that validates Istio's objects.
func (m *Member) SetTag(ctx context.Context, tag, revision string) error {
	known, err := m.Revisions(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(known, revision) {
		return fmt.Errorf("tag %s cannot stand for revision %s: %s has %s", tag, revision, m.Name(), words.And(known))
	}
	if err := m.istioctl(ctx, SetTagCommand(m.Name(), tag, revision)); err != nil {
		return err
	}
	return m.AwaitInjector(ctx, tag, revision)
}

// UninstallCommand is what UninstallIstiod runs.
func UninstallCommand(cluster, revision string) string {
	return "istioctl uninstall --revision=" + revision + " --skip-confirmation --context=" + cluster
}

// UninstallIstiod removes everything that Istio has labelled with the revision, gateways included, and waits until its pods are
// gone.
func (m *Member) UninstallIstiod(ctx context.Context, revision string) error {
	known, err := m.Revisions(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(known, revision) {
		return fmt.Errorf("%s has no revision %s: it has %s", m.Name(), revision, words.And(known))
	}
	if err := m.istioctl(ctx, UninstallCommand(m.Name(), revision)); err != nil {
		return err
	}
	none := func(pods []*corev1.Pod) bool { return len(pods) == 0 }
	err = m.awaitPods(ctx, "the end of istiod of revision "+revision, istiodOf(revision), none)
	if err != nil {
		return err
	}
	// istioctl deletes Deployments in the foreground: they stay until their pods have drained.
	selected := metav1.ListOptions{LabelSelector: RevisionLabel + "=" + revision}
	often := wait.Options{Within: UsuallyWithin, Every: 200 * time.Millisecond}
	return wait.Until(ctx, "the end of revision "+revision+" in "+m.Name(), often, func(ctx context.Context) error {
		left, err := m.Kube.AppsV1().Deployments(SystemNamespace).List(ctx, selected)
		if err == nil && len(left.Items) > 0 {
			err = fmt.Errorf("its Deployment %s is still there", left.Items[0].Name)
		}
		return err
	})
}

// istiodOf matches the pods of a revision's istiod.
func istiodOf(revision string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return p.Namespace == SystemNamespace && p.Labels["app"] == Istiod && p.Labels[RevisionLabel] == revision
	}
}

// awaitRevision waits until a revision's istiod runs in this version and in no other.
func (m *Member) awaitRevision(ctx context.Context, revision string, istio Istio) error {
	what := fmt.Sprintf("istiod %s of revision %s in %s", istio.Tag, revision, m.Name())
	return m.awaitVersion(ctx, what, istiodOf(revision), istio)
}

// awaitVersion waits until the pods of an istiod are of this version and of no other, and one is Ready.
func (m *Member) awaitVersion(ctx context.Context, what string, its func(*corev1.Pod) bool, istio Istio) error {
	image := istio.Image("pilot")
	return m.awaitPods(ctx, what, its, func(pods []*corev1.Pod) bool {
		stays := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
		return anyReady(stays) && !slices.ContainsFunc(stays, func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image != image })
	})
}

// Injection is what the injectors of a cluster would make of a pod.
type Injection struct {
	Revision string // of the istiod that made the proxy
	Image    string // of the proxy
}

// Inject asks the injectors of the cluster, by a dry run, what they would make of a pod. Without a proxy the Injection is empty. The
// error is the API server's: a webhook that does not answer, or that refuses.
func (m *Member) Inject(ctx context.Context, namespace string, labels map[string]string) (Injection, error) {
	probe := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "injected-", Namespace: namespace, Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	pod, err := m.Kube.CoreV1().Pods(namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return Injection{}, err
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == "istio-proxy" {
			return Injection{Revision: pod.Annotations[RevisionLabel], Image: c.Image}, nil
		}
	}
	return Injection{}, nil
}

// RestartRevision restarts the istiod of a revision and waits until the new one injects proxies in its own cluster. In other clusters
// it may not be known, or not be reached.
func (m *Member) RestartRevision(ctx context.Context, revision string) error {
	if err := m.Restart(ctx, IstiodOf(revision)); err != nil {
		return err
	}
	return m.AwaitInjector(ctx, revision, revision)
}

// AwaitInjector waits until a pod that asks for a revision or a tag would get a proxy of a revision.
func (m *Member) AwaitInjector(ctx context.Context, asked, revision string) error {
	what := fmt.Sprintf("a proxy of revision %s for pods of %s that ask for %s", revision, m.Name(), asked)
	often := wait.Options{Within: UsuallyWithin, Every: 50 * time.Millisecond}
	return wait.Until(ctx, what, often, func(ctx context.Context) error {
		got, err := m.Inject(ctx, SystemNamespace, map[string]string{RevisionLabel: asked, "sidecar.istio.io/inject": "true"})
		if err == nil && got.Revision != revision {
			err = fmt.Errorf("it would be of %s", cmp.Or(got.Revision, "no revision"))
		}
		return err
	})
}

// ExposeCommand is what a person would type for ExposeIstiod.
func ExposeCommand(cluster, revision string) string {
	return fmt.Sprintf(`kubectl apply --context=%s -f "$(dirname "$KUBECONFIG")"/mesh/%[1]s/%s`, cluster, exposeFile(revision))
}

func exposeFile(revision string) string { return "expose-istiod-" + revision + ".yaml" }

// ExposeIstiod lets proxies and API servers of other clusters reach the istiod of a revision through the east-west gateway.
func (m *Member) ExposeIstiod(ctx context.Context, revision string) error {
	values := m.values(m.mesh.options)
	values["REVISION"] = revision
	objects, err := m.write(values, exposeFile(revision), []string{"istio/expose-istiod-revision.yaml"})
	if err != nil {
		return err
	}
	return m.apply(ctx, objects...)
}

// istioctl runs a command of istioctl against the cluster. Its first word is the program's name.
func (m *Member) istioctl(ctx context.Context, command string) error {
	has, ok := m.Cluster.(interface{ Kubeconfig() string })
	if !ok {
		return fmt.Errorf("%s: %s has no kubeconfig", command, m.Name())
	}
	// One that outlived a killed run would change the cluster while `eastwest run --undo` puts it back.
	cmd := host.Bound(ctx, m.mesh.options.Istio.Istioctl, strings.Fields(command)[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+has.Kubeconfig())
	_, err := host.Output(ctx, cmd)
	return err
}

// IstiodPages returns a page of the istiod of each revision in the cluster, by its newest Ready pod: see IstiodDebug.
func (m *Member) IstiodPages(ctx context.Context, page string) (map[string][]byte, error) {
	pods, err := m.ReadyPods(ctx, Istiod)
	if err != nil {
		return nil, err
	}
	return m.istiodPages(ctx, pods, page)
}

// IngressPages is IstiodPages of the control plane of the gateway in front of an external istiod: no pages where there is none.
func (m *Member) IngressPages(ctx context.Context, page string) (map[string][]byte, error) {
	pods, err := m.podsWhere(ctx, ingressPods(Istiod))
	if err != nil {
		return nil, err
	}
	return m.istiodPages(ctx, slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !Ready(p) }), page)
}

func (m *Member) istiodPages(ctx context.Context, pods []*corev1.Pod, page string) (map[string][]byte, error) {
	newest := map[string]*corev1.Pod{}
	for _, p := range pods {
		newest[RevisionOf(p)] = p
	}
	pages := map[string][]byte{}
	for revision, pod := range newest {
		body, err := m.pages.Get(ctx, pod, IstiodDebugPort, page)
		if err != nil {
			return nil, fmt.Errorf("reading istiod's %s of %s in %s: %w", page, pod.Name, m.Name(), err)
		}
		pages[revision] = body
	}
	return pages, nil
}

// Definitions names the definitions of Istio's kinds that the cluster has. It differs if one of them does.
func (m *Member) Definitions(ctx context.Context) (string, error) {
	there, err := m.defined(ctx)
	if err != nil {
		return "", err
	}
	slices.SortFunc(there, func(a, b metav1.PartialObjectMetadata) int { return strings.Compare(a.Name, b.Name) })
	sum := sha256.New()
	for _, o := range there {
		fmt.Fprintln(sum, o.Name, o.Annotations[sealAnnotation]) // what it was applied from
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// RestoreDefinitions makes the definitions of Istio's kinds those of the version that the cluster was made with.
func (m *Member) RestoreDefinitions(ctx context.Context) error {
	istio, err := m.mesh.Release(m.Spec.Istio)
	if err != nil {
		return err
	}
	definitions, err := istio.definitions(ctx, m.mesh.options.Cache)
	if err != nil {
		return err
	}
	return m.define(ctx, definitions)
}
