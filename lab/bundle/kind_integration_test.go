package bundle

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKindNodeImage makes a cluster of the node image with kind's own command. No image may come from anywhere else: what the
// node has afterwards is what the image brought.
func TestKindNodeImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the node image: run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("the node image is built as root: run with sudo")
	}
	if lack := toolDocker.find(t.Context()); lack != "" {
		t.Skip("needs a running Docker: scripts/docker-up starts one: " + lack)
	}
	dir, err := DefaultDir()
	require.NoError(t, err)
	b, err := Open(dir)
	require.NoError(t, err)
	archive, ref, ok := b.KindNodeImage()
	if !ok {
		t.Skip("the bundle has no node image: eastwest bundle build --with kind")
	}

	const name = "eastwest-bundle"
	command := func(args ...string) string {
		t.Helper()
		var said bytes.Buffer // containerd warns of old cgroups there
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "%v: %s%s", args, out, said.String())
		return string(out)
	}
	command("docker", "load", "--input", archive)
	inImage := strings.Fields(command("docker", "run", "--rm", "--entrypoint", "/bin/bash", ref, "-c",
		"containerd >/dev/null 2>&1 & until ctr version >/dev/null 2>&1; do sleep 0.1; done; ctr --namespace=k8s.io images list --quiet"))
	for _, image := range b.Images() {
		require.Contains(t, inImage, image.Ref, "the images of the mesh are in the node image")
	}

	dir = t.TempDir()
	conflist := filepath.Join(dir, "10-lab.conflist")
	require.NoError(t, os.WriteFile(conflist, []byte(`{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.57.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}`), 0o644))
	config := filepath.Join(dir, "kind.yaml")
	require.NoError(t, os.WriteFile(config, []byte(`kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: true, podSubnet: 10.57.0.0/16}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
nodes:
- role: control-plane
  image: `+ref+`
  extraMounts: [{hostPath: `+conflist+`, containerPath: /etc/cni/net.d/10-lab.conflist}]
`), 0o644))
	kubeconfig := filepath.Join(dir, "kubeconfig")
	t.Cleanup(func() {
		out, err := exec.Command(b.KindBin(), "delete", "cluster", "--name", name, "--kubeconfig", kubeconfig).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	command(b.KindBin(), "create", "cluster", "--name", name, "--config", config, "--kubeconfig", kubeconfig, "--wait", "3m")
	kubectl := func(args ...string) string {
		t.Helper()
		return command(append([]string{b.Bin("kubectl"), "--kubeconfig", kubeconfig}, args...)...)
	}
	for _, deployment := range []string{"kube-system/coredns", "local-path-storage/local-path-provisioner"} {
		namespace, name, _ := strings.Cut(deployment, "/")
		kubectl("--namespace", namespace, "wait", "--for=condition=Available", "--timeout=180s", "deployment/"+name)
	}
	require.Equal(t, b.Versions()["kubernetes"], kubectl("get", "nodes", "--output", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}"))

	// A volume needs the helper image.
	kubectl("run", "volume", "--image="+Hub+"/app:"+Tag, "--image-pull-policy=Never", "--overrides", `{"spec": {
  "containers": [{"name": "volume", "image": "`+Hub+`/app:`+Tag+`", "imagePullPolicy": "Never", "command": ["sh", "-c", "echo kept > /data/file && sleep 3600"],
    "securityContext": {"runAsUser": 0}, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
  "volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}}}]}}`)
	kubectl("wait", "--for=condition=Ready", "--timeout=180s", "pod/volume")
	require.Equal(t, "kept\n", kubectl("exec", "volume", "--", "cat", "/data/file"))

	onNode := strings.Fields(command("docker", "exec", name+"-control-plane", "ctr", "--namespace=k8s.io", "images", "list", "--quiet"))
	onNode = slices.DeleteFunc(onNode, func(ref string) bool { return strings.HasPrefix(ref, "sha256:") })
	inImage = slices.DeleteFunc(inImage, func(ref string) bool { return strings.HasPrefix(ref, "sha256:") })
	require.Subset(t, inImage, onNode, "nothing was pulled")
}
