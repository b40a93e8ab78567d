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

// provider names the folder of a lab's kind nodes.
const provider = "kind"

// inside is where a node sees its folder.
const inside = "/eastwest"

// node is everything that the part inside must know, and that another process needs to find the node again.
type node struct {
	machine.Place
	Dir     string     `json:"dir"` // the node's folder on this machine
	ID      string     `json:"id"`  // of the lab
	Image   string     `json:"image"`
	Egress  bool       `json:"egress"`
	Address netip.Addr `json:"address"` // that Docker has given it; the zero Addr inside the node
}

// nameMax is kind's own bound (pkg/cluster/internal/create): a host name has room for 64, and kind adds to it.
const nameMax = 50

// kindName is what kind calls the cluster: it is all users' of this Docker.
func kindName(lab, cluster string) string {
	name := lab + "-" + cluster
	if len(name) <= nameMax {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:nameMax-9] + "-" + hex.EncodeToString(sum[:])[:8]
}

func networkName(lab string) string { return "eastwest-" + lab }

// imageName is the node image with the lab's labels. Nobody can pull it.
func (n node) imageName() string { return "eastwest.local/kind/" + n.Lab + ":" + n.Name }

func (n node) kindName() string { return kindName(n.Lab, n.Name) }

// container is also the name of the node in Kubernetes.
func (n node) container() string       { return n.kindName() + "-control-plane" }
func (n node) path(p ...string) string { return filepath.Join(append([]string{n.Dir}, p...)...) }
func nodeDir(home, lab, name string) string {
	return filepath.Join(machine.Dir(home, lab, provider), name)
}

// Files of a node's folder.
const (
	nodeFile   = "node.json"
	program    = "eastwest-node"
	kubeconfig = "kubeconfig"
	patches    = "patches"
)

// fair is a patch of kubeadm's for a part of the control plane. kubeadm has a busy API server run before everything that
// asks for less of the CPU than it, and apps of a lab ask for little: on a small machine their calls would stand still for seconds.
func fair(component string) string {
	return fmt.Sprintf("spec: {containers: [{name: %s, resources: {requests: {cpu: 10m}}}]}\n", component)
}

// cniFile is where containerd in a node looks for the network of pods.
const cniFile = "/etc/cni/net.d/10-eastwest.conflist"

// mounts are the files that a node gets from its folder, by their path inside.
func (n node) mounts() map[string]string {
	return map[string]string{
		cniFile: n.CNIConfig(),
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
		// Not a file in multi-user.target.wants: systemd takes links there only.
		"/etc/systemd/system/containerd.service.d/20-eastwest.conf": "[Unit]\nWants=eastwest.service\nAfter=eastwest.service\n",
	}
}

// write fills the node's folder and returns what kind mounts of it.
func (n node) write() ([]v1alpha4.Mount, error) {
	// Whoever may open the control socket may break the node.
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

// share makes a link to a file, or a copy where that cannot be.
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

// configType heads what kind is asked for.
var configType = v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"}

// config is what kind is asked for. Patches that an older Kubernetes does not know are ignored by it.
func (n node) config(mounts []v1alpha4.Mount) *v1alpha4.Cluster {
	a := n.Addresses()
	return &v1alpha4.Cluster{
		TypeMeta: configType,
		Name:     n.kindName(),
		Nodes:    []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole, Image: n.imageName(), ExtraMounts: mounts}},
		Networking: v1alpha4.Networking{
			PodSubnet: a.Pods(n.Index).String(), ServiceSubnet: a.Services(n.Index).String(),
			// The node's own file for containerd is there before the kubelet is. kindnet would give what crosses between
			// clusters of one network the node's address.
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
			// The lab's data need not survive the machine. The two versions of kubeadm's file write arguments differently.
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
