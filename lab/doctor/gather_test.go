package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what the dialer of client-go speaks with
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

// replay is an API server that answers with what was recorded of one, for as many proxies as are wanted, and lets
// callers through to pods by port-forward, as the real one does.
type replay struct {
	testing.TB
	proxies int
	secrets map[string]map[string][]byte // of istio-system
	denied  map[string]bool              // resources that the account may not read
	signer  tls.Certificate
	pages   map[string][]byte // of istiod and Envoy
	list    [][]byte          // pages of pods
	asked   atomic.Int64      // pages of proxies that were read
}

func newReplay(t testing.TB, proxies int) *replay {
	ca := below(t, newRoot(t, pki.Options{Name: "root"}), pki.Options{Name: "intermediate"})
	cert, key, err := ca.Leaf(pki.LeafOptions{DNSNames: []string{"istiod.istio-system.svc"}, Server: true})
	require.NoError(t, err)
	signer := must[tls.Certificate](t)(tls.X509KeyPair(cert, key))
	recorded := must[[]byte](t)(os.ReadFile(filepath.Join("..", "observe", "testdata", "secrets.json")))
	r := &replay{TB: t, proxies: proxies, signer: signer, denied: map[string]bool{}, pages: map[string][]byte{
		"/config_dump":    recorded,
		"/clusters":       must[[]byte](t)(os.ReadFile(filepath.Join("..", "observe", "testdata", "clusters.json"))),
		"/debug/mesh":     []byte(`{"trustDomain":"cluster.local"}`),
		"/debug/clusterz": []byte(`[{"id":"cluster-a","syncStatus":"synced"}]`),
		"/debug/networkz": []byte(`[]`),
		"/metrics":        []byte("# TYPE controller_sync_errors_total counter\ncontroller_sync_errors_total{cluster=\"cluster-b\"} 15\n"),
	}, secrets: map[string]map[string][]byte{"cacerts": must[map[string][]byte](t)(ca.CACerts())}}
	r.syncz()
	r.pods()
	return r
}

// syncz repeats a recorded proxy.
func (r *replay) syncz() {
	var recorded []json.RawMessage
	require.NoError(r, json.Unmarshal(must[[]byte](r)(os.ReadFile(filepath.Join("..", "observe", "testdata", "syncz.json"))), &recorded))
	all, shards := make([]json.RawMessage, r.proxies), map[string]any{}
	for i := range all {
		all[i] = recorded[i%len(recorded)]
	}
	r.pages["/debug/syncz"] = must[[]byte](r)(json.Marshal(all))
	for i := range r.proxies/10 + 1 {
		endpoints := make([]map[string]any, 10)
		for n := range endpoints {
			endpoints[n] = map[string]any{"Labels": map[string]string{"app": "echo", "pod-template-hash": "7f5c4769cf"}, "Addresses": []string{"10.1.2.3"}, "ServicePortName": "http", "ServiceAccount": "spiffe://cluster.local/ns/production/sa/echo", "Network": "network-a", "EndpointPort": 8080}
		}
		shards[fmt.Sprintf("s%d.production.svc.cluster.local", i)] = map[string]any{"production": map[string]any{"Shards": map[string]any{"Kubernetes/cluster-a": endpoints}}}
	}
	r.pages["/debug/endpointShardz"] = must[[]byte](r)(json.Marshal(shards))
}

