// Package existing makes a lab's clusters out of contexts of a kubeconfig: Kubernetes that is there already, made by
// any other tool, and that others may use, too.
//
// It needs credentials that may create what Istio is made of, cluster roles included; no route from this machine to
// pods, which it reaches through the API server. The kubeconfig is read and never written, and its current context does
// not matter. What the lab makes carries its labels, and a guard between all of our clients and the API servers refuses
// every write to what does not. Delete finds the lab's objects by its label. `go test ./lab/cluster/existing` needs no
// cluster; `go test ./tests/existing` makes some and hands over their kubeconfig.
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
	Home       string            // folder of all labs
	Kubeconfig string            // as in $KUBECONFIG; what kubectl takes when empty
	Contexts   []string          // in the order of Clusters
	Clusters   []string          // what the lab calls them
	Read       []string          // those whose API servers the istiods of others read
	APIServers map[string]string // by the lab's name: where those reach it; what the kubeconfig says if left out
	ID         string            // of the lab that Create makes
}

var _ cluster.Provider = (*Provider)(nil)

// answersWithin bounds every question that is asked before anything is made.
const answersWithin = 5 * time.Second

// Check implements cluster.Provider. It changes nothing.
func (p *Provider) Check(ctx context.Context) error {
	config, err := p.load()
	if err != nil {
		return err
	}
	if err := p.checkWords(config); err != nil {
		return err
	}
	return p.checkClusters(ctx, config)
}

// load reads the user's kubeconfig.
func (p *Provider) load() (*api.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.MigrationRules = nil // they write
	if p.Kubeconfig != "" {
		rules.Precedence = filepath.SplitList(p.Kubeconfig)
		for _, file := range rules.Precedence { // those that kubectl would pass over in silence
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
		return nil, fmt.Errorf(
			"reading the kubeconfig: there is no context in %s: name another file with --kubeconfig",
			strings.Join(rules.Precedence, ", "),
		)
	}
	return config, nil
}

// Contexts lists the contexts of a kubeconfig, sorted.
func Contexts(kubeconfig string) ([]string, error) {
	config, err := (&Provider{Kubeconfig: kubeconfig}).load()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(config.Contexts)), nil
}

// checkWords tells all that can be told without asking a cluster.
func (p *Provider) checkWords(config *api.Config) error {
	var problems []error
	bad := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	if len(p.Contexts) != len(p.Clusters) {
		bad("wanted a --context for each of %s, in this order; seen %d", strings.Join(p.Clusters, ", "), len(p.Contexts))
	}
	known := slices.Sorted(maps.Keys(config.Contexts))
	for i, name := range p.Contexts {
		switch c := config.Contexts[name]; {
		case c == nil:
			bad("there is no context %q in the kubeconfig: there are %s", name, strings.Join(known, ", "))
		case config.Clusters[c.Cluster] == nil:
			bad("context %q names the cluster %q, which the kubeconfig does not have", name, c.Cluster)
		case slices.Contains(p.Contexts[:i], name):
			bad("context %q is named twice: each of the lab's clusters has to be another one", name)
		case i < len(p.Clusters) && slices.Contains(p.Read, p.Clusters[i]):
			if problem := p.unreachable(p.Clusters[i], name, config.Clusters[c.Cluster].Server); problem != nil {
				problems = append(problems, problem)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.APIServers)) {
		u, err := url.Parse(p.APIServers[name])
		switch {
		case !slices.Contains(p.Clusters, name):
			bad("--api-server %s: the lab has no such cluster: it has %s", name, strings.Join(p.Clusters, ", "))
		case err != nil || u.Scheme != "https" || u.Host == "":
			bad("--api-server %s: wanted an address like https://10.0.0.1:6443, seen %q", name, p.APIServers[name])
		}
	}
	return errors.Join(problems...)
}

// unreachable says why no pod of another cluster can reach the API server.
func (p *Provider) unreachable(name, context, server string) error {
	server = cmp.Or(p.APIServers[name], server)
	if u, err := url.Parse(server); err != nil || !loopback(u.Hostname()) {
		return nil // what is no address the connection will tell
	}
	return fmt.Errorf(
		"%s (context %q): the address of its API server is %s, which is another machine for everybody else: istiod of the other "+
			"clusters has to reach it. "+
			"Give an address that they reach with --api-server %[1]s=https://ADDRESS:PORT (of a kind cluster: "+
			"https://NAME-control-plane:6443 or the container's own address, port 6443)",
		name,
		context,
		server,
	)
}

// loopback reports whether everybody means himself by the host.
func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback() || addr.IsUnspecified()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// checkClusters asks all clusters at once whether they are there, are different ones, and let us do what we have to.
func (p *Provider) checkClusters(ctx context.Context, config *api.Config) error {
	problems, uids := make([]error, len(p.Contexts)), make([]string, len(p.Contexts))
	var asking errgroup.Group
	for i, context := range p.Contexts {
		asking.Go(func() error {
			uids[i], problems[i] = ask(ctx, config, context)
			return nil
		})
	}
	_ = asking.Wait() // each has its own place for its problem
	if ctx.Err() != nil {
		return fmt.Errorf("asking the clusters: %w", context.Cause(ctx))
	}
	for i, uid := range uids {
		if other := slices.Index(uids[:i], uid); uid != "" && other >= 0 {
			problems = append(
				problems,
				fmt.Errorf(
					"contexts %q and %q are the same cluster: each of the lab's clusters has to be another one",
					p.Contexts[other],
					p.Contexts[i],
				),
			)
		}
	}
	return errors.Join(problems...)
}

// ask returns what tells the cluster from all others.
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
		return "", c.says(ctx, err)
	}
	all := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"},
	}}
	review, err := c.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, all, metav1.CreateOptions{})
	if err != nil {
		return "", c.says(ctx, err)
	}
	if !review.Status.Allowed {
		return "", fmt.Errorf(
			"context %q is not a cluster administrator's: Istio is cluster roles, webhooks and definitions of kinds, and Kubernetes lets "+
				"nobody grant what he may not do himself",
			context,
		)
	}
	return string(system.UID), nil
}

