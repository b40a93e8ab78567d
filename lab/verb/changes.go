package verb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// inArgs is what most changes need.
type inArgs struct {
	// In which clusters, all at once.
	In strict.List[string] `yaml:"in" ref:"cluster" required:"true"`
}

type createCACertsArgs struct {
	inArgs
	fault.CACerts
}

// Change implements Changer.
func (a *createCACertsArgs) Change(Ground) (fault.Fault, error) {
	wanted := a.CACerts
	wanted.RootLifetime = wait.Lifetime(wanted.RootLifetime)
	if i := wanted.Intermediate; i != nil {
		lives := *i
		lives.Lifetime = wait.Lifetime(i.Lifetime)
		wanted.Intermediate = &lives
	}
	return fault.CreateCACerts(a.In, wanted), nil
}

type spoilCACertsArgs struct {
	inArgs
	fault.Spoiled
}

// Change implements Changer.
func (a *spoilCACertsArgs) Change(Ground) (fault.Fault, error) {
	return fault.SpoilCACerts(a.In, a.Spoiled), nil
}

type caCertificatesArgs struct {
	// Whose mesh configuration, all at once.
	In strict.List[string] `yaml:"in" ref:"cluster" required:"true"`
	// The cluster whose roots are meant, as its Secrets have them now.
	Of string `yaml:"of" ref:"cluster" required:"true"`
}

func (a *caCertificatesArgs) Change(Ground) (fault.Fault, error) {
	return fault.CACertificates(a.In, a.Of), nil
}

type meshConfigArgs struct {
	inArgs
	// Settings in the shape of meshConfig; null deletes one, a list replaces the whole list.
	Set map[string]any `yaml:"set" required:"true"`
}

func (a *meshConfigArgs) Change(Ground) (fault.Fault, error) { return fault.MeshConfig(a.In, a.Set) }

type setEnvArgs struct {
	// Which workloads: istiod@cluster-a, or apps like echo@cluster-b.
	Apps strict.List[observe.Workload] `yaml:"apps" ref:"workload" required:"true"`
	// Variables and their values; an empty value removes one.
	Env map[string]string `yaml:"env" required:"true"`
}

func (a *setEnvArgs) Change(Ground) (fault.Fault, error) {
	return fault.SetEnv(a.Env, a.Apps...), nil
}

type certificateLifetimeArgs struct {
	// Which workloads, all at once: apps like echo@cluster-b, or istio-eastwestgateway@cluster-b.
	Apps strict.List[observe.Workload] `yaml:"apps" ref:"workload" required:"true"`
	// How long each of their certificates lives. A proxy asks for the next one when half of it is over.
	Is time.Duration `yaml:"is" required:"true" min:"10s"`
}

func (a *certificateLifetimeArgs) Change(Ground) (fault.Fault, error) {
	return fault.CertificateLifetime(wait.Lifetime(a.Is), a.Apps...), nil
}

type deleteCACertsArgs inArgs

func (a *deleteCACertsArgs) Change(Ground) (fault.Fault, error) {
	return fault.DeleteCACerts(a.In), nil
}

type selfSignArgs inArgs

func (a *selfSignArgs) Change(Ground) (fault.Fault, error) { return fault.SelfSign(a.In), nil }

type restartIstiodArgs struct {
	inArgs
	// false: do not wait for the new one, which may never serve.
	Wait *bool `yaml:"wait"`
	// The revision, like 1-31; the one without a revision if left out.
	Revision string `yaml:"revision" name:"kebab"`
}

// Validate refuses what cannot be meant together.
func (a *restartIstiodArgs) Validate() error {
	if a.Revision != "" && a.Wait != nil && !*a.Wait {
		return strict.At("wait", errors.New("a revision is always waited for: leave it out"))
	}
	return nil
}

func (a *restartIstiodArgs) Change(Ground) (fault.Fault, error) {
	if a.Revision != "" {
		return fault.RestartRevision(a.In, a.Revision), nil
	}
	if a.Wait != nil && !*a.Wait {
		return fault.RollIstiod(a.In), nil
	}
	return fault.RestartIstiod(a.In), nil
}

type restartWorkloadsArgs inArgs

func (a *restartWorkloadsArgs) Change(Ground) (fault.Fault, error) {
	return fault.RestartWorkloads(a.In), nil
}

type restartArgs struct {
	// Which workloads, all at once: apps like echo@cluster-b, or istio-eastwestgateway@cluster-b.
	Apps strict.List[observe.Workload] `yaml:"apps" ref:"workload" required:"true"`
	// false: do not wait for the new pods, which may never be Ready.
	Wait *bool `yaml:"wait"`
}

func (a *restartArgs) Change(Ground) (fault.Fault, error) {
	if a.Wait != nil && !*a.Wait {
		return fault.Roll(a.Apps...), nil
	}
	return fault.Restart(a.Apps...), nil
}

