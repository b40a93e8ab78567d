// Package machine is the part of a lab's nodes below Kubernetes that all providers of nodes share: the addresses of a
// lab, the rules that separate its clusters, the addresses of Services of type LoadBalancer, and a control socket for
// looking at a node, breaking it and dialing into it from outside.
//
// Server, Rules and LoadBalancers run inside a node, as root on Linux. Node is the same node seen from outside.
// `go test ./tests/embedded ./tests/kind` runs the package in real nodes.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// Link is the one link of a node that leads out of it.
const Link = "eth0"

// APIPort is where the API server of a node listens.
const APIPort = 6443

// VolumeRefresh is the time until a running pod sees a changed Secret or ConfigMap in its volume. The kubelet's default
// is a minute, too long for labs: most faults of trust change a Secret.
const VolumeRefresh = 2 * time.Second

// Place is a node's position in its lab.
type Place struct {
	cluster.Spec
	Range netip.Prefix `json:"range"` // of the lab
}

// Addresses returns the address plan of the lab.
func (p Place) Addresses() Addresses { return Addresses{p.Range} }

// Ranges returns all ranges of the node with the address node: its own, and those of its LoadBalancers, pods and Services.
func (p Place) Ranges(node netip.Addr) []netip.Prefix {
	a := p.Addresses()
	return []netip.Prefix{netip.PrefixFrom(node, node.BitLen()), a.LoadBalancers(p.Index), a.Pods(p.Index), a.Services(p.Index)}
}

// CNIConfig returns the file that tells containerd how to give pods their addresses.
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

// Network is what a lab owns on this machine outside its clusters. It is written down before it is made, so that a sweep
// knows what to look for.
type Network struct {
	Lab   string       `json:"lab"`
	ID    string       `json:"id,omitempty"` // see cluster.IDLabel
	Range netip.Prefix `json:"range"`
}

// networkFile returns the file in which a provider writes down a lab's network.
func networkFile(home, lab, provider string) string {
	return filepath.Join(Dir(home, lab, provider), "network.json")
}

// Dir returns the folder of the files that a provider makes for a lab.
func Dir(home, lab, provider string) string { return filepath.Join(home, "labs", lab, provider) }

// Lock serializes changes of what the labs of a home share.
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

// locks are what homes on one machine share. Tests have some of their own.
var locks = host.MachineLocks

// LockRanges serializes the choice of ranges over all homes on this machine, until a range that was chosen is in use and can
// be seen: see Plan. Users other than root cannot share a lock with root. They make networks in Docker only, which itself
// refuses one that overlaps with another of its networks.
func LockRanges(ctx context.Context, home string) (unlock func(), err error) {
	unlockHome, err := Lock(home)
	if err != nil || !shared() {
		return unlockHome, err
	}
	lock, err := locks.Take(ctx, "ranges", holder(home))
	if err != nil {
		unlockHome()
		return nil, fmt.Errorf("waiting for another eastwest that chooses a range: %w", err)
	}
	return func() {
		lock.Release()
		unlockHome()
	}, nil
}

// shared reports whether this process may take the locks of the machine.
func shared() bool { return os.Geteuid() == 0 || locks != host.MachineLocks }

// holder is what a lock says of this process.
func holder(home string) string { return fmt.Sprintf("%d %s", os.Getpid(), canonical(home)) }

// canonical returns the path of a home without symbolic links.
func canonical(home string) string {
	if path, err := filepath.EvalSymlinks(home); err == nil {
		home = path
	}
	return filepath.Clean(home)
}

// ClaimName takes the name of a lab for this process, over all homes on this machine. Where a process of another home has it,
// the error is a *cluster.TakenError; one of this home is about to end, and is waited for. Whoever is patient waits for
// all. The lock is nil for users other than root, who make nothing that has the lab's name on the machine.
func ClaimName(ctx context.Context, home, lab string, patient bool) (*host.Lock, error) {
	if !shared() {
		return nil, nil
	}
	for {
		lock, err := locks.Try("lab-"+lab, holder(home))
		var held *host.HeldError
		if !errors.As(err, &held) {
			return lock, err
		}
		pid, by, told := strings.Cut(held.By, " ")
		if told && by != canonical(home) && !patient {
			return nil, &cluster.TakenError{Lab: lab, Home: by, Seen: "process " + pid + " makes or removes it right now"}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another eastwest that works on lab %s (%s): %w", lab, held.By, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ReserveName reserves the name of a lab for a run that makes and removes labs of that name, or returns a *host.HeldError. Runs
// on one machine see each other, or, where they may not share locks, those of one home.
func ReserveName(home, lab string) (*host.Lock, error) {
	in := locks
	if !shared() {
		in = host.Locks(filepath.Join(home, "locks"))
	}
	return in.Try("run-"+lab, holder(home))
}

// ReadNetwork returns the network that Plan wrote down for a lab.
func ReadNetwork(home, lab, provider string) (n Network, err error) {
	return n, ReadJSON(networkFile(home, lab, provider), &n)
}

// ForgetNetwork lets Plan plan the lab's network again, after the range turned out to be taken.
func ForgetNetwork(home, lab, provider string) error {
	return os.Remove(networkFile(home, lab, provider))
}

// Plan returns the network that is written down for the lab. If there is none, it plans one with a range that nobody on this
// machine uses, and writes it down. wanted is a range, or empty for any free one. taken names a further owner of a range,
// or returns "". The caller holds the lock of LockRanges until the range is in use.
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
	return n, fmt.Errorf("no free address range from 10.201.0.0/16 to 10.250.0.0/16 (the last one is taken by %s): "+
		"remove a lab with `eastwest down`, or choose a range with --range", last)
}

func rangesOfLabs(home string) (map[netip.Prefix]string, error) {
	files, err := filepath.Glob(networkFile(home, "*", "*"))
	if err != nil {
		return nil, err
	}
	ranges := map[netip.Prefix]string{}
	for _, f := range files {
		var n Network
		if err := ReadJSON(f, &n); err == nil { // an unreadable one belongs to a lab that is being swept
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

// WriteDurably replaces the file at once, as WriteJSON does, and returns when the disk has it. Without that, a file system may keep the
// new name and lose the content when the machine loses its power.
func WriteDurably(path string, data []byte, mode os.FileMode) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return folder.Sync()
}
