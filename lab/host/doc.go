// Package host is what eastwest needs of this Linux machine: namespaces, a root folder made of mounts,
// cgroups, links between network namespaces, and supervised processes.
//
// It knows nothing of Kubernetes. It needs Linux, root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the tools
// that Check names. Everything it makes is either inside the namespaces of one supervisor process, and
// dies with it, or carries a name (cgroups, nftables tables) or an alias (links) that starts with "eastwest" and can be found
// again by that.
package host
