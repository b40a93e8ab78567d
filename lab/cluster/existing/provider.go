// Package existing makes a lab's clusters out of contexts of a kubeconfig: Kubernetes clusters that any other tool has made,
// and that others may use as well.
//
// It needs credentials that may create all parts of Istio, including cluster roles. It needs no route from this machine to
// pods: it reaches them through the API server. The kubeconfig is read and never written, and its current context does
// not matter. Everything that the lab makes carries the lab's labels. A guard between all of our clients and the API servers
// refuses writes to any other object. Delete finds the lab's objects by their label. `go test ./lab/cluster/existing`
// needs no cluster. `go test ./tests/existing` makes clusters and hands over their kubeconfig.
package existing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Provider takes clusters that are there.
type Provider struct {
	cluster.Lab
	Settings Settings
}

var _ cluster.Provider = (*Provider)(nil)

// answersWithin bounds every request to an API server before anything is made.
const answersWithin = 5 * time.Second

// Check implements cluster.Provider. It changes nothing.
func (p *Provider) Check(ctx context.Context) error {
	config, err := load(p.Settings.Kubeconfig)
	if err != nil {
		return err
	}
	if err := p.checkSettings(config); err != nil {
		return err
	}
	return p.checkClusters(ctx, config)
}

// load reads the user's kubeconfig.
func load(kubeconfig files) (*api.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.MigrationRules = nil // they write files
	if kubeconfig != "" {
		rules.Precedence = filepath.SplitList(string(kubeconfig))
		for _, file := range rules.Precedence { // a missing one would be ignored
			if _, err := os.Stat(file); err != nil {
				return nil, fmt.Errorf("reading the kubeconfig: %w", err)
			}
		}
	}
	config, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if len(config.Contexts) == 0 {
		return nil, fmt.Errorf("reading the kubeconfig: there is no context in %s: name another file with --kubeconfig",
			strings.Join(rules.Precedence, ", "))
	}
	return config, nil
}

