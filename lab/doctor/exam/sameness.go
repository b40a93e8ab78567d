package exam

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// sameness judges what should be the same in all clusters, and what should be the same in all pods of one.
func (e *examination) sameness() {
	e.injection()
	e.services()
	e.starting()
	e.versionSkew()
	e.config()
	e.versions()
	e.refusing()
}

// versions compares the versions of istiods and proxies, and the mesh IDs of proxies, in all clusters.
func (e *examination) versions() {
	versions, ids := map[string][]string{}, map[string][]string{} // contexts by value
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
	for _, p := range e.planes {
		if p.istiod != nil && p.istiod.Version != "" {
			versions[p.istiod.Version] = append(versions[p.istiod.Version], e.Clusters[p.at].Context)
		}
	}
	list := func(values map[string][]string) string {
		var texts []string
		for _, v := range slices.Sorted(maps.Keys(values)) {
			texts = append(texts, v+" in "+words.And(words.Unique(values[v])))
		}
		return strings.Join(texts, "; ")
	}
	if len(versions) > 1 {
		e.add(findings.IstioVersionsDiffer, all, "istiods and proxies have "+words.Plural(len(versions), "version"),
			Evidence{"images of istiods and proxies", list(versions), "istioctl version"})
	}
	if len(ids) > 1 {
		e.add(findings.MeshIDDiffers, all, "proxies have "+words.Plural(len(ids), "mesh ID"),
			Evidence{"ISTIO_META_MESH_ID of proxies", list(ids), ""})
	}
}

// refusing finds proxies that refused their configuration.
func (e *examination) refusing() {
	for _, p := range e.planes {
		if p.istiod == nil {
			continue
		}
		bad := slices.DeleteFunc(slices.Clone(p.istiod.Behind), func(b string) bool { return !strings.Contains(b, "refused") })
		if len(bad) > 0 {
			context := e.Clusters[p.at].Context
			e.add(findings.ProxyRefusesConfiguration, p.clusters(),
				fmt.Sprintf("%s refused what %s sent", count(len(bad), "proxy", "proxies"), e.called(p)),
				Evidence{e.called(p), some(bad), e.istioctl(context, "proxy-status%s", p.only())})
		}
	}
}

// startsWithin is how long a pod may take to become Ready.
const startsWithin = 15 * time.Second

// starting finds pods with a proxy that do not become Ready.
func (e *examination) starting() {
	for i, c := range e.Clusters {
		var who []string
		why := ""
		for _, s := range c.Stuck {
			late := func(p facts.Proxy) bool { return p.Name() == s.Pod && e.Taken.Sub(p.Created) > startsWithin }
			if slices.ContainsFunc(c.Proxies, late) {
				who, why = append(who, s.Pod), s.Why
			}
		}
		if len(who) > 0 && e.served[i] != nil {
			last := who[len(who)-1]
			space, name, _ := strings.Cut(last, "/")
			e.add(findings.PodsNotStarting, []int{i}, fmt.Sprintf("%s in %s %s not Ready", some(who), c.Context, either(len(who), "is", "are")),
				Evidence{"pod " + last, why, kubectl(c.Context, "describe pod -n %s %s", space, name)})
		}
	}
}

// injection compares the injection labels of namespaces.
func (e *examination) injection() {
	type place struct {
		with, without []int    // clusters where its pods get proxies, and where they do not
		revisions     []string // in the order of with
	}
	spaces := map[string]*place{}
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for _, n := range c.Namespaces {
			if spaces[n.Name] == nil {
				spaces[n.Name] = &place{}
			}
			p := spaces[n.Name]
			if n.Injected {
				p.with, p.revisions = append(p.with, i), append(p.revisions, labeled(n))
			} else {
				p.without = append(p.without, i)
			}
		}
	}
	labels := func(cluster int, space string) string {
		return kubectl(e.Clusters[cluster].Context, "get namespace %s --show-labels", space)
	}
	for _, space := range slices.Sorted(maps.Keys(spaces)) {
		p := spaces[space]
		if len(p.with) > 0 && len(p.without) > 0 {
			e.add(findings.InjectionDiffers, slices.Concat(p.with, p.without),
				fmt.Sprintf("namespace %s gets proxies in %s and not in %s", space, e.contexts(p.with...), e.contexts(p.without...)),
				Evidence{"namespace " + space, "its labels differ", labels(p.without[0], space)})
		}
		if len(words.Unique(p.revisions)) > 1 {
			var texts []string
			for n, revision := range p.revisions {
				texts = append(texts, cmp.Or(revision, "none")+" in "+e.Clusters[p.with[n]].Context)
			}
			e.add(findings.RevisionDiffers, p.with, fmt.Sprintf("namespace %s gets its proxies from different revisions", space),
				Evidence{"namespace " + space, "its label istio.io/rev is " + words.And(texts), labels(p.with[0], space)})
		}
	}
}

