package existing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// guard stands between our clients and an API server. It lets all reads pass. Of the writes, it lets pass those in the
// lab's own namespaces, those to objects with the lab's id, and new objects with the lab's labels. It answers
// everything else itself like an API server that forbids the request, because clients do not try that again. It looks
// before each write, and cannot see a change that somebody else makes in between.
type guard struct {
	info   info
	prefix string // of all paths of the server; "" unless it is a proxy of many clusters
	// labels returns the labels of the object with that path.
	labels func(ctx context.Context, path string) (labels map[string]string, found bool, err error)

	adopted atomic.Bool

	mu         sync.Mutex
	namespaces map[string]bool // the known namespaces of the lab
}

func newGuard(config *rest.Config, i info) (*guard, error) {
	bare := rest.CopyConfig(config)
	bare.GroupVersion = &schema.GroupVersion{}
	bare.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(bare)
	if err != nil {
		return nil, err
	}
	g := &guard{info: i, namespaces: map[string]bool{}}
	if u, err := url.Parse(config.Host); err == nil {
		g.prefix = strings.TrimSuffix(u.Path, "/")
	}
	g.labels = func(ctx context.Context, path string) (map[string]string, bool, error) {
		data, err := client.Get().AbsPath(path).
			SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		var o metav1.PartialObjectMetadata
		err = json.Unmarshal(data, &o)
		return o.Labels, true, err
	}
	return g, nil
}

func (g *guard) wrap(next http.RoundTripper) http.RoundTripper { return guarded{g, next} }

type guarded struct {
	*guard
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	refusal, err := g.refuses(r)
	if err != nil {
		return nil, fmt.Errorf("finding out whose object it is: %w", err)
	}
	if refusal == "" {
		return g.next.RoundTrip(r)
	}
	if r.Body != nil {
		_ = r.Body.Close() // as http.RoundTripper demands
	}
	status := apierrors.NewForbidden(schema.GroupResource{}, "", nil).Status()
	status.Message = refusal
	status.Kind, status.APIVersion = "Status", "v1"
	body, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status: "403 Forbidden", StatusCode: http.StatusForbidden, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)), Request: r,
	}, nil
}

// refuses returns the reason why the request must not be sent, or "" if it may be.
func (g *guard) refuses(r *http.Request) (string, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return "", nil
	}
	if slices.Contains(r.URL.Query()["dryRun"], metav1.DryRunAll) {
		return "", nil
	}
	t, ok := parse(strings.TrimPrefix(r.URL.Path, g.prefix))
	switch {
	case !ok:
		return fmt.Sprintf("%s %s changes something that is not an object: eastwest does not know whose it is", r.Method, r.URL.Path), nil
	case t.group == "authorization.k8s.io" || t.group == "authentication.k8s.io": // these only ask, and leave nothing behind
		return "", nil
	case t.resource == "pods" && t.subresource == "portforward": // this changes nothing
		return "", nil
	}
	if g.info.ID == "" {
		return fmt.Sprintf("%s of context %q: no lab has been made there yet", t, g.info.Context), nil
	}
	if t.namespace != "" {
		if ours, err := g.ours(r.Context(), t.namespace); ours || err != nil {
			return "", err
		}
	}
	body, err := read(r)
	if err != nil {
		return "", err
	}
	if t.name == "" && r.Method == http.MethodPost {
		t.name = body.Name
		if body.Name == "" { // the API server will give it a new name
			return g.unless(cluster.Labels(g.info.Lab, g.info.ID), body.Labels, t, "would not carry the labels of lab "), nil
		}
	}
	if t.name == "" {
		return fmt.Sprintf("%s of all %s: eastwest changes only the lab's objects, one by one", r.Method, t), nil
	}
	labels, found, err := g.labels(r.Context(), t.path())
	switch {
	case err != nil:
		return "", err
	case found && g.adopted.Load() && istios(labels):
		return "", nil
	case found:
		return g.unless(map[string]string{cluster.IDLabel: g.info.ID}, labels, t, "is not of lab "), nil
	case r.Method == http.MethodDelete: // there is nothing to delete
		return "", nil
	}
	return g.unless(cluster.Labels(g.info.Lab, g.info.ID), body.Labels, t, "would not carry the labels of lab "), nil
}

