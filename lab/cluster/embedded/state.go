package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// provider names the folder of a lab's embedded nodes.
const provider = "embedded"

// network is what a lab owns on this machine outside of its clusters.
type network struct{ machine.Network }

// The names of what a lab makes outside of namespaces. They contain a hash because a link's name has at most 15 bytes
// and an nftables name only letters, digits and underscores. They do not start like the names of network cards:
// systemd-networkd takes over links that its files match, often "Name=e*", and removes them from their bridge.
func (n network) hash() string {
	sum := sha256.Sum256([]byte(n.Lab))
	return hex.EncodeToString(sum[:])[:8]
}
func (n network) bridge() string               { return "lab-" + n.hash() }
func (n network) veth(k int) string            { return fmt.Sprintf("lab-%s-%d", n.hash(), k) }
func (n network) table() string                { return "eastwest_" + n.hash() }
func (n network) alias() string                { return "eastwest lab " + n.Lab }
func (n network) addresses() machine.Addresses { return machine.Addresses{Lab: n.Range} }
func labCgroup(lab string) string              { return "eastwest/" + lab }
func nodeCgroup(lab, name string) string       { return labCgroup(lab) + "/" + name }
func (p *Provider) labDir(l string) string     { return machine.Dir(p.Home, l, provider) }

// node is everything that a supervisor has to know. It gets it as a file in the node's folder.
type node struct {
	machine.Place
	Dir      string `json:"dir"`    // the node's folder
	Bin      string `json:"bin"`    // the bundle's programs
	CNI      string `json:"cni"`    // the bundle's CNI plugins
	Bundle   string `json:"bundle"` // the bundle's folder; the node sees it at the same path
	Pause    string `json:"pause"`  // image of the sandbox containers
	CoreDNS  string `json:"coredns"`
	Restrict bool   `json:"restrict_oom_score"`
	Egress   bool   `json:"egress"`
	// Archives are the images that a maker of prepared images unpacks; if empty, all those of the bundle.
	Archives []string `json:"archives,omitempty"`
}

func (n node) ip() netip.Addr { return n.Addresses().Node(n.Index).Addr() }
func (n node) server() string {
	return "https://" + netip.AddrPortFrom(n.ip(), machine.APIPort).String()
}
func (n node) path(p ...string) string { return filepath.Join(append([]string{n.Dir}, p...)...) }
func (n node) hostName() string        { return n.Name + "-node" }

// archiveFolders returns the folders that Archives are in.
func (n node) archiveFolders() []string {
	var all []string
	for _, archive := range n.Archives {
		all = append(all, filepath.Dir(archive))
	}
	return words.Unique(all)
}

func (p *Provider) nodeDir(lab, name string) string { return filepath.Join(p.labDir(lab), name) }