func contextWithin(ctx context.Context) (context.Context, context.CancelFunc) {
	return wait.TimeoutCause(ctx, answersWithin, "no answer")
}

// only returns a kubeconfig with nothing but a context, which is called as is everything in it. It needs no other file
// but those of credential plugins.
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

// info is what is written down of a cluster, beside its kubeconfig.
type info struct {
	Lab       string `json:"lab"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	Context   string `json:"context"`              // what the user calls it
	APIServer string `json:"api_server,omitempty"` // where other clusters reach it, if not where we do
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
	if spec.Index < 1 || spec.Index > len(p.Contexts) {
		return nil, fmt.Errorf("there is no context for %s: %d were given", spec.Name, len(p.Contexts))
	}
	config, err := p.load()
	if err != nil {
		return nil, err
	}
	context := p.Contexts[spec.Index-1]
	own, err := only(config, context, spec.Name)
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(
		info{Lab: spec.Lab, ID: p.ID, Name: spec.Name, Context: context, APIServer: p.APIServers[spec.Name]},
		"",
		"  ",
	)
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
	c, err := p.Open(spec.Lab, spec.Name)
	if err != nil {
		return nil, err
	}
	return c, c.Alive(ctx)
}

// Open returns a cluster of a lab, whether it answers or not.
func (p *Provider) Open(lab, name string) (*Cluster, error) {
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

// rounds bounds how often Delete looks again: what was asked for before an interrupt may come to be after the first look.
const rounds = 3

// Delete implements cluster.Provider: the clusters stay, and everything that carries the lab's id goes. Where one
// cluster has something in the way, nothing is deleted in any.
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
		if err != nil || !slices.ContainsFunc(removals, func(r *removal) bool { return r.some() }) {
			return err
		}
		if err := each(clusters, func(i int, _ *Cluster) error { return removals[i].run(ctx) }); err != nil {
			return err
		}
	}
	return fmt.Errorf("objects of lab %s come again after they were deleted: somebody makes them", lab)
}

// each does the same in all clusters at once, in each to its end.
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
	_ = all.Wait() // each has its own place for its problem
	return errors.Join(problems...)
}

// all opens the clusters of a lab that were written down.
func (p *Provider) all(lab string) ([]*Cluster, error) {
	entries, err := os.ReadDir(p.dir(lab))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*Cluster
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			c, err := p.Open(lab, name)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}
