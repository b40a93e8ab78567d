package doctor

import (
	"cmp"
	"fmt"
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
	e.twice()
	for _, p := range e.planes {
		e.remotes(p)
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
		ended := !s.Expires.IsZero() && e.Taken.After(s.Expires)
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
		case (s.Reach != "" || s.Problem != "") && p.istiod != nil && p.istiod.Read && status != "synced":
			e.add("remote-secret-unreachable", "", both, fmt.Sprintf("%s, to which the remote secret for %s in %s leads, does not answer", s.Server, s.ID, at.Context),
				evidence(s, cmp.Or(s.Reach, s.Problem)), clusterz(p, here, s.ID, status))
		case s.Reach != "":
			e.Unread = append(e.Unread, Unread{at.Context, Remote, "Secret " + s.Name, "its server does not answer here, where istiod may reach it: " + s.Reach})
		case s.Problem != "":
			e.Unread = append(e.Unread, Unread{at.Context, Remote, "Secret " + s.Name, s.Problem})
		case p.istiod != nil && p.istiod.Read && status != "synced":
			e.add("remote-cluster-not-synced", "", both, fmt.Sprintf("istiod of %s is not in sync with %s", here, s.ID), clusterz(p, here, s.ID, status))
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
				Evidence{"istiod of " + here, fmt.Sprintf("0 endpoints of %s; its own istiod knows %d", c.ID, theirs), fmt.Sprintf("istioctl --context=%s x internal-debug endpointShardz", here)})
		}
	}
}

