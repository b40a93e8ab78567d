package embedded

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// The components of a node. etcd, the API server and containerd are started together. The others are started when the
// API answers: a client that starts before the server backs off for longer than the server needs.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	containerd        = "containerd"
	kubeletName       = "kubelet"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	kubeProxy         = "kube-proxy"
)

// etcdURL is where etcd answers the API server of its node.
const etcdURL = "http://127.0.0.1:2379"

func componentNames() []string {
	return []string{containerd, etcd, apiServer, controllerManager, kubeProxy, scheduler, kubeletName}
}

// command returns how a component is started.
func (n node) command(name string) host.Command {
	pki := func(file string) string { return n.path("pki", file) }
	services := n.Addresses().Services(n.Index).String()
	args := map[string][]string{
		etcd: {
			"--data-dir=/var/lib/etcd", "--name=" + n.Name,
			"--unsafe-no-fsync", // the lab's data need not survive the machine
			"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=" + n.Name + "=http://127.0.0.1:2380", "--log-level=warn",
		},
		apiServer: {
			"--advertise-address=" + n.ip().String(), "--bind-address=" + n.ip().String(), "--secure-port=6443",
			"--etcd-servers=" + etcdURL, "--service-cluster-ip-range=" + services,
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-username-headers=X-Remote-User",
			"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
		},
		controllerManager: {
			"--kubeconfig=" + pki(controllerManager+".conf"), "--bind-address=127.0.0.1", "--leader-elect=false",
			"--cluster-cidr=" + n.Addresses().Pods(n.Index).String(), "--allocate-node-cidrs=true", "--node-cidr-mask-size=21",
			"--service-cluster-ip-range=" + services,
			"--service-account-private-key-file=" + pki("sa.key"), "--root-ca-file=" + pki("ca.crt"),
			// Without a certificate both of these would make two RSA keys at every start.
			"--tls-cert-file=" + pki("components.crt"), "--tls-private-key-file=" + pki("components.key"),
		},
		scheduler: {
			"--kubeconfig=" + pki(scheduler+".conf"), "--bind-address=127.0.0.1", "--leader-elect=false",
			"--tls-cert-file=" + pki("components.crt"), "--tls-private-key-file=" + pki("components.key"),
		},
		containerd: {"--config=/etc/containerd/config.toml", "--log-level=warn"},
		kubeletName: {
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=" + pki("kubelet.conf"),
			"--hostname-override=" + n.hostName(), "--node-ip=" + n.ip().String(),
		},
		kubeProxy: {"--config=/etc/kubernetes/kube-proxy.yaml", "--hostname-override=" + n.hostName()},
	}[name]
	// The bundle's folder must come first: containerd looks for its shim in PATH.
	env := []string{"PATH=" + n.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOGC=200"}
	return host.Command{Name: name, Path: n.Bin + "/" + name, Args: args, Env: env}
}

// files returns the configuration files of a node, by their paths inside it.
func (n node) files() (map[string]string, error) {
	kubeletYAML, err := n.kubeletConfig()
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"/etc/hostname":      n.hostName() + "\n",
		"/etc/hosts":         "127.0.0.1 localhost\n" + n.ip().String() + " " + n.hostName() + "\n",
		"/etc/resolv.conf":   "", // no name server outside: only CoreDNS answers pods
		"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
		// Without it nft lists protocols as numbers, and a kube-proxy that starts again takes its Services for others and deletes them.
		"/etc/protocols":                      "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n",
		"/etc/machine-id":                     strings.Repeat(fmt.Sprintf("%02x", n.Index), 16) + "\n",
		"/etc/containerd/config.toml":         n.containerdConfig(),
		"/etc/cni/net.d/10-eastwest.conflist": n.CNIConfig(),
		"/etc/kubernetes/kubelet.yaml":        kubeletYAML,
		"/etc/kubernetes/kube-proxy.yaml": fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: %s
bindAddress: %s
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: %s}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 50ms, syncPeriod: 30s}
oomScoreAdj: 0
`, n.Addresses().Pods(n.Index), n.ip(), n.path("pki", kubeProxy+".conf")),
	}, nil
}

func (n node) containerdConfig() string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = %t
  stats_collect_period = "10s"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %q
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%q]
    conf_dir = "/etc/cni/net.d"
`, n.Pause, n.Restrict, n.Bin+"/runc", n.CNI)
}

func (n node) kubeletConfig() (string, error) {
	no, zero, hundred := false, int32(0), int32(100)
	c := kubelet.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "kubelet.config.k8s.io/v1beta1", Kind: "KubeletConfiguration"},
		Address:  n.ip().String(),
		Authentication: kubelet.KubeletAuthentication{
			X509:      kubelet.KubeletX509Authentication{ClientCAFile: n.path("pki", "ca.crt")},
			Anonymous: kubelet.KubeletAnonymousAuthentication{Enabled: &no},
		},
		TLSCertFile:                 n.path("pki", "kubelet.crt"),
		TLSPrivateKeyFile:           n.path("pki", "kubelet.key"),
		ContainerRuntimeEndpoint:    "unix:///run/containerd/containerd.sock",
		CgroupDriver:                "cgroupfs",
		FailCgroupV1:                &no,
		EnforceNodeAllocatable:      []string{"none"},
		ClusterDNS:                  []string{n.Addresses().DNSService(n.Index).String()},
		ClusterDomain:               "cluster.local",
		SyncFrequency:               metav1.Duration{Duration: machine.VolumeRefresh},
		FailSwapOn:                  &no,
		OOMScoreAdj:                 &zero,
		SerializeImagePulls:         &no,
		ImageGCHighThresholdPercent: &hundred, // all labs share the images: never delete them
		EvictionHard: map[string]string{
			"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%",
			"memory.available": "50Mi",
		},
		// Otherwise one attempt to pull an image makes every later pod with that image ask the registry too.
		ImagePullCredentialsVerificationPolicy: kubelet.NeverVerify,
		VolumePluginDir:                        "/var/lib/kubelet/volume-plugins",
		PodLogsDir:                             "/var/log/pods",
	}
	data, err := yaml.Marshal(c)
	return string(data), err
}
