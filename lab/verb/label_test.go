package verb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/scenario"
)

func TestLabels(t *testing.T) {
	for text, want := range map[string]string{
		"install-istiod: {in: cluster-a, istio: current, revision: 1-31}":  "install-istiod cluster-a 1-31",
		"install-istiod: {in: [cluster-a, cluster-b], istio: previous}":    "install-istiod cluster-a cluster-b previous",
		"set-tag: {in: cluster-a, tag: default, revision: 1-31}":           "set-tag cluster-a default 1-31",
		"uninstall-istiod: {in: cluster-b, revision: default}":             "uninstall-istiod cluster-b default",
		"restart-workloads: {in: cluster-a}":                               "restart-workloads cluster-a",
		"mesh-config: {in: cluster-a, set: {accessLogFile: /dev/stdout}}":  "mesh-config cluster-a",
		"set-env: {apps: [istiod@cluster-a, echo@cluster-b], env: {A: b}}": "set-env istiod@cluster-a echo@cluster-b",
		"restart: {apps: [client@cluster-a, echo@cluster-a, client@cluster-b, echo@cluster-b]}": "restart client@cluster-a " +
			"echo@cluster-a client@cluster-b ...",
	} {
		s, err := scenario.Parse("s.yaml", []byte(`
scenario: s
title: t
why: w
topology: {kind: multi-primary}
apps: [client@cluster-a, echo@cluster-a, client@cluster-b, echo@cluster-b]
operate: [{`+text+`}]
healthy: {within: 1s, expect: [{roots: {same: true}}]}
`), Table())
		require.NoError(t, err, text)
		step, err := Ground{}.Step(s.Operate[0])
		require.NoError(t, err, text)
		require.Equal(t, want, step.Label)
	}
}
