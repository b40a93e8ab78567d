package exam

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// entrance is a gateway of a network.
type entrance struct {
	facts.Gateway
	cluster int
	exposed []facts.Exposed // the servers of Gateway objects that select it
	config  facts.Cluster   // where its istiod reads Gateway objects
	works   bool            // nothing that was read says otherwise
}

// gateways judges the ways from one network into another.
func (e *examination) gateways(proxies []*proxy) {
	networks := map[string][]int{}
	for i, c := range e.Clusters {
		if e.served[i] != nil && c.Network != "" {
			networks[c.Network] = append(networks[c.Network], i)
		}
	}
	if len(networks) < 2 {
		return
	}
	for _, network := range slices.Sorted(maps.Keys(networks)) {
		clusters := networks[network]
		entrances := e.entrances(network, clusters)
		unread := slices.ContainsFunc(clusters, func(i int) bool { return e.unread(e.Clusters[i], facts.Services) })
		if len(entrances) == 0 && !unread {
			e.add(findings.GatewayMissing, clusters, fmt.Sprintf("network %s has no east-west gateway", network),
				Evidence{"Services of " + e.contexts(clusters...), fmt.Sprintf("none has port %d", facts.GatewayPort),
					kubectl(e.Clusters[clusters[0]].Context, "get services -A -l %s=%s", facts.NetworkLabel, network)})
		}
		for _, g := range entrances {
			e.gateway(g, entrances)
		}
		for _, i := range clusters {
			e.mixedGateways(network, of(i, entrances))
		}
		e.knownTo(network, clusters, entrances)
		for _, i := range clusters {
			e.reach(network, i, clusters, entrances, proxies)
		}
	}
}

// entrances returns the gateways of a network.
func (e *examination) entrances(network string, clusters []int) (all []entrance) {
	for _, i := range clusters {
		c := e.Clusters[i]
		config := c
		if p := e.served[i]; p != nil {
			for _, other := range e.Clusters {
				if other.ID == p.id {
					config = other
				}
			}
		}
		for _, g := range c.Gateways {
			if g.Port == 0 || cmp.Or(g.Network, network) != network {
				continue
			}
			exposed := slices.DeleteFunc(slices.Clone(config.Exposed), func(x facts.Exposed) bool {
				return x.Port != g.Port || !facts.Selects(x.Selector, g.Selector)
			})
			one := entrance{Gateway: g, cluster: i, exposed: exposed, config: config}
			one.works = len(g.Addresses) > 0 && !e.podless(one) && !e.unexposed(one) && !one.deaf() && g.Refuses == ""
			all = append(all, one)
		}
	}
	return all
}

// podless reports whether no pod of a gateway is Ready, unexposed whether no Gateway object selects it, and deaf whether it does
// not listen. What could not be read is taken for good.
func (e *examination) podless(g entrance) bool {
	return g.Pods == 0 && !e.unread(e.Clusters[g.cluster], facts.Pods)
}

func (e *examination) unexposed(g entrance) bool {
	return len(g.exposed) == 0 && !e.unread(g.config, facts.Gateways)
}

func (g entrance) deaf() bool { return g.Looked && !g.Listens }

// of returns the gateways of a cluster that have an address. For pods of the cluster istiod gives proxies of other networks
// all of these addresses in equal shares, whatever is behind them; only a cluster without any gets those of other clusters on
// its network (EndpointBuilder.selectNetworkGateways and splitWeightAmongGateways in Istio's pilot/pkg/xds/endpoints).
func of(cluster int, all []entrance) (own []entrance) {
	for _, g := range all {
		if g.cluster == cluster && len(g.Addresses) > 0 {
			own = append(own, g)
		}
	}
	return own
}

