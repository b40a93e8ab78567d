package doctor

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// discovery looks at what each istiod reads of the other clusters.
func (e *exam) discovery() {
	for i, c := range e.Clusters {
		if c.Down != "" {
			e.add("api-server-unreachable", "", []int{i}, fmt.Sprintf("the API server of %s does not answer", c.Context),
				Evidence{"API server " + c.Server, c.Down, fmt.Sprintf("kubectl --context=%s get --raw /readyz", c.Context)})
		}
	}
	e.cut()
	e.twice()
	for _, p := range e.planes {
		e.remotes(p)
	}
}

// cut finds clusters from which no way leads to another one: neither to a gateway of it nor to its API server.
func (e *exam) cut() {
	for from, c := range e.Clusters {
		for to, other := range e.Clusters {
			if from == to || other.Down != "" {
				continue
			}
			ways := map[string]bool{}
			for _, g := range other.Gateways {
				for _, way := range g.ways() {
					ways[way] = true
				}
			}
			for _, s := range c.Remotes {
				if s.ID == other.ID {
					ways[s.address()] = true
				}
			}
			var evidence []Evidence
			for _, t := range c.Tried {
				if ways[t.Address] && t.Err != "" {
					evidence = append(evidence, t.evidence(c.Context))
				}
			}
			if len(evidence) > 1 && len(evidence) == len(ways) {
				e.add("cluster-cut-off", "", []int{from, to}, fmt.Sprintf("nothing gets from %s to %s", c.Context, other.Context), evidence...)
			}
		}
	}
}

// twice finds clusters that have one name.
func (e *exam) twice() {
	byID := map[string][]int{}
	for i, c := range e.Clusters {
		if c.ID != "" && e.served[i] != nil {
			byID[c.ID] = append(byID[c.ID], i)
		}
	}
	for _, name := range keys(byID) {
		if its := byID[name]; len(its) > 1 {
			e.add("cluster-name-twice", "", its, fmt.Sprintf("%s have one name, %s", e.contexts(its...), name),
				Evidence{"ISTIO_META_CLUSTER_ID of proxies", name + " in " + e.contexts(its...), ""})
		}
	}
}

// secretsAt is the cluster in which a plane's istiod reads remote secrets.
func (e *exam) secretsAt(p *plane) Cluster {
	if p.env("LOCAL_CLUSTER_SECRET_WATCHER") != "true" {
		for _, c := range e.Clusters {
			if c.ID == p.id && c.ID != "" {
				return c
			}
		}
	}
	return e.Clusters[p.at]
}

