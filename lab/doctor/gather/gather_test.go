package gather

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/doctor/exam"
	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

func TestGather(t *testing.T) {
	r := newReplay(t, 30)
	target := r.target()
	var mu sync.Mutex
	read := map[string]bool{}
	f := Gather(t.Context(), []Target{target}, Options{Progress: func(_, part string, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		read[part] = true
	}})
	require.Empty(t, f.Unread)
	c := f.Clusters[0]
	assert.Equal(t, "cluster-a", c.ID)
	assert.Equal(t, "network-a", c.Network)
	assert.Equal(t, "uid-a", c.UID)
	assert.Len(t, c.Proxies, 30)
	assert.Equal(t, "app2", c.Proxies[29].Workload)
	assert.Equal(t, "1.31", c.Proxies[29].Version)
	assert.EqualValues(t, 6, r.asked.Load(), "the oldest and the newest of three workloads")
	assert.Equal(t, "istiod", c.IstiodService)
	i := c.Istiods[0]
	assert.True(t, i.Ready && i.Read)
	assert.Len(t, i.Signer, 2, "its own and the intermediate")
	assert.Equal(t, []string{"2026-11-25T02:00:00Z info Use local CA certificate"}, i.Lines)
	assert.Equal(t, map[string]int{"cluster-a": 30}, i.Serves)
	assert.Equal(t, map[string]string{"cluster-a": "synced"}, i.Clusters)
	assert.Equal(t, 10, i.Endpoints["production/s0.production.svc.cluster.local"]["cluster-a"])
	assert.Equal(t, facts.KeyMatches, c.CACerts.Key)
	assert.Equal(t, "cluster.local", c.Settings.TrustDomain)
	assert.Len(t, read, 13)
	text := must[[]byte](t)(json.Marshal(f))
	assert.NotContains(t, string(text), "PRIVATE KEY")
	assert.NotContains(t, string(text), string(bytes.Split(r.secrets["cacerts"][pki.CAKeyFile], []byte("\n"))[1]))
	var again facts.Facts
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, exam.Examine(f), exam.Examine(again), "facts can be kept and examined elsewhere")
}

