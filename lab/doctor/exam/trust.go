package exam

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// trust compares the certificates in use: between control planes, and those of every proxy with the newest of its own plane.
func (e *examination) trust(proxies []*proxy) {
	e.betweenPlanes()
	e.dates(proxies)
	e.stale(proxies)
	e.domains(proxies)
	e.principals(proxies)
	e.rootMaps()
	e.webhooks()
	e.plaintext()
}

// class is a set of proxies that trust and are trusted alike: they have equal roots, equal chains above their own certificates,
// the same trust domain, and one istiod. The embedded proxy is one of the members.
type class struct {
	*proxy
	members []*proxy
}

func (e *examination) classes(proxies []*proxy) []class {
	var all []class
	index := map[string]int{}
	for _, p := range proxies {
		var key strings.Builder
		fmt.Fprintf(&key, "%d %s %s %t", p.cluster, p.plane.revision, trustDomain(p.chain), e.Taken.After(p.chain[0].NotAfter))
		for _, c := range p.chain[1:] {
			key.WriteString(" " + facts.ID(c))
		}
		key.WriteString(" trusts")
		for _, r := range p.roots {
			key.WriteString(" " + facts.ID(r))
		}
		i, ok := index[key.String()]
		if !ok {
			i = len(all)
			index[key.String()] = i
			all = append(all, class{proxy: p})
		}
		all[i].members = append(all[i].members, p)
	}
	return all
}

// refusal says why a call between two proxies is refused: by refuses, because of the certificate of whom.
type refusal struct {
	outcome
	refuses, whom *proxy
	cert          *x509.Certificate // that decides it; nil for wrongDomain
}

// handshake says who refuses whom if from calls to. The outcome is trusted if nobody does.
func (e *examination) handshake(from, to *proxy) refusal {
	if o, c := e.verify(from.roots, e.revoked[from.cluster], to.chain); o != trusted {
		return refusal{o, from, to, c}
	}
	if o, c := e.verify(to.roots, e.revoked[to.cluster], from.chain); o != trusted {
		return refusal{o, to, from, c}
	}
	if !to.plane.allows(trustDomain(from.chain)) {
		return refusal{wrongDomain, to, from, nil}
	}
	return refusal{outcome: trusted}
}

// allows reports whether called proxies accept a trust domain. Since Istio 1.29 callers expect the trust domain of the other
// cluster, so only the called proxy looks at it.
func (p *plane) allows(domain string) bool {
	return len(p.accepts) == 0 || domain == "" || slices.Contains(p.accepts, domain)
}

// matrix says for every two clusters whether calls between them are accepted.
func (e *examination) matrix(proxies []*proxy) []Pair {
	classes := e.classes(slices.DeleteFunc(slices.Clone(proxies), e.passesThrough))
	var all []Pair
	for from := range e.Clusters {
		for to := range e.Clusters {
			if e.served[from] != nil && e.served[to] != nil {
				all = append(all, e.pair(from, to, classes))
			}
		}
	}
	return all
}

func (e *examination) pair(from, to int, classes []class) Pair {
	pair := Pair{From: e.Clusters[from].Context, To: e.Clusters[to].Context, Works: WorksUnknown}
	good := 0
	for _, a := range classes {
		for _, b := range classes {
			if a.cluster != from || b.cluster != to {
				continue
			}
			pair.Pairs++
			if r := e.handshake(a.proxy, b.proxy); r.outcome == trusted {
				good++
			} else if pair.Why == "" {
				pair.Why, pair.Grow = e.explain(r)
			}
		}
	}
	switch {
	case pair.Pairs == 0:
	case good == pair.Pairs:
		pair.Works = WorksAll
	case good > 0:
		pair.Works = WorksSome
	default:
		pair.Works = WorksNone
	}
	return pair
}

