package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"istio.io/istio/pkg/test/echo/proto"

	"github.com/eastwest-lab/eastwest/lab/traffic"
)

func testRoutes() []latencyRoute {
	var routes []latencyRoute
	for _, connections := range []traffic.Connection{traffic.Reused, traffic.Fresh} {
		for _, path := range latencyPaths {
			r := latencyRoute{PathLatency: path, cluster: "cluster-b"}
			r.Connections = connections
			routes = append(routes, r)
		}
	}
	return routes
}

func TestLatencyScheduleTakesTurns(t *testing.T) {
	const interval = 20 * time.Millisecond
	routes := testRoutes()
	schedule := latencySchedule(routes, 10, 2, interval)
	require.Len(t, schedule, 12*len(routes))
	orders := map[[6]int]bool{}
	for round := range 12 {
		var order [6]int
		seen := map[int]bool{}
		for i, o := range schedule[round*6 : round*6+6] {
			order[i], seen[o.route] = o.route, true
			assert.Equal(t, round >= 2, o.counted)
			assert.Equal(t, time.Duration(round*6+i+1)*interval, o.due)
			assert.GreaterOrEqual(t, o.send, time.Duration(0))
			if routes[o.route].Connections == traffic.Fresh {
				assert.Equal(t, o.due, o.send)
			} else {
				assert.Equal(t, o.due-2*pause(interval), o.send, "the call before it is made by the same order")
			}
		}
		assert.Len(t, seen, 6, "each path once in a round")
		orders[order] = true
	}
	assert.Greater(t, len(orders), 6, "rounds differ")
	assert.Equal(t, schedule, latencySchedule(routes, 10, 2, interval), "runs do not")
}

func TestLatencyCalls(t *testing.T) {
	assert.Equal(t, 83, LatencyCalls(50, 10*time.Second), "six kinds of calls share the rate")
	assert.Equal(t, 1, LatencyCalls(50, time.Millisecond))
}

func TestSlowCallsDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		schedule := []latencyOrder{{send: time.Second}, {send: 2 * time.Second}, {send: 3 * time.Second}}
		start := time.Now()
		samples := sendOnSchedule(t.Context(), schedule, nil, func(_ context.Context, o latencyOrder, began time.Time) latencySample {
			s := latencySample{late: time.Since(began.Add(o.send))}
			<-time.After(time.Minute)
			return s
		})
		assert.Equal(t, make([]latencySample, 3), samples, "each was sent when it was due")
		assert.Equal(t, time.Minute+3*time.Second, time.Since(start))
	})
}

func TestCancelledScheduleWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		sendOnSchedule(ctx, []latencyOrder{{}, {send: time.Hour}}, nil, func(context.Context, latencyOrder, time.Time) latencySample {
			<-time.After(time.Second)
			cancel()
			<-time.After(time.Second)
			ended++
			return latencySample{}
		})
		assert.Equal(t, 1, ended)
	})
}

// orderTaker answers orders after a while.
type orderTaker struct {
	proto.EchoTestServiceClient
	takes  time.Duration
	output []string
	err    error
	order  *proto.ForwardEchoRequest
}

func (o *orderTaker) ForwardEcho(
	_ context.Context,
	in *proto.ForwardEchoRequest,
	_ ...grpc.CallOption,
) (*proto.ForwardEchoResponse, error) {
	o.order = in
	<-time.After(o.takes)
	return &proto.ForwardEchoResponse{Output: o.output}, o.err
}

const (
	opened   = "[0] Url=http://10.0.0.1/\n[0] Latency=9ms\n[0] StatusCode=200\n[0 body] Cluster=cluster-b\n"
	answered = "[1] Url=http://10.0.0.1/\n[1] SourceIP=10.0.0.2\n[1] Latency=1.234567ms\n[1] StatusCode=200\n[1] " +
		"ResponseHeader=Content-Type:text\n[1 body] Cluster=cluster-b\n[1 body] Proto=HTTP/1.1\n"
	identity = "[1 body] RequestHeader=X-Forwarded-Client-Cert:By=spiffe://a;URI=spiffe://b\n"
)

func TestOrderedLateCountsFromWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		route := testRoutes()[1]
		route.host, route.url = "echo.example", "http://10.0.0.1/"
		order := latencyOrder{send: 10 * time.Millisecond, due: 20 * time.Millisecond}
		client := &orderTaker{takes: 15 * time.Millisecond, output: []string{opened, answered + identity}}
		<-time.After(40 * time.Millisecond)
		s := route.call(t.Context(), client, order, began, 5*time.Millisecond)
		require.NoError(t, s.err)
		assert.Equal(t, 30*time.Millisecond, s.late)
		assert.Equal(t, 30*time.Millisecond+1234567*time.Nanosecond, s.took)
		assert.Equal(t, 15*time.Millisecond-10*time.Millisecond-1234567*time.Nanosecond, s.unseen)
		assert.True(t, client.order.Http2)
		assert.EqualValues(t, 2, client.order.Count, "the first opens the connection")
		assert.EqualValues(t, 200, client.order.Qps)
		assert.Equal(t, "echo.example", client.order.Headers[0].Value)

		route.Connections = traffic.Fresh
		client = &orderTaker{output: []string{answered + identity}}
		require.NoError(t, route.call(t.Context(), client, order, began, time.Second).err)
		assert.EqualValues(t, 1, client.order.Count)
		assert.Zero(t, client.order.Qps)

		client = &orderTaker{err: errors.New("1/1 requests had errors")}
		require.ErrorContains(t, route.call(t.Context(), client, order, began, time.Second).err, "1/1 requests had errors")
		client = &orderTaker{}
		require.ErrorContains(t, route.call(t.Context(), client, order, began, time.Second).err, "with 0 results")
	})
}

func TestReadLatency(t *testing.T) {
	plain, proxied := testRoutes()[0], testRoutes()[2]
	for _, test := range []struct {
		name, output string
		route        latencyRoute
		took         time.Duration
		err          string
	}{
		{"plain", answered, plain, 1234567 * time.Nanosecond, ""},
		{"through proxies", answered + identity, proxied, 1234567 * time.Nanosecond, ""},
		{"plain where proxies should be", answered, proxied, 0, "mutual TLS: false, wanted true"},
		{"proxies where none should be", answered + identity, plain, 0, "mutual TLS: true, wanted false"},
		{"from elsewhere", "[0] Latency=1ms\n[0] StatusCode=200\n[0 body] Cluster=cluster-a\n", plain, 0,
			`wanted an answer from cluster-b, got one from "cluster-a"`},
		{"refused", "[0] Latency=1ms\n[0] StatusCode=503\n[0 body] upstream connect error\n", plain, 0, "HTTP 503"},
		{"nothing", "", plain, 0, "without a status"},
		{"no time", "[0] StatusCode=200\n[0 body] Cluster=cluster-b\n", plain, 0, "reading what the call took"},
		{"a body that tells a time", "[0] StatusCode=200\n[0 body] Cluster=cluster-b\n[0 body] Latency=1ms\n", plain, 0,
			"reading what the call took"},
	} {
		t.Run(test.name, func(t *testing.T) {
			took, err := test.route.read(test.output)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.took, took)
		})
	}
}

