package catalogue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Measurement is how long a scenario took when it passed, and with which versions. The JSON names are stable.
type Measurement struct {
	Seconds    float64 `json:"seconds"` // median of the runs
	Istio      string  `json:"istio"`
	Envoy      string  `json:"envoy"`
	Kubernetes string  `json:"kubernetes"`
	Date       string  `json:"date"`
	// What the checks of phase symptoms saw, in their order, without what differs between runs: see Plain.
	Symptoms []string `json:"symptoms,omitempty"`
}

// volatile matches text that differs between two runs of the same thing: times, fingerprints, identifiers, names of pods,
// addresses, and numbers.
var volatile = regexp.MustCompile(strings.Join([]string{
	`\b\d{4}-\d\d-\d\dT[0-9:.]+Z`,
	`\b[0-9A-F]{2}(:[0-9A-F]{2})+\b`,
	`\b[0-9a-f]{8}-[0-9a-f-]{27}\b`,
	`-[0-9a-f]{8,10}-[a-z0-9]{5}\b`,
	`\b\d+\.\d+\.\d+\.\d+(:\d+)?\b`,
	`\b[0-9a-f]{12,}\b`,
	`\d+([.:]\d+)*(µs|ms|s|m|h)?\b`,
}, "|"))

// Plain is a text that a check saw, without what differs between two runs, so that texts of two runs can be compared.
func Plain(seen string) string { return volatile.ReplaceAllString(seen, "·") }

// Measurements are those of a catalogue, by scenario.
type Measurements map[string]Measurement

// ParseMeasurements reads what `eastwest bench scenarios --write` has written; file is its name for errors.
func ParseMeasurements(file string, data []byte) (Measurements, error) {
	m := Measurements{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("reading %s: %w: `eastwest bench scenarios --write` writes it anew", file, err)
	}
	for name, one := range m {
		if _, err := time.Parse(time.DateOnly, one.Date); err != nil || one.Seconds <= 0 {
			return nil, fmt.Errorf("%s: %s: wanted seconds and a date, seen %g and %q", file, name, one.Seconds, one.Date)
		}
	}
	return m, nil
}

// Times are the seconds, for running the longest scenarios first.
func (m Measurements) Times() map[string]time.Duration {
	times := map[string]time.Duration{}
	for name, one := range m {
		times[name] = time.Duration(one.Seconds * float64(time.Second))
	}
	return times
}
