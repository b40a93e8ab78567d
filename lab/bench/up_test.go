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

func TestMedianOfPrograms(t *testing.T) {
	runs := []Up{
		{Programs: map[string]float64{"etcd": 3, "envoy": 1}},
		{Programs: map[string]float64{"etcd": 1}},
		{Programs: map[string]float64{"etcd": 2}},
	}
	assert.Equal(t, map[string]float64{"etcd": 2, "envoy": 0}, Median(runs).Programs)
}

func TestWhatNoRunningProgramHasUsedIsOfThoseThatEnded(t *testing.T) {
	assert.Equal(t, 1.5, ended(Up{CPUSeconds: 5, Programs: map[string]float64{"etcd": 3, "envoy": 0.5}}))
	assert.Equal(t, 0.0, ended(Up{CPUSeconds: 3, Programs: map[string]float64{"etcd": 3.01}}), "the clocks differ by a tick")
}
