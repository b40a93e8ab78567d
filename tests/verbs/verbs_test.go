// Package verbs tests on a real mesh what the verbs of scenario files do: that each check holds and fails as it should,
// and that each fault does what it says and is put back by fault.Restore without a trace. It needs root and a bundle:
// go test ./tests/verbs
package verbs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const labName = "verbs-test"

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

const a, b = "cluster-a", "cluster-b"

var (
	clientA, clientB = observe.Workload{App: "client", Cluster: a}, observe.Workload{App: "client", Cluster: b}
	echoA, echoB     = observe.Workload{App: "echo", Cluster: a}, observe.Workload{App: "echo", Cluster: b}
	echo             = observe.Workload{App: "echo"}
	istiodA          = observe.Workload{App: mesh.Istiod, Cluster: a}
	gatewayB         = observe.Workload{App: mesh.Gateway, Cluster: b}
	like             = regexp.MustCompile
)

func to[T any](v T) *T { return &v }

func TestVerbs(t *testing.T) {
	l := labs.Up(t, lab.Options{Name: labName, Topology: lab.DefaultTopology()})
	t.Run("checks", func(t *testing.T) { checks(t, l) })
	t.Run("evidence", func(t *testing.T) { evidence(t, l) })
	t.Run("evidence of a frozen cluster", func(t *testing.T) { frozen(t, l.Mesh) })
	t.Run("changes", func(t *testing.T) { putBack(t, l.Mesh, changes()) })
	t.Run("a Secret that comes back", func(t *testing.T) { comesBack(t, l.Mesh) })
	t.Run("a delayed istiod", func(t *testing.T) { delayed(t, l.Mesh) })
	t.Run("unavailable", func(t *testing.T) { unavailable(t, l.Mesh) })
	t.Run("trust", func(t *testing.T) { trust(t, l.Mesh) })
}

// look wants the check to hold, or not to, within 20 s.
func look(t *testing.T, m *mesh.Mesh, check observe.Check, holds bool) {
	t.Helper()
	o := wait.Options{Within: 20 * time.Second, Every: 200 * time.Millisecond}
	require.NoError(t, wait.Until(t.Context(), check.String(), o, func(ctx context.Context) error {
		seen, err := check.Look(ctx, m)
		var mismatch *observe.Mismatch
		switch {
		case holds && err == nil && seen != "":
			return nil
		case holds:
			return errors.Join(errors.New("seen: "+seen), err)
		case err == nil:
			return errors.New("it holds: " + seen)
		case !errors.As(err, &mismatch):
			return err
		case mismatch.Wanted == "" || mismatch.Seen == "":
			return errors.New("a mismatch that does not say what was wanted and seen")
		}
		return nil
	}))
}