// explain says why a call is refused, and what must grow so that it is accepted.
func (e *examination) explain(r refusal) (why, grow string) {
	at, other := e.Clusters[r.refuses.cluster].Context, e.Clusters[r.whom.cluster].Context
	why = fmt.Sprintf("%s in %s refuses %s in %s: %s", r.refuses.Name(), at, r.whom.Name(), other, r.outcome)
	switch {
	case r.outcome == unknownRoot && r.refuses.plane == r.whom.plane:
		grow = "nothing: restart the pods from before the CA was changed"
	case r.outcome == unknownRoot:
		grow = fmt.Sprintf("the roots of %s must get that of %s, %s", at, other, e.rootOf(r.cert))
	case r.outcome == wrongDomain:
		grow = fmt.Sprintf("trustDomainAliases of %s must get %s", at, trustDomain(r.whom.chain))
	}
	return why, grow
}

// passesThrough reports whether a proxy only passes TLS on, so that nobody asks for its certificate.
func (e *examination) passesThrough(p *proxy) bool {
	return p.Gateway && slices.ContainsFunc(e.Clusters[p.cluster].Gateways, func(g facts.Gateway) bool {
		return g.Namespace == p.Namespace && g.Name == p.Workload
	})
}

// proxyEvidence shows the certificates that a proxy uses.
func (e *examination) proxyEvidence(p *proxy, seen string) Evidence {
	context := e.Clusters[p.cluster].Context
	command := e.istioctl(context, "proxy-config secret %s.%s", p.Pod, p.Namespace)
	return Evidence{"proxy of " + p.Name() + " in " + context, seen, command}
}

// trusts shows which roots a proxy trusts, and which root its own certificate is below.
func (e *examination) trusts(p *proxy) string {
	return "trusts " + pki.Labels(p.roots) + ", its certificate is below " + e.rootOf(lastOf(p.chain, p.roots))
}

func (e *examination) betweenPlanes() {
	for i, a := range e.planes {
		for _, b := range e.planes[i+1:] {
			// Two in one cluster are compared by what they sign with: see revisionRoots.
			if a.at != b.at && a.typical != nil && b.typical != nil {
				e.compare(a, b)
			}
		}
	}
}

// compare finds two control planes that do not trust each other.
func (e *examination) compare(a, b *plane) {
	x, _ := e.verify(a.typical.roots, nil, b.typical.chain)
	y, _ := e.verify(b.typical.roots, nil, a.typical.chain)
	if x != unknownRoot && y != unknownRoot {
		return
	}
	here, nameA, nameB := append(a.clusters(), b.clusters()...), e.Clusters[a.at].Context, e.Clusters[b.at].Context
	evidence := []Evidence{e.proxyEvidence(a.typical, e.trusts(a.typical)), e.proxyEvidence(b.typical, e.trusts(b.typical))}
	if x == unknownRoot {
		e.notApplied(a, b)
	}
	if y == unknownRoot {
		e.notApplied(b, a)
	}
	ownCAs := a.signsItself(e.Clusters[a.at]) && b.signsItself(e.Clusters[b.at]) // they all have one name, and nobody chose it
	half := func(without, with string) string {
		return fmt.Sprintf("%s does not trust %s, which trusts it: the roots of %s must grow", without, with, without)
	}
	switch {
	case x == unknownRoot && y == unknownRoot && twins(a.typical.roots, b.typical.roots) && !ownCAs:
		says := fmt.Sprintf("the roots of %s and %s have the same name and different keys: they do not trust each other", nameA, nameB)
		e.add(findings.SameSubjectRoots, here, says, evidence...)
	case x == unknownRoot && y == unknownRoot:
		says := fmt.Sprintf("%s and %s have different roots and do not trust each other", nameA, nameB)
		e.add(findings.DisjointRoots, here, says, evidence...)
	case x == unknownRoot:
		e.add(findings.HalfTrust, here, half(nameA, nameB), evidence...)
	default:
		e.add(findings.HalfTrust, here, half(nameB, nameA), evidence...)
	}
}

