package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	neturl "net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"istio.io/istio/pkg/test/echo/proto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// LatencyOptions of MeasureLatency.
type LatencyOptions struct {
	Rate     int                // measured calls per second, of all paths together; 1 to MostLatencyRate
	Calls    int                // measured calls on each path over each kind of connection
	Progress func(done, of int) // hears now and then how many calls were started; may be nil
}

// MostLatencyRate is the highest rate: above it, the calls of one turn run into those of the next.
const MostLatencyRate = 200

// LatencyCalls is how many calls each path gets, over each kind of connection, in that time; at least one.
func LatencyCalls(rate int, length time.Duration) int {
	return max(1, int(length.Seconds()*float64(rate))/(2*len(latencyPaths)))
}

// Latency is what calls took on paths of different length, measured side by side. The JSON names are stable.
type Latency struct {
	From          string  `json:"from"` // the cluster of the clients
	To            string  `json:"to"`   // the cluster behind the gateway
	RatePerSecond int     `json:"rate_per_second"`
	Calls         int     `json:"calls"`         // counted, for each of Paths
	WarmUpCalls   int     `json:"warm_up_calls"` // not counted, before them
	Seconds       float64 `json:"seconds"`
	// of the last minute, when the last call had ended; above the number of CPUs, calls waited for one
	LoadAverage float64       `json:"load_average"`
	Paths       []PathLatency `json:"paths"`
	// Late is by how much calls were ordered late. It is in the figures.
	Late Quantiles `json:"ordered_late"`
	// Unseen is what an order took besides its call: its ways to and from the pod. Calls may have begun late by so much
	// and no more without it being in the figures.
	Unseen Quantiles `json:"order_overhead"`
	// Plain counts what the kernel of the client without a sidecar saw; nil where clusters are not on this machine.
	Plain *PlainConnections `json:"plain_connections,omitempty"`
}

// PathLatency is what the calls over one path and one kind of connection took.
type PathLatency struct {
	Path        string             `json:"path"`         // "pod network", "sidecars" or "gateway"
	Connections traffic.Connection `json:"connections"`  // see the comment on latencyOrder
	Proxies     int                `json:"proxies"`      // that a call passes
	NetworkHops int                `json:"network_hops"` // connections in a row between pods; those inside of a pod are not counted
	TLSEnds     string             `json:"tls_ends"`
	Calls       int                `json:"calls"`
	Errors      int                `json:"errors"`
	Error       string             `json:"error,omitempty"` // the first
	// WarmUpErrors is how many of the calls before them failed, as on a machine that is too busy to connect in time.
	WarmUpErrors int             `json:"warm_up_errors,omitempty"`
	Quantiles                    // from when calls were due
	MaxMicros    float64         `json:"max_micros"`
	Ratio        *QuantileRatios `json:"ratio,omitempty"` // to the pod network, over the same kind of connection
	// Begun is the same from when calls were ordered: how long the path is, where the others say how long a user waits.
	Begun      Quantiles         `json:"once_begun"`
	BegunRatio *QuantileRatios   `json:"once_begun_ratio,omitempty"`
	Counted    *ProxyConnections `json:"proxy_connections,omitempty"`
}

// Quantiles are times in microseconds.
type Quantiles struct {
	P50Micros float64 `json:"p50_micros"`
	P90Micros float64 `json:"p90_micros"`
	P99Micros float64 `json:"p99_micros"`
}

// QuantileRatios are quantiles as multiples of those of the shortest path.
type QuantileRatios struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

// ProxyConnections is what proxies counted while the calls of a path were made, those not counted included.
type ProxyConnections struct {
	Requests     int  `json:"requests"`
	FromSidecar  int  `json:"from_sidecar"`           // connections that the caller's sidecar made
	Handshakes   int  `json:"tls_handshakes"`         // of those
	Resumed      int  `json:"tls_resumed"`            // handshakes that resumed the TLS session of an earlier connection
	FromGateways *int `json:"from_gateway,omitempty"` // connections that the gateway made
}

