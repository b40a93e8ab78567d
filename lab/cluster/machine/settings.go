package machine

import (
	"flag"
	"fmt"
)

// Settings are those of every provider that makes nodes on this machine.
type Settings struct {
	Range  string `json:"range,omitempty"`  // the lab's /16; a free one is found when empty
	Egress bool   `json:"egress,omitempty"` // let nodes reach what this machine reaches
}

// Flags declares --range and --egress.
func (s *Settings) Flags(f *flag.FlagSet) {
	f.StringVar(&s.Range, "range", s.Range, "the lab's private /16, like 10.77.0.0/16 (default: one that is free)")
	f.BoolVar(&s.Egress, "egress", s.Egress, "let the lab reach what this machine reaches; it is sealed otherwise")
}

// Check returns an error if the range cannot be a lab's.
func (s Settings) Check() error {
	if s.Range == "" {
		return nil
	}
	if _, err := ParseRange(s.Range); err != nil {
		return fmt.Errorf("--range: %w", err)
	}
	return nil
}
