// Package kind tests what is special to the provider kind: labels in Docker, and everything that it refuses. What every
// provider has to show is in tests/provider. It needs a Docker Engine and the bundle's node image:
// go test ./tests/kind
package kind

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const labName = "kind-test"

var eastwest labs.Command

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(labs.RunWithCommand(m, &eastwest))
}

// need skips the test where there is no Docker, or no node image that needs no registry.
func need(t *testing.T) (home string) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes real clusters: run without -short")
	}
	if err := kind.Available(t.Context()).Err(); err != nil {
		t.Skip(err)
	}
	if _, _, ok := nodeImage(t); !ok {
		t.Skip("the bundle has no node image for kind: eastwest bundle build --with kind")
	}
	home, err := lab.Home()
	require.NoError(t, err)
	return home
}

// nodeImage is the bundle's, if it has one.
func nodeImage(t *testing.T) (archive, ref string, ok bool) {
	t.Helper()
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	b, err := bundle.Open(dir)
	require.NoError(t, err)
	return b.KindNodeImage()
}

// docker returns the words that a docker command prints.
func docker(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.Fields(string(out))
}

// left lists what Docker has of a lab.
func left(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	for _, list := range [][]string{{"ps", "--all"}, {"image", "ls"}, {"network", "ls"}, {"volume", "ls"}} {
		all = append(all, docker(t, append(list, "--quiet", "--filter", "label="+cluster.LabLabel+"="+name)...)...)
	}
	return all
}

func options(home, name string) lab.Options {
	return lab.Options{Home: home, Name: name, Provider: lab.Kind, Topology: scenario.Topology{Kind: scenario.NoMesh}}
}

func TestTwoClusters(t *testing.T) {
	home := need(t)
	l, err := lab.Up(t.Context(), options(home, labName))
	require.NoError(t, err)
	t.Cleanup(func() {
		l.Close()
		require.NoError(t, lab.Down(context.Background(), home, labName))
	})
	a := l.Clusters[0].(*kind.Node)

	t.Run("everything carries the lab's labels", func(t *testing.T) {
		nodes := docker(t, "ps", "--quiet", "--filter", "label="+cluster.LabLabel+"="+labName, "--filter", "label="+cluster.IDLabel)
		require.Len(t, nodes, 2)
		require.Len(t, left(t, labName), 2+2+1+1, "two nodes, their images, a network, and the volume that holds the name")
	})
	t.Run("a node has no way out", func(t *testing.T) {
		require.NotContains(t, docker(t, "exec", a.Container(), "ip", "route"), "default")
	})
	t.Run("faults are listed", func(t *testing.T) {
		_, err := a.Stop(t.Context(), "kube-scheduler")
		require.NoError(t, err)
		faults, err := a.Faults(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"kube-scheduler is stopped"}, faults)
		require.NoError(t, a.HealAll(t.Context()))
	})
	t.Run("faults outlive the part of eastwest in the node", func(t *testing.T) {
		_, err := a.Sever(t.Context(), l.Clusters[1])
		require.NoError(t, err)
		before, err := a.Status(t.Context())
		require.NoError(t, err)
		docker(t, "exec", a.Container(), "systemctl", "kill", "--signal=KILL", "eastwest")
		require.NoError(t, wait.Until(t.Context(), "it to be started again", wait.Options{}, func(ctx context.Context) error {
			now, err := a.Status(ctx)
			if err == nil && now.Up >= before.Up {
				err = errors.New("it has not ended yet")
			}
			return err
		}))
		faults, err := a.Faults(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"cut off from cluster-b"}, faults)
		rules := strings.Join(docker(t, "exec", a.Container(), "nft", "list", "table", "ip", "eastwest"), " ")
		require.Contains(t, rules, "drop comment")
		require.NoError(t, a.HealAll(t.Context()))
	})
	t.Run("a lab of that name from another home is refused", func(t *testing.T) {
		_, err := lab.Up(t.Context(), options(t.TempDir(), labName))
		require.ErrorContains(t, err, "was made with another EASTWEST_HOME")
	})
	t.Run("a lab of that name that another home has written down is another one", func(t *testing.T) {
		other := t.TempDir()
		for file, text := range map[string]string{
			"lab.json":          `{"name": "` + labName + `", "id": "another", "provider": "kind"}`, // what a kill leaves
			"kind/network.json": `{"lab": "` + labName + `", "id": "another", "range": "10.247.0.0/16"}`,
		} {
			file = filepath.Join(other, "labs", labName, file)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		}
		_, err := lab.Up(t.Context(), options(other, labName))
		require.ErrorContains(t, err, "was made with another EASTWEST_HOME")
		require.Len(t, left(t, labName), 2+2+1+1)
		require.NoError(t, a.Alive(t.Context()))
	})
	for title, taken := range map[string]string{"of another lab": rangeOf(t, a), "of a Docker network of the user's": usersNetwork(t)} {
		t.Run("a range "+title+" is refused", func(t *testing.T) {
			o := options(home, labName+"-2")
			o.Settings = lab.Settings{"range": {taken}}
			_, err := lab.Up(t.Context(), o)
			require.ErrorContains(t, err, "is taken by")
			require.Empty(t, left(t, o.Name))
		})
	}
	require.NoError(t, a.Alive(t.Context()))
}