type revokeRemoteSecretArgs struct {
	// Whose istiod loses the access.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// The cluster that it reads.
	Of string `yaml:"of" ref:"cluster" required:"true"`
}

func (a *revokeRemoteSecretArgs) Change(Ground) (fault.Fault, error) {
	return fault.RevokeRemoteSecret(a.In, a.Of), nil
}

func (a *revokeRemoteSecretArgs) Validate() error { return apart("of", a.In, a.Of) }

// apart refuses one cluster where two are meant.
func apart(field, a, b string) error {
	if a == b && a != "" {
		return strict.At(field, fmt.Errorf("the other cluster is meant, not %s again", a))
	}
	return nil
}

type createRemoteSecretArgs struct {
	// Whose istiod gets the access.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// The cluster that it is to read.
	Of string `yaml:"of" ref:"cluster" required:"true"`
	// Address of that cluster's API server, such as the wrong one https://127.0.0.1:6443; its own if left out.
	Server string `yaml:"server"`
	// Credentials, to give wrong ones; those of the cluster's istio-reader-service-account if left out.
	Token string `yaml:"token"`
	// The id under which istiod is to know the cluster, to give a wrong one; its name if left out.
	Name string `yaml:"name" name:"kebab"`
}

func (a *createRemoteSecretArgs) Change(Ground) (fault.Fault, error) {
	return fault.CreateRemoteSecret(a.In, a.Of, mesh.RemoteSecret{Server: a.Server, Token: a.Token, Name: a.Name}), nil
}

func (a *createRemoteSecretArgs) Validate() error { return apart("of", a.In, a.Of) }

type severArgs struct {
	// The two clusters.
	Between strict.List[string] `yaml:"between" ref:"cluster" required:"true"`
}

func (a *severArgs) Change(Ground) (fault.Fault, error) {
	return fault.Sever(a.Between[0], a.Between[1]), nil
}

func (a *severArgs) Validate() error { return two(a.Between) }

func two(between []string) error {
	if len(between) != 2 {
		return strict.At("between", fmt.Errorf("want two clusters, not %d", len(between)))
	}
	return nil // that they are two different ones, the loader sees
}

type reconnectArgs severArgs

func (a *reconnectArgs) Change(Ground) (fault.Fault, error) {
	return fault.Reconnect(a.Between[0], a.Between[1]), nil
}

func (a *reconnectArgs) Validate() error { return two(a.Between) }

type blockPortArgs struct {
	// The cluster whose port it is.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// The cluster that sends.
	From string `yaml:"from" ref:"cluster" required:"true"`
	// The TCP port, like 15443.
	Port uint16 `yaml:"port" min:"1" max:"65535" required:"true"`
}

func (a *blockPortArgs) Change(Ground) (fault.Fault, error) {
	return fault.BlockPort(a.In, a.From, a.Port), nil
}

func (a *blockPortArgs) Validate() error { return apart("from", a.In, a.From) }

type unblockPortArgs blockPortArgs

func (a *unblockPortArgs) Change(Ground) (fault.Fault, error) {
	return fault.UnblockPort(a.In, a.From, a.Port), nil
}

func (a *unblockPortArgs) Validate() error { return apart("from", a.In, a.From) }

type componentArgs struct {
	// In which cluster.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// Which process below Kubernetes, like etcd or kube-apiserver.
	Component string `yaml:"component" required:"true"`
}

type stopComponentArgs componentArgs

func (a *stopComponentArgs) Change(Ground) (fault.Fault, error) {
	return fault.StopComponent(a.In, a.Component), nil
}

type continueComponentArgs componentArgs

func (a *continueComponentArgs) Change(Ground) (fault.Fault, error) {
	return fault.ContinueComponent(a.In, a.Component), nil
}

type killComponentArgs componentArgs

func (a *killComponentArgs) Change(Ground) (fault.Fault, error) {
	return fault.KillComponent(a.In, a.Component), nil
}

type freezeArgs struct {
	// Which workloads: istiod@cluster-a, apps like echo@cluster-b, or istio-eastwestgateway@cluster-b.
	Apps strict.List[observe.Workload] `yaml:"apps" ref:"workload" required:"true"`
}

func (a *freezeArgs) Change(Ground) (fault.Fault, error) { return fault.Freeze(a.Apps...), nil }

type thawArgs freezeArgs

func (a *thawArgs) Change(Ground) (fault.Fault, error) { return fault.Thaw(a.Apps...), nil }

type applyArgs struct {
	inArgs
	// The manifest, beside the scenario.
	File string `yaml:"file" ref:"file" required:"true"`
}

func (a *applyArgs) Change(g Ground) (fault.Fault, error) {
	root, err := os.OpenRoot(g.Dir)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", a.File, err)
	}
	defer root.Close() //nolint:errcheck // it was only read
	manifest, err := root.ReadFile(filepath.FromSlash(a.File))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", a.File, err)
	}
	return fault.Apply(a.In, a.File, manifest), nil
}

