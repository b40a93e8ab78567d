package verb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// in is what most changes need.
type inArgs struct {
	In scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
}

type createCACertsArgs struct {
	In           scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Root         string            `yaml:"root" enum:"shared,new,own,twin,self-signed" required:"true" doc:"Who signs. shared: the cluster's intermediate below the root that all clusters of the lab share. new: an intermediate below a second root, also common to all. own: an intermediate below a root that only this cluster has. twin: the same, but that root is called like the shared one, and nothing but the name links an intermediate to it. self-signed: the CA that istiod made for itself, as the first step away from it."`
	Trusts       trusts            `yaml:"trusts" enum:"shared,new,own,twin,self-signed,peers" doc:"The roots in root-cert.pem, in this order; only that of root if left out. peers: those that the other clusters have now."`
	Intermediate *intermediateArgs `yaml:"intermediate" doc:"Asks for an intermediate that has never been used, {} for an ordinary one. Without it a cluster has the same one below a root each time."`
	RootLifetime scenario.Duration `yaml:"root-lifetime" doc:"Asks for a root that has never been used and lives so long; the clusters share it, and root does not matter."`
	CRL          string            `yaml:"crl" enum:"complete,kept" doc:"ca-crl.pem. complete: an empty list of the shared root and of each of the lab's intermediates. kept: what stands there now. Without it there is none."`
}

type intermediateArgs struct {
	Lifetime scenario.Duration `yaml:"lifetime" doc:"How long it lives; two years if left out."`
	StartsIn scenario.Duration `yaml:"starts-in" doc:"It is not valid before that time has passed, as if it was made by a clock that is ahead."`
	Reissued bool              `yaml:"reissued" doc:"The usual intermediate stays in ca-cert.pem, and cert-chain.pem gets a second certificate for the same key."`
}

type trusts []string

func (a *createCACertsArgs) Change(Ground) (fault.Fault, error) {
	o := fault.CACerts{Root: fault.Root(a.Root), RootLifetime: time.Duration(a.RootLifetime), CRL: fault.CRL(a.CRL)}
	for _, t := range a.Trusts {
		o.Trusted = append(o.Trusted, fault.Root(t))
	}
	if i := a.Intermediate; i != nil {
		o.Fresh, o.Lifetime, o.From, o.Reissued = true, time.Duration(i.Lifetime), time.Duration(i.StartsIn), i.Reissued
	}
	return fault.CreateCACerts(a.In, o), nil
}

// Validate refuses what a self-signed CA cannot have.
func (a *createCACertsArgs) Validate() error {
	if a.Root == string(fault.SelfSignedRoot) && a.Intermediate != nil {
		return scenario.At("intermediate", errors.New("the CA that istiod made for itself signs alone"))
	}
	return nil
}

type spoilCACertsArgs struct {
	In       scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Rename   map[string]string `yaml:"rename" doc:"Keys that get another name."`
	Remove   keyNames          `yaml:"remove" doc:"Keys that go away."`
	Empty    keyNames          `yaml:"empty" doc:"Keys whose file becomes empty."`
	OtherKey bool              `yaml:"other-key" doc:"ca-key.pem becomes a private key that belongs to no certificate of it."`
	MoveTo   string            `yaml:"move-to" ref:"namespace" doc:"The namespace that the Secret is moved to."`
}

type keyNames []string

func (a *spoilCACertsArgs) Validate() error {
	if len(a.Rename)+len(a.Remove)+len(a.Empty) == 0 && !a.OtherKey && a.MoveTo == "" {
		return errors.New("want something to make wrong: rename, remove, empty, other-key, or move-to")
	}
	return nil
}

func (a *spoilCACertsArgs) Change(Ground) (fault.Fault, error) {
	return fault.SpoilCACerts(a.In, fault.Spoiled{Rename: a.Rename, Remove: a.Remove, Empty: a.Empty, OtherKey: a.OtherKey, MoveTo: a.MoveTo}), nil
}