// unless returns a refusal, or "" if all wanted labels are there.
func (g *guard) unless(wanted, seen map[string]string, t target, what string) string {
	for name, value := range wanted {
		if seen[name] != value {
			return fmt.Sprintf("%s of context %q %s%s (%s): eastwest leaves it as it is", t, g.info.Context, what, g.info.Lab, carries(seen))
		}
	}
	return ""
}

// carries says which lab's labels an object has.
func carries(labels map[string]string) string {
	if lab := labels[cluster.LabLabel]; lab != "" {
		return fmt.Sprintf("it is of lab %s with the id %s", lab, labels[cluster.IDLabel])
	}
	return "it has no label of a lab"
}

// istios reports whether an object is from Istio's charts. Their roles, bindings and webhooks outside of namespaces
// have this label.
func istios(labels map[string]string) bool { return labels["app.kubernetes.io/part-of"] == "istio" }

// systemNamespaces are the namespaces of an adopted Istio.
var systemNamespaces = []string{"istio-system"}

// ours reports whether the namespace is the lab's own, or that of an adopted Istio.
func (g *guard) ours(ctx context.Context, namespace string) (bool, error) {
	if g.adopted.Load() && slices.Contains(systemNamespaces, namespace) {
		return true, nil
	}
	g.mu.Lock()
	known := g.namespaces[namespace]
	g.mu.Unlock()
	if known {
		return true, nil
	}
	labels, found, err := g.labels(ctx, "/api/v1/namespaces/"+namespace)
	if err != nil || !found || labels[cluster.IDLabel] != g.info.ID {
		return false, err
	}
	g.mu.Lock()
	g.namespaces[namespace] = true
	g.mu.Unlock()
	return true, nil
}

// target is the object of a request. Its name is empty if the request is for all objects of a kind, or makes a new one.
type target struct {
	root, group, namespace, resource, name, subresource string
}

// parse reads a path of the Kubernetes API. Namespaces are objects without a namespace.
func parse(path string) (target, bool) {
	words := strings.Split(strings.Trim(path, "/"), "/")
	var t target
	switch {
	case len(words) > 2 && words[0] == "api":
		t.root, words = strings.Join(words[:2], "/"), words[2:]
	case len(words) > 3 && words[0] == "apis":
		t.root, t.group, words = strings.Join(words[:3], "/"), words[1], words[3:]
	default:
		return t, false
	}
	if words[0] == "namespaces" && len(words) > 2 && words[2] != "finalize" && words[2] != "status" {
		t.namespace, words = words[1], words[2:]
	}
	t.resource = words[0]
	if len(words) > 1 {
		t.name = words[1]
	}
	if len(words) > 2 {
		t.subresource = words[2]
	}
	return t, true
}

// path returns the path of the object itself, without its subresource.
func (t target) path() string {
	path := "/" + t.root
	if t.namespace != "" {
		path += "/namespaces/" + t.namespace
	}
	return path + "/" + t.resource + "/" + t.name
}

func (t target) String() string {
	words := t.resource
	if t.group != "" {
		words += "." + t.group
	}
	if t.name != "" {
		words += "/" + t.name
	}
	if t.namespace != "" {
		words += " in namespace " + t.namespace
	}
	return words
}

// head is the part of an object that the guard reads.
type head struct {
	Name   string
	Labels map[string]string
}

// read returns the head of the object in the body. The body can still be sent. A patch that is not an object has no head.
func read(r *http.Request) (head, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return head{}, nil
	}
	data, err := io.ReadAll(r.Body)
	_ = r.Body.Close() // it has been read to the end, or failed
	r.Body = io.NopCloser(bytes.NewReader(data))
	if err != nil {
		return head{}, err
	}
	var o metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(data, &o); err != nil {
		return head{}, nil //nolint:nilerr // a list of changes, such as a JSON patch, makes no new object
	}
	return head{o.Name, maps.Clone(o.Labels)}, nil
}
