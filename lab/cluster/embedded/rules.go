package embedded

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
)

// hostRules seal a lab: whatever comes from its bridge and wants to go on is counted and refused. The
// nodes have no route out either; this is the second lock, and the counter that a test reads.
func hostRules(n network, egress bool) string {
	verdict := "reject with icmp net-unreachable"
	nat := ""
	if egress {
		verdict = "accept"
		nat = fmt.Sprintf("chain out { type nat hook postrouting priority srcnat; ip saddr %s oifname != %q masquerade; }", n.Range, n.bridge())
	}
	return fmt.Sprintf(`table inet %[1]s {}
delete table inet %[1]s
table inet %[1]s {
	comment "eastwest lab %[2]s"
	counter leaving { }
	chain forward {
		type filter hook forward priority filter - 10;
		iifname %[3]q oifname != %[3]q counter name leaving %[4]s
		oifname %[3]q iifname != %[3]q ct state established,related accept
		oifname %[3]q iifname != %[3]q reject
	}
	%[5]s
}
`, n.table(), n.Lab, n.bridge(), verdict, nat)
}

// block is a fault of the underlay: packets from the ranges to us (to a TCP port, if one is given), and
// from us to them unless only a port is meant, are dropped.
type block struct {
	Peer string         `json:"peer"`
	From []netip.Prefix `json:"from"`
	Port uint16         `json:"port,omitempty"`
}

// nodeRules is the node's own table beside kube-proxy's: what leaves the node carries the node's address,
// except between the pods of clusters on one network (other pod ranges are not routed), Service addresses that no rule has caught get an
// error at once and never an answer from elsewhere, and the blocks of the underlay stand before everything.
// The errors come just before kube-proxy's own chains, which drop in silence what no Service has.
func nodeRules(n node, blocks map[string]block) string {
	pods, services := n.addresses().Pods(n.Index), n.addresses().Services(n.Index)
	network := []string{pods.String()}
	for _, k := range n.Neighbors {
		network = append(network, n.addresses().Pods(k).String())
	}
	var in, out []string
	for _, id := range sortedKeys(blocks) {
		b := blocks[id]
		from := make([]string, len(b.From))
		for i, p := range b.From {
			from[i] = p.String()
		}
		set := "{ " + strings.Join(from, ", ") + " }"
		if b.Port != 0 {
			in = append(in, fmt.Sprintf("ip saddr %s tcp dport %d counter drop comment %q", set, b.Port, id))
			continue
		}
		in = append(in, fmt.Sprintf("ip saddr %s counter drop comment %q", set, id))
		out = append(out, fmt.Sprintf("ip daddr %s counter drop comment %q", set, id))
	}
	return fmt.Sprintf(`table ip eastwest {}
delete table ip eastwest
table ip eastwest {
	chain blocked-in {
		type filter hook prerouting priority raw;
		%[3]s
	}
	chain blocked-out {
		type filter hook postrouting priority mangle;
		%[4]s
	}
	chain forward {
		type filter hook forward priority filter - 5;
		ip daddr %[2]s meta l4proto tcp reject with tcp reset
		ip daddr %[2]s reject with icmp port-unreachable
	}
	chain output {
		type filter hook output priority filter - 5;
		ip daddr %[2]s meta l4proto tcp reject with tcp reset
		ip daddr %[2]s reject with icmp port-unreachable
	}
	chain leave {
		type nat hook postrouting priority srcnat;
		ip saddr %[1]s ip daddr != { %[5]s } oifname "eth0" masquerade
	}
}
`, pods, services, strings.Join(in, "\n\t\t"), strings.Join(out, "\n\t\t"), strings.Join(network, ", "))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