// Each revision of istiod serves proxies of its own, has settings of its own, and has webhooks that lead to it.
func TestGatherTwoRevisions(t *testing.T) {
	r := newReplay(t, 30)
	r.revisions = []string{"default", "1-31"}
	r.labels = map[string]string{"istio.io/rev": "prod"}
	r.pods()
	revised := func(revision, tag string) metav1.ObjectMeta {
		labels := map[string]string{"app": "sidecar-injector", "istio.io/rev": revision}
		if tag != "" {
			labels["istio.io/tag"] = tag
		}
		return metav1.ObjectMeta{Name: revision + tag, Labels: labels}
	}
	service := func(name string) admissionv1.WebhookClientConfig {
		return admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: "istio-system", Name: name}, CABundle: r.secrets["cacerts"][pki.RootCertFile],
		}
	}
	matches := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	ignore := admissionv1.Ignore
	r.injectors = []admissionv1.MutatingWebhookConfiguration{
		{ObjectMeta: revised("default", ""), Webhooks: []admissionv1.MutatingWebhook{
			{ClientConfig: service("istiod"), NamespaceSelector: matches("istio-injection", "enabled")},
			{ClientConfig: service("istiod"), ObjectSelector: matches("sidecar.istio.io/inject", "true")}, // wants a label of the pod
		}},
		{ObjectMeta: revised("1-31", "prod"), Webhooks: []admissionv1.MutatingWebhook{
			{ClientConfig: service("istiod-1-31"), NamespaceSelector: matches("istio.io/rev", "prod")},
		}},
		{ObjectMeta: revised("1-29", ""), Webhooks: []admissionv1.MutatingWebhook{
			{ClientConfig: service("istiod-1-29"), NamespaceSelector: matches("istio.io/rev", "1-29"), FailurePolicy: &ignore},
		}},
	}
	url := "https://example.com/validate"
	r.validators = []admissionv1.ValidatingWebhookConfiguration{
		{ObjectMeta: revised("1-31", ""), Webhooks: []admissionv1.ValidatingWebhook{
			{ClientConfig: service("istiod-elsewhere"), ObjectSelector: matches("istio.io/rev", "1-31")},
		}},
		{ObjectMeta: revised("default", ""), Webhooks: []admissionv1.ValidatingWebhook{
			{ClientConfig: admissionv1.WebhookClientConfig{URL: &url}, ObjectSelector: &metav1.LabelSelector{}},
		}},
	}
	f := Gather(t.Context(), []Target{r.target()}, Options{})
	require.Empty(t, f.Unread)
	c := f.Clusters[0]
	require.Len(t, c.Istiods, 2)
	for n, revision := range r.revisions {
		assert.Equal(t, revision, c.Istiods[n].Revision)
		assert.True(t, c.Istiods[n].Read, "the pages of %s", revision)
		assert.Equal(t, map[string]int{"cluster-a": 30}, c.Istiods[n].Serves)
		assert.Equal(t, "cluster.local", c.Istiods[n].Settings.TrustDomain, "the page is newer than the ConfigMap")
		assert.Equal(t, revision, c.Proxies[n].Revision)
	}
	assert.Equal(t, r.revisions, c.Deployed)
	for n := range c.Webhooks {
		if !c.Webhooks[n].Validates {
			assert.Len(t, c.Webhooks[n].Roots, 1)
		}
		c.Webhooks[n].Roots = nil
	}
	assert.Equal(t, []facts.Webhook{
		{Name: "default", Revision: "default", Service: "istiod", Refuses: true},
		{Name: "1-31prod", Revision: "1-31", Tag: "prod", Service: "istiod-1-31", Refuses: true, Injects: []string{"production"}},
		{Name: "1-29", Revision: "1-29", Service: "istiod-1-29", Nowhere: "it does not exist"},
		{
			Name: "1-31", Validates: true, Revision: "1-31", Service: "istiod-elsewhere", Refuses: true, Narrow: true,
			Nowhere: "it has no endpoint that is Ready",
		},
		{Name: "default", Validates: true, Revision: "default", Refuses: true},
	}, c.Webhooks)

	no := false
	r.slices = []discoveryv1.EndpointSlice{{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kubernetes.io/service-name": "istiod-elsewhere"}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}},
	}}
	c = Gather(t.Context(), []Target{r.target()}, Options{}).Clusters[0]
	assert.NotEmpty(t, c.Webhooks[3].Nowhere, "nothing there is Ready")
	r.slices[0].Endpoints[0].Conditions.Ready = nil
	delete(r.pages, "/debug/mesh")
	c = Gather(t.Context(), []Target{r.target()}, Options{}).Clusters[0]
	assert.Empty(t, c.Webhooks[3].Nowhere, "nobody says that it is not Ready")
	assert.Equal(t, "1-31.example", c.Istiods[1].Settings.TrustDomain, "from the ConfigMap of its own")

	r.labels["istio-injection"] = "disabled"
	n := Gather(t.Context(), []Target{r.target()}, Options{}).Clusters[0].Namespaces[0]
	assert.Equal(t, facts.Namespace{Name: "production", Injection: "disabled", Revision: "prod", HasRoot: true, Roots: n.Roots}, n)
}

// A gateway has the revisions and versions of its Ready pods, and of no others.
func TestRevisionsOfGateways(t *testing.T) {
	var f facts.Facts
	c := facts.Cluster{Gateways: []facts.Gateway{{Namespace: "istio-system", Selector: map[string]string{"istio": "g"}}}}
	r := must[*reader](t)(newReader(newReplay(t, 1).target(), Options{}, &c, &store{facts: &f}))
	defer r.pages.Close()
	for _, p := range []facts.Proxy{
		{Pod: "new", Revision: "1-31", Version: "1.31.0", Ready: true}, {Pod: "old", Revision: "default", Version: "1.30.4", Ready: true},
		{Pod: "newer", Revision: "1-31", Version: "1.31.0", Ready: true}, {Pod: "starting", Revision: "1-32", Version: "1.32.0"},
	} {
		p.Namespace = "istio-system"
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Pod, Namespace: p.Namespace, Labels: map[string]string{"istio": "g"}}}
		if p.Ready {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		c.Proxies, r.pods[p.Name()] = append(c.Proxies, p), pod
	}
	r.settle()
	g := c.Gateways[0]
	assert.Equal(t, 3, g.Pods)
	assert.Equal(t, []string{"1-31", "default"}, g.Revisions)
	assert.Equal(t, []string{"1.30.4", "1.31.0"}, g.Versions)
}

