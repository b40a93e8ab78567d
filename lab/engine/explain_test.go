package engine

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

func TestLookAroundNamesTheLab(t *testing.T) {
	s, err := scenario.Parse("x.yaml", []byte(`
scenario: certificates-lost
title: Lost
why: It is lost.
topology: {kind: multi-primary, network: separate, trust: shared-root}
apps: [client@cluster-a, echo@cluster-b]
break:
- delete-cacerts: {in: cluster-b}
symptoms:
  within: 30s
  expect:
  - call: {from: client@cluster-a, to: echo@cluster-b, fails: 'x'}
diagnose:
- doctor: {finds: disjoint-roots}
recover:
- restart-istiod: {in: cluster-b}
healthy:
  within: 30s
  expect:
  - call: {from: client@cluster-a, to: echo@cluster-b}
`), verb.Table())
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, LookAround(&out, s, "mine"))
	require.Contains(t, out.String(), "eastwest doctor --lab mine\n")
}