type caCertificatesArgs struct {
	In scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"Whose mesh configuration, all at once."`
	Of string            `yaml:"of" ref:"cluster" required:"true" doc:"The cluster whose roots are meant, as its Secrets have them now."`
}

func (a *caCertificatesArgs) Change(Ground) (fault.Fault, error) {
	return fault.CACertificates(a.In, a.Of), nil
}

type meshConfigArgs struct {
	In  scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Set map[string]any    `yaml:"set" required:"true" doc:"Settings in the shape of meshConfig; null deletes one, a list replaces the whole list."`
}

func (a *meshConfigArgs) Change(Ground) (fault.Fault, error) { return fault.MeshConfig(a.In, a.Set) }

type setEnvArgs struct {
	Apps apps              `yaml:"apps" required:"true" doc:"Which workloads: istiod@cluster-a, or apps like echo@cluster-b."`
	Env  map[string]string `yaml:"env" required:"true" doc:"Variables and their values; an empty value removes one."`
}

func (a *setEnvArgs) Change(Ground) (fault.Fault, error) {
	return fault.SetEnv(a.Env, a.Apps.workloads()...), nil
}

type certificateLifetimeArgs struct {
	Apps apps              `yaml:"apps" required:"true" doc:"Which workloads, all at once: apps like echo@cluster-b, or istio-eastwestgateway@cluster-b."`
	Is   scenario.Duration `yaml:"is" required:"true" min:"10s" doc:"How long each of their certificates lives. A proxy asks for the next one when half of it is over."`
}

func (a *certificateLifetimeArgs) Change(Ground) (fault.Fault, error) {
	return fault.CertificateLifetime(time.Duration(a.Is), a.Apps.workloads()...), nil
}

type deleteCACertsArgs inArgs

func (a *deleteCACertsArgs) Change(Ground) (fault.Fault, error) {
	return fault.DeleteCACerts(a.In), nil
}

type selfSignArgs inArgs

func (a *selfSignArgs) Change(Ground) (fault.Fault, error) { return fault.SelfSign(a.In), nil }

type restartIstiodArgs struct {
	In   scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Wait *bool             `yaml:"wait" doc:"false: do not wait for the new one, which may never serve."`
}

func (a *restartIstiodArgs) Change(Ground) (fault.Fault, error) {
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
	Apps apps  `yaml:"apps" required:"true" doc:"Which workloads, all at once: apps like echo@cluster-b, or istio-eastwestgateway@cluster-b."`
	Wait *bool `yaml:"wait" doc:"false: do not wait for the new pods, which may never be Ready."`
}

func (a *restartArgs) Change(Ground) (fault.Fault, error) {
	if a.Wait != nil && !*a.Wait {
		return fault.Roll(a.Apps.workloads()...), nil
	}
	return fault.Restart(a.Apps.workloads()...), nil
}

type revokeRemoteSecretArgs struct {
	In string `yaml:"in" ref:"cluster" required:"true" doc:"Whose istiod loses the access."`
	Of string `yaml:"of" ref:"cluster" required:"true" doc:"The cluster that it reads."`
}

func (a *revokeRemoteSecretArgs) Change(Ground) (fault.Fault, error) {
	return fault.RevokeRemoteSecret(a.In, a.Of), nil
}

func (a *revokeRemoteSecretArgs) Validate() error { return apart("of", a.In, a.Of) }

// apart refuses one cluster where two are meant.
func apart(field, a, b string) error {
	if a == b && a != "" {
		return scenario.At(field, fmt.Errorf("the other cluster is meant, not %s again", a))
	}
	return nil
}

type createRemoteSecretArgs struct {
	In     string `yaml:"in" ref:"cluster" required:"true" doc:"Whose istiod gets the access."`
	Of     string `yaml:"of" ref:"cluster" required:"true" doc:"The cluster that it is to read."`
	Server string `yaml:"server" doc:"Address of that cluster's API server, such as the wrong one https://127.0.0.1:6443; its own if left out."`
	Token  string `yaml:"token" doc:"Credentials, to give wrong ones; those of the cluster's istio-reader-service-account if left out."`
	Name   string `yaml:"name" name:"kebab" doc:"The id under which istiod is to know the cluster, to give a wrong one; its name if left out."`
}

func (a *createRemoteSecretArgs) Change(Ground) (fault.Fault, error) {
	return fault.CreateRemoteSecret(a.In, a.Of, mesh.RemoteSecret{Server: a.Server, Token: a.Token, Name: a.Name}), nil
}

func (a *createRemoteSecretArgs) Validate() error { return apart("of", a.In, a.Of) }

type severArgs struct {
	Between scenario.Clusters `yaml:"between" ref:"cluster" required:"true" doc:"The two clusters."`
}

func (a *severArgs) Change(Ground) (fault.Fault, error) {
	return fault.Sever(a.Between[0], a.Between[1]), nil
}

func (a *severArgs) Validate() error { return two(a.Between) }

func two(between []string) error {
	if len(between) != 2 {
		return scenario.At("between", fmt.Errorf("want two clusters, not %d", len(between)))
	}
	return nil // that they are two different ones, the loader sees
}

type reconnectArgs severArgs

func (a *reconnectArgs) Change(Ground) (fault.Fault, error) {
	return fault.Reconnect(a.Between[0], a.Between[1]), nil
}

func (a *reconnectArgs) Validate() error { return two(a.Between) }

type blockPortArgs struct {
	In   string `yaml:"in" ref:"cluster" required:"true" doc:"The cluster whose port it is."`
	From string `yaml:"from" ref:"cluster" required:"true" doc:"The cluster that sends."`
	Port uint16 `yaml:"port" min:"1" max:"65535" required:"true" doc:"The TCP port, like 15443."`
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
	In        string `yaml:"in" ref:"cluster" required:"true" doc:"In which cluster."`
	Component string `yaml:"component" required:"true" doc:"Which process below Kubernetes, like etcd or kube-apiserver."`
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

type applyArgs struct {
	In   scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	File string            `yaml:"file" ref:"file" required:"true" doc:"The manifest, beside the scenario."`
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
	In        scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Kind      string            `yaml:"kind" required:"true" doc:"The object's kind, like Service or gateways.networking.istio.io."`
	Name      string            `yaml:"name" required:"true" doc:"The object's name."`
	Namespace string            `yaml:"namespace" ref:"namespace" doc:"The object's namespace; none for kinds without."`
}

func (a *deleteArgs) Change(Ground) (fault.Fault, error) {
	return fault.Delete(a.In, fault.Object{Kind: a.Kind, Name: a.Name, Namespace: a.Namespace}), nil
}

type patchArgs struct {
	In        scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Kind      string            `yaml:"kind" required:"true" doc:"The object's kind, like Service or gateways.networking.istio.io."`
	Name      string            `yaml:"name" required:"true" doc:"The object's name."`
	Namespace string            `yaml:"namespace" ref:"namespace" doc:"The object's namespace; none for kinds without."`
	Patch     any               `yaml:"patch" required:"true" doc:"What is merged into the object, in the shape of the object; a list replaces the whole list."`
}

func (a *patchArgs) Change(Ground) (fault.Fault, error) {
	return fault.Patch(a.In, fault.Object{Kind: a.Kind, Name: a.Name, Namespace: a.Namespace}, a.Patch)
}

type labelArgs struct {
	In        scenario.Clusters `yaml:"in" ref:"cluster" required:"true" doc:"In which clusters, all at once."`
	Kind      string            `yaml:"kind" required:"true" doc:"The object's kind, like Namespace."`
	Name      string            `yaml:"name" required:"true" doc:"The object's name."`
	Namespace string            `yaml:"namespace" ref:"namespace" doc:"The object's namespace; none for kinds without."`
	Labels    map[string]string `yaml:"labels" doc:"Labels to set."`
	Remove    labelNames        `yaml:"remove" doc:"Labels to remove."`
}

type labelNames []string

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
	return fault.Label(a.In, fault.Object{Kind: a.Kind, Name: a.Name, Namespace: a.Namespace}, labels)
}

type scaleArgs struct {
	Apps     apps `yaml:"apps" required:"true" doc:"Which workloads: apps like echo@cluster-b, istiod@cluster-b, or istio-eastwestgateway@cluster-b."`
	Replicas *int `yaml:"replicas" required:"true" min:"0" max:"10" doc:"How many pods."`
}

func (a *scaleArgs) Change(Ground) (fault.Fault, error) {
	return fault.Scale(*a.Replicas, a.Apps.workloads()...), nil
}