func (e *exam) remotes(p *plane) {
	at := e.secretsAt(p)
	if e.unread(at, Secrets) {
		return
	}
	here := e.Clusters[p.at].Context
	evidence := func(s RemoteSecret, seen string) Evidence {
		return Evidence{"Secret " + s.Name + " in " + at.Context, seen, fmt.Sprintf("kubectl --context=%s get secret %s -n %s -o yaml", at.Context, s.Name, mesh.SystemNamespace)}
	}
	has := map[string]bool{}
	for _, s := range at.Remotes {
		leads := slices.IndexFunc(e.Clusters, func(c Cluster) bool { return c.UID != "" && c.UID == s.UID })
		both := append([]int{}, p.all()...)
		if leads >= 0 {
			both = append(both, leads)
		}
		switch {
		case s.ID == p.id && (leads < 0 || e.Clusters[leads].ID != p.id):
			e.add("cluster-name-twice", "", both, fmt.Sprintf("the remote secret %s in %s carries the name of the cluster that its istiod serves, %s, and is ignored", s.Name, at.Context, s.ID),
				append([]Evidence{evidence(s, fmt.Sprintf("its cluster is %s, its server %s", s.ID, s.Server))}, logEvidence(e.Clusters[p.at], "ignoring cluster as it would overwrite")...)...)
			continue
		case leads >= 0 && e.Clusters[leads].ID != "" && e.Clusters[leads].ID != s.ID:
			e.add("remote-secret-name", "", both, fmt.Sprintf("the remote secret %s in %s is named %s and leads to %s", s.Name, at.Context, s.ID, e.Clusters[leads].ID), evidence(s, "its server is "+s.Server))
			continue
		}
		has[s.ID] = true
		status := ""
		if p.istiod != nil {
			status = p.istiod.Clusters[s.ID]
		}
		target := slices.IndexFunc(e.Clusters, func(c Cluster) bool { return c.ID == s.ID })
		if target >= 0 {
			both = append(both, target)
		}
		for i, c := range e.Clusters {
			if target < 0 && c.Down != "" && c.ID == "" { // nobody can say that it is another one
				both = append(both, i)
			}
		}
		ended := !s.Expires.IsZero() && e.Taken.After(s.Expires)
		tried := e.Clusters[p.at].Tried
		inside := slices.IndexFunc(tried, func(t Tried) bool { return t.Address == s.address() })
		watch := e.watch(p, s.ID)
		failing := e.Taken.Sub(watch.Last) < watchesRecent
		seen := []Evidence{}
		if failing {
			seen = append(seen, Evidence{"log of istiod in " + here, fmt.Sprintf("%s ago reading %s failed, for the first time %s ago: %s%s", age(e.Taken.Sub(watch.Last)), s.ID, age(e.Taken.Sub(watch.First)), watch.Why, p.errors(s.ID)),
				fmt.Sprintf("kubectl --context=%s logs -n %s deployment/istiod | grep 'watch error in cluster %s'", here, mesh.SystemNamespace, s.ID)})
		}
		switch {
		case loopback(s.Server):
			e.add("remote-secret-loopback", "", both, fmt.Sprintf("the remote secret for %s in %s leads to %s, which is the machine that asks", s.ID, at.Context, s.Server), evidence(s, "its server is "+s.Server))
		case s.Refused != "" || ended:
			seen := s.Refused
			if ended {
				seen = strings.TrimSpace(fmt.Sprintf("its token ended %s ago %s", age(e.Taken.Sub(s.Expires)), seen))
			}
			e.add("remote-secret-token", "", both, fmt.Sprintf("the remote secret for %s in %s is not let in", s.ID, at.Context), evidence(s, seen))
		case len(s.Denied) > 0:
			e.add("remote-secret-rights", "", both, fmt.Sprintf("the remote secret for %s in %s may not list %s", s.ID, at.Context, words(s.Denied)), evidence(s, "it was asked with its own credentials"))
		case (s.Reach != "" || s.Problem != "") && p.istiod != nil && p.istiod.Read && (status != "synced" || failing), inside >= 0 && tried[inside].Err != "":
			if inside >= 0 {
				seen = append(seen, tried[inside].evidence(here))
			}
			if why := cmp.Or(s.Reach, s.Problem); why != "" {
				seen = append(seen, evidence(s, "used from here: "+why))
			}
			e.add("remote-secret-unreachable", "", both, fmt.Sprintf("%s, to which the remote secret for %s in %s leads, does not answer", s.Server, s.ID, at.Context), append(seen, clusterz(p, here, s.ID, status))...)
		case s.Reach != "" && inside < 0:
			e.Unread = append(e.Unread, Unread{at.Context, Remote, "Secret " + s.Name, "its server does not answer here, where istiod may reach it: " + s.Reach})
		case s.Problem != "":
			e.Unread = append(e.Unread, Unread{at.Context, Remote, "Secret " + s.Name, s.Problem})
		case p.istiod != nil && p.istiod.Read && status != "synced":
			e.add("remote-cluster-not-synced", "", both, fmt.Sprintf("istiod of %s is not in sync with %s", here, s.ID), append(seen, clusterz(p, here, s.ID, status))...)
		case failing && watch.Last.Sub(watch.First) > watchesLasting:
			e.add("remote-watch-failing", "", both, fmt.Sprintf("istiod of %s has failed to read %s for %s, which answers here", here, s.ID, age(e.Taken.Sub(watch.First))), append(seen, clusterz(p, here, s.ID, status))...)
		case failing:
			e.add("remote-watch-failing", Info, both, fmt.Sprintf("istiod of %s failed to read %s %s ago, which answers here: it may be over", here, s.ID, age(e.Taken.Sub(watch.Last))), seen...)
		}
		if !s.Expires.IsZero() && !ended && s.Expires.Sub(e.Taken) < tokenEndsSoon {
			e.add("remote-secret-expires", "", both, fmt.Sprintf("the token of the remote secret for %s in %s ends in %s", s.ID, at.Context, age(s.Expires.Sub(e.Taken))), evidence(s, "it ends at "+s.Expires.String()))
		}
	}
	for i, c := range e.Clusters {
		other := e.served[i]
		if other == nil || c.ID == "" || c.ID == p.id {
			continue
		}
		both := append(p.all(), i)
		if !has[c.ID] {
			e.add("remote-secret-missing", "", both, fmt.Sprintf("istiod of %s has no access to %s", here, c.Context),
				Evidence{"remote secrets in " + at.Context, fmt.Sprintf("none is for %s", c.ID), fmt.Sprintf("kubectl --context=%s get secrets -n %s -l istio/multiCluster=true", at.Context, mesh.SystemNamespace)})
		}
		if other == p || p.istiod == nil || !p.istiod.Read || other.istiod == nil || !other.istiod.Read {
			continue // nobody to compare with
		}
		if theirs, ours := total(other.istiod, c.ID), total(p.istiod, c.ID); theirs > 0 && ours == 0 {
			e.add("endpoints-missing", "", both, fmt.Sprintf("istiod of %s knows no endpoint of %s", here, c.Context),
				Evidence{"istiod of " + here, fmt.Sprintf("0 endpoints of %s; its own istiod knows %d", c.ID, theirs), endpointShardz(here)})
			continue
		}
		e.someEndpoints(p, other, i)
		e.placed(p, i)
	}
}

