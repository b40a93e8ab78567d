package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/connectivity"
	"istio.io/istio/pkg/config/protocol"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test/echo/common"
	"istio.io/istio/pkg/test/echo/server"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// The tests below run Istio's real echo server as processes of their own, so that it can be killed: the test binary
// starts itself again with this variable, "CLUSTER HTTP-PORT GRPC-PORT".
const serverVariable = "EASTWEST_TEST_ECHO"

func TestMain(m *testing.M) {
	if order := os.Getenv(serverVariable); order != "" {
		serveEcho(order)
	}
	os.Exit(m.Run())
}

func serveEcho(order string) {
	var cluster string
	var httpPort, grpcPort int
	if _, err := fmt.Sscanf(order, "%s %d %d", &cluster, &httpPort, &grpcPort); err != nil {
		panic(err)
	}
	quiet := log.DefaultOptions()
	quiet.SetDefaultOutputLevel(log.OverrideScopeName, log.NoneLevel)
	if err := log.Configure(quiet); err != nil {
		panic(err)
	}
	s := server.New(server.Config{
		Cluster: cluster,
		Ports: common.PortList{
			{Name: "http", Protocol: protocol.HTTP, Port: httpPort},
			{Name: "grpc", Protocol: protocol.GRPC, Port: grpcPort},
		},
		BindLocalhostPortsMap: map[int]struct{}{httpPort: {}, grpcPort: {}},
		ReportRequest:         func() {},
	})
	if err := s.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	os.Exit(0)
}

// echoServer is one process of the echo server; it can be killed and started again on the same ports.
type echoServer struct {
	cluster    string
	http, grpc int
	command    *exec.Cmd
}

func newEchoServer(t *testing.T, cluster string) *echoServer {
	t.Helper()
	e := &echoServer{cluster: cluster, http: freePort(t), grpc: freePort(t)}
	e.start(t)
	t.Cleanup(func() { e.kill() })
	return e
}

// freePort returns a port below those that Linux gives to outgoing connections: one of them could take
// the port while its server is down.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		return port
	}
	t.Fatal("looking for a free port: 100 of them were taken")
	return 0
}

func (e *echoServer) start(t *testing.T) {
	t.Helper()
	e.command = exec.Command(os.Args[0])
	e.command.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", serverVariable, e.cluster, e.http, e.grpc))
	e.command.Stderr = os.Stderr
	out, err := e.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, e.command.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "starting the echo server")
	require.Equal(t, "ready\n", line)
}

func (e *echoServer) kill() {
	if e.command != nil {
		_ = e.command.Process.Kill()
		_ = e.command.Wait()
		e.command = nil
	}
}

// freeze stops the process and waits until all its threads have stopped: until then it may still answer.
func (e *echoServer) freeze(t *testing.T) {
	t.Helper()
	require.NoError(t, e.command.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, wait.Until(t.Context(), "all threads to stop", wait.Options{}, func(context.Context) error {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", e.command.Process.Pid))
		for _, file := range states {
			// The state follows the name, which is in parentheses: proc_pid_stat(5).
			if stat, err := os.ReadFile(file); err == nil && !regexp.MustCompile(`\) T `).Match(stat) {
				return errors.New(string(stat))
			}
		}
		return err
	}))
}

// onlyLate wants no call to be left out for another reason than that this machine was late.
func onlyLate(t *testing.T, w Window) {
	t.Helper()
	for _, c := range w.Calls {
		if !c.Issued {
			assert.Contains(t, c.Err, wasLate)
		}
	}
}

// half returns half of how many calls are due within a time: the least that a stream records, on however busy a machine.
func half(of, every time.Duration) int { return int(of/every) / 2 }

func (e *echoServer) url() string { return "http://127.0.0.1:" + strconv.Itoa(e.http) + "/" }

// local is a source on loopback. Its pods are numbered by connection, so that a new one can be recognized.
type local struct {
	port  int
	dials atomic.Int32
	conn  atomic.Pointer[net.Conn]
}

func (l *local) String() string { return "client@test" }

func (l *local) Dial(ctx context.Context) (net.Conn, string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(l.port))
	if err == nil {
		l.conn.Store(&conn)
	}
	return conn, fmt.Sprintf("client-%d", l.dials.Add(1)), err
}

