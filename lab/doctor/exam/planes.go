package exam

import (
	"cmp"
	"crypto/x509"
	"maps"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
)

// plane is a control plane: the pods of one istiod, and the clusters that it serves. During an upgrade a cluster has two of them,
// one of each revision, which serve the same clusters.
type plane struct {
	at       int    // the cluster where it runs
	serves   []int  // clusters
	id       string // of the clusters that it serves
	renamed  string // the id that its istiod has, if no proxy has it
	revision string
	beside   bool            // another plane runs in the same cluster
	pods     []*facts.Istiod // oldest first
	settings facts.MeshSettings
	split    bool                // the one beside it has another root
	istiod   *facts.Istiod       // the newest Ready pod; nil if there is none
	chain    []*x509.Certificate // istiod's own certificate first; empty if it was not read
	ca       *x509.Certificate   // the CA that signs now; nil if it is not known
	roots    []*x509.Certificate // the roots that it hands out
	typical  *proxy              // the proxy with the newest certificate of its CA; nil if there is none
	accepts  []string            // trust domains; nil if they are not known, or all are accepted
}

// proxy is a proxy whose certificates were read.
type proxy struct {
	*facts.Proxy
	cluster int
	plane   *plane
	chain   []*x509.Certificate
	roots   []*x509.Certificate
}

// env returns a setting of the plane's istiod.
func (p *plane) env(name string) string {
	switch {
	case p.istiod != nil:
		return p.istiod.Env[name]
	case len(p.pods) > 0:
		return p.pods[len(p.pods)-1].Env[name]
	}
	return ""
}

// clusters returns the cluster where the plane runs and those that it serves.
func (p *plane) clusters() []int { return append([]int{p.at}, p.serves...) }

// reads reports whether the pages of the plane's istiod were read.
func (p *plane) reads() bool { return p.istiod != nil && p.istiod.Read }

// findPlanes finds the control planes, which clusters they serve, and what they sign with.
func (e *examination) findPlanes() {
	e.served = make([]*plane, len(e.Clusters))
	e.homes = make([]int, len(e.Clusters))
	for i := range e.Clusters {
		e.homes[i] = nowhere
		if c := &e.Clusters[i]; len(c.Istiods) > 0 || c.IstiodDeployed || e.lacksIstiod(*c) {
			e.newPlanes(i)
		}
	}
	for _, p := range e.planes {
		for i, c := range e.Clusters {
			serves := c.ID != "" && (p.istiod != nil && p.istiod.Serves[c.ID] > 0 || p.id == c.ID)
			if e.homes[i] == nowhere && serves {
				e.homes[i] = p.at
			}
		}
	}
	sites := e.sites()
	for i, c := range e.Clusters {
		if e.homes[i] == nowhere && len(sites) == 1 && sites[0] != i && len(c.Proxies) > 0 {
			e.homes[i] = sites[0]
		}
		for _, p := range e.planes {
			if p.at == e.homes[i] {
				p.serves = append(p.serves, i)
			}
		}
		e.served[i] = e.principal(i)
	}
	for _, p := range e.planes {
		e.readPlane(p)
	}
}

// nowhere is the home of a cluster whose istiod is not known.
const nowhere = -1

// sites returns the clusters where istiods run.
func (e *examination) sites() (at []int) {
	for _, p := range e.planes {
		if !slices.Contains(at, p.at) {
			at = append(at, p.at)
		}
	}
	return at
}

// principal returns the plane that stands for those that serve a cluster: one with a Ready istiod, and with the most proxies there.
func (e *examination) principal(cluster int) (best *plane) {
	most := -1
	for _, p := range e.planes {
		if p.at != e.homes[cluster] {
			continue
		}
		n := e.count(p, cluster)
		if p.istiod != nil {
			n += len(e.Clusters[cluster].Proxies) + 1
		}
		if n > most {
			best, most = p, n
		}
	}
	return best
}

// count returns how many proxies of a cluster have the revision of a plane.
func (e *examination) count(p *plane, cluster int) (n int) {
	for _, x := range e.Clusters[cluster].Proxies {
		if cmp.Or(e.revisionOf(cluster, x), facts.DefaultRevision) == p.revision {
			n++
		}
	}
	return n
}