// rangeOf is that of the node's lab.
func rangeOf(t *testing.T, n *kind.Node) string {
	t.Helper()
	at, err := netip.ParseAddrPort(strings.TrimPrefix(n.RESTConfig().Host, "https://"))
	require.NoError(t, err)
	prefix, err := at.Addr().Prefix(16)
	require.NoError(t, err)
	return prefix.String()
}

// usersNetwork makes a Docker network that is no lab's, and returns a lab's range that it is in.
func usersNetwork(t *testing.T) string {
	t.Helper()
	docker(t, "network", "create", "--subnet", "10.249.7.0/24", labName+"-users")
	t.Cleanup(func() {
		out, err := exec.Command("docker", "network", "rm", labName+"-users").CombinedOutput()
		require.NoError(t, err, "it has not been left alone: %s", out)
	})
	return "10.249.0.0/16"
}

// TestKindClusterOfTheUser stands for every cluster that is not ours: what kind calls like one of the lab's stays.
func TestKindClusterOfTheUser(t *testing.T) {
	home := need(t)
	const name = labName + "-user"
	archive, image, _ := nodeImage(t)
	docker(t, "load", "--input", archive)
	container := name + "-cluster-a-control-plane"
	docker(t, "create", "--name", container, "--label", "io.x-k8s.kind.cluster="+name+"-cluster-a", image, "true")
	t.Cleanup(func() {
		out, err := exec.Command("docker", "rm", container).CombinedOutput()
		require.NoError(t, err, "it has not been left alone: %s", out)
	})
	_, err := lab.Up(t.Context(), options(home, name))
	require.ErrorContains(t, err, "that is not this lab's")
	require.Empty(t, left(t, name))
}

// TestKilledWhileDockerMakesANode kills up when the command that makes a node has just begun: Docker goes on with it.
func TestKilledWhileDockerMakesANode(t *testing.T) {
	home := need(t)
	const name = labName + "-killed"
	container := name + "-cluster-a-control-plane"
	cmd := exec.Command(string(eastwest), "up", "--name", name, "--provider", lab.Kind, "--topology", "single")
	require.NoError(t, cmd.Start())
	// The first command with that name is the one that makes the container: docker run.
	require.NoError(t, wait.Until(t.Context(), "docker run", wait.Options{Every: 10 * time.Millisecond}, func(context.Context) error {
		if len(host.Commands("docker", container)) == 0 {
			return errors.New("not yet")
		}
		return nil
	}))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	t.Logf("commands that outlive it: %v", host.Commands("docker", container))
	require.NoError(t, lab.Down(t.Context(), home, name))
	// Longer than a node takes to appear.
	require.NoError(
		t,
		wait.Until(
			t.Context(),
			"10 s without anything of the lab",
			wait.Options{Every: 500 * time.Millisecond, InARow: 20},
			func(context.Context) error {
				if found := append(left(t, name), docker(t, "ps", "--all", "--quiet", "--filter", "name="+container)...); len(found) > 0 {
					return wait.Permanent(fmt.Errorf("there is %v", found))
				}
				return nil
			},
		),
	)
	require.NoDirExists(t, filepath.Join(home, "labs", name))
}

