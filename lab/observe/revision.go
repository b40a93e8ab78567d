package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// release returns the version of Istio that a file names.
func release(m *mesh.Mesh, name string) (mesh.Istio, error) {
	if name == "current" {
		name = ""
	}
	return m.Release(name)
}

// wantedTag returns the tag of the version that a file names, or "" if it names none.
func wantedTag(m *mesh.Mesh, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	istio, err := release(m, name)
	return istio.Tag, err
}

// ControlPlanes checks which control planes run in a cluster: their revisions, and their versions.
type ControlPlanes struct {
	// In which cluster.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// The revisions and the version of each; default is the one that was installed without a revision. There may be no others.
	Are map[string]string `yaml:"are" enum:"current,previous" required:"true"`
}

var _ Check = ControlPlanes{}

func (c ControlPlanes) String() string {
	return fmt.Sprintf("the control planes of %s are %s", c.In, pairsAnd(c.Are))
}

// pairsAnd returns a map as "1-31 current and default previous".
func pairsAnd(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+" "+m[name])
	}
	return words.And(all)
}

// Command implements Check.
func (c ControlPlanes) Command() string {
	return fmt.Sprintf("kubectl get pods -n %s -l app=%s -L %s --context=%s -o wide",
		mesh.SystemNamespace, mesh.Istiod, mesh.RevisionLabel, c.In)
}

