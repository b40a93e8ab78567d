package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"al.essio.dev/pkg/shellescape"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/util/jsonpath"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Resource returns the client of a kind in a cluster. The kind is written as people do: "Deployment", "deployments",
// "gateways.networking.istio.io". The namespace is ignored for kinds that have none.
func Resource(member *mesh.Member, kind, namespace string) (dynamic.ResourceInterface, error) {
	groups, err := restmapper.GetAPIGroupResources(member.Kube.Discovery())
	if err != nil {
		return nil, fmt.Errorf("asking %s for its kinds: %w", member.Name(), err)
	}
	mapper := restmapper.NewShortcutExpander(restmapper.NewDiscoveryRESTMapper(groups), member.Kube.Discovery(), nil)
	mapping, err := find(mapper, kind)
	if err != nil {
		return nil, fmt.Errorf("%s knows no kind %q: %w", member.Name(), kind, err)
	}
	client := member.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return client.Namespace(namespace), nil
	}
	return client, nil
}

func find(mapper meta.RESTMapper, kind string) (*meta.RESTMapping, error) {
	name, group, _ := strings.Cut(kind, ".")
	if mapping, err := mapper.RESTMapping(schema.GroupKind{Group: group, Kind: name}); err == nil {
		return mapping, nil
	}
	gvk, err := mapper.KindFor(schema.GroupVersionResource{Group: group, Resource: strings.ToLower(name)})
	if err != nil {
		return nil, err
	}
	return mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// Object checks an object of a cluster, or a value inside it.
type Object struct {
	// In which clusters; it has to hold in each.
	In strict.List[string] `yaml:"in" ref:"cluster" required:"true"`
	// The object's kind, like Secret or gateways.networking.istio.io.
	Kind string `yaml:"kind" required:"true"`
	// The object's name.
	Name string `yaml:"name" required:"true"`
	// The object's namespace; none for kinds without.
	Namespace string `yaml:"namespace" ref:"namespace"`
	// A value inside it, by JSONPath as kubectl takes it, like {.status.readyReplicas}.
	Path string `yaml:"path"`
	// The value, as text.
	Is *string `yaml:"is"`
	// What the value is like.
	Matches *regexp.Regexp `yaml:"matches"`
	// The object is not there, or with path, nothing is at the path.
	Absent bool `yaml:"absent"`
}

// Validate refuses what contradicts itself.
func (c Object) Validate() error {
	value := c.Is != nil || c.Matches != nil
	switch {
	case value && c.Path == "":
		return errors.New("is and matches compare a value: want path")
	case value && c.Absent:
		return strict.At("absent", errors.New("what is not there has no value: leave out is and matches"))
	}
	return nil
}

var _ Check = Object{}

func (c Object) what() string {
	what := c.Kind + " " + c.Name
	if c.Namespace != "" {
		what += " in namespace " + c.Namespace
	}
	if c.Path != "" {
		what = c.path() + " of " + what
	}
	return what
}

func (c Object) wanted() string {
	switch {
	case c.Absent:
		return "not there"
	case c.Is != nil:
		return fmt.Sprintf("%q", *c.Is)
	case c.Matches != nil:
		return "like " + quoted(c.Matches)
	}
	return "there"
}

func (c Object) String() string {
	return fmt.Sprintf("in %s %s is %s", words.And(c.In), c.what(), c.wanted())
}

func (c Object) path() string {
	if c.Path == "" || strings.HasPrefix(c.Path, "{") {
		return c.Path
	}
	return "{" + c.Path + "}"
}

// Command implements Check.
func (c Object) Command() string {
	lines := make([]string, len(c.In))
	for i, cluster := range c.In {
		lines[i] = fmt.Sprintf("kubectl --context=%s get %s %s", cluster, strings.ToLower(c.Kind), c.Name)
		if c.Namespace != "" {
			lines[i] += " -n " + c.Namespace
		}
		if c.Path != "" {
			lines[i] += " -o jsonpath=" + shellescape.Quote(c.path())
		}
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c Object) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	texts := make([]string, len(c.In))
	good := true
	for i, cluster := range c.In {
		member, err := m.Member(cluster)
		if err != nil {
			return "", err
		}
		value, there, err := c.read(ctx, member)
		if err != nil {
			return "", err
		}
		texts[i] = cluster + ": "
		switch {
		case !there:
			texts[i] += "not there"
		case c.Path != "":
			texts[i] += fmt.Sprintf("%q", words.Short(value, 300))
		default:
			texts[i] += "there"
		}
		good = good && there != c.Absent && (c.Is == nil || value == *c.Is) && (c.Matches == nil || c.Matches.MatchString(value))
	}
	seen := strings.Join(texts, "; ")
	if !good {
		return seen, &Mismatch{Wanted: c.what() + " " + c.wanted(), Seen: seen}
	}
	return seen, nil
}

func (c Object) read(ctx context.Context, member *mesh.Member) (value string, there bool, err error) {
	client, err := Resource(member, c.Kind, c.Namespace)
	if err != nil {
		return "", false, err
	}
	o, err := client.Get(ctx, c.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading %s %s in %s: %w", c.Kind, c.Name, member.Name(), err)
	}
	if c.Path == "" {
		return "", true, nil
	}
	parsed := jsonpath.New(c.Kind).AllowMissingKeys(true)
	if err := parsed.Parse(c.path()); err != nil {
		return "", false, fmt.Errorf("reading the path %s: %w", c.path(), err)
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, o.Object); err != nil {
		return "", false, fmt.Errorf("reading %s of %s %s in %s: %w", c.path(), c.Kind, c.Name, member.Name(), err)
	}
	return text.String(), text.Len() > 0, nil
}

// RolledOut checks that all pods of Deployments are of the newest version and Ready, and that no others are left.
type RolledOut struct {
	// Which workloads: apps like echo@cluster-b, istiod@cluster-b, or istio-eastwestgateway@cluster-b.
	Of strict.List[Workload] `yaml:"apps" ref:"workload" required:"true"`
}

var _ Check = RolledOut{}

func (c RolledOut) String() string { return "all pods of " + list(c.Of) + " are new and Ready" }

// Command implements Check.
func (c RolledOut) Command() string {
	lines := make([]string, len(c.Of))
	for i, w := range c.Of {
		lines[i] = fmt.Sprintf("kubectl --context=%s rollout status -n %s %s", w.Cluster, mesh.NamespaceOf(w.App), w.object())
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c RolledOut) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	texts := make([]string, len(c.Of))
	done := true
	for i, w := range c.Of {
		member, err := m.Member(w.Cluster)
		if err != nil {
			return "", err
		}
		d, err := member.Kube.AppsV1().Deployments(mesh.NamespaceOf(w.App)).Get(ctx, w.App, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("reading Deployment %s in %s: %w", w.App, w.Cluster, err)
		}
		seen, through := Rollout(d)
		texts[i] = w.String() + ": " + seen
		done = done && through
	}
	seen := strings.Join(texts, "; ")
	if !done {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// Rollout says how far a Deployment's rollout is, and whether it is complete: all its pods are new and Ready.
func Rollout(d *appsv1.Deployment) (seen string, through bool) {
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	s := d.Status
	if s.ObservedGeneration < d.Generation {
		return "its last change has not been taken up", false
	}
	return fmt.Sprintf("%d of %d pods new, %d Ready, %d in all", s.UpdatedReplicas, wanted, s.ReadyReplicas, s.Replicas),
		s.UpdatedReplicas == wanted && s.ReadyReplicas == wanted && s.Replicas == wanted
}
