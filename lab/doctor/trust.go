package doctor

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// outcome is what comes of looking for the root of a chain.
type outcome string

const (
	found    outcome = ""
	stranger outcome = "its root is not trusted"
	gap      outcome = "its chain has a gap"
	ended    outcome = "a certificate of its chain has expired"
	early    outcome = "a certificate of its chain is not valid yet"
	revoked  outcome = "a certificate of its chain has been revoked"
	refused  outcome = "it is refused"
	misnamed outcome = "its trust domain is not accepted"
)

// signed says whether ca has signed c: by its key, whatever its name and its dates are.
func signed(c, ca *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, ca.RawSubject) && ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// climb goes from the first certificate of a chain up to a root and returns the way, the root included. Dates are
// not looked at. What it shows at its end may be a root that is not trusted: stranger; or nobody: gap.
func climb(chain, roots []*x509.Certificate) (way []*x509.Certificate, _ outcome) {
	if len(chain) == 0 {
		return nil, gap
	}
	for at := chain[0]; ; {
		way = append(way, at)
		if slices.ContainsFunc(roots, at.Equal) {
			return way, found
		}
		if i := slices.IndexFunc(roots, func(r *x509.Certificate) bool { return signed(at, r) }); i >= 0 {
			return append(way, roots[i]), found
		}
		if signed(at, at) {
			return way, stranger
		}
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool {
			return signed(at, c) && !slices.ContainsFunc(way, c.Equal)
		})
		if i < 0 {
			// What is shown may end below its root. It has a gap if there is more of it, and nothing of that has signed
			// a certificate which signs nothing itself.
			if len(chain) > 1 && !at.IsCA {
				return way, gap
			}
			return way, stranger
		}
		at = chain[i]
	}
}