func endpointShardz(context string) string {
	return fmt.Sprintf("istioctl --context=%s x internal-debug endpointShardz", context)
}

// someEndpoints finds services of whose endpoints in a cluster its own istiod knows, and the other one does not.
func (e *exam) someEndpoints(p, other *plane, cluster int) {
	c, here := e.Clusters[cluster], e.Clusters[p.at].Context
	var lacking []string
	for _, key := range keys(other.istiod.Endpoints) {
		if other.istiod.Endpoints[key][c.ID] > 0 && p.istiod.Endpoints[key][c.ID] == 0 {
			lacking = append(lacking, key)
		}
	}
	if len(lacking) > 0 {
		e.add("endpoints-missing", Warning, append(p.all(), cluster), fmt.Sprintf("istiod of %s knows no endpoint of %s in %s", here, some(lacking), c.Context),
			Evidence{"istiod of " + here, fmt.Sprintf("0 endpoints of %s in %s; its own istiod knows %d", lacking[0], c.ID, other.istiod.Endpoints[lacking[0]][c.ID]), endpointShardz(here)})
	}
}

// placed looks on which network an istiod puts the endpoints of another cluster: that decides whether its proxies get
// the address of the pod or that of the gateway.
func (e *exam) placed(p *plane, cluster int) {
	c, here := e.Clusters[cluster], e.Clusters[p.at].Context
	if c.Network == "" {
		return
	}
	for _, network := range keys(p.istiod.Placed[c.ID]) {
		n := p.istiod.Placed[c.ID][network]
		if network == c.Network || slices.ContainsFunc(c.Proxies, func(x Proxy) bool { return x.Network == network }) {
			continue // as its own proxies say
		}
		e.add("endpoints-network", "", append(p.all(), cluster), fmt.Sprintf("istiod of %s puts %s of %s on %s, where its proxies are on network %s", here, plural(n, "endpoint"), c.Context, cmp.Or("network "+network, "no network"), c.Network),
			Evidence{"istiod of " + here, fmt.Sprintf("endpoints of %s with network %q", c.ID, network), endpointShardz(here)})
	}
}

// Errors of reading another cluster come at most a minute apart while it lasts (client-go's reflector waits up to
// 30 s, and as long again at random).
const (
	watchesRecent  = 90 * time.Second
	watchesLasting = 60 * time.Second
)

// watch is what the pods of an istiod say of reading a cluster, the last of them.
func (e *exam) watch(p *plane, cluster string) (last Watch) {
	for _, i := range e.Clusters[p.at].Istiods {
		if w := i.Watches[cluster]; w.Last.After(last.Last) {
			last = w
		}
	}
	return last
}

// errors is what the newest Ready istiod has counted of failed lists and watches of a cluster.
func (p *plane) errors(cluster string) string {
	if p.istiod == nil || p.istiod.Errors[cluster] == 0 {
		return ""
	}
	return fmt.Sprintf("; controller_sync_errors_total is %d", p.istiod.Errors[cluster])
}

func clusterz(p *plane, context, id, status string) Evidence {
	if p.istiod == nil {
		return Evidence{"istiod of " + context, "no pod of it answers", ""}
	}
	return Evidence{"istiod pod " + p.istiod.Pod, fmt.Sprintf("it says that %s is %s", id, cmp.Or(status, "not among its clusters")), "istioctl remote-clusters --context=" + context}
}

func total(i *Istiod, cluster string) (n int) {
	for _, its := range i.Endpoints {
		n += its[cluster]
	}
	return n
}

func loopback(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return a.IsLoopback() || a.IsUnspecified()
	}
	return u.Hostname() == "localhost"
}

