package bench

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMedianIsOfEachFigure(t *testing.T) {
	runs := []Up{
		{ReadySeconds: 9, PeakMiB: 100},
		{ReadySeconds: 1, PeakMiB: 300},
		{ReadySeconds: 2, PeakMiB: 200, Steps: []Step{{Step: "usable"}}},
	}
	assert.Equal(t, Up{ReadySeconds: 2, PeakMiB: 200}, Median(runs))
	assert.Equal(t, 1.5, Median(runs[1:]).ReadySeconds, "of two it is their mean")
	assert.Equal(t, Up{}, Median(nil))
}
