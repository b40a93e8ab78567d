package scenario

import "github.com/eastwest-lab/eastwest/lab/strict"

// What package strict has, under the names of this package.
type (
	Place    = strict.Place
	Problem  = strict.Problem
	Problems = strict.Problems
	Duration = strict.Duration
)

// At is strict.At.
func At(field string, err error) error { return strict.At(field, err) }