// path looks at the way from one network into another.
func (e *exam) path(proxies []*proxy) {
	networks := map[string][]int{}
	for i, c := range e.Clusters {
		if e.served[i] != nil && c.Network != "" {
			networks[c.Network] = append(networks[c.Network], i)
		}
	}
	if len(networks) < 2 {
		return
	}
	for _, network := range keys(networks) {
		its, there := networks[network], 0
		var addresses []string
		for _, i := range its {
			for _, g := range e.Clusters[i].Gateways {
				if g.Port == 0 || cmp.Or(g.Network, network) != network {
					continue
				}
				there++
				addresses = append(addresses, g.Addresses...)
				e.gateway(i, g)
			}
		}
		unread := slices.ContainsFunc(its, func(i int) bool { return e.unread(e.Clusters[i], Services) })
		if there == 0 && !unread {
			e.add("gateway-missing", "", its, fmt.Sprintf("network %s has no east-west gateway", network),
				Evidence{"Services of " + e.contexts(its...), fmt.Sprintf("none has port %d", gatewayTLSPort), fmt.Sprintf("kubectl --context=%s get services -A -l %s=%s", e.Clusters[its[0]].Context, networkLabel, network)})
		}
		if there > 0 && len(addresses) > 0 {
			e.knownTo(network, its, addresses)
			e.reach(network, its, addresses, proxies)
		}
	}
}

func (e *exam) gateway(i int, g Gateway) {
	c := e.Clusters[i]
	evidence := func(seen string) Evidence {
		return Evidence{"Service " + g.Namespace + "/" + g.Name + " in " + c.Context, seen, fmt.Sprintf("kubectl --context=%s get service -n %s %s", c.Context, g.Namespace, g.Name)}
	}
	if len(g.Addresses) == 0 {
		e.add("gateway-no-address", "", []int{i}, fmt.Sprintf("the east-west gateway of %s has no address", c.Context), evidence("a "+g.Type+" without an address"))
	}
	if g.Pods == 0 && !e.unread(c, Pods) {
		e.add("gateway-pod-absent", "", []int{i}, fmt.Sprintf("no pod of the east-west gateway of %s is Ready", c.Context), evidence("it selects no Ready pod"))
	}
	config := c
	if p := e.served[i]; p != nil {
		for _, other := range e.Clusters {
			if other.ID == p.id {
				config = other
			}
		}
	}
	exposed := slices.DeleteFunc(slices.Clone(config.Exposed), func(x Exposed) bool { return x.Port != g.Port || !matches(x.Selector, g.Labels) })
	command := fmt.Sprintf("kubectl --context=%s get gateways.networking.istio.io -A -o yaml", config.Context)
	if len(exposed) == 0 && !e.unread(config, Gateways) {
		e.add("gateway-object-missing", "", []int{i}, fmt.Sprintf("nothing is exposed at the east-west gateway of %s", c.Context),
			Evidence{"Gateway objects in " + config.Context, fmt.Sprintf("none with AUTO_PASSTHROUGH on port %d selects it", g.Port), command})
	}
	var hosts []string
	for _, x := range exposed {
		hosts = append(hosts, x.Hosts...)
	}
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, everything) {
		e.add("gateway-hosts", "", []int{i}, fmt.Sprintf("the east-west gateway of %s exposes %s only", c.Context, some(hosts)), Evidence{"Gateway " + exposed[0].Name, "its hosts are " + words(hosts), command})
	}
	if g.Looked && !g.Listens {
		e.add("gateway-not-listening", "", []int{i}, fmt.Sprintf("the east-west gateway of %s does not listen on %d", c.Context, gatewayTLSPort),
			Evidence{"listeners of " + g.Namespace + "/" + g.Name, "none on " + strconv.Itoa(gatewayTLSPort), fmt.Sprintf("istioctl --context=%s proxy-config listeners deploy/%s.%s", c.Context, g.Name, g.Namespace)})
	}
	if g.Refuses != "" {
		e.add("gateway-passes-nothing", "", []int{i}, fmt.Sprintf("the east-west gateway of %s does not pass TLS on to services behind it", c.Context),
			Evidence{"TLS handshakes through " + g.Namespace + "/" + g.Name, g.Refuses, fmt.Sprintf("istioctl --context=%s proxy-config clusters deploy/%s.%s", c.Context, g.Name, g.Namespace)})
	}
}

// everything says whether a host of a Gateway object stands for all services.
func everything(host string) bool {
	_, host, _ = strings.Cut("/"+host[strings.LastIndexByte(host, '/')+1:], "/")
	return host == "*" || host == "*.local" || host == "*.svc.cluster.local" || host == "*.cluster.local"
}