func checks(t *testing.T, l *lab.Lab) {
	t.Helper()
	tools := observe.Tools(l.Env())
	command := func(run string) observe.Command { return observe.Command{Run: run, Tools: tools} }
	expects := func(run, pattern string) observe.Command { c := command(run); c.Expect = like(pattern); return c }
	const remoteClusters = "istioctl remote-clusters --context=cluster-a"
	secret := observe.Object{In: []string{a}, Kind: "Secret", Name: observe.SelfSignedSecret, Namespace: mesh.SystemNamespace}
	absent := secret
	absent.Absent = true
	network := observe.Object{
		In: []string{a}, Kind: "ns", Name: mesh.SystemNamespace,
		Path: `.metadata.labels.topology\.istio\.io/network`, Is: to("network-a"),
	}
	networks := network
	networks.In = []string{a, b}
	started := observe.Event{In: []string{a, b}, Namespace: mesh.AppNamespace, Object: "Pod/echo-", Reason: "Started", Type: "Normal"}
	warned, later := started, started
	warned.Type, later.From = "Warning", time.Now().Add(time.Minute)
	notAbsent, never := started, started
	notAbsent.Absent, never.Absent, never.Object = true, true, "Pod/nobody-"
	gateway := observe.Object{
		In: []string{a}, Kind: "gateways.networking.istio.io", Name: "cross-network-gateway", Namespace: mesh.SystemNamespace,
		Path: "{.spec.servers[*].tls.mode}", Matches: like("^AUTO_PASSTHROUGH$"),
	}
	for _, test := range []struct {
		name  string
		check observe.Check
		holds bool
	}{
		{"call", observe.Call{From: clientA, To: echoB}, true},
		{"call reused", observe.Call{From: clientB, To: echoA, Reused: true}, true},
		{"call service", observe.Call{From: clientA, To: echo, Count: 20, AnsweredBy: []string{a, b}}, true},
		{"call identities", observe.Call{From: clientA, To: echoB, Client: like(`/sa/client$`), Server: like(`/sa/echo$`)}, true},
		{"call answered from elsewhere", observe.Call{From: clientA, To: echoB, AnsweredBy: []string{a}}, false},
		{"call another identity", observe.Call{From: clientA, To: echoB, Client: like(`/sa/nobody$`)}, false},
		{"call plain text", observe.Call{From: clientA, To: echoB, Plaintext: true}, false},
		{"call does not fail", observe.Call{From: clientA, To: echoB, Fails: like(``)}, false},
		{"command", expects("kubectl --context=cluster-a get pod -n istio-system -l istio=eastwestgateway", `1/1\s+Running`), true},
		{"command istioctl", expects(remoteClusters, `cluster-b\s+\S+\s+synced`), true},
		{"command says it", observe.Command{Run: remoteClusters, Tools: tools, Absent: like("cluster-b")}, false},
		{"command succeeds", observe.Command{Run: remoteClusters, Tools: tools, Fails: true}, false},
		{"command fails", observe.Command{
			Run: "kubectl --context=cluster-a get pod nobody", Tools: tools, Fails: true, Expect: like("NotFound"),
		}, true},
		{"dns", observe.DNS{From: clientA, Name: "echo-cluster-b.production.svc.cluster.local"}, true},
		{"dns nobody", observe.DNS{From: clientA, Name: "nobody.production.svc.cluster.local"}, false},
		{"dns fails", observe.DNS{From: clientA, Name: "nobody.production.svc.cluster.local", Fails: true}, true},
		{"dns does not fail", observe.DNS{From: clientA, Name: "echo.production.svc.cluster.local", Fails: true}, false},
		{"endpoints", observe.Endpoints{SeenBy: clientA, Of: echoB, Address: observe.AtGateway, Count: to(1)}, true},
		{"endpoints here", observe.Endpoints{SeenBy: clientA, Of: echoA, Address: observe.AtPod, Count: to(1)}, true},
		{"endpoints of both", observe.Endpoints{SeenBy: clientB, Of: echo, Count: to(2)}, true},
		{"endpoints are gateways", observe.Endpoints{SeenBy: clientA, Of: echoB, Address: observe.AtPod}, false},
		{"endpoints exist", observe.Endpoints{SeenBy: clientA, Of: echoB, Count: to(0)}, false},
		{"event", started, true},
		{"event is no warning", warned, false},
		{"event from before", later, false},
		{"event absent", never, true},
		{"event is there", notAbsent, false},
		{"fingerprints", observe.Fingerprints{In: []string{a, b}, Equal: true}, true},
		{"fingerprints are equal", observe.Fingerprints{In: []string{a, b}}, false},
		{"gateway-sees", observe.GatewaySees{From: clientA, To: echoB}, true},
		{"gateway-sees it", observe.GatewaySees{From: clientA, To: echoB, Absent: true}, false},
		{"issuer", observe.Issuer{Of: []observe.Workload{clientA, echoB, gatewayB}, Is: observe.InCACerts, Matches: like("intermediate")}, true},
		{"issuer is another", observe.Issuer{Of: []observe.Workload{clientA}, Is: observe.SelfSigned}, false},
		{"issuer is it", observe.Issuer{Of: []observe.Workload{clientA}, Is: observe.InCACerts, Not: true}, false},
		{"issuer has another name", observe.Issuer{Of: []observe.Workload{clientA}, Matches: like("somebody")}, false},
		{"log", observe.Log{Of: istiodA, Matches: like("Use local CA certificate")}, true},
		{"log has it", observe.Log{Of: istiodA, Matches: like("Use local CA certificate"), Absent: true}, false},
		{"log has it not", observe.Log{Of: istiodA, Matches: like("Use self-signed certificate")}, false},
		{"log of the app", observe.Log{Of: echoB, Container: "app", Matches: like(`.`)}, true},
		{"object", observe.Object{In: []string{a, b}, Kind: "Secret", Name: "cacerts", Namespace: mesh.SystemNamespace}, true},
		{"object value", network, true},
		{"object of Istio", gateway, true},
		{"object absent", absent, true},
		{"object is not there", secret, false},
		{"object has another value", networks, false},
		{"proxy-stat", observe.Stat{Of: clientA, Stat: like(`echo-cluster-b-fresh.*upstream_cx_total`), AtLeast: to(1)}, true},
		{"proxy-stat is more", observe.Stat{Of: clientA, Stat: like(`echo-cluster-b-fresh.*upstream_cx_total`), AtMost: to(0)}, false},
		{"proxy-stat stands", observe.Stat{Of: clientA, Stat: like(`ssl\.fail_verify_error`), Grows: to(true)}, false},
		{"proxy-status", observe.ProxyStatus{In: a}, true},
		{"remote-clusters", observe.RemoteClusters{
			In: a, Expect: map[string]string{a: "synced", b: "synced", "cluster-c": observe.Absent},
		}, true},
		{"remote-clusters has it", observe.RemoteClusters{In: a, Expect: map[string]string{b: observe.Absent}}, false},
		{"rolled-out", observe.RolledOut{Of: []observe.Workload{clientA, istiodA, gatewayB}}, true},
		{"roots", observe.Roots{Same: to(true), Is: observe.SharedRoot, Count: 1, Matches: like("root")}, true},
		{"roots of some", observe.Roots{Of: []observe.Workload{clientA, gatewayB}, Pods: observe.Newest, Trusts: observe.InCACerts}, true},
		{"roots are the same", observe.Roots{Same: to(false)}, false},
		{"roots are others", observe.Roots{In: []string{a}, Is: observe.SelfSigned}, false},
		{"roots are fewer", observe.Roots{In: []string{a}, Count: 2}, false},
	} {
		t.Run(test.name, func(t *testing.T) { look(t, l.Mesh, test.check, test.holds) })
	}
}

