package gather

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what the dialer of client-go speaks with
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// replay is an API server that gives recorded answers for any number of proxies, and forwards ports of pods as a real one does.
type replay struct {
	testing.TB
	proxies   int
	revisions []string                     // of istiods, oldest first
	secrets   map[string]map[string][]byte // of istio-system
	denied    map[string]bool              // resources that the account may not read
	signer    tls.Certificate
	pages     map[string][]byte // of istiod and Envoy
	list      [][]byte          // pages of pods
	asked     atomic.Int64      // number of proxies whose certificates were read

	labels     map[string]string // of the namespace production
	slices     []discoveryv1.EndpointSlice
	injectors  []admissionv1.MutatingWebhookConfiguration
	validators []admissionv1.ValidatingWebhookConfiguration
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

func newReplay(t testing.TB, proxies int) *replay {
	root := must[*pki.CA](t)(pki.NewRoot(pki.Options{Name: "root"}))
	ca := must[*pki.CA](t)(root.Intermediate(pki.Options{Name: "intermediate"}))
	cert, key, err := ca.Leaf(pki.LeafOptions{DNSNames: []string{"istiod.istio-system.svc"}, Server: true})
	require.NoError(t, err)
	signer := must[tls.Certificate](t)(tls.X509KeyPair(cert, key))
	recorded := must[[]byte](t)(os.ReadFile(filepath.Join("..", "..", "observe", "testdata", "secrets.json")))
	r := &replay{TB: t, proxies: proxies, revisions: []string{"default"}, signer: signer, denied: map[string]bool{},
		labels: map[string]string{"istio-injection": "enabled"}, pages: map[string][]byte{
			"/config_dump":    recorded,
			"/clusters":       must[[]byte](t)(os.ReadFile(filepath.Join("..", "..", "observe", "testdata", "clusters.json"))),
			"/debug/mesh":     []byte(`{"trustDomain":"cluster.local"}`),
			"/debug/clusterz": []byte(`[{"id":"cluster-a","syncStatus":"synced"}]`),
			"/debug/networkz": []byte(`[]`),
			"/metrics":        []byte("# TYPE controller_sync_errors_total counter\ncontroller_sync_errors_total{cluster=\"cluster-b\"} 15\n"),
		}, secrets: map[string]map[string][]byte{"cacerts": must[map[string][]byte](t)(ca.CACerts())}}
	r.syncz()
	r.pods()
	return r
}

// syncz makes the pages of istiod that grow with the number of proxies.
func (r *replay) syncz() {
	var recorded []json.RawMessage
	require.NoError(r, json.Unmarshal(must[[]byte](r)(os.ReadFile(filepath.Join("..", "..", "observe", "testdata", "syncz.json"))), &recorded))
	all, shards := make([]json.RawMessage, r.proxies), map[string]any{}
	for i := range all {
		all[i] = recorded[i%len(recorded)]
	}
	r.pages["/debug/syncz"] = must[[]byte](r)(json.Marshal(all))
	for i := range r.proxies/10 + 1 {
		endpoints := make([]map[string]any, 10)
		for n := range endpoints {
			endpoints[n] = map[string]any{
				"Labels": map[string]string{"app": "echo", "pod-template-hash": "7f5c4769cf"}, "Addresses": []string{"10.1.2.3"},
				"ServicePortName": "http", "ServiceAccount": "spiffe://cluster.local/ns/production/sa/echo",
				"Network": "network-a", "EndpointPort": 8080,
			}
		}
		service := map[string]any{"Shards": map[string]any{"Kubernetes/cluster-a": endpoints}}
		shards[fmt.Sprintf("s%d.production.svc.cluster.local", i)] = map[string]any{"production": service}
	}
	r.pages["/debug/endpointShardz"] = must[[]byte](r)(json.Marshal(shards))
}

// pods makes the pages of pods: an istiod of each revision, and workloads of ten proxies.
func (r *replay) pods() {
	r.list = nil
	ready := corev1.PodStatus{
		Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	started := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	var all []corev1.Pod
	for i, revision := range r.revisions {
		name := fmt.Sprintf("istiod-%d", i+1)
		all = append(all, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: "istio-system", UID: types.UID(name), Labels: map[string]string{"app": "istiod", "istio.io/rev": revision},
				CreationTimestamp: metav1.NewTime(started.Add(time.Duration(i) * time.Second)),
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: "discovery", Env: []corev1.EnvVar{{Name: "CLUSTER_ID", Value: "cluster-a"}},
			}}},
			Status: ready,
		})
	}
	var env []corev1.EnvVar // as long as a real one
	for i := range 40 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("SOME_SETTING_OF_THE_APP_%d", i), Value: strings.Repeat("x", 40)})
	}
	for i := range r.proxies {
		hash := fmt.Sprintf("7f5c4769%d", i/10)
		set := fmt.Sprintf("app%d-%s", i/10, hash)
		all = append(all, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("%s-%05d", set, i), Namespace: "production", UID: types.UID(fmt.Sprint("pod", i)),
				CreationTimestamp: metav1.NewTime(started.Add(time.Duration(i) * time.Second)),
				Labels:            map[string]string{"pod-template-hash": hash, "istio.io/rev": r.revisions[i%len(r.revisions)]},
				OwnerReferences:   []metav1.OwnerReference{{Name: set}},
			},
			Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "app", Image: "app:1", Env: env}},
				InitContainers: []corev1.Container{{
					Name: "istio-proxy", Image: "hub/proxyv2:1.31", Args: []string{"proxy", "sidecar"}, Env: append([]corev1.EnvVar{
						{Name: "ISTIO_META_CLUSTER_ID", Value: "cluster-a"}, {Name: "ISTIO_META_NETWORK", Value: "network-a"},
						{Name: "ISTIO_META_MESH_ID", Value: "mesh1"},
					}, env[:20]...),
				}},
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
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: reason, Code: int32(code),
			Message: last + " is " + string(reason),
		})
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
			{ObjectMeta: metav1.ObjectMeta{Name: "production", Labels: r.labels}},
			{ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}},
		}})
	case last == "configmaps" && strings.Contains(req.URL.RawQuery, "istio-ca-root-cert"):
		root := map[string]string{pki.RootCertFile: string(r.secrets["cacerts"][pki.RootCertFile])}
		answer(corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "production"}, Data: root}}})
	case last == "configmaps" && strings.Contains(req.URL.RawQuery, "labelSelector"):
		var list corev1.ConfigMapList
		for _, revision := range r.revisions {
			list.Items = append(list.Items, corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: facts.Revisioned("istio", revision), Labels: map[string]string{"istio.io/rev": revision}},
				Data:       map[string]string{"mesh": "trustDomain: " + revision + ".example"},
			})
		}
		answer(list)
	case last == "configmaps":
		answer(corev1.ConfigMapList{})
	case last == "pods":
		page, _ := strconv.Atoi(req.URL.Query().Get("continue"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(r.list[page])
	case last == "deployments":
		var list appsv1.DeploymentList
		for _, revision := range r.revisions {
			list.Items = append(list.Items, appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"istio.io/rev": revision}}})
		}
		answer(list)
	case last == "services":
		list := corev1.ServiceList{Items: []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Name: "istiod-elsewhere", Namespace: "istio-system"}}}}
		for _, revision := range r.revisions {
			list.Items = append(list.Items, corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: facts.Revisioned("istiod", revision), Namespace: "istio-system"},
				Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "istiod", "istio.io/rev": revision}},
			})
		}
		answer(list)
	case last == "endpointslices":
		answer(discoveryv1.EndpointSliceList{Items: r.slices})
	case last == "mutatingwebhookconfigurations":
		answer(admissionv1.MutatingWebhookConfigurationList{Items: r.injectors})
	case last == "validatingwebhookconfigurations":
		answer(admissionv1.ValidatingWebhookConfigurationList{Items: r.validators})
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
		res := http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(page)), Body: io.NopCloser(bytes.NewReader(page)),
		}
		if !ok {
			res.StatusCode = http.StatusNotFound
		}
		if res.Write(s) != nil {
			return
		}
	}
}

// streamConn makes a stream the net.Conn that TLS wants.
type streamConn struct{ httpstream.Stream }

func (streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

func (r *replay) target() Target {
	s := httptest.NewServer(r)
	r.Cleanup(s.Close)
	return Target{Name: "cluster-a", Config: &rest.Config{Host: s.URL}}
}