// accepts says whether proxies with these roots accept a chain, and which certificate decides it.
func (e *exam) accepts(roots []*x509.Certificate, lists [][]byte, chain []*x509.Certificate) (outcome, *x509.Certificate) {
	way, o := climb(chain, roots)
	if o != found {
		return o, way[len(way)-1]
	}
	for _, c := range slices.Backward(way) {
		if e.Taken.After(c.NotAfter) {
			return ended, c
		}
		if e.Taken.Add(skew).Before(c.NotBefore) {
			return early, c
		}
	}
	for i, c := range way[:len(way)-1] {
		for _, der := range lists {
			list, err := x509.ParseRevocationList(der)
			if err == nil && list.CheckSignatureFrom(way[i+1]) == nil && slices.ContainsFunc(list.RevokedCertificateEntries, func(r x509.RevocationListEntry) bool { return r.SerialNumber.Cmp(c.SerialNumber) == 0 }) {
				return revoked, c
			}
		}
	}
	at := e.Taken // the verifier gets what skew allows, too
	for _, c := range way {
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	if err := pki.Verify(chain, roots, at); err != nil {
		return refused, chain[0]
	}
	return found, nil
}

// class is a kind of proxies: equal roots, equal chains above their own certificates, one trust domain.
type class struct {
	*proxy
	members []*proxy
}

func (e *exam) classes(proxies []*proxy) []class {
	var all []class
	index := map[string]int{}
	for _, p := range proxies {
		key := fmt.Sprintf("%d %s %t", p.cluster, trustDomain(p.chain), e.Taken.After(p.chain[0].NotAfter))
		for _, c := range p.chain[1:] {
			key += " " + id(c)
		}
		key += " trusts"
		for _, r := range p.roots {
			key += " " + id(r)
		}
		i, ok := index[key]
		if !ok {
			i = len(all)
			index[key] = i
			all = append(all, class{proxy: p})
		}
		all[i].members = append(all[i].members, p)
	}
	return all
}

// trustDomain is that of a certificate; empty if it has no SPIFFE identity.
func trustDomain(chain []*x509.Certificate) string {
	for _, uri := range chain[0].URIs {
		if uri.Scheme == "spiffe" {
			return uri.Host
		}
	}
	return ""
}

// handshake says who refuses whom when from calls to; empty if nobody does.
func (e *exam) handshake(from, to *proxy) (o outcome, refuses, whom *proxy, c *x509.Certificate) {
	if o, c := e.accepts(from.roots, e.Clusters[from.cluster].CRLs, to.chain); o != found {
		return o, from, to, c
	}
	if o, c := e.accepts(to.roots, e.Clusters[to.cluster].CRLs, from.chain); o != found {
		return o, to, from, c
	}
	if !to.plane.lets(trustDomain(from.chain)) {
		return misnamed, to, from, nil
	}
	return found, nil, nil, nil
}

// lets says whether proxies that are called accept a trust domain. Since Istio 1.29 callers expect the other
// cluster's own trust domain, so that only the called look.
func (p *plane) lets(domain string) bool {
	return len(p.accepts) == 0 || domain == "" || slices.Contains(p.accepts, domain)
}

// matrix says for every two clusters whether calls can be verified.
func (e *exam) matrix(proxies []*proxy) []Pair {
	classes := e.classes(slices.DeleteFunc(slices.Clone(proxies), func(p *proxy) bool { return e.passes(p) }))
	var all []Pair
	for from := range e.Clusters {
		for to := range e.Clusters {
			if e.served[from] == nil || e.served[to] == nil {
				continue
			}
			pair := Pair{From: e.Clusters[from].Context, To: e.Clusters[to].Context, Works: Unknown}
			good := 0
			for _, a := range classes {
				for _, b := range classes {
					if a.cluster != from || b.cluster != to {
						continue
					}
					pair.Pairs++
					o, refuses, whom, c := e.handshake(a.proxy, b.proxy)
					if o == found {
						good++
						continue
					}
					if pair.Why != "" {
						continue
					}
					pair.Why = fmt.Sprintf("%s in %s refuses %s in %s: %s", refuses.Name(), e.Clusters[refuses.cluster].Context, whom.Name(), e.Clusters[whom.cluster].Context, o)
					switch {
					case o == stranger && refuses.plane == whom.plane:
						pair.Grow = "nobody's: restart what is from before the CA was changed"
					case o == stranger:
						pair.Grow = fmt.Sprintf("the roots of %s must get that of %s, %s", e.Clusters[refuses.cluster].Context, e.Clusters[whom.cluster].Context, e.top(whom.chain, c))
					case o == misnamed:
						pair.Grow = fmt.Sprintf("trustDomainAliases of %s must get %s", e.Clusters[refuses.cluster].Context, trustDomain(whom.chain))
					}
				}
			}
			switch {
			case pair.Pairs == 0:
			case good == pair.Pairs:
				pair.Works = All
			case good > 0:
				pair.Works = Some
			default:
				pair.Works = None
			}
			all = append(all, pair)
		}
	}
	return all
}

// top names the root that a chain leads to: what it shows, or what its last certificate says.
func (e *exam) top(chain []*x509.Certificate, last *x509.Certificate) string {
	if last == nil {
		last = chain[len(chain)-1]
	}
	if signed(last, last) {
		return names([]*x509.Certificate{last})
	}
	for _, c := range e.certs {
		if signed(last, c) {
			return names([]*x509.Certificate{c})
		}
	}
	return fmt.Sprintf("%q", last.Issuer.CommonName)
}

// passes says whether a proxy only passes TLS on: nobody asks for its certificate.
func (e *exam) passes(p *proxy) bool {
	return p.Gateway && slices.ContainsFunc(e.Clusters[p.cluster].Gateways, func(g Gateway) bool { return g.Namespace == p.Namespace && g.Name == p.Workload })
}

// proxyEvidence shows a certificate that a proxy uses.
func (e *exam) proxyEvidence(p *proxy, seen string) Evidence {
	c := e.Clusters[p.cluster].Context
	return Evidence{"proxy of " + p.Name() + " in " + c, seen, fmt.Sprintf("istioctl --context=%s proxy-config secret %s.%s", c, p.Pod, p.Namespace)}
}

// trust compares what is in use: between control planes, and of every proxy with the newest of its own.
func (e *exam) trust(proxies []*proxy) {
	e.betweenPlanes()
	e.dates(proxies)
	e.stale(proxies)
	e.domains(proxies)
	e.principals(proxies)
	e.rootMaps()
	e.webhooks()
	e.plaintext()
}

func (e *exam) betweenPlanes() {
	for i, a := range e.planes {
		for _, b := range e.planes[i+1:] {
			if a.typical == nil || b.typical == nil {
				continue
			}
			x, _ := e.accepts(a.typical.roots, nil, b.typical.chain)
			y, _ := e.accepts(b.typical.roots, nil, a.typical.chain)
			if x != stranger && y != stranger {
				continue
			}
			here, nameA, nameB := append(a.all(), b.all()...), e.Clusters[a.at].Context, e.Clusters[b.at].Context
			evidence := []Evidence{
				e.proxyEvidence(a.typical, "trusts "+names(a.typical.roots)+", is below "+e.top(a.typical.chain, end(a.typical.chain, a.typical.roots))),
				e.proxyEvidence(b.typical, "trusts "+names(b.typical.roots)+", is below "+e.top(b.typical.chain, end(b.typical.chain, b.typical.roots))),
			}
			e.notApplied(a, b, x == stranger)
			e.notApplied(b, a, y == stranger)
			switch {
			case x == stranger && y == stranger && sameNames(a.typical.roots, b.typical.roots) && !(a.signsItself(e.Clusters[a.at]) && b.signsItself(e.Clusters[b.at])):
				e.add("same-subject-roots", "", here, fmt.Sprintf("the roots of %s and %s have one name and different keys: they do not trust each other", nameA, nameB), evidence...)
			case x == stranger && y == stranger:
				e.add("disjoint-roots", "", here, fmt.Sprintf("%s and %s have different roots and do not trust each other", nameA, nameB), evidence...)
			case x == stranger:
				e.add("half-trust", "", here, fmt.Sprintf("%s does not trust %s, which trusts it: the roots of %s must grow", nameA, nameB, nameA), evidence...)
			default:
				e.add("half-trust", "", here, fmt.Sprintf("%s does not trust %s, which trusts it: the roots of %s must grow", nameB, nameA, nameB), evidence...)
			}
		}
	}
}

// end is the last certificate on the way from a chain to its root.
func end(chain, roots []*x509.Certificate) *x509.Certificate {
	way, _ := climb(chain, roots)
	return way[len(way)-1]
}

// notApplied finds caCertificates of p that would have made it trust q.
func (e *exam) notApplied(p, q *plane, refuses bool) {
	c := e.Clusters[p.at]
	if !refuses {
		return
	}
	for _, ca := range c.Settings.CACertificates {
		if _, o := climb(q.typical.chain, e.list(ca.Roots)); o != found {
			continue
		}
		e.add("ca-certificates-not-applied", "", p.all(), fmt.Sprintf("caCertificates of %s has the root of %s, and its proxies do not use it", c.Context, e.Clusters[q.at].Context),
			Evidence{"mesh configuration of " + c.Context, "caCertificates has " + names(e.list(ca.Roots)) + "; ISTIO_MULTIROOT_MESH of istiod is " + cmp.Or(p.env("ISTIO_MULTIROOT_MESH"), "not set"),
				fmt.Sprintf("kubectl --context=%s get configmap istio -n %s -o jsonpath={.data.mesh}", c.Context, mesh.SystemNamespace)},
			e.proxyEvidence(p.typical, "trusts "+names(p.typical.roots)))
	}
}

// dates looks at every certificate on the way from each proxy to its root.
func (e *exam) dates(proxies []*proxy) {
	type one struct {
		kind, says string
		clusters   []int
		who        []string
		first      *proxy
		cert       *x509.Certificate
	}
	byCert := map[string]*one{}
	note := func(kind, says string, p *proxy, c *x509.Certificate) {
		key := kind + id(c)
		if byCert[key] == nil {
			byCert[key] = &one{kind: kind, says: says, first: p, cert: c}
		}
		o := byCert[key]
		o.who, o.clusters = append(o.who, p.Name()), append(append(o.clusters, p.cluster), p.plane.all()...)
	}
	for _, p := range proxies {
		way, o := climb(p.chain, p.roots)
		if o == gap && !e.passes(p) {
			note("chain-without-intermediate", "show a chain with a gap: what links their certificate to its root is missing", p, p.chain[0])
		}
		if e.Taken.After(p.chain[0].NotAfter) {
			note("workload-certificate-expired", fmt.Sprintf("show a certificate that ended %s ago", age(e.Taken.Sub(p.chain[0].NotAfter))), p, p.chain[0])
		}
		for _, c := range slices.Concat(p.chain[1:], way[1:]) {
			if kind, says := e.dated(c, slices.ContainsFunc(p.roots, c.Equal) || signed(c, c)); kind != "" {
				note(kind, "show a chain with a certificate out of its time: "+says, p, c)
			}
		}
		o, c := e.accepts(p.roots, e.Clusters[p.cluster].CRLs, p.chain)
		if o == revoked {
			note("certificate-revoked", fmt.Sprintf("show a chain in which %q has been revoked", name(c)), p, c)
		}
	}
	for _, key := range keys(byCert) {
		o := byCert[key]
		slices.Sort(o.who)
		who := some(slices.Compact(o.who)) + " in " + e.Clusters[o.first.cluster].Context
		e.add(o.kind, "", o.clusters, who+" "+o.says, e.proxyEvidence(o.first, pki.Describe(o.cert).String()+", from "+o.cert.NotBefore.UTC().Format("2006-01-02T15:04:05Z")))
	}
}

// stale finds proxies that distrust the typical one of their own control plane, or those that it trusts.
func (e *exam) stale(proxies []*proxy) {
	distrust := func(a, b *proxy) bool {
		x, _ := e.accepts(a.roots, nil, b.chain)
		y, _ := e.accepts(b.roots, nil, a.chain)
		return x == stranger || y == stranger
	}
	who := map[int][]string{}
	first := map[int]*proxy{}
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
			if first[k.cluster] == nil || e.passes(first[k.cluster]) {
				first[k.cluster] = p
			}
		}
	}
	for cluster := range e.Clusters {
		p := first[cluster]
		if p == nil {
			continue
		}
		severity := Severity("")
		if e.passes(p) {
			severity = Warning // it only passes TLS on; what it cannot do is to get a new certificate
		}
		slices.Sort(who[cluster])
		e.add("stale-workloads", severity, []int{cluster}, fmt.Sprintf("%s in %s %s from before the CA was changed", some(who[cluster]), e.Clusters[cluster].Context, either(len(who[cluster]), "has a certificate or roots", "have certificates or roots")),
			e.proxyEvidence(p, fmt.Sprintf("trusts %s, is below %s, from %s", names(p.roots), e.top(p.chain, end(p.chain, p.roots)), p.chain[0].NotBefore.UTC().Format("2006-01-02T15:04:05Z"))),
			e.proxyEvidence(p.plane.typical, fmt.Sprintf("trusts %s, is below %s", names(p.plane.typical.roots), e.top(p.plane.typical.chain, end(p.plane.typical.chain, p.plane.typical.roots)))))
	}
}

