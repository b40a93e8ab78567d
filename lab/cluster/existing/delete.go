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

// goneWithin bounds the end of an object. Pods of a namespace may take their time to stop.
const goneWithin = 2 * time.Minute

// removal is what has to go from a cluster, in the order in which it goes.
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

// Kinds that go at a time of their own. Webhooks come first: what they guard could not be changed without them.
var (
	webhooks    = []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}
	definitions = "customresourcedefinitions"
	namespaces  = "namespaces"
)

// find looks for everything that carries the lab's id, in all kinds of objects that the cluster knows. It deletes
// nothing, and is an error if something that is not the lab's would go along.
func (c *Cluster) find(ctx context.Context) (*removal, error) {
	if c.info.ID == "" {
		return nil, errors.New("the lab's id was not written down: nothing tells its objects from those of others")
	}
	client, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	kinds, err := c.kinds()
	if err != nil {
		return nil, c.says(ctx, err)
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
		return nil, c.says(ctx, err)
	}
	r := &removal{client: client}
	r.waves = waves(all)
	return r, c.innocent(ctx, client, all, kinds)
}

// kinds lists the kinds of objects that can be listed and deleted. Groups that do not answer are left out: they are
// served by others, and a lab makes nothing of them.
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
		case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err): // a kind that has just gone, or cannot be listed after all
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

// spaces are the namespaces among the objects, by name.
func spaces(all []object) map[string]bool {
	names := map[string]bool{}
	for _, o := range all {
		if o.Resource == namespaces && o.Group == "" {
			names[o.Name] = true
		}
	}
	return names
}

// waves sorts what has to go. What is in a namespace of the lab, or belongs to an object of it, goes along.
func waves(all []object) [][]object {
	own := spaces(all)
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

// innocent returns an error that names the objects of others that would go along with definitions of the lab.
func (c *Cluster) innocent(ctx context.Context, client metadata.Interface, all []object, kinds []schema.GroupVersionResource) error {
	own := spaces(all)
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
				return c.says(ctx, err)
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
	return fmt.Errorf(
		"nothing was deleted: these objects are not the lab's, and would go with the definitions of their kinds, which are: %s: keep "+
			"them elsewhere and delete them first",
		strings.Join(others, ", "),
	)
}

// some reports whether there is anything to delete.
func (r *removal) some() bool {
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
	// Another object of that name is not the one that was found.
	err := client.Delete(ctx, o.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", o, err)
	}
	return wait.Until(
		ctx,
		"the end of "+o.String(),
		wait.Options{Within: goneWithin, Every: 200 * time.Millisecond},
		func(ctx context.Context) error {
			now, err := client.Get(ctx, o.Name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err) || err == nil && now.UID != o.UID:
				return nil
			case err != nil:
				return err
			}
			return fmt.Errorf("it is still there; what it waits for: finalizers %v", now.Finalizers)
		},
	)
}