// checkSettings returns all problems that can be found without a request to a cluster.
func (p *Provider) checkSettings(config *api.Config) error {
	contexts, addresses := p.Settings.Contexts, p.Settings.APIServers
	var problems []error
	bad := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	if len(contexts) != len(p.Clusters) {
		bad("wanted a --context for each of %s, in this order; seen %d", strings.Join(p.Clusters, ", "), len(contexts))
	}
	known := slices.Sorted(maps.Keys(config.Contexts))
	for i, name := range contexts {
		switch c := config.Contexts[name]; {
		case c == nil:
			bad("there is no context %q in the kubeconfig: there are %s", name, strings.Join(known, ", "))
		case config.Clusters[c.Cluster] == nil:
			bad("context %q names the cluster %q, which the kubeconfig does not have", name, c.Cluster)
		case slices.Contains(contexts[:i], name):
			bad("context %q is named twice: wanted a different cluster for each of the lab's", name)
		case i < len(p.Clusters) && slices.Contains(p.ReadByOthers, p.Clusters[i]):
			if problem := p.unreachable(p.Clusters[i], name, config.Clusters[c.Cluster].Server); problem != nil {
				problems = append(problems, problem)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		u, err := url.Parse(addresses[name])
		switch {
		case !slices.Contains(p.Clusters, name):
			bad("--api-server %s: the lab has no such cluster: it has %s", name, strings.Join(p.Clusters, ", "))
		case err != nil || u.Scheme != "https" || u.Host == "":
			bad("--api-server %s: wanted an address like https://10.0.0.1:6443, seen %q", name, addresses[name])
		}
	}
	return errors.Join(problems...)
}

// unreachable returns an error if no pod of another cluster can reach the API server.
func (p *Provider) unreachable(name, context, server string) error {
	server = cmp.Or(p.Settings.APIServers[name], server)
	if u, err := url.Parse(server); err != nil || !loopback(u.Hostname()) {
		return nil // if it is not an address, the connection attempt will say so
	}
	return fmt.Errorf("%s (context %q): the address of its API server is %s, which istiods of the other clusters cannot reach: "+
		"to them it is their own machine. Name an address that they reach with --api-server %[1]s=https://ADDRESS:PORT "+
		"(of a kind cluster: https://NAME-control-plane:6443 or the container's own address, port 6443)", name, context, server)
}

// loopback reports whether the host means the own machine, wherever it is used.
func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback() || addr.IsUnspecified()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// checkClusters asks all clusters at once. It returns an error if one does not answer, if two contexts are the same cluster,
// or if we lack rights.
func (p *Provider) checkClusters(ctx context.Context, config *api.Config) error {
	contexts := p.Settings.Contexts
	problems, uids := make([]error, len(contexts)), make([]string, len(contexts))
	var asking errgroup.Group
	for i, context := range contexts {
		asking.Go(func() error {
			uids[i], problems[i] = ask(ctx, config, context)
			return nil
		})
	}
	_ = asking.Wait() // the errors are in problems
	if ctx.Err() != nil {
		return fmt.Errorf("asking the clusters: %w", context.Cause(ctx))
	}
	for i, uid := range uids {
		if other := slices.Index(uids[:i], uid); uid != "" && other >= 0 {
			problems = append(problems, fmt.Errorf("contexts %q and %q are the same cluster: wanted a different cluster for each of the lab's",
				contexts[other], contexts[i]))
		}
	}
	return errors.Join(problems...)
}

// ask returns an id that no other cluster has, if the cluster answers and we have all rights.
func ask(ctx context.Context, config *api.Config, context string) (uid string, err error) {
	ctx, cancel := contextWithin(ctx)
	defer cancel()
	own, err := only(config, context, context)
	if err != nil {
		return "", err
	}
	c, err := newCluster(own, info{Name: context, Context: context})
	if err != nil {
		return "", err
	}
	system, err := c.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", c.failed(ctx, err)
	}
	all := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"},
	}}
	review, err := c.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, all, metav1.CreateOptions{})
	if err != nil {
		return "", c.failed(ctx, err)
	}
	if !review.Status.Allowed {
		return "", fmt.Errorf("context %q has not the rights of a cluster administrator, which Istio's cluster roles, webhooks "+
			"and custom resource definitions need: Kubernetes lets no user grant more rights than their own", context)
	}
	return string(system.UID), nil
}

func contextWithin(ctx context.Context) (context.Context, context.CancelFunc) {
	return wait.TimeoutCause(ctx, answersWithin, "no answer")
}

// only returns a kubeconfig with one context. Context, cluster and user get the name as. Files that the original names are
// part of it, except programs that fetch credentials.
func only(config *api.Config, context, as string) (*api.Config, error) {
	all := config.DeepCopy()
	all.CurrentContext = context
	if err := api.MinifyConfig(all); err != nil {
		return nil, fmt.Errorf("reading context %q: %w", context, err)
	}
	if err := api.FlattenConfig(all); err != nil {
		return nil, fmt.Errorf("reading context %q: %w", context, err)
	}
	own := api.NewConfig()
	own.CurrentContext = as
	for _, c := range all.Contexts {
		own.Contexts[as] = &api.Context{Cluster: as, AuthInfo: as}
		if cluster := all.Clusters[c.Cluster]; cluster != nil {
			cluster.LocationOfOrigin = ""
			own.Clusters[as] = cluster
		}
		own.AuthInfos[as] = api.NewAuthInfo()
		if user := all.AuthInfos[c.AuthInfo]; user != nil {
			user.LocationOfOrigin = ""
			own.AuthInfos[as] = user
		}
	}
	return own, nil
}