func clusterz(p *plane, context, id, status string) Evidence {
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
			e.failing(network, its, addresses, proxies)
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

// failing looks for proxies of other networks that do not get through, and says what is not known where the address
// does not answer here and nobody has tried.
func (e *exam) failing(network string, its []int, addresses []string, proxies []*proxy) {
	tried := false
	for _, p := range proxies {
		c := e.Clusters[p.cluster]
		if c.Network == network {
			continue
		}
		i := slices.IndexFunc(p.Failing, func(a string) bool {
			host, err := netip.ParseAddrPort(a)
			return err == nil && slices.Contains(addresses, host.Addr().String())
		})
		if i < 0 || e.distrusted(p.cluster, its) {
			continue // a handshake that fails is counted as a connection that fails
		}
		tried = true
		e.add("gateway-unreachable", "", append([]int{p.cluster}, its...), fmt.Sprintf("proxies of %s do not get through to the gateway of %s", c.Context, network),
			e.proxyEvidence(p, "all its connections to "+p.Failing[i]+" fail, and more have failed while we looked"))
	}
	if tried {
		return
	}
	for _, i := range its {
		for _, g := range e.Clusters[i].Gateways {
			if len(g.Closed) == 0 || len(g.Closed) < len(g.Addresses) || g.Pods == 0 || g.Looked && !g.Listens {
				continue
			}
			for _, a := range keys(g.Closed) {
				e.Unread = append(e.Unread, Unread{e.Clusters[i].Context, Reach, "Service " + g.Namespace + "/" + g.Name, a + " does not answer here, where pods of other clusters may reach it: " + g.Closed[a]})
			}
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

// sameness compares what should be the same in all clusters.
func (e *exam) sameness() {
	e.injection()
	e.sameServices()
	e.starting()
	versions, ids := map[string][]string{}, map[string][]string{}
	var all []int
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		all = append(all, i)
		for _, p := range c.Proxies {
			if p.Version != "" {
				versions[p.Version] = append(versions[p.Version], c.Context)
			}
			if p.MeshID != "" {
				ids[p.MeshID] = append(ids[p.MeshID], c.Context)
			}
		}
	}
	list := func(of map[string][]string) string {
		var texts []string
		for _, k := range keys(of) {
			texts = append(texts, fmt.Sprintf("%s in %s", k, words(of[k])))
		}
		return strings.Join(texts, "; ")
	}
	if len(versions) > 1 {
		e.add("istio-versions-differ", "", all, "proxies are of "+plural(len(versions), "version"), Evidence{"images of proxies", list(versions), "istioctl version"})
	}
	if len(ids) > 1 {
		e.add("mesh-id-differs", "", all, "proxies have "+plural(len(ids), "mesh id"), Evidence{"ISTIO_META_MESH_ID of proxies", list(ids), ""})
	}
	for _, p := range e.planes {
		if p.istiod == nil || len(p.istiod.Behind) == 0 {
			continue
		}
		if bad := slices.DeleteFunc(slices.Clone(p.istiod.Behind), func(b string) bool { return !strings.Contains(b, "refused") }); len(bad) > 0 {
			e.add("proxy-refuses-configuration", "", p.all(), fmt.Sprintf("%s of istiod of %s refused what it sent", plural(len(bad), "proxy"), e.Clusters[p.at].Context),
				Evidence{"istiod of " + e.Clusters[p.at].Context, some(bad), "istioctl proxy-status --context=" + e.Clusters[p.at].Context})
		}
	}
}

func (e *exam) injection() {
	type where struct{ with, without []int }
	spaces := map[string]*where{}
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for _, n := range c.Namespaces {
			if spaces[n.Name] == nil {
				spaces[n.Name] = &where{}
			}
			if w := spaces[n.Name]; n.Injected {
				w.with = append(w.with, i)
			} else {
				w.without = append(w.without, i)
			}
		}
	}
	for _, space := range keys(spaces) {
		if w := spaces[space]; len(w.with) > 0 && len(w.without) > 0 {
			e.add("injection-differs", "", append(w.with, w.without...), fmt.Sprintf("namespace %s gets proxies in %s and not in %s", space, e.contexts(w.with...), e.contexts(w.without...)),
				Evidence{"namespace " + space, "its labels differ", fmt.Sprintf("kubectl --context=%s get namespace %s --show-labels", e.Clusters[w.without[0]].Context, space)})
		}
	}
}

func (e *exam) sameServices() {
	type one struct {
		Service
		at int
	}
	byName := map[string][]one{}
	has := map[string][]int{} // clusters by namespace
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for _, n := range c.Namespaces {
			has[n.Name] = append(has[n.Name], i)
		}
		for _, s := range c.Services {
			byName[s.Namespace+"/"+s.Name] = append(byName[s.Namespace+"/"+s.Name], one{s, i})
		}
	}
	for _, key := range keys(byName) {
		all := byName[key]
		command := func(i int) string {
			return fmt.Sprintf("kubectl --context=%s get service -n %s %s", e.Clusters[i].Context, all[0].Namespace, all[0].Name)
		}
		if there := has[all[0].Namespace]; len(all) < len(there) {
			var at, not []int
			for _, i := range there {
				if slices.ContainsFunc(all, func(o one) bool { return o.at == i }) {
					at = append(at, i)
				} else {
					not = append(not, i)
				}
			}
			e.add("service-one-side", "", there, fmt.Sprintf("the Service %s is in %s and not in %s", key, e.contexts(at...), e.contexts(not...)), Evidence{"Service " + key, "not in " + e.contexts(not...), command(not[0])})
		}
		for _, o := range all[1:] {
			first := all[0]
			if slices.Equal(o.Ports, first.Ports) && o.Headless == first.Headless {
				continue
			}
			tell := func(o one) string {
				text := words(o.Ports)
				if o.Headless {
					text += ", headless"
				}
				return e.Clusters[o.at].Context + ": " + text
			}
			e.add("service-ports-differ", "", []int{first.at, o.at}, fmt.Sprintf("the Service %s differs in %s and %s", key, e.Clusters[first.at].Context, e.Clusters[o.at].Context),
				Evidence{"Service " + key, tell(first) + "; " + tell(o), command(o.at)})
		}
	}
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
