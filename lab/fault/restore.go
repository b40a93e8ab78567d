package fault

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

const (
	settled  = 60 * time.Second // how long a mesh may take to show that it is as it was, once all has been put back
	rollsOut = 20 * time.Second // after which a Deployment that was put back is given new pods
)

// Heal takes back what Sever, BlockPort and StopComponent have done, whoever did it.
func Heal(ctx context.Context, m *mesh.Mesh) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		if healer, ok := member.Cluster.(cluster.Healer); ok {
			group.Go(func() error { return healer.HealAll(ctx) })
		}
	}
	return group.Wait()
}

// Restore makes the mesh what it was, however it came to be what it is: faults of the underlay are healed, objects
// put back or deleted, and what istiod and proxies still hold is taken from them by restarts, of those alone that
// hold something else. It needs nothing but the baseline. The error tells what still differs.
func Restore(ctx context.Context, m *mesh.Mesh, want observe.Baseline) error {
	if err := Heal(ctx, m); err != nil {
		return err
	}
	r := &restoration{m, want}
	differences, err := r.look(ctx)
	if err != nil || len(differences) == 0 {
		return err
	}
	// What an istiod has read can be told only before the objects are put back.
	istiods := r.istiods(differences)
	if err := r.putBack(ctx, differences, func(d observe.Difference) bool { return !needsIstiod(d) }); err != nil {
		return err
	}
	if err := r.startIstiods(ctx, differences, istiods); err != nil {
		return err
	}
	if err := r.putBack(ctx, differences, isApp); err != nil {
		return err
	}
	r.awaitRollouts(ctx, differences)
	for range 2 { // a proxy may have started before its istiod had the right root
		if differences, err = r.look(ctx); err != nil {
			return err
		}
		if err := r.restartWorkloads(ctx, differences); err != nil {
			return err
		}
	}
	return wait.Until(ctx, "the mesh to be as it was", wait.Options{Within: settled, Every: 300 * time.Millisecond}, func(ctx context.Context) error {
		now, err := want.Again(ctx, m)
		if err != nil {
			return err
		}
		if differences := want.Diff(now); len(differences) > 0 {
			return errors.New(strings.Join(differences, "; "))
		}
		return observe.InSync(ctx, m)
	})
}

type restoration struct {
	mesh *mesh.Mesh
	want observe.Baseline
}

// look reads what differs now. An API server that was let go on, or started again, may need a while to answer.
func (r *restoration) look(ctx context.Context) (differences []observe.Difference, err error) {
	err = wait.Until(ctx, "the clusters to tell what they are like", wait.Options{Within: settled, Every: 500 * time.Millisecond}, func(ctx context.Context) error {
		now, err := r.want.AgainBroken(ctx, r.mesh)
		differences = r.want.Differences(now)
		return err
	})
	return differences, err
}

// istiods lists the clusters whose istiod may have read something else.
func (r *restoration) istiods(differences []observe.Difference) (all []string) {
	about := func(d observe.Difference, kind string, names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return d.About(kind, mesh.SystemNamespace, name) })
	}
	for _, d := range differences {
		_, _, proxies := d.Proxies()
		others := about(d, "ConfigMap", observe.MeshSettings, observe.InjectorSettings)
		for _, member := range r.mesh.Members {
			if !member.Spec.HasIstiod() {
				continue
			}
			here := member.Name() == d.Cluster
			reads := here || member.ConfigCluster().Name() == d.Cluster
			switch {
			case reads && others, reads && about(d, "Secret", mesh.CACerts, observe.SelfSignedSecret, observe.ConfigSecret):
			case here && (about(d, "Deployment", mesh.Istiod) || isRole(d)):
			case d.Trust() && !proxies && serves(r.mesh, member, d.Cluster):
			default:
				continue
			}
			all = append(all, member.Name())
		}
	}
	return unique(all)
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

func serves(m *mesh.Mesh, istiod *mesh.Member, cluster string) bool {
	return istiod.Name() == cluster || slices.ContainsFunc(m.ServedBy(istiod.Name()), func(s *mesh.Member) bool { return s.Name() == cluster })
}

// startIstiods restarts istiods, and puts back meanwhile what they check and what leads to them. One that crashes
// again and again is started at once this way, and not after the kubelet's pause of minutes.
func (r *restoration) startIstiods(ctx context.Context, differences []observe.Difference, istiods []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.putBack(ctx, differences, isIstios) })
	for _, name := range istiods {
		group.Go(func() error {
			member, err := r.mesh.Member(name)
			if err == nil {
				err = member.RestartIstiod(ctx)
			}
			return err
		})
	}
	for _, d := range differences {
		if !isGateway(d) {
			continue
		}
		group.Go(func() error {
			member, err := r.mesh.Member(d.Cluster)
			if err != nil {
				return err
			}
			if primary := member.Primary(); primary == member { // a gateway of others may lead to it
				if err := member.AwaitReady(ctx, mesh.Istiod); err != nil {
					return err
				}
			}
			return restoreObject(ctx, member, d)
		})
	}
	return group.Wait()
}