// notApplied finds caCertificates of p that would make it trust q, which it does not.
func (e *examination) notApplied(p, q *plane) {
	c := e.Clusters[p.at]
	for _, ca := range p.settings.CACertificates {
		roots := e.list(ca.Roots)
		if _, o := climb(q.typical.chain, roots); o != trusted {
			continue
		}
		e.add(findings.CACertificatesNotApplied, p.clusters(),
			fmt.Sprintf("caCertificates of %s has the root of %s, and its proxies do not use it", c.Context, e.Clusters[q.at].Context),
			e.meshEvidence(p, fmt.Sprintf("caCertificates has %s; ISTIO_MULTIROOT_MESH of istiod is %s",
				pki.Labels(roots), cmp.Or(p.env("ISTIO_MULTIROOT_MESH"), "not set"))),
			e.proxyEvidence(p.typical, "trusts "+pki.Labels(p.typical.roots)))
	}
}

func (e *examination) meshEvidence(p *plane, seen string) Evidence {
	c := e.Clusters[p.at]
	command := kubectl(c.Context, "get configmap "+facts.Revisioned("istio", p.revision)+" -n %s -o jsonpath={.data.mesh}", e.System)
	return Evidence{"mesh configuration of " + c.Context, seen, command}
}

// dates looks at every certificate on the way from each proxy to its root. It makes one finding for each certificate.
func (e *examination) dates(proxies []*proxy) {
	type finding struct {
		id       findings.ID
		says     string
		clusters []int
		who      []string
		first    *proxy
		cert     *x509.Certificate
	}
	byCert := map[string]*finding{}
	note := func(id findings.ID, says string, p *proxy, c *x509.Certificate) {
		key := id.String() + facts.ID(c)
		if byCert[key] == nil {
			byCert[key] = &finding{id: id, says: says, first: p, cert: c}
		}
		f := byCert[key]
		f.who, f.clusters = append(f.who, p.Name()), append(append(f.clusters, p.cluster), p.plane.clusters()...)
	}
	for _, p := range proxies {
		way, o := climb(p.chain, p.roots)
		if o == gap && !e.passesThrough(p) {
			note(findings.ChainWithoutIntermediate,
				"present a chain with a gap: the issuer of their certificate is missing", p, p.chain[0])
		}
		if own := p.chain[0]; e.Taken.After(own.NotAfter) {
			says := fmt.Sprintf("present a certificate that expired %s ago", words.Age(e.Taken.Sub(own.NotAfter)))
			note(findings.WorkloadCertificateExpired, says, p, own)
		}
		for _, c := range slices.Concat(p.chain[1:], way[1:]) {
			if id, says, ok := e.dated(c, slices.ContainsFunc(p.roots, c.Equal) || signed(c, c)); ok {
				note(id, "present a chain with a wrong date: "+says, p, c)
			}
		}
		if o, c := e.verify(p.roots, e.revoked[p.cluster], p.chain); o == revoked {
			note(findings.CertificateRevoked, fmt.Sprintf("present a chain in which %q has been revoked", pki.Name(c)), p, c)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byCert)) {
		f := byCert[key]
		slices.Sort(f.who)
		who := some(slices.Compact(f.who)) + " in " + e.Clusters[f.first.cluster].Context
		seen := pki.Describe(f.cert).String() + ", from " + f.cert.NotBefore.UTC().Format(time.RFC3339)
		e.add(f.id, f.clusters, who+" "+f.says, e.proxyEvidence(f.first, seen))
	}
}

// stale finds proxies that do not trust the typical one of their own control plane, or those that it trusts.
func (e *examination) stale(proxies []*proxy) {
	distrust := func(a, b *proxy) bool {
		x, _ := e.verify(a.roots, nil, b.chain)
		y, _ := e.verify(b.roots, nil, a.chain)
		return x == unknownRoot || y == unknownRoot
	}
	who, first := map[int][]string{}, map[int]*proxy{} // by cluster
	for _, k := range e.classes(proxies) {
		typical := k.plane.typical
		if typical == nil || typical == k.proxy {
			continue
		}
		bad := distrust(k.proxy, typical)
		for _, other := range e.planes {
			if other != k.plane && other.typical != nil && !distrust(typical, other.typical) {
				bad = bad || distrust(k.proxy, other.typical)
			}
		}
		if !bad {
			continue
		}
		for _, p := range k.members {
			who[k.cluster] = append(who[k.cluster], p.Name())
			if first[k.cluster] == nil || e.passesThrough(first[k.cluster]) {
				first[k.cluster] = p
			}
		}
	}
	for cluster, c := range e.Clusters {
		p := first[cluster]
		if p == nil {
			continue
		}
		severity := findings.Severity("")
		if e.passesThrough(p) {
			severity = findings.Warning // nobody asks for its certificate, but it cannot get a new one
		}
		names := who[cluster]
		slices.Sort(names)
		e.addAs(findings.StaleWorkloads, severity, []int{cluster},
			fmt.Sprintf("%s in %s %s from before the CA was changed", some(names), c.Context,
				either(len(names), "has a certificate or roots", "have certificates or roots")),
			e.proxyEvidence(p, e.trusts(p)+", from "+p.chain[0].NotBefore.UTC().Format(time.RFC3339)),
			e.proxyEvidence(p.plane.typical, e.trusts(p.plane.typical)))
	}
}

