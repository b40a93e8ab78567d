package fault

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Freeze stops every process of the pods of workloads: their connections stay open, and nobody answers. The pods are those that
// run now; pods that take their place are not frozen.
func Freeze(of ...observe.Workload) Fault {
	return onPods("freeze %s", of, cluster.PodFreezer.FreezePod) // Heal takes it back
}

// Thaw takes back Freeze.
func Thaw(of ...observe.Workload) Fault {
	return onPods("let %s go on", of, cluster.PodFreezer.ThawPod)
}

// onPods does something to all pods of workloads.
func onPods(sentence string, of []observe.Workload, do func(f cluster.PodFreezer, ctx context.Context, uid string) error) Fault {
	apps, in, names, _ := byCluster(of, func(observe.Workload) string { return "" })
	return &change{
		sentence: fmt.Sprintf(sentence, words.And(names)), in: in, available: needsBelow[cluster.PodFreezer](in...),
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			f, err := below[cluster.PodFreezer](m, member.Name())
			if err != nil {
				return err
			}
			for _, app := range apps[member.Name()] {
				pods, err := member.Pods(ctx, app)
				if err != nil {
					return err
				}
				pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
					return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning
				})
				if len(pods) == 0 {
					return fmt.Errorf("no pod of %s runs", app)
				}
				for _, p := range pods {
					if err := do(f, ctx, string(p.UID)); err != nil {
						return fmt.Errorf("%s: %w", p.Name, err)
					}
				}
			}
			return nil
		}),
	}
}

// frozenPods returns the UIDs of the pods that are frozen, by cluster. A cluster that does not tell has none: if it is frozen as a
// whole, nobody there answers.
func frozenPods(ctx context.Context, m *mesh.Mesh) map[string][]string {
	frozen := map[string][]string{}
	for _, member := range m.Members {
		f, ok := member.Cluster.(cluster.PodFreezer)
		if !ok {
			continue
		}
		bound, cancel := wait.Timeout(ctx, frozenWithin) // each its own: one that is paused uses all of it
		uids, err := f.FrozenPods(bound)
		cancel()
		if err == nil && len(uids) > 0 {
			frozen[member.Name()] = uids
		}
	}
	return frozen
}

// awaitThawed gives pods that were frozen time to be Ready again: what is not Ready by then is restarted. The kubelet noticed that
// they did not answer, and looks again only now.
func awaitThawed(ctx context.Context, m *mesh.Mesh, frozen map[string][]string) {
	for name, uids := range frozen {
		member, err := m.Member(name)
		if err != nil {
			continue
		}
		_ = wait.Until(ctx, "pods that were frozen", wait.Options{Within: wakesUp}, func(ctx context.Context) error {
			list, err := member.Kube.CoreV1().Pods(corev1.NamespaceAll).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for i := range list.Items {
				p := &list.Items[i]
				if slices.Contains(uids, string(p.UID)) && p.DeletionTimestamp == nil && !mesh.Ready(p) {
					return fmt.Errorf("%s is not Ready", p.Name)
				}
			}
			return nil
		})
	}
}