// TestWithoutRoot makes a lab as somebody who may talk to Docker and is nobody else.
func TestWithoutRoot(t *testing.T) {
	labs.Nightly(t)
	need(t)
	if os.Geteuid() != 0 {
		t.Skip("the other tests are without root, too")
	}
	const name = labName + "-user"
	socket, err := os.Stat("/var/run/docker.sock")
	require.NoError(t, err)
	group := socket.Sys().(*syscall.Stat_t).Gid
	// In a folder that everybody may enter: the checkout and the user's home are not always.
	dir, err := os.MkdirTemp("/var/tmp", "eastwest-kind-test")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	from, err := bundle.DefaultDir()
	require.NoError(t, err)
	for _, command := range [][]string{
		{"sh", "-c", `cp --archive --link "$0" "$1" || cp --archive "$0" "$1"`, from, filepath.Join(dir, "bundle")}, {"cp",
			string(eastwest), filepath.Join(dir, "eastwest")},
		{"chown", "65534", dir}, {"chmod", "0755", dir},
	} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", command, out)
	}
	for _, args := range [][]string{{"up", "--provider", lab.Kind, "--topology", "single", "--name", name}, {"status", name}, {"down", name}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "eastwest"), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "EASTWEST_HOME="+filepath.Join(dir, "home"), bundle.EnvDir+"="+filepath.Join(dir, "bundle"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{group}}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	require.Empty(t, left(t, name))
	made, err := filepath.Glob(filepath.Join(dir, "home", "labs", "[a-z]*"))
	require.NoError(t, err)
	require.Empty(t, made)
}

// TestImagesThatNobodyHas asks for images of a registry that there is not: that is told long before --timeout is over.
func TestImagesThatNobodyHas(t *testing.T) {
	labs.Nightly(t)
	home := need(t)
	const name = labName + "-hub"
	start := time.Now()
	printed, err := exec.CommandContext(t.Context(), string(eastwest), "up", "--name", name, "--provider", lab.Kind, "--topology", "single",
		"--hub", "registry.invalid/istio", "--tag", "x", "--timeout", "30m").CombinedOutput()
	out := string(printed)
	t.Logf("%s\n%s", time.Since(start).Round(time.Second), out)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.Contains(t, out, "cluster-a cannot pull registry.invalid/istio/pilot:x: ")
	require.Contains(t, out, "try `docker pull registry.invalid/istio/pilot:x`: the registry has to have it (--hub, --tag)")
	require.Less(t, time.Since(start), 8*time.Minute, "a slow machine needs most of it for the node")
	require.Empty(t, left(t, name))
	var unknown *lab.UnknownLabError
	require.ErrorAs(t, lab.Down(t.Context(), home, name), &unknown)
}

// refused runs `up --provider kind` somewhere it cannot work, and wants those words, exit code 3 and an empty home.
func refused(t *testing.T, cmd *exec.Cmd, words string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, 3, exit.ExitCode(), "%s", out)
	require.Contains(t, string(out), words)
}

// up is the command that cannot work, with a bundle and a home of its own.
func up(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	home := t.TempDir()
	for _, e := range env {
		if other, ok := strings.CutPrefix(e, "EASTWEST_HOME="); ok {
			home = other
		}
	}
	t.Cleanup(func() {
		made, err := filepath.Glob(filepath.Join(home, "labs", "[a-z]*"))
		require.NoError(t, err)
		require.Empty(t, made, "what was refused has left something")
	})
	cmd := exec.CommandContext(t.Context(), string(eastwest), "up", "--provider", lab.Kind, "--name", labName+"-refused")
	cmd.Env = append(os.Environ(), append([]string{"EASTWEST_HOME=" + home, "EASTWEST_BUNDLE=" + dir}, env...)...)
	return cmd
}