// domains finds trust domains that called proxies do not accept.
func (e *examination) domains(proxies []*proxy) {
	for _, p := range e.planes {
		first := map[string]*proxy{}
		for _, q := range proxies {
			if d := trustDomain(q.chain); !p.allows(d) && first[d] == nil && !e.passesThrough(q) {
				first[d] = q
			}
		}
		for _, domain := range slices.Sorted(maps.Keys(first)) {
			q, c := first[domain], e.Clusters[p.at]
			e.add(findings.TrustDomainNotAccepted, append(p.clusters(), q.cluster),
				fmt.Sprintf("%s does not accept callers of the trust domain %s", c.Context, domain),
				e.meshEvidence(p, "it accepts "+words.And(words.Unique(p.accepts))),
				e.proxyEvidence(q, "its identity is "+pki.SPIFFE(q.chain[0])))
		}
	}
}

// principals finds policies that name trust domains that nobody has.
func (e *examination) principals(proxies []*proxy) {
	known := map[string]bool{"cluster.local": true} // Istio reads it as the mesh's own
	looked := false
	for _, p := range e.planes {
		looked = looked || len(p.accepts) > 0
		for _, d := range p.accepts {
			known[d] = true
		}
	}
	for _, q := range proxies {
		known[trustDomain(q.chain)] = true
	}
	if !looked {
		return
	}
	for i, c := range e.Clusters {
		if p := e.served[i]; p == nil || p.id != c.ID {
			continue // its istiod reads policies from another cluster
		}
		for _, policy := range c.Principals {
			var foreign []string
			for _, principal := range policy.Names {
				domain, _, whole := strings.Cut(strings.TrimPrefix(principal, "spiffe://"), "/ns/")
				if whole && !strings.Contains(domain, "*") && !known[domain] {
					foreign = append(foreign, principal)
				}
			}
			if len(foreign) == 0 {
				continue
			}
			does := "lets none of them in"
			if policy.Action == "DENY" {
				does = "keeps none of them out"
			}
			space, name, _ := strings.Cut(policy.Policy, "/")
			e.add(findings.PolicyForeignPrincipal, []int{i},
				fmt.Sprintf("the AuthorizationPolicy %s in %s names callers of a trust domain that nobody has, and %s",
					policy.Policy, c.Context, does),
				Evidence{"AuthorizationPolicy " + policy.Policy, policy.Action + " " + words.And(words.Unique(foreign)),
					kubectl(c.Context, "get authorizationpolicy -n %s %s -o yaml", space, name)},
				Evidence{"mesh", "its trust domains are " + words.And(slices.Sorted(maps.Keys(known))), ""})
		}
	}
}

