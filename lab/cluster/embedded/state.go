package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/host"
)

// network is what a lab owns on this machine outside its clusters. It is written down before anything
// of it is made, so that a sweep knows what to look for.
type network struct {
	Lab   string       `json:"lab"`
	Range netip.Prefix `json:"range"`
}

// The names of what a lab makes outside namespaces. Link names are short (15 bytes) and nftables names
// know only letters, digits and underscores, hence the hash.
func (n network) hash() string {
	sum := sha256.Sum256([]byte(n.Lab))
	return hex.EncodeToString(sum[:])[:8]
}
func (n network) bridge() string           { return "ew-" + n.hash() }
func (n network) veth(k int) string        { return fmt.Sprintf("ew-%s-%d", n.hash(), k) }
func (n network) table() string            { return "eastwest_" + n.hash() }
func (n network) alias() string            { return "eastwest lab " + n.Lab }
func (n network) addresses() Addresses     { return Addresses{n.Range} }
func labCgroup(lab string) string          { return "eastwest/" + lab }
func nodeCgroup(lab, name string) string   { return labCgroup(lab) + "/" + name }
func (p *Provider) labDir(l string) string { return filepath.Join(p.Home, "labs", l, "embedded") }
func (p *Provider) networkFile(l string) string {
	return filepath.Join(p.labDir(l), "network.json")
}

// node is everything a supervisor must know; it is handed over as a file in the node's folder.
type node struct {
	cluster.Spec
	Range    netip.Prefix `json:"range"`
	Dir      string       `json:"dir"`    // the node's folder
	Bin      string       `json:"bin"`    // the bundle's programs
	CNI      string       `json:"cni"`    // the bundle's CNI plugins
	Bundle   string       `json:"bundle"` // the bundle's folder, seen by the node at the same path
	Pause    string       `json:"pause"`  // image of the sandbox container
	CoreDNS  string       `json:"coredns"`
	Restrict bool         `json:"restrict_oom_score"`
	Egress   bool         `json:"egress"`
}

func (n node) addresses() Addresses    { return Addresses{n.Range} }
func (n node) ip() netip.Addr          { return n.addresses().Node(n.Index).Addr() }
func (n node) server() string          { return "https://" + netip.AddrPortFrom(n.ip(), 6443).String() }
func (n node) path(p ...string) string { return filepath.Join(append([]string{n.Dir}, p...)...) }
func (n node) hostName() string        { return n.Name + "-node" }

func (p *Provider) nodeDir(lab, name string) string { return filepath.Join(p.labDir(lab), name) }

// lock serializes everything that changes what is outside namespaces, over all processes of this user.
func (p *Provider) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(p.Home, "labs"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of labs: %w", err)
	}
	l := flock.New(filepath.Join(p.Home, "labs", ".lock"))
	if err := l.Lock(); err != nil {
		return nil, fmt.Errorf("locking the folder of labs: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// network finds the lab's network or plans one whose range nobody on this machine uses.
func (p *Provider) network(lab string) (network, error) {
	var n network
	switch err := readJSON(p.networkFile(lab), &n); {
	case err == nil:
		return n, nil
	case !errors.Is(err, fs.ErrNotExist):
		return n, err
	}
	taken, err := p.rangesOfLabs()
	if err != nil {
		return n, err
	}
	n.Lab = lab
	if p.Range != "" {
		plan, err := parseLabRange(p.Range)
		if err != nil {
			return n, err
		}
		n.Range = plan.Lab
		owner, err := whoHas(plan.Lab, taken)
		if err != nil {
			return n, err
		}
		if owner != "" {
			return n, fmt.Errorf("the range %s is taken by %s: choose another /16 or leave it to eastwest", plan.Lab, owner)
		}
		return n, nil
	}
	var last string
	for second := 201; second <= 250; second++ {
		n.Range = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16)
		if last, err = whoHas(n.Range, taken); err != nil || last == "" {
			return n, err
		}
	}
	return n, fmt.Errorf("no free address range from 10.201.0.0/16 to 10.250.0.0/16 (the last one is taken by %s): remove a lab with `eastwest down`, or give one with --range", last)
}

func whoHas(r netip.Prefix, labs map[netip.Prefix]string) (string, error) {
	if lab, ok := labs[r]; ok {
		return "lab " + lab, nil
	}
	return host.RangeTaken(r)
}

func (p *Provider) rangesOfLabs() (map[netip.Prefix]string, error) {
	files, err := filepath.Glob(p.networkFile("*"))
	if err != nil {
		return nil, err
	}
	ranges := map[netip.Prefix]string{}
	for _, f := range files {
		var n network
		if err := readJSON(f, &n); err == nil { // a half-written one belongs to a lab that is being swept
			ranges[n.Range] = n.Lab
		}
	}
	return ranges, nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file at once, so that a reader never sees half of it.
func writeJSON(path string, v any) error {
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