// labeled returns the revision or tag that gives a namespace its proxies, "" for the default one: istio-injection counts first.
func labeled(n facts.Namespace) string {
	if n.Injection != "" {
		return ""
	}
	return n.Revision
}

var minorVersion = regexp.MustCompile(`^v?1\.(\d+)(\D|$)`)

// minor returns the minor version in an image's tag, -1 if the tag has none.
func minor(tag string) int {
	m := minorVersion.FindStringSubmatch(tag)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// supported is by how many minor versions a proxy may be older than its istiod
// (https://istio.io/latest/docs/releases/supported-releases/#control-planedata-plane-skew).
const supported = 2

// versionSkew compares the versions of proxies with that of the istiod of their revision, and those of the pods of one workload with
// each other.
func (e *examination) versionSkew() {
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		byWorkload := map[string][]string{}
		far := map[string][]string{} // by version of istiod
		for _, x := range c.Proxies {
			if key := x.Namespace + "/" + x.Workload; x.Version != "" && !slices.Contains(byWorkload[key], x.Version) {
				byWorkload[key] = append(byWorkload[key], x.Version)
			}
			p := e.planeOf(i, x)
			if p == nil || p.istiod == nil || minor(x.Version) < 0 || minor(p.istiod.Version) < 0 {
				continue
			}
			if older := minor(p.istiod.Version) - minor(x.Version); older < 0 || older > supported {
				far[p.istiod.Version] = append(far[p.istiod.Version], fmt.Sprintf("%s is %s", x.Name(), x.Version))
			}
		}
		for _, istiod := range slices.Sorted(maps.Keys(far)) {
			who := far[istiod]
			e.add(findings.VersionSkew, []int{i},
				fmt.Sprintf("%s of %s %s a version that istiod %s does not support",
					count(len(who), "proxy", "proxies"), c.Context, either(len(who), "has", "have"), istiod),
				Evidence{"images of proxies", some(who), e.istioctl(c.Context, "version")})
		}
		for _, key := range slices.Sorted(maps.Keys(byWorkload)) {
			if versions := byWorkload[key]; len(versions) > 1 {
				space, _, _ := strings.Cut(key, "/")
				e.add(findings.ProxiesOfMixedAge, []int{i},
					fmt.Sprintf("the pods of %s in %s have proxies of several versions", key, c.Context),
					Evidence{"images of proxies", words.And(versions), kubectl(c.Context, "get pods -n %s -o yaml", space)})
			}
		}
	}
}

