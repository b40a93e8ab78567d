package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/eastwest-lab/eastwest/lab/host"
)

// LoadImage implements cluster.ImageLoader. It runs the bundle's ctr outside of the node and reaches the node's
// containerd through the root folder of the node's processes.
func (c *Node) LoadImage(ctx context.Context, archive string) error {
	socket, err := c.containerdSocket()
	if err != nil {
		return fmt.Errorf("loading %s into %s: %w", archive, c.Name(), err)
	}
	// Unpack for the snapshotter that the kubelet's pods use, like the bundle's images.
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "ctr"), "--address", socket, "--namespace=k8s.io",
		"images", "import", "--snapshotter=overlayfs", archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loading %s into %s: %w: %s", archive, c.Name(), err, bytes.TrimSpace(out))
	}
	return nil
}

// containerdSocket returns the path of the socket of the node's containerd, as seen from outside of the node.
func (c *Node) containerdSocket() (string, error) {
	pids, err := host.CgroupProcesses(nodeCgroup(c.Lab, c.Spec.Name))
	if err != nil {
		return "", err
	}
	for _, pid := range pids {
		socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", pid)
		if _, err := os.Stat(socket); err == nil {
			return socket, nil
		}
	}
	return "", errors.New("its containerd is not running")
}