// info is written down for each cluster, beside its kubeconfig.
type info struct {
	Lab       string `json:"lab"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	Context   string `json:"context"`              // the user's name for it
	APIServer string `json:"api_server,omitempty"` // its address for other clusters, if they need another one than we do
}

func (p *Provider) dir(lab string) string { return filepath.Join(p.Home, "labs", lab, "existing") }

func (p *Provider) infoFile(lab, name string) string {
	return filepath.Join(p.dir(lab), name+".json")
}

func (p *Provider) kubeconfigFile(lab, name string) string {
	return filepath.Join(p.dir(lab), name+".kubeconfig")
}

// Create implements cluster.Provider: it writes down which cluster is meant, with the credentials, and makes nothing.
func (p *Provider) Create(ctx context.Context, spec cluster.Spec) (cluster.Cluster, error) {
	contexts := p.Settings.Contexts
	if spec.Index < 1 || spec.Index > len(contexts) {
		return nil, fmt.Errorf("there is no context for %s: %d were given", spec.Name, len(contexts))
	}
	config, err := load(p.Settings.Kubeconfig)
	if err != nil {
		return nil, err
	}
	context := contexts[spec.Index-1]
	own, err := only(config, context, spec.Name)
	if err != nil {
		return nil, err
	}
	written := info{Lab: spec.Lab, ID: p.ID, Name: spec.Name, Context: context, APIServer: p.Settings.APIServers[spec.Name]}
	data, err := json.MarshalIndent(written, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.dir(spec.Lab), 0o700); err != nil {
		return nil, fmt.Errorf("writing down %s: %w", spec.Name, err)
	}
	if err := clientcmd.WriteToFile(*own, p.kubeconfigFile(spec.Lab, spec.Name)); err != nil { // with mode 0600
		return nil, fmt.Errorf("writing down %s: %w", spec.Name, err)
	}
	if err := os.WriteFile(p.infoFile(spec.Lab, spec.Name), append(data, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("writing down %s: %w", spec.Name, err)
	}
	c, err := p.open(spec.Lab, spec.Name)
	if err != nil {
		return nil, err
	}
	return c, c.Alive(ctx)
}

// Open implements cluster.Provider.
func (p *Provider) Open(lab, name string) (cluster.Cluster, error) {
	return cluster.Opened(p.open(lab, name))
}

func (p *Provider) open(lab, name string) (*Cluster, error) {
	data, err := os.ReadFile(p.infoFile(lab, name))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	var i info
	if err := json.Unmarshal(data, &i); err != nil {
		return nil, fmt.Errorf("opening %s: reading %s: %w", name, p.infoFile(lab, name), err)
	}
	config, err := clientcmd.LoadFromFile(p.kubeconfigFile(lab, name))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	c, err := newCluster(config, i)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	c.kubeconfig = p.kubeconfigFile(lab, name)
	return c, nil
}

// rounds is how often Delete looks for objects: one that was requested just before an interrupt may appear after the first look.
const rounds = 3

// Delete implements cluster.Provider: the clusters stay, and all objects with the lab's id go. If one cluster has a reason
// against that, nothing is deleted in any.
func (p *Provider) Delete(ctx context.Context, lab string) error {
	clusters, err := p.all(lab)
	if err != nil {
		return err
	}
	for range rounds {
		removals := make([]*removal, len(clusters))
		err := each(clusters, func(i int, c *Cluster) (err error) {
			removals[i], err = c.find(ctx)
			return err
		})
		if err != nil || !slices.ContainsFunc(removals, func(r *removal) bool { return r.pending() }) {
			return err
		}
		if err := each(clusters, func(i int, _ *Cluster) error { return removals[i].run(ctx) }); err != nil {
			return err
		}
	}
	return fmt.Errorf("objects of lab %s appear again after they were deleted: somebody else makes them", lab)
}

// each calls do for all clusters at once, and returns all errors.
func each(clusters []*Cluster, do func(i int, c *Cluster) error) error {
	problems := make([]error, len(clusters))
	var all errgroup.Group
	for i, c := range clusters {
		all.Go(func() error {
			if err := do(i, c); err != nil {
				problems[i] = fmt.Errorf("%s (context %q): %w", c.Name(), c.info.Context, err)
			}
			return nil
		})
	}
	_ = all.Wait() // the errors are in problems
	return errors.Join(problems...)
}

// all opens all clusters of a lab that are written down.
func (p *Provider) all(lab string) ([]*Cluster, error) {
	entries, err := os.ReadDir(p.dir(lab))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*Cluster
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			c, err := p.open(lab, name)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}
