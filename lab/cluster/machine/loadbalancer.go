package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/eastwest-lab/eastwest/lab/host"
)

// LoadBalancers gives every Service of type LoadBalancer an address of the node's pool, until ctx ends. The address is put
// on the node's link, where the other nodes and this machine find it by ARP. kube-proxy does the rest once the Service's
// status shows it. LoadBalancers runs inside the node.
func (p Place) LoadBalancers(ctx context.Context, api kubernetes.Interface) {
	lb := &balancer{api: api, pool: p.Addresses().LoadBalancers(p.Index), held: map[types.UID]netip.Addr{}}
	factory := informers.NewSharedInformerFactory(api, settleAgain)
	informer := factory.Core().V1().Services().Informer()
	var known atomic.Bool // all Services are known, so that no address is given to two of them
	settle := func(obj any) {
		if svc, ok := obj.(*corev1.Service); ok && known.Load() {
			if err := lb.settle(ctx, svc, shown(informer.GetStore())); err != nil {
				fmt.Fprintf(os.Stderr, "load balancer of %s/%s: %v\n", svc.Namespace, svc.Name, err)
			}
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    settle,
		UpdateFunc: func(_, obj any) { settle(obj) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if svc, ok := obj.(*corev1.Service); ok {
				lb.release(svc.UID)
			}
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "watching Services:", err)
		return
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return
	}
	known.Store(true)
	for _, obj := range informer.GetStore().List() {
		settle(obj)
	}
}

// settleAgain is the time until a failure is tried again: an API server that was killed stores no address.
const settleAgain = 5 * time.Second

// shown returns the addresses in the status of Services. They stay theirs when the part inside the node is started again.
func shown(services cache.Store) map[netip.Addr]types.UID {
	all := map[netip.Addr]types.UID{}
	for _, obj := range services.List() {
		if svc, ok := obj.(*corev1.Service); ok {
			if addr := address(svc); addr.IsValid() {
				all[addr] = svc.UID
			}
		}
	}
	return all
}

// address returns the one in the Service's status, or the zero Addr if there is none.
func address(svc *corev1.Service) netip.Addr {
	if ingress := svc.Status.LoadBalancer.Ingress; len(ingress) > 0 {
		if addr, err := netip.ParseAddr(ingress[0].IP); err == nil {
			return addr
		}
	}
	return netip.Addr{}
}

type balancer struct {
	api  kubernetes.Interface
	pool netip.Prefix

	mu   sync.Mutex
	held map[types.UID]netip.Addr
}

// settle gives the Service an address if it wants one, or takes it back. taken holds the addresses in the status of all
// Services. settle is called again and again for every Service, whether that has changed or not.
func (b *balancer) settle(ctx context.Context, svc *corev1.Service, taken map[netip.Addr]types.UID) error {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.Spec.LoadBalancerClass != nil {
		b.release(svc.UID)
		return nil
	}
	shown := address(svc)
	addr, err := b.hold(svc.UID, shown, taken)
	if err != nil {
		return err
	}
	if addr == shown {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": corev1.ServiceStatus{
		LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: addr.String()}}},
	}})
	if err != nil {
		return err
	}
	_, err = b.api.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// hold returns the Service's address: the one that it shows already (after a restart), or the first free one.
func (b *balancer) hold(uid types.UID, shown netip.Addr, taken map[netip.Addr]types.UID) (netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if addr, ok := b.held[uid]; ok {
		return addr, nil
	}
	used := map[netip.Addr]bool{}
	for _, a := range b.held {
		used[a] = true
	}
	for a, by := range taken {
		used[a] = used[a] || by != uid
	}
	addr := shown
	if !b.pool.Contains(shown) || used[shown] {
		addr = b.pool.Addr().Next()
		for used[addr] {
			addr = addr.Next()
		}
	}
	if !b.pool.Contains(addr.Next()) { // the last address of the range stays unused
		return addr, fmt.Errorf("all addresses of %s are in use", b.pool)
	}
	if err := host.AddAddress(Link, addr); err != nil {
		return addr, err
	}
	b.held[uid] = addr
	return addr, nil
}

func (b *balancer) release(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if addr, ok := b.held[uid]; ok {
		_ = host.RemoveAddress(Link, addr)
		delete(b.held, uid)
	}
}
