package bundle

import (
	"strings"
)

// SetupError is a failure of the machine rather than of eastwest or of a scenario: something is missing, full or
// unreachable. Commands end with exit code 3 on it. Its text tells what was seen and what to try.
type SetupError struct {
	Component string   // of the bundle, if it concerns one
	What      string   // what is wrong, in words
	Missing   []string // each missing thing, where there can be several
	Try       string   // what to do about it
	Err       error    // the cause, if there is one
}

func (e *SetupError) Error() string {
	var s strings.Builder
	if e.Component != "" {
		s.WriteString("building " + e.Component + ": ")
	}
	s.WriteString(e.What)
	for _, m := range e.Missing {
		s.WriteString("\n  - " + m)
	}
	if e.Err != nil {
		s.WriteString(": " + strings.TrimSpace(e.Err.Error()))
	}
	if e.Try != "" {
		s.WriteString("\ntry: " + e.Try)
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }
