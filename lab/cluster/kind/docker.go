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
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// docker runs the docker command, as kind itself does, and returns its output without white space at the ends.
func docker(ctx context.Context, args ...string) (string, error) {
	out, err := host.Run(ctx, nil, "docker", args...)
	return strings.TrimSpace(out), err
}

// inspect decodes what Docker knows of things of one kind, such as containers, by their names or ids.
func inspect[T any](ctx context.Context, kind string, names ...string) ([]T, error) {
	text, err := docker(ctx, append([]string{kind, "inspect"}, names...)...)
	if err != nil {
		return nil, err
	}
	var all []T
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("reading the output of `docker %s inspect`: %w", kind, err)
	}
	return all, nil
}

// container is the part of what Docker knows of a container that we read.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Pid    int
		Paused bool
	}
	Config          struct{ Labels map[string]string }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

// network is the part of what Docker knows of a network that we read.
type network struct {
	Name   string
	Labels map[string]string
	IPAM   struct {
		Config []struct{ Subnet string }
	}
}

// inspectContainer returns what Docker knows of the node's container.
func inspectContainer(ctx context.Context, name string) (container, error) {
	all, err := inspect[container](ctx, "container", name)
	if err != nil {
		return container{}, err
	}
	if len(all) != 1 {
		return container{}, fmt.Errorf("asking Docker for container %s: wanted one, seen %d", name, len(all))
	}
	return all[0], nil
}

// ContainerCgroup returns the cgroup of a container.
func ContainerCgroup(ctx context.Context, name string) (string, error) {
	c, err := inspectContainer(ctx, name)
	if err != nil {
		return "", err
	}
	return host.ContainerCgroup(c.State.Pid, c.ID)
}

// The needs of a lab.
const (
	neededAPI    = "1.41" // of Docker 20.10, the first with private cgroup namespaces, which kind needs
	neededDocker = "20.10"
	imageMiB     = 1100             // on Docker's disk, for the node image
	nodeMiB      = 1800             // there, for a node with a mesh; see docs/measurements/providers.md
	answerWithin = 10 * time.Second // how long Docker may take to answer Available
)

// Available reports whether a Docker that can make nodes answers.
func Available(ctx context.Context) cluster.State {
	if runtime.GOOS != "linux" {
		return cluster.State{
			Problem: fmt.Errorf("this machine runs %s, and the part of eastwest that runs in kind's nodes is a Linux program", runtime.GOOS),
			Fix:     "run eastwest on Linux, in a virtual machine for example",
		}
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return cluster.State{
			Problem: errors.New(`the tool "docker" is missing`),
			Fix:     "install Docker (https://docs.docker.com/engine/install/; apt-get install docker.io)",
		}
	}
	bound, cancel := wait.TimeoutCause(ctx, answerWithin, "no answer")
	defer cancel()
	text, err := docker(bound, "version", "--format", "{{json .}}")
	if err != nil {
		return unanswered(err)
	}
	return suits(text)
}

// unanswered is the state of a Docker that does not answer.
func unanswered(err error) cluster.State {
	said := err.Error()
	var command *host.CommandError
	if errors.As(err, &command) && command.Said != "" {
		said = command.Said[strings.LastIndex(command.Said, "\n")+1:]
	}
	switch {
	case strings.Contains(said, "permission denied"):
		return cluster.State{
			Problem: fmt.Errorf("this user may not talk to Docker (%s)", said),
			Fix:     "run with sudo, or `sudo usermod -aG docker $USER` and log in again",
		}
	case strings.Contains(said, "Cannot connect"), strings.Contains(said, "no such file"), strings.Contains(said, "connection refused"):
		return cluster.State{
			Problem: fmt.Errorf("Docker does not run (%s)", said), //nolint:revive,staticcheck // a name
			Fix:     "start it (`sudo systemctl start docker`; scripts/docker-up where there is no systemd)",
		}
	case strings.Contains(said, "is too old"), strings.Contains(said, "is too new"):
		return cluster.State{
			Problem: fmt.Errorf("the versions of the docker command and of the Docker Engine are too far apart (%s)", said),
			Fix:     "install " + neededDocker + " or newer of both",
		}
	}
	return cluster.State{Problem: fmt.Errorf("asking Docker for its version failed (%s)", said), Fix: "try `docker version`"}
}

// suits judges the output of `docker version`.
func suits(text string) cluster.State {
	var seen struct {
		Server *struct {
			Version    string
			APIVersion string `json:"ApiVersion"`
			Os         string
		}
	}
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		return cluster.State{Problem: fmt.Errorf("reading the output of `docker version`: %w", err), Fix: "try it"}
	}
	server := seen.Server
	if server == nil {
		return unanswered(errors.New("Cannot connect to the Docker daemon")) //nolint:revive,staticcheck // its own words
	}
	api, err := version.ParseGeneric(server.APIVersion)
	switch {
	case err != nil || api.LessThan(version.MustParseGeneric(neededAPI)):
		return cluster.State{
			Problem: fmt.Errorf("Docker %s is too old", server.Version), //nolint:revive,staticcheck // a name
			Fix:     "install " + neededDocker + " or newer",
		}
	case server.Os != "linux":
		return cluster.State{
			Problem: fmt.Errorf("Docker runs containers of %s", server.Os), //nolint:revive,staticcheck // a name
			Fix:     "switch it to Linux containers",
		}
	}
	return cluster.State{}
}

