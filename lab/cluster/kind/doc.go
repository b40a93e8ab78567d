// Package kind makes clusters with kind (sigs.k8s.io/kind): Kubernetes nodes that are containers of Docker.
//
// Each lab has a Docker network of its own, whose addresses follow the same plan as those of embedded labs. A copy of this
// program runs in each node, as a service of the node's systemd. As long as the node runs, it keeps the node's rules and
// routes, gives Services of type LoadBalancer their addresses and answers on the control socket. The node has no route out
// of the lab unless its settings ask for one.
//
// Containers, networks and images carry the lab's labels. Delete finds them by these, even if the process that made them
// was killed. A container gets its labels from its image, because kind has no setting for them.
//
// A program that uses this package must call Supervise first in main, or in TestMain. The package needs Linux and a Docker
// Engine on this machine. It needs no root if the user may talk to Docker. `go test ./tests/kind` runs it.
package kind
