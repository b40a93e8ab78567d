package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// InstallIstiod installs a control plane beside others, as a revision, or in place of the one without a revision, and waits until it
// serves. In a cluster without an istiod it is what leads to the revision of its primary.
func InstallIstiod(in []string, r mesh.Release) Fault {
	what := "install istiod " + versionOf(r)
	if r.Revision == "" {
		what += " in place of the one without a revision"
	} else {
		what += " as revision " + r.Revision
	}
	return &change{
		sentence: what + " in " + words.And(in), commands: commandsIn(in, r.InstallCommand), in: in, available: upgrades(in, r.Istio, r.Revision),
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.InstallIstiod(ctx, r)
		}),
	}
}

// UpgradeGateway makes the east-west gateway one of a version and a revision, in place. In the clusters of external, which run an istiod
// for others, it is the gateway in front of that istiod.
func UpgradeGateway(in []string, r mesh.Release, external ...string) Fault {
	isExternal := func(cluster string) bool { return slices.Contains(external, cluster) }
	which := "the east-west gateway"
	switch {
	case !slices.ContainsFunc(in, isExternal):
	case slices.ContainsFunc(in, func(c string) bool { return !isExternal(c) }):
		which += ", or that in front of istiod,"
	default:
		which = "the gateway in front of istiod"
	}
	what := "make " + which + " one of istio " + versionOf(r)
	if r.Revision != "" {
		what += " and revision " + r.Revision
	}
	return &change{
		sentence: what + " in " + words.And(in), in: in,
		commands: commandsIn(in, func(c string) string {
			if isExternal(c) {
				return r.IngressCommand(c)
			}
			return r.GatewayCommand(c)
		}),
		available: func(m *mesh.Mesh) error {
			for _, name := range in {
				if member, err := m.Member(name); err == nil && !m.HasGateway(member.Spec) && !member.Spec.External() {
					return fmt.Errorf("%s has no east-west gateway", name)
				}
			}
			return upgrades(in, r.Istio, r.Revision)(m)
		},
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.UpgradeGateway(ctx, r)
		}),
	}
}

// upgrades returns the reason why control planes cannot come and go in a mesh. On clusters with other users a revision's webhooks would
// serve all of them; the objects of other meshes lack the labels by which istioctl uninstall finds them; and an istiod outside of the
// mesh has its settings and its way in by fixed names, so there is none beside it.
func upgrades(in []string, istio, revision string) func(*mesh.Mesh) error {
	return func(m *mesh.Mesh) error {
		if !m.Versioned() {
			return errors.New("control planes can come and go in a lab that is made for it: use one whose topology has `istio: previous`")
		}
		for _, name := range in {
			cluster, _ := m.Cluster(name) // change has looked for it
			if primary, ok := m.Cluster(cluster.Primary); ok && revision != "" && primary.External() {
				return fmt.Errorf("%s cannot have revisions: its istiod is outside of the mesh, with settings and a way in by fixed names. "+
					"Upgrade it in place: install-istiod and upgrade-gateway without revision, as in scenario upgrade-external", name)
			}
		}
		_, err := m.Release(istio)
		return err
	}
}

func versionOf(r mesh.Release) string {
	if r.Istio == "" {
		return "current"
	}
	return r.Istio
}

// SetTag makes a tag stand for a revision.
func SetTag(in []string, tag, revision string) Fault {
	return &change{
		sentence: fmt.Sprintf("make the tag %s stand for revision %s in %s", tag, revision, words.And(in)),
		commands: commandsIn(in, func(c string) string { return mesh.SetTagCommand(c, tag, revision) }), in: in,
		available: upgrades(in, "", revision),
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.SetTag(ctx, tag, revision)
		}),
	}
}

// UninstallIstiod removes what Istio has labelled with a revision, gateways included.
func UninstallIstiod(in []string, revision string) Fault {
	return &change{
		sentence: fmt.Sprintf("remove revision %s in %s", revision, words.And(in)),
		commands: commandsIn(in, func(c string) string { return mesh.UninstallCommand(c, revision) }), in: in,
		available: upgrades(in, "", revision),
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.UninstallIstiod(ctx, revision)
		}),
	}
}

// RestartRevision restarts the istiod of a revision and waits until the new one serves.
func RestartRevision(in []string, revision string) Fault {
	return &change{
		sentence: fmt.Sprintf("restart istiod of revision %s in %s", revision, words.And(in)),
		commands: commandsIn(in, func(c string) string {
			return fmt.Sprintf("kubectl rollout restart deployment/%s -n %s --context=%s", mesh.IstiodOf(revision), mesh.SystemNamespace, c)
		}),
		in: in, available: upgrades(in, "", revision),
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.RestartRevision(ctx, revision)
		}),
	}
}

// ExposeIstiod lets other clusters reach the istiod of a revision through the east-west gateway.
func ExposeIstiod(in []string, revision string) Fault {
	return &change{
		sentence: fmt.Sprintf("expose istiod of revision %s in %s", revision, words.And(in)),
		commands: commandsIn(in, func(c string) string { return mesh.ExposeCommand(c, revision) }), in: in,
		available: upgrades(in, "", revision),
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.ExposeIstiod(ctx, revision)
		}),
	}
}
