package strict

import (
	"fmt"
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

// List is a list that a file may also write as its one item, without brackets.
type List[T any] []T
