package verb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

type callArgs struct {
	// Who calls, like client@cluster-a; each of them if there are several. my-pod is as old as the lab.
	From apps `yaml:"from" ref:"app" required:"true"`
	// Which of its pods calls; the oldest if left out. Old and new pods can have different certificates.
	FromPod string `yaml:"from-pod" enum:"oldest,newest"`
	// Who is called: echo@cluster-b is that cluster's own instance, echo is the service, balanced over every cluster
	// that has it.
	To scenario.App `yaml:"to" ref:"app-or-service" required:"true"`
	// fresh (the default): a new connection per call, so every call proves trust. reused: connections that are kept,
	// which go on working after trust is gone.
	Connections scenario.Connections `yaml:"connections" enum:"fresh,reused"`
	// How many calls; 5 if left out.
	Count int `yaml:"count" min:"1" max:"100"`
	// How many of them have to go as wanted; all if left out.
	AtLeast int `yaml:"at-least" min:"1" max:"100"`
	// Who answers: nobody else, and each of them at least once. The cluster of to if left out.
	AnsweredBy scenario.Clusters `yaml:"answered-by" ref:"cluster"`
	// The caller's SPIFFE identity, as the answering proxy saw it.
	Client scenario.Pattern `yaml:"client"`
	// The SPIFFE identity of the one who answered.
	Server scenario.Pattern `yaml:"server"`
	// The answer comes in plain text; otherwise it has to come over mutual TLS.
	Plaintext bool `yaml:"plaintext"`
	// The calls fail, and their error matches: TLS texts move between versions, so match no more of one than you need.
	Fails scenario.Pattern `yaml:"fails"`
}

// Validate refuses what contradicts itself.
func (a *callArgs) Validate() error {
	if a.Fails.Regexp != nil && (len(a.AnsweredBy) > 0 || a.Client.Regexp != nil || a.Server.Regexp != nil || a.Plaintext) {
		return scenario.At("fails", errors.New("a call that fails is answered by nobody: leave out answered-by, client, server, and plaintext"))
	}
	if a.AtLeast > max(a.Count, 5) || a.Count > 0 && a.AtLeast > a.Count {
		return scenario.At("at-least", errors.New("more than there are calls"))
	}
	return nil
}

func (a *callArgs) Check(Ground) (observe.Check, error) {
	calls := make(observe.Calls, len(a.From))
	for i, from := range a.From.workloads() {
		calls[i] = observe.Call{
			From: from, FromPod: observe.Which(a.FromPod), To: workload(a.To), Reused: a.Connections == scenario.Reused,
			Count: a.Count, AtLeast: a.AtLeast, AnsweredBy: a.AnsweredBy, Client: a.Client.Regexp, Server: a.Server.Regexp,
			Plaintext: a.Plaintext, Fails: a.Fails.Regexp,
		}
	}
	return calls, nil
}

type certificateArgs struct {
	// Whose proxies: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of apps `yaml:"of" ref:"workload" required:"true"`
	// Which pods of each; all if left out.
	Pods string `yaml:"pods" enum:"all,newest,oldest"`
	// The SPIFFE identity in it, like ^spiffe://cluster.local/.
	Identity scenario.Pattern `yaml:"identity"`
	// Whether one of the certificates that it shows has expired.
	Expired *bool `yaml:"expired"`
	// Its own certificate ends within that time from now.
	ExpiresWithin scenario.Duration `yaml:"expires-within"`
	// Its own certificate ends no sooner than that from now.
	OutlivesNow scenario.Duration `yaml:"lives-at-least"`
	// How many certificates it shows, its own and the root included.
	Chain int `yaml:"chain" min:"1" max:"9"`
}

// Validate wants something to look for.
func (a *certificateArgs) Validate() error {
	if a.Identity.Regexp == nil && a.Expired == nil && a.ExpiresWithin == 0 && a.OutlivesNow == 0 && a.Chain == 0 {
		return errors.New("want at least one of identity, expired, expires-within, lives-at-least, and chain")
	}
	return nil
}

func (a *certificateArgs) Check(Ground) (observe.Check, error) {
	return observe.Certificate{
		Of: a.Of.workloads(), Pods: observe.Which(a.Pods), Identity: a.Identity.Regexp, Expired: a.Expired,
		ExpiresWithin: time.Duration(a.ExpiresWithin), LivesAtLeast: time.Duration(a.OutlivesNow), Chain: a.Chain,
	}, nil
}

