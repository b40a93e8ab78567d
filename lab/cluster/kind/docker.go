package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// docker runs the Docker command, as kind itself does, and returns what it prints without the last line's end.
func docker(ctx context.Context, args ...string) (string, error) {
	out, err := host.Run(ctx, nil, "docker", args...)
	return strings.TrimSpace(out), err
}

// What is needed of Docker.
const (
	neededAPI    = "1.41" // of 20.10, the first with private cgroup namespaces, which kind needs
	neededDocker = "20.10"
	imageMiB     = 1100 // on its disk
	nodeMiB      = 1800 // there, of a node with a mesh; see docs/measurements/providers.md
	answerWithin = 10 * time.Second
)

// Answers returns nil if a Docker that can make nodes answers, or what is in the way and what to do about it.
func Answers(ctx context.Context) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf(
			"this machine runs %s: the part of eastwest that runs in kind's nodes is a Linux program; use eastwest on Linux, or --provider "+
				"existing on clusters that are there",
			runtime.GOOS,
		)
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return errors.New(
			"the tool \"docker\" is missing: install Docker (https://docs.docker.com/engine/install/; apt-get install docker.io), or use " +
				"--provider embedded",
		)
	}
	bound, cancel := wait.TimeoutCause(ctx, answerWithin, "no answer")
	defer cancel()
	text, err := docker(bound, "version", "--format", "{{json .}}")
	if err != nil {
		return unanswered(err)
	}
	return suits(text)
}

// unanswered says what to do about a Docker that does not answer.
func unanswered(err error) error {
	said := err.Error()
	var command *host.CommandError
	if errors.As(err, &command) && command.Said != "" {
		said = command.Said[strings.LastIndex(command.Said, "\n")+1:]
	}
	switch {
	case strings.Contains(said, "permission denied"):
		return fmt.Errorf("this user may not talk to Docker: run with sudo, or `sudo usermod -aG docker $USER` and log in again (%s)", said)
	case strings.Contains(said, "Cannot connect"), strings.Contains(said, "no such file"), strings.Contains(said, "connection refused"):
		return fmt.Errorf( //nolint:revive,staticcheck // a name
			"Docker does not run: start it (`sudo systemctl start docker`; scripts/docker-up where there is no systemd) (%s)",
			said,
		)
	case strings.Contains(said, "is too old"), strings.Contains(said, "is too new"):
		return fmt.Errorf(
			"the docker command and the Docker Engine are too far apart in age: wanted %s or newer of both (%s)",
			neededDocker,
			said,
		)
	}
	return fmt.Errorf("asking Docker for its version: %s", said)
}

// suits judges what `docker version` says.
func suits(text string) error {
	var version struct {
		Server *struct {
			Version    string
			APIVersion string `json:"ApiVersion"`
			Os         string
		}
	}
	if err := json.Unmarshal([]byte(text), &version); err != nil {
		return fmt.Errorf("reading what `docker version` says: %w", err)
	}
	switch server := version.Server; {
	case server == nil:
		return unanswered(errors.New("Cannot connect to the Docker daemon")) //nolint:revive,staticcheck // its own words
	case older(server.APIVersion, neededAPI):
		return fmt.Errorf("Docker %s is too old: wanted %s or newer", server.Version, neededDocker) //nolint:revive,staticcheck // a name
	case server.Os != "linux":
		return fmt.Errorf("Docker runs containers of %s: switch it to Linux containers", server.Os) //nolint:revive,staticcheck // a name
	}
	return nil
}

// older compares versions like 1.41.
func older(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m < n
		}
	}
	return len(x) < len(y)
}

// engine is what `docker info` says of a Docker.
type engine struct {
	DockerRootDir   string   // where it keeps images, containers and volumes
	OperatingSystem string   // of its machine
	SecurityOptions []string // like "name=rootless"
}

// askEngine asks the Docker.
func askEngine(ctx context.Context) (e engine, err error) {
	text, err := docker(ctx, "info", "--format", "{{json .}}")
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return e, fmt.Errorf("reading what `docker info` says: %w", err)
	}
	return e, nil
}