// engine is the part of the output of `docker info` that we read.
type engine struct {
	DockerRootDir   string   // the folder of images, containers and volumes
	OperatingSystem string   // of its machine
	SecurityOptions []string // like "name=rootless"
}

func askEngine(ctx context.Context) (e engine, err error) {
	text, err := docker(ctx, "info", "--format", "{{json .}}")
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return e, fmt.Errorf("reading the output of `docker info`: %w", err)
	}
	return e, nil
}

// reachable returns an error if this machine cannot reach the Docker's containers by their addresses.
func (e engine) reachable() error {
	const instead = "eastwest connects to nodes by their addresses, and this machine has no route to those of %s: " +
		"use a Docker Engine that runs on this machine as root, or --provider existing on clusters that are there"
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
		current, err := inspect[struct {
			Endpoints struct {
				Docker struct{ Host string } `json:"docker"`
			}
		}](ctx, "context")
		if err != nil {
			return err
		}
		for _, c := range current { // it is one
			endpoint = c.Endpoints.Docker.Host
		}
	}
	if !strings.HasPrefix(endpoint, "unix://") {
		return fmt.Errorf("the Docker at %s is not on this machine, and nodes share a folder with it: "+
			"unset DOCKER_HOST, or `docker context use default`", endpoint)
	}
	return nil
}

// FreeBytes returns the free space of the disk that holds Docker's nodes.
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
		return nil //nolint:nilerr // not every user may see it
	}
	if needed := uint64(imageMiB + nodes*nodeMiB); free>>20 < needed {
		return fmt.Errorf("the disk is full: Docker's folder %s has %d MiB free, a lab of %s needs %d MiB: "+
			"make room, for example with `docker system prune`", root, free>>20, words.Plural(nodes, "cluster"), needed)
	}
	return nil
}

// filters returns the flags that select things with the labels of a lab, or of any lab of that name if the id is empty.
func filters(lab, id string) []string {
	var all []string
	for key, value := range cluster.Labels(lab, id) {
		all = append(all, "--filter", "label="+key+"="+value)
	}
	return all
}

// labelFlags returns the flags that give a new thing the labels of a lab.
func labelFlags(lab, id string) []string {
	var flags []string
	for key, value := range cluster.Labels(lab, id) {
		flags = append(flags, "--label", key+"="+value)
	}
	return flags
}

// things are the things of one kind that a lab has in Docker, by the commands that list and remove them.
type things struct{ list, remove string }

var (
	containers = things{"ps --all --quiet --no-trunc", "rm --force --volumes"}
	images     = things{"image ls --quiet --no-trunc", "image rm --force"}
	networks   = things{"network ls --quiet --no-trunc", "network rm"}
	volumes    = things{"volume ls --quiet", "volume rm --force"} // the claim of the lab's name, and nothing else
)

// ids lists the ids of things that match all filters.
func (t things) ids(ctx context.Context, filters ...string) ([]string, error) {
	text, err := docker(ctx, append(strings.Fields(t.list), filters...)...)
	return strings.Fields(text), err
}

// leftovers returns a command for each kind of things that Docker still has of a lab with one of the ids, which removes them.
// The claim of the lab's name comes last.
func leftovers(ctx context.Context, lab string, ids ...string) (remove [][]string, err error) {
	for _, kind := range []things{containers, images, networks, volumes} {
		var found []string
		for _, id := range ids {
			of, err := kind.ids(ctx, filters(lab, id)...)
			if err != nil {
				return nil, fmt.Errorf("listing what Docker has of lab %s: %w", lab, err)
			}
			found = append(found, of...)
		}
		if len(found) > 0 {
			remove = append(remove, append(strings.Fields(kind.remove), found...))
		}
	}
	return remove, nil
}

// rangeTaken describes a Docker network that has addresses of the range, or returns "".
func rangeTaken(ctx context.Context, r netip.Prefix) (string, error) {
	ids, err := networks.ids(ctx)
	if err != nil {
		return "", fmt.Errorf("listing Docker's networks: %w", err)
	}
	if len(ids) == 0 {
		return "", nil
	}
	all, err := inspect[network](ctx, "network", ids...)
	if err != nil {
		return "", fmt.Errorf("looking at Docker's networks: %w", err)
	}
	return overlaps(all, r), nil
}

// overlaps describes the first network that has addresses of the range, or returns "".
func overlaps(all []network, r netip.Prefix) string {
	for _, n := range all {
		for _, config := range n.IPAM.Config {
			if subnet, err := netip.ParsePrefix(config.Subnet); err == nil && subnet.Overlaps(r) {
				return fmt.Sprintf("the Docker network %s (%s)", n.Name, subnet)
			}
		}
	}
	return ""
}
