package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// OrderPort is the port on which the app accepts orders to call a URL (ForwardEcho of Istio's echo app).
const OrderPort = 17070

// UsuallyWithin bounds every wait for something that a healthy cluster does within seconds.
const UsuallyWithin = 90 * time.Second

// podCache is a watch of all pods of a cluster. It starts when it is first used.
type podCache struct {
	mu       sync.Mutex
	informer cache.SharedIndexInformer
	stop     chan struct{}
	changed  chan struct{} // closed and replaced at every change
}

func (m *Member) podInformer(ctx context.Context) (cache.SharedIndexInformer, error) {
	c := &m.pods
	c.mu.Lock()
	if c.informer == nil {
		pods := m.Kube.CoreV1().Pods(metav1.NamespaceAll)
		lw := &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return pods.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return pods.Watch(ctx, o)
			},
		}
		c.informer = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, m.Kube), &corev1.Pod{}, 0, nil)
		c.stop, c.changed = make(chan struct{}), make(chan struct{})
		if err := c.informer.SetTransform(func(o any) (any, error) {
			p, ok := o.(*corev1.Pod)
			switch {
			case !ok: // a DeletedFinalStateUnknown
			case m.Covers(p):
				p.SetManagedFields(nil)
			default: // others may have many pods, and they are not needed here
				return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
					Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
				}}, nil
			}
			return o, nil
		}); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		tell := func() {
			c.mu.Lock()
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
		if _, err := c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
		}); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		go c.informer.Run(c.stop)
	}
	informer, stop := c.informer, c.stop
	c.mu.Unlock()
	if informer.HasSynced() {
		return informer, nil
	}
	ctx, cancel := wait.Timeout(ctx, UsuallyWithin)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		select {
		case <-stop:
			return nil, fmt.Errorf("listing the pods of %s: the mesh was closed", m.Name())
		default:
		}
		return nil, fmt.Errorf("listing the pods of %s: %w", m.Name(), context.Cause(ctx))
	}
	return informer, nil
}

func (c *podCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.informer != nil {
		close(c.stop)
		c.informer = nil
	}
}

func (c *podCache) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Pods returns the pods with the label app=APP in all namespaces, including those that are being deleted, oldest first.
// The pods are shared: do not change them.
func (m *Member) Pods(ctx context.Context, app string) ([]*corev1.Pod, error) {
	return m.podsWhere(ctx, labeledApp(app))
}

// labeledApp matches the pods of an app. Pods of Istio itself match only in Istio's namespace: an external cluster has a
// second istiod, which serves only a gateway.
func labeledApp(app string) func(*corev1.Pod) bool {
	istios := NamespaceOf(app) == SystemNamespace
	return func(p *corev1.Pod) bool {
		return p.Labels["app"] == app && (!istios || p.Namespace == SystemNamespace)
	}
}

// podsWhere returns the pods that match, oldest first.
func (m *Member) podsWhere(ctx context.Context, match func(*corev1.Pod) bool) ([]*corev1.Pod, error) {
	informer, err := m.podInformer(ctx)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, o := range informer.GetStore().List() {
		if p := o.(*corev1.Pod); m.Covers(p) && match(p) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// ReadyPods returns the Ready pods of an app that are not being deleted, oldest first. If there is none, the error
// describes the state of the app's pods.
func (m *Member) ReadyPods(ctx context.Context, app string) ([]*corev1.Pod, error) {
	pods, err := m.Pods(ctx, app)
	if err != nil {
		return nil, err
	}
	ready := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !Ready(p) })
	if len(ready) == 0 {
		return nil, fmt.Errorf("%s: no pod of %s is Ready: %s", m.Name(), app, describe(pods))
	}
	return ready, nil
}

// Ready reports whether the pod has the condition Ready and is not being deleted.
func Ready(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// describe describes the state of pods, for people who wonder why nothing happens.
func describe(pods []*corev1.Pod) string {
	if len(pods) == 0 {
		return "there is none"
	}
	texts := make([]string, len(pods))
	for i, p := range pods {
		text := p.Name + " is " + string(p.Status.Phase)
		if p.DeletionTimestamp != nil {
			text = p.Name + " is being deleted"
		}
		for _, c := range p.Status.Conditions {
			if c.Status == corev1.ConditionFalse && c.Message != "" {
				text += ", " + c.Message
				break
			}
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" {
				text += fmt.Sprintf(", %s: %s %s", c.Name, w.Reason, w.Message)
			}
		}
		texts[i] = text
	}
	return strings.Join(texts, "; ")
}

// PullError is returned if a node cannot pull the image of a pod.
type PullError struct {
	Cluster string
	Image   string
	Said    string // the kubelet's message
}