// gateway judges one gateway of a network. all are those of the network.
func (e *examination) gateway(g entrance, all []entrance) {
	c := e.Clusters[g.cluster]
	own, who := of(g.cluster, all), "the east-west gateway of "+c.Context
	if slices.ContainsFunc(all, func(o entrance) bool { return o.cluster == g.cluster && o.FullName() != g.FullName() }) {
		who = fmt.Sprintf("the east-west gateway %s of %s", g.FullName(), c.Context)
	}
	service := func(seen string) Evidence {
		command := kubectl(c.Context, "get service -n %s %s", g.Namespace, g.Name)
		return Evidence{"Service " + g.FullName() + " in " + c.Context, seen, command}
	}
	add, partly := e.add, ""
	if len(g.Addresses) == 0 {
		// Nobody is led to it: what is wrong with it besides that costs nothing while there are others.
		others := slices.ContainsFunc(all, func(o entrance) bool { return len(o.Addresses) > 0 })
		if others {
			add = e.addPartly
		}
		add(findings.GatewayNoAddress, []int{g.cluster}, who+" has no address", service("a "+g.Type+" without an address"))
		if others {
			return
		}
	} else if slices.ContainsFunc(own, func(o entrance) bool { return o.works }) {
		add = e.addPartly
		partly = fmt.Sprintf(": %s of the new connections to %s from other networks fail", share(g, own), c.Context)
	}
	if e.podless(g) {
		add(findings.GatewayPodAbsent, []int{g.cluster}, "no pod of "+who+" is Ready"+partly, service("it selects no Ready pod"))
	}
	command := kubectl(g.config.Context, "get gateways.networking.istio.io -A -o yaml")
	if e.unexposed(g) {
		add(findings.GatewayObjectMissing, []int{g.cluster}, "nothing is exposed at "+who+partly,
			Evidence{"Gateway objects in " + g.config.Context,
				fmt.Sprintf("none with AUTO_PASSTHROUGH on port %d selects it", g.Port), command})
	}
	var hosts []string
	for _, x := range g.exposed {
		hosts = append(hosts, x.Hosts...)
	}
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, everything) {
		e.add(findings.GatewayHosts, []int{g.cluster}, fmt.Sprintf("%s exposes only %s", who, some(hosts)),
			Evidence{"Gateway " + g.exposed[0].Name, "its hosts are " + words.And(words.Unique(hosts)), command})
	}
	if g.deaf() {
		add(findings.GatewayNotListening, []int{g.cluster}, fmt.Sprintf("%s does not listen on %d%s", who, facts.GatewayPort, partly),
			Evidence{"listeners of " + g.FullName(), "none on " + strconv.Itoa(facts.GatewayPort),
				e.istioctl(c.Context, "proxy-config listeners deploy/%s.%s", g.Name, g.Namespace)})
	}
	if g.Refuses != "" {
		add(findings.GatewayPassesNothing, []int{g.cluster}, who+" does not pass TLS on to services behind it"+partly,
			Evidence{"TLS handshakes through " + g.FullName(), g.Refuses,
				e.istioctl(c.Context, "proxy-config clusters deploy/%s.%s", g.Name, g.Namespace)})
	}
}

// share says which part of the new connections to a cluster goes to one of its gateways.
func share(g entrance, own []entrance) string {
	addresses := 0
	for _, o := range own {
		addresses += len(o.Addresses)
	}
	return partOf(len(g.Addresses), addresses)
}

func partOf(n, all int) string {
	if 2*n == all {
		return "about half"
	}
	return fmt.Sprintf("about %d of %d", n, all)
}

// everything reports whether a host of a Gateway object stands for all services.
func everything(host string) bool {
	host = host[strings.LastIndexByte(host, '/')+1:]
	return host == "*" || host == "*.local" || host == "*.svc.cluster.local" || host == "*.cluster.local"
}

// knownTo finds istiods of other networks that know no address of this one.
func (e *examination) knownTo(network string, clusters []int, entrances []entrance) {
	var addresses []string
	for _, g := range entrances {
		addresses = append(addresses, g.Addresses...)
	}
	if len(addresses) == 0 {
		return
	}
	for _, p := range e.planes {
		others := slices.ContainsFunc(p.serves, func(i int) bool { return e.Clusters[i].Network != network })
		if !p.reads() || !others {
			continue
		}
		var known []string
		for _, g := range p.istiod.Networks {
			if g.Network == network {
				known = append(known, g.Addr)
			}
		}
		if overlap(known, addresses) {
			continue
		}
		c := e.Clusters[p.at].Context
		seen := fmt.Sprintf("it knows %s for %s; the gateway is at %s",
			cmp.Or(words.And(words.Unique(known)), "no address"), network, words.And(words.Unique(addresses)))
		e.add(findings.GatewayUnknown, append(p.clusters(), clusters...),
			fmt.Sprintf("%s does not know the gateway of %s", e.called(p), network),
			Evidence{e.called(p), seen, e.istioctl(c, "x internal-debug networkz%s", p.debugged())})
	}
}

