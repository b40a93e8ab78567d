package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sameness compares what should be the same in all clusters.
func (e *exam) sameness() {
	e.injection()
	e.sameServices()
	e.starting()
	e.skew()
	e.config()
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
	for _, p := range e.planes {
		if p.istiod != nil && p.istiod.Version != "" {
			versions[p.istiod.Version] = append(versions[p.istiod.Version], e.Clusters[p.at].Context)
		}
	}
	if len(versions) > 1 {
		e.add("istio-versions-differ", "", all, "istiods and proxies are of "+plural(len(versions), "version"), Evidence{"images of istiods and proxies", list(versions), "istioctl version"})
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
	for _, space := range keys(spaces) {
		w := spaces[space]
		var said []string
		revisions := map[string]bool{}
		for _, i := range w.with {
			for _, n := range e.Clusters[i].Namespaces {
				if n.Name == space {
					revisions[n.Revision] = true
					said = append(said, fmt.Sprintf("%s in %s", cmp.Or(n.Revision, "none"), e.Clusters[i].Context))
				}
			}
		}
		if len(revisions) > 1 {
			e.add("revision-differs", "", w.with, fmt.Sprintf("namespace %s is given proxies by different revisions", space),
				Evidence{"namespace " + space, "its label istio.io/rev is " + words(said), fmt.Sprintf("kubectl --context=%s get namespace %s --show-labels", e.Clusters[w.with[0]].Context, space)})
		}
	}
}

// minor is the minor version in an image's tag; -1 if it does not say.
func minor(tag string) int {
	m := ofVersion.FindStringSubmatch(tag)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

var ofVersion = regexp.MustCompile(`^v?1\.(\d+)(\D|$)`)

// supported is by how many minor versions a proxy may be older than its istiod
// (https://istio.io/latest/docs/releases/supported-releases/#control-planedata-plane-skew).
const supported = 2

// skew looks at the versions of proxies against their istiod's, and at workloads whose pods are of several.
func (e *exam) skew() {
	for i, c := range e.Clusters {
		p := e.served[i]
		if p == nil {
			continue
		}
		byWorkload := map[string][]string{}
		var far []string
		for _, x := range c.Proxies {
			if key := x.Namespace + "/" + x.Workload; x.Version != "" && !slices.Contains(byWorkload[key], x.Version) {
				byWorkload[key] = append(byWorkload[key], x.Version)
			}
			if p.istiod == nil || minor(x.Version) < 0 || minor(p.istiod.Version) < 0 {
				continue
			}
			if older := minor(p.istiod.Version) - minor(x.Version); older < 0 || older > supported {
				far = append(far, fmt.Sprintf("%s is %s", x.Name(), x.Version))
			}
		}
		if len(far) > 0 {
			e.add("version-skew", "", []int{i}, fmt.Sprintf("%s of %s %s not of a version that istiod %s supports", plural(len(far), "proxy"), c.Context, either(len(far), "is", "are"), p.istiod.Version),
				Evidence{"images of proxies", some(far), "istioctl version --context=" + c.Context})
		}
		for _, key := range keys(byWorkload) {
			if its := byWorkload[key]; len(its) > 1 {
				e.add("proxies-of-mixed-age", "", []int{i}, fmt.Sprintf("the pods of %s in %s have proxies of several versions", key, c.Context),
					Evidence{"images of proxies", words(its), fmt.Sprintf("kubectl --context=%s get pods -n %s -o yaml", c.Context, strings.SplitN(key, "/", 2)[0])})
			}
		}
	}
}

// config compares what is written for all clusters: where each istiod reads its own, a rule on one side holds for the
// callers, or for those who are called, of that side only.
func (e *exam) config() {
	var at []int // where istiods read
	for _, p := range e.planes {
		if i := slices.IndexFunc(e.Clusters, func(c Cluster) bool { return c.ID == p.id }); i >= 0 && !slices.Contains(at, i) && !e.unread(e.Clusters[i], Policies) {
			at = append(at, i)
		}
	}
	if len(at) < 2 {
		return
	}
	hashes := map[string]map[int]string{}
	for _, i := range at {
		for _, c := range e.Clusters[i].Config {
			key := c.Kind + " " + c.Name
			if hashes[key] == nil {
				hashes[key] = map[int]string{}
			}
			hashes[key][i] = c.Hash
			if c.Host != "" && e.inMesh(c.Host) {
				e.add("destination-rule-plaintext", "", []int{i}, fmt.Sprintf("a DestinationRule of %s has %s called without Istio's mutual TLS", e.Clusters[i].Context, c.Host),
					Evidence{"DestinationRule " + c.Name, "its TLS mode is " + c.TLS, show(e.Clusters[i].Context, c.Kind, c.Name)})
			}
		}
	}
	for _, key := range keys(hashes) {
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
		says, seen := fmt.Sprintf("%s %s is in %s and not in %s", kind, name, e.contexts(with...), e.contexts(without...)), "it is missing in "+e.contexts(without...)
		switch {
		case different:
			says, seen = fmt.Sprintf("%s %s differs in %s", kind, name, e.contexts(with...)), "its spec differs"
		case len(without) == 0:
			continue
		}
		e.add("config-differs", "", at, says, Evidence{kind + " " + name, seen, show(e.Clusters[with[0]].Context, kind, name)})
	}
}

func show(context, kind, name string) string {
	space, name, _ := strings.Cut(name, "/")
	return fmt.Sprintf("kubectl --context=%s get %s -n %s %s -o yaml", context, strings.ToLower(kind), space, name)
}

// inMesh says whether the host of a DestinationRule stands for a service of the mesh.
func (e *exam) inMesh(host string) bool {
	return strings.HasSuffix(host, ".local") || slices.ContainsFunc(e.Clusters, func(c Cluster) bool {
		return slices.ContainsFunc(c.Services, func(s Service) bool {
			return host == s.Name || host == s.Name+"."+s.Namespace || host == s.Name+"."+s.Namespace+".svc"
		})
	})
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