// PlainConnections says how many connections the client without a sidecar opened for its orders: one for each.
type PlainConnections struct {
	Orders int `json:"orders"`
	Opened int `json:"opened"`
}

// The paths, from the shortest to the longest.
const (
	PodNetworkPath = "pod network"
	SidecarsPath   = "sidecars"
	GatewayPath    = "gateway"
)

var latencyPaths = []PathLatency{
	{Path: PodNetworkPath, Proxies: 0, NetworkHops: 1, TLSEnds: "nowhere"},
	{Path: SidecarsPath, Proxies: 2, NetworkHops: 1, TLSEnds: "at the sidecars"},
	{Path: GatewayPath, Proxies: 3, NetworkHops: 2, TLSEnds: "at the sidecars; the gateway passes it through"},
}

const (
	// latencyWarmUp is how many calls each path gets before calls are counted.
	latencyWarmUp = 20
	// latencyTimeout, times wait.Patience, bounds a call. One that takes longer is an error and in no quantile.
	latencyTimeout = 3 * time.Second
	// latencyNamespace is where the pods without sidecars live while they are needed.
	latencyNamespace = "eastwest-bench-latency"
	plainClient      = "bench-latency-client"
	plainEcho        = "bench-latency-echo"
)

// latencyRoute is how the calls of one row of the result are made.
type latencyRoute struct {
	PathLatency
	client  string // the app that calls
	cluster string // who has to answer
	url     string
	host    string // of the request; empty is the URL's
}

// latencyOrder is one order and when it is due.
//
// The echo app of Istio keeps no connection from one order to the next, so reuse has to happen within an order: it says
// to make two calls over HTTP/2, which shares one connection. The first opens it and is not counted, the second is the
// measured one. An order of one such call has a fresh connection. The sidecars behind the app keep or renew theirs by
// the name that is called.
type latencyOrder struct {
	route   int
	send    time.Duration // since the start
	due     time.Duration // when the measured call has to begin
	counted bool
}

// latencySchedule lets all routes take turns, in a new order in each round, so that none has always the same neighbor.
func latencySchedule(routes []latencyRoute, rounds, warmUp int, interval time.Duration) []latencyOrder {
	dice := rand.New(rand.NewPCG(5, 5)) // the same in each run
	var all []latencyOrder
	for round := range warmUp + rounds {
		for _, i := range dice.Perm(len(routes)) {
			o := latencyOrder{route: i, due: time.Duration(len(all)+1) * interval, counted: round >= warmUp}
			o.send = o.due
			if routes[i].Connections == traffic.Reused {
				o.send -= 2 * pause(interval)
			}
			all = append(all, o)
		}
	}
	return all
}

// pause is how long the app waits before each call of an order of two: what belongs to a measured call is over before
// the next is due.
func pause(interval time.Duration) time.Duration { return interval / 4 }

// latencySample is what came of an order.
type latencySample struct {
	took   time.Duration // from when the call was due to the head of its answer
	late   time.Duration // how late it was ordered; part of took
	unseen time.Duration // what the order took besides
	err    error
}

