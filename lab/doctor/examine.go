package doctor

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what Examine makes of Facts. The JSON names are stable.
type Report struct {
	Taken    time.Time `json:"taken"`
	Clusters []Seen    `json:"clusters"`
	Findings []Finding `json:"findings"` // root causes; worst and first causes first
	Trust    []Pair    `json:"trust"`
	// Identities are what istiods, and the proxies whose certificates were read, use.
	Identities []Identity `json:"identities"`
	Reads      []Reads    `json:"reads"` // what istiods know of the other clusters
	Checks     []Check    `json:"checks"`
	Unread     []Unread   `json:"unread,omitempty"`
}

// Seen says how much was looked at.
type Seen struct {
	Context    string `json:"context"`
	ID         string `json:"id"`
	Network    string `json:"network"`
	Kubernetes string `json:"kubernetes"`
	ServedBy   string `json:"served_by"` // the context where its istiod runs
	Proxies    int    `json:"proxies"`
	Ready      int    `json:"ready"`
	Sampled    int    `json:"sampled"` // of the Ready ones, whose certificates were read
}

// Finding is one thing that is wrong, with what follows from it.
type Finding struct {
	ID       string     `json:"id"`
	Severity Severity   `json:"severity"`
	Says     string     `json:"says"` // one sentence
	Clusters []string   `json:"clusters"`
	Evidence []Evidence `json:"evidence"`
	Now      string     `json:"now"`
	Later    string     `json:"later"`
	Fix      string     `json:"fix"`
	Disrupts string     `json:"disrupts"`
	Effects  []Finding  `json:"effects,omitempty"` // what this causes: no blame of their own
}

// Evidence is what was seen, and how to see it oneself.
type Evidence struct {
	Object  string `json:"object"`
	Seen    string `json:"seen"`
	Command string `json:"command,omitempty"`
}

// Pair says whether calls from one cluster to another can be verified by both sides.
type Pair struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Works Works  `json:"works"`
	Pairs int    `json:"pairs"` // kinds of proxies that were compared: those with equal certificates and roots are one
	Why   string `json:"why,omitempty"`
	Grow  string `json:"grow,omitempty"` // whose roots, or trust domains, must grow
}

// Works says of which of the proxies something holds.
type Works string

// The values.
const (
	All     Works = "all"
	Some    Works = "some"
	None    Works = "none"
	Unknown Works = "unknown"
)

// Check is the state of one check.
type Check struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	Why   string `json:"why,omitempty"` // what could not be read
}

// State is the state of a check.
type State string

// The states. A check that has found something is Found even if it could not look everywhere.
const (
	OK     State = "ok"
	Found  State = "finding"
	Unsure State = "unknown"
)

// Counts says whether there is a finding that is not information only.
func (r Report) Counts() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Info })
}

// Complete says whether every check could look everywhere.
func (r Report) Complete() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.State == Unsure })
}

// exam is one examination.
type exam struct {
	Facts
	kinds  map[string]Kind
	rank   map[string]int
	certs  map[string]*x509.Certificate
	planes []*plane
	served []*plane // by cluster; nil if nobody knows
	found  []Finding
}

// plane is a control plane: the pods of one istiod and what they serve.
type plane struct {
	at      int   // the cluster where it runs
	serves  []int // clusters
	id      string
	istiod  *Istiod             // that answered
	chain   []*x509.Certificate // istiod's own certificate first; empty if it was not read
	ca      *x509.Certificate   // that signs now; nil if nobody knows
	roots   []*x509.Certificate // that it hands out
	typical *proxy              // the proxy with its newest certificate; nil if there is none
	accepts []string            // trust domains; nil if not known, or if all are
}

// proxy is a proxy whose certificates were read.
type proxy struct {
	*Proxy
	cluster int
	plane   *plane
	chain   []*x509.Certificate
	roots   []*x509.Certificate
}

