package cluster

// Usable is the milestone that a provider reports when a cluster is ready: its API answers, its node is Ready, and its DNS
// resolves names.
const Usable = "usable"