// MeasureLatency calls the echo app over the pod network, through sidecars and through the gateway of another cluster,
// and tells what that took. Calls are made on schedule whatever becomes of earlier ones, and one that is ordered late
// counts from when it was due. It makes pods without sidecars for the time, in a namespace of their own. It needs two
// clusters on separate networks that trust each other. Calls that fail are counted, not an error.
func MeasureLatency(ctx context.Context, l *lab.Lab, o LatencyOptions) (_ Latency, err error) {
	if o.Rate < 1 || o.Rate > MostLatencyRate || o.Calls < 1 {
		return Latency{}, fmt.Errorf(
			"measuring latency with %d calls at %d per second: wanted at least one call and 1 to %d per second",
			o.Calls,
			o.Rate,
			MostLatencyRate,
		)
	}
	from, to, err := acrossGateway(l)
	if err != nil {
		return Latency{}, err
	}
	unlock, err := l.Hold(ctx)
	if err != nil {
		return Latency{}, err
	}
	defer unlock()
	if err := l.Works(ctx); err != nil {
		return Latency{}, &lab.SetupError{Err: fmt.Errorf("measuring latency on lab %s: %w: make it anew with `eastwest up`", l.Name, err)}
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if left := removePlainPods(clean, from); left != nil {
			err = errors.Join(err, &lab.SetupError{Err: left})
		}
	}()
	result, err := benchLatency(ctx, l, from, to, o)
	switch {
	case ctx.Err() != nil:
		return Latency{}, &lab.SetupError{Err: fmt.Errorf("measuring latency on lab %s: %w", l.Name, context.Cause(ctx))}
	case err != nil:
		return Latency{}, &lab.SetupError{Err: fmt.Errorf("measuring latency on lab %s: %w", l.Name, err)}
	}
	return result, nil
}

// MeasureLatencyAnew is MeasureLatency on a lab that is made for it and removed. A lab of that name must not be there.
func MeasureLatencyAnew(ctx context.Context, o lab.Options, l LatencyOptions) (result Latency, err error) {
	_, err = do(ctx, o, func(ctx context.Context, made *lab.Lab, _ *making) (err error) {
		result, err = MeasureLatency(ctx, made, l)
		return err
	})
	return result, err
}

// acrossGateway returns the first two clusters between which calls go through a gateway and are answered.
func acrossGateway(l *lab.Lab) (from, to *mesh.Member, err error) {
	if l.Mesh != nil {
		for _, from := range l.Mesh.InMesh() {
			for _, to := range l.Mesh.InMesh() {
				if from.Spec.Network != to.Spec.Network && l.Mesh.Trusts(from.Spec, to.Spec) {
					return from, to, nil
				}
			}
		}
	}
	return nil, nil, fmt.Errorf(
		"measuring latency on lab %s: wanted two clusters on separate networks that trust each other, it has %s: name another lab, or "+
			"none and one is made",
		l.Name,
		lab.Describe(l.Topology),
	)
}

func benchLatency(ctx context.Context, l *lab.Lab, from, to *mesh.Member, o LatencyOptions) (Latency, error) {
	if err := makePlainPods(ctx, from, l.Image("app")); err != nil {
		return Latency{}, err
	}
	routes, err := latencyRoutes(ctx, from, to)
	if err != nil {
		return Latency{}, err
	}
	clients := map[string]proto.EchoTestServiceClient{}
	for _, app := range []string{plainClient, "client"} {
		conn, err := grpc.NewClient("passthrough:///"+app,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return from.DialPod(ctx, app, mesh.OrderPort) }))
		if err != nil {
			return Latency{}, fmt.Errorf("connecting to %s in %s: %w", app, from.Name(), err)
		}
		defer conn.Close() //nolint:errcheck // nothing is lost with it
		clients[app] = proto.NewEchoTestServiceClient(conn)
	}
	before, err := countConnections(ctx, from, to, routes)
	if err != nil {
		return Latency{}, err
	}
	interval := time.Second / time.Duration(o.Rate)
	schedule := latencySchedule(routes, o.Calls, latencyWarmUp, interval)
	start := time.Now()
	samples := sendOnSchedule(ctx, schedule, o.Progress, func(ctx context.Context, order latencyOrder, began time.Time) latencySample {
		route := routes[order.route]
		return route.call(ctx, clients[route.client], order, began, pause(interval))
	})
	if ctx.Err() != nil {
		return Latency{}, context.Cause(ctx)
	}
	result := Latency{
		From: from.Name(), To: to.Name(), RatePerSecond: o.Rate, Calls: o.Calls, WarmUpCalls: latencyWarmUp,
		Seconds: time.Since(start).Seconds(), LoadAverage: loadAverage(),
	}
	after, err := countConnections(ctx, from, to, routes)
	if err != nil {
		return Latency{}, err
	}
	result.sum(routes, schedule, samples)
	for i := range result.Paths {
		result.Paths[i].Counted = after.proxies[i].since(before.proxies[i])
	}
	if before.plain != nil && after.plain != nil {
		result.Plain = &PlainConnections{Opened: *after.plain - *before.plain}
		for _, order := range schedule {
			if routes[order.route].client == plainClient {
				result.Plain.Orders++
			}
		}
	}
	return result, nil
}