// Look implements Check.
func (c ControlPlanes) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	wanted := map[string]string{}
	for revision, name := range c.Are {
		istio, err := release(m, name)
		if err != nil {
			return "", err
		}
		wanted[revision] = istio.Tag
	}
	pods, err := member.Pods(ctx, mesh.Istiod)
	if err != nil {
		return "", err
	}
	there := map[string]string{}
	for _, p := range pods {
		revision, tag := mesh.RevisionOf(p), mesh.ImageTag(p.Spec.Containers[0].Image)
		switch before, twice := there[revision]; {
		case p.DeletionTimestamp != nil:
		case !mesh.Ready(p):
			there[revision] = tag + " (not Ready)"
		case twice && before != tag:
			there[revision] = before + " and " + tag
		default:
			there[revision] = tag
		}
	}
	seen := cmp.Or(pairsAnd(there), "none")
	if !maps.Equal(wanted, there) {
		return seen, &Mismatch{Wanted: pairsAnd(wanted), Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// ServedBy checks which istiod serves the proxies of workloads, and of which version they are.
type ServedBy struct {
	// Which workloads, like echo@cluster-b or istio-eastwestgateway@cluster-a.
	Of strict.List[Workload] `yaml:"of" ref:"workload" required:"true"`
	// The revision of the istiod that they are connected to; default is the one that was installed without a revision.
	Revision string `yaml:"revision" name:"kebab"`
	// The version of the proxies.
	Istio string `yaml:"istio" enum:"current,previous"`
}

var _ Check = ServedBy{}

// Validate refuses a check that wants nothing.
func (c ServedBy) Validate() error {
	if c.Revision == "" && c.Istio == "" {
		return errors.New("it wants nothing: give revision, istio or both")
	}
	return nil
}

func (c ServedBy) String() string {
	var wants []string
	if c.Revision != "" {
		wants = append(wants, "are served by istiod of revision "+c.Revision)
	}
	if c.Istio != "" {
		wants = append(wants, "have the proxy of istio "+c.Istio)
	}
	return "the pods of " + list(c.Of) + " " + words.And(wants)
}

// Command implements Check.
func (c ServedBy) Command() string {
	var in []string
	for _, w := range c.Of {
		command := "istioctl proxy-status --context=" + w.Cluster
		if w.App == mesh.Ingress { // it has a control plane of its own
			command += " --istioNamespace=" + mesh.IngressNamespace
		}
		in = append(in, command)
	}
	return strings.Join(words.Unique(in), "\n")
}

// Look implements Check. It reads the pages of every istiod that may serve the workloads.
func (c ServedBy) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	tag, err := wantedTag(m, c.Istio)
	if err != nil {
		return "", err
	}
	connected := map[string]map[string]Served{}
	var all, bad []string
	for _, w := range c.Of {
		member, pods, err := All.pods(ctx, m, w)
		if err != nil {
			return "", err
		}
		primary := member.Primary().Name()
		if connected[primary] == nil {
			if connected[primary], err = Serving(ctx, member.Primary()); err != nil {
				return "", err
			}
		}
		for _, p := range pods {
			s, ok := connected[primary][p.Name+"."+p.Namespace]
			text := fmt.Sprintf("%s by %s, proxy %s", w, s.Revision, s.Version)
			if !ok {
				text = w.String() + " by none"
			}
			all = append(all, text)
			if !ok || c.Revision != "" && s.Revision != c.Revision || tag != "" && s.Version != tag {
				bad = append(bad, text)
			}
		}
	}
	seen := strings.Join(words.Unique(all), "; ")
	if len(bad) > 0 {
		return seen, &Mismatch{Wanted: c.wanted(tag), Seen: strings.Join(words.Unique(bad), "; "), Try: c.Command()}
	}
	return seen, nil
}

func (c ServedBy) wanted(tag string) string {
	var all []string
	if c.Revision != "" {
		all = append(all, "served by istiod of revision "+c.Revision)
	}
	if tag != "" {
		all = append(all, "proxies of "+tag)
	}
	return words.And(all)
}

// Served is a proxy and the istiod that serves it.
type Served struct {
	Synced
	Revision string // of the istiod
}

// Serving returns the proxies that the istiods of a cluster serve, by POD.NAMESPACE. Where an istiod has several pods, it is that of
// the newest Ready one. In an external cluster it has the gateway in front of istiod, too, which is served by an istiod of its own.
func Serving(ctx context.Context, primary *mesh.Member) (map[string]Served, error) {
	pages, err := primary.IstiodPages(ctx, "/debug/syncz")
	if err != nil {
		return nil, err
	}
	of := []map[string][]byte{pages}
	if primary.Spec.External() {
		front, err := primary.IngressPages(ctx, "/debug/syncz")
		if err != nil {
			return nil, err
		}
		of = append(of, front)
	}
	all := map[string]Served{}
	for _, pages := range of {
		for _, revision := range slices.Sorted(maps.Keys(pages)) {
			proxies, err := ParseSync(pages[revision])
			if err != nil {
				return nil, err
			}
			for _, s := range proxies {
				all[s.Proxy] = Served{s, revision}
			}
		}
	}
	return all, nil
}

// Injection checks, by a dry run, whose proxy a new pod of a namespace would get.
type Injection struct {
	// In which cluster.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// The namespace of the pod; production if left out.
	Namespace string `yaml:"namespace" name:"kebab"`
	// Labels of the pod.
	Labels map[string]string `yaml:"labels"`
	// The revision of the istiod that would make the proxy; somebody: whatever revision it is; nobody: the pod would start without one;
	// refused: it could not be made.
	By string `yaml:"by" example:"1-31" required:"true"`
	// The version of the proxy.
	Istio string `yaml:"istio" enum:"current,previous"`
	// With refused: a pattern that the API server's answer matches.
	Error *regexp.Regexp `yaml:"error"`
}

// Answers of the injectors that are no revision.
const (
	Somebody = "somebody"
	Nobody   = "nobody"
	Refused  = "refused"
)

var _ Check = Injection{}

// Validate refuses an error that cannot come, and a version of no proxy.
func (c Injection) Validate() error {
	if c.Istio != "" && (c.By == Nobody || c.By == Refused) {
		return strict.At("istio", errors.New("there is no proxy that could have a version"))
	}
	if c.Error != nil && c.By != Refused {
		return strict.At("error", errors.New("only with by: refused"))
	}
	return nil
}

func (c Injection) namespace() string { return cmp.Or(c.Namespace, mesh.AppNamespace) }

func (c Injection) String() string {
	what := "a new pod of namespace " + c.namespace()
	if len(c.Labels) > 0 {
		what += " with " + pairs(c.Labels)
	}
	switch c.By {
	case Nobody:
		return what + " in " + c.In + " gets no proxy"
	case Refused:
		if c.Error != nil {
			return fmt.Sprintf("%s in %s is refused like /%s/", what, c.In, c.Error)
		}
		return what + " in " + c.In + " is refused"
	}
	proxy := ""
	if c.Istio != "" {
		proxy = " of istio " + c.Istio
	}
	if c.By == Somebody {
		return what + " in " + c.In + " gets a proxy" + proxy
	}
	return fmt.Sprintf("%s in %s gets its proxy%s from revision %s", what, c.In, proxy, c.By)
}

// Command implements Check.
func (c Injection) Command() string {
	labels := ""
	if len(c.Labels) > 0 {
		labels = " --labels=" + strings.ReplaceAll(pairs(c.Labels), " ", ",")
	}
	path := "{.metadata.annotations}"
	if c.Istio != "" {
		path += " {..image}"
	}
	return fmt.Sprintf("kubectl run probe --image=probe -n %s%s --context=%s --dry-run=server -o jsonpath='%s'",
		c.namespace(), labels, c.In, path)
}

// Look implements Check.
func (c Injection) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	tag, err := wantedTag(m, c.Istio)
	if err != nil {
		return "", err
	}
	got, err := member.Inject(ctx, c.namespace(), c.Labels)
	if err != nil && ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	by, seen := cmp.Or(got.Revision, Nobody), "a new pod would get no proxy"
	switch {
	case err != nil:
		by, seen = Refused, "a new pod is refused: "+words.Short(err.Error(), 300)
	case got.Revision != "":
		seen = fmt.Sprintf("a new pod would get the proxy %s of revision %s", mesh.ImageTag(got.Image), got.Revision)
	}
	if c.By == Somebody && got.Revision != "" {
		by = Somebody
	}
	if by != c.By || c.Error != nil && !c.Error.MatchString(err.Error()) || tag != "" && mesh.ImageTag(got.Image) != tag {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// Validation checks whether Istio's objects are validated when they are written.
type Validation struct {
	// In which cluster.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// works: a wrong object is refused by istiod. off: nobody looks at it. broken: nothing of Istio can be written, since the webhook
	// leads nowhere.
	Is string `yaml:"is" enum:"works,off,broken" required:"true"`
	// With broken: a pattern that the API server's answer matches.
	Error *regexp.Regexp `yaml:"error"`
}

var _ Check = Validation{}

// States of the validation.
const (
	validationWorks  = "works"
	validationOff    = "off"
	validationBroken = "broken"
)

func (c Validation) String() string {
	switch c.Is {
	case validationOff:
		return "nobody validates Istio's objects in " + c.In
	case validationBroken:
		text := "no object of Istio can be written in " + c.In
		if c.Error != nil {
			text += fmt.Sprintf(", with an error like /%s/", c.Error)
		}
		return text
	}
	return "istiod validates Istio's objects in " + c.In
}

// Command implements Check.
func (c Validation) Command() string {
	return fmt.Sprintf("kubectl get validatingwebhookconfigurations --context=%s -o custom-columns="+
		"'NAME:.metadata.name,SERVICE:.webhooks[*].clientConfig.service.name,POLICY:.webhooks[*].failurePolicy'", c.In)
}

// wrongObject is refused by istiod and by nobody else: a VirtualService that routes nothing.
var wrongObject = map[string]any{
	"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
	"metadata": map[string]any{"generateName": "probe-", "namespace": mesh.AppNamespace},
	"spec":     map[string]any{"hosts": []any{"probe.example"}, "http": []any{map[string]any{}}},
}

// Look implements Check. It writes a wrong object as a dry run.
func (c Validation) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	resource := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
	o := &unstructured.Unstructured{Object: wrongObject}
	_, err = member.Dynamic.Resource(resource).Namespace(mesh.AppNamespace).
		Create(ctx, o.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil && ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	is, seen := validationOff, "a wrong object would be accepted"
	switch {
	case err == nil:
	case apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook"):
		is, seen = validationBroken, words.Short(err.Error(), 300)
	case strings.Contains(err.Error(), "denied the request"):
		is, seen = validationWorks, words.Short(err.Error(), 300)
	default:
		return "", err
	}
	if is != c.Is || c.Error != nil && (err == nil || !c.Error.MatchString(err.Error())) {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen, Try: c.Command()}
	}
	return seen, nil
}
