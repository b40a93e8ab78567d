package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// NotOursError names objects that Install would make and that exist already without being the lab's.
type NotOursError struct {
	Objects []string // each with its context and its owner
}

func (e *NotOursError) Error() string {
	return "nothing was changed: these objects exist and are not this lab's, " +
		"and eastwest changes and deletes nothing that it has not made:\n  " +
		strings.Join(e.Objects, "\n  ") +
		"\nuse other clusters, or remove them; `eastwest up --adopt` uses an Istio that is there"
}

// Preflight checks that nothing that Install would make exists already without being the lab's, and that scenarios work
// on a mesh that is adopted. It writes the files of the mesh and does not change the clusters. If something exists, the
// error is a *NotOursError.
func Preflight(ctx context.Context, o Options) error {
	m, err := open(o)
	if err != nil {
		return err
	}
	defer m.Close()
	if !o.Topology.HasMesh() {
		return nil
	}
	if m.Adopted {
		if err := m.fits(ctx); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var found []string
	looking, ctx := errgroup.WithContext(ctx)
	for _, c := range m.Members {
		looking.Go(func() error {
			objects, err := c.makes(ctx, o)
			if err != nil {
				return err
			}
			of, bound := errgroup.WithContext(ctx)
			of.SetLimit(16)
			for _, object := range objects {
				of.Go(func() error {
					whose, err := c.notOurs(bound, object)
					if whose != "" {
						mu.Lock()
						defer mu.Unlock()
						found = append(found, whose)
					}
					return err
				})
			}
			return of.Wait()
		})
	}
	if err := looking.Wait(); err != nil {
		return fmt.Errorf("looking at what is there: %w", err)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return &NotOursError{slices.Compact(found)}
	}
	return nil
}

// Claim takes the clusters for the lab: it creates the namespaces that every mesh is in. An API server creates an object of one
// name once, so of two labs that find nothing in the way at the same moment, one gets the cluster. The other's error is a
// *NotOursError. All labs ask the clusters in the same order, so that one of them gets all that it asks for. Whoever gets an
// error deletes what it has created, by the lab's id, as after any failure.
func Claim(ctx context.Context, o Options) error {
	m, err := open(o)
	if err != nil {
		return err
	}
	defer m.Close()
	if !o.Topology.HasMesh() {
		return nil
	}
	return m.claim(ctx, o)
}

func (m *Mesh) claim(ctx context.Context, o Options) error {
	identities := map[*Member]string{}
	for _, c := range m.Members {
		system, err := c.Kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name(), err)
		}
		identities[c] = string(system.UID) // which is the cluster's, whatever it is called
	}
	ordered := slices.SortedFunc(slices.Values(m.Members), func(a, b *Member) int { return cmp.Compare(identities[a], identities[b]) })
	for _, c := range ordered {
		if m.Adopted && !c.Spec.InMesh() {
			continue // nothing is installed there
		}
		objects, err := c.write(c.values(o), "namespaces.yaml", c.namespaceFiles())
		if err != nil {
			return err
		}
		slices.SortFunc(objects, func(a, b object) int { return cmp.Compare(a.Name, b.Name) })
		for _, namespace := range objects {
			var theirs *NotOursError
			if err := c.create(ctx, namespace); errors.As(err, &theirs) {
				return theirs
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// create creates an object that is the lab's or not there. If it is another's, the error is a *NotOursError.
func (m *Member) create(ctx context.Context, o object) error {
	o, err := o.labeled(m.mesh.Labels())
	if err != nil {
		return err
	}
	return wait.Until(ctx, "creating "+o.String(), wait.Options{}, func(ctx context.Context) error {
		path := o.path()
		err := m.raw.Post().AbsPath(path[:strings.LastIndex(path, "/")]).Param("fieldManager", FieldManager).
			SetHeader("Accept", metadataOnly).Body([]byte(o.JSON)).Do(ctx).Error()
		// The guard of a cluster with other users forbids what it finds to be another's.
		if apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) {
			whose, problem := m.notOurs(ctx, o)
			switch {
			case whose != "":
				return wait.Permanent(&NotOursError{[]string{whose}})
			case problem != nil:
				return problem
			case apierrors.IsAlreadyExists(err):
				return nil // it is the lab's
			}
		}
		if err != nil && !tryAgain(err) {
			return wait.Permanent(err)
		}
		return err
	})
}

// makes returns the objects that Install makes in the cluster. Secrets have a name but no content.
func (m *Member) makes(ctx context.Context, o Options) ([]object, error) {
	all, err := m.write(m.values(o), "namespaces.yaml", m.namespaceFiles())
	if err != nil {
		return nil, err
	}
	// The address of the gateway is not known yet. No name depends on it.
	r, err := m.render(ctx, o, netip.IPv4Unspecified())
	if err != nil {
		return nil, err
	}
	all = slices.Concat(all, r.control, r.definitions, r.gateway, r.gatewayPods, r.ingress, r.ingressPods,
		r.services, r.rules, r.exposed, r.istiod, r.workloads, r.myPod)
	if m.mesh.Adopted {
		return all, nil
	}
	secrets := []string{tokenSecret(readerAccount), tokenSecret(istiodAccount)}
	if m.Spec.HasIstiod() {
		secrets = append(secrets, CACerts, configSecret)
		for _, of := range m.mesh.InMesh() {
			secrets = append(secrets, RemoteSecretName(of.Name()))
		}
	}
	for _, name := range secrets {
		all = append(all, object{APIVersion: "v1", Kind: "Secret", Namespace: SystemNamespace, Name: name})
	}
	return all, nil
}

// notOurs describes the object and its owner if it exists and is not the lab's. Otherwise it returns "".
func (m *Member) notOurs(ctx context.Context, o object) (string, error) {
	data, err := m.raw.Get().AbsPath(o.path()).SetHeader("Accept", metadataOnly).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: reading %s: %w", m.Name(), o, err)
	}
	var now metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &now); err != nil {
		return "", fmt.Errorf("%s: reading %s: %w", m.Name(), o, err)
	}
	whose := "no lab's"
	if lab := now.Labels[cluster.LabLabel]; lab != "" {
		whose = fmt.Sprintf("of lab %s, id %s", lab, now.Labels[cluster.IDLabel])
	}
	for name, value := range m.Labels() {
		if now.Labels[name] != value {
			return fmt.Sprintf("%s%s (%s)", o, m.inContext(), whose), nil
		}
	}
	return "", nil
}