// reach judges whether proxies of the other networks connect to the gateways of a cluster: by connections that were tried from
// there, otherwise by what proxies have counted. If neither shows it, it is unknown.
func (e *examination) reach(network string, cluster int, clusters []int, entrances []entrance, proxies []*proxy) {
	var addresses []string
	for _, g := range of(cluster, entrances) {
		addresses = append(addresses, g.HostPorts()...)
	}
	if len(addresses) == 0 {
		return // its pods are reached through gateways of other clusters on the network, or of nobody
	}
	behind := []int{cluster}
	for _, i := range clusters {
		if len(of(i, entrances)) == 0 {
			behind = append(behind, i)
		}
	}
	for from, c := range e.Clusters {
		if e.served[from] == nil || c.Network == network || c.Network == "" {
			continue
		}
		both := append([]int{from}, behind...)
		var failed []facts.Tried
		tried := map[string]bool{}
		for _, t := range c.Tried {
			if slices.Contains(addresses, t.Address) {
				tried[t.Address] = true
				if t.Err != "" {
					failed = append(failed, t)
				}
			}
		}
		switch {
		case len(tried) == 0:
			e.counted(network, from, both, addresses, proxies)
		case len(failed) == len(tried):
			e.add(findings.GatewayUnreachable, both, e.cannotConnect(c, cluster), triedEvidence(failed[0], c.Context))
		case len(failed) > 0:
			e.addPartly(findings.GatewayUnreachable, both,
				fmt.Sprintf("proxies of %s cannot connect to %s of %s, so %s of their new connections fail",
					c.Context, failed[0].Address, e.Clusters[cluster].Context, partOf(len(failed), len(addresses))),
				triedEvidence(failed[0], c.Context))
		}
	}
}

func (e *examination) cannotConnect(from facts.Cluster, to int) string {
	return fmt.Sprintf("proxies of %s cannot connect to the gateway of %s", from.Context, e.Clusters[to].Context)
}

// counted is reach by what the proxies of a cluster have counted.
func (e *examination) counted(network string, from int, both []int, addresses []string, proxies []*proxy) {
	c, to := e.Clusters[from], both[1]
	known := func(address string) bool { return slices.Contains(addresses, address) }
	asked, through := false, false
	var witness *proxy
	failing := ""
	for _, p := range proxies {
		if p.cluster != from {
			continue
		}
		asked = asked || p.Ready && !p.Gateway
		through = through || slices.ContainsFunc(p.Through, known)
		if i := slices.IndexFunc(p.Failing, known); i >= 0 && witness == nil {
			witness, failing = p, p.Failing[i]
		}
	}
	// Envoy counts a handshake that fails as a connection that fails.
	if witness != nil && !e.distrusted(both) {
		seen := e.proxyEvidence(witness, "all its connections to "+failing+" have failed, and more failed while doctor looked")
		if through {
			says := fmt.Sprintf("proxies of %s cannot connect to %s, one of the gateways of %s", c.Context, failing, e.Clusters[to].Context)
			e.addPartly(findings.GatewayUnreachable, both, says, seen)
		} else {
			e.add(findings.GatewayUnreachable, both, e.cannotConnect(c, to), seen)
		}
		return
	}
	if asked && !through {
		e.Unread = append(e.Unread, facts.Unread{
			Cluster: c.Context, Part: facts.Reach, Object: "path to the gateway of " + network,
			Why: "no proxy there has connected to it yet, and trying it needs pods/exec and an image with curl; --probe tries it, too",
		})
	}
}

// distrusted reports whether a finding about certificates concerns one of the clusters.
func (e *examination) distrusted(clusters []int) bool {
	return slices.ContainsFunc(e.found, func(f Finding) bool {
		id, _ := findings.Find(f.ID)
		about := id != findings.GatewayUnreachable && slices.Contains(id.Doc().Needs, facts.Proxies)
		return about && f.Severity == findings.Error && slices.ContainsFunc(clusters, func(i int) bool {
			return slices.Contains(f.Clusters, e.Clusters[i].Context)
		})
	})
}
