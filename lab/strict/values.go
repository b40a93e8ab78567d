package strict

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Duration is a Go duration of more than zero, written with its unit ("50ms", "1m30s").
type Duration time.Duration

// String returns the shortest text that a file may have for it: "1m", not "1m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Percent is a number from 0 to 100.
type Percent float64

func (p Percent) String() string { return fmt.Sprintf("%g %%", float64(p)) }

// Pattern is a regular expression in Go's syntax, compiled. It is nil if the file leaves it out.
type Pattern struct{ *regexp.Regexp }