// inContext returns " in CLUSTER", with the context by which the user knows the cluster if it is not the lab's own.
func (m *Member) inContext() string {
	if f, ok := m.Cluster.(cluster.Foreign); ok {
		return fmt.Sprintf(" in %s, context %q", m.Name(), f.Context())
	}
	return " in " + m.Name()
}

// adoption returns the steps that put the apps on a mesh that is there.
func (m *Mesh) adoption(o Options) plan {
	var p plan
	var ready []*task
	files := map[*Member]*rendered{}
	for _, c := range m.InMesh() {
		r := &rendered{}
		files[c] = r
		namespace := p.add("create the apps' namespace", c.Name(), c.kubectlApply("namespaces.yaml"), func(ctx context.Context) error {
			objects, err := c.write(c.values(o), "namespaces.yaml", c.namespaceFiles())
			if err != nil {
				return err
			}
			return c.apply(ctx, objects...)
		})
		services := p.add("create Services and accounts", c.Name(), c.kubectlApply("services.yaml"), func(ctx context.Context) (err error) {
			if *r, err = c.render(ctx, o, netip.Addr{}); err != nil {
				return err
			}
			return c.apply(ctx, r.services...)
		}, namespace)
		if m.IsConfig(c.Spec) {
			p.add("create DestinationRules", c.Name(), c.kubectlApply("rules.yaml"), func(ctx context.Context) error {
				return c.apply(ctx, r.rules...)
			}, services)
		}
		injecting := p.add("wait for injection", c.Name(), "", func(ctx context.Context) error {
			return c.injects(ctx, AppNamespace, "echo")
		}, services)
		ready = append(ready, p.addApps(c, r, injecting))
	}
	m.addProof(&p, o, files, ready)
	return p
}

// fits returns nil, or every reason why scenarios would not work on the Istio of the clusters.
func (m *Mesh) fits(ctx context.Context) error {
	problems := make([]error, len(m.Members))
	var looking errgroup.Group
	for i, c := range m.Members {
		looking.Go(func() error {
			problems[i] = c.fits(ctx)
			return nil
		})
	}
	_ = looking.Wait() // the errors are in problems
	return errors.Join(problems...)
}

// fits does the same for one cluster. Scenarios call clusters, networks and gateways by fixed names.
func (m *Member) fits(ctx context.Context) error {
	var problems []error
	bad := func(format string, a ...any) {
		problems = append(problems, fmt.Errorf("the Istio"+m.inContext()+" cannot be adopted: "+format, a...))
	}
	system, err := m.Kube.CoreV1().Namespaces().Get(ctx, SystemNamespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		bad("there is no namespace %s", SystemNamespace)
		return errors.Join(problems...)
	case err != nil:
		return err
	}
	if network := system.Labels["topology.istio.io/network"]; len(m.mesh.Networks()) > 1 && network != m.Spec.Network {
		bad("namespace %s is on the network %q, by its label topology.istio.io/network, and scenarios call it %s",
			SystemNamespace, network, m.Spec.Network)
	}
	if m.Spec.HasIstiod() {
		switch id, err := m.istiodsID(ctx); {
		case apierrors.IsNotFound(err):
			bad("there is no Deployment %s in namespace %s; control planes with a revision, or in another namespace, are not supported",
				Istiod, SystemNamespace)
		case err != nil:
			return err
		case id != m.values(Options{})["ID"]:
			bad("istiod calls the cluster %q, and scenarios call it %s: name the contexts in that order, "+
				"or install it with values.global.multiCluster.clusterName=%[2]s", id, m.values(Options{})["ID"])
		}
	}
	if m.mesh.HasGateway(m.Spec) {
		if _, err := m.Kube.CoreV1().Services(SystemNamespace).Get(ctx, Gateway, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			bad("there is no Service %s in namespace %s, by which other networks reach it", Gateway, SystemNamespace)
		} else if err != nil {
			return err
		}
	}
	return errors.Join(problems...)
}

// istiodsID returns the name by which the cluster's istiod knows its own cluster.
func (m *Member) istiodsID(ctx context.Context) (string, error) {
	d, err := m.Kube.AppsV1().Deployments(SystemNamespace).Get(ctx, Istiod, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, e := range c.Env {
			if e.Name == "CLUSTER_ID" {
				return e.Value, nil
			}
		}
	}
	return "Kubernetes", nil // Istio's own default
}
