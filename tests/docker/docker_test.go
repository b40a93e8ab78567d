// Package docker runs scripts/docker-up and scripts/docker-down as a machine without Docker sees them: in a network, mount and pid
// namespace of its own, so that it disturbs no Docker that runs here. It needs Linux, root, and the program dockerd:
// `go test ./tests/docker`.
package docker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// insideEnv is set where this test's own program runs in a container.
const insideEnv = "EASTWEST_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		fmt.Println("inside a container, as process", os.Getpid())
		return
	}
	os.Exit(m.Run())
}

// machine is what a machine without Docker looks like. Another engine, with all that is usual, is started and ended by other.
const machine = `
mount -t tmpfs none /var/lib
mount -t tmpfs none /run # last, because mount writes there
echo 0 >/proc/sys/net/ipv4/ip_forward # a new namespace has that of the machine
ip link set lo up
ip link add uplink type bridge
ip address add 192.0.2.1/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.254
rules() { iptables -S; iptables -t nat -S; }
rules >"$WORK/before"
answers() { docker version >/dev/null 2>&1; }
soon() {
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 150 ] || { echo "not within half a minute: $*"; exit 1; }
		sleep 0.2
	done
}
others_answers() { docker info --format '{{.DockerRootDir}}' | grep -x /var/lib/docker; }
other() {
	if [ "$1" = up ]; then
		echo '{}' >"$WORK/daemon.json"
		dockerd --config-file "$WORK/daemon.json" >"$WORK/log" 2>&1 &
		other=$!
		soon others_answers
	else
		kill $other
		wait $other || true
	fi
}
`

// life is the whole life of a Docker Engine of docker-up. The program in the image is this test, which is linked with nothing.
const life = `
mkdir "$WORK/root"
cp "$SELF" "$WORK/root/test"
echo "== down before up"
"$SCRIPTS/docker-down"
echo "== up"
"$SCRIPTS/docker-up"
echo "== up again"
"$SCRIPTS/docker-up"
echo "== rules"
iptables -S DOCKER-USER
echo "== containers"
tar -C "$WORK/root" -c . | docker import - eastwest.local/test:v1 >/dev/null
docker network create lab >/dev/null
docker run --rm --privileged --network lab -e ` + insideEnv + `=1 eastwest.local/test:v1 /test
mkdir -p /var/lib/docker/volumes
echo "of another engine" >/var/lib/docker/volumes/file
echo "== down"
"$SCRIPTS/docker-down"
echo "== left"
[ ! -e "$EASTWEST_DOCKER_DIR" ] || ls -R "$EASTWEST_DOCKER_DIR"
ls /run
cat /var/lib/docker/volumes/file
ip -o link | grep -E 'docker0|br-' || true
rules | diff "$WORK/before" -
cat /proc/sys/net/ipv4/ip_forward
echo "== killed"
"$SCRIPTS/docker-up" >/dev/null
kill -9 "$(cat "$EASTWEST_DOCKER_DIR/pid")"
"$SCRIPTS/docker-up"
"$SCRIPTS/docker-down"
rules | diff "$WORK/before" -
[ ! -e "$EASTWEST_DOCKER_DIR" ]
`

// stopped has another engine, which is stopped when docker-up is asked. Its bridge and its rules are still there.
const stopped = `
other up
other down
rules >"$WORK/before"
"$SCRIPTS/docker-up"
echo "== rules"
iptables -S DOCKER-USER
"$SCRIPTS/docker-down"
echo "== left"
rules | diff "$WORK/before" - || true
ip -o link | grep -o docker0
`

// taken has another engine, which is started while that of docker-up runs, and takes over the usual socket.
const taken = `
"$SCRIPTS/docker-up"
docker network create lab >/dev/null
other up
docker network create theirs >/dev/null
echo data | tar -C "$WORK" -c log | docker import - theirs:v1 >/dev/null
docker create --name theirs theirs:v1 /log >/dev/null
echo "== down"
"$SCRIPTS/docker-down"
echo "== left"
others_answers || true
docker network ls --filter type=custom --format '{{.Name}}' || true
docker ps -a --format '{{.Names}}' || true
ip -o link | grep -oE 'docker0|br-[0-9a-f]{12}' | sort -u
iptables -S DOCKER-USER
cat /proc/sys/net/ipv4/ip_forward
ls /run/docker.sock /run/docker.pid
[ ! -e "$EASTWEST_DOCKER_DIR" ] || ls -R "$EASTWEST_DOCKER_DIR"
`

// unsealed has an iptables that does what $FAULT says in place of making docker-up's rules.
const unsealed = `
mkdir "$WORK/bin"
cat >"$WORK/bin/iptables" <<END
#!/bin/sh
case "\$*" in *"-I DOCKER-USER"*REJECT*) eval "\$FAULT" ;; esac
exec $(command -v iptables) "\$@"
END
chmod 755 "$WORK/bin/iptables"

echo "== fails"
FAULT="exit 4" PATH="$WORK/bin:$PATH" "$SCRIPTS/docker-up" || echo "exit code $?"
if answers; then echo "it still answers"; fi
rules | diff "$WORK/before" - || true
echo "== killed"
FAULT='kill -9 $PPID; exit 4' PATH="$WORK/bin:$PATH" "$SCRIPTS/docker-up" || true
answers && echo "it still answers"
iptables -S DOCKER-USER
echo "== up again"
"$SCRIPTS/docker-up"
echo "== rules"
iptables -S DOCKER-USER
echo "== and again"
"$SCRIPTS/docker-up"
"$SCRIPTS/docker-down"
rules | diff "$WORK/before" -
echo "== egress"
"$SCRIPTS/docker-up" --egress
"$SCRIPTS/docker-up"
iptables -S DOCKER-USER
"$SCRIPTS/docker-down"
`

