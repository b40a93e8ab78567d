// Package embedded makes real Kubernetes clusters out of namespaces of this Linux machine, without Docker.
//
// A cluster is one supervisor process: this program, started again as PID 1 of new pid, mount, network, uts, ipc and
// cgroup namespaces, with a link to the lab's bridge. It runs etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, containerd, kubelet and kube-proxy from the bundle, restarts what crashes, and gives Services of type
// LoadBalancer their addresses. When it dies, for whatever reason, its processes, mounts and links die with it. What
// remains (the bridge, an nftables table and empty cgroup folders) has the lab's name and is removed by Delete.
//
// A program that uses this package must call Supervise at the start of main, or of TestMain.
//
// It needs Linux, root and the tools that Check looks for. To try it: `eastwest up --topology none`.
package embedded
