package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"istio.io/istio/pkg/test/echo/proto"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// orderMargin is how much longer than a call's timeout its result is waited for. After that the pod that was to make the
// call is taken to be gone.
const orderMargin = time.Second

// orders sends orders to a source over one gRPC connection. It is made anew when it breaks, and when its pod is about to end: calls that
// are under way on the old one go on. It uses the generated client directly: package istio.io/istio/pkg/test/echo, which wraps it, links
// gRPC's xDS support without using it (117 packages, 3.5 MB) and blocks for up to 15 s outside of any context.
type orders struct {
	from Source

	mu  sync.Mutex
	now *line // what the next order takes; nil before the first
}

// line is a connection for orders. The mutex of orders guards what changes.
type line struct {
	conn     *grpc.ClientConn
	echo     proto.EchoTestServiceClient
	openFail error

	pod     string // that it leads to; "" until it is connected
	dialing error  // why the last attempt to connect failed; nil once one succeeded
	calls   int    // under way
	left    bool   // no further order takes it
}

func openOrders(from Source) *orders { return &orders{from: from} }

// take returns the line for one order. It has to be released.
func (o *orders) take() *line {
	o.mu.Lock()
	defer o.mu.Unlock()
	if leaver, ok := o.from.(Leaver); ok && o.now != nil && o.now.pod != "" && leaver.Leaves(o.now.pod) {
		o.now.left = true
		o.now.closeIfLeft()
		o.now = nil
	}
	if o.now == nil {
		o.now = o.open()
	}
	o.now.calls++
	return o.now
}

func (o *orders) release(l *line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.calls--
	l.closeIfLeft()
}

func (l *line) closeIfLeft() {
	if l.left && l.calls == 0 && l.conn != nil {
		_ = l.conn.Close()
	}
}

func (o *orders) open() *line {
	l := &line{}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, pod, err := o.from.Dial(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		if l.dialing = err; err != nil {
			return nil, err
		}
		l.pod = pod
		return podConn{conn, pod}, nil
	}
	// The name is never resolved: the dialer knows where to connect. Retries come fast, since a restarted pod is
	// usually back within a second, and a call whose order fails is not made.
	l.conn, l.openFail = grpc.NewClient("passthrough:///"+strings.ReplaceAll(o.from.String(), "/", "-"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.1, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}))
	if l.openFail == nil {
		l.echo = proto.NewEchoTestServiceClient(l.conn)
	}
	return l
}

// close closes the connection. Nobody calls it while an order is under way.
func (o *orders) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now != nil {
		o.now.left = true
		o.now.closeIfLeft()
	}
}

// podConn makes gRPC say which pod an order went to: the peer of a call is the connection's remote address.
type podConn struct {
	net.Conn
	pod string
}

func (c podConn) RemoteAddr() net.Addr { return podAddr{c.Conn.RemoteAddr(), c} }

type podAddr struct {
	net.Addr
	conn podConn
}

// call orders one call and waits for its result, for the timeout and a margin. The echo server gives up connecting after
// 2 s (common.ConnectionTimeout), whatever the order says. If it did so because nobody answered its packets, it gets the
// order again as long as the call has time.
func (o *orders) call(ctx context.Context, url string, options Options) Call {
	timeout := options.Timeout
	if timeout <= 0 {
		timeout = wait.Bound(DefaultTimeout)
	}
	request := &proto.ForwardEchoRequest{Url: url, Count: 1}
	for k, v := range options.Headers {
		request.Headers = append(request.Headers, &proto.Header{Key: k, Value: v})
	}
	call := Call{Start: time.Now(), Stream: options.Stream, Connection: options.connection()}
	l := o.take()
	defer o.release(l)
	if l.openFail != nil {
		call.End, call.Err = call.Start, l.openFail.Error()
		return call
	}
	ended := call.Start.Add(timeout)
	bound, cancel := context.WithDeadline(ctx, ended.Add(orderMargin))
	defer cancel()
	for unconnected := ""; ; unconnected = call.Err {
		request.TimeoutMicros = time.Until(ended).Microseconds()
		o.order(ctx, bound, l, request, &call, timeout)
		switch {
		case gaveUp.MatchString(call.Err) && time.Until(ended) > leastTime:
			continue
		case unconnected != "" && call.Err == noAnswer(timeout):
			call.Err = unconnected // it says more
		}
		return call
	}
}

// leastTime is how much time a call must have left to be tried again. An order with a timeout of 0 µs would have none.
const leastTime = 10 * time.Millisecond

// gaveUp matches the error of a connection that was neither made nor refused.
var gaveUp = regexp.MustCompile(`^dial tcp.*: i/o timeout$`)

func noAnswer(timeout time.Duration) string { return fmt.Sprintf("no answer within %s", timeout) }