type istiodStatArgs struct {
	// Whose istiod.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// Which metrics, by their names and labels on its page /metrics; those that match are summed up.
	Stat scenario.Pattern `yaml:"stat" required:"true"`
	// The sum is at least so much.
	AtLeast *float64 `yaml:"at-least"`
	// The sum is at most so much.
	AtMost *float64 `yaml:"at-most"`
}

// Validate wants something to compare with.
func (a *istiodStatArgs) Validate() error {
	if a.AtLeast == nil && a.AtMost == nil {
		return errors.New("want at-least or at-most")
	}
	return nil
}

func (a *istiodStatArgs) Check(Ground) (observe.Check, error) {
	return observe.IstiodStat{In: a.In, Stat: a.Stat.Regexp, AtLeast: a.AtLeast, AtMost: a.AtMost}, nil
}

type commandArgs struct {
	// The command, as a person would paste it: kubectl … or istioctl …, with --context=cluster-a.
	Run string `yaml:"run" required:"true"`
	// What its output has.
	Expect scenario.Pattern `yaml:"expect"`
	// What its output does not have.
	Absent scenario.Pattern `yaml:"absent"`
	// It ends with an error.
	Fails bool `yaml:"fails"`
}

// Validate refuses commands that are none, or that may change something.
func (a *commandArgs) Validate() error {
	if _, err := (observe.Command{Run: a.Run}).Parse(); err != nil {
		return scenario.At("run", err)
	}
	return nil
}

func (a *commandArgs) Check(g Ground) (observe.Check, error) {
	return observe.Command{Run: a.Run, Expect: a.Expect.Regexp, Absent: a.Absent.Regexp, Fails: a.Fails, Tools: g.Tools}, nil
}

type dnsArgs struct {
	// Whose pod looks the name up.
	From scenario.App `yaml:"from" ref:"app" required:"true"`
	// The full host name, like echo.production.svc.cluster.local.
	Name string `yaml:"name" required:"true"`
	// It does not resolve.
	Fails bool `yaml:"fails"`
}

func (a *dnsArgs) Check(Ground) (observe.Check, error) {
	return observe.DNS{From: workload(a.From), Name: a.Name, Fails: a.Fails}, nil
}

type doctorArgs struct {
	// The id of the first finding, as eastwest doctor explain lists them, or nothing.
	Finds string `yaml:"finds" required:"true"`
}

// Validate refuses findings that there are not.
func (a *doctorArgs) Validate() error {
	ids := []string{doctor.Nothing}
	for _, k := range doctor.Findings() {
		ids = append(ids, k.ID)
	}
	if !slices.Contains(ids, a.Finds) {
		return scenario.At("finds", fmt.Errorf("there is no finding %q: they are %s", a.Finds, strings.Join(ids, ", ")))
	}
	return nil
}

func (a *doctorArgs) Check(g Ground) (observe.Check, error) {
	return doctor.Diagnosis{Finds: a.Finds, Lab: cmp.Or(g.Lab, "eastwest")}, nil
}

type endpointsArgs struct {
	// Whose proxy.
	SeenBy scenario.App `yaml:"seen-by" ref:"app" required:"true"`
	// Of whom: echo@cluster-b is that cluster's own instance, echo the service in all clusters.
	Of scenario.App `yaml:"of" ref:"app-or-service" required:"true"`
	// Every endpoint is the address of an east-west gateway, or of a pod itself.
	Address string `yaml:"address" enum:"gateway,pod"`
	// How many endpoints; at least one if left out.
	Count *int `yaml:"count" min:"0" max:"1000"`
}

func (a *endpointsArgs) Check(Ground) (observe.Check, error) {
	return observe.Endpoints{SeenBy: workload(a.SeenBy), Of: workload(a.Of), Address: observe.Address(a.Address), Count: a.Count}, nil
}

type fingerprintsArgs struct {
	// The clusters to compare.
	In scenario.Clusters `yaml:"in" ref:"cluster" required:"true"`
	// Whether they are equal.
	Equal *bool `yaml:"equal" required:"true"`
	// Whether the names in the certificates are equal, which is what people compare by mistake.
	Names *bool `yaml:"names-equal"`
}

// Validate refuses to compare one with itself.
func (a *fingerprintsArgs) Validate() error {
	if len(a.In) < 2 {
		return scenario.At("in", errors.New("want at least two clusters"))
	}
	return nil
}

func (a *fingerprintsArgs) Check(Ground) (observe.Check, error) {
	return observe.Fingerprints{In: a.In, Equal: *a.Equal, Names: a.Names}, nil
}