func TestSumOfLatency(t *testing.T) {
	routes := testRoutes()
	schedule := latencySchedule(routes, 100, 1, 20*time.Millisecond)
	samples := make([]latencySample, len(schedule))
	turn := make([]int, len(routes))
	for i, o := range schedule {
		turn[o.route]++
		// From 1 to 100 ms without proxies, twice that with them, three times through a gateway.
		took := time.Duration(turn[o.route]-1) * time.Millisecond * time.Duration(o.route%3+1)
		samples[i] = latencySample{took: took + 5*time.Microsecond, late: 5 * time.Microsecond, unseen: 7 * time.Microsecond}
		if !o.counted {
			samples[i] = latencySample{took: time.Hour, err: errors.New("not counted")}
		}
		if o.route == 5 && turn[o.route] > 98 {
			samples[i] = latencySample{err: errors.New("lost")}
		}
	}
	var l Latency
	l.sum(routes, schedule, samples)
	require.Len(t, l.Paths, 6)
	assert.InEpsilon(t, 50_005, l.Paths[0].P50Micros, 0.001)
	assert.InEpsilon(t, 90_005, l.Paths[0].P90Micros, 0.001)
	assert.InEpsilon(t, 99_005, l.Paths[0].P99Micros, 0.001)
	assert.InEpsilon(t, 100_005, l.Paths[0].MaxMicros, 0.001)
	assert.InEpsilon(t, 50_000, l.Paths[0].Begun.P50Micros, 0.001)
	assert.Equal(t, QuantileRatios{1, 1, 1}, *l.Paths[3].Ratio)
	assert.InEpsilon(t, 3, l.Paths[2].BegunRatio.P50, 0.002)
	assert.InEpsilon(t, 2, l.Paths[4].Ratio.P99, 0.002)
	assert.Equal(t, 100, l.Paths[5].Calls)
	assert.Equal(t, 3, l.Paths[5].Errors)
	assert.Equal(t, "lost", l.Paths[5].Error)
	assert.InEpsilon(t, 5, l.Late.P99Micros, 0.001)
	assert.InEpsilon(t, 7, l.Unseen.P50Micros, 0.001)
	worst, percent := l.MostErrors()
	assert.Equal(t, GatewayPath, worst.Path)
	assert.InDelta(t, 3, percent, 1e-9)
}

func TestSumWithoutAnswersComparesNothing(t *testing.T) {
	routes := testRoutes()
	schedule := latencySchedule(routes, 1, 0, time.Second)
	samples := make([]latencySample, len(schedule))
	for i := range samples {
		samples[i].err = errors.New("lost")
	}
	var l Latency
	l.sum(routes, schedule, samples)
	for _, p := range l.Paths {
		assert.Nil(t, p.Ratio)
		assert.Zero(t, p.P50Micros)
	}
	_, percent := l.MostErrors()
	assert.InDelta(t, 100, percent, 1e-9)
}

func TestPathsGetLonger(t *testing.T) {
	for i, p := range latencyPaths[1:] {
		assert.Greater(t, p.Proxies, latencyPaths[i].Proxies)
		assert.GreaterOrEqual(t, p.NetworkHops, latencyPaths[i].NetworkHops)
	}
}

func TestCountStat(t *testing.T) {
	const page = `cluster.outbound|80||echo-cluster-b.production.svc.cluster.local;.upstream_cx_total: 2
cluster.outbound|80||echo-cluster-b-fresh.production.svc.cluster.local;.upstream_cx_total: 40
cluster.outbound|80||echo-cluster-b-fresh.production.svc.cluster.local;.upstream_rq_total: 41
cluster.outbound|80||echo-cluster-b-fresh.production.svc.cluster.local;.upstream_cx_total: 3
`
	const prefix = "cluster.outbound|80||echo-cluster-b"
	assert.Equal(t, 2, countStat(page, prefix+".production.svc.cluster.local", "upstream_cx_total"))
	assert.Equal(t, 43, countStat(page, prefix+"-fresh.production.svc.cluster.local", "upstream_cx_total"), "pages of two proxies")
	assert.Zero(t, countStat(page, prefix+".production.svc.cluster.local", "ssl.handshake"))
}

func TestConnectionsSince(t *testing.T) {
	two, five := 2, 5
	now := &ProxyConnections{Requests: 9, FromSidecar: 8, Handshakes: 7, Resumed: 6, FromGateways: &five}
	before := &ProxyConnections{Requests: 1, FromSidecar: 1, Handshakes: 1, Resumed: 1, FromGateways: &two}
	three := 3
	assert.Equal(t, &ProxyConnections{Requests: 8, FromSidecar: 7, Handshakes: 6, Resumed: 5, FromGateways: &three}, now.since(before))
	assert.Nil(t, (*ProxyConnections)(nil).since(nil))
}

func TestReadActiveOpens(t *testing.T) {
	n, ok := readActiveOpens(
		"Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens\nTcp: 1 200 120000 -1 79 195\n",
	)
	assert.True(t, ok)
	assert.Equal(t, 79, n)
	_, ok = readActiveOpens("Tcp: RtoAlgorithm\n")
	assert.False(t, ok)
	_, ok = connectionsOpened("no-pod-has-this-uid")
	assert.False(t, ok)
}
