package engine

import (
	"io"
	"strings"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

// ExplainTopology writes the steps of making a lab with the topology, in an order in which a person could
// carry them out, with the commands that a person would type for the same. It touches nothing.
func ExplainTopology(w io.Writer, t scenario.Topology) error {
	wanted, steps, err := lab.Plan(t)
	if err != nil {
		return err
	}
	x := &explainer{w: w}
	if t.Name != "" {
		x.line("%s", strings.TrimSuffix(t.Name+": "+t.Title, ": "))
	}
	x.line("%s", lab.Describe(t))
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