// latencyRoutes returns all paths over reused connections, then all over fresh ones. They call addresses, so that no
// name has to be resolved; proxies go by the Host header.
func latencyRoutes(ctx context.Context, from, to *mesh.Member) ([]latencyRoute, error) {
	pods, err := from.ReadyPods(ctx, plainEcho)
	if err != nil {
		return nil, err
	}
	var routes []latencyRoute
	for _, connections := range []traffic.Connection{traffic.Reused, traffic.Fresh} {
		for _, path := range latencyPaths {
			r := latencyRoute{PathLatency: path, client: "client", cluster: from.Name()}
			r.Connections = connections
			switch path.Path {
			case PodNetworkPath:
				r.client, r.url = plainClient, "http://"+net.JoinHostPort(pods[0].Status.PodIP, "8080")+"/"
				routes = append(routes, r)
				continue
			case GatewayPath:
				r.cluster = to.Name()
			}
			named, err := neturl.Parse(mesh.URL("echo", r.cluster, connections == traffic.Fresh))
			if err != nil {
				return nil, err
			}
			r.host = named.Host
			name, _, _ := strings.Cut(r.host, ".")
			service, err := from.Kube.CoreV1().Services(mesh.AppNamespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, fmt.Errorf("finding the address of %s in %s: %w", name, from.Name(), err)
			}
			r.url = "http://" + service.Spec.ClusterIP + "/"
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// sendOnSchedule sends orders when they have to be sent, each in a goroutine of its own, and waits for what becomes of them.
func sendOnSchedule(
	ctx context.Context,
	schedule []latencyOrder,
	progress func(done, of int),
	carryOut func(context.Context, latencyOrder, time.Time) latencySample,
) []latencySample {
	samples := make([]latencySample, len(schedule))
	var under sync.WaitGroup
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, order := range schedule {
		if progress != nil && i%max(1, len(schedule)/10) == 0 {
			progress(i, len(schedule))
		}
		timer.Reset(time.Until(began.Add(order.send)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			under.Wait()
			return samples
		}
		under.Go(func() { samples[i] = carryOut(ctx, order, began) })
	}
	under.Wait()
	return samples
}

// call carries out an order.
func (r *latencyRoute) call(
	ctx context.Context,
	client proto.EchoTestServiceClient,
	order latencyOrder,
	began time.Time,
	pause time.Duration,
) latencySample {
	timeout := wait.Bound(latencyTimeout)
	request := &proto.ForwardEchoRequest{Url: r.url, Http2: true, Count: 1, TimeoutMicros: timeout.Microseconds()}
	if r.Connections == traffic.Reused {
		request.Count, request.Qps = 2, int32(time.Second/pause)
	}
	if r.host != "" {
		request.Headers = []*proto.Header{{Key: "Host", Value: r.host}}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+time.Second)
	defer cancel()
	sent := time.Now()
	s := latencySample{late: max(0, sent.Sub(began.Add(order.send)))}
	response, err := client.ForwardEcho(ctx, request)
	whole := time.Since(sent)
	if err != nil {
		s.err = errors.New(strings.TrimSpace(grpcstatus.Convert(err).Message()))
		return s
	}
	if n := len(response.Output); n != int(request.Count) {
		s.err = fmt.Errorf("the client answered an order of %d calls with %d results", request.Count, n)
		return s
	}
	took, err := r.read(response.Output[request.Count-1])
	s.took, s.err = took+s.late, err
	s.unseen = max(0, whole-took-(order.due-order.send))
	return s
}

// read returns what a call took by the app's own clock, from before it connects until the head of the answer is there:
// the line "[1] Latency=1.234567ms". It is an error if the call did not take the path that it should.
func (r *latencyRoute) read(output string) (time.Duration, error) {
	fields, body := map[string]string{}, map[string]string{}
	for line := range strings.Lines(output) {
		tag, text, _ := strings.Cut(strings.TrimSpace(line), "] ")
		name, value, _ := strings.Cut(text, "=")
		if !strings.HasSuffix(tag, " body") {
			fields[name] = value
			continue
		}
		if name == "RequestHeader" {
			name, value, _ = strings.Cut(value, ":")
		}
		body[name] = value
	}
	_, proxied := body["X-Forwarded-Client-Cert"]
	switch {
	case fields["StatusCode"] != "200":
		return 0, fmt.Errorf("HTTP %s", cmp.Or(fields["StatusCode"], "without a status"))
	case body["Cluster"] != r.cluster:
		return 0, fmt.Errorf("wanted an answer from %s, got one from %q", r.cluster, body["Cluster"])
	case proxied != (r.Proxies > 0):
		return 0, fmt.Errorf("the answer tells of mutual TLS: %t, wanted %t", proxied, r.Proxies > 0)
	}
	took, err := time.ParseDuration(fields["Latency"])
	if err != nil {
		return 0, fmt.Errorf("reading what the call took: %w", err)
	}
	return took, nil
}

// histogram is of times up to the longest that a call can take, to three digits.
func histogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (2 * time.Minute).Nanoseconds(), 3)
}

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	of := func(percent float64) float64 { return micros(h.ValueAtQuantile(percent)) }
	return Quantiles{P50Micros: of(50), P90Micros: of(90), P99Micros: of(99)}
}

func micros(nanoseconds int64) float64 { return float64(nanoseconds) / 1e3 }

// sum fills in the figures.
func (l *Latency) sum(routes []latencyRoute, schedule []latencyOrder, samples []latencySample) {
	took, begun := make([]*hdrhistogram.Histogram, len(routes)), make([]*hdrhistogram.Histogram, len(routes))
	l.Paths = make([]PathLatency, len(routes))
	for i, r := range routes {
		took[i], begun[i], l.Paths[i] = histogram(), histogram(), r.PathLatency
	}
	late, unseen := histogram(), histogram()
	record := func(h *hdrhistogram.Histogram, d time.Duration) {
		_ = h.RecordValue(min(d.Nanoseconds(), h.HighestTrackableValue())) // nothing else can be wrong with it
	}
	for i, s := range samples {
		order := schedule[i]
		path := &l.Paths[order.route]
		if !order.counted {
			if s.err != nil {
				path.WarmUpErrors++
			}
			continue
		}
		path.Calls++
		record(late, s.late)
		if s.err != nil {
			path.Errors++
			path.Error = cmp.Or(path.Error, s.err.Error())
			continue
		}
		record(took[order.route], s.took)
		record(begun[order.route], s.took-s.late)
		record(unseen, s.unseen)
	}
	l.Late, l.Unseen = quantiles(late), quantiles(unseen)
	for i := range l.Paths {
		path := &l.Paths[i]
		path.Quantiles, path.Begun, path.MaxMicros = quantiles(took[i]), quantiles(begun[i]), micros(took[i].Max())
		base := slices.IndexFunc(l.Paths, func(p PathLatency) bool { return p.Path == PodNetworkPath && p.Connections == path.Connections })
		path.Ratio, path.BegunRatio = path.over(l.Paths[base].Quantiles), path.Begun.over(l.Paths[base].Begun)
	}
}

// over is nil where no call was answered, so that there is nothing to compare.
func (q Quantiles) over(base Quantiles) *QuantileRatios {
	if q.P50Micros == 0 || base.P50Micros == 0 {
		return nil
	}
	return &QuantileRatios{P50: q.P50Micros / base.P50Micros, P90: q.P90Micros / base.P90Micros, P99: q.P99Micros / base.P99Micros}
}

// MostErrors returns the path with the largest share of failed calls, and that share in percent.
func (l *Latency) MostErrors() (of PathLatency, percent float64) {
	for _, p := range l.Paths {
		if share := 100 * float64(p.Errors) / float64(max(1, p.Calls)); share > percent {
			of, percent = p, share
		}
	}
	return of, percent
}

// connectionCounts are counters at one moment.
type connectionCounts struct {
	proxies []*ProxyConnections // of each route; nil where no proxy is on it
	plain   *int
}

func (c *ProxyConnections) since(before *ProxyConnections) *ProxyConnections {
	if c == nil || before == nil {
		return nil
	}
	d := &ProxyConnections{
		Requests: c.Requests - before.Requests, FromSidecar: c.FromSidecar - before.FromSidecar,
		Handshakes: c.Handshakes - before.Handshakes, Resumed: c.Resumed - before.Resumed,
	}
	if c.FromGateways != nil && before.FromGateways != nil {
		n := *c.FromGateways - *before.FromGateways
		d.FromGateways = &n
	}
	return d
}

func countConnections(ctx context.Context, from, to *mesh.Member, routes []latencyRoute) (connectionCounts, error) {
	counts := connectionCounts{proxies: make([]*ProxyConnections, len(routes))}
	sidecar, err := statsPages(ctx, from, "client")
	if err != nil {
		return counts, err
	}
	gateway, err := statsPages(ctx, to, mesh.Gateway)
	if err != nil {
		return counts, err
	}
	for i, r := range routes {
		if r.Proxies == 0 {
			continue
		}
		of := func(stat string) int { return countStat(sidecar, "cluster.outbound|80||"+r.host, stat) }
		counts.proxies[i] = &ProxyConnections{
			Requests: of("upstream_rq_total"), FromSidecar: of("upstream_cx_total"),
			Handshakes: of("ssl.handshake"), Resumed: of("ssl.session_reused"),
		}
		if r.Path == GatewayPath {
			n := countStat(gateway, "cluster.outbound_.80_._."+r.host, "upstream_cx_total")
			counts.proxies[i].FromGateways = &n
		}
	}
	pods, err := from.ReadyPods(ctx, plainClient)
	if err != nil {
		return counts, err
	}
	if n, ok := connectionsOpened(string(pods[0].UID)); ok {
		counts.plain = &n
	}
	return counts, nil
}

// statsPages returns the statistics of all proxies of an app, one after another.
func statsPages(ctx context.Context, m *mesh.Member, app string) (string, error) {
	pods, err := m.ReadyPods(ctx, app)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, pod := range pods {
		page, err := m.Admin(ctx, pod, "/stats?filter=echo-")
		if err != nil {
			return "", err
		}
		all.Write(page)
	}
	return all.String(), nil
}

// countStat sums a counter of Envoy's clusters whose names begin with the prefix.
func countStat(page, prefix, stat string) int {
	sum := 0
	for line := range strings.Lines(page) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil && strings.HasPrefix(name, prefix) && strings.HasSuffix(name, "."+stat) {
			sum += n
		}
	}
	return sum
}

