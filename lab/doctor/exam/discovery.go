package exam

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/words"
)

const (
	tokenEndsSoon = 7 * 24 * time.Hour

	// While a cluster cannot be read, errors come at most a minute apart: client-go's reflector waits up to 30 s, and up to as
	// long again at random.
	watchesRecent  = 90 * time.Second
	watchesLasting = 60 * time.Second
)

// discovery judges what each istiod reads from the other clusters.
func (e *examination) discovery() {
	for i, c := range e.Clusters {
		if c.Down != "" {
			e.add(findings.APIServerUnreachable, []int{i}, fmt.Sprintf("the API server of %s does not answer", c.Context),
				Evidence{"API server " + c.Server, c.Down, kubectl(c.Context, "get --raw /readyz")})
		}
	}
	e.cutOff()
	e.sameNames()
	for _, p := range e.planes {
		at := e.secretsOf(p)
		if e.unread(at, facts.Secrets) || p.beside && len(p.pods) == 0 { // a revision that was scaled down reads nothing
			continue
		}
		read := map[string]bool{} // cluster IDs for which there is a remote secret
		for _, s := range at.Remotes {
			if e.secretName(p, at, s) {
				read[s.ID] = true
				e.remote(p, at, s)
			}
		}
		for i, c := range e.Clusters {
			if e.served[i] == nil || c.ID == "" || c.ID == p.id {
				continue
			}
			if !read[c.ID] {
				e.add(findings.RemoteSecretMissing, append(p.clusters(), i),
					fmt.Sprintf("istiod of %s has no access to %s", e.Clusters[p.at].Context, c.Context), // all revisions read the same Secrets
					Evidence{"remote secrets in " + at.Context, "none is for " + c.ID,
						kubectl(at.Context, "get secrets -n %s -l istio/multiCluster=true", e.System)})
			}
			e.endpoints(p, i)
		}
	}
}

// triedEvidence shows a connection that was tried from a cluster.
func triedEvidence(t facts.Tried, context string) Evidence {
	space, pod, _ := strings.Cut(t.From, "/")
	command := kubectl(context, "exec -n %s %s -c %s -- %s", space, pod, facts.ProxyContainer, strings.Join(t.Command(), " "))
	return Evidence{"a connection from " + t.From + " in " + context, t.Address + ": " + cmp.Or(t.Err, "it was made"), command}
}

// cutOff finds clusters from which neither a gateway nor the API server of another cluster can be reached.
func (e *examination) cutOff() {
	for from, c := range e.Clusters {
		for to, other := range e.Clusters {
			if from == to || other.Down != "" {
				continue
			}
			ways := map[string]bool{}
			for _, g := range other.Gateways {
				for _, address := range g.HostPorts() {
					ways[address] = true
				}
			}
			for _, s := range c.Remotes {
				if s.ID == other.ID {
					ways[s.HostPort()] = true
				}
			}
			var evidence []Evidence
			for _, t := range c.Tried {
				if ways[t.Address] && t.Err != "" {
					evidence = append(evidence, triedEvidence(t, c.Context))
				}
			}
			if len(evidence) > 1 && len(evidence) == len(ways) {
				e.add(findings.ClusterCutOff, []int{from, to}, fmt.Sprintf("nothing gets from %s to %s", c.Context, other.Context), evidence...)
			}
		}
	}
}

