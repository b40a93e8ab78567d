package exam

import (
	"cmp"
	"crypto/x509"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
)

// plane is a control plane: the pods of one istiod, and the clusters that it serves.
type plane struct {
	at      int   // the cluster where it runs
	serves  []int // clusters
	id      string
	istiod  *facts.Istiod       // the newest Ready pod; nil if there is none
	chain   []*x509.Certificate // istiod's own certificate first; empty if it was not read
	ca      *x509.Certificate   // the CA that signs now; nil if it is not known
	roots   []*x509.Certificate // the roots that it hands out
	typical *proxy              // the proxy with the newest certificate of its CA; nil if there is none
	accepts []string            // trust domains; nil if they are not known, or all are accepted
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
	if p.istiod == nil {
		return ""
	}
	return p.istiod.Env[name]
}

// clusters returns the cluster where the plane runs and those that it serves.
func (p *plane) clusters() []int { return append([]int{p.at}, p.serves...) }

// reads reports whether the pages of the plane's istiod were read.
func (p *plane) reads() bool { return p.istiod != nil && p.istiod.Read }

// findPlanes finds the control planes, which clusters they serve, and what they sign with.
func (e *examination) findPlanes() {
	e.served = make([]*plane, len(e.Clusters))
	for i := range e.Clusters {
		if c := &e.Clusters[i]; len(c.Istiods) > 0 || c.IstiodDeployed || e.lacksIstiod(*c) {
			e.planes = append(e.planes, e.newPlane(i))
		}
	}
	for _, p := range e.planes {
		for i, c := range e.Clusters {
			serves := c.ID != "" && (p.istiod != nil && p.istiod.Serves[c.ID] > 0 || p.id == c.ID)
			if e.served[i] == nil && serves {
				e.served[i] = p
			}
		}
	}
	for i, c := range e.Clusters {
		if e.served[i] == nil && len(e.planes) == 1 && e.planes[0].at != i && len(c.Proxies) > 0 {
			e.served[i] = e.planes[0]
		}
		if p := e.served[i]; p != nil {
			p.serves = append(p.serves, i)
		}
	}
	for _, p := range e.planes {
		e.readPlane(p)
	}
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

// newPlane returns the control plane that runs in a cluster.
func (e *examination) newPlane(i int) *plane {
	c := &e.Clusters[i]
	p := &plane{at: i, id: c.ID}
	for n := range c.Istiods {
		istiod := &c.Istiods[n]
		p.id = cmp.Or(istiod.Env["CLUSTER_ID"], p.id)
		if istiod.Ready {
			p.istiod = istiod
		}
		if len(istiod.Signer) > 0 {
			p.chain = e.list(istiod.Signer)
		}
	}
	// An external control plane has the name of one of the clusters that it serves. It does not serve its own cluster.
	external := slices.ContainsFunc(e.Clusters, func(o facts.Cluster) bool { return o.Context != c.Context && o.ID == p.id })
	if c.ID == "" && !external {
		c.ID = p.id
	}
	if p.id == c.ID {
		e.served[i] = p
	}
	return p
}

// readPlane finds what a control plane signs with, hands out and accepts.
func (e *examination) readPlane(p *plane) {
	c := e.Clusters[p.at]
	sets := map[string][]string{}
	var handedOut []string
	settings := c.Settings
	for _, i := range p.serves {
		for _, n := range e.Clusters[i].Namespaces {
			if len(n.Roots) > 0 {
				key := strings.Join(slices.Sorted(slices.Values(n.Roots)), " ")
				sets[key] = n.Roots
				handedOut = append(handedOut, key)
			}
		}
		if s := e.Clusters[i].Settings; !settings.Read && s.Read {
			settings = s
		}
	}
	p.roots = e.list(sets[facts.MostCommon(handedOut, func(s string) string { return s })])
	p.ca = e.signerOf(p.chain, c)
	if settings.Read && p.env("PILOT_SKIP_VALIDATE_TRUST_DOMAIN") != "true" {
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
			p := &proxy{Proxy: f, cluster: i, plane: e.served[i], chain: e.list(f.Chain), roots: e.list(f.Roots)}
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