// connectionsOpened is how many TCP connections a pod has ever opened, by the kernel's count of its network namespace.
// It is known for pods whose processes are on this machine.
func connectionsOpened(uid string) (int, bool) {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is well formed
	for _, file := range groups {
		group, err := os.ReadFile(file)
		if err != nil || !strings.Contains(strings.ReplaceAll(string(group), "_", "-"), uid) { // systemd writes UIDs with underscores
			continue
		}
		if snmp, err := os.ReadFile(filepath.Join(filepath.Dir(file), "net", "snmp")); err == nil {
			return readActiveOpens(string(snmp))
		}
	}
	return 0, false
}

// readActiveOpens finds the counter in /proc/PID/net/snmp: a line of names, then one of values.
func readActiveOpens(snmp string) (int, bool) {
	var names []string
	for line := range strings.Lines(snmp) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] != "Tcp:":
		case names == nil:
			names = words
		default:
			if i := slices.Index(names, "ActiveOpens"); i >= 0 && i < len(words) {
				n, err := strconv.Atoi(words[i])
				return n, err == nil
			}
		}
	}
	return 0, false
}

// loadAverage is how many threads ran or waited for a CPU of this machine, over the last minute.
func loadAverage() float64 {
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info) // fails for a bad address only
	return float64(info.Loads[0]) / (1 << unix.SI_LOAD_SHIFT)
}

