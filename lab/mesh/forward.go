package mesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what the dialer of client-go returns
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// Ports on a pod's loopback, where nobody but the pod itself is let in without a certificate.
const (
	EnvoyAdminPort  = 15000
	IstiodDebugPort = 15014
)

// Admin returns what Envoy's admin page says in a pod with a proxy, such as "/clusters?format=json".
func (m *Member) Admin(ctx context.Context, pod *corev1.Pod, path string) ([]byte, error) {
	body, err := m.forward.Get(ctx, pod, EnvoyAdminPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading Envoy's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// ConfigDump returns Envoy's whole configuration, endpoints included, as JSON.
func (m *Member) ConfigDump(ctx context.Context, pod *corev1.Pod) ([]byte, error) {
	return m.Admin(ctx, pod, "/config_dump?include_eds")
}

// IstiodDebug returns a page of the cluster's istiod, such as "/debug/clusterz" or "/metrics".
func (m *Member) IstiodDebug(ctx context.Context, path string) ([]byte, error) {
	pods, err := m.ReadyPods(ctx, Istiod)
	if err != nil {
		return nil, err
	}
	pod := pods[len(pods)-1] // after a restart the newer one is the one that stays
	body, err := m.forward.Get(ctx, pod, IstiodDebugPort, path)
	if err != nil {
		return nil, fmt.Errorf("reading istiod's %s of %s in %s: %w", path, pod.Name, m.Name(), err)
	}
	return body, nil
}

// Forwarder reaches the loopback of pods through the API server, as `kubectl port-forward` does. It keeps
// one connection per pod and lets all requests share it. Close ends them.
type Forwarder struct {
	Config *rest.Config
	Kube   kubernetes.Interface

	mu     sync.Mutex
	conns  map[string]httpstream.Connection // by pod UID
	id     int
	client *http.Client
}

// Get returns a page that is served on a port of the pod.
func (f *Forwarder) Get(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	res, err := f.Open(ctx, pod, port, path)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res)
	_ = res.Close() // the body is read to its end
	return body, err
}

// Open is Get for pages that are better not held in memory as a whole.
func (f *Forwarder) Open(ctx context.Context, pod *corev1.Pod, port int, path string) (io.ReadCloser, error) {
	// The host names the pod, so that the client's idle connections are kept apart.
	url := fmt.Sprintf("http://%s.%s.%s:%d/%s", pod.UID, pod.Name, pod.Namespace, port, strings.TrimPrefix(path, "/"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = "localhost"
	res, err := f.http().Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()                               //nolint:errcheck // it was only read
		body, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // the status says enough without it
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	return res.Body, nil
}

// Dial connects to a port of the pod's loopback. The connection has no addresses and ignores deadlines.
func (f *Forwarder) Dial(pod *corev1.Pod, port int) (net.Conn, error) {
	return f.dial(string(pod.UID), pod.Name, pod.Namespace, strconv.Itoa(port))
}

func (f *Forwarder) http() *http.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client == nil {
		f.client = &http.Client{Transport: &http.Transport{
			IdleConnTimeout: 30 * time.Second,
			DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				uid, rest, _ := strings.Cut(host, ".")
				dot := strings.LastIndexByte(rest, '.')
				return f.dial(uid, rest[:dot], rest[dot+1:], port)
			},
		}}
	}
	return f.client
}

// dial opens a port of a pod's loopback. The library behind it takes no context.
func (f *Forwarder) dial(uid, pod, namespace, port string) (net.Conn, error) {
	conn, err := f.conn(uid, pod, namespace)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.id++
	id := strconv.Itoa(f.id)
	f.mu.Unlock()
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, id)
	problems, err := conn.CreateStream(headers)
	if err != nil {
		f.drop(uid, conn)
		return nil, fmt.Errorf("forwarding to port %s: %w", port, err)
	}
	_ = problems.Close() // our side; we only read it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		f.drop(uid, conn)
		return nil, fmt.Errorf("forwarding to port %s: %w", port, err)
	}
	s := &stream{Stream: data, problems: problems, conn: conn}
	go s.listen()
	return s, nil
}

func (f *Forwarder) conn(uid, pod, namespace string) (httpstream.Connection, error) {
	f.mu.Lock()
	conn := f.conns[uid]
	f.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.Config)
	if err != nil {
		return nil, err
	}
	url := f.Kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	conn, _, err = spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("forwarding to pod %s: %w", pod, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.conns[uid]; other != nil { // somebody was quicker
		_ = conn.Close()
		return other, nil
	}
	if f.conns == nil {
		f.conns = map[string]httpstream.Connection{}
	}
	f.conns[uid] = conn
	go func() {
		<-conn.CloseChan()
		f.drop(uid, conn)
	}()
	return conn, nil
}

func (f *Forwarder) drop(uid string, conn httpstream.Connection) {
	f.mu.Lock()
	if f.conns[uid] == conn {
		delete(f.conns, uid)
	}
	f.mu.Unlock()
	_ = conn.Close() // it is of no use any more
}

// Close ends all connections; the next request makes new ones.
func (f *Forwarder) Close() {
	f.mu.Lock()
	conns, client := f.conns, f.client
	f.conns, f.client = nil, nil
	f.mu.Unlock()
	if client != nil {
		client.CloseIdleConnections()
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// stream is one forwarded connection. It has no addresses and ignores deadlines: its user, the HTTP
// client, bounds requests by closing it.
type stream struct {
	httpstream.Stream
	problems httpstream.Stream
	conn     httpstream.Connection

	mu      sync.Mutex
	problem error
}

var _ net.Conn = (*stream)(nil)

// listen takes the one message that the other side sends where it could not connect.
func (s *stream) listen() {
	text, err := io.ReadAll(s.problems)
	if err == nil && len(text) > 0 {
		s.mu.Lock()
		s.problem = fmt.Errorf("forwarding: %s", text)
		s.mu.Unlock()
		_ = s.Reset() // ends a Read that waits
	}
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.problem != nil {
			err = s.problem
		}
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.Reset()
	s.conn.RemoveStreams(s.Stream, s.problems)
	return err
}

func (s *stream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