// domains finds trust domains that those who are called do not accept.
func (e *exam) domains(proxies []*proxy) {
	for _, p := range e.planes {
		first := map[string]*proxy{}
		for _, q := range proxies {
			if d := trustDomain(q.chain); !p.lets(d) && first[d] == nil && !e.passes(q) {
				first[d] = q
			}
		}
		for _, domain := range keys(first) {
			q, c := first[domain], e.Clusters[p.at]
			e.add("trust-domain-not-accepted", "", append(p.all(), q.cluster), fmt.Sprintf("%s does not accept callers of the trust domain %s", c.Context, domain),
				Evidence{"mesh configuration of " + c.Context, "it accepts " + words(p.accepts), fmt.Sprintf("kubectl --context=%s get configmap istio -n %s -o jsonpath={.data.mesh}", c.Context, mesh.SystemNamespace)},
				e.proxyEvidence(q, "its identity is "+pki.Describe(q.chain[0]).SPIFFE))
		}
	}
}

// principals finds policies that name trust domains which nobody has.
func (e *exam) principals(proxies []*proxy) {
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
			continue // its istiod reads policies elsewhere
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
			e.add("policy-foreign-principal", "", []int{i}, fmt.Sprintf("the AuthorizationPolicy %s in %s names callers of a trust domain that nobody has, and %s", policy.Policy, c.Context, does),
				append([]Evidence{{"AuthorizationPolicy " + policy.Policy, policy.Action + " " + words(foreign), fmt.Sprintf("kubectl --context=%s get authorizationpolicy -n %s %s -o yaml", c.Context, space, name)}},
					Evidence{"mesh", "its trust domains are " + words(keys(known)), ""})...)
		}
	}
}

