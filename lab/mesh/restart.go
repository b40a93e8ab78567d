package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

// restartedAt is the annotation that `kubectl rollout restart` sets.
const restartedAt = "kubectl.kubernetes.io/restartedAt"

// MyPod is the name of the pod without a Deployment that the lesson calls from.
const MyPod = "my-pod"

// NamespaceOf returns the namespace of an app of the lab.
func NamespaceOf(app string) string {
	switch {
	case IsIstiod(app), app == Gateway:
		return SystemNamespace
	case app == Ingress:
		return IngressNamespace
	}
	return AppNamespace
}

// RestartIstiod restarts the cluster's istiod and waits until the new one serves: it is Ready, and in every cluster that
// it serves, it injects proxies and has written its root into the app namespace. A pod that starts earlier can miss the
// new root, and then does not trust istiod until the kubelet refreshes its files.
func (m *Member) RestartIstiod(ctx context.Context) error {
	if err := m.Restart(ctx, Istiod); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, served := range m.mesh.ServedBy(m.Name()) {
		group.Go(func() error { return served.awaitInjection(ctx) })
	}
	return group.Wait()
}

// awaitRoot waits until istiod has written the root that it signs with into the app namespace. A pod that needs the
// ConfigMap before it exists has to wait until the kubelet tries again.
func (m *Member) awaitRoot(ctx context.Context) error {
	root, err := m.Primary().signingRoot(ctx)
	if err != nil {
		return err
	}
	return watchOne(ctx, "istiod's root in namespace "+AppNamespace+" of "+m.Name(), rootConfigMap,
		func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return m.Kube.CoreV1().ConfigMaps(AppNamespace).Watch(ctx, o)
		},
		func(o runtime.Object) (bool, string) {
			text := o.(*corev1.ConfigMap).Data[pki.RootCertFile]
			return strings.TrimSpace(text) == strings.TrimSpace(root), rootConfigMap + " holds another root"
		})
}

// rootConfigMap is the ConfigMap that istiod writes its root to, in every namespace. Proxies mount it.
const rootConfigMap = "istio-ca-root-cert"

// signingRoot returns the root that an istiod would use if it started now: that of cacerts, if there is one, otherwise
// that of the self-signed CA in istio-ca-secret.
func (m *Member) signingRoot(ctx context.Context) (string, error) {
	own := m.ConfigCluster() // an external istiod stores its CA in its config cluster
	for _, from := range []struct {
		in                *Member
		secret, key, with string
	}{
		{m, CACerts, pki.RootCertFile, pki.CACertFile},
		{m, CACerts, "ca.crt", "tls.crt"}, // if cacerts has the type kubernetes.io/tls
		{own, "istio-ca-secret", pki.RootCertFile, pki.CACertFile}, {own, "istio-ca-secret", pki.CACertFile, pki.CACertFile},
	} {
		s, err := from.in.Kube.CoreV1().Secrets(SystemNamespace).Get(ctx, from.secret, metav1.GetOptions{})
		if err == nil && len(s.Data[from.key]) > 0 && len(s.Data[from.with]) > 0 { // istiod, too, only looks at the names
			return string(s.Data[from.key]), nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("reading the root of %s: %w", m.Name(), err)
		}
	}
	return "", fmt.Errorf("reading the root of %s: neither %s nor istio-ca-secret has one", m.Name(), CACerts)
}

// RestartWorkloads restarts everything that has a proxy: the Deployments of the app namespace, MyPod, and the east-west
// gateway.
func (m *Member) RestartWorkloads(ctx context.Context) error {
	list, err := m.Kube.AppsV1().Deployments(AppNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("restarting the workloads of %s: %w", m.Name(), err)
	}
	apps := []string{MyPod}
	for _, d := range list.Items {
		apps = append(apps, d.Name)
	}
	if m.mesh.HasGateway(m.Spec) {
		apps = append(apps, Gateway)
	}
	return m.Restart(ctx, apps...)
}

// Restart restarts apps, all at once, like `kubectl rollout restart deployment/APP`. It waits until each has as many new
// Ready pods as it wants and all its old pods are being deleted.
func (m *Member) Restart(ctx context.Context, apps ...string) error {
	return m.eachApp(ctx, apps, func(ctx context.Context, app string) error {
		if app == MyPod {
			return m.restartPod(ctx, app)
		}
		return m.restartDeployment(ctx, app)
	})
}

// Roll restarts Deployments, all at once, and does not wait for the new pods.
func (m *Member) Roll(ctx context.Context, apps ...string) error {
	return m.eachApp(ctx, apps, func(ctx context.Context, app string) error {
		_, _, err := m.stamp(ctx, app)
		return err
	})
}

func (m *Member) eachApp(ctx context.Context, apps []string, restart func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, app := range apps {
		group.Go(func() error {
			if err := restart(ctx, app); err != nil {
				return fmt.Errorf("restarting %s in %s: %w", app, m.Name(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// stamp makes a Deployment replace its pods. The new pods have the returned stamp in their annotations.
func (m *Member) stamp(ctx context.Context, app string) (*appsv1.Deployment, string, error) {
	// kubectl writes seconds: of two restarts within a second, the later one would do nothing.
	stamp := time.Now().UTC().Format(time.RFC3339Nano)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{restartedAt: stamp}},
	}}})
	if err != nil {
		return nil, "", err
	}
	manager := metav1.PatchOptions{FieldManager: FieldManager}
	d, err := m.Kube.AppsV1().Deployments(NamespaceOf(app)).Patch(ctx, app, types.StrategicMergePatchType, patch, manager)
	return d, stamp, err
}

func (m *Member) restartDeployment(ctx context.Context, app string) error {
	d, stamp, err := m.stamp(ctx, app)
	if err != nil {
		return err
	}
	wanted := 1
	if d.Spec.Replicas != nil {
		wanted = int(*d.Spec.Replicas)
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return err
	}
	its := func(p *corev1.Pod) bool {
		return p.Namespace == d.Namespace && selector.Matches(labels.Set(p.Labels))
	}
	return m.awaitPods(ctx, "the new pods of "+app, its, func(pods []*corev1.Pod) bool {
		ready := 0
		for _, p := range pods {
			switch {
			case p.DeletionTimestamp != nil:
			case p.Annotations[restartedAt] != stamp:
				return false
			case Ready(p):
				ready++
			}
		}
		return ready >= wanted
	})
}

// restartPod replaces a pod without a Deployment.
func (m *Member) restartPod(ctx context.Context, name string) error {
	manifest, err := os.ReadFile(m.file(name + ".yaml"))
	if err != nil {
		return err
	}
	objects, err := decode(manifest)
	if err != nil {
		return err
	}
	// Nothing calls it, so it need not drain. Its name is free at once.
	now := int64(0)
	err = m.Kube.CoreV1().Pods(AppNamespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	var old types.UID
	err = m.awaitPods(ctx, "the end of the old pod", labeledApp(name), func(pods []*corev1.Pod) bool {
		if len(pods) > 0 && old == "" {
			old = pods[0].UID
		}
		return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.UID == old })
	})
	if err != nil {
		return err
	}
	if err := m.apply(ctx, objects...); err != nil {
		return err
	}
	return m.AwaitReady(ctx, name)
}
