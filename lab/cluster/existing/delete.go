package existing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// goneWithin is how long an object may take to end. The pods of a namespace have to stop first.
const goneWithin = 2 * time.Minute

// removal is everything that has to go from a cluster, in the order in which it goes.
type removal struct {
	client metadata.Interface
	waves  [][]object
}

type object struct {
	schema.GroupVersionResource
	metav1.ObjectMeta
}

func (o object) String() string {
	return target{group: o.Group, namespace: o.Namespace, resource: o.Resource, name: o.Name}.String()
}

// Kinds with a place of their own in that order. Webhooks go first: without the servers behind them, the objects that they
// guard could not be changed.
var (
	webhooks    = []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}
	definitions = "customresourcedefinitions"
	namespaces  = "namespaces"
)

// find looks for all objects with the lab's id, of every kind that the cluster has. It deletes nothing. It returns an error
// if objects of others would go together with the lab's.
func (c *Cluster) find(ctx context.Context) (*removal, error) {
	if c.info.ID == "" {
		return nil, errors.New("the lab's id was not written down: its objects look like those of others")
	}
	client, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	kinds, err := c.kinds()
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	var mu sync.Mutex
	var all []object
	looking, bound := errgroup.WithContext(ctx)
	looking.SetLimit(16)
	for _, kind := range kinds {
		looking.Go(func() error {
			found, err := list(bound, client, kind, cluster.IDLabel+"="+c.info.ID)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, found...)
			return err
		})
	}
	if err := looking.Wait(); err != nil {
		return nil, c.failed(ctx, err)
	}
	r := &removal{client: client}
	r.waves = waves(all)
	return r, c.innocent(ctx, client, all, kinds)
}

// kinds lists the kinds of objects that can be listed and deleted. It leaves out API groups that do not answer: servers of
// others serve them, and a lab has no objects there.
func (c *Cluster) kinds() ([]schema.GroupVersionResource, error) {
	lists, err := c.kube.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, err
	}
	var all []schema.GroupVersionResource
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") && !strings.Contains(r.Name, "/") {
				all = append(all, gv.WithResource(r.Name))
			}
		}
	}
	return all, nil
}

// list returns the objects of a kind, in all namespaces.
func list(ctx context.Context, client metadata.Interface, kind schema.GroupVersionResource, selector string) ([]object, error) {
	var all []object
	options := metav1.ListOptions{LabelSelector: selector, Limit: 500}
	for {
		page, err := client.Resource(kind).List(ctx, options)
		switch {
		case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err): // the kind has just gone, or cannot be listed
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("listing %s: %w", kind.Resource, err)
		}
		for _, o := range page.Items {
			all = append(all, object{kind, o.ObjectMeta})
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return all, nil
		}
	}
}

// namesOfNamespaces returns the names of the namespaces among the objects.
func namesOfNamespaces(all []object) map[string]bool {
	names := map[string]bool{}
	for _, o := range all {
		if o.Resource == namespaces && o.Group == "" {
			names[o.Name] = true
		}
	}
	return names
}

// waves sorts the objects into the order of their removal. It leaves out those that go together with a namespace or an
// owner.
func waves(all []object) [][]object {
	own := namesOfNamespaces(all)
	waves := make([][]object, 4)
	for _, o := range all {
		wave := 2
		switch {
		case own[o.Namespace] && o.Namespace != "", len(o.OwnerReferences) > 0:
			continue
		case slices.Contains(webhooks, o.Resource):
			wave = 0
		case o.Resource == namespaces && o.Group == "":
			wave = 1
		case o.Resource == definitions:
			wave = 3
		}
		waves[wave] = append(waves[wave], o)
	}
	return waves
}

// innocent returns an error if objects of others would go together with custom resource definitions of the lab.
func (c *Cluster) innocent(ctx context.Context, client metadata.Interface, all []object, kinds []schema.GroupVersionResource) error {
	own := namesOfNamespaces(all)
	var others []string
	for _, o := range all {
		if o.Resource != definitions {
			continue
		}
		resource, group, _ := strings.Cut(o.Name, ".")
		for _, kind := range kinds {
			if kind.Resource != resource || kind.Group != group {
				continue
			}
			found, err := list(ctx, client, kind, cluster.IDLabel+"!="+c.info.ID)
			if err != nil {
				return c.failed(ctx, err)
			}
			for _, f := range found {
				if !own[f.Namespace] {
					others = append(others, f.String())
				}
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	return fmt.Errorf("nothing was deleted: the lab has made the custom resource definitions of these objects, which are not the lab's "+
		"and would be lost: %s: save them and delete them first", strings.Join(others, ", "))
}

// pending reports whether there is anything to delete.
func (r *removal) pending() bool {
	return slices.ContainsFunc(r.waves, func(wave []object) bool { return len(wave) > 0 })
}

// run deletes wave after wave, and waits for the end of each.
func (r *removal) run(ctx context.Context) error {
	for _, wave := range r.waves {
		deleting, bound := errgroup.WithContext(ctx)
		deleting.SetLimit(32)
		for _, o := range wave {
			deleting.Go(func() error { return r.delete(bound, o) })
		}
		if err := deleting.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (r *removal) delete(ctx context.Context, o object) error {
	client := r.client.Resource(o.GroupVersionResource).Namespace(o.Namespace)
	// The object of this name may not be the one that was found any more.
	err := client.Delete(ctx, o.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", o, err)
	}
	bounds := wait.Options{Within: goneWithin, Every: 200 * time.Millisecond}
	return wait.Until(ctx, "the end of "+o.String(), bounds, func(ctx context.Context) error {
		now, err := client.Get(ctx, o.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && now.UID != o.UID:
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("it is still there and waits for its finalizers %v", now.Finalizers)
	})
}
