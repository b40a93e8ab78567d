package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Definitions writes Istio's definitions of its kinds into a file of the folder cache, as a JSON list, and returns its
// path. A cluster that has them from its start is spared the most work of an installation: see cluster.Spec.
func (i Istio) Definitions(ctx context.Context, cache string) (string, error) {
	objects, err := i.definitions(ctx, cache)
	if err != nil {
		return "", err
	}
	list := make([]json.RawMessage, len(objects))
	sum := sha256.New()
	for k, o := range objects {
		if o, err = o.sealed(); err != nil {
			return "", err
		}
		list[k] = o.JSON
		sum.Write(o.JSON)
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "definitions-"+hex.EncodeToString(sum.Sum(nil))[:16]+".json")
	return path, writeFile(path, data, 0o644)
}

// definitions returns Istio's definitions of its kinds.
func (i Istio) definitions(ctx context.Context, cache string) ([]object, error) {
	text, err := expand("istio/definitions.yaml", nil)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(cache, "definitions.yaml")
	if err := writeFile(source, text, 0o644); err != nil {
		return nil, fmt.Errorf("writing manifest: %w", err)
	}
	objects, err := i.render(ctx, cache, source)
	objects, _ = split(objects, kind("CustomResourceDefinition"))
	return objects, err
}

// sealAnnotation holds the hash of what an object was applied from. An object with the same hash need not be applied.
const sealAnnotation = "eastwest.dev/applied"

// seal returns the hash of an object, whatever white space its JSON has.
func (o object) seal() (string, error) {
	var compact, text bytes.Buffer
	if err := json.Compact(&compact, o.JSON); err != nil {
		return "", fmt.Errorf("reading %s: %w", o, err)
	}
	json.HTMLEscape(&text, compact.Bytes())
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:])[:16], nil
}

// sealed returns the object with its hash in an annotation.
func (o object) sealed() (object, error) {
	seal, err := o.seal()
	if err != nil {
		return o, err
	}
	return o.annotated(map[string]string{sealAnnotation: seal})
}

// define applies Istio's definitions, except those that the cluster has already.
func (m *Member) define(ctx context.Context, definitions []object) error {
	if len(definitions) == 0 {
		return nil
	}
	list, err := m.defined(ctx)
	if err != nil {
		return err
	}
	there := map[string]string{}
	for _, o := range list {
		if o.Generation <= 1 { // nobody has changed it since
			there[o.Name] = o.Annotations[sealAnnotation]
		}
	}
	var missing []object
	for _, o := range definitions {
		seal, err := o.seal()
		if err != nil {
			return err
		}
		if there[o.Name] == seal {
			continue
		}
		if o, err = o.sealed(); err != nil {
			return err
		}
		missing = append(missing, o)
	}
	return m.apply(ctx, missing...)
}

// defined lists the definitions of the cluster.
func (m *Member) defined(ctx context.Context) ([]metav1.PartialObjectMetadata, error) {
	data, err := m.raw.Get().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").
		SetHeader("Accept", metadataOnlyList).Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("listing the definitions of %s: %w", m.Name(), err)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("listing the definitions of %s: %w", m.Name(), err)
	}
	return list.Items, nil
}
