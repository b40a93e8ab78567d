// Package host does what eastwest needs from this Linux machine: namespaces, a root folder made of mounts,
// cgroups, links between network namespaces, and supervised processes.
//
// It does not depend on Kubernetes. It needs Linux, root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the tools
// that Check looks for. What it makes lives either inside the namespaces of one supervisor process, and ends
// with that process, or has a name (cgroups, nftables tables) or an alias (links) that starts with
// "eastwest", so that it can be found and removed.
package host