// reachable returns an error if this machine cannot reach the Docker's containers by their addresses.
func (e engine) reachable() error {
	const instead = "nodes are reached by their addresses, and those of %s are not to be reached from here: use a Docker Engine that " +
		"runs on this machine as root, or --provider existing on clusters that are there"
	switch {
	case strings.Contains(e.OperatingSystem, "Docker Desktop"):
		return fmt.Errorf(instead, "Docker Desktop, which runs in a virtual machine,")
	case slices.ContainsFunc(e.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=rootless") }):
		return fmt.Errorf(instead, "Docker without root, which has a network of its own,")
	}
	return nil
}

// local returns an error if the Docker is on another machine: a node shares a folder with this one.
func local(ctx context.Context) error {
	endpoint := os.Getenv("DOCKER_HOST")
	if endpoint == "" {
		var err error
		if endpoint, err = docker(ctx, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(endpoint, "unix://") {
		return fmt.Errorf(
			"the Docker at %s is not on this machine, and nodes share a folder with it: unset DOCKER_HOST, or `docker context use default`",
			endpoint,
		)
	}
	return nil
}

// FreeBytes tells how much may still be written where Docker keeps its nodes.
func (p *Provider) FreeBytes(ctx context.Context) (uint64, error) {
	e, err := askEngine(ctx)
	if err != nil {
		return 0, err
	}
	return host.FreeBytes(e.DockerRootDir)
}

// disk returns an error if Docker's folder root has no room for that many nodes.
func disk(root string, nodes int) error {
	free, err := host.FreeBytes(root)
	if err != nil {
		return nil //nolint:nilerr // it is not for everybody to see
	}
	if needed := uint64(imageMiB + nodes*nodeMiB); free>>20 < needed {
		return fmt.Errorf(
			"the disk is full: Docker's folder %s has %d MiB free, a lab of %d clusters needs %d MiB: make room, for example with `docker "+
				"system prune`",
			root,
			free>>20,
			nodes,
			needed,
		)
	}
	return nil
}

// filters select what carries the labels of a lab; of any lab of that name if the id is empty.
func filters(lab, id string) []string {
	var all []string
	for key, value := range cluster.Labels(lab, id) {
		all = append(all, "--filter", "label="+key+"="+value)
	}
	return all
}

// labelFlags give something the labels of a lab.
func labelFlags(lab, id string) []string {
	var flags []string
	for key, value := range cluster.Labels(lab, id) {
		flags = append(flags, "--label", key+"="+value)
	}
	return flags
}

// thing is a sort of what a lab has in Docker: how it is listed and how it is removed.
type thing struct{ list, remove string }

var (
	containers = thing{"ps --all --quiet --no-trunc", "rm --force --volumes"}
	images     = thing{"image ls --quiet --no-trunc", "image rm --force"}
	networks   = thing{"network ls --quiet --no-trunc", "network rm"}
)

// leftovers lists what Docker has of a lab, with the command that removes it.
func leftovers(ctx context.Context, lab, id string) (remove [][]string, err error) {
	for _, thing := range []thing{containers, images, networks} {
		ids, err := docker(ctx, append(strings.Fields(thing.list), filters(lab, id)...)...)
		if err != nil {
			return nil, fmt.Errorf("listing what Docker has of lab %s: %w", lab, err)
		}
		if list := strings.Fields(ids); len(list) > 0 {
			remove = append(remove, append(strings.Fields(thing.remove), list...))
		}
	}
	return remove, nil
}

// rangeTaken tells which Docker network has addresses of the range; "" if none has.
func rangeTaken(ctx context.Context, r netip.Prefix) (string, error) {
	ids, err := docker(ctx, "network", "ls", "--quiet")
	if err != nil {
		return "", fmt.Errorf("listing Docker's networks: %w", err)
	}
	list := strings.Fields(ids)
	if len(list) == 0 {
		return "", nil
	}
	text, err := docker(
		ctx,
		append([]string{"network", "inspect", "--format", "{{.Name}}{{range .IPAM.Config}} {{.Subnet}}{{end}}"}, list...)...)
	if err != nil {
		return "", fmt.Errorf("looking at Docker's networks: %w", err)
	}
	return overlaps(text, r), nil
}

// overlaps finds the network in lines of a name and ranges.
func overlaps(lines string, r netip.Prefix) string {
	for _, line := range strings.Split(lines, "\n") {
		fields := strings.Fields(line)
		for i, field := range fields {
			if subnet, err := netip.ParsePrefix(field); i > 0 && err == nil && subnet.Overlaps(r) {
				return fmt.Sprintf("the Docker network %s (%s)", fields[0], subnet)
			}
		}
	}
	return ""
}