func (r *replay) pods() {
	ready := corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	started := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	var all []corev1.Pod
	all = append(all, corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "istiod-1", Namespace: "istio-system", UID: "istiod", Labels: map[string]string{"app": "istiod"}, CreationTimestamp: started},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "discovery", Env: []corev1.EnvVar{{Name: "CLUSTER_ID", Value: "cluster-a"}}}}}, Status: ready,
	})
	var env []corev1.EnvVar // as long as a real one
	for i := range 40 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("SOME_SETTING_OF_THE_APP_%d", i), Value: strings.Repeat("x", 40)})
	}
	for i := range r.proxies {
		hash := fmt.Sprintf("7f5c4769%d", i/10)
		all = append(all, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("app%d-%s-%05d", i/10, hash, i), Namespace: "production", UID: types.UID(fmt.Sprint("pod", i)), CreationTimestamp: metav1.NewTime(started.Add(time.Duration(i) * time.Second)),
				Labels: map[string]string{"pod-template-hash": hash}, OwnerReferences: []metav1.OwnerReference{{Name: fmt.Sprintf("app%d-%s", i/10, hash)}},
			},
			Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "app", Image: "app:1", Env: env}},
				InitContainers: []corev1.Container{{Name: "istio-proxy", Image: "hub/proxyv2:1.31", Args: []string{"proxy", "sidecar"}, Env: append([]corev1.EnvVar{
					{Name: "ISTIO_META_CLUSTER_ID", Value: "cluster-a"}, {Name: "ISTIO_META_NETWORK", Value: "network-a"}, {Name: "ISTIO_META_MESH_ID", Value: "mesh1"}}, env[:20]...)}},
			}, Status: ready,
		})
	}
	for len(all) > 0 {
		n := min(podsPerPage, len(all))
		page := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: all[:n]}
		if all = all[n:]; len(all) > 0 {
			page.Continue = fmt.Sprint(len(r.list) + 1)
		}
		r.list = append(r.list, must[[]byte](r)(json.Marshal(page)))
	}
}

func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	last := path[strings.LastIndexByte(path, '/')+1:]
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	status := func(code int, reason metav1.StatusReason) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: last + " is " + string(reason)})
	}
	for resource := range r.denied {
		if strings.Contains(path, "/"+resource) {
			status(http.StatusForbidden, metav1.StatusReasonForbidden)
			return
		}
	}
	switch {
	case path == "/version":
		answer(map[string]string{"gitVersion": "v1.36.1"})
	case last == "kube-system":
		answer(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: last, UID: "uid-a"}})
	case last == "namespaces":
		answer(corev1.NamespaceList{Items: []corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "production", Labels: map[string]string{"istio-injection": "enabled"}}}, {ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}},
		}})
	case last == "configmaps" && strings.Contains(req.URL.RawQuery, "istio-ca-root-cert"):
		answer(corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "production"}, Data: map[string]string{pki.RootCertFile: string(r.secrets["cacerts"][pki.RootCertFile])}}}})
	case last == "configmaps":
		answer(corev1.ConfigMapList{})
	case last == "pods":
		page, _ := strconv.Atoi(req.URL.Query().Get("continue"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(r.list[page])
	case last == "deployments":
		answer(appsv1.DeploymentList{Items: []appsv1.Deployment{{}}})
	case last == "services":
		answer(corev1.ServiceList{})
	case last == "mutatingwebhookconfigurations":
		answer(map[string]any{"items": []any{}})
	case last == "secrets":
		answer(corev1.SecretList{})
	case last == "log":
		_, _ = io.WriteString(w, "2026-11-25T02:00:00Z\tinfo\tUse local CA certificate\n2026-11-25T02:00:01Z\tinfo\tsomething else\n")
	case last == "portforward":
		r.portforward(w, req)
	case r.secrets[last] != nil:
		answer(corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: last}, Data: r.secrets[last]})
	default:
		status(http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

func (r *replay) portforward(w http.ResponseWriter, req *http.Request) {
	if _, err := httpstream.Handshake(req, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, req, func(s httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			switch port := s.Headers().Get(corev1.PortHeader); {
			case s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError:
				_ = s.Close() // nothing is wrong
			case port == "15012":
				_ = tls.Server(streamConn{s}, &tls.Config{Certificates: []tls.Certificate{r.signer}}).Handshake()
			default:
				r.answer(s)
			}
		}()
		return nil
	})
	if conn != nil {
		<-conn.CloseChan()
	}
}

func (r *replay) answer(s httpstream.Stream) {
	in := bufio.NewReader(s)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		page, ok := r.pages[req.URL.Path]
		if req.URL.Path == "/config_dump" {
			r.asked.Add(1)
		}
		res := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(page)), Body: io.NopCloser(bytes.NewReader(page))}
		if !ok {
			res.StatusCode = http.StatusNotFound
		}
		if res.Write(s) != nil {
			return
		}
	}
}

// streamConn is a stream as what TLS wants.
type streamConn struct{ httpstream.Stream }

