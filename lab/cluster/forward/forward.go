// Package forward reaches ports of pods through the API server, as `kubectl port-forward` does. It needs a kubeconfig
// that may create pods/portforward, and no route to the pods. `go test ./tests/existing` runs it on real clusters.
package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what the dialer of client-go returns
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// Pod names a pod. Its UID keeps a new pod of the same name from getting the old one's connection.
type Pod struct{ UID, Namespace, Name string }

// Forwarder keeps one connection per pod to the API server and lets all forwarded connections share it.
type Forwarder struct {
	config *rest.Config
	kube   kubernetes.Interface

	mu    sync.Mutex
	conns map[string]httpstream.Connection // by pod UID
	id    int
}

// New returns a forwarder for a cluster. The config is not changed.
func New(config *rest.Config, kube kubernetes.Interface) *Forwarder {
	return &Forwarder{config: config, kube: kube}
}

// Dial opens a port of a pod's loopback. Where nobody listens there, the first Read tells so. The library behind it
// takes no context: what ctx ends goes on unseen until the API server has answered, and is closed then.
func (f *Forwarder) Dial(ctx context.Context, pod Pod, port uint16) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := f.dial(pod, port)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				_ = r.conn.Close() // nobody waits for it any more
			}
		}()
		return nil, fmt.Errorf("forwarding to pod %s: %w", pod.Name, context.Cause(ctx))
	}
}

func (f *Forwarder) dial(pod Pod, port uint16) (net.Conn, error) {
	conn, err := f.conn(pod)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.id++
	id := strconv.Itoa(f.id)
	f.mu.Unlock()
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, id)
	problems, err := conn.CreateStream(headers)
	if err != nil {
		f.drop(pod.UID, conn)
		return nil, fmt.Errorf("forwarding to port %d: %w", port, err)
	}
	_ = problems.Close() // our side; we only read it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		f.drop(pod.UID, conn)
		return nil, fmt.Errorf("forwarding to port %d: %w", port, err)
	}
	s := &stream{Stream: data, problems: problems, conn: conn}
	go s.listen()
	return s, nil
}

func (f *Forwarder) conn(pod Pod) (httpstream.Connection, error) {
	f.mu.Lock()
	conn := f.conns[pod.UID]
	f.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	url := f.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	conn, _, err = spdy.NewDialer(typedErrors{upgrader}, &http.Client{Transport: transport}, http.MethodPost, url).
		Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("forwarding to pod %s: %w", pod.Name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.conns[pod.UID]; other != nil { // somebody was quicker
		_ = conn.Close()
		return other, nil
	}
	if f.conns == nil {
		f.conns = map[string]httpstream.Connection{}
	}
	f.conns[pod.UID] = conn
	go func() {
		<-conn.CloseChan()
		f.drop(pod.UID, conn)
	}()
	return conn, nil
}

// typedErrors returns what an API server refuses as an error that apierrors.IsForbidden and its like recognize. client-go's own
// upgrader keeps only the text.
type typedErrors struct{ spdy.Upgrader }

// NewConnection implements spdy.Upgrader.
func (u typedErrors) NewConnection(res *http.Response) (httpstream.Connection, error) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return u.Upgrader.NewConnection(res)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	_ = res.Body.Close() // it was only read
	var status metav1.Status
	if err == nil && json.Unmarshal(body, &status) == nil && status.Status == metav1.StatusFailure {
		return nil, &apierrors.StatusError{ErrStatus: status}
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return u.Upgrader.NewConnection(res)
}

func (f *Forwarder) drop(uid string, conn httpstream.Connection) {
	f.mu.Lock()
	if f.conns[uid] == conn {
		delete(f.conns, uid)
	}
	f.mu.Unlock()
	_ = conn.Close() // it is of no use any more
}

// Close ends all connections. The forwarder can be used again.
func (f *Forwarder) Close() {
	f.mu.Lock()
	conns := f.conns
	f.conns = nil
	f.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// stream is one forwarded connection. It has no addresses and ignores deadlines: its users bound what they do by
// closing it.
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
