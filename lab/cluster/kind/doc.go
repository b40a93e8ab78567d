// Package kind makes clusters with kind (sigs.k8s.io/kind): Kubernetes nodes that are containers of Docker.
//
// All clusters of a lab are on one Docker network of its own, whose addresses follow the same plan as those of embedded
// labs. In each node runs this program once more, as a service of the node's systemd: it keeps the node's rules and
// routes, gives Services of type LoadBalancer their addresses and answers the control socket, for as long as the node
// lives. The node has no route out unless the lab is told to have one.
//
// Containers, networks and images carry the lab's labels, by which Delete finds them whatever became of the process that
// made them. A container gets its labels from its image: kind has no setting for them.
//
// A program that uses this package must call Supervise first thing in main, or in TestMain. It needs Linux and a Docker
// Engine on this machine; root is not needed where the user may talk to Docker. `go test -tags integration ./tests/kind`
// runs it.
package kind