type deleteArgs struct {
	inArgs
	fault.Object
	// The object may be absent, which is no error then. Without it, an object that is not there is an error.
	IfThere bool `yaml:"if-there"`
}

func (a *deleteArgs) Change(Ground) (fault.Fault, error) {
	if a.IfThere {
		return fault.DeleteIfThere(a.In, a.Object), nil
	}
	return fault.Delete(a.In, a.Object), nil
}

type patchArgs struct {
	inArgs
	fault.Object
	// What is merged into the object, in the shape of the object; a list replaces the whole list.
	Patch any `yaml:"patch" required:"true"`
}

func (a *patchArgs) Change(Ground) (fault.Fault, error) {
	return fault.Patch(a.In, a.Object, a.Patch)
}

type labelArgs struct {
	inArgs
	fault.Object
	// Labels to set.
	Labels map[string]string `yaml:"labels"`
	// Labels to remove.
	Remove strict.List[string] `yaml:"remove"`
}

func (a *labelArgs) Validate() error {
	if len(a.Labels)+len(a.Remove) == 0 {
		return errors.New("want labels to set or to remove")
	}
	return nil
}

func (a *labelArgs) Change(Ground) (fault.Fault, error) {
	labels := map[string]*string{}
	for name, value := range a.Labels {
		labels[name] = &value
	}
	for _, name := range a.Remove {
		labels[name] = nil
	}
	return fault.Label(a.In, a.Object, labels)
}

type scaleArgs struct {
	// Which workloads: apps like echo@cluster-b, istiod@cluster-b, or istio-eastwestgateway@cluster-b.
	Apps strict.List[observe.Workload] `yaml:"apps" ref:"workload" required:"true"`
	// How many pods.
	Replicas *int `yaml:"replicas" required:"true" min:"0" max:"10"`
}

func (a *scaleArgs) Change(Ground) (fault.Fault, error) {
	return fault.Scale(*a.Replicas, a.Apps...), nil
}

// releaseArgs are a version of Istio and how it is installed.
type releaseArgs struct {
	inArgs
	// The version of Istio. A lab has the previous one only if its topology has it.
	Istio scenario.Version `yaml:"istio" enum:"current,previous" required:"true"`
	// The revision, like 1-31. Without it, the installation that has none is replaced.
	Revision string `yaml:"revision" name:"kebab"`
}

func (a *releaseArgs) release() mesh.Release {
	return mesh.Release{Istio: a.Istio.Other(), Revision: a.Revision}
}

// Validate refuses the name of the installation without a revision.
func (a *releaseArgs) Validate() error {
	if a.Revision == mesh.DefaultRevision {
		return strict.At("revision", errors.New("default stands for the installation without a revision: leave it out"))
	}
	return nil
}

type installIstiodArgs struct{ releaseArgs }

func (a *installIstiodArgs) Change(Ground) (fault.Fault, error) {
	return fault.InstallIstiod(a.In, a.release()), nil
}

type upgradeGatewayArgs struct{ releaseArgs }

func (a *upgradeGatewayArgs) Change(g Ground) (fault.Fault, error) {
	var external []string
	for _, c := range g.Shape.All() {
		if c.External() {
			external = append(external, c.Name)
		}
	}
	return fault.UpgradeGateway(a.In, a.release(), external...), nil
}

type setTagArgs struct {
	inArgs
	// The tag. Namespaces with the label istio-injection=enabled use the tag default.
	Tag string `yaml:"tag" name:"kebab" example:"default" required:"true"`
	// The revision that it is to stand for; default is the one that was installed without a revision.
	Revision string `yaml:"revision" name:"kebab" example:"1-31" required:"true"`
}

func (a *setTagArgs) Change(Ground) (fault.Fault, error) {
	return fault.SetTag(a.In, a.Tag, a.Revision), nil
}

type revisionArgs struct {
	inArgs
	// The revision; default is the one that was installed without a revision.
	Revision string `yaml:"revision" name:"kebab" example:"1-31" required:"true"`
}

type uninstallIstiodArgs struct{ revisionArgs }

func (a *uninstallIstiodArgs) Change(Ground) (fault.Fault, error) {
	return fault.UninstallIstiod(a.In, a.Revision), nil
}

type exposeIstiodArgs struct{ revisionArgs }

// Validate refuses the installation without a revision.
func (a *exposeIstiodArgs) Validate() error {
	if a.Revision == mesh.DefaultRevision {
		return strict.At("revision", errors.New("the istiod without a revision is exposed from the beginning, where it serves others"))
	}
	return nil
}

func (a *exposeIstiodArgs) Change(Ground) (fault.Fault, error) {
	return fault.ExposeIstiod(a.In, a.Revision), nil
}
