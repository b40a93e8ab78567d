// Package traffic makes calls through the mesh, records each of them, and judges recordings afterwards.
//
// Calls start inside pods. The lab's apps are Istio's echo server; each listens on ForwardPort, which its sidecar does
// not touch, for orders to make an HTTP call and report its result. The order goes around the mesh, the call itself goes
// through it. A Source is where orders go; package observe makes Sources of ready pods. Once and Many call now; Start
// opens a Stream that calls over time and ends as a Recording; Judge and the methods of Recording turn calls into
// numbers and change nothing.
//
// # Fresh and reused connections
//
// The echo server opens a new connection for each HTTP/1 call, but that one ends at the sidecar next to it. Between
// clusters the sidecar uses connections that it keeps in a pool, and trust is checked only when such a connection is
// made: pooled connections outlive every change of certificates. So a stream is
//
//   - fresh when it calls a host whose DestinationRule says `connectionPool.http.maxRequestsPerConnection: 1`:
//     Envoy then makes a mutual TLS connection for each call (cluster stat upstream_cx_total counts them).
//     Most of them resume the TLS session of the one before, but Envoy verifies the peer's certificate again when it
//     resumes (SSL_CTX_set_reverify_on_resume), and a side that has got other certificates or roots has a
//     new TLS context, which resumes nothing.
//   - reused when it calls a host without that rule: 41 calls in a row took 2 connections, one for each
//     of Envoy's worker threads.
//
// Plan.Fresh and Options.Fresh only say which of the two the URL's host is, so that the calls are labeled; package mesh,
// which makes the hosts, installs the rule. One order carries one call, on purpose: the echo server answers an order for
// several calls with nothing but an error as soon as one of them fails.
package traffic

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// ForwardPort is the port on which the lab's apps take orders. The annotation
// traffic.sidecar.istio.io/excludeInboundPorts keeps it away from the sidecar, so that orders arrive even if the mesh is
// broken.
const ForwardPort = 17070

// DefaultTimeout, times wait.Patience, bounds a call unless its plan or options say otherwise. It ends calls to an address
// that drops packets, since Envoy itself would wait longer (10 s to connect, and then try again).
const DefaultTimeout = 3 * time.Second

// Source is where calls start.
type Source interface {
	// Dial connects to ForwardPort of a pod that is ready to call, and returns the pod's name. It is called again
	// when a connection breaks, and may then choose another pod. A Source may close a connection whose pod is about
	// to end: calls under way on it count as not issued, not as lost.
	Dial(ctx context.Context) (conn net.Conn, pod string, err error)
	// String names the source for people: "client@cluster-a".
	String() string
}

// Leaver is a Source that knows when a pod is about to end. Calls that begin after that are ordered from another one.
type Leaver interface {
	// Leaves reports whether a pod is about to end, or is gone, and another one is ready to call. It answers at once.
	Leaves(pod string) bool
}

// FromDialer returns a source that connects with a function. In Call.Source it has the address in place of the pod's
// name.
func FromDialer(name string, dial func(context.Context) (net.Conn, error)) Source {
	return dialer{name, dial}
}

type dialer struct {
	name string
	dial func(context.Context) (net.Conn, error)
}

func (d dialer) String() string { return d.name }

func (d dialer) Dial(ctx context.Context) (net.Conn, string, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, "", err
	}
	return conn, conn.RemoteAddr().String(), nil
}

// Connection says over what kind of connection a call crossed the mesh.
type Connection string

// The kinds of connections; see the package comment.
const (
	Fresh  Connection = "fresh"
	Reused Connection = "reused"
)

// Call is one call and its result. Its times are those of this machine; within one process they compare by the monotonic
// clock.
type Call struct {
	Start      time.Time  `json:"start"`
	End        time.Time  `json:"end"` // zero while the call is under way
	Stream     string     `json:"stream,omitempty"`
	Connection Connection `json:"connection"`
	Source     string     `json:"source,omitempty"` // the pod that called

	// Issued is false if the source pod did not make the call, or not to its end, because it could not be reached or
	// ended meanwhile. That says nothing about the mesh and is counted separately.
	Issued bool   `json:"issued"`
	Code   int    `json:"code,omitempty"` // HTTP status; 0 without an answer
	Err    string `json:"error,omitempty"`

	// The cluster and the pod that answered, by their own account. Empty unless one of the lab's apps answered.
	Cluster string `json:"cluster,omitempty"`
	Pod     string `json:"pod,omitempty"`
	// What the answering pod's sidecar passed on to it (X-Forwarded-Client-Cert): empty for plaintext.
	ClientID string `json:"clientId,omitempty"` // SPIFFE ID of the caller
	ServerID string `json:"serverId,omitempty"` // SPIFFE ID of the pod that answered
	XFCC     string `json:"xfcc,omitempty"`     // the whole header

	Protocol  string `json:"protocol,omitempty"` // as the answering pod saw it: "HTTP/1.1"
	RequestID string `json:"requestId,omitempty"`
	// Attempts is the number of the try that was answered, from X-Envoy-Attempt-Count. If it is above 1, the caller's
	// sidecar has hidden a failure by trying again. 0 if unknown.
	Attempts int `json:"attempts,omitempty"`
}

// Latency is the time from Start to End, that is from ordering the call to its result.
func (c Call) Latency() time.Duration { return c.End.Sub(c.Start) }

// String describes the call in one line, for reports and errors.
func (c Call) String() string {
	what := c.Err
	switch {
	case !c.Issued:
		what = "not issued: " + c.Err
	case c.Code == 200:
		what = fmt.Sprintf("answered by %s in %s", cmp.Or(c.Pod, "an unknown pod"), cmp.Or(c.Cluster, "an unknown cluster"))
	}
	return fmt.Sprintf("%s after %s", what, c.Latency().Round(time.Millisecond))
}

// Options change how Once and Many call. The zero value is fine.
type Options struct {
	Timeout time.Duration     // of each call; DefaultTimeout when zero
	Headers map[string]string // sent with each call; Host replaces the URL's
	Fresh   bool              // the URL's host has a connection for each call; see the package comment
	Stream  string            // label of the calls
}

func (o Options) connection() Connection {
	if o.Fresh {
		return Fresh
	}
	return Reused
}

// Once makes one call. The error is nil whatever the mesh did to the call (see Code and Err): it is for a source that
// could not be reached, and for an invalid URL.
func Once(ctx context.Context, from Source, url string, o Options) (Call, error) {
	calls, err := Many(ctx, from, url, 1, o)
	if len(calls) == 0 {
		return Call{}, err
	}
	return calls[0], err
}

// parallel is how many calls of Many are under way at once.
const parallel = 10

// Many makes n calls, a few at a time, and returns them in the order in which they were ordered. The error is the first
// reason why a call was not issued; the calls are returned with it.
func Many(ctx context.Context, from Source, url string, n int, o Options) ([]Call, error) {
	if err := checkURL(url); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("calling %s from %s: want at least one call, not %d", url, from, n)
	}
	orders := openOrders(from)
	defer orders.close()
	calls := make([]Call, n)
	slots := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for i := range calls {
		slots <- struct{}{}
		group.Go(func() {
			calls[i] = orders.call(ctx, url, o)
			<-slots
		})
	}
	group.Wait()
	for _, c := range calls {
		if !c.Issued {
			return calls, fmt.Errorf("calling %s from %s: %s", url, from, c.Err)
		}
	}
	return calls, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("calling %q: %w", text, err)
	}
	if u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("calling %q: want a URL like http://echo.sample.svc.cluster.local/", text)
	}
	return nil
}