// rootMaps looks at the ConfigMap with the root in every namespace of the mesh.
func (e *examination) rootMaps() {
	for i, c := range e.Clusters {
		p := e.served[i]
		if p == nil || e.unread(c, facts.RootMaps) || e.unread(c, facts.Namespaces) {
			continue
		}
		var missing, foreign []string
		for _, n := range c.Namespaces {
			if !n.HasRoot {
				missing = append(missing, n.Name)
			} else if slices.ContainsFunc(e.planes, func(p *plane) bool { // it has to verify every revision
				_, o := climb(p.wholeChain(), e.list(n.Roots))
				return p.at == e.homes[i] && len(p.chain) > 0 && o == unknownRoot
			}) {
				foreign = append(foreign, n.Name)
			}
		}
		object := "ConfigMap " + facts.RootConfigMap
		command := kubectl(c.Context, "get configmaps -A --field-selector metadata.name=%s", facts.RootConfigMap)
		if len(missing) > 0 {
			evidence := []Evidence{{object, "not in " + words.And(missing), command}}
			if waiting := stuckIn(c, missing); len(waiting) > 0 {
				evidence = append(evidence, Evidence{"pods that do not start", some(waiting),
					kubectl(c.Context, "get events -A --field-selector=reason=FailedMount")})
			}
			e.add(findings.RootConfigMapMissing, []int{i},
				fmt.Sprintf("namespace %s of %s lacks the %s, so no pod starts there", words.And(missing), c.Context, object),
				append(evidence, e.logEvidence(c, facts.RootConfigMap)...)...)
		}
		if len(foreign) > 0 {
			e.add(findings.RootConfigMapForeign, []int{i},
				fmt.Sprintf("the %s in %s of %s has a root that does not verify its istiod", object, words.And(foreign), c.Context),
				Evidence{object, "in " + words.And(foreign), command})
		}
	}
}

// stuckIn returns the pods of some namespaces that do not start.
func stuckIn(c facts.Cluster, namespaces []string) (pods []string) {
	for _, s := range c.Stuck {
		if space, _, _ := strings.Cut(s.Pod, "/"); slices.Contains(namespaces, space) {
			pods = append(pods, s.Pod)
		}
	}
	return pods
}

// wholeChain returns the chain of istiod's own certificate with the CA that signed it. istiod may leave the CA out, which is a
// finding of its own and says nothing about roots.
func (p *plane) wholeChain() []*x509.Certificate {
	if p.ca == nil || len(p.chain) == 0 {
		return p.chain
	}
	return append(slices.Clone(p.chain), p.ca)
}

func (e *examination) webhooks() {
	for i, c := range e.Clusters {
		for _, w := range c.Webhooks {
			p, roots := e.webhookPlane(i, w), e.list(w.Roots)
			if p == nil || len(p.chain) == 0 || len(w.Roots) == 0 || w.Validates {
				continue
			}
			if _, o := climb(p.wholeChain(), roots); o != unknownRoot {
				continue
			}
			e.add(findings.WebhookBundleStale, []int{i},
				fmt.Sprintf("the API server of %s cannot verify the webhook %s", c.Context, w.Name),
				Evidence{kindOf(w) + " " + w.Name,
					"caBundle has " + pki.Labels(roots) + ", istiod's certificate is signed by " + p.signer(),
					kubectl(c.Context, `get %s %s -o jsonpath='{.webhooks[0].clientConfig.caBundle}' `+
						`| base64 -d | openssl x509 -noout -subject`, strings.ToLower(kindOf(w)), w.Name)})
		}
	}
}

// plaintext finds pods without a proxy in namespaces where only mutual TLS is accepted.
func (e *examination) plaintext() {
	for i, c := range e.Clusters {
		var who []string
		for _, pod := range c.Plain {
			space, _, _ := strings.Cut(pod, "/")
			strict, own := c.Strict[space]
			if !own {
				strict = c.Strict[""]
			}
			if strict {
				who = append(who, pod)
			}
		}
		if len(who) == 0 {
			continue
		}
		space, name, _ := strings.Cut(who[0], "/")
		e.add(findings.PlaintextClientStrict, []int{i},
			fmt.Sprintf("%s in %s %s no proxy, where only mutual TLS is accepted", some(who), c.Context, either(len(who), "has", "have")),
			Evidence{"PeerAuthentication of " + space, "STRICT", kubectl(c.Context, "get peerauthentications -A")},
			Evidence{"pod " + who[0], "it has no container " + facts.ProxyContainer + ", and its namespace injects one",
				e.istioctl(c.Context, "experimental check-inject -n %s %s", space, name)})
	}
}
