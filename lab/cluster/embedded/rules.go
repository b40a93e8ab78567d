package embedded

import "fmt"

// hostRules returns the rules that seal a lab: packets from its bridge to anywhere else are counted and rejected. The
// nodes have no route out either, so this is a second lock. A test reads the counter.
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