type gatewaySeesArgs struct {
	// Who calls, in one cluster.
	From scenario.App `yaml:"from" ref:"app" required:"true"`
	// Who is called, in the other: it is that cluster's gateway that sees the call.
	To scenario.App `yaml:"to" ref:"app" required:"true"`
	// The call does not get as far as the gateway.
	Absent bool `yaml:"absent"`
}

// Validate refuses calls that cross no border.
func (a *gatewaySeesArgs) Validate() error { return apart("to", a.From.Cluster, a.To.Cluster) }

func (a *gatewaySeesArgs) Check(Ground) (observe.Check, error) {
	return observe.GatewaySees{From: workload(a.From), To: workload(a.To), Absent: a.Absent}, nil
}

type issuerArgs struct {
	// Whose certificates: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of apps `yaml:"of" ref:"workload" required:"true"`
	// Which of their pods; all if left out.
	Pods string `yaml:"pods" enum:"all,newest,oldest"`
	// Who signed them: the CA that stands in the cluster's Secret cacerts now, or the one that istiod made for itself.
	Is string `yaml:"is" enum:"cacerts,self-signed"`
	// That is not who signed them.
	Not bool `yaml:"not"`
	// The name of the CA that signed them.
	Matches scenario.Pattern `yaml:"matches"`
}

// Validate wants something to look for.
func (a *issuerArgs) Validate() error {
	if a.Is == "" && (a.Matches.Regexp == nil || a.Not) {
		return errors.New("want is or matches; not goes with is")
	}
	return nil
}

func (a *issuerArgs) Check(Ground) (observe.Check, error) {
	return observe.Issuer{
		Of: a.Of.workloads(), Pods: observe.Which(a.Pods), Is: observe.CASource(a.Is), Not: a.Not, Matches: a.Matches.Regexp,
	}, nil
}

type logArgs struct {
	// Whose log: an app like client@cluster-a, istiod@cluster-a, or istio-eastwestgateway@cluster-a.
	Of scenario.App `yaml:"of" ref:"workload" required:"true"`
	// Which container: istiod's own, and the proxy of everything else, if left out; app is the app itself.
	Container string `yaml:"container"`
	// What the line says.
	Matches scenario.Pattern `yaml:"matches" required:"true"`
	// There is no such line.
	Absent bool `yaml:"absent"`
	// Only lines that are no older; all since the scenario began if left out.
	Since scenario.Duration `yaml:"since"`
}

func (a *logArgs) Check(g Ground) (observe.Check, error) {
	return observe.Log{
		From: g.Began, Of: workload(a.Of), Container: a.Container, Matches: a.Matches.Regexp, Absent: a.Absent,
		Since: time.Duration(a.Since),
	}, nil
}

type objectArgs struct {
	// In which clusters; it has to hold in each.
	In scenario.Clusters `yaml:"in" ref:"cluster" required:"true"`
	// The object's kind, like Secret or gateways.networking.istio.io.
	Kind string `yaml:"kind" required:"true"`
	// The object's name.
	Name string `yaml:"name" required:"true"`
	// The object's namespace; none for kinds without.
	Namespace string `yaml:"namespace" ref:"namespace"`
	// A value inside it, by JSONPath as kubectl takes it, like {.status.readyReplicas}.
	Path string `yaml:"path"`
	// The value, as text.
	Is *string `yaml:"is"`
	// What the value is like.
	Matches scenario.Pattern `yaml:"matches"`
	// The object is not there, or with path, nothing is at the path.
	Absent bool `yaml:"absent"`
}

// Validate refuses what contradicts itself.
func (a *objectArgs) Validate() error {
	value := a.Is != nil || a.Matches.Regexp != nil
	switch {
	case value && a.Path == "":
		return errors.New("is and matches compare a value: want path")
	case value && a.Absent:
		return scenario.At("absent", errors.New("what is not there has no value: leave out is and matches"))
	}
	return nil
}

func (a *objectArgs) Check(Ground) (observe.Check, error) {
	return observe.Object{
		In: a.In, Kind: a.Kind, Name: a.Name, Namespace: a.Namespace, Path: a.Path, Is: a.Is, Matches: a.Matches.Regexp, Absent: a.Absent,
	}, nil
}

type proxyStatArgs struct {
	// Whose proxies: an app like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of scenario.App `yaml:"of" ref:"workload" required:"true"`
	// Which statistics, by their names in Envoy's page /stats; those that match are summed up.
	Stat scenario.Pattern `yaml:"stat" required:"true"`
	// The sum is at least so much.
	AtLeast *int `yaml:"at-least" min:"0"`
	// The sum is at most so much.
	AtMost *int `yaml:"at-most" min:"0"`
	// Whether the sum grows within a few seconds. Proxies count from their start, so that what earlier scenarios left is
	// in it.
	Grows *bool `yaml:"grows"`
}

