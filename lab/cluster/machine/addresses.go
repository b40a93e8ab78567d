package machine

import (
	"fmt"
	"net/netip"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// MaxClusters is the number of clusters that fit into the address plan of one lab.
const MaxClusters = 15

// CheckIndex returns an error if the address plan has no room for the cluster.
func CheckIndex(spec cluster.Spec) error {
	if spec.Index < 1 || spec.Index > MaxClusters {
		return fmt.Errorf("cluster %s is number %d: a lab has room for %d", spec.Name, spec.Index, MaxClusters)
	}
	return nil
}

// Addresses is the plan of one lab. It is inside one /16, so that one comparison finds a collision:
//
//	10.N.0.0/20     the bridge: this machine is .0.1, node k is .0.(10+k), and 10.N.k.0/24 are the
//	                LoadBalancer addresses of cluster k, all on one link so that ARP finds them.
//	                Nodes whose addresses Docker assigns are in 10.N.0.128/25
//	10.N.(16+8(k-1)).0/21    pods of cluster k
//	10.N.(136+8(k-1)).0/21   Services of cluster k
type Addresses struct{ Lab netip.Prefix }

func (a Addresses) at(third, fourth int) netip.Addr {
	b := a.Lab.Addr().As4()
	return netip.AddrFrom4([4]byte{b[0], b[1], byte(third), byte(fourth)})
}

// Bridge returns this machine's own address on the lab's bridge.
func (a Addresses) Bridge() netip.Prefix { return netip.PrefixFrom(a.at(0, 1), 20) }

// Node returns the address of the k-th cluster's node, with the width of the bridge's network.
func (a Addresses) Node(k int) netip.Prefix { return netip.PrefixFrom(a.at(0, 10+k), 20) }

// LoadBalancers returns the pool for Services of type LoadBalancer of the k-th cluster.
func (a Addresses) LoadBalancers(k int) netip.Prefix { return netip.PrefixFrom(a.at(k, 0), 24) }

// Assigned returns the part of the bridge's network from which Docker assigns addresses to nodes.
func (a Addresses) Assigned() netip.Prefix { return netip.PrefixFrom(a.at(0, 128), 25) }

// Gateway returns an address of the k-th node that is known before the node exists: the one of its pool that no Service gets.
func (a Addresses) Gateway(k int) netip.Addr { return a.LoadBalancers(k).Addr() }

// Pods returns the range of the k-th cluster's pods.
func (a Addresses) Pods(k int) netip.Prefix { return netip.PrefixFrom(a.at(16+8*(k-1), 0), 21) }

// Services returns the range of the k-th cluster's Services.
func (a Addresses) Services(k int) netip.Prefix { return netip.PrefixFrom(a.at(136+8*(k-1), 0), 21) }

// APIService returns the Service address of the k-th cluster's API server, the first of the range.
func (a Addresses) APIService(k int) netip.Addr { return a.at(136+8*(k-1), 1) }

// DNSService returns the Service address of the k-th cluster's DNS server, the tenth of the range.
func (a Addresses) DNSService(k int) netip.Addr { return a.at(136+8*(k-1), 10) }

// ParseRange reads a lab's range.
func ParseRange(s string) (Addresses, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Bits() != 16 || !p.Addr().Is4() || p.Masked() != p || !p.Addr().IsPrivate() {
		return Addresses{}, fmt.Errorf("the lab's range %q: wanted a private IPv4 /16 such as 10.201.0.0/16", s)
	}
	return Addresses{p}, nil
}
