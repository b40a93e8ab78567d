// Package exam judges what was read from the clusters of a mesh. Examine is a pure function of Facts: it asks nobody, and a
// test of tests/arch keeps clients of Kubernetes out of this package. A check that could not look is unknown, never ok. Facts
// with real certificates are quickly made in a test, so every finding has a case there: `go test ./lab/doctor/exam`.
package exam

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// examination is one run of Examine. Clusters are named by their place in Facts.
type examination struct {
	facts.Facts
	certs   map[string]*x509.Certificate // by ID
	revoked [][]*x509.RevocationList     // that istiod hands out, by cluster
	planes  []*plane
	homes   []int    // by cluster: the one where its istiods run, or nowhere
	served  []*plane // by cluster: the principal of those that serve it; nil if it is not known
	found   []Finding
}

// Examine makes a report of facts, and of nothing else.
func Examine(f facts.Facts) Report {
	f.System = cmp.Or(f.System, facts.SystemNamespace)
	f.Clusters = slices.Clone(f.Clusters) // findPlanes fills in IDs
	f.Unread = slices.Clone(f.Unread)
	e := &examination{Facts: f, certs: map[string]*x509.Certificate{}}
	for id, der := range f.Certificates {
		if c, err := x509.ParseCertificate(der); err == nil {
			e.certs[id] = c
		}
	}
	for _, c := range f.Clusters {
		e.revoked = append(e.revoked, parseLists(c.CRLs))
	}
	e.findPlanes()
	proxies := e.findProxies()
	e.cacerts()
	e.trust(proxies)
	e.discovery()
	e.gateways(proxies)
	e.sameness()
	e.revisions()
	e.probes()
	r := Report{
		Taken: f.Taken, Findings: e.nest(), Trust: e.matrix(proxies), Identities: e.identities(proxies), Reads: e.reads(),
		Checks: e.checks(), Unread: e.Unread,
	}
	for i := range e.Clusters {
		r.Clusters = append(r.Clusters, e.seen(i))
	}
	return r
}

