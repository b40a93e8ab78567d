package labs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// Left lists everything of a lab that is on this machine: processes, cgroups, links, rules, mounts, files, and things of Docker
// if one answers. It looks for itself: whether a provider finds its own leftovers is what tests want to know.
func Left(t *testing.T, home, name string) []string {
	t.Helper()
	var found []string
	pids, err := host.CgroupProcesses("eastwest/" + name)
	require.NoError(t, err)
	for _, pid := range pids {
		found = append(found, fmt.Sprint("process ", pid))
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range procs {
		if line, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(line), "eastwest-node\x00"+name+"\x00") {
			found = append(found, "supervisor "+file)
		}
	}
	hierarchies, err := host.Hierarchies()
	require.NoError(t, err)
	for _, h := range hierarchies {
		dir := filepath.Join(h.Path, "eastwest", name)
		if _, err := os.Stat(dir); err == nil {
			found = append(found, "cgroup "+dir)
		}
	}
	links, err := host.LabeledLinks("eastwest lab " + name)
	require.NoError(t, err)
	found = append(found, links...)
	if os.Geteuid() == 0 { // nobody else makes rules, or may see them
		rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		require.NoError(t, err, string(rules))
		if bytes.Contains(rules, []byte("eastwest lab "+name+`"`)) {
			found = append(found, "rules")
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	if bytes.Contains(mounts, []byte("/labs/"+name+"/")) {
		found = append(found, "mounts")
	}
	if exec.Command("docker", "version").Run() == nil {
		found = append(found, dockers(t, name)...)
	}
	_ = filepath.WalkDir(filepath.Join(home, "labs", name), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && len(found) < 20 {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// dockers lists what Docker has with the lab's label.
func dockers(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, list := range []string{"ps --all", "network ls", "volume ls", "image ls"} {
		args := append(strings.Fields(list), "--quiet", "--filter", "label="+cluster.LabLabel+"="+name)
		out, err := exec.Command("docker", args...).CombinedOutput()
		require.NoError(t, err, "docker %v: %s", args, out)
		for _, id := range strings.Fields(string(out)) {
			found = append(found, "docker "+list+": "+id)
		}
	}
	return found
}
