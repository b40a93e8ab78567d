// Package machine is what the nodes of a lab have below Kubernetes, whichever provider makes them: the addresses of a
// lab, the rules that keep its clusters apart, the addresses of Services of type LoadBalancer, and a control socket by
// which the outside looks at a node, breaks it and dials into it.
//
// Server, Rules and LoadBalancers run inside a node, which is Linux and root there; Underlay is the outside's end.
// `go test ./tests/embedded ./tests/kind` runs it in real nodes.
package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// Link is the one link of a node that leads out of it.
const Link = "eth0"

// APIPort is where the API server of a node listens.
const APIPort = 6443

// VolumeRefresh is how soon a changed Secret or ConfigMap is seen in a running pod's volume. The kubelet's own default
// is a minute, and most faults of trust are a changed Secret.
const VolumeRefresh = 2 * time.Second

// Place is where a node stands in its lab.
type Place struct {
	cluster.Spec
	Range netip.Prefix `json:"range"` // of the lab
}

// Addresses is the plan of the lab.
func (p Place) Addresses() Addresses { return Addresses{p.Range} }

// Ranges lists every range that is the node's, whose own address is node.
func (p Place) Ranges(node netip.Addr) []netip.Prefix {
	a := p.Addresses()
	return []netip.Prefix{netip.PrefixFrom(node, node.BitLen()), a.LoadBalancers(p.Index), a.Pods(p.Index), a.Services(p.Index)}
}

// CNIConfig is the file by which containerd gives pods their addresses.
func (p Place) CNIConfig() string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0", "name": "eastwest",
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
`, p.Addresses().Pods(p.Index))
}

// Network is what a lab owns on this machine outside its clusters. It is written down before anything of it is made, so
// that a sweep knows what to look for.
type Network struct {
	Lab   string       `json:"lab"`
	ID    string       `json:"id,omitempty"` // of the lab, where names are not enough
	Range netip.Prefix `json:"range"`
}

// networkFile is where a provider has written down a lab's network.
func networkFile(home, lab, provider string) string {
	return filepath.Join(Dir(home, lab, provider), "network.json")
}

// Dir is the folder of what a provider has made for a lab.
func Dir(home, lab, provider string) string { return filepath.Join(home, "labs", lab, provider) }

// Lock serializes everything that changes what labs share of this machine, over all processes of this user.
func Lock(home string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(home, "labs"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of labs: %w", err)
	}
	l := flock.New(filepath.Join(home, "labs", ".lock"))
	if err := l.Lock(); err != nil {
		return nil, fmt.Errorf("locking the folder of labs: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// ReadNetwork returns the network that Plan has written down for a lab.
func ReadNetwork(home, lab, provider string) (n Network, err error) {
	return n, ReadJSON(networkFile(home, lab, provider), &n)
}

// Plan finds the lab's network, or plans one for a lab with that id whose range nobody on this machine uses, and writes
// it down. Wanted is a range, or empty for one that is free; taken tells who else has a range, or "". Call it with the lock.
func Plan(home, lab, id, provider, wanted string, taken func(netip.Prefix) (string, error)) (Network, error) {
	switch n, err := ReadNetwork(home, lab, provider); {
	case err == nil:
		return n, nil
	case !errors.Is(err, fs.ErrNotExist):
		return n, err
	}
	n, file := Network{Lab: lab, ID: id}, networkFile(home, lab, provider)
	labs, err := rangesOfLabs(home)
	if err != nil {
		return n, err
	}
	owner := func() (string, error) {
		if lab, ok := labs[n.Range]; ok {
			return "lab " + lab, nil
		}
		if by, err := host.RangeTaken(n.Range); err != nil || by != "" {
			return by, err
		}
		return taken(n.Range)
	}
	if wanted != "" {
		plan, err := ParseRange(wanted)
		if err != nil {
			return n, err
		}
		n.Range = plan.Lab
		by, err := owner()
		if err != nil {
			return n, err
		}
		if by != "" {
			return n, fmt.Errorf("the range %s is taken by %s: choose another /16 or leave it to eastwest", plan.Lab, by)
		}
		return n, WriteJSON(file, n)
	}
	var last string
	for second := 201; second <= 250; second++ {
		n.Range = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16)
		if last, err = owner(); err != nil {
			return n, err
		}
		if last == "" {
			return n, WriteJSON(file, n)
		}
	}
	return n, fmt.Errorf(
		"no free address range from 10.201.0.0/16 to 10.250.0.0/16 (the last one is taken by %s): remove a lab with `eastwest down`, or "+
			"give one with --range",
		last,
	)
}

func rangesOfLabs(home string) (map[netip.Prefix]string, error) {
	files, err := filepath.Glob(networkFile(home, "*", "*"))
	if err != nil {
		return nil, err
	}
	ranges := map[netip.Prefix]string{}
	for _, f := range files {
		var n Network
		if err := ReadJSON(f, &n); err == nil { // a half-written one belongs to a lab that is being swept
			ranges[n.Range] = n.Lab
		}
	}
	return ranges, nil
}

// ReadJSON reads a file that WriteJSON has written.
func ReadJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// WriteJSON replaces the file at once, so that a reader never sees half of it.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
