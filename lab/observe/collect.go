package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Bounds of Collect.
const (
	collectWithin = 45 * time.Second // all of it
	collectEach   = 10 * time.Second // one file
	collectMost   = 16 << 20         // bytes of one file
)

// istiodPages are the pages of istiod that show what it knows and what it has sent to each proxy.
var istiodPages = []string{
	"/debug/syncz", "/debug/clusterz", "/debug/endpointShardz", "/debug/networkz", "/debug/mesh", "/debug/configz",
	"/debug/registryz", "/debug/instancesz", "/debug/push_status", "/metrics", "/version",
}

// proxyPages are pages of Envoy by the files they are saved in. Envoy itself removes private keys from them.
var proxyPages = map[string]string{
	"config.json": "/config_dump?include_eds", "clusters.txt": "/clusters", "certs.json": "/certs",
	"stats.txt": "/stats", "listeners.txt": "/listeners",
}

// Collect saves the evidence of all clusters, in a folder per cluster: objects, events, pages of proxies and istiod,
// certificates in use, logs, and what is below Kubernetes. Secrets are saved without their data. Collect saves what it can
// get within 45 s and lists the rest in problems.txt; only a folder that cannot be written is an error.
func Collect(ctx context.Context, m *mesh.Mesh, dir string) error {
	ctx, cancel := wait.Timeout(ctx, collectWithin)
	defer cancel()
	all := &collection{}
	var members sync.WaitGroup
	for _, member := range m.Members {
		members.Go(func() {
			c := &collector{collection: all, member: member, dir: filepath.Join(dir, member.Name())}
			c.group.SetLimit(8)
			c.run(func() error {
				bound, cancel := wait.Timeout(ctx, collectEach)
				defer cancel()
				return member.Dump(bound, filepath.Join(c.dir, "node"))
			}, "below Kubernetes")
			c.save(ctx, "certificates.txt", func(ctx context.Context) ([]byte, error) { return certificates(ctx, m, member) })
			c.objects(ctx)
			c.pods(ctx)
			_ = c.group.Wait() // problems are in the collection
		})
	}
	members.Wait()
	if len(all.problems) == 0 {
		return all.unwritten
	}
	slices.Sort(all.problems)
	return errors.Join(all.unwritten, write(filepath.Join(dir, "problems.txt"), []byte(strings.Join(all.problems, "\n")+"\n")))
}

// collection is what all collectors share.
type collection struct {
	mu        sync.Mutex
	problems  []string // what could not be read, and why
	unwritten error    // files that could not be written
}

// collector collects from one cluster, so that a cluster that does not answer delays no other.
type collector struct {
	*collection
	group  errgroup.Group
	member *mesh.Member
	dir    string
}

// run does one part, and records its error as a problem.
func (c *collector) run(do func() error, what string) {
	c.group.Go(func() error {
		if err := do(); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.problems = append(c.problems, c.member.Name()+": "+what+": "+err.Error())
		}
		return nil
	})
}

// save writes what get returns into a file, cut if it is too long.
func (c *collector) save(ctx context.Context, file string, get func(context.Context) ([]byte, error)) {
	c.run(func() error {
		bound, cancel := wait.Timeout(ctx, collectEach)
		defer cancel()
		data, err := get(bound)
		if len(data) > collectMost {
			data = append(data[:collectMost], "\n… cut here\n"...)
		}
		if len(data) == 0 {
			return err
		}
		if failed := write(filepath.Join(c.dir, file), data); failed != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.unwritten = errors.Join(c.unwritten, failed)
		}
		return err
	}, file)
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("saving evidence: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("saving evidence: %w", err)
	}
	return nil
}