func TestDockerThatCannotBeUsed(t *testing.T) {
	need(t)
	t.Run("none", func(t *testing.T) {
		refused(t, up(t, "PATH="+t.TempDir()), `the tool "docker" is missing: install Docker`)
	})
	t.Run("not running", func(t *testing.T) {
		refused(t, up(t, "DOCKER_HOST=unix://"+filepath.Join(t.TempDir(), "none.sock")), "Docker does not run (")
	})
	t.Run("no permission", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can be somebody else")
		}
		// In a folder that everybody may enter: the checkout and the user's home are not always.
		dir, err := os.MkdirTemp("/tmp", "eastwest-kind-test")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		require.NoError(t, os.Chmod(dir, 0o777))
		data, err := os.ReadFile(string(eastwest))
		require.NoError(t, err)
		program := filepath.Join(dir, "eastwest")
		require.NoError(t, os.WriteFile(program, data, 0o755))
		cmd := up(t, "HOME="+dir, "EASTWEST_HOME="+dir, "EASTWEST_BUNDLE=")
		cmd.Path, cmd.Args[0], cmd.Dir = program, program, dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		refused(t, cmd, "this user may not talk to Docker")
	})
}

// smallDisk runs a Docker Engine of its own, whose disk has no room for a lab, in namespaces of its own.
const smallDisk = `
mount -t tmpfs none /run
ip link set lo up
ip link add uplink type bridge
ip address add 192.0.2.1/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.254
mount -t tmpfs -o size=1g none "$DISK"
"$SCRIPTS/docker-up" >&2
trap '"$SCRIPTS/docker-down" >&2' EXIT
`

func TestDiskFull(t *testing.T) {
	need(t)
	if os.Geteuid() != 0 {
		t.Skip("a Docker Engine needs root: run with sudo")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip(fmt.Sprint("this machine's Docker is not of its own packages: ", err))
	}
	scripts, err := filepath.Abs("../../scripts")
	require.NoError(t, err)
	disk := t.TempDir()
	cmd := up(t, "SCRIPTS="+scripts, "DISK="+disk, "EASTWEST_DOCKER_DIR="+filepath.Join(disk, "docker"), "DOCKER_HOST=")
	inside := append(
		[]string{"--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc", smallDisk + `"$@"`, "sh"},
		cmd.Args...)
	wrapped := exec.CommandContext(t.Context(), "unshare", inside...)
	wrapped.Env = cmd.Env
	refused(t, wrapped, "the disk is full: Docker's folder")
}

// TestKindsOwnCommandLeavesNothing interrupts a measurement of kind's command and kills it, once there is a node of its lab,
// which is called after the process. tests/provider does so to what makes labs otherwise.
func TestKindsOwnCommandLeavesNothing(t *testing.T) {
	home := need(t)
	if os.Geteuid() != 0 {
		t.Skip("it compares with embedded: run with sudo")
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			up := exec.CommandContext(t.Context(), string(eastwest), "bench", "providers", "--runs", "1")
			require.NoError(t, up.Start())
			name := fmt.Sprintf("bench-%d", up.Process.Pid)
			require.NoError(t, wait.Until(t.Context(), "a node to be there", wait.Options{Within: 2 * time.Minute}, func(context.Context) error {
				if len(docker(t, "ps", "--quiet", "--filter", "label="+cluster.LabLabel+"="+name)) == 0 {
					return errors.New("none yet")
				}
				return nil
			}))
			require.NoError(t, up.Process.Signal(sig))
			require.Error(t, up.Wait())
			if sig == syscall.SIGKILL {
				require.NoError(t, lab.Down(t.Context(), home, name))
			}
			require.Empty(t, left(t, name))
			var unknown *lab.UnknownLabError
			require.ErrorAs(t, lab.Down(t.Context(), home, name), &unknown)
		})
	}
}
