package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

func TestPatientStreamsStayBelowTheLimitOfCallsUnderWay(t *testing.T) {
	t.Cleanup(func() { wait.SetPatience(1) })
	for _, c := range []struct {
		patience       float64
		every, timeout time.Duration
	}{
		{1, 50 * time.Millisecond, DefaultTimeout},
		{2, 50 * time.Millisecond, 2 * DefaultTimeout},
		{10, 50 * time.Millisecond, 398*50*time.Millisecond - orderMargin},
		{10, 200 * time.Millisecond, 10 * DefaultTimeout},
		{10, 12 * time.Millisecond, 398*12*time.Millisecond - orderMargin},
		{10, 10100 * time.Microsecond, 398*10100*time.Microsecond - orderMargin},
	} {
		wait.SetPatience(c.patience)
		p := Plan{Name: "x", From: &local{}, URL: "http://echo/", Every: c.every}
		require.NoError(t, p.complete(), "%+v", c)
		require.Equal(t, c.timeout, p.Timeout, "%+v", c)
	}
}