// What an account may not read makes checks unknown, and the report says which.
func TestGatherWithoutRights(t *testing.T) {
	for resource, parts := range map[string][]facts.Part{
		"secrets": {facts.Secrets}, "configmaps": {facts.RootMaps}, "pods": {facts.Pods},
		"portforward": {facts.Signer, facts.IstiodPage, facts.Proxies}, "mutatingwebhookconfigurations": {facts.Webhooks},
		"validatingwebhookconfigurations": {facts.Webhooks}, "endpointslices": {facts.Webhooks},
	} {
		r := newReplay(t, 3)
		r.denied[resource] = true
		f := Gather(t.Context(), []Target{r.target()}, Options{})
		var lost []facts.Part
		for _, u := range f.Unread {
			lost = append(lost, u.Part)
			if resource == "portforward" && u.Part != facts.Signer {
				assert.NotContains(t, u.Why, "portforward", "that it is forbidden was recognized, and exec was tried next")
			} else {
				assert.Contains(t, strings.ToLower(u.Why), "forbidden")
			}
		}
		assert.Equal(t, parts, lost, resource)
		assert.False(t, exam.Examine(f).Complete())
	}
	f := Gather(t.Context(), []Target{{Name: "gone", Config: &rest.Config{Host: "http://127.0.0.1:1"}}}, Options{})
	require.Len(t, f.Unread, 1)
	assert.Equal(t, facts.APIServer, f.Unread[0].Part)
	for _, c := range exam.Examine(f).Checks {
		if c.ID != "api-server-unreachable" {
			assert.Equal(t, exam.StateUnknown, c.State, c.ID)
		}
	}
}

// When doctor's own time is over, it knows nothing of a gateway.
func TestGatewayIsNotBlamedForTheTime(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("timed out"))
	var c facts.Cluster
	var f facts.Facts
	r := must[*reader](t)(newReader(newReplay(t, 1).target(), Options{}, &c, &store{facts: &f}))
	defer r.pages.Close()
	g := facts.Gateway{Namespace: "istio-system", Name: "g", Listens: true, Selector: map[string]string{"istio": "g"}}
	r.pods["istio-system/g"] = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "g", Namespace: "istio-system", Labels: g.Selector},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	r.handshake(ctx, &g, []string{"outbound_.80_._.echo.production.svc.cluster.local"})
	assert.Empty(t, g.Refuses)
	assert.Equal(t, []facts.Unread{{Part: facts.Reach, Object: "gateway istio-system/g", Why: "timed out"}}, f.Unread)
}

// Time and memory that grow with the number of proxies: go test -run - -bench . ./lab/doctor/gather
func BenchmarkGather(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newReplay(b, n)
			target := r.target()
			b.ReportAllocs()
			peak := peakHeap(func() {
				for b.Loop() {
					f := Gather(context.Background(), []Target{target}, Options{})
					require.Empty(b, f.Unread)
				}
			})
			b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			b.ReportMetric(float64(r.asked.Load())/float64(b.N), "proxies-asked")
		})
	}
}

// peakHeap returns by how many bytes the heap grows while do runs.
func peakHeap(do func()) uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapInuse, m.HeapInuse
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	})
	do()
	close(done)
	watching.Wait()
	return peak - before
}

// With discoverySelectors a namespace that is labeled for injection may belong to another mesh.
func TestCovers(t *testing.T) {
	labels := map[string]map[string]string{"shop": {"team": "a"}}
	r := &reader{Options: Options{System: "istio-system"}, cluster: &facts.Cluster{}, labels: labels}
	assert.True(t, r.covers("shop"))
	r.selectors = []metav1.LabelSelector{{MatchLabels: map[string]string{"team": "b"}}}
	assert.False(t, r.covers("shop"))
	assert.True(t, r.covers("istio-system"))
	r.labels["shop"]["team"] = "b"
	assert.True(t, r.covers("shop"))
}