// rootMaps looks at the ConfigMap with the root in every namespace of the mesh.
func (e *exam) rootMaps() {
	for i, c := range e.Clusters {
		p := e.served[i]
		if p == nil || e.unread(c, RootMaps) || e.unread(c, Namespaces) {
			continue
		}
		var missing, foreign []string
		for _, n := range c.Namespaces {
			if !n.HasRoot {
				missing = append(missing, n.Name)
				continue
			}
			if len(p.chain) > 0 {
				if _, o := climb(p.whole(), e.list(n.Roots)); o == stranger {
					foreign = append(foreign, n.Name)
				}
			}
		}
		command := fmt.Sprintf("kubectl --context=%s get configmaps -A --field-selector metadata.name=%s", c.Context, rootMap)
		if len(missing) > 0 {
			var waiting []string
			for _, s := range c.Stuck {
				if space, _, _ := strings.Cut(s.Pod, "/"); slices.Contains(missing, space) {
					waiting = append(waiting, s.Pod)
				}
			}
			evidence := []Evidence{{"ConfigMap " + rootMap, "not in " + words(missing), command}}
			if len(waiting) > 0 {
				evidence = append(evidence, Evidence{"pods that do not start", some(waiting), fmt.Sprintf("kubectl --context=%s get events -A --field-selector=reason=FailedMount", c.Context)})
			}
			e.add("root-configmap-missing", "", []int{i}, fmt.Sprintf("namespace %s of %s lacks the ConfigMap %s, so that no pod starts there", words(missing), c.Context, rootMap), append(evidence, logEvidence(c, rootMap)...)...)
		}
		if len(foreign) > 0 {
			e.add("root-configmap-foreign", "", []int{i}, fmt.Sprintf("the ConfigMap %s in %s of %s has a root with which its istiod cannot be verified", rootMap, words(foreign), c.Context),
				Evidence{"ConfigMap " + rootMap, "in " + words(foreign), command})
		}
	}
}

