// Package embedded makes real Kubernetes clusters out of namespaces of this Linux machine, without Docker.
//
// One cluster is one supervisor process: this program, started again as PID 1 of new pid, mount,
// network, uts, ipc and cgroup namespaces, with a link into the lab's bridge. It runs etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet and kube-proxy from the
// bundle, starts again what crashes, and gives Services of type LoadBalancer their addresses. When it
// dies, by whatever signal, its processes, mounts and links die with it; what is left (the bridge, an
// nftables table and empty cgroup folders) carries the lab's name and is swept by Delete.
//
// A program that uses this package must call Supervise first thing in main, or in TestMain.
//
// It needs Linux, root and the tools that Check names. To try it: `eastwest up --topology none`.
package embedded
