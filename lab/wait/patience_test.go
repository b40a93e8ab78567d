package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func impatient(t *testing.T) { t.Cleanup(func() { SetPatience(1); measured = time.Time{} }) }

func TestPatienceStretchesEveryBound(t *testing.T) {
	impatient(t)
	synctest.Test(t, func(t *testing.T) {
		SetPatience(2.5)
		start := time.Now()
		err := Until(t.Context(), "nothing", Options{Within: 10 * time.Second}, func(context.Context) error { return errors.New("not yet") })
		require.ErrorIs(t, err, ErrTimeout)
		assert.Equal(t, 25*time.Second, time.Since(start))

		ctx, cancel := TimeoutCause(t.Context(), 4*time.Second, "not done")
		defer cancel()
		<-ctx.Done()
		assert.Equal(t, 35*time.Second, time.Since(start))
		require.EqualError(t, context.Cause(ctx), "not done within 4s × 2.5")
	})
	assert.Equal(t, "1m30s × 2.5", Text(90*time.Second))
	assert.Equal(t, 45*time.Second, Lifetime(18*time.Second))
	assert.Equal(t, 10*time.Minute, Lifetime(10*time.Minute))
	SetPatience(0.2)
	assert.InDelta(t, 1, Patience(), 0, "nobody is given less time than is written")
	assert.Equal(t, "1m30s", Text(90*time.Second))
}

func TestMeasure(t *testing.T) {
	impatient(t)
	require.NoError(t, Measure())
	first := Patience()
	assert.GreaterOrEqual(t, first, 1.0)
	assert.LessOrEqual(t, first, float64(MostPatience))
	SetPatience(3)
	require.NoError(t, Measure())
	assert.InDelta(t, 3, Patience(), 0, "it was measured a moment ago")

	t.Setenv(PatienceEnv, "7.5")
	require.NoError(t, Measure())
	assert.InDelta(t, 7.5, Patience(), 0)
	for _, text := range []string{"0", "0.9", "101", "-3", "fast", "NaN", "+Inf"} {
		t.Setenv(PatienceEnv, text)
		require.EqualError(t, Measure(), PatienceEnv+"="+text+": wanted a number from 1 to 100, such as 2.5")
	}
}

// A machine that has twice as much to do is given more time: the work is done beside it.
func TestMeasureSeesABusyMachine(t *testing.T) {
	quiet, busy := time.Hour, time.Hour
	for range 20 { // the shortest of many: other programs run, too
		quiet = min(quiet, onAllCPUs(work))
		busy = min(busy, onAllCPUs(func() { work(); work(); work() }))
	}
	assert.Greater(t, busy, quiet*3/2)
}