// used reports whether proxies have the revision of a plane, or namespaces are to get some.
func (e *examination) used(p *plane) bool {
	return slices.ContainsFunc(p.serves, func(i int) bool {
		return e.count(p, i) > 0 || slices.ContainsFunc(e.Clusters[i].Webhooks, func(w facts.Webhook) bool {
			return len(w.Injects) > 0 && cmp.Or(w.Revision, facts.DefaultRevision) == p.revision
		})
	})
}

// revisionOf returns the revision whose istiod a proxy of a cluster gets its configuration from, "" if it is not known. Its label
// istio.io/rev has the revision, since the injector writes it there; where somebody wrote it by hand, it may be a tag.
func (e *examination) revisionOf(cluster int, x facts.Proxy) string {
	return e.resolve(cluster, x.Revision)
}

// resolve returns the revision behind the name of a revision or a tag.
func (e *examination) resolve(cluster int, name string) string {
	known := slices.ContainsFunc(e.planes, func(p *plane) bool { return p.at == e.homes[cluster] && p.revision == name })
	for _, w := range e.Clusters[cluster].Webhooks {
		if !known && w.Tag != "" && w.Tag == name {
			return cmp.Or(w.Revision, facts.DefaultRevision)
		}
	}
	return name
}

// planeOf returns the plane that serves a proxy of a cluster; nil if there is none.
func (e *examination) planeOf(cluster int, x facts.Proxy) *plane {
	revision := e.revisionOf(cluster, x)
	if revision == "" {
		return e.served[cluster]
	}
	return e.planeAt(e.homes[cluster], revision)
}

// planeAt returns the plane of a revision that runs in a cluster; nil if there is none.
func (e *examination) planeAt(home int, revision string) *plane {
	i := slices.IndexFunc(e.planes, func(p *plane) bool { return p.at == home && p.revision == revision })
	if i < 0 {
		return nil
	}
	return e.planes[i]
}

// called names the istiod of a plane in a sentence. The revision is there only if it tells it from another one.
func (e *examination) called(p *plane) string {
	if p.beside {
		return "istiod " + p.revision + " of " + e.Clusters[p.at].Context
	}
	return "istiod of " + e.Clusters[p.at].Context
}

// deployment returns the name of the plane's Deployment.
func (p *plane) deployment() string { return facts.Revisioned(facts.IstiodName, p.revision) }

// only narrows a command of istioctl to the plane.
func (p *plane) only() string {
	if p.revision == facts.DefaultRevision {
		return ""
	}
	return " --revision=" + p.revision
}

// lacksIstiod reports whether a cluster had an istiod of its own that was deleted: a Service leads to it, and no istiod elsewhere
// serves the cluster's proxies.
func (e *examination) lacksIstiod(c facts.Cluster) bool {
	if c.IstiodService == "" || c.IstiodDeployed || len(c.Istiods) > 0 || len(c.Proxies) == 0 || e.unread(c, facts.Pods) {
		return false
	}
	return !slices.ContainsFunc(e.Clusters, func(o facts.Cluster) bool {
		return slices.ContainsFunc(o.Istiods, func(i facts.Istiod) bool { return i.Serves[c.ID] > 0 })
	})
}

// debugged is only for istioctl x internal-debug, which asks any istiod unless a label tells which.
func (p *plane) debugged() string {
	if !p.beside {
		return ""
	}
	return " --xds-label=" + facts.RevisionLabel + "=" + p.revision
}

