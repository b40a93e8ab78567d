// Package scenarios is the catalogue: a folder per scenario, with its file and what lies beside it. Nothing here is code
// but this embedding, so that the command finds the catalogue wherever it runs, and the test that runs all of it:
// `go test ./scenarios/...` (Linux, root, and the bundle).
package scenarios

import "embed"

//go:generate go test ../lab/cmd/eastwest -run IsCurrent -update
//go:generate go test . -run IsCurrent -args -update

// Files holds the scenario folders.
//
//go:embed */*
var Files embed.FS

// Measured is how long each scenario took where it was measured last: lab.ParseMeasurements reads it.
//
//go:embed measured.json
var Measured []byte