func TestOnceAndMany(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	from := &local{port: source.grpc}
	hostname, err := os.Hostname()
	require.NoError(t, err)

	call, err := Once(t.Context(), from, target.url(), Options{Fresh: true, Stream: "s", Headers: map[string]string{
		"X-Request-Id": "abc", "X-Envoy-Attempt-Count": "2",
		"X-Forwarded-Client-Cert": `By=spiffe://td/ns/b/sa/server;Hash=00;Subject="O=x,y;z";URI=spiffe://td/ns/a/sa/client`,
	}})
	require.NoError(t, err)
	assert.Positive(t, call.Latency())
	call.Start, call.End = time.Time{}, time.Time{}
	assert.Equal(t, Call{
		Stream: "s", Connection: Fresh, Source: "client-1", Issued: true, Code: 200, Cluster: "cluster-b", Pod: hostname,
		Protocol: "HTTP/1.1", RequestID: "abc", Attempts: 2,
		ClientID: "spiffe://td/ns/a/sa/client", ServerID: "spiffe://td/ns/b/sa/server",
		XFCC: `By=spiffe://td/ns/b/sa/server;Hash=00;Subject="O=x,y;z";URI=spiffe://td/ns/a/sa/client`,
	}, call)

	call, err = Once(t.Context(), from, target.url()+"?codes=503", Options{})
	require.NoError(t, err, "an HTTP error is a result")
	assert.True(t, call.Issued)
	assert.Equal(t, 503, call.Code)
	assert.Equal(t, Reused, call.Connection)
	assert.Empty(t, call.Cluster)
	assert.Contains(t, call.Err, "HTTP 503: ")

	call, err = Once(t.Context(), from, target.url()+"?delay=5s", Options{Timeout: 300 * time.Millisecond})
	require.NoError(t, err)
	assert.True(t, call.Issued)
	assert.Equal(t, "no answer within 300ms", call.Err)
	assert.GreaterOrEqual(t, call.Latency(), 300*time.Millisecond)

	calls, err := Many(t.Context(), from, target.url()+"?codes=200:1,500:1", 60, Options{})
	require.NoError(t, err)
	s := Judge(Window{Calls: calls})
	assert.Equal(t, 60, s.Codes[200]+s.Codes[500], "each call has its own result, though some failed")
	assert.Positive(t, s.Codes[200])
	assert.Positive(t, s.Codes[500])

	target.kill()
	call, err = Once(t.Context(), from, target.url(), Options{})
	require.NoError(t, err)
	assert.True(t, call.Issued)
	assert.Zero(t, call.Code)
	assert.Regexp(t, `^dial tcp 127\.0\.0\.1:\d+: connect: connection refused$`, call.Err)

	source.kill()
	call, err = Once(t.Context(), from, target.url(), Options{})
	require.ErrorContains(t, err, "connecting to client@test")
	assert.False(t, call.Issued)

	for _, url := range []string{"", "echo", "https://x/", "http://", "http://a b/", "%"} {
		_, err := Once(t.Context(), from, url, Options{})
		assert.Error(t, err, url)
	}
	_, err = Many(t.Context(), from, target.url(), 0, Options{})
	require.Error(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Once(ended, from, target.url(), Options{})
	require.ErrorContains(t, err, "context canceled")
}

// reached waits until the stream's last calls are as wanted.
func reached(t *testing.T, s *Stream, what string, ok func(Stats) bool) {
	t.Helper()
	require.NoError(t, wait.Measure())
	err := wait.Until(t.Context(), what, wait.Options{Within: 20 * time.Second}, func(context.Context) error {
		if now := s.Recording().Since(300 * time.Millisecond).Stats(); !ok(now) {
			return errors.New(now.String())
		}
		return nil
	})
	require.NoError(t, err)
}

func allAnswered(s Stats) bool { return s.OK >= 10 && s.Lost == 0 && s.NotIssued == 0 }
func noneAnswered(s Stats) bool {
	return s.Lost >= 10 && s.OK == 0
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func TestStreamSeesTheTargetDieAndReturn(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	every := 20 * time.Millisecond
	s, err := Start(t.Context(), Plan{
		Name: "a-to-b", From: &local{port: source.grpc}, URL: target.url(), ExpectCluster: "cluster-b", Every: every, Fresh: true,
	})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)

	broken := s.Mark("break")
	target.kill()
	killed := time.Now() // from here to repair nobody can answer
	reached(t, s, "a broken stream", noneAnswered)
	pause(t, 500*time.Millisecond)
	repair := s.Mark("recover")
	target.start(t)
	reached(t, s, "a healthy stream again", allAnswered)
	s.Mark("end")
	r, err := s.Stop()
	require.NoError(t, err)
	again, err := s.Stop()
	require.NoError(t, err)
	assert.Equal(t, r, again)

	all := r.All().Stats()
	t.Log(all)
	assert.GreaterOrEqual(t, all.LongestGap+all.SourceAway, repair.Sub(killed))
	onlyLate(t, r.All())
	assert.GreaterOrEqual(t, all.Lost+all.NotIssued, half(repair.Sub(killed), every), "calls of the gap are lost")
	assert.GreaterOrEqual(t, len(r.Calls), half(r.Ended.Sub(r.Began), every), "a call is due whether or not the last came back")
	require.NotEmpty(t, all.Errors)

	require.NoError(t, r.Reliable(broken, 10))
	took, ok := r.TimeToRecover(repair, 5)
	require.True(t, ok)
	assert.Positive(t, took)
	assert.LessOrEqual(t, took, r.Ended.Sub(repair))
	phase, err := r.Phase("break")
	require.NoError(t, err)
	assert.LessOrEqual(t, phase.Stats().OK, 2, "only what was on its way")
}

func TestLocalAnswersDoNotHideABrokenBorder(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	s, err := Start(t.Context(), Plan{
		Name: "a-to-b", From: &local{port: source.grpc}, URL: target.url(), ExpectCluster: "cluster-b", Every: 20 * time.Millisecond,
	})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	target.kill()
	target.cluster = "cluster-a"
	target.start(t)
	reached(t, s, "answers from the wrong cluster", func(s Stats) bool { return s.ByCluster["cluster-a"] >= 10 && s.OK == 0 })
	r, err := s.Stop()
	require.NoError(t, err)
	assert.Contains(t, fmt.Sprint(r.All().Stats().Errors), "answered by cluster-a instead of cluster-b")
}

func TestRestartedSourceIsNoLoss(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	from := &local{port: source.grpc}
	s, err := Start(t.Context(), Plan{Name: "a-to-b", From: from, URL: target.url(), ExpectCluster: "cluster-b", Every: 20 * time.Millisecond})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	source.kill()
	reached(t, s, "orders that nobody takes", func(s Stats) bool { return s.NotIssued >= 10 && s.Calls == 0 })
	pause(t, time.Second) // longer than a gap that a busy machine makes
	source.start(t)
	reached(t, s, "a healthy stream again", allAnswered)
	// A source that closes the connection of a pod that is about to end is asked for another one.
	require.NoError(t, (*from.conn.Load()).Close())
	pause(t, 200*time.Millisecond)
	reached(t, s, "a healthy stream on another connection", allAnswered)
	r, err := s.Stop()
	require.NoError(t, err)
	all := r.All().Stats()
	t.Log(all)
	assert.Zero(t, all.Lost)
	assert.Positive(t, all.SourceAway)
	assert.Less(t, all.LongestGap, all.SourceAway, "the time in which nobody called is no gap of the mesh")
	pods := map[string]bool{}
	for _, c := range r.Calls {
		if c.Issued {
			pods[c.Source] = true
		}
	}
	assert.GreaterOrEqual(t, len(pods), 3, "calls tell which pod made them: %v", pods)
}

// A target that does not answer must neither slow the stream down nor be missing in it.
func TestHangingTargetDoesNotSlowTheStream(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	every, timeout := 20*time.Millisecond, 400*time.Millisecond
	s, err := Start(t.Context(), Plan{Name: "hang", From: &local{port: source.grpc}, URL: target.url(), Every: every, Timeout: timeout})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	target.freeze(t)
	frozen := s.Mark("frozen")
	reached(t, s, "calls under way", func(s Stats) bool { return s.Pending >= 10 && s.OK == 0 })
	pause(t, time.Second)
	thawed := s.Mark("thawed")
	require.NoError(t, target.command.Process.Signal(syscall.SIGCONT))
	reached(t, s, "a healthy stream again", allAnswered)
	r, err := s.Stop()
	require.NoError(t, err)

	meanwhile := r.Between(frozen, thawed)
	stats := meanwhile.Stats()
	t.Log(stats)
	assert.GreaterOrEqual(t, len(meanwhile.Calls), half(thawed.Sub(frozen), every), "a closed loop would make one for each timeout")
	onlyLate(t, meanwhile)
	assert.Equal(t, []Count{{"no answer within 400ms", stats.Lost}}, stats.Errors)
	all := r.All().Stats()
	assert.GreaterOrEqual(t, all.LongestGap+all.SourceAway, thawed.Sub(frozen))
}

// With calls one by one, a target that hangs gets no second call. Calls left out are not lost, and the gap shows.
func TestOneByOne(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	s, err := Start(t.Context(), Plan{
		Name: "kept", From: &local{port: source.grpc}, URL: target.url(), Every: 20 * time.Millisecond, Timeout: 15 * time.Second, OneByOne: true,
	})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	target.freeze(t)
	frozen := s.Mark("frozen")
	pause(t, time.Second)
	require.Equal(t, 1, s.Recording().All().Stats().Pending)
	thawed := s.Mark("thawed")
	require.NoError(t, target.command.Process.Signal(syscall.SIGCONT))
	reached(t, s, "a healthy stream again", allAnswered)
	r, err := s.Stop()
	require.NoError(t, err)

	stats := r.All().Stats()
	t.Log(stats)
	assert.Zero(t, stats.Lost)
	onlyLate(t, r.All())
	meanwhile := r.Between(frozen, thawed)
	assert.LessOrEqual(t, len(meanwhile.Calls)-meanwhile.Stats().NotIssued, 2)
	assert.GreaterOrEqual(t, stats.LongestGap+stats.SourceAway, thawed.Sub(frozen))
}

// A call has all its time to connect, though the echo server gives up after 2 s.
func TestConnectingTakesItsTime(t *testing.T) {
	source := &local{port: newEchoServer(t, "cluster-a").grpc}
	full := listenFull(t)
	url := "http://" + full.Addr().String() + "/"

	begin := time.Now()
	call, err := Once(t.Context(), source, url, Options{Timeout: 2500 * time.Millisecond})
	require.NoError(t, err)
	require.True(t, call.Issued)
	require.Regexp(t, `^dial tcp 127\.0\.0\.1:\d+: i/o timeout$`, call.Err)
	require.GreaterOrEqual(t, time.Since(begin), 2500*time.Millisecond)

	begin = time.Now()
	time.AfterFunc(2500*time.Millisecond, func() {
		_ = http.Serve(full, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
	call, err = Once(t.Context(), source, url, Options{Timeout: 15 * time.Second})
	require.NoError(t, err)
	require.Equal(t, 200, call.Code, call.Err)
	require.Empty(t, call.Err)
	require.GreaterOrEqual(t, call.End.Sub(begin), 2500*time.Millisecond)
}

// listenFull returns a listener that neither takes nor refuses a connection until Accept is called: its queue is full.
func listenFull(t *testing.T) net.Listener {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	file := os.NewFile(uintptr(fd), "listener")
	listener, err := net.FileListener(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	t.Cleanup(func() { _ = listener.Close() })
	for {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return listener
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

// A source that hangs is the source's fault, and is noticed a second after the call's own bound.
func TestHangingSourceIsNotIssued(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	source.freeze(t)
	call, err := Once(t.Context(), &local{port: source.grpc}, target.url(), Options{Timeout: 100 * time.Millisecond})
	require.Error(t, err)
	assert.False(t, call.Issued)
	assert.GreaterOrEqual(t, call.Latency(), 100*time.Millisecond+orderMargin)
}

// A pod that vanished with its network does not close its connections: nothing ever comes back on them.
func TestSourceThatVanishedIsReplaced(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	var gone atomic.Bool
	var dials atomic.Int32
	from := FromDialer("client@test", func(ctx context.Context) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(source.grpc))
		if err != nil || dials.Add(1) > 1 {
			return conn, err
		}
		return &blackHole{Conn: conn, gone: &gone}, nil
	})
	const timeout = 3 * time.Second // a busy machine needs a second, and after five the idle echo server ends the connection
	s, err := Start(t.Context(), Plan{
		Name: "vanish", From: from, URL: target.url(), Every: 20 * time.Millisecond, Timeout: timeout,
	})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	gone.Store(true)
	reached(t, s, "calls that nobody makes", func(s Stats) bool { return s.Calls == 0 && s.Pending >= 10 })
	reached(t, s, "a healthy stream from another pod", allAnswered)
	r, err := s.Stop()
	require.NoError(t, err)
	all := r.All().Stats()
	t.Log(all)
	assert.Zero(t, all.Lost)
	// Calls start by a ticker, which may be early by parts of a millisecond.
	assert.Greater(t, all.SourceAway, timeout+orderMargin-20*time.Millisecond, "the call's own timeout and a second")
	assert.Equal(t, "127.0.0.1:"+strconv.Itoa(source.grpc), r.Calls[0].Source)
}

// blackHole is a connection on which nothing arrives any more once gone is set.
type blackHole struct {
	net.Conn
	gone *atomic.Bool
}

func (b *blackHole) Write(p []byte) (int, error) {
	if b.gone.Load() {
		return len(p), nil
	}
	return b.Conn.Write(p)
}

func TestStreamThatIsCutShort(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	ctx, cancel := context.WithCancelCause(t.Context())
	s, err := Start(ctx, Plan{Name: "cut", From: &local{port: source.grpc}, URL: target.url(), Every: 20 * time.Millisecond})
	require.NoError(t, err)
	reached(t, s, "a healthy stream", allAnswered)
	cancel(errors.New("interrupted"))
	r, err := s.Stop()
	require.ErrorContains(t, err, `recording traffic "cut": it ended early: interrupted`)
	assert.GreaterOrEqual(t, r.All().Stats().OK, 10)
	assert.Zero(t, r.All().Stats().Lost, "calls that were cut short are not lost")
}

func TestPlansAreChecked(t *testing.T) {
	good := Plan{Name: "x", From: &local{}, URL: "http://echo/", Every: 50 * time.Millisecond}
	for name, spoil := range map[string]func(*Plan){
		"no name":      func(p *Plan) { p.Name = "" },
		"no source":    func(p *Plan) { p.From = nil },
		"no URL":       func(p *Plan) { p.URL = "" },
		"no interval":  func(p *Plan) { p.Every = 0 },
		"negative":     func(p *Plan) { p.Timeout = -1 },
		"too often":    func(p *Plan) { p.Every = time.Millisecond },
		"much too big": func(p *Plan) { p.Timeout = time.Hour },
	} {
		p := good
		spoil(&p)
		_, err := Start(t.Context(), p)
		assert.Error(t, err, name)
	}
	_, err := Start(t.Context(), Plan{})
	for _, part := range []string{"no name", "no source", "want a URL", "must be positive"} {
		require.ErrorContains(t, err, part, "all at once")
	}
}

// leaving is a source whose first pod is about to end once that is set.
type leaving struct {
	local
	first atomic.Bool
}

func (l *leaving) Leaves(pod string) bool { return l.first.Load() && pod == "client-1" }

func TestPodThatIsAboutToEndGetsNoMoreCalls(t *testing.T) {
	source, target := newEchoServer(t, "cluster-a"), newEchoServer(t, "cluster-b")
	from := &leaving{local: local{port: source.grpc}}
	o := openOrders(from)
	defer o.close()
	options := Options{Timeout: time.Minute}
	long := make(chan Call, 1)
	go func() { long <- o.call(t.Context(), target.url()+"?delay=1s", options) }()
	require.NoError(t, wait.Until(t.Context(), "a call under way", wait.Options{}, func(context.Context) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.now == nil || o.now.pod == "" {
			return errors.New("not connected")
		}
		return nil
	}))
	first := o.now
	from.first.Store(true)
	next := o.call(t.Context(), target.url(), options)
	assert.Empty(t, next.Err)
	assert.Equal(t, "client-2", next.Source)
	under := <-long
	assert.Empty(t, under.Err, "a call that is under way goes on")
	assert.Equal(t, "client-1", under.Source)
	assert.Equal(t, connectivity.Shutdown, first.conn.GetState(), "its connection ends with its last call")
}