func (e *exam) webhooks() {
	for i, c := range e.Clusters {
		p := e.served[i]
		if p == nil || len(p.chain) == 0 {
			continue
		}
		for _, w := range c.Webhooks {
			if _, o := climb(p.whole(), e.list(w.Roots)); o == stranger {
				e.add("webhook-bundle-stale", "", []int{i}, fmt.Sprintf("the API server of %s cannot verify the webhook %s", c.Context, w.Name),
					Evidence{"MutatingWebhookConfiguration " + w.Name, "caBundle has " + names(e.list(w.Roots)) + ", istiod's certificate is signed by " + e.signerName(p),
						fmt.Sprintf(`kubectl --context=%s get mutatingwebhookconfiguration %s -o jsonpath='{.webhooks[0].clientConfig.caBundle}' | base64 -d | openssl x509 -noout -subject`, c.Context, w.Name)})
			}
		}
	}
}

func (e *exam) plaintext() {
	for i, c := range e.Clusters {
		var who []string
		for _, pod := range c.Plain {
			space, _, _ := strings.Cut(pod, "/")
			strict, its := c.Strict[space]
			if !its {
				strict = c.Strict[""]
			}
			if strict {
				who = append(who, pod)
			}
		}
		if len(who) > 0 {
			space, _, _ := strings.Cut(who[0], "/")
			e.add("plaintext-client-strict", "", []int{i}, fmt.Sprintf("%s in %s %s no proxy, where only mutual TLS is let in", some(who), c.Context, either(len(who), "has", "have")),
				Evidence{"PeerAuthentication of " + space, "STRICT", fmt.Sprintf("kubectl --context=%s get peerauthentications -A", c.Context)},
				Evidence{"pod " + who[0], "it has no container istio-proxy, and its namespace injects one", fmt.Sprintf("istioctl --context=%s experimental check-inject -n %s %s", c.Context, space, strings.TrimPrefix(who[0], space+"/"))})
		}
	}
}

// name tells a certificate by its subject.
func name(c *x509.Certificate) string { return cmp.Or(c.Subject.CommonName, c.Subject.String()) }

// names tells certificates by subject and fingerprint, since two can have one subject.
func names(all []*x509.Certificate) string {
	var list []string
	for _, c := range all {
		list = append(list, fmt.Sprintf("%q (SHA-256 %s…)", name(c), pki.Describe(c).SHA256[:11]))
	}
	return cmp.Or(words(list), "nobody")
}

func sameSet(a, b []*x509.Certificate) bool {
	has := func(all, some []*x509.Certificate) bool {
		return !slices.ContainsFunc(some, func(s *x509.Certificate) bool { return !slices.ContainsFunc(all, s.Equal) })
	}
	return has(a, b) && has(b, a)
}

// sameNames says whether a root of one set has the name of another root in the other set.
func sameNames(a, b []*x509.Certificate) bool {
	return slices.ContainsFunc(a, func(x *x509.Certificate) bool {
		return slices.ContainsFunc(b, func(y *x509.Certificate) bool { return bytes.Equal(x.RawSubject, y.RawSubject) && !samePublicKey(x, y) })
	})
}
