package machine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Block is a fault of the underlay. Without a port, it drops all packets from the ranges to this node, and from this node
// to the ranges. With a port, it drops packets from the ranges to this TCP port only.
type Block struct {
	Peer string         `json:"peer"`
	From []netip.Prefix `json:"from"`
	Port uint16         `json:"port,omitempty"`
}

// Rules returns a node's nftables table, which exists beside that of kube-proxy:
//
//   - Packets that leave the node carry the node's address, except between pods of clusters on one network. Other pod
//     ranges are not routed.
//   - Packets to a Service address that no Service has get an error at once, never an answer from elsewhere. These rules
//     come just before the chains of kube-proxy, which would drop such packets silently.
//   - The blocks of the underlay come before everything else.
func Rules(n Place, blocks map[string]Block) string {
	pods, services := n.Addresses().Pods(n.Index), n.Addresses().Services(n.Index)
	network := []string{pods.String()}
	for _, k := range n.Neighbors {
		network = append(network, n.Addresses().Pods(k).String())
	}
	var in, out []string
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
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
