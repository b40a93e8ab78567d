package lab

import (
	"io"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// ExplainTopology writes the steps of making a lab with the topology, in an order in which a person could
// carry them out, with the commands that a person would type for the same. It touches nothing.
func ExplainTopology(w io.Writer, t scenario.Topology) error {
	wanted, err := meshTopology(t)
	if err != nil {
		return err
	}
	o := mesh.Options{Lab: DefaultName, Topology: wanted}
	if b, err := openBundle(false); err == nil { // what is installed depends a little on the Envoy that it holds
		o.Istio = mesh.FromBundle(b)
	}
	steps, err := mesh.Plan(o)
	if err != nil {
		return err
	}
	x := &explainer{w: w}
	if t.Name != "" {
		x.line("%s", strings.TrimSuffix(t.Name+": "+t.Title, ": "))
	}
	x.line("%s", describe(t))
	x.line("")
	for _, c := range wanted.Clusters {
		x.line("  %s on %s: %s", c.Name, c.Network, part(wanted, c))
	}
	x.line("")
	x.line("Steps that do not need each other run at once. Files are in the lab's folder.")
	x.line("")
	for _, c := range wanted.Clusters {
		x.number("%s: create the cluster", c.Name)
	}
	for _, s := range steps {
		x.number("%s%s", inFront(s.Cluster), s.Name)
		x.commands(s.Command)
	}
	return x.err
}

// part is what the cluster has of the mesh, in words.
func part(t mesh.Topology, c mesh.ClusterSpec) string {
	var words []string
	switch {
	case c.Primary == "":
		return "no mesh"
	case c.External():
		return "runs istiod for others, with its configuration in " + c.Config
	case c.HasIstiod():
		words = append(words, "its own istiod")
	default:
		words = append(words, "served by istiod of "+c.Primary)
	}
	if t.HasGateway(c) {
		words = append(words, "an east-west gateway")
	}
	return strings.Join(words, ", ")
}

func inFront(cluster string) string {
	if cluster == "" {
		return ""
	}
	return cluster + ": "
}

// commands are one to a line.
func (x *explainer) commands(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		x.line("      $ %s", strings.TrimSpace(line))
	}
}