// config compares objects that each istiod reads from its own cluster. An object that exists on one side only applies only to the
// callers, or only to the called workloads, of that side.
func (e *examination) config() {
	at := e.configClusters()
	if len(at) < 2 {
		return
	}
	hashes := map[string]map[int]string{} // by "KIND NAME" and cluster
	for _, i := range at {
		context := e.Clusters[i].Context
		for _, c := range e.Clusters[i].Config {
			key := c.Kind + " " + c.Name
			if hashes[key] == nil {
				hashes[key] = map[int]string{}
			}
			hashes[key][i] = c.Hash
			if c.Host != "" && e.inMesh(c.Host) {
				e.add(findings.DestinationRulePlaintext, []int{i},
					fmt.Sprintf("a DestinationRule of %s turns off Istio's mutual TLS for %s", context, c.Host),
					Evidence{"DestinationRule " + c.Name, "its TLS mode is " + c.TLS, show(context, c.Kind, c.Name)})
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(hashes)) {
		kind, name, _ := strings.Cut(key, " ")
		var with, without []int
		different := false
		for _, i := range at {
			hash, ok := hashes[key][i]
			if !ok {
				without = append(without, i)
				continue
			}
			with = append(with, i)
			different = different || hash != hashes[key][with[0]]
		}
		says := fmt.Sprintf("%s %s is in %s and not in %s", kind, name, e.contexts(with...), e.contexts(without...))
		seen := "it is missing in " + e.contexts(without...)
		switch {
		case different:
			says, seen = fmt.Sprintf("%s %s differs in %s", kind, name, e.contexts(with...)), "its spec differs"
		case len(without) == 0:
			continue
		}
		e.add(findings.ConfigDiffers, at, says, Evidence{kind + " " + name, seen, show(e.Clusters[with[0]].Context, kind, name)})
	}
}

// configClusters returns the clusters from which istiods read policies and rules.
func (e *examination) configClusters() (at []int) {
	for _, p := range e.planes {
		i := slices.IndexFunc(e.Clusters, func(c facts.Cluster) bool { return c.ID == p.id })
		if i >= 0 && !slices.Contains(at, i) && !e.unread(e.Clusters[i], facts.Policies) {
			at = append(at, i)
		}
	}
	return at
}

// show returns the command that shows an object of a kind. fullName is NAMESPACE/NAME.
func show(context, kind, fullName string) string {
	space, name, _ := strings.Cut(fullName, "/")
	return kubectl(context, "get %s -n %s %s -o yaml", strings.ToLower(kind), space, name)
}

// inMesh reports whether the host of a DestinationRule is that of a service of the mesh.
func (e *examination) inMesh(host string) bool {
	return strings.HasSuffix(host, ".local") || slices.ContainsFunc(e.Clusters, func(c facts.Cluster) bool {
		return slices.ContainsFunc(c.Services, func(s facts.Service) bool {
			return host == s.Name || host == s.Name+"."+s.Namespace || host == s.Name+"."+s.Namespace+".svc"
		})
	})
}

// services compares the Services that several clusters have.
func (e *examination) services() {
	type service struct {
		facts.Service
		at int
	}
	byName, has := map[string][]service{}, map[string][]int{} // has is the clusters that have a namespace
	for i, c := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for _, n := range c.Namespaces {
			has[n.Name] = append(has[n.Name], i)
		}
		for _, s := range c.Services {
			key := s.Namespace + "/" + s.Name
			byName[key] = append(byName[key], service{s, i})
		}
	}
	describe := func(s service) string {
		text := e.Clusters[s.at].Context + ": " + words.And(s.Ports)
		if s.Headless {
			text += ", headless"
		}
		return text
	}
	for _, key := range slices.Sorted(maps.Keys(byName)) {
		all := byName[key]
		first := all[0]
		command := func(i int) string {
			return kubectl(e.Clusters[i].Context, "get service -n %s %s", first.Namespace, first.Name)
		}
		var with, without []int
		for _, i := range has[first.Namespace] {
			if slices.ContainsFunc(all, func(s service) bool { return s.at == i }) {
				with = append(with, i)
			} else {
				without = append(without, i)
			}
		}
		if len(without) > 0 {
			e.add(findings.ServiceOneSide, has[first.Namespace],
				fmt.Sprintf("the Service %s is in %s and not in %s", key, e.contexts(with...), e.contexts(without...)),
				Evidence{"Service " + key, "not in " + e.contexts(without...), command(without[0])})
		}
		for _, s := range all[1:] {
			if slices.Equal(s.Ports, first.Ports) && s.Headless == first.Headless {
				continue
			}
			e.add(findings.ServicePortsDiffer, []int{first.at, s.at},
				fmt.Sprintf("the Service %s differs in %s", key, e.contexts(first.at, s.at)),
				Evidence{"Service " + key, describe(first) + "; " + describe(s), command(s.at)})
		}
	}
}