// Objects by what they need: Istio's own pass istiod's webhook, and Deployments have pods with proxies.
func isIstios(d observe.Difference) bool {
	return d.Object() && strings.HasSuffix(either(d).GroupVersionKind().Group, observe.IstioGroup)
}

func isDeployment(d observe.Difference) bool {
	return (d.Before != nil || d.Now != nil) && either(d).GetKind() == "Deployment"
}

func isGateway(d observe.Difference) bool {
	return d.About("Deployment", mesh.SystemNamespace, mesh.Gateway) && d.Object()
}

func isApp(d observe.Difference) bool {
	return isDeployment(d) && d.Object() && !isGateway(d) && !d.About("Deployment", mesh.SystemNamespace, mesh.Istiod)
}

func isRole(d observe.Difference) bool {
	return d.Object() && strings.HasPrefix(either(d).GetKind(), "ClusterRole")
}

func needsIstiod(d observe.Difference) bool { return isIstios(d) || isGateway(d) || isApp(d) }

// either is the object as it was, or as it is if it was not there.
func either(d observe.Difference) *unstructured.Unstructured {
	if d.Before != nil {
		return d.Before
	}
	return d.Now
}

// putBack makes objects what they were, all at once.
func (r *restoration) putBack(ctx context.Context, differences []observe.Difference, which func(observe.Difference) bool) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range differences {
		if !d.Object() || !which(d) {
			continue
		}
		group.Go(func() error {
			member, err := r.mesh.Member(d.Cluster)
			if err == nil {
				err = restoreObject(ctx, member, d)
			}
			return err
		})
	}
	return group.Wait()
}

// restoreObject makes an object what it was. It tries again whatever keeps it from that: a webhook without istiod,
// and a policy that is put back at the same time, say so in many ways.
func restoreObject(ctx context.Context, member *mesh.Member, d observe.Difference) error {
	o := either(d)
	client, err := observe.Resource(member, o.GroupVersionKind().GroupKind().String(), o.GetNamespace())
	if err != nil {
		return err
	}
	return wait.Until(ctx, "putting back "+d.What+" in "+d.Cluster, wait.Options{Within: patience, Every: 250 * time.Millisecond}, func(ctx context.Context) error {
		if d.Before != nil {
			return put(ctx, client, d.Before)
		}
		return ignoreNotFound(client.Delete(ctx, o.GetName(), metav1.DeleteOptions{}))
	})
}

// awaitRollouts gives the Deployments that were put back time for their pods. What is not through then gets new
// ones: Kubernetes may wait for minutes before it tries again to make pods that a webhook has refused.
func (r *restoration) awaitRollouts(ctx context.Context, differences []observe.Difference) {
	var of []observe.Workload
	for _, d := range differences {
		if isDeployment(d) && d.Object() && d.Before != nil {
			of = append(of, observe.Workload{App: d.Before.GetName(), Cluster: d.Cluster})
		}
	}
	_ = wait.Until(ctx, "pods", wait.Options{Within: rollsOut, Every: 200 * time.Millisecond}, func(ctx context.Context) error {
		_, err := observe.RolledOut{Of: of}.Look(ctx, r.mesh)
		return err
	})
}

// restartWorkloads restarts what uses other certificates or settings than it did, or has not all its pods.
func (r *restoration) restartWorkloads(ctx context.Context, differences []observe.Difference) error {
	apps := map[string][]string{}
	for _, d := range differences {
		app, namespace, ok := d.Proxies()
		if !ok && isDeployment(d) {
			app, namespace, ok = either(d).GetName(), either(d).GetNamespace(), true
		}
		if ok && app != mesh.Istiod && namespace == mesh.NamespaceOf(app) && (app == mesh.MyPod && d.Was != "" || r.want.Has(d.Cluster, "Deployment", namespace, app)) {
			apps[d.Cluster] = append(apps[d.Cluster], app)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range r.mesh.InMesh() {
		group.Go(func() error {
			return member.Restart(ctx, unique(apps[member.Name()])...)
		})
	}
	return group.Wait()
}

// put makes an object what it is to be, whatever it is now.
func put(ctx context.Context, client dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	now, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err := client.Create(ctx, o, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		return err
	}
	if err != nil {
		return err
	}
	wanted := o.DeepCopy()
	wanted.SetResourceVersion(now.GetResourceVersion())
	_, err = client.Update(ctx, wanted, metav1.UpdateOptions{FieldManager: mesh.FieldManager})
	// What cannot be changed in place, like the type of a Secret, is made anew.
	if apierrors.IsInvalid(err) && !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
		if err = client.Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err == nil {
			_, err = client.Create(ctx, o, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		}
	}
	return err
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