func evidence(t *testing.T, l *lab.Lab) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, observe.Collect(t.Context(), l.Mesh, dir))
	for _, cluster := range []string{a, b} {
		for _, file := range []string{
			"certificates.txt", "objects/pods.yaml", "objects/secrets.yaml", "objects/gateways.yaml", "istiod/debug-clusterz", "node/status.json",
		} {
			require.FileExists(t, filepath.Join(dir, cluster, file))
		}
		for _, pattern := range []string{
			"pods/production.client-*/config.json", "pods/production.client-*/istio-proxy.log",
			"pods/istio-system.istiod-*/discovery.log", "pods/istio-system.istio-eastwestgateway-*/certs.json",
		} {
			found, err := filepath.Glob(filepath.Join(dir, cluster, pattern))
			require.NoError(t, err)
			require.NotEmpty(t, found, pattern)
		}
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		require.NotRegexp(t, secrets, string(data), path)
		return nil
	}))
}

// A cluster whose API server does not answer keeps nothing from being collected in the others.
func frozen(t *testing.T, m *mesh.Mesh) {
	t.Helper()
	labs.Nightly(t)
	require.NoError(t, fault.StopComponent(a, "kube-apiserver").Inject(t.Context(), m))
	dir := t.TempDir()
	start := time.Now()
	err := observe.Collect(t.Context(), m, dir)
	took := time.Since(start)
	require.NoError(t, fault.Heal(t.Context(), m))
	require.NoError(t, err)
	require.Less(t, took, wait.Bound(50*time.Second))
	require.FileExists(t, filepath.Join(dir, b, "certificates.txt"))
	require.FileExists(t, filepath.Join(dir, b, "objects", "pods.yaml"))
	require.FileExists(t, filepath.Join(dir, a, "node", "status.json"))
	problems, err := os.ReadFile(filepath.Join(dir, "problems.txt"))
	require.NoError(t, err)
	require.Contains(t, string(problems), "cluster-a: listing pods: ")
	require.NotContains(t, string(problems), "cluster-b: ")
}