// Examine makes a report of facts. It asks nobody and depends on nothing else.
func Examine(f Facts) Report {
	f.Clusters = slices.Clone(f.Clusters) // names are filled in
	e := &exam{Facts: f, kinds: map[string]Kind{}, rank: map[string]int{}, certs: map[string]*x509.Certificate{}}
	e.Unread = slices.Clone(f.Unread)
	for i, k := range Findings() {
		e.kinds[k.ID], e.rank[k.ID] = k, i
	}
	for name, der := range f.Certificates {
		if c, err := x509.ParseCertificate(der); err == nil {
			e.certs[name] = c
		}
	}
	e.findPlanes()
	proxies := e.readProxies()
	e.secrets()
	e.trust(proxies)
	e.discovery()
	e.path(proxies)
	e.sameness()
	e.probes()
	r := Report{Taken: f.Taken, Findings: e.nest(), Trust: e.matrix(proxies), Identities: e.identities(proxies), Reads: e.reads(), Checks: e.checks(), Unread: e.Unread}
	for i := range e.Clusters {
		r.Clusters = append(r.Clusters, e.seen(i))
	}
	return r
}

func (e *exam) seen(i int) Seen {
	c := e.Clusters[i]
	s := Seen{Context: c.Context, ID: c.ID, Network: c.Network, Kubernetes: c.Version, Proxies: len(c.Proxies)}
	if p := e.served[i]; p != nil {
		s.ServedBy = e.Clusters[p.at].Context
	}
	for _, p := range c.Proxies {
		if p.Ready {
			s.Ready++
		}
		if len(p.Chain) > 0 {
			s.Sampled++
		}
	}
	return s
}

// add notes a finding of a kind that Findings documents. severity is that of the kind if empty.
func (e *exam) add(kind string, severity Severity, clusters []int, says string, evidence ...Evidence) {
	k, ok := e.kinds[kind]
	if !ok {
		panic("doctor: no such kind of finding: " + kind) // a mistake in this package
	}
	f := Finding{ID: kind, Severity: cmp.Or(severity, k.Severity), Says: says, Evidence: evidence, Now: k.Now, Later: k.Later, Fix: k.Fix, Disrupts: k.Disrupts}
	for _, c := range slices.Compact(slices.Sorted(slices.Values(clusters))) {
		f.Clusters = append(f.Clusters, e.Clusters[c].Context)
	}
	e.found = append(e.found, f)
}

// nest puts findings below what causes them: a kind that is named as a cause, in one of the same clusters.
func (e *exam) nest() []Finding {
	level := map[Severity]int{Error: 0, Warning: 1, Info: 2}
	slices.SortStableFunc(e.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(e.rank[a.ID], e.rank[b.ID]), slices.Compare(a.Clusters, b.Clusters))
	})
	parent := make([]int, len(e.found))
	for i, f := range e.found {
		parent[i] = -1
		for j, c := range e.found { // in the order of Findings: the first cause is the deepest
			if i != j && slices.Contains(e.kinds[f.ID].CausedBy, c.ID) && slices.ContainsFunc(f.Clusters, func(name string) bool { return slices.Contains(c.Clusters, name) }) {
				parent[i] = j
				break
			}
		}
	}
	top := func(i int) int {
		for parent[i] >= 0 { // ends: tests hold the causes of Findings to be without a circle
			i = parent[i]
		}
		return i
	}
	effects := map[int][]Finding{}
	for i, f := range e.found {
		if t := top(i); t != i {
			effects[t] = append(effects[t], f)
		}
	}
	roots := []Finding{}
	for i, f := range e.found {
		if parent[i] < 0 {
			f.Effects = effects[i]
			roots = append(roots, f)
		}
	}
	roots = merge(roots)
	for i := range roots {
		roots[i].Effects = merge(roots[i].Effects)
	}
	slices.SortStableFunc(roots, func(a, b Finding) int { return cmp.Compare(level[a.Severity], level[b.Severity]) })
	return roots
}