// makePlainPods makes a client and an echo app of the image without sidecars and waits until they are ready.
func makePlainPods(ctx context.Context, m *mesh.Member, image string) error {
	if err := removePlainPods(ctx, m); err != nil { // what a crash has left
		return err
	}
	labels := map[string]string{cluster.ManagedByLabel: cluster.ManagedBy, "istio-injection": "disabled"}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: latencyNamespace, Labels: labels}}
	if _, err := m.Kube.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: mesh.FieldManager}); err != nil {
		return fmt.Errorf("making namespace %s in %s: %w", latencyNamespace, m.Name(), err)
	}
	for _, pod := range []*corev1.Pod{plainPod(plainClient, m.Name(), image, mesh.OrderPort), plainPod(plainEcho, m.Name(), image, 8080)} {
		// The namespace's ServiceAccount comes a moment later.
		err := wait.Until(
			ctx,
			"making pod "+pod.Name,
			wait.Options{Within: 20 * time.Second, Every: 50 * time.Millisecond},
			func(ctx context.Context) error {
				_, err := m.Kube.CoreV1().Pods(latencyNamespace).Create(ctx, pod, metav1.CreateOptions{FieldManager: mesh.FieldManager})
				if apierrors.IsAlreadyExists(err) { // an earlier try was carried out
					return nil
				}
				return err
			},
		)
		if err != nil {
			return err
		}
	}
	for _, app := range []string{plainClient, plainEcho} {
		if err := m.AwaitReady(ctx, app); err != nil {
			return err
		}
	}
	return nil
}

