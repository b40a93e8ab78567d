package machine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// usableWithin bounds the time between the first answer of the API and a node that can run pods.
const usableWithin = 2 * time.Minute

// Usable waits until pods can be made and names resolve. It runs inside the node, and calls milestone when the node is
// Ready.
func (p Place) Usable(ctx context.Context, api kubernetes.Interface, nodeName string, milestone func(string)) error {
	ctx, cancel := wait.Timeout(ctx, usableWithin)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return nodeReady(ctx, api, nodeName, milestone) })
	group.Go(func() error { return serviceAccountThere(ctx, api) })
	group.Go(func() error { return p.dnsAnswers(ctx, api) })
	return group.Wait()
}

// nodeReady watches the node until it is Ready and the controller manager has removed the taint
// that keeps pods off it.
func nodeReady(ctx context.Context, api kubernetes.Interface, name string, milestone func(string)) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	return watchUntil(ctx, "the node to be Ready", func() (watch.Interface, error) { return api.CoreV1().Nodes().Watch(ctx, only) },
		func(obj any) bool {
			node, ok := obj.(*corev1.Node)
			if !ok || !NodeReady(node) {
				return false
			}
			milestone("node")
			return true
		})
}

// NodeReady reports whether a node is Ready and has no taint that keeps pods off it.
func NodeReady(node *corev1.Node) bool {
	return len(node.Spec.Taints) == 0 && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// serviceAccountThere waits for the default ServiceAccount: pods made before it are refused.
func serviceAccountThere(ctx context.Context, api kubernetes.Interface) error {
	only := metav1.ListOptions{FieldSelector: "metadata.name=default"}
	return watchUntil(ctx, "the default ServiceAccount", func() (watch.Interface, error) {
		return api.CoreV1().ServiceAccounts("default").Watch(ctx, only)
	}, func(any) bool { return true })
}

// watchUntil watches until done returns true for an object. It opens the watch again if the server ends it.
func watchUntil(ctx context.Context, what string, open func() (watch.Interface, error), done func(obj any) bool) error {
	return wait.Until(ctx, what, wait.Options{Within: usableWithin}, func(ctx context.Context) error {
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

// dnsAnswers waits until the cluster's DNS server, asked at its Service address, resolves the name of the API. It does not
// ask before the Service has an endpoint: a lookup every 25 ms would keep a slow machine busy.
func (p Place) dnsAnswers(ctx context.Context, api kubernetes.Interface) error {
	its := metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kube-dns"}
	err := watchUntil(ctx, "a Ready pod of CoreDNS", func() (watch.Interface, error) {
		return api.DiscoveryV1().EndpointSlices(metav1.NamespaceSystem).Watch(ctx, its)
	}, func(obj any) bool {
		s, ok := obj.(*discoveryv1.EndpointSlice)
		return ok && slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
			return e.Conditions.Ready == nil || *e.Conditions.Ready
		})
	})
	if err != nil {
		return err
	}
	server := net.JoinHostPort(p.Addresses().DNSService(p.Index).String(), "53")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server)
	}}
	often := wait.Options{Within: usableWithin, Every: 25 * time.Millisecond}
	return wait.Until(ctx, "CoreDNS to answer", often, func(ctx context.Context) error {
		ctx, cancel := wait.Timeout(ctx, time.Second)
		defer cancel()
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err
	})
}

// Config reads the kubeconfig of a node. The user's HTTP proxy is not used: it has no route to nodes.
func Config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of a node: %w", err)
	}
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return config, nil
}

// APIAnswers waits until the API server is ready, including the roles of RBAC: a component that connects
// earlier is refused, and then waits for seconds before its next try.
func APIAnswers(ctx context.Context, config *rest.Config) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	often := wait.Options{Within: 90 * time.Second, Every: 25 * time.Millisecond}
	return wait.Until(ctx, "the API server to be ready", often, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/readyz", nil)
		if err != nil {
			return wait.Permanent(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
			return fmt.Errorf("%s: %s", answer.Status, lastLineWith(text, "[-]"))
		}
		return nil
	})
}

func lastLineWith(text []byte, mark string) string {
	var last string
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if line := s.Text(); strings.HasPrefix(line, mark) {
			last = line
		}
	}
	return last
}