// sameNames finds clusters that have the same name.
func (e *examination) sameNames() {
	byID := map[string][]int{}
	for i, c := range e.Clusters {
		if c.ID != "" && e.served[i] != nil {
			byID[c.ID] = append(byID[c.ID], i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byID)) {
		if clusters := byID[name]; len(clusters) > 1 {
			who := e.contexts(clusters...)
			e.add(findings.ClusterNameTwice, clusters, fmt.Sprintf("%s have the same name, %s", who, name),
				Evidence{"ISTIO_META_CLUSTER_ID of proxies", name + " in " + who, ""})
		}
	}
}

// secretsOf returns the cluster from which a plane's istiod reads remote secrets.
func (e *examination) secretsOf(p *plane) facts.Cluster {
	if p.env("LOCAL_CLUSTER_SECRET_WATCHER") != "true" {
		for _, c := range e.Clusters {
			if c.ID == p.id && c.ID != "" {
				return c
			}
		}
	}
	return e.Clusters[p.at]
}

func (e *examination) remoteEvidence(at facts.Cluster, s facts.RemoteSecret, seen string) Evidence {
	command := kubectl(at.Context, "get secret %s -n %s -o yaml", s.Name, e.System)
	return Evidence{"Secret " + s.Name + " in " + at.Context, seen, command}
}

// secretName reports whether a remote secret has the name of the cluster that it leads to.
func (e *examination) secretName(p *plane, at facts.Cluster, s facts.RemoteSecret) bool {
	both, id := p.clusters(), "" // id is the real one, if it is known
	if i := slices.IndexFunc(e.Clusters, func(c facts.Cluster) bool { return c.UID != "" && c.UID == s.UID }); i >= 0 {
		both, id = append(both, i), e.Clusters[i].ID
	}
	switch {
	case s.ID == p.id && id != p.id:
		e.add(findings.ClusterNameTwice, both,
			fmt.Sprintf("the remote secret %s in %s has the name of the cluster that its istiod serves, %s, and is ignored",
				s.Name, at.Context, s.ID),
			append([]Evidence{e.remoteEvidence(at, s, fmt.Sprintf("its cluster is %s, its server %s", s.ID, s.Server))},
				e.logEvidence(e.Clusters[p.at], "ignoring cluster as it would overwrite")...)...)
		return false
	case id != "" && id != s.ID:
		e.add(findings.RemoteSecretName, both,
			fmt.Sprintf("the remote secret %s in %s is named %s and leads to %s", s.Name, at.Context, s.ID, id),
			e.remoteEvidence(at, s, "its server is "+s.Server))
		return false
	}
	return true
}

// remote judges how a plane's istiod reads another cluster. The remote secret is in at.
func (e *examination) remote(p *plane, at facts.Cluster, s facts.RemoteSecret) {
	both := p.clusters()
	target := slices.IndexFunc(e.Clusters, func(c facts.Cluster) bool { return c.ID == s.ID })
	if target >= 0 {
		both = append(both, target)
	}
	for i, c := range e.Clusters {
		if target < 0 && c.Down != "" && c.ID == "" { // it may be the cluster of this secret
			both = append(both, i)
		}
	}
	expired := !s.Expires.IsZero() && e.Taken.After(s.Expires)
	if id, says, seen := e.credentials(p, at, s, expired); seen != "" {
		e.add(id, both, says, e.remoteEvidence(at, s, seen))
	} else {
		e.reading(p, at, s, both)
	}
	if !s.Expires.IsZero() && !expired && s.Expires.Sub(e.Taken) < tokenEndsSoon {
		e.add(findings.RemoteSecretExpires, both,
			fmt.Sprintf("the token of the remote secret for %s in %s expires in %s", s.ID, at.Context, words.Age(s.Expires.Sub(e.Taken))),
			e.remoteEvidence(at, s, "it expires at "+s.Expires.String()))
	}
}

// credentials returns what is wrong with the content of a remote secret. seen is empty if nothing is.
func (e *examination) credentials(p *plane, at facts.Cluster, s facts.RemoteSecret, expired bool) (id findings.ID, says, seen string) {
	which := fmt.Sprintf("the remote secret for %s in %s", s.ID, at.Context)
	switch {
	case s.Loopback():
		return findings.RemoteSecretLoopback, fmt.Sprintf("%s leads to %s, which is istiod's own pod", which, s.Server),
			"its server is " + s.Server
	case expired:
		return findings.RemoteSecretToken, "the credentials of " + which + " are refused",
			strings.TrimSpace(fmt.Sprintf("its token expired %s ago %s", words.Age(e.Taken.Sub(s.Expires)), s.Refused))
	case s.Refused != "":
		return findings.RemoteSecretToken, "the credentials of " + which + " are refused", s.Refused
	}
	// Before 1.29 istiod read no ConfigMaps of other clusters, and roles did not allow it.
	denied := slices.DeleteFunc(slices.Clone(s.Denied), func(what string) bool {
		return what == facts.ConfigMaps && (p.istiod == nil || p.istiod.Clusters[s.ID] == "synced")
	})
	if len(denied) > 0 {
		return findings.RemoteSecretRights, fmt.Sprintf("%s may not list %s", which, words.And(denied)),
			"the API server was asked with its credentials"
	}
	return 0, "", ""
}

// reading judges whether an istiod, whose credentials are right, reads another cluster.
func (e *examination) reading(p *plane, at facts.Cluster, s facts.RemoteSecret, both []int) {
	here, who := e.Clusters[p.at].Context, e.called(p)
	status := "" // as istiod says
	if p.istiod != nil {
		status = p.istiod.Clusters[s.ID]
	}
	watch := e.watch(p, s.ID)
	first, last := e.Taken.Sub(watch.First), e.Taken.Sub(watch.Last)
	failing := last < watchesRecent
	seen := []Evidence{}
	if failing {
		seen = append(seen, Evidence{"log of " + who,
			fmt.Sprintf("reading %s failed %s ago, for the first time %s ago: %s%s",
				s.ID, words.Age(last), words.Age(first), watch.Why, p.syncErrors(s.ID)),
			kubectl(here, "logs -n %s deployment/%s | grep 'watch error in cluster %s'", e.System, p.deployment(), s.ID)})
	}
	tried := slices.IndexFunc(e.Clusters[p.at].Tried, func(t facts.Tried) bool { return t.Address == s.HostPort() })
	blocked := tried >= 0 && e.Clusters[p.at].Tried[tried].Err != ""
	unused := cmp.Or(s.Reach, s.Problem) // why it could not be used from here
	switch {
	case unused != "" && p.reads() && (status != "synced" || failing), blocked:
		if tried >= 0 {
			seen = append(seen, triedEvidence(e.Clusters[p.at].Tried[tried], here))
		}
		if unused != "" {
			seen = append(seen, e.remoteEvidence(at, s, "used from here: "+unused))
		}
		e.add(findings.RemoteSecretUnreachable, both,
			fmt.Sprintf("%s, the server in the remote secret for %s in %s, does not answer", s.Server, s.ID, at.Context),
			append(seen, e.clusterz(p, s.ID, status))...)
	case s.Reach != "" && tried < 0:
		e.Unread = append(e.Unread, facts.Unread{Cluster: at.Context, Part: facts.Remote, Object: "Secret " + s.Name,
			Why: "its server does not answer here, but istiod may reach it: " + s.Reach})
	case s.Problem != "":
		e.Unread = append(e.Unread, facts.Unread{Cluster: at.Context, Part: facts.Remote, Object: "Secret " + s.Name, Why: s.Problem})
	case p.reads() && status != "synced":
		e.add(findings.RemoteClusterNotSynced, both, fmt.Sprintf("%s is not in sync with %s", who, s.ID),
			append(seen, e.clusterz(p, s.ID, status))...)
	case failing && first-last > watchesLasting:
		e.add(findings.RemoteWatchFailing, both,
			fmt.Sprintf("%s has failed to read %s for %s, which answers here", who, s.ID, words.Age(first)),
			append(seen, e.clusterz(p, s.ID, status))...)
	case failing:
		e.addAs(findings.RemoteWatchFailing, findings.Info, both,
			fmt.Sprintf("%s failed to read %s %s ago, which answers here: it may be over", who, s.ID, words.Age(last)), seen...)
	}
}

// watch returns what the pods of a plane say about reading a cluster: the latest of their failures.
func (e *examination) watch(p *plane, cluster string) (latest facts.Watch) {
	for _, i := range p.pods {
		if w := i.Watches[cluster]; w.Last.After(latest.Last) {
			latest = w
		}
	}
	return latest
}

// syncErrors returns how many failures to read a cluster the newest Ready istiod has counted.
func (p *plane) syncErrors(cluster string) string {
	if p.istiod == nil || p.istiod.Errors[cluster] == 0 {
		return ""
	}
	return fmt.Sprintf("; controller_sync_errors_total is %d", p.istiod.Errors[cluster])
}

// clusterz shows the status of a cluster in istiod's own list.
func (e *examination) clusterz(p *plane, id, status string) Evidence {
	context := e.Clusters[p.at].Context
	if p.istiod == nil {
		return Evidence{e.called(p), "no pod of it answers", ""}
	}
	seen := fmt.Sprintf("it says that %s is %s", id, cmp.Or(status, "not among its clusters"))
	return Evidence{"istiod pod " + p.istiod.Pod, seen, e.istioctl(context, "remote-clusters%s", p.only())}
}

// endpoints compares what a plane's istiod knows about a cluster with what the cluster's own istiod knows.
func (e *examination) endpoints(p *plane, cluster int) {
	own, c, who := e.served[cluster], e.Clusters[cluster], e.called(p)
	if own.at == p.at || !p.reads() || !own.reads() {
		return // there is nothing to compare with
	}
	both := append(p.clusters(), cluster)
	if theirs := total(own.istiod, c.ID); theirs > 0 && total(p.istiod, c.ID) == 0 {
		e.add(findings.EndpointsMissing, both, fmt.Sprintf("%s knows no endpoint of %s", who, c.Context),
			e.shards(p, fmt.Sprintf("0 endpoints of %s; its own istiod knows %d", c.ID, theirs)))
		return
	}
	var lacking []string
	for _, key := range slices.Sorted(maps.Keys(own.istiod.Endpoints)) {
		if own.istiod.Endpoints[key][c.ID] > 0 && p.istiod.Endpoints[key][c.ID] == 0 {
			lacking = append(lacking, key)
		}
	}
	if len(lacking) > 0 {
		n := own.istiod.Endpoints[lacking[0]][c.ID]
		e.addAs(findings.EndpointsMissing, findings.Warning, both,
			fmt.Sprintf("%s knows no endpoint of %s in %s", who, some(lacking), c.Context),
			e.shards(p, fmt.Sprintf("0 endpoints of %s in %s; its own istiod knows %d", lacking[0], c.ID, n)))
	}
	e.placed(p, cluster)
}

// placed judges on which network an istiod puts the endpoints of another cluster. The network decides whether its proxies get the
// address of the pod or that of the gateway.
func (e *examination) placed(p *plane, cluster int) {
	c := e.Clusters[cluster]
	if c.Network == "" {
		return
	}
	for _, network := range slices.Sorted(maps.Keys(p.istiod.Placed[c.ID])) {
		if network == c.Network || slices.ContainsFunc(c.Proxies, func(x facts.Proxy) bool { return x.Network == network }) {
			continue // its own proxies say the same
		}
		n := words.Plural(p.istiod.Placed[c.ID][network], "endpoint")
		on := "no network"
		if network != "" {
			on = "network " + network
		}
		e.add(findings.EndpointsNetwork, append(p.clusters(), cluster),
			fmt.Sprintf("%s puts %s of %s on %s, but the proxies there are on network %s", e.called(p), n, c.Context, on, c.Network),
			e.shards(p, fmt.Sprintf("endpoints of %s with network %q", c.ID, network)))
	}
}

// shards is evidence from the endpoints that an istiod knows.
func (e *examination) shards(p *plane, seen string) Evidence {
	return Evidence{e.called(p), seen, e.istioctl(e.Clusters[p.at].Context, "x internal-debug endpointShardz%s", p.debugged())}
}

// total returns how many endpoints of a cluster an istiod knows.
func total(i *facts.Istiod, cluster string) (n int) {
	for _, endpoints := range i.Endpoints {
		n += endpoints[cluster]
	}
	return n
}
