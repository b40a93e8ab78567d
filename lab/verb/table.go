// Package verb is the vocabulary of scenario files: the table of verbs, what each takes, and how a step with a verb
// becomes a change of the mesh (package fault) or a check of it (package observe, doctor, or the recorded calls).
//
// Table is what the loader, the JSON Schema and the documents are made from. Ground.Step makes a step ready. The package
// runs nothing itself and needs no cluster: `go test ./lab/verb`.
package verb

//go:generate go run ../strict/fielddocs

import (
	"fmt"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// Ground is what steps are made ready with. Without a mesh and a tape, as `eastwest explain` has none, a step can still
// say what it does and print its command.
type Ground struct {
	Mesh    *mesh.Mesh
	Tools   observe.Tools
	Shape   scenario.Topology // the clusters, whether or not there is a mesh
	Lab     string            // the lab's name, for commands that are printed
	Dir     string            // the scenario's folder
	Began   time.Time         // when the scenario began: older lines of logs and older events do not count
	Traffic []scenario.Stream // what is recorded
	Tape    Tape
}

// Tape is what the checks of recorded calls read of a scenario that runs.
type Tape interface {
	// Recording returns the calls of a stream so far.
	Recording(stream string) *traffic.Recording
	// Since is the moment from which on calls say something about what is checked now.
	Since() time.Time
	// Phase is the phase that runs.
	Phase() scenario.Phase
}

// Step is a step of a scenario, ready to be done. Either Change or Check is set.
type Step struct {
	Place  strict.Place
	Label  string // the verb and what it is given, in few words
	Change fault.Fault
	Check  observe.Check
}

// String says what the step does or checks.
func (s Step) String() string {
	if s.Change != nil {
		return s.Change.String()
	}
	return s.Check.String()
}

// Command is what a person would type for the same; empty if there is no such command.
func (s Step) Command() string {
	if s.Change != nil {
		return s.Change.Command()
	}
	return s.Check.Command()
}

// Changer is implemented by the arguments of verbs that change the mesh.
type Changer interface {
	Change(g Ground) (fault.Fault, error)
}

// Checker is implemented by the arguments of verbs that check it and need the ground for that. The arguments of the other
// verbs are checks themselves.
type Checker interface {
	Check(g Ground) (observe.Check, error)
}

// Step makes a step of a scenario ready. The error begins with the step's place.
func (g Ground) Step(s scenario.Step) (ready Step, err error) {
	ready.Place, ready.Label = s.Place, labelOf(s)
	switch args := s.Args.(type) {
	case scenario.Radius:
		ready.Check = &radiusCheck{args, g.Traffic, g.Tape}
	case Changer:
		ready.Change, err = args.Change(g)
	case Checker: // before observe.Check: it may be one that lacks something
		ready.Check, err = args.Check(g)
	case observe.Check:
		ready.Check = args
	default:
		err = fmt.Errorf("its arguments are %T, which is no change and no check", s.Args)
	}
	if err != nil {
		return Step{}, fmt.Errorf("%s: %s: %w", s.Place, s.Verb, err)
	}
	return ready, nil
}

// Steps makes several steps ready.
func (g Ground) Steps(all []scenario.Step) ([]Step, error) {
	ready := make([]Step, len(all))
	for i, s := range all {
		var err error
		if ready[i], err = g.Step(s); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

// Where changes and looks may stand. A look among changes is a gate: it has to hold before the next step.
func changes() []scenario.Phase {
	return []scenario.Phase{scenario.Break, scenario.Operate, scenario.LaterOn, scenario.WrongFixes, scenario.Recover}
}

func looks() []scenario.Phase {
	return append(changes(), scenario.Symptoms, scenario.Diagnose, scenario.Healthy)
}

// Table is the table of verbs that steps of scenarios may have, sorted by name.
func Table() scenario.Vocabulary {
	return scenario.Vocabulary{
		{Name: "apply", Phases: changes(), New: args[applyArgs],
			Doc: "Applies the manifest in a file beside the scenario."},
		{Name: "block-port", Phases: changes(), New: args[blockPortArgs],
			Doc: "Drops the packets that one cluster sends to a TCP port of another: 15443 is the east-west gateway's."},
		{Name: "ca-certificates", Phases: changes(), New: args[caCertificatesArgs],
			Doc: "Puts the roots of another cluster into caCertificates of the mesh configuration. Whether anybody takes them is another " +
				"question: see roots."},
		{Name: "call", Phases: looks(), New: args[callArgs],
			Doc: "Makes calls now and checks who answers and how, or why they fail. A 200 from somebody else is no answer."},
		{Name: "calls", Phases: append(looks(), scenario.Always), New: args[callsArgs],
			Doc: "Judges the recorded calls of a stream."},
		{Name: "certificate", Phases: looks(), New: args[observe.Certificate],
			Doc: "Checks the certificates that proxies show now: identity, end, length of the chain. Who signed them is asked by issuer."},
		{Name: "certificate-lifetime", Phases: changes(), New: args[certificateLifetimeArgs],
			Doc: "Gives workloads certificates that live so long, by their annotation proxy.istio.io/config, and waits for their new pods."},
		{Name: "command", Phases: looks(), New: args[commandArgs],
			Doc: "Runs kubectl or istioctl and checks what it says. There is no shell, and subcommands that change something are refused."},
		{Name: "continue-component", Phases: changes(), New: args[continueComponentArgs],
			Doc: "Lets a component that stop-component froze go on."},
		{Name: "control-planes", Phases: looks(), New: args[observe.ControlPlanes],
			Doc: "Checks which control planes run in a cluster: their revisions and versions."},
		{Name: "create-cacerts", Phases: changes(), New: args[createCACertsArgs],
			Doc: "Creates or replaces the Secret cacerts. An istiod takes it when it starts."},
		{Name: "create-remote-secret", Phases: changes(), New: args[createRemoteSecretArgs],
			Doc: "Gives the istiod of one cluster access to the API server of another, or replaces that access."},
		{Name: "delete", Phases: changes(), New: args[deleteArgs],
			Doc: "Deletes an object and waits until it is gone."},
		{Name: "delete-cacerts", Phases: changes(), New: args[deleteCACertsArgs],
			Doc: "Deletes the Secret cacerts. An istiod that starts without it makes a CA of its own."},
		{Name: "dns", Phases: looks(), New: args[observe.DNS],
			Doc: "Checks that a name resolves inside a pod, to the address of the Service in the pod's own cluster."},
		{Name: "doctor", Phases: looks(), New: args[doctorArgs],
			Doc: "Examines all clusters, as eastwest doctor does, and checks what it finds first. It may blame nothing else as an error."},
		{Name: "endpoints", Phases: looks(), New: args[observe.Endpoints],
			Doc: "Checks which endpoints of a service a proxy knows: pods of its own network by their addresses, others by the address of " +
				"their gateway."},
		{Name: "event", Phases: looks(), New: args[eventArgs],
			Doc: "Checks that Kubernetes has reported something about an object since the scenario began, as kubectl get events shows it, or " +
				"has not."},
		{Name: "expose-istiod", Phases: changes(), New: args[exposeIstiodArgs],
			Doc: "Lets other clusters reach the istiod of a revision through the east-west gateway: expose-istiod-rev.yaml of Istio's samples."},
		{Name: "fingerprints", Phases: looks(), New: args[observe.Fingerprints],
			Doc: "Compares the root certificates that stand in the Secret cacerts of clusters. What proxies use is another question: see " +
				"roots."},
		{Name: "freeze", Phases: changes(), New: args[freezeArgs],
			Doc: "Freezes the pods of workloads, as programs that hang: they keep their connections and answer nothing. Kubernetes goes on " +
				"probing them. A pod that fails its readiness probe gets no more calls. A container that fails its liveness probe is killed, " +
				"and what starts in its place is not frozen; the lab's own workloads have no liveness probe. A frozen pod that is deleted " +
				"goes when its grace period is over, after 30 s if nothing else is said."},
		{Name: "gateway-sees", Phases: looks(), New: args[observe.GatewaySees],
			Doc: "Makes a call across the border and finds it, by its TLS server name, in the log of the east-west gateway at the other " +
				"side."},
		{Name: "injection", Phases: looks(), New: args[observe.Injection],
			Doc: "Asks the API server, by a dry run, whose proxy a new pod would get, and from which revision."},
		{Name: "install-istiod", Phases: changes(), New: args[installIstiodArgs],
			Doc: "Installs a control plane of a version: as a revision beside others, or in place of the one without a revision. It waits " +
				"until that istiod serves. Istio's definitions become those of the newest version and never go back."},
		{Name: "issuer", Phases: looks(), New: args[observe.Issuer],
			Doc: "Checks which CA signed the certificates that workloads show now."},
		{Name: "istiod-stat", Phases: looks(), New: args[observe.IstiodStat],
			Doc: "Checks a metric of istiod."},
		{Name: "kill-component", Phases: changes(), New: args[killComponentArgs],
			Doc: "Kills a component of a cluster's node, which is started again at once."},
		{Name: "label", Phases: changes(), New: args[labelArgs],
			Doc: "Sets labels of an object or removes them."},
		{Name: "log", Phases: looks(), New: args[logArgs],
			Doc: "Checks that a line stands in the log of a workload's pods, or that none does."},
		{Name: "mesh-config", Phases: changes(), New: args[meshConfigArgs],
			Doc: "Merges settings into the mesh configuration. istiod takes most of them at once; a trust domain it takes when it starts."},
		{Name: "object", Phases: looks(), New: args[observe.Object],
			Doc: "Checks an object, or a value inside it, by JSONPath."},
		{Name: "patch", Phases: changes(), New: args[patchArgs],
			Doc: "Merges a patch into an object; null deletes a field (RFC 7386)."},
		{Name: "proxy-stat", Phases: looks(), New: args[observe.Stat],
			Doc: "Checks a statistic of a workload's proxies."},
		{Name: "proxy-status", Phases: looks(), New: args[observe.ProxyStatus],
			Doc: "Checks that all proxies of a cluster have what their istiod has sent, as istioctl proxy-status shows it. It says nothing " +
				"about trust between proxies."},
		{Name: "reconnect", Phases: changes(), New: args[reconnectArgs],
			Doc: "Takes sever back."},
		{Name: "remote-clusters", Phases: looks(), New: args[observe.RemoteClusters],
			Doc: "Checks which clusters an istiod reads, as istioctl remote-clusters lists them. Once synced, a cluster stays so in that " +
				"list, whatever becomes of it."},
		{Name: "restart", Phases: changes(), New: args[restartArgs],
			Doc: "Restarts workloads and waits for their new pods."},
		{Name: "restart-istiod", Phases: changes(), New: args[restartIstiodArgs],
			Doc: "Restarts istiod and waits until the new one serves."},
		{Name: "restart-workloads", Phases: changes(), New: args[restartWorkloadsArgs],
			Doc: "Restarts everything that has a proxy, gateways included, and waits for the new pods."},
		{Name: "revoke-remote-secret", Phases: changes(), New: args[revokeRemoteSecretArgs],
			Doc: "Takes from the istiod of one cluster its access to the API server of another."},
		{Name: "rolled-out", Phases: looks(), New: args[observe.RolledOut],
			Doc: "Checks that all pods of Deployments are of the newest version and Ready."},
		{Name: "roots", Phases: looks(), New: args[observe.Roots],
			Doc: "Checks which roots proxies trust, by what each uses now, across clusters."},
		{Name: "scale", Phases: changes(), New: args[scaleArgs],
			Doc: "Changes the number of pods of a Deployment and waits until there are as many."},
		{Name: "self-sign", Phases: changes(), New: args[selfSignArgs],
			Doc: "Puts clusters into the state of an installation without cacerts: one self-signed CA in common, istiod and all workloads " +
				"restarted."},
		{Name: "served-by", Phases: looks(), New: args[observe.ServedBy],
			Doc: "Checks which istiod, by its revision, serves the proxies of workloads, and of which version they are."},
		{Name: "set-env", Phases: changes(), New: args[setEnvArgs],
			Doc: "Sets environment variables of workloads and waits for their new pods."},
		{Name: "set-tag", Phases: changes(), New: args[setTagArgs],
			Doc: "Makes a revision tag stand for a revision, with istioctl. With the tag default, the webhook that validates Istio's objects " +
				"moves, too."},
		{Name: "sever", Phases: changes(), New: args[severArgs],
			Doc: "Drops all packets between two clusters."},
		{Name: "spoil-cacerts", Phases: changes(), New: args[spoilCACertsArgs],
			Doc: "Makes the Secret cacerts wrong in the ways that people do: other names of keys, missing or empty ones, a key that does not " +
				"match, another namespace."},
		{Name: "stop-component", Phases: changes(), New: args[stopComponentArgs],
			Doc: "Freezes a component of a cluster's node: it keeps its connections and answers nothing."},
		{Name: "thaw", Phases: changes(), New: args[thawArgs],
			Doc: "Lets pods that freeze froze go on."},
		{Name: "unblock-port", Phases: changes(), New: args[unblockPortArgs],
			Doc: "Takes block-port back."},
		{Name: "uninstall-istiod", Phases: changes(), New: args[uninstallIstiodArgs],
			Doc: "Removes everything that Istio has labelled with a revision, with istioctl: its istiod, its webhooks, and gateways that are " +
				"still of that revision."},
		{Name: "upgrade-gateway", Phases: changes(), New: args[upgradeGatewayArgs],
			Doc: "Makes the east-west gateway one of a version and a revision, in place, and waits for its new pods. In a cluster that runs " +
				"an istiod for others, it is the gateway in front of that istiod, with its small control plane."},
		{Name: "validation", Phases: looks(), New: args[observe.Validation],
			Doc: "Checks, by a dry run, whether istiod validates Istio's objects when they are written."},
	}
}

// args makes a verb's arguments, to be filled from the file.
func args[T any]() any { return new(T) }
