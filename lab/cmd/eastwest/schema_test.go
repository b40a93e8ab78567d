package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestSchemaIsCurrent holds scenarios/schema.json, which editors read, to the table of verbs.
func TestSchemaIsCurrent(t *testing.T) {
	const file = "../../../scenarios/schema.json"
	var now bytes.Buffer
	require.Equal(t, exitHeld, run(t.Context(), []string{"schema"}, &now, os.Stderr))
	if *update {
		require.NoError(t, os.WriteFile(file, now.Bytes(), 0o644))
	}
	published, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(published), now.String(), "make generate writes it anew")
}
