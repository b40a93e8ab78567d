package topologies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bench"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// latency measures few calls: what they took says nothing here, that they went where they should says all.
func latency(t *testing.T, l *lab.Lab) {
	t.Helper()
	const calls = 20
	// So few at a time that a busy machine, too, answers one before the next: then connections are shared.
	result, err := bench.MeasureLatency(t.Context(), l, bench.LatencyOptions{Rate: 15, Calls: calls})
	require.NoError(t, err)

	require.Len(t, result.Paths, 6)
	requests := calls + result.WarmUpCalls
	for i, p := range result.Paths {
		name := string(p.Connections) + " " + p.Path
		assert.Equal(t, []string{bench.PodNetworkPath, bench.SidecarsPath, bench.GatewayPath}[i%3], p.Path)
		assert.Equal(t, []int{0, 2, 3}[i%3], p.Proxies, name)
		assert.Equal(t, []int{1, 1, 2}[i%3], p.NetworkHops, name)
		assert.Equal(t, calls, p.Calls, name)
		assert.Zero(t, p.Errors, "%s: %s", name, p.Error)
		assert.Positive(t, p.Begun.P50Micros, name)
		assert.LessOrEqual(t, p.Begun.P50Micros, p.P50Micros, name)
		assert.LessOrEqual(t, p.P50Micros, p.P99Micros, name)
		switch {
		case p.Path == bench.PodNetworkPath:
			assert.Nil(t, p.Counted, name)
		case p.Connections == traffic.Fresh:
			nearly(t, requests, p.WarmUpErrors, p.Counted.Requests, name)
			assert.Equal(t, p.Counted.Requests, p.Counted.FromSidecar, "%s: a connection for each request", name)
			assert.Equal(t, p.Counted.Requests, p.Counted.Handshakes, name)
		default:
			nearly(t, 2*requests, 2*p.WarmUpErrors, p.Counted.Requests, name)
			// Where the machine is busy a call begins before another's answer is there, and needs a connection of its own.
			assert.Less(t, p.Counted.FromSidecar, requests*3/4, "%s: connections are shared", name)
		}
		if p.Path == bench.GatewayPath {
			require.NotNil(t, p.Counted.FromGateways)
			assert.Equal(t, p.Counted.FromSidecar, *p.Counted.FromGateways, "%s: the gateway passes each connection on", name)
		}
	}
	require.NotNil(t, result.Plain)
	assert.Equal(t, 2*requests, result.Plain.Orders)
	failed := 0
	for _, p := range result.Paths {
		if p.Path == bench.PodNetworkPath {
			failed += p.WarmUpErrors
		}
	}
	nearly(t, result.Plain.Orders, failed, result.Plain.Opened, "both calls of an order share its connection")

	from, err := l.Mesh.Member(result.From)
	require.NoError(t, err)
	_, err = from.Kube.CoreV1().Namespaces().Get(t.Context(), "eastwest-bench-latency", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the pods without sidecars are gone: %v", err)
}

// nearly wants as many as were sent. Of those that failed, on a busy machine, some may not have come so far.
func nearly(t *testing.T, sent, failed, counted int, name string) {
	t.Helper()
	assert.LessOrEqual(t, counted, sent, name)
	assert.GreaterOrEqual(t, counted, sent-failed, name)
}