// merge makes one finding of several of a kind.
func merge(all []Finding) []Finding {
	var merged []Finding
	for _, f := range all {
		i := slices.IndexFunc(merged, func(m Finding) bool { return m.ID == f.ID && m.Severity == f.Severity })
		if i < 0 {
			merged = append(merged, f)
			continue
		}
		m := &merged[i]
		if !strings.Contains(m.Says, f.Says) {
			m.Says = short(m.Says+"; "+f.Says, 400)
		}
		m.Clusters = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(m.Clusters), f.Clusters...))))
		m.Evidence = append(slices.Clone(m.Evidence), f.Evidence...)
		m.Effects = append(slices.Clone(m.Effects), f.Effects...)
	}
	return merged
}

// checks gives every check its state.
func (e *exam) checks() []Check {
	found, lost := map[string]bool{}, map[Part][]string{}
	for _, f := range e.found {
		found[f.ID] = true
	}
	for _, u := range e.Unread {
		lost[u.Part] = append(lost[u.Part], fmt.Sprintf("%s of %s", u.Part, u.Cluster))
	}
	var all []Check
	for _, k := range Findings() {
		c := Check{ID: k.ID, State: OK}
		var why []string
		for _, part := range append([]Part{APIServer}, k.Needs...) {
			why = append(why, lost[part]...)
		}
		slices.Sort(why)
		c.Why = strings.Join(slices.Compact(why), ", ")
		switch {
		case found[k.ID]:
			c.State = Found
		case c.Why != "":
			c.State = Unsure
		case k.ID == "probe-failed" && len(e.Calls) == 0:
			continue // nobody has asked for it
		}
		all = append(all, c)
	}
	return all
}

