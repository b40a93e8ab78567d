package fault

import (
	"context"
	"fmt"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// RestartIstiod restarts the control planes of the clusters and waits for the new ones.
func RestartIstiod(in []string) Fault { return restartIstiod(in, (*mesh.Member).RestartIstiod) }

// RollIstiod restarts the control planes and does not wait for the new ones, which may never serve.
func RollIstiod(in []string) Fault {
	return restartIstiod(in, func(member *mesh.Member, ctx context.Context) error { return member.Roll(ctx, mesh.Istiod) })
}

func restartIstiod(in []string, restart func(*mesh.Member, context.Context) error) Fault {
	return &change{
		sentence: "restart istiod in " + words.And(in),
		commands: commandsIn(in, func(c string) string {
			return "kubectl rollout restart deployment/istiod -n istio-system --context=" + c
		}),
		in: in,
		available: func(m *mesh.Mesh) error {
			for _, name := range in {
				if member, err := m.Member(name); err == nil && !member.Spec.HasIstiod() {
					return fmt.Errorf("%s has no istiod: that of %s serves it", name, member.Spec.Primary)
				}
			}
			return nil
		},
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return restart(member, ctx)
		}),
	}
}

// RestartWorkloads restarts everything that has a proxy, gateways included, and waits for the new pods.
func RestartWorkloads(in []string) Fault {
	return &change{
		sentence: "restart all workloads and gateways in " + words.And(in),
		commands: commandsIn(in, func(c string) string {
			return "kubectl rollout restart deployment -n production --context=" + c +
				" && kubectl rollout restart deployment/istio-eastwestgateway -n istio-system --context=" + c
		}),
		in: in,
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.RestartWorkloads(ctx)
		}),
	}
}

// Restart restarts workloads and waits for their new pods.
func Restart(of ...observe.Workload) Fault { return restart((*mesh.Member).Restart, of) }

// Roll restarts workloads and does not wait for the new pods, which may never be Ready.
func Roll(of ...observe.Workload) Fault { return restart((*mesh.Member).Roll, of) }

func restart(do func(*mesh.Member, context.Context, ...string) error, of []observe.Workload) Fault {
	apps, in, names, commands := byCluster(of, func(w observe.Workload) string {
		return fmt.Sprintf("kubectl rollout restart deployment/%s -n %s --context=%s", w.App, mesh.NamespaceOf(w.App), w.Cluster)
	})
	return &change{
		sentence: "restart " + words.And(names), commands: commands, in: in,
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return do(member, ctx, apps[member.Name()]...)
		}),
	}
}

// byCluster returns the apps of each cluster, the clusters, and a name and a command for each workload.
func byCluster(of []observe.Workload, command func(observe.Workload) string) (apps map[string][]string, in, names, commands []string) {
	apps = map[string][]string{}
	for _, w := range of {
		apps[w.Cluster] = append(apps[w.Cluster], w.App)
		names, commands = append(names, w.String()), append(commands, command(w))
	}
	return apps, sortedKeys(apps), names, commands
}
