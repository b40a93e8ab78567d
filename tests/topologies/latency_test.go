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
			assert.Equal(t, requests, p.Counted.Requests, name)
			assert.Equal(t, requests, p.Counted.FromSidecar, "%s: a connection for each request", name)
			assert.Equal(t, requests, p.Counted.Handshakes, name)
		default:
			assert.Equal(t, 2*requests, p.Counted.Requests, name)
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
	assert.Equal(t, result.Plain.Orders, result.Plain.Opened, "both calls of an order share its connection")

	from, err := l.Mesh.Member(result.From)
	require.NoError(t, err)
	_, err = from.Kube.CoreV1().Namespaces().Get(t.Context(), "eastwest-bench-latency", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the pods without sidecars are gone: %v", err)
}