func TestForeignKubeconfigsAreNotUsed(t *testing.T) {
	kubeconfig := func(user string) []byte {
		return []byte(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],
clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: x, user: ` + user + `}]}`)
	}
	for _, user := range []string{
		`{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}`, `{tokenFile: /etc/passwd}`,
		`{client-certificate: /x, client-key: /y}`,
	} {
		var s facts.RemoteSecret
		try(t.Context(), &s, &rest.Config{}, kubeconfig(user))
		assert.True(t, strings.HasPrefix(s.Problem, "it was not tried"), s)
	}
	var s facts.RemoteSecret
	try(t.Context(), &s, &rest.Config{}, kubeconfig(`{token: e30.eyJleHAiOjE3MDAwMDAwMDB9.c2ln}`))
	assert.Empty(t, s.Problem)
	assert.NotEmpty(t, s.Reach)
	assert.Equal(t, int64(1700000000), s.Expires.Unix())
	text, err := json.Marshal(s)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "e30.")
}

func TestSample(t *testing.T) {
	var all []facts.Proxy
	now := time.Now()
	for i := range 100 {
		all = append(all, facts.Proxy{
			Namespace: "n", Pod: fmt.Sprintf("p%02d", i), Workload: fmt.Sprintf("w%d", i%10),
			Created: now.Add(time.Duration(i) * time.Minute), Ready: i != 0,
		})
	}
	chosen := sample(all, 40)
	assert.Len(t, chosen, 20, "the oldest and the newest of ten workloads")
	assert.Contains(t, chosen, 10, "the oldest Ready pod of w0")
	assert.Contains(t, chosen, 99)
	few := sample(all, 5)
	assert.Len(t, few, 5)
	assert.Equal(t, []int{chosen[0], chosen[19]}, []int{few[0], few[4]}, "the oldest and the newest of all")
	assert.Empty(t, sample(nil, 5))
}

func TestCountEndpoints(t *testing.T) {
	counts, placed, err := countEndpoints(strings.NewReader(`{"echo.production.svc.cluster.local":{"production":{"Shards":{
"Kubernetes/cluster-a":[{"Network":"network-a","TLSMode":"istio"},{"Network":"network-a","TLSMode":"disabled"}],
"Kubernetes/cluster-b":[]},"ServiceAccounts":{}}}}`))
	require.NoError(t, err)
	assert.Equal(t, map[string]map[string]int{"production/echo.production.svc.cluster.local": {"cluster-a": 2, "cluster-b": 0}}, counts)
	assert.Equal(t, map[string]map[string]int{"cluster-a": {"network-a": 1}}, placed)
	_, _, err = countEndpoints(strings.NewReader("no"))
	require.Error(t, err)
}

func TestReadWatch(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var i facts.Istiod
	for _, line := range []string{
		"2026-05-01T11:40:00.0Z\terror\twatch error in cluster cluster-b: long ago",
		"2026-05-01T11:55:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.Pod: EOF",
		"2026-05-01T11:58:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.Node: connection refused",
		"2026-05-01T11:59:00.0Z\terror\twatch error in cluster cluster-b: failed to list *v1.WorkloadEntry: " +
			"the server could not find the requested resource (get workloadentries.networking.istio.io)",
		"2026-05-01T11:59:00.0Z\tinfo\tads\tPush debounce stable[13] 5",
	} {
		readWatch(&i, line, now)
	}
	assert.Equal(t, map[string]facts.Watch{"cluster-b": {
		First: now.Add(-5 * time.Minute), Last: now.Add(-2 * time.Minute), Why: "failed to list *v1.Node: connection refused",
	}}, i.Watches)
}

// A gateway passes on to services of its own cluster that have endpoints there and a TCP port.
func TestHostsThatGatewaysPassOnTo(t *testing.T) {
	endpoints := map[string]map[string]int{"production/echo.production.svc.cluster.local": {"cluster-a": 1, "cluster-b": 1}}
	a := facts.Cluster{ID: "cluster-a", Istiods: []facts.Istiod{{Endpoints: endpoints}}}
	b := facts.Cluster{ID: "cluster-b", Services: []facts.Service{
		{Namespace: "production", Name: "echo", Ports: []string{"80/TCP http"}},
		{Namespace: "production", Name: "dns", Ports: []string{"53/UDP"}},
		{Namespace: "other", Name: "echo", Ports: []string{"80/TCP"}},
	}}
	readers := []*reader{{cluster: &a}, {cluster: &b}}
	assert.Equal(t, []string{"outbound_.80_._.echo.production.svc.cluster.local"}, readers[1].hosts(readers))
	a.Istiods[0].Endpoints = nil
	assert.Empty(t, readers[1].hosts(readers))
}

// Package facts has Istio's names for package exam, which must not import those that read clusters.
func TestNamesAreThoseOfTheMesh(t *testing.T) {
	assert.Equal(t, mesh.SystemNamespace, facts.SystemNamespace)
	assert.Equal(t, mesh.Istiod, facts.IstiodName)
	assert.Equal(t, mesh.CACerts, facts.CACertsSecret)
	assert.Equal(t, observe.SelfSignedSecret, facts.SelfSignedSecret)
	assert.Equal(t, observe.ProxyContainer, facts.ProxyContainer)
}

// istiod writes the page with names of its own; the facts have theirs.
func TestParseNetworks(t *testing.T) {
	networks, err := parseNetworks([]byte(`[{"Network":"n","Cluster":"c","Addr":"192.0.2.1","Port":15443,"HBONEPort":0}]`))
	require.NoError(t, err)
	assert.Equal(t, []facts.NetworkGateway{{Network: "n", Cluster: "c", Addr: "192.0.2.1", Port: 15443}}, networks)
	text := must[[]byte](t)(json.Marshal(networks))
	assert.JSONEq(t, `[{"network":"n","cluster":"c","addr":"192.0.2.1","port":15443}]`, string(text))
	networks, err = parseNetworks(nil)
	require.NoError(t, err)
	assert.Empty(t, networks, "without any gateway the page is empty")
	_, err = parseNetworks([]byte("no"))
	require.Error(t, err)
}