func (e *PullError) Error() string {
	return fmt.Sprintf("%s cannot pull %s: %s", e.Cluster, e.Image, e.Said)
}

// pullTime bounds every wait for pods whose images may have to be pulled, over a network of unknown speed.
const pullTime = 10 * time.Minute

// pullPatience is how long pulls of an image may fail before that counts as final. The kubelet has tried twice by then.
const pullPatience = 20 * time.Second

// pullError returns an error for the first image of the pods whose last pull failed, or nil if there is none.
func (m *Member) pullError(pods []*corev1.Pod) *PullError {
	for _, p := range pods {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if w := c.State.Waiting; w != nil && p.DeletionTimestamp == nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") {
				return &PullError{Cluster: m.Name(), Image: c.Image, Said: w.Message}
			}
		}
	}
	return nil
}

// awaitPods watches the pods that match until good is true for them. If one of their images cannot be pulled, it returns
// a *PullError early.
func (m *Member) awaitPods(ctx context.Context, what string, match func(*corev1.Pod) bool, good func([]*corev1.Pod) bool) error {
	start, within := time.Now(), UsuallyWithin
	if m.mesh.pulls {
		within = pullTime
	}
	bound, cancel := wait.Timeout(ctx, within)
	defer cancel()
	var refused time.Time // when a pull was first seen to fail
	for looks := 1; ; looks++ {
		if _, err := m.podInformer(bound); err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		changed := m.pods.next()
		pods, err := m.podsWhere(bound, match)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if good(pods) {
			return nil
		}
		pull := m.pullError(pods)
		var enough <-chan time.Time // stays nil as long as no pull fails
		if pull == nil {
			refused = time.Time{}
		} else {
			if refused.IsZero() {
				refused = time.Now()
			}
			enough = time.After(time.Until(refused.Add(pullPatience)))
		}
		select {
		case <-changed:
		case <-enough:
			return fmt.Errorf("waiting for %s: %w", what, pull)
		case <-bound.Done():
			if ctx.Err() != nil && pull != nil {
				return fmt.Errorf("%w: %w", wait.Stopped(ctx, what, nil), pull)
			}
			if ctx.Err() != nil {
				return wait.Stopped(ctx, what, errors.New(describe(pods)))
			}
			return &wait.TimeoutError{What: what, After: time.Since(start), Tries: looks, Last: errors.New(describe(pods))}
		}
	}
}

// AwaitReady waits until the app has a Ready pod.
func (m *Member) AwaitReady(ctx context.Context, app string) error {
	return m.awaitPods(ctx, "a Ready pod of "+app, labeledApp(app), anyReady)
}

func anyReady(pods []*corev1.Pod) bool { return slices.ContainsFunc(pods, Ready) }

// DialPod connects to a port of the oldest Ready pod of an app.
func (m *Member) DialPod(ctx context.Context, app string, port uint16) (net.Conn, error) {
	pods, err := m.ReadyPods(ctx, app)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(pods[0].Status.PodIP)
	if err != nil {
		return nil, fmt.Errorf("reading the address of pod %s: %w", pods[0].Name, err)
	}
	return m.Dial(ctx, netip.AddrPortFrom(addr, port))
}

// watchOne watches the object with that name until look returns done. The last text that look has returned becomes part
// of the error of a timeout.
func watchOne(
	ctx context.Context, what, name string,
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	look func(runtime.Object) (done bool, seen string),
) error {
	start := time.Now()
	bound, cancel := wait.Timeout(ctx, UsuallyWithin)
	defer cancel()
	events, seen := 0, "it is not there"
	for {
		// Without a resource version, the first event of the watch is the object as it is now.
		w, err := open(bound, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err == nil {
			done := follow(w, &events, &seen, look)
			w.Stop()
			if done {
				return nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return wait.Stopped(ctx, what, errors.New(seen))
		case bound.Err() != nil:
			return &wait.TimeoutError{What: what, After: time.Since(start), Tries: events, Last: errors.New(seen)}
		case err != nil:
			return fmt.Errorf("waiting for %s: %w", what, err)
		} // the API server closed the watch: open a new one
	}
}

func follow(w watch.Interface, events *int, seen *string, look func(runtime.Object) (bool, string)) bool {
	for e := range w.ResultChan() {
		*events++
		switch e.Type {
		case watch.Added, watch.Modified:
			done, now := look(e.Object)
			if done {
				return true
			}
			*seen = now
		case watch.Deleted:
			*seen = "it was deleted"
		case watch.Error:
			return false
		}
	}
	return false
}
