package fault

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/eastwest-lab/eastwest/lab/words"
)

const (
	settled  = 60 * time.Second // how long a mesh may take to show that it is as it was, once everything has been put back
	rollsOut = 20 * time.Second // after which a Deployment that was put back is given new pods

	frozenWithin = 2 * time.Second  // how long clusters may take to tell which pods are frozen
	wakesUp      = 30 * time.Second // how long a pod that was frozen may take to be Ready again
)

// Heal takes back what Sever, BlockPort, StopComponent and Freeze have done, whoever did it.
func Heal(ctx context.Context, m *mesh.Mesh) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		if healer, ok := member.Cluster.(cluster.Healer); ok {
			group.Go(func() error { return healer.HealAll(ctx) })
		}
	}
	return group.Wait()
}

// Restore makes the mesh what it was when the baseline was taken, in whatever state it is now. It heals faults of the
// underlay, puts objects back or deletes them, and restarts the istiods and workloads that use something else than they
// did, and no others. The error says what still differs.
func Restore(ctx context.Context, m *mesh.Mesh, want observe.Baseline) error {
	frozen := frozenPods(ctx, m)
	if err := Heal(ctx, m); err != nil {
		return err
	}
	awaitThawed(ctx, m, frozen)
	r := &restoration{m, want}
	differences, err := r.look(ctx)
	if err != nil || len(differences) == 0 {
		return err
	}
	if err := r.redefine(ctx, differences); err != nil {
		return err
	}
	// Which istiods have read something else can be told only before the objects are put back.
	istiods := r.istiods(differences)
	if err := r.putBack(ctx, differences, func(d observe.Difference) bool { return !r.needsIstiod(d) }); err != nil {
		return err
	}
	if err := r.restoreFronts(ctx, differences); err != nil {
		return err
	}
	if err := r.startIstiods(ctx, differences, istiods); err != nil {
		return err
	}
	if err := r.putBack(ctx, differences, r.isApp); err != nil {
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
	o := wait.Options{Within: settled, Every: 300 * time.Millisecond}
	return wait.Until(ctx, "the mesh to be as it was", o, func(ctx context.Context) error {
		now, err := want.Reread(ctx, m)
		if err != nil {
			return err
		}
		differences := want.Differences(now)
		// An istiod that started while there was no cacerts writes its own CA, maybe after that of the fault was deleted.
		if err := r.putBack(ctx, differences, observe.Difference.ObjectChanged); err != nil {
			return err
		}
		if len(differences) > 0 {
			return errors.New(strings.Join(want.Diff(now), "; "))
		}
		return observe.InSync(ctx, m)
	})
}

type restoration struct {
	mesh *mesh.Mesh
	want observe.Baseline
}

// look reads what differs now. An API server that has just been started, or let go on, may need a while to answer.
func (r *restoration) look(ctx context.Context) (differences []observe.Difference, err error) {
	o := wait.Options{Within: settled, Every: 500 * time.Millisecond}
	err = wait.Until(ctx, "the clusters to be readable", o, func(ctx context.Context) error {
		now, err := r.want.RereadBroken(ctx, r.mesh)
		differences = r.want.Differences(now)
		return err
	})
	return differences, err
}

// redefine puts back the definitions of Istio's kinds. Objects that only newer ones allow are gone after that.
func (r *restoration) redefine(ctx context.Context, differences []observe.Difference) error {
	for _, d := range differences {
		if d.Topic != observe.Definitions {
			continue
		}
		member, err := r.mesh.Member(d.Cluster)
		if err == nil {
			err = member.RestoreDefinitions(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// istiods returns the clusters whose istiod may have read something else.
func (r *restoration) istiods(differences []observe.Difference) (names []string) {
	for _, d := range differences {
		for _, member := range r.mesh.Members {
			if member.Spec.HasIstiod() && r.concerns(d, member) && r.hadIstiod(member) {
				names = append(names, member.Name())
			}
		}
	}
	return words.Unique(names)
}

// hadIstiod reports whether the cluster had the istiod that RestartIstiod restarts, and not only one of a revision.
func (r *restoration) hadIstiod(member *mesh.Member) bool {
	return r.want.Has(observe.ObjectFact(member.Name(), "apps", "Deployment", mesh.SystemNamespace, mesh.Istiod))
}

// concerns reports whether the istiod of a cluster may have read what differs.
func (r *restoration) concerns(d observe.Difference, istiod *mesh.Member) bool {
	here := istiod.Name() == d.Cluster
	switch d.Topic {
	case observe.AnObject:
		return here && (isIstiod(d) || isRole(d)) ||
			isSetting(d) && (here || istiod.ConfigCluster().Name() == d.Cluster)
	case observe.IstiodRoot, observe.IstiodCertificate:
		return here || slices.ContainsFunc(r.mesh.ServedBy(istiod.Name()), func(s *mesh.Member) bool { return s.Name() == d.Cluster })
	}
	return false
}

// startIstiods restarts istiods, and puts back meanwhile what they check and what leads to them. A restart starts an
// istiod that crashes again and again at once, and not after the kubelet's pause of minutes.
func (r *restoration) startIstiods(ctx context.Context, differences []observe.Difference, istiods []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.putBack(ctx, differences, isOfIstio) })
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
			if member.Primary() == member { // otherwise its gateway may be the way to the primary
				if err := member.AwaitReady(ctx, mesh.Istiod); err != nil {
					return err
				}
			}
			return restoreObject(ctx, member, d)
		})
	}
	return group.Wait()
}