// kinds are the kinds of objects that are saved. They are not asked for: a frozen API server would delay that.
var kinds = []schema.GroupVersionResource{
	{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "events"},
	{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "nodes"}, {Version: "v1", Resource: "configmaps"},
	{Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "secrets"},
	{Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
	{Group: "networking.istio.io", Version: "v1", Resource: "gateways"},
	{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	{Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"},
	{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
	{Group: "networking.istio.io", Version: "v1", Resource: "sidecars"},
	{Group: "networking.istio.io", Version: "v1alpha3", Resource: "envoyfilters"},
	{Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"},
	{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
}

// objects saves objects of Kubernetes and Istio, a file per kind.
func (c *collector) objects(ctx context.Context) {
	for _, kind := range kinds {
		c.save(ctx, filepath.Join("objects", kind.Resource+".yaml"), func(ctx context.Context) ([]byte, error) {
			list, err := c.member.Dynamic.Resource(kind).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				return nil, nil // this mesh does not have the kind
			}
			if err != nil {
				return nil, err
			}
			list.Items = slices.DeleteFunc(list.Items, func(o unstructured.Unstructured) bool { return !c.member.Covers(&o) })
			for _, o := range list.Items {
				o.SetManagedFields(nil)
				if kind.Resource == "secrets" {
					hideData(o.Object)
				}
			}
			return yaml.Marshal(list.Items)
		})
	}
}

// hideData replaces the values of a Secret by their lengths.
func hideData(secret map[string]any) {
	data, _ := secret["data"].(map[string]any)
	for key, value := range data {
		text, _ := value.(string)
		data[key] = fmt.Sprintf("(%d characters of base64)", len(text))
	}
	if metadata, ok := secret["metadata"].(map[string]any); ok {
		if annotations, ok := metadata["annotations"].(map[string]any); ok {
			delete(annotations, corev1.LastAppliedConfigAnnotation) // it repeats the data
		}
	}
}

// pods saves logs, and the pages of proxies and istiod.
func (c *collector) pods(ctx context.Context) {
	listing, cancel := wait.Timeout(ctx, collectEach)
	defer cancel()
	list, err := c.member.Kube.CoreV1().Pods(metav1.NamespaceAll).List(listing, metav1.ListOptions{})
	if err != nil {
		c.run(func() error { return err }, "listing pods")
		return
	}
	for i := range list.Items {
		p := &list.Items[i]
		if !c.member.Covers(p) {
			continue
		}
		dir := filepath.Join("pods", p.Namespace+"."+p.Name)
		proxy := false
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			proxy = proxy || s.Name == ProxyContainer && s.State.Running != nil
			if s.State.Running != nil || s.State.Terminated != nil {
				c.log(ctx, dir, p, s.Name, false)
			}
			if s.RestartCount > 0 {
				c.log(ctx, dir, p, s.Name, true)
			}
		}
		if proxy {
			for file, page := range proxyPages {
				c.save(ctx, filepath.Join(dir, file), func(ctx context.Context) ([]byte, error) { return c.member.Admin(ctx, p, page) })
			}
		}
	}
	if !c.member.Spec.HasIstiod() {
		return
	}
	for _, page := range istiodPages {
		name := strings.ReplaceAll(strings.TrimPrefix(page, "/"), "/", "-")
		c.save(ctx, filepath.Join("istiod", name), func(ctx context.Context) ([]byte, error) { return c.member.IstiodDebug(ctx, page) })
	}
}

func (c *collector) log(ctx context.Context, dir string, p *corev1.Pod, container string, previous bool) {
	file := container + ".log"
	if previous {
		file = container + ".previous.log"
	}
	c.save(ctx, filepath.Join(dir, file), func(ctx context.Context) ([]byte, error) {
		text, err := podLog(ctx, c.member, p, container, 0, previous)
		if previous && (apierrors.IsBadRequest(err) || apierrors.IsNotFound(err)) {
			return nil, nil // the kubelet has deleted it
		}
		return []byte(text), err
	})
}

// certificates returns a text with the roots in cacerts and, for each proxy of a cluster, the roots that it trusts and the
// certificates that it shows.
func certificates(ctx context.Context, m *mesh.Mesh, member *mesh.Member) ([]byte, error) {
	var text strings.Builder
	data, err := secretFile(ctx, m, member.Name(), mesh.CACerts, pki.RootCertFile)
	switch {
	case errors.Is(err, errAbsent):
		fmt.Fprintf(&text, "%v\n", err)
	case err == nil:
		fmt.Fprintln(&text, "roots in the Secret cacerts:")
		roots, err := pki.Roots(data)
		if err != nil {
			fmt.Fprintf(&text, "  %v\n", err)
		}
		for _, c := range roots {
			fmt.Fprintf(&text, "  %s\n", pki.Describe(c))
		}
	}
	pods, failed := proxyPods(ctx, member)
	err = errors.Join(err, failed)
	for _, p := range pods {
		proxy, failed := readProxy(ctx, p)
		fmt.Fprintf(&text, "\n%s in namespace %s, made %s\n", p.Name, p.Namespace, p.CreationTimestamp.Format(time.RFC3339))
		if failed != nil {
			fmt.Fprintf(&text, "  %v\n", failed)
			continue
		}
		fmt.Fprintln(&text, "  trusts:")
		for _, c := range proxy.Roots {
			fmt.Fprintf(&text, "    %s\n", pki.Describe(c))
		}
		fmt.Fprintln(&text, "  shows:")
		for _, c := range proxy.Chain {
			fmt.Fprintf(&text, "    %s\n", pki.Describe(c))
		}
	}
	if errors.Is(err, errAbsent) {
		err = nil
	}
	return []byte(text.String()), err
}