// order gives an order once and writes its result into call. The context bound is ctx with the call's time limit.
func (o *orders) order(
	ctx, bound context.Context, l *line, request *proto.ForwardEchoRequest, call *Call, timeout time.Duration,
) {
	var to peer.Peer
	response, err := l.echo.ForwardEcho(bound, request, grpc.Peer(&to))
	call.End, call.Issued, call.Err = time.Now(), false, ""
	addr, connected := to.Addr.(podAddr)
	if connected {
		call.Source = addr.conn.pod
	}
	switch {
	case err == nil && len(response.GetOutput()) == 1:
		call.Issued = true
		call.read(response.Output[0])
	case err == nil:
		call.Err = fmt.Sprintf("%s answered an order for one call with %d results", o.from, len(response.GetOutput()))
	case status.Code(err) == codes.Unknown:
		// The echo server returns the error of the call itself with this code; gRPC's own errors have other codes.
		call.Issued = true
		if call.Err = callError(status.Convert(err).Message()); timedOut.MatchString(call.Err) {
			call.Err = noAnswer(timeout)
		}
	default:
		call.Err = o.orderError(ctx, l, err, timeout)
		if connected && bound.Err() != nil && ctx.Err() == nil {
			// The pod may be gone without closing the connection, which would then never break by itself.
			_ = addr.conn.Close()
		}
	}
}

// orderError returns the reason why an order was not carried out.
func (o *orders) orderError(ctx context.Context, l *line, err error, timeout time.Duration) string {
	if ctx.Err() != nil {
		return "stopped: " + context.Cause(ctx).Error()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.dialing != nil && !errors.Is(l.dialing, context.Canceled) {
		return fmt.Sprintf("connecting to %s: %v", o.from, l.dialing)
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Sprintf("%s did not report the call's result within %s", o.from, timeout+orderMargin)
	}
	return fmt.Sprintf("ordering a call from %s: %s", o.from, status.Convert(err).Message())
}

// read fills in what the echo server wrote about one call. Lines of the caller are "[0] Name=value". Lines of the
// answer's body are "[0 body] …", with "Name=value" again if an echo server answered.
func (c *Call) read(output string) {
	var body []string
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n")
		tag, text, _ := strings.Cut(line, "] ")
		switch {
		case strings.HasSuffix(tag, " body"):
			body = append(body, text)
		case strings.HasSuffix(tag, " error"):
			c.Err = callError(text)
		case strings.HasPrefix(text, "StatusCode="):
			c.Code, _ = strconv.Atoi(strings.TrimPrefix(text, "StatusCode="))
		}
	}
	if c.Code == 0 && c.Err == "" {
		c.Err = "the source's echo server gave no status"
	}
	if c.Code == 0 {
		return
	}
	if c.Code != 200 {
		c.Err = callError(fmt.Sprintf("HTTP %d: %s", c.Code, strings.Join(body, " ")))
		return
	}
	for _, line := range body {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "Cluster":
			c.Cluster = value
		case "Hostname":
			c.Pod = value
		case "Proto":
			c.Protocol = value
		case "RequestHeader":
			c.readHeader(value)
		}
	}
}

func (c *Call) readHeader(line string) {
	name, value, _ := strings.Cut(line, ":")
	switch strings.ToLower(name) {
	case "x-request-id":
		c.RequestID = value
	case "x-envoy-attempt-count":
		c.Attempts, _ = strconv.Atoi(value)
	case "x-forwarded-client-cert":
		c.XFCC = value
		c.ServerID, c.ClientID = xfccIDs(value)
	}
}

// xfccIDs returns the SPIFFE IDs of the last element of an X-Forwarded-Client-Cert header: By is the proxy that wrote
// the element, URI the peer that it saw. Earlier elements come from proxies further away.
func xfccIDs(header string) (by, uri string) {
	quoted, start := false, 0
	var parts []string
	for i := range len(header) + 1 {
		if i < len(header) && header[i] == '"' && (i == 0 || header[i-1] != '\\') {
			quoted = !quoted
		}
		if i < len(header) && (quoted || header[i] != ',' && header[i] != ';') {
			continue
		}
		parts = append(parts, header[start:i])
		if start = i + 1; i < len(header) && header[i] == ',' {
			parts = parts[:0]
		}
	}
	for _, part := range parts {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(key) {
		case "by":
			by = value
		case "uri":
			uri = value
		}
	}
	return by, uri
}

// longestError is how many bytes of an error's text are kept. Envoy's longest TLS texts fit.
const longestError = 400

var (
	goClient  = regexp.MustCompile(`^[A-Z][a-z]+ "[^"]*": `) // it does not name the host, so it is of no use
	ownWords  = regexp.MustCompile(`^\d+/\d+ requests had errors; first error: `)
	timedOut  = regexp.MustCompile(`request set timed out after|context deadline exceeded|Client\.Timeout exceeded`)
	localPort = regexp.MustCompile(`\b(read|write) tcp [^ ]+->`)
)

// callError makes one short line of an error's text. It leaves out what differs from call to call, so that equal failures
// have equal texts.
func callError(text string) string {
	text = ownWords.ReplaceAllString(strings.TrimSpace(text), "")
	text = goClient.ReplaceAllString(text, "")
	text = localPort.ReplaceAllString(text, "$1 tcp ")
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > longestError {
		text = strings.ToValidUTF8(text[:longestError], "") + "…"
	}
	if text == "" {
		text = "no text"
	}
	return text
}