func (streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

func (r *replay) target() Target {
	s := httptest.NewServer(r)
	r.Cleanup(s.Close)
	return Target{"cluster-a", &rest.Config{Host: s.URL}}
}

func TestGather(t *testing.T) {
	r := newReplay(t, 30)
	target := r.target()
	var mu sync.Mutex
	told := map[Part]bool{}
	f := Gather(t.Context(), []Target{target}, Options{Progress: func(_ string, p Part, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		told[p] = true
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
	i := c.Istiods[0]
	assert.True(t, i.Ready && i.Read)
	assert.Len(t, i.Signer, 2, "its own and the intermediate")
	assert.Equal(t, []string{"2026-11-25T02:00:00Z info Use local CA certificate"}, i.Lines)
	assert.Equal(t, map[string]int{"cluster-a": 30}, i.Serves)
	assert.Equal(t, map[string]string{"cluster-a": "synced"}, i.Clusters)
	assert.Equal(t, 10, i.Endpoints["production/s0.production.svc.cluster.local"]["cluster-a"])
	assert.Equal(t, "matches", c.CACerts.Key)
	assert.Equal(t, "cluster.local", c.Settings.TrustDomain)
	assert.Len(t, told, 13)
	text := must[[]byte](t)(json.Marshal(f))
	assert.NotContains(t, string(text), "PRIVATE KEY")
	assert.NotContains(t, string(text), string(bytes.Split(r.secrets["cacerts"][pki.CAKeyFile], []byte("\n"))[1]))
	var again Facts
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, Examine(f), Examine(again), "facts can be kept and examined elsewhere")
}

// What an account may not read makes checks unknown, and says which.
func TestGatherWithoutRights(t *testing.T) {
	for resource, parts := range map[string][]Part{
		"secrets": {Secrets}, "configmaps": {RootMaps}, "pods": {Pods}, "portforward": {Signer, IstiodPage, Proxies}, "mutatingwebhookconfigurations": {Webhooks},
	} {
		r := newReplay(t, 3)
		r.denied[resource] = true
		f := Gather(t.Context(), []Target{r.target()}, Options{})
		var lost []Part
		for _, u := range f.Unread {
			lost = append(lost, u.Part)
			if resource != "portforward" { // there it is what exec says, which is tried next
				assert.Contains(t, strings.ToLower(u.Why), "forbidden")
			}
		}
		assert.Equal(t, parts, lost, resource)
		assert.False(t, Examine(f).Complete())
	}
	f := Gather(t.Context(), []Target{{"gone", &rest.Config{Host: "http://127.0.0.1:1"}}}, Options{})
	require.Len(t, f.Unread, 1)
	assert.Equal(t, APIServer, f.Unread[0].Part)
	for _, c := range Examine(f).Checks {
		if c.ID != "api-server-unreachable" {
			assert.Equal(t, Unsure, c.State, c.ID)
		}
	}
}

// Time and memory that grow with the number of proxies: go test -run - -bench . ./lab/doctor
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

// BenchmarkExamine examines two clusters with that many proxies in the sample.
func BenchmarkExamine(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := healthy(b)
			for i := range w.Clusters {
				for j := range n / 2 {
					p := w.Clusters[i].Proxies[0]
					p.Pod = fmt.Sprint("pod", j)
					p.Chain = append(w.leaf(w.ca[i], pki.LeafOptions{Client: true, URIs: []string{"spiffe://cluster.local/ns/production/sa/client"}}), p.Chain[1:]...)[:3]
					w.Clusters[i].Proxies = append(w.Clusters[i].Proxies, p)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				require.Empty(b, Examine(w.Facts).Findings)
			}
		})
	}
}

// peakHeap returns by how many bytes the heap grows at most while do runs.
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
	r := &reader{Options: Options{System: "istio-system"}, cluster: &Cluster{}, labels: map[string]map[string]string{"shop": {"team": "a"}}}
	assert.True(t, r.covers("shop"))
	r.cluster.Settings.selectors = []metav1.LabelSelector{{MatchLabels: map[string]string{"team": "b"}}}
	assert.False(t, r.covers("shop"))
	assert.True(t, r.covers("istio-system"))
	r.labels["shop"]["team"] = "b"
	assert.True(t, r.covers("shop"))
}