// newPlanes finds the control planes that run in a cluster, one for each revision.
func (e *examination) newPlanes(i int) {
	c := &e.Clusters[i]
	byRevision, id := map[string]*plane{}, c.ID
	for _, revision := range c.Deployed {
		byRevision[revision] = &plane{at: i, revision: revision}
	}
	for n := range c.Istiods {
		istiod := &c.Istiods[n]
		revision := cmp.Or(istiod.Revision, facts.DefaultRevision)
		p := byRevision[revision]
		if p == nil {
			p = &plane{at: i, revision: revision}
			byRevision[revision] = p
		}
		p.pods = append(p.pods, istiod)
		id = cmp.Or(istiod.Env["CLUSTER_ID"], id)
		if istiod.Ready {
			p.istiod = istiod
		}
		if istiod.Settings.Read {
			p.settings = istiod.Settings
		}
		if len(istiod.Signer) > 0 {
			p.chain = e.list(istiod.Signer)
		}
	}
	if len(byRevision) == 0 { // it was deleted
		byRevision[facts.DefaultRevision] = &plane{at: i, revision: facts.DefaultRevision}
	}
	// An external control plane has the name of one of the clusters that it serves. It does not serve its own cluster.
	external := slices.ContainsFunc(e.Clusters, func(o facts.Cluster) bool { return o.Context != c.Context && o.ID == id })
	if c.ID == "" && !external {
		c.ID = id
	}
	renamed := ""
	if c.ID != id && !external && servesNobody(c.Istiods, id, c.ID) {
		renamed, id = id, c.ID
	}
	if id == c.ID {
		e.homes[i] = i
	}
	for _, revision := range slices.Sorted(maps.Keys(byRevision)) {
		p := byRevision[revision]
		p.id, p.renamed, p.beside = id, renamed, len(byRevision) > 1
		e.planes = append(e.planes, p)
	}
}

// servesNobody reports whether istiods that were read have no proxies that are of these clusters.
func servesNobody(istiods []facts.Istiod, clusters ...string) bool {
	read := false
	for _, i := range istiods {
		read = read || i.Read
		if slices.ContainsFunc(clusters, func(id string) bool { return i.Serves[id] > 0 }) {
			return false
		}
	}
	return read
}

// readPlane finds what a control plane signs with, hands out and accepts.
func (e *examination) readPlane(p *plane) {
	c := e.Clusters[p.at]
	sets := map[string][]string{}
	var handedOut []string
	if !p.settings.Read {
		p.settings = c.Settings
	}
	for _, i := range p.serves {
		for _, n := range e.Clusters[i].Namespaces {
			if len(n.Roots) > 0 {
				key := strings.Join(slices.Sorted(slices.Values(n.Roots)), " ")
				sets[key] = n.Roots
				handedOut = append(handedOut, key)
			}
		}
		if s := e.Clusters[i].Settings; !p.settings.Read && s.Read {
			p.settings = s
		}
	}
	p.roots = e.list(sets[facts.MostCommon(handedOut, func(s string) string { return s })])
	p.ca = e.signerOf(p.chain, c)
	if settings := p.settings; settings.Read && p.env("PILOT_SKIP_VALIDATE_TRUST_DOMAIN") != "true" {
		p.accepts = append([]string{settings.TrustDomain}, settings.Aliases...)
		for _, ca := range settings.CACertificates {
			p.accepts = append(p.accepts, ca.TrustDomains...)
		}
	}
}

// findProxies returns the proxies whose certificates were read, and finds the typical one of each plane.
func (e *examination) findProxies() []*proxy {
	var all []*proxy
	for i := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for n := range e.Clusters[i].Proxies {
			f := &e.Clusters[i].Proxies[n]
			p := &proxy{Proxy: f, cluster: i, plane: cmp.Or(e.planeOf(i, *f), e.served[i]), chain: e.list(f.Chain), roots: e.list(f.Roots)}
			if len(p.chain) > 0 {
				all = append(all, p)
			}
		}
	}
	for _, p := range e.planes {
		e.findTypical(p, all)
	}
	return all
}

// findTypical finds the proxy of a plane with the newest certificate that the plane's CA signed.
func (e *examination) findTypical(p *plane, proxies []*proxy) {
	newer := func(a, b *proxy) bool {
		return b == nil || cmp.Or(a.chain[0].NotBefore.Compare(b.chain[0].NotBefore), a.Created.Compare(b.Created)) > 0
	}
	var newest *proxy
	for _, q := range proxies {
		if q.plane != p {
			continue
		}
		if newer(q, newest) {
			newest = q
		}
		if p.ca != nil && signed(q.chain[0], p.ca) && newer(q, p.typical) {
			p.typical = q
		}
	}
	if p.ca == nil && newest != nil { // istiod's own certificate was not read
		p.typical, p.ca = newest, e.signerOf(newest.chain, e.Clusters[p.at])
	}
	if p.typical == nil && len(p.chain) > 0 && newest != nil { // no pod has started since the CA changed: istiod stands for it
		p.typical = &proxy{Proxy: &facts.Proxy{Pod: facts.IstiodName}, cluster: p.at, plane: p, chain: p.chain, roots: p.roots}
	}
}