// knownTo looks whether the istiods of other networks know a way into this one.
func (e *exam) knownTo(network string, its []int, addresses []string) {
	for _, p := range e.planes {
		if p.istiod == nil || !p.istiod.Read || !slices.ContainsFunc(p.serves, func(i int) bool { return e.Clusters[i].Network != network }) {
			continue
		}
		var known []string
		for _, g := range p.istiod.Networks {
			if g.Network == network {
				known = append(known, g.Addr)
			}
		}
		if slices.ContainsFunc(known, func(a string) bool { return slices.Contains(addresses, a) }) {
			continue
		}
		c := e.Clusters[p.at].Context
		e.add("gateway-unknown", "", append(p.all(), its...), fmt.Sprintf("istiod of %s does not know the gateway of %s", c, network),
			Evidence{"istiod of " + c, fmt.Sprintf("it knows %s for %s; the gateway is at %s", cmp.Or(words(known), "no address"), network, words(addresses)), fmt.Sprintf("istioctl --context=%s x internal-debug networkz", c)})
	}
}

// reach looks whether proxies of each other network get through to the gateway: by a connection that was tried from
// there, or else by what they have counted. Where neither tells, it is not known.
func (e *exam) reach(network string, its []int, addresses []string, proxies []*proxy) {
	of := func(address string) bool {
		host, _, err := net.SplitHostPort(address)
		return err == nil && slices.Contains(addresses, host)
	}
	for from, c := range e.Clusters {
		if e.served[from] == nil || c.Network == network || c.Network == "" {
			continue
		}
		says := fmt.Sprintf("proxies of %s do not get through to the gateway of %s", c.Context, network)
		tried := slices.DeleteFunc(slices.Clone(c.Tried), func(t Tried) bool { return !of(t.Address) })
		if len(tried) > 0 {
			if !slices.ContainsFunc(tried, func(t Tried) bool { return t.Err == "" }) {
				e.add("gateway-unreachable", "", append([]int{from}, its...), says, tried[0].evidence(c.Context))
			}
			continue
		}
		asked, through := false, false
		for _, p := range proxies {
			if p.cluster != from {
				continue
			}
			asked = asked || p.Ready && !p.Gateway
			through = through || slices.ContainsFunc(p.Through, of)
			// A handshake that fails is counted as a connection that fails.
			if i := slices.IndexFunc(p.Failing, of); i >= 0 && !e.distrusted(from, its) {
				e.add("gateway-unreachable", "", append([]int{from}, its...), says, e.proxyEvidence(p, "all its connections to "+p.Failing[i]+" fail, and more have failed while we looked"))
				through = true // it is known
				break
			}
		}
		if asked && !through {
			e.Unread = append(e.Unread, Unread{c.Context, Reach, "way to the gateway of " + network, "no proxy there has been connected to it yet, and trying it needs pods/exec and an image with curl; --probe tries it, too"})
		}
	}
}

// distrusted says whether a finding about certificates concerns the cluster or one of the others.
func (e *exam) distrusted(cluster int, others []int) bool {
	return slices.ContainsFunc(e.found, func(f Finding) bool {
		return f.Severity == Error && slices.Contains(e.kinds[f.ID].Needs, Proxies) && slices.ContainsFunc(append([]int{cluster}, others...), func(i int) bool {
			return slices.Contains(f.Clusters, e.Clusters[i].Context)
		})
	})
}

// startsWithin is how long a pod may take to become Ready.
const startsWithin = 15 * time.Second

func (e *exam) starting() {
	for i, c := range e.Clusters {
		var who []string
		why := ""
		for _, s := range c.Stuck {
			if slices.ContainsFunc(c.Proxies, func(p Proxy) bool { return p.Name() == s.Pod && e.Taken.Sub(p.Created) > startsWithin }) {
				who, why = append(who, s.Pod), s.Why
			}
		}
		if len(who) > 0 && e.served[i] != nil {
			space, name, _ := strings.Cut(who[len(who)-1], "/")
			e.add("pods-not-starting", "", []int{i}, fmt.Sprintf("%s in %s %s not Ready", some(who), c.Context, either(len(who), "is", "are")),
				Evidence{"pod " + space + "/" + name, why, fmt.Sprintf("kubectl --context=%s describe pod -n %s %s", c.Context, space, name)})
		}
	}
}

// probes looks at the calls that doctor has made.
func (e *exam) probes() {
	for _, call := range e.Calls {
		if call.Err == "" {
			continue
		}
		var both []int
		for i, c := range e.Clusters {
			if c.Context == call.From || c.Context == call.To {
				both = append(both, i)
			}
		}
		e.add("probe-failed", "", both, fmt.Sprintf("a call from %s to %s failed", call.From, call.To), Evidence{call.URL, call.Err, ""})
	}
}