// sealed is what is in the chain DOCKER-USER where networks do not get out.
const sealed = `-N DOCKER-USER
-A DOCKER-USER -i br-+ -o uplink -p tcp -j REJECT --reject-with tcp-reset
-A DOCKER-USER -i br-+ -o uplink -j REJECT --reject-with icmp-port-unreachable
-A DOCKER-USER -j RETURN
`

// inside runs a story in namespaces of its own, and returns what its parts printed.
func inside(t *testing.T, story string) map[string]string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a Docker Engine: run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("a Docker Engine needs root: run with sudo")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("the test has no network to install docker.io from: apt-get install docker.io")
	}
	work, scripts := t.TempDir(), script(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(
		t.Context(),
		"unshare",
		"--mount",
		"--net",
		"--pid",
		"--fork",
		"--mount-proc",
		"--kill-child",
		"sh",
		"-euc",
		machine+story,
	)
	cmd.Env = append(
		os.Environ(),
		"WORK="+work,
		"SELF="+self,
		"SCRIPTS="+scripts,
		"EASTWEST_DOCKER_DIR="+filepath.Join(work, "docker"),
		"DOCKER_HOST=",
	)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	part := map[string]string{}
	for _, s := range strings.Split(string(out), "== ")[1:] {
		title, text, _ := strings.Cut(s, "\n")
		part[title] = text
	}
	return part
}

func TestUpAndDown(t *testing.T) {
	part := inside(t, life)
	require.Contains(t, part["down before up"], "started nothing")
	require.Contains(t, part["up"], "do not get out by uplink")
	require.Contains(t, part["up again"], "nothing to do")
	require.Equal(t, sealed, part["rules"])
	require.Contains(t, part["containers"], "inside a container, as process 1")
	require.Equal(t, "of another engine\n0", strings.TrimSpace(strings.ReplaceAll(part["left"], "xtables.lock", "")),
		"neither files, links nor rules of its own, and forwarding is off again")
	require.Contains(t, part["killed"], "answers, its files are in")
}

// TestEngineThatIsStopped holds where Docker is installed and does not run: its networks must get out when it is started again.
func TestEngineThatIsStopped(t *testing.T) {
	part := inside(t, stopped)
	require.Contains(t, part["rules"], sealed)
	require.Equal(t, "docker0\n", part["left"])
}

// TestEngineThatComesLater holds where a package's dockerd, say, is started beside that of docker-up: it keeps all that it has.
func TestEngineThatComesLater(t *testing.T) {
	part := inside(t, taken)
	require.Contains(t, part["down"], "another engine runs here")
	require.Regexp(t, `^/var/lib/docker
theirs
theirs
br-[0-9a-f]{12}
docker0
-N DOCKER-USER
-A DOCKER-USER -j RETURN
1
/run/docker.pid
/run/docker.sock
$`, part["left"])
}

// TestNoEngineWithoutItsRules holds where docker-up cannot make its rules, or is killed before.
func TestNoEngineWithoutItsRules(t *testing.T) {
	part := inside(t, unsealed)
	require.Contains(t, part["fails"], "docker-up: the rules that keep networks of this Docker in the machine could not be made")
	require.Contains(t, part["fails"], "exit code 3")
	require.NotContains(t, part["fails"], "it still answers")
	require.NotContains(t, part["fails"], "DOCKER")
	require.Contains(t, part["killed"], "it still answers\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n")
	require.Contains(t, part["up again"], "do not get out by uplink")
	require.Equal(t, sealed, part["rules"])
	require.Contains(t, part["and again"], "nothing to do")
	require.Contains(t, part["egress"], "nothing to do\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n", "it was asked for at the start")
}

// TestDockerOfOthersIsLeftAlone holds where a Docker answers: neither script does anything.
func TestDockerOfOthersIsLeftAlone(t *testing.T) {
	version := exec.CommandContext(t.Context(), "docker", "version", "--format", "{{.Server.Version}}")
	if out, err := version.CombinedOutput(); err != nil {
		t.Skipf("no Docker answers here, TestUpAndDown is the test for that: %s", out)
	}
	state := filepath.Join(t.TempDir(), "docker")
	for name, want := range map[string]string{"docker-up": "nothing to do", "docker-down": "started nothing"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(script(t), name))
		cmd.Env = append(os.Environ(), "EASTWEST_DOCKER_DIR="+state)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), want)
		require.NoDirExists(t, state)
	}
	require.NoError(t, exec.CommandContext(t.Context(), "docker", "version").Run())
}

// script returns the folder of the scripts.
func script(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../scripts")
	require.NoError(t, err)
	return dir
}
