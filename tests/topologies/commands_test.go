package topologies

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// printed are the topologies whose printed commands are typed, and how many there are at least.
var printed = map[scenario.Kind]int{scenario.MultiPrimary: 20, scenario.ExternalControlPlane: 25}

// printedCommands types every command that `eastwest explain` and `up --verbose` print for a step: on top of what the
// step has done it changes nothing.
func printedCommands(t *testing.T, l *lab.Lab, atLeast int) {
	t.Helper()
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	b, err := bundle.Open(dir)
	require.NoError(t, err)
	steps, err := mesh.Plan(mesh.Options{Lab: l.Name, Dir: l.Dir(), Topology: l.Mesh.Topology, Istio: mesh.FromBundle(b)})
	require.NoError(t, err)
	before := state(t, l)
	ran := 0
	for _, step := range steps {
		if step.Command == "" {
			continue
		}
		out, err := shell(t, l, step.Command)
		if step.Name == "create cacerts" { // kubectl create refuses what is there already
			require.ErrorContains(t, err, "exit status 1")
			require.Contains(t, out, `secrets "cacerts" already exists`)
			continue
		}
		require.NoError(t, err, "%s in %s:\n$ %s\n%s", step.Name, step.Cluster, step.Command, out)
		ran++
	}
	require.GreaterOrEqual(t, ran, atLeast)
	require.Equal(t, before, state(t, l))
}

// shell runs a line as a person would who has evaluated `eastwest env`.
func shell(t *testing.T, l *lab.Lab, line string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail\n"+line)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Env().Kubeconfig, "PATH="+l.Env().BinDir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kubeconfig stands in a Secret as base64; two of one cluster may differ in how their YAML is written.
var kubeconfig = regexp.MustCompile(`"[^"]+":"YXBpVmVyc2lvbj[^"]+"`)

// state is what the installation of the clusters hangs on, with Secrets as digests only: it may be printed.
func state(t *testing.T, l *lab.Lab) string {
	t.Helper()
	var all strings.Builder
	for _, c := range l.Mesh.Members {
		for _, get := range []string{
			`deployments -n istio-system -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.generation}{"\n"}{end}'`,
			`deployments -n istio-ingress -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.generation}{"\n"}{end}'`,
			`endpointslices -n istio-system -l kubernetes.io/service-name=istiod -o jsonpath='{range .items[*]}{.ports} {.endpoints[*].addresses}{"\n"}{end}'`,
			`gateways.networking.istio.io,virtualservices.networking.istio.io,destinationrules.networking.istio.io -A -o jsonpath='{range .items[*]}{.metadata.name} {.spec}{"\n"}{end}'`,
		} {
			out, err := shell(t, l, "kubectl --context="+c.Name()+" get "+get)
			require.NoError(t, err, out)
			all.WriteString(out)
		}
		out, err := shell(
			t,
			l,
			"kubectl --context="+c.Name()+` get secrets -n istio-system -o jsonpath='{range .items[*]}{.metadata.name} {.data}{"\n"}{end}'`,
		)
		require.NoError(t, err)
		for _, line := range strings.Split(kubeconfig.ReplaceAllString(out, "a kubeconfig"), "\n") {
			name, data, _ := strings.Cut(line, " ")
			fmt.Fprintf(&all, "%s %x\n", name, sha256.Sum256([]byte(data)))
		}
	}
	return all.String()
}