// restoreFronts puts back the gateways in front of external istiods. The clusters that those serve reach them there.
func (r *restoration) restoreFronts(ctx context.Context, differences []observe.Difference) error {
	if err := r.putBack(ctx, differences, r.isFront); err != nil {
		return err
	}
	var of []string
	for _, d := range differences {
		if r.isFront(d) {
			of = append(of, d.Cluster)
		}
	}
	for _, name := range words.Unique(of) {
		member, err := r.mesh.Member(name)
		if err == nil {
			err = member.RestoreIngress(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isFront reports whether it is about a Deployment of the gateway in front of an external istiod, or about its pods.
func (r *restoration) isFront(d observe.Difference) bool {
	member, err := r.mesh.Member(d.Cluster)
	return err == nil && member.Spec.External() &&
		d.Namespace == mesh.IngressNamespace && (isDeployment(d) || d.Topic == observe.ProxyTrust)
}

// isSetting reports whether an istiod reads the object when it starts.
func isSetting(d observe.Difference) bool {
	if d.Namespace != mesh.SystemNamespace {
		return false
	}
	switch d.Kind {
	case "ConfigMap":
		return slices.Contains([]string{observe.MeshSettings, observe.InjectorSettings}, d.Name)
	case "Secret":
		return slices.Contains([]string{mesh.CACerts, observe.SelfSignedSecret, observe.ConfigSecret}, d.Name)
	}
	return false
}

// isOfIstio reports whether the object is of Istio's own API, so that istiod's webhook has to let it pass.
func isOfIstio(d observe.Difference) bool {
	return d.ObjectChanged() && strings.HasSuffix(d.Group, observe.IstioGroup)
}

func isDeployment(d observe.Difference) bool {
	return d.Topic == observe.AnObject && d.Kind == "Deployment"
}

func isDeploymentOf(d observe.Difference, app string) bool {
	return d.IsObject("Deployment", mesh.SystemNamespace, app)
}

// isIstiod reports whether the object is the Deployment of an istiod, of whatever revision.
func isIstiod(d observe.Difference) bool {
	return isDeployment(d) && d.Namespace == mesh.SystemNamespace && mesh.IsIstiod(d.Name)
}

func isGateway(d observe.Difference) bool {
	return isDeploymentOf(d, mesh.Gateway) && d.ObjectChanged()
}

// isApp reports whether the object is a Deployment whose pods need istiod to get their proxies.
func (r *restoration) isApp(d observe.Difference) bool {
	return isDeployment(d) && d.ObjectChanged() && !isGateway(d) && !isIstiod(d) && !r.isFront(d)
}

func isRole(d observe.Difference) bool {
	return d.ObjectChanged() && strings.HasPrefix(d.Kind, "ClusterRole")
}

func (r *restoration) needsIstiod(d observe.Difference) bool {
	return isOfIstio(d) || isGateway(d) || r.isApp(d) || r.isFront(d)
}

// putBack makes the objects that are meant what they were, all at once.
func (r *restoration) putBack(ctx context.Context, differences []observe.Difference, which func(observe.Difference) bool) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range differences {
		if !d.ObjectChanged() || !which(d) {
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

// restoreObject makes an object what it was. It tries again whatever the error is: a webhook whose istiod is away, and a
// policy that is put back at the same time, refuse in many ways.
func restoreObject(ctx context.Context, member *mesh.Member, d observe.Difference) error {
	o := d.Object()
	client, err := observe.Resource(member, o.GroupVersionKind().GroupKind().String(), o.GetNamespace())
	if err != nil {
		return err
	}
	what := "putting back " + d.Fact.String() + " in " + d.Cluster
	return wait.Until(ctx, what, wait.Options{Within: mesh.UsuallyWithin, Every: 250 * time.Millisecond}, func(ctx context.Context) error {
		if d.Before != nil {
			return put(ctx, client, d.Before)
		}
		return ignoreNotFound(client.Delete(ctx, o.GetName(), metav1.DeleteOptions{}))
	})
}

// awaitRollouts gives the Deployments that were put back time for their pods. Those that need longer get new pods
// afterwards: Kubernetes may wait for minutes before it tries again to make pods that a webhook has refused.
func (r *restoration) awaitRollouts(ctx context.Context, differences []observe.Difference) {
	var of []observe.Workload
	for _, d := range differences {
		if isDeployment(d) && d.ObjectChanged() && d.Before != nil && !r.isFront(d) { // RestoreIngress has waited for those
			of = append(of, observe.Workload{App: d.Name, Cluster: d.Cluster})
		}
	}
	_ = wait.Until(ctx, "pods", wait.Options{Within: rollsOut, Every: 200 * time.Millisecond}, func(ctx context.Context) error {
		_, err := observe.RolledOut{Of: of}.Look(ctx, r.mesh)
		return err
	})
}

// restartWorkloads restarts what uses other certificates or settings than it did, or does not have all its pods.
func (r *restoration) restartWorkloads(ctx context.Context, differences []observe.Difference) error {
	apps := map[string][]string{}
	for _, d := range differences {
		if r.restarts(d) {
			apps[d.Cluster] = append(apps[d.Cluster], d.Name)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range r.mesh.InMesh() {
		group.Go(func() error { return member.Restart(ctx, words.Unique(apps[member.Name()])...) })
	}
	return group.Wait()
}

// restarts reports whether the workload that a difference is about, if any, was there before and needs new pods.
func (r *restoration) restarts(d observe.Difference) bool {
	if d.Topic != observe.ProxyTrust && !isDeployment(d) {
		return false
	}
	if isIstiod(d) || d.Namespace != mesh.NamespaceOf(d.Name) {
		return false
	}
	return d.Name == mesh.MyPod && d.Was != "" || r.want.Has(observe.ObjectFact(d.Cluster, "apps", "Deployment", d.Namespace, d.Name))
}

// put creates the object, or replaces what is there.
func put(ctx context.Context, client dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	now, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err := client.Create(ctx, o, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		return err
	}
	if err != nil {
		return err
	}
	if now.GetDeletionTimestamp() != nil { // it would take the change and go
		return fmt.Errorf("%s is being deleted", o.GetName())
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