// Validate wants something to compare with.
func (a *proxyStatArgs) Validate() error {
	if a.AtLeast == nil && a.AtMost == nil && a.Grows == nil {
		return errors.New("want at-least, at-most, or grows")
	}
	if a.AtLeast != nil && a.AtMost != nil && *a.AtLeast > *a.AtMost {
		return scenario.At("at-most", fmt.Errorf("less than at-least: %d", *a.AtLeast))
	}
	return nil
}

func (a *proxyStatArgs) Check(Ground) (observe.Check, error) {
	return observe.Stat{Of: workload(a.Of), Stat: a.Stat.Regexp, AtLeast: a.AtLeast, AtMost: a.AtMost, Grows: a.Grows}, nil
}

type proxyStatusArgs struct {
	// Which cluster's proxies.
	In string `yaml:"in" ref:"cluster" required:"true"`
}

func (a *proxyStatusArgs) Check(Ground) (observe.Check, error) {
	return observe.ProxyStatus{In: a.In}, nil
}

type remoteClustersArgs struct {
	// Whose istiod.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// What it says of each cluster, by the id under which it knows it. absent: it does not list it.
	Expect map[string]string `yaml:"expect" enum:"synced,syncing,timeout,closed,absent" required:"true"`
}

func (a *remoteClustersArgs) Check(Ground) (observe.Check, error) {
	return observe.RemoteClusters{In: a.In, Expect: a.Expect}, nil
}

type rolledOutArgs struct {
	// Which workloads: apps like echo@cluster-b, istiod@cluster-b, or istio-eastwestgateway@cluster-b.
	Apps apps `yaml:"apps" ref:"workload" required:"true"`
}

func (a *rolledOutArgs) Check(Ground) (observe.Check, error) {
	return observe.RolledOut{Of: a.Apps.workloads()}, nil
}

type rootsArgs struct {
	// Whose proxies: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of apps `yaml:"of" ref:"workload"`
	// All proxies of these clusters, in place of of. All of the mesh if both are left out.
	In scenario.Clusters `yaml:"in" ref:"cluster"`
	// Which pods of the workloads in of; all if left out.
	Pods string `yaml:"pods" enum:"all,newest,oldest"`
	// true: all have the same set of roots. false: some have another.
	Same *bool `yaml:"same"`
	// Each trusts so many roots.
	Count int `yaml:"count" min:"1" max:"20"`
	// Each trusts just this: the lab's shared root, the roots in its cluster's Secret cacerts now, or the CA that its
	// istiod made for itself.
	Is string `yaml:"is" enum:"shared,cacerts,self-signed"`
	// Each trusts this, and possibly more.
	Trusts string `yaml:"trusts" enum:"shared,cacerts,self-signed"`
	// Each trusts a root with such a name.
	Matches scenario.Pattern `yaml:"matches"`
}

// Validate wants one way to say who, and something to look for.
func (a *rootsArgs) Validate() error {
	switch {
	case len(a.Of) > 0 && len(a.In) > 0:
		return scenario.At("in", errors.New("stands in place of of: leave one out"))
	case a.Pods != "" && len(a.Of) == 0:
		return scenario.At("pods", errors.New("goes with of"))
	case a.Same == nil && a.Count == 0 && a.Is == "" && a.Trusts == "" && a.Matches.Regexp == nil:
		return errors.New("want at least one of same, count, is, trusts, and matches")
	}
	return nil
}

func (a *rootsArgs) Check(Ground) (observe.Check, error) {
	return observe.Roots{
		Of: a.Of.workloads(), In: a.In, Pods: observe.Which(a.Pods), Same: a.Same, Count: a.Count,
		Is: observe.CASource(a.Is), Trusts: observe.CASource(a.Trusts), Matches: a.Matches.Regexp,
	}, nil
}

// Finds returns what the diagnosis of a scenario wants doctor to find; ok is false if it does not ask.
func Finds(s *scenario.Scenario) (id string, ok bool) {
	for _, step := range s.Diagnose {
		if a, is := step.Args.(*doctorArgs); is {
			return a.Finds, true
		}
	}
	return "", false
}

// Diagnosed is what doctor found in the broken state of a scenario, in so many runs. The JSON names are stable.
type Diagnosed struct {
	Runs    int            `json:"runs"`
	Blamed  map[string]int `json:"blamed"`            // errors and warnings that are no effects, by how many runs had them
	Effects map[string]int `json:"effects,omitempty"` // what was told as following from them
}
