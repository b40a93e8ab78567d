package embedded

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

//go:embed coredns.yaml
var coreDNSYAML string

// applyCoreDNS creates what every cluster has in addition to the API server's own objects. It must come before
// anything else: a proxy that starts before names resolve waits 1, 2, 4 seconds between its attempts.
func (s *supervisor) applyCoreDNS(ctx context.Context, api kubernetes.Interface) error {
	text := strings.NewReplacer(
		"DNS_SERVICE", s.Addresses().DNSService(s.Index).String(),
		"COREDNS_IMAGE", s.CoreDNS,
	).Replace(coreDNSYAML)
	for _, doc := range strings.Split(text, "\n---\n") {
		var object unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(doc), &object.Object); err != nil {
			return err
		}
		gv, err := schema.ParseGroupVersion(object.GetAPIVersion())
		if err != nil {
			return err
		}
		path := "/apis/" + gv.String()
		if gv.Group == "" {
			path = "/api/" + gv.Version
		}
		if ns := object.GetNamespace(); ns != "" {
			path += "/namespaces/" + ns
		}
		path += "/" + strings.ToLower(object.GetKind()) + "s"
		body, err := object.MarshalJSON()
		if err != nil {
			return err
		}
		err = api.CoreV1().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}