// findPlanes finds the control planes, what they sign with and whom they serve.
func (e *exam) findPlanes() {
	e.served = make([]*plane, len(e.Clusters))
	for i := range e.Clusters {
		c := &e.Clusters[i]
		if len(c.Istiods) == 0 && !c.IstiodDeployed {
			continue
		}
		p := &plane{at: i, id: c.ID}
		for n := range c.Istiods {
			its := &c.Istiods[n]
			p.id = cmp.Or(its.Env["CLUSTER_ID"], p.id)
			if its.Ready {
				p.istiod = its
			}
			if len(its.Signer) > 0 {
				p.chain = e.list(its.Signer)
			}
		}
		e.planes = append(e.planes, p)
		// An external one serves others, by the name of one of them, and not the cluster that it runs in.
		others := slices.ContainsFunc(e.Clusters, func(o Cluster) bool { return o.Context != c.Context && o.ID == p.id })
		if c.ID == "" && !others {
			c.ID = p.id
		}
		if p.id == c.ID {
			e.served[i] = p
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
		c := e.Clusters[p.at]
		sets := map[string][]string{}
		var each []string
		for _, i := range p.serves {
			for _, n := range e.Clusters[i].Namespaces {
				if len(n.Roots) > 0 {
					key := strings.Join(slices.Sorted(slices.Values(n.Roots)), " ")
					sets[key] = n.Roots
					each = append(each, key)
				}
			}
			if s := e.Clusters[i].Settings; !c.Settings.Read && s.Read {
				c.Settings = s
			}
		}
		p.roots = e.list(sets[most(each, func(s string) string { return s })])
		p.ca = e.signerOf(p.chain, c)
		if s := c.Settings; s.Read && p.env("PILOT_SKIP_VALIDATE_TRUST_DOMAIN") != "true" {
			p.accepts = append([]string{s.TrustDomain}, s.Aliases...)
			for _, ca := range s.CACertificates {
				p.accepts = append(p.accepts, ca.TrustDomains...)
			}
		}
	}
}

func (p *plane) env(name string) string {
	if p.istiod == nil {
		return ""
	}
	return p.istiod.Env[name]
}

// all is every cluster that a plane is about.
func (p *plane) all() []int { return append([]int{p.at}, p.serves...) }

// whole is the chain of istiod's own certificate with the CA that signed it, which istiod may leave out: that is a
// finding of its own and says nothing of roots.
func (p *plane) whole() []*x509.Certificate {
	if p.ca == nil || len(p.chain) == 0 {
		return p.chain
	}
	return append(slices.Clone(p.chain), p.ca)
}

// signerOf finds the CA that signed the first certificate of a chain: in the chain, or else in the Secrets.
func (e *exam) signerOf(chain []*x509.Certificate, c Cluster) *x509.Certificate {
	if len(chain) == 0 {
		return nil
	}
	candidates := slices.Clone(chain[1:])
	for _, s := range []*CASecret{c.CACerts, c.SelfSigned} {
		if s != nil {
			candidates = append(candidates, e.list(s.CA)...)
		}
	}
	for _, ca := range candidates {
		if signed(chain[0], ca) {
			return ca
		}
	}
	return nil
}

func (e *exam) list(names []string) []*x509.Certificate {
	var all []*x509.Certificate
	for _, n := range names {
		if c := e.certs[n]; c != nil {
			all = append(all, c)
		}
	}
	return all
}

// readProxies returns the proxies whose certificates were read, and finds the typical one of each plane: that
// whose certificate is the newest of those that its CA signed.
func (e *exam) readProxies() []*proxy {
	var all []*proxy
	for i := range e.Clusters {
		if e.served[i] == nil {
			continue
		}
		for n := range e.Clusters[i].Proxies {
			p := &e.Clusters[i].Proxies[n]
			if one := (&proxy{Proxy: p, cluster: i, plane: e.served[i], chain: e.list(p.Chain), roots: e.list(p.Roots)}); len(one.chain) > 0 {
				all = append(all, one)
			}
		}
	}
	newer := func(a, b *proxy) bool {
		return b == nil || cmp.Or(a.chain[0].NotBefore.Compare(b.chain[0].NotBefore), a.Created.Compare(b.Created)) > 0
	}
	for _, pl := range e.planes {
		var newest *proxy
		for _, p := range all {
			if p.plane != pl {
				continue
			}
			if newer(p, newest) {
				newest = p
			}
			if pl.ca != nil && signed(p.chain[0], pl.ca) && newer(p, pl.typical) {
				pl.typical = p
			}
		}
		if pl.ca == nil && newest != nil { // nobody could ask istiod
			pl.typical, pl.ca = newest, e.signerOf(newest.chain, e.Clusters[pl.at])
		}
		if pl.typical == nil && len(pl.chain) > 0 && newest != nil { // no pod has started since its CA changed
			pl.typical = &proxy{Proxy: &Proxy{Pod: "istiod"}, cluster: pl.at, plane: pl, chain: pl.chain, roots: pl.roots}
		}
	}
	return all
}

// unread says whether a part of a cluster is missing in the facts: that it has none of something says nothing then.
func (e *exam) unread(c Cluster, part Part) bool {
	return slices.ContainsFunc(e.Unread, func(u Unread) bool {
		return u.Cluster == c.Context && (u.Part == part || u.Part == APIServer)
	})
}

// contexts names clusters in a sentence.
func (e *exam) contexts(clusters ...int) string {
	var names []string
	for _, c := range clusters {
		names = append(names, e.Clusters[c].Context)
	}
	return words(names)
}

// words puts words into a sentence, each once.
func words(list []string) string {
	seen := map[string]bool{}
	list = slices.DeleteFunc(slices.Clone(list), func(w string) bool {
		was := seen[w]
		seen[w] = true
		return was
	})
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// some names a few and says how many more there are.
func some(list []string) string {
	const most = 4
	if len(list) <= most {
		return words(list)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

func either(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
