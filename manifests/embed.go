// Package manifests holds the YAML that a mesh is installed from: IstioOperator files, the Gateway that
// exposes services to other networks, and the apps that lessons and scenarios call.
//
// The files are ordinary manifests with ${NAME} where a lab differs from another; lab/mesh fills the
// names in, writes the result to the lab's folder, and applies it. `envsubst` does the same by hand.
// The names: CLUSTER, NETWORK, MESH, HUB, TAG, TTL (of workload certificates), TARGET (the cluster that a
// Service selects), ID (what istiod calls the cluster), CONTROLPLANE (the id of the istiod that serves it)
// and DISCOVERY (the address that leads to that istiod).
package manifests

import "embed"

// FS holds istio/*.yaml, apps/*.yaml, and topologies/* with their schema.
//
//go:embed istio/*.yaml apps/*.yaml topologies/*
var FS embed.FS