func (e *examination) seen(i int) Seen {
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

// add notes a finding in some clusters.
func (e *examination) add(id findings.ID, clusters []int, says string, evidence ...Evidence) {
	e.addAs(id, "", clusters, says, evidence...)
}

// addAs is add with a severity of its own, or that of the finding if it is empty.
func (e *examination) addAs(id findings.ID, s findings.Severity, clusters []int, says string, evidence ...Evidence) {
	doc := id.Doc()
	e.note(doc, cmp.Or(s, doc.Severity), doc.Now, clusters, says, evidence)
}

// addPartly is add for a broken gateway in a cluster that has other gateways that work.
func (e *examination) addPartly(id findings.ID, clusters []int, says string, evidence ...Evidence) {
	doc := id.Doc()
	severity, now := doc.Severity, doc.Now
	if doc.Partly != nil {
		severity, now = doc.Partly.Severity, doc.Partly.Now
	}
	e.note(doc, severity, now, clusters, says, evidence)
}

func (e *examination) note(d findings.Doc, s findings.Severity, now string, clusters []int, says string, evidence []Evidence) {
	f := Finding{
		ID: d.ID, Severity: s, Says: says, Evidence: evidence, Now: now, Later: d.Later, Fix: d.Fix, Disrupts: d.Disrupts,
	}
	for _, c := range slices.Compact(slices.Sorted(slices.Values(clusters))) {
		f.Clusters = append(f.Clusters, e.Clusters[c].Context)
	}
	e.found = append(e.found, f)
}

// nest puts findings below their causes. A cause is a finding that the documentation names, in one of the same clusters.
func (e *examination) nest() []Finding {
	place, causes := map[string]int{}, map[string][]string{}
	for i, d := range findings.All() {
		place[d.ID], causes[d.ID] = i, d.CausedBy
	}
	slices.SortStableFunc(e.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(place[a.ID], place[b.ID]), slices.Compare(a.Clusters, b.Clusters))
	})
	parent := make([]int, len(e.found))
	for i, f := range e.found {
		// The first cause in the order of findings is the deepest one.
		parent[i] = slices.IndexFunc(e.found, func(c Finding) bool {
			return slices.Contains(causes[f.ID], c.ID) && overlap(f.Clusters, c.Clusters)
		})
	}
	top := func(i int) int {
		for parent[i] >= 0 { // a test of package findings makes sure that causes do not go in a circle
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
	level := map[findings.Severity]int{findings.Error: 0, findings.Warning: 1, findings.Info: 2}
	slices.SortStableFunc(roots, func(a, b Finding) int { return cmp.Compare(level[a.Severity], level[b.Severity]) })
	return roots
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// merge makes one finding of those with the same ID and consequence.
func merge(all []Finding) []Finding {
	var merged []Finding
	for _, f := range all {
		i := slices.IndexFunc(merged, func(m Finding) bool { return m.ID == f.ID && m.Severity == f.Severity && m.Now == f.Now })
		if i < 0 {
			merged = append(merged, f)
			continue
		}
		m := &merged[i]
		if !strings.Contains(m.Says, f.Says) {
			m.Says = words.Short(m.Says+"; "+f.Says, 400)
		}
		m.Clusters = slices.Compact(slices.Sorted(slices.Values(slices.Concat(m.Clusters, f.Clusters))))
		for _, v := range f.Evidence {
			if !slices.Contains(m.Evidence, v) { // two revisions see the same Secret
				m.Evidence = append(m.Evidence, v)
			}
		}
		m.Effects = slices.Concat(m.Effects, f.Effects)
	}
	return merged
}

// checks says for every documented finding whether it was found, was not there, or could not be looked for.
func (e *examination) checks() []Check {
	found, lost := map[string]bool{}, map[facts.Part][]string{}
	for _, f := range e.found {
		found[f.ID] = true
	}
	for _, u := range e.Unread {
		lost[u.Part] = append(lost[u.Part], fmt.Sprintf("%s of %s", u.Part, u.Cluster))
	}
	var all []Check
	for i, d := range findings.All() {
		c := Check{ID: d.ID, State: StateOK}
		why := slices.Clone(lost[facts.APIServer])
		for _, part := range d.Needs {
			why = append(why, lost[part]...)
		}
		slices.Sort(why)
		c.Why = strings.Join(slices.Compact(why), ", ")
		switch {
		case found[d.ID]:
			c.State = StateFound
		case c.Why != "":
			c.State = StateUnknown
		case findings.ID(i) == findings.ProbeFailed && len(e.Calls) == 0:
			continue // nobody asked for a probe
		}
		all = append(all, c)
	}
	return all
}

// probes judges the calls that doctor made.
func (e *examination) probes() {
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
		e.add(findings.ProbeFailed, both, fmt.Sprintf("a call from %s to %s failed", call.From, call.To), Evidence{call.URL, call.Err, ""})
	}
}

// unread reports whether a part of a cluster could not be read. An empty list in the facts means nothing then.
func (e *examination) unread(c facts.Cluster, part facts.Part) bool {
	return slices.ContainsFunc(e.Unread, func(u facts.Unread) bool {
		return u.Cluster == c.Context && (u.Part == part || u.Part == facts.APIServer)
	})
}

// contexts names clusters in a sentence.
func (e *examination) contexts(clusters ...int) string {
	var names []string
	for _, c := range clusters {
		names = append(names, e.Clusters[c].Context)
	}
	return words.And(words.Unique(names))
}

// kubectl returns a command for a cluster.
func kubectl(context, format string, args ...any) string {
	return "kubectl --context=" + context + " " + fmt.Sprintf(format, args...)
}

// istioctl returns a command for a cluster.
func (e *examination) istioctl(context, format string, args ...any) string {
	command := "istioctl --context=" + context + " " + fmt.Sprintf(format, args...)
	if e.System != facts.SystemNamespace {
		command += " --istioNamespace=" + e.System
	}
	return command
}

// some names the first few of a list and counts the rest.
func some(list []string) string { return words.Some(list, 4) }

// either returns one for a single thing, many for any other number.
func either(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func count(n int, one, many string) string { return fmt.Sprintf("%d %s", n, either(n, one, many)) }
