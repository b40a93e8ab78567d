package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// FieldManager is the field manager of everything that this package applies.
const FieldManager = "eastwest"

// metadataOnly is a media type with which the API server returns only an object's metadata.
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// metadataOnlyList does the same for lists.
const metadataOnlyList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// rawClient returns a client that sends and receives bytes without decoding them.
func rawClient(config *rest.Config) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.GroupVersion = &schema.GroupVersion{}
	c.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	return rest.UnversionedRESTClientFor(c)
}

// clusterScoped are the kinds without a namespace, among those that a mesh consists of.
var clusterScoped = map[string]bool{
	"Namespace": true, "CustomResourceDefinition": true, "ClusterRole": true, "ClusterRoleBinding": true,
	"ValidatingWebhookConfiguration": true, "MutatingWebhookConfiguration": true, "GatewayClass": true,
}

// path returns the object's path in the API. The name of the resource is the plural of the kind: asking the API server
// for its resources would cost more than applying the objects.
func (o object) path() string {
	root := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		root = "/api/" + o.APIVersion
	}
	resource := strings.ToLower(o.Kind)
	switch {
	case strings.HasSuffix(resource, "s"):
		resource += "es"
	case strings.HasSuffix(resource, "y") && !strings.HasSuffix(resource, "ay"):
		resource = strings.TrimSuffix(resource, "y") + "ies"
	default:
		resource += "s"
	}
	if !clusterScoped[o.Kind] {
		root += "/namespaces/" + o.Namespace
	}
	return root + "/" + resource + "/" + o.Name
}

// labeled returns the object with more labels.
func (o object) labeled(more map[string]string) (object, error) { return o.with("labels", more) }

// annotated returns the object with more annotations.
func (o object) annotated(more map[string]string) (object, error) { return o.with("annotations", more) }

// with returns the object with more entries in a field of its metadata.
func (o object) with(field string, more map[string]string) (object, error) {
	var content map[string]any
	if err := json.Unmarshal(o.JSON, &content); err != nil {
		return o, fmt.Errorf("reading %s: %w", o, err)
	}
	meta, _ := content["metadata"].(map[string]any)
	if meta == nil {
		return o, fmt.Errorf("reading %s: metadata is missing", o)
	}
	entries, _ := meta[field].(map[string]any)
	if entries == nil {
		entries = map[string]any{}
	}
	for name, value := range more {
		entries[name] = value
	}
	meta[field] = entries
	data, err := json.Marshal(content)
	o.JSON = data
	return o, err
}

// apply sends all objects at once by server-side apply. Custom resources are tried again until the API
// server knows their kind.
func (m *Member) apply(ctx context.Context, objects ...object) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		group.Go(func() error {
			o, err := o.labeled(m.mesh.Labels())
			if err != nil {
				return err
			}
			return wait.Until(ctx, "applying "+o.String(), wait.Options{}, func(ctx context.Context) error {
				err := m.raw.Patch(types.ApplyPatchType).AbsPath(o.path()).
					Param("fieldManager", FieldManager).Param("force", "true").
					// The answer would be the whole object with all its managed fields.
					SetHeader("Accept", metadataOnly).
					Body([]byte(o.JSON)).Do(ctx).Error()
				if err != nil && !tryAgain(err) {
					return wait.Permanent(err)
				}
				return err
			})
		})
	}
	return group.Wait()
}

// tryAgain reports whether an error may pass while a cluster starts: kinds and namespaces that are not known yet,
// webhooks whose Service has no endpoint yet, and requests without an answer.
func tryAgain(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer at all
	}
	return apierrors.IsNotFound(err) || apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsConflict(err)
}
