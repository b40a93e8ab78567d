package kind

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// provider is the name of the folder of a lab's kind nodes.
const provider = "kind"

// inside is where a node sees its folder.
const inside = "/eastwest"

// node is everything that the part of eastwest inside the node must know, and that another process needs to find the node.
type node struct {
	machine.Place
	Dir     string     `json:"dir"` // the node's folder on this machine
	ID      string     `json:"id"`  // of the lab
	Image   string     `json:"image"`
	Egress  bool       `json:"egress"`
	Address netip.Addr `json:"address"` // assigned by Docker; the zero Addr inside the node
}

// nameMax is kind's limit (pkg/cluster/internal/create): kind appends to the name, and a host name has at most 64 bytes.
const nameMax = 50

// kindName returns kind's name for the cluster. All users of this Docker share these names.
func kindName(lab, cluster string) string {
	name := lab + "-" + cluster
	if len(name) <= nameMax {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:nameMax-9] + "-" + hex.EncodeToString(sum[:])[:8]
}

func networkName(lab string) string { return "eastwest-" + lab }

// imageName returns the name of the node image with the lab's labels. No registry has it.
func (n node) imageName() string { return "eastwest.local/kind/" + n.Lab + ":" + n.Name }

func (n node) kindName() string { return kindName(n.Lab, n.Name) }

// container returns the name of the node in Docker, which is also its name in Kubernetes.
func (n node) container() string       { return n.kindName() + "-control-plane" }
func (n node) path(p ...string) string { return filepath.Join(append([]string{n.Dir}, p...)...) }

// Dir returns the folder of a node's files.
func Dir(home, lab, name string) string { return filepath.Join(machine.Dir(home, lab, provider), name) }

// Files of a node's folder.
const (
	nodeFile   = "node.json"
	finished   = "finished" // it is there once the node is made
	program    = "eastwest-node"
	kubeconfig = "kubeconfig"
	patches    = "patches"
)

// fair returns a patch for kubeadm that lowers the CPU request of a component of the control plane. With kubeadm's own
// requests, a busy API server would take the CPU from everything that requests less: on a small machine, calls between
// apps of a lab would stand still for seconds.
func fair(component string) string {
	return fmt.Sprintf("spec: {containers: [{name: %s, resources: {requests: {cpu: 10m}}}]}\n", component)
}

// CNIFile is the path inside a node of the file that tells containerd how to give pods addresses.
const CNIFile = "/etc/cni/net.d/10-eastwest.conflist"

// mounts returns the files that a node gets from its folder, by their path inside the node.
func (n node) mounts() map[string]string {
	return map[string]string{
		CNIFile: n.CNIConfig(),
		"/etc/systemd/system/eastwest.service": fmt.Sprintf(`[Unit]
Description=eastwest: rules, routes and addresses of this node
StartLimitIntervalSec=0
[Service]
Type=notify
Environment=%s=%s
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=%s
Restart=always
RestartSec=200ms
`, agentEnv, inside+"/"+nodeFile, inside+"/"+program),
		// A file in multi-user.target.wants would not do: systemd accepts only links there.
		"/etc/systemd/system/containerd.service.d/20-eastwest.conf": "[Unit]\nWants=eastwest.service\nAfter=eastwest.service\n",
	}
}

// write fills the node's folder and returns the mounts of its files.
func (n node) write() ([]v1alpha4.Mount, error) {
	// Other users must not open the control socket: it can break the node.
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := machine.WriteJSON(n.path(nodeFile), n); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	if err := share(self, n.path(program)); err != nil {
		return nil, fmt.Errorf("giving the node this program: %w", err)
	}
	if err := os.MkdirAll(n.path(patches), 0o755); err != nil {
		return nil, err
	}
	for _, component := range controlPlane {
		if err := os.WriteFile(n.path(patches, component+"+strategic.yaml"), []byte(fair(component)), 0o644); err != nil {
			return nil, err
		}
	}
	mounts := []v1alpha4.Mount{{HostPath: n.Dir, ContainerPath: inside}}
	for to, text := range n.mounts() {
		file := n.path(filepath.Base(to))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
		mounts = append(mounts, v1alpha4.Mount{HostPath: file, ContainerPath: to, Readonly: true})
	}
	return mounts, nil
}

// share makes a hard link to a file, or a copy if that is impossible.
func share(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// ConfigType is the type of kind's configuration.
var ConfigType = v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"}

// config returns kind's configuration of the cluster. Older versions of Kubernetes ignore patches that they do not know.
func (n node) config(mounts []v1alpha4.Mount) *v1alpha4.Cluster {
	a := n.Addresses()
	return &v1alpha4.Cluster{
		TypeMeta: ConfigType,
		Name:     n.kindName(),
		Nodes:    []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole, Image: n.imageName(), ExtraMounts: mounts}},
		Networking: v1alpha4.Networking{
			PodSubnet: a.Pods(n.Index).String(), ServiceSubnet: a.Services(n.Index).String(),
			// CNIFile is there before the kubelet starts. kindnet would replace the addresses of pods by the node's in
			// packets to other clusters of the network.
			DisableDefaultCNI: true,
			KubeProxyMode:     v1alpha4.NFTablesProxyMode,
		},
		KubeadmConfigPatches: []string{
			fmt.Sprintf(`kind: KubeletConfiguration
failCgroupV1: false # kubelets since 1.35 refuse hosts with cgroup v1 otherwise
syncFrequency: %s
serializeImagePulls: false
imagePullCredentialsVerificationPolicy: NeverVerify # one try to pull would make every later pod ask the registry too
`, machine.VolumeRefresh),
			"kind: InitConfiguration\npatches: {directory: " + inside + "/" + patches + "}\n",
			`kind: KubeProxyConfiguration
nftables: {minSyncPeriod: 50ms, syncPeriod: 30s}
`,
			// A lab's data need not survive a crash of the machine. The two versions of kubeadm's API write arguments differently.
			`kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta4
etcd: {local: {extraArgs: [{name: unsafe-no-fsync, value: "true"}]}}
`,
			`kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta3
etcd: {local: {extraArgs: {unsafe-no-fsync: "true"}}}
`,
		},
	}
}