// Private keys and tokens, plain and in base64 (of "-----BEGIN EC" and "-----BEGIN RSA" and of a JWT's beginning).
var secrets = regexp.MustCompile(`PRIVATE KEY|LS0tLS1CRUdJTiBF|LS0tLS1CRUdJTiBSU|\beyJhbGciOi|ZXlKaGJHY2lPaUp`)

// trust goes from the installed CA to a self-signed one and back, one safe step after the other.
func trust(t *testing.T, m *mesh.Mesh) {
	labs.Nightly(t)
	both := []string{a, b}
	do := func(f fault.Fault) {
		t.Helper()
		require.NoError(t, f.Inject(t.Context(), m), f.String())
	}
	before, err := observe.TakeBaseline(t.Context(), m)
	require.NoError(t, err)
	do(fault.SelfSign(both))
	look(t, m, observe.Roots{Same: to(true), Is: observe.SelfSigned}, true)
	look(t, m, observe.Fingerprints{In: both, Equal: true}, false)
	look(t, m, observe.Call{From: clientA, To: echoB}, true)

	// The old CA goes on signing while everybody learns to trust the new root, too.
	do(fault.CreateCACerts(both, fault.CACerts{Root: fault.SelfSignedRoot, Trusted: []fault.Root{fault.SelfSignedRoot, fault.SharedRoot}}))
	do(fault.RestartIstiod(both))
	do(fault.RestartWorkloads(both))
	look(t, m, observe.Roots{Same: to(true), Count: 2, Trusts: observe.SharedRoot}, true)
	look(t, m, observe.Issuer{Of: []observe.Workload{clientA, clientB}, Is: observe.SelfSigned}, true)
	look(t, m, observe.Call{From: clientA, To: echoB}, true)

	// Each cluster signs with a root of its own and trusts the other's.
	do(fault.CreateCACerts(both, fault.CACerts{Root: fault.OwnRoot}))
	do(fault.CreateCACerts([]string{a}, fault.CACerts{Root: fault.OwnRoot, Trusted: []fault.Root{fault.OwnRoot, fault.PeerRoots}}))
	do(fault.CreateCACerts([]string{b}, fault.CACerts{Root: fault.OwnRoot, Trusted: []fault.Root{fault.OwnRoot, fault.PeerRoots}}))
	do(fault.RestartIstiod(both))
	do(fault.RestartWorkloads(both))
	look(t, m, observe.Roots{Same: to(true), Count: 2}, true)
	look(t, m, observe.Issuer{Of: []observe.Workload{clientA, clientB}, Is: observe.InCACerts, Matches: like("own root")}, true)
	look(t, m, observe.Call{From: clientB, To: echoA}, true)

	do(fault.DeleteCACerts(both))
	require.NoError(t, fault.Restore(t.Context(), m, before))

	// Several changes at once are put back at once, by restarting only what uses something else.
	do(fault.CreateCACerts([]string{b}, fault.CACerts{Root: fault.OwnRoot}))
	do(fault.RestartIstiod([]string{b}))
	do(fault.Restart(echoB))
	do(fault.RevokeRemoteSecret(b, a))
	do(fault.CreateRemoteSecret(a, b, mesh.RemoteSecret{Name: "elsewhere"}))
	require.NoError(t, fault.Restore(t.Context(), m, before))
	look(t, m, observe.Call{From: clientA, To: echoB}, true)
	look(t, m, observe.Call{From: clientB, To: echoA}, true)
	require.NoError(t, fault.Restore(t.Context(), m, before), "nothing to do")
}