// plainPod is the same container as in manifests/apps/workloads.yaml. Only its start is probed: a probe is a connection.
func plainPod(app, in, image string, port int32) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: app, Namespace: latencyNamespace,
			Labels: map[string]string{
				"app":                     app,
				cluster.ManagedByLabel:    cluster.ManagedBy,
				mesh.ClusterLabel:         in,
				"sidecar.istio.io/inject": "false",
			},
			Annotations: map[string]string{"sidecar.istio.io/inject": "false"},
		},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Args: []string{"--cluster=" + in, "--version=v1", "--port=8080", "--grpc=17070", "--tcp=9090"},
				StartupProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}},
					PeriodSeconds: 1, FailureThreshold: 60,
				},
			}},
		},
	}
}

// removePlainPods removes the namespace and waits until it is gone.
func removePlainPods(ctx context.Context, m *mesh.Member) error {
	namespaces := m.Kube.CoreV1().Namespaces()
	return wait.Until(
		ctx,
		fmt.Sprintf("removing namespace %s in %s", latencyNamespace, m.Name()),
		wait.Options{Within: time.Minute, Every: 200 * time.Millisecond},
		func(ctx context.Context) error {
			err := namespaces.Delete(ctx, latencyNamespace, metav1.DeleteOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil && !apierrors.IsConflict(err): // conflict: it is being removed
				return err
			}
			return errors.New("it is still there")
		},
	)
}
