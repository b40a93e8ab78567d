package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestSchemaIsCurrent holds the schemas that editors read to the table of verbs and to the types.
func TestSchemaIsCurrent(t *testing.T) {
	for file, args := range map[string][]string{
		"../../../scenarios/schema.json":            {"schema"},
		"../../../manifests/topologies/schema.json": {"schema", "--topology"},
	} {
		var now bytes.Buffer
		require.Equal(t, exitHeld, run(t.Context(), args, &now, os.Stderr))
		if *update {
			require.NoError(t, os.WriteFile(file, now.Bytes(), 0o644))
		}
		published, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(published), now.String(), "%s: make generate writes it anew", file)
	}
}
