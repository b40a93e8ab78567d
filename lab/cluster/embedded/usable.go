package embedded

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

//go:embed coredns.yaml
var coreDNSYAML string

// applyCoreDNS creates what every cluster has beside the API's own objects. It comes first of all: a
// proxy that starts before names resolve waits 1, 2, 4 seconds between its tries.
func (s *supervisor) applyCoreDNS(ctx context.Context, api kubernetes.Interface) error {
	text := strings.NewReplacer(
		"DNS_SERVICE", s.addresses().DNSService(s.Index).String(),
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

// nodeReady waits by watch until the node is Ready and the controller manager has taken away the taint
// that keeps pods off it.
func (s *supervisor) nodeReady(ctx context.Context, api kubernetes.Interface) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", s.hostName()).String()}
	return watchUntil(ctx, "the node to be Ready", func() (watch.Interface, error) { return api.CoreV1().Nodes().Watch(ctx, only) },
		func(obj any) bool {
			node, ok := obj.(*corev1.Node)
			if !ok || len(node.Spec.Taints) > 0 {
				return false
			}
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
					s.milestone("node")
					return true
				}
			}
			return false
		})
}

// serviceAccountThere waits for the default ServiceAccount: pods made before it are refused.
func (s *supervisor) serviceAccountThere(ctx context.Context, api kubernetes.Interface) error {
	only := metav1.ListOptions{FieldSelector: "metadata.name=default"}
	return watchUntil(ctx, "the default ServiceAccount", func() (watch.Interface, error) {
		return api.CoreV1().ServiceAccounts("default").Watch(ctx, only)
	}, func(any) bool { return true })
}

// watchUntil opens a watch, again if the server ends it, until one of its objects is as wanted.
func watchUntil(ctx context.Context, what string, open func() (watch.Interface, error), done func(obj any) bool) error {
	return wait.Until(ctx, what, wait.Options{Within: 2 * time.Minute}, func(ctx context.Context) error {
		w, err := open()
		if err != nil {
			return err
		}
		defer w.Stop()
		for {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: it has not come yet", ctx.Err())
			case event, ok := <-w.ResultChan():
				if !ok || event.Type == watch.Error {
					return fmt.Errorf("the watch ended: %v", event.Object)
				}
				if event.Type != watch.Deleted && done(event.Object) {
					return nil
				}
			}
		}
	})
}

// dnsAnswers waits until the cluster's own DNS server resolves the API's name through its Service address.
func (s *supervisor) dnsAnswers(ctx context.Context, _ kubernetes.Interface) error {
	server := net.JoinHostPort(s.addresses().DNSService(s.Index).String(), "53")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server)
	}}
	return wait.Until(ctx, "CoreDNS to answer", wait.Options{Within: 2 * time.Minute, Every: 25 * time.Millisecond}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err
	})
}
