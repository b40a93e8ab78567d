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

// LoadImage implements cluster.ImageLoader. The bundle's ctr asks the node's containerd from outside, through the root
// folder that the node's own processes see.
func (c *Node) LoadImage(ctx context.Context, archive string) error {
	socket, err := c.containerdSocket()
	if err != nil {
		return fmt.Errorf("loading %s into %s: %w", archive, c.Name(), err)
	}
	// As the bundle's images were: unpacked for the snapshotter that the kubelet's pods are made with.
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "ctr"), "--address", socket, "--namespace=k8s.io", "images", "import", "--snapshotter=overlayfs", archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loading %s into %s: %w: %s", archive, c.Name(), err, bytes.TrimSpace(out))
	}
	return nil
}

// containerdSocket is the path by which this machine's processes reach the node's containerd.
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
	return "", errors.New("its containerd does not run")
}
