package exam

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// revisions judges what leads from namespaces, pods and the API server to an istiod of some revision.
func (e *examination) revisions() {
	for _, p := range e.planes {
		e.renamed(p)
	}
	for i, c := range e.Clusters {
		if e.homes[i] == nowhere {
			continue
		}
		e.orphans(i, c)
		for _, w := range c.Webhooks {
			if why := e.leadsNowhere(i, w); why != "" && w.Validates {
				e.validator(i, w, why)
			} else if why != "" {
				e.injector(i, w, why)
			}
		}
		e.misled(i, c)
		e.uninjected(i, c)
		e.contradictions(i, c)
	}
}

// revisionRoots finds an istiod whose root is not that of another revision in the same cluster. Whichever of them leads writes its
// root into all namespaces (the leader election istio-namespace-controller-election is not per revision), so pods of the other
// one do not trust their own istiod. While a bundle of both roots is handed out, two roots are no mistake.
func (e *examination) revisionRoots() {
	for _, p := range e.planes {
		root := e.rootCertificate(p)
		if root == nil {
			continue
		}
		for _, other := range e.planes {
			its := e.rootCertificate(other)
			if other == p || other.at != p.at || its == nil || sameKey(root, its) || !e.astray(p, other) {
				continue
			}
			p.split, other.split = true, true
			context := e.Clusters[p.at].Context
			show := func(q *plane, r *x509.Certificate) Evidence {
				return Evidence{e.called(q), "its own certificate leads to " + pki.Label(r),
					kubectl(context, "port-forward -n %s deploy/%s 15012 & openssl s_client -connect localhost:15012 -showcerts </dev/null",
						e.System, q.deployment())}
			}
			e.add(findings.RevisionWithoutRoot, p.clusters(),
				fmt.Sprintf("%s does not have the root of istiod %s beside it", e.called(p), other.revision), show(p, root), show(other, its))
		}
	}
}

// astray reports whether p is the one of two istiods with different roots that is wrong: the one that made its own CA, otherwise the
// one whose root is not handed out. If both hold for both, it is the one that started later.
func (e *examination) astray(p, other *plane) bool {
	foreign := func(p *plane) bool {
		_, o := climb(p.wholeChain(), p.roots)
		return o == unknownRoot
	}
	if len(p.roots) == 0 || !foreign(p) && !foreign(other) {
		return false
	}
	c := e.Clusters[p.at]
	if a, b := p.signsItself(c), other.signsItself(c); a != b {
		return a
	}
	if a, b := foreign(p), foreign(other); a != b {
		return a
	}
	return p.istiod != nil && other.istiod != nil && p.istiod.Created.After(other.istiod.Created)
}

// rootCertificate returns the root that the certificate of a plane's istiod leads to; nil if it was not seen.
func (e *examination) rootCertificate(p *plane) *x509.Certificate {
	if len(p.chain) == 0 {
		return nil
	}
	last := lastOf(p.wholeChain(), nil)
	if signed(last, last) {
		return last
	}
	for _, id := range slices.Sorted(maps.Keys(e.certs)) {
		if c := e.certs[id]; signed(c, c) && signed(last, c) {
			return c
		}
	}
	return nil
}

// knowsIstiods reports whether it is known which istiods there are for a cluster.
func (e *examination) knowsIstiods(cluster int) bool {
	home := e.homes[cluster]
	return home != nowhere && !e.unread(e.Clusters[home], facts.Pods) && !e.lacksIstiod(e.Clusters[home])
}

// orphans finds proxies whose revision has no istiod.
func (e *examination) orphans(i int, c facts.Cluster) {
	if !e.knowsIstiods(i) {
		return
	}
	who := map[string][]string{}
	for _, x := range c.Proxies {
		if e.planeOf(i, x) == nil {
			revision := e.revisionOf(i, x)
			who[revision] = append(who[revision], x.Name())
		}
	}
	home := e.Clusters[e.homes[i]].Context
	for _, revision := range slices.Sorted(maps.Keys(who)) {
		pods := who[revision]
		e.add(findings.ProxiesWithoutIstiod, []int{e.homes[i], i},
			fmt.Sprintf("%s of %s %s of revision %s, which has no istiod", count(len(pods), "proxy", "proxies"), c.Context,
				either(len(pods), "is", "are"), revision),
			Evidence{"pods with istio.io/rev=" + revision + " in " + c.Context, some(pods),
				kubectl(c.Context, "get pods -A -l %s=%s", facts.RevisionLabel, revision)},
			e.istiodsOf(home))
	}
}

// renamed finds istiods whose name of the cluster is none that its proxies have.
func (e *examination) renamed(p *plane) {
	if p.renamed == "" {
		return
	}
	c := e.Clusters[p.at]
	e.add(findings.ClusterRenamed, []int{p.at},
		fmt.Sprintf("%s has the name %s for its cluster, and its %s say %s", e.called(p), p.renamed,
			count(len(c.Proxies), "proxy", "proxies"), p.id),
		append([]Evidence{
			{"CLUSTER_ID of " + e.called(p), p.renamed, kubectl(c.Context, "get deployment %s -n %s -o yaml", p.deployment(), e.System)},
			{"ISTIO_META_CLUSTER_ID of proxies", p.id + " in " + c.Context, ""},
		}, e.logEvidence(c, "client claims to be in cluster")...)...)
}

// istiodsOf shows the revisions that run in a cluster.
func (e *examination) istiodsOf(context string) Evidence {
	var has []string
	for _, p := range e.planes {
		if e.Clusters[p.at].Context == context {
			has = append(has, p.revision)
		}
	}
	return Evidence{"istiods in " + context, "their revisions are " + words.And(has),
		kubectl(context, "get deployments -n %s -l app=%s -L %s", e.System, facts.IstiodName, facts.RevisionLabel)}
}

// leadsNowhere says why no istiod answers to a webhook, "" if one does.
func (e *examination) leadsNowhere(i int, w facts.Webhook) string {
	revision := cmp.Or(w.Revision, facts.DefaultRevision)
	switch {
	case w.Service == "":
		return ""
	case w.Nowhere != "":
		return fmt.Sprintf("it leads to the Service %s: %s", w.Service, w.Nowhere)
	case e.knowsIstiods(i) && e.planeAt(e.homes[i], revision) == nil:
		return fmt.Sprintf("it leads to revision %s, which has no istiod", revision)
	}
	return ""
}

// kindOf is the kind of a Webhook in a cluster.
func kindOf(w facts.Webhook) string {
	if w.Validates {
		return "ValidatingWebhookConfiguration"
	}
	return "MutatingWebhookConfiguration"
}

// webhookEvidence shows a webhook, and the istiods that there are.
func (e *examination) webhookEvidence(i int, w facts.Webhook, seen string) []Evidence {
	c := e.Clusters[i]
	return []Evidence{
		{kindOf(w) + " " + w.Name + " in " + c.Context, seen,
			kubectl(c.Context, "get %s %s -o yaml", strings.ToLower(kindOf(w)), w.Name)},
		e.istiodsOf(e.Clusters[e.homes[i]].Context),
	}
}

// webhookPlane returns the plane that a webhook calls; nil if it is not known.
func (e *examination) webhookPlane(i int, w facts.Webhook) *plane {
	if w.Revision == "" {
		return e.served[i]
	}
	return e.planeAt(e.homes[i], w.Revision)
}

// validator judges a validator that no istiod answers to.
func (e *examination) validator(i int, w facts.Webhook, why string) {
	if !w.Refuses {
		return // Istio's chart begins like this, and istiod writes Fail as soon as it answers
	}
	c, severity, what := e.Clusters[i], findings.Severity(""), "no object of Istio can be created or changed"
	if w.Narrow { // that of one revision looks only at objects with its label; istiod-default-validator looks at all
		severity, what = findings.Info, "objects of Istio with its label cannot be created or changed"
	}
	e.addAs(findings.ValidationLeadsNowhere, severity, []int{e.homes[i], i},
		fmt.Sprintf("no istiod answers to the validator %s of %s: %s", w.Name, c.Context, what),
		e.webhookEvidence(i, w, why+"; failurePolicy is Fail")...)
}

// injector judges an injector, or a tag, that no istiod answers to.
func (e *examination) injector(i int, w facts.Webhook, why string) {
	c, what, severity := e.Clusters[i], "the injector "+w.Name, findings.Severity("")
	if w.Tag != "" {
		what = "the tag " + w.Tag
	}
	follows, seen := "are refused", why+"; failurePolicy is Fail"
	if !w.Refuses {
		follows, seen = "start without a proxy", why+"; failurePolicy is Ignore"
	}
	says := fmt.Sprintf("no istiod answers to %s of %s: new pods of %s %s", what, c.Context, some(w.Injects), follows)
	if len(w.Injects) == 0 {
		says, severity = fmt.Sprintf("no istiod answers to %s of %s, which no namespace uses", what, c.Context), findings.Info
	}
	e.addAs(findings.TagLeadsNowhere, severity, []int{e.homes[i], i}, says, e.webhookEvidence(i, w, seen)...)
}

// misled finds revisions that serve another cluster, whose API server is led to another istiod by the gateway between them.
func (e *examination) misled(i int, c facts.Cluster) {
	home := e.Clusters[e.homes[i]]
	told := map[string]bool{}
	for _, w := range c.Webhooks {
		through := slices.ContainsFunc(home.Gateways, func(g facts.Gateway) bool {
			return slices.ContainsFunc(g.Addresses, func(a string) bool { return slices.Contains(w.Leads, a) })
		})
		if told[w.Service] || !through || len(w.Injects) == 0 || len(home.Routes) == 0 {
			continue
		}
		host := w.Service + "." + e.System + ".svc"
		route := routeOf(home.Routes, host)
		if route.Service == w.Service {
			continue
		}
		told[w.Service] = true
		e.add(findings.IstiodNotExposed, []int{e.homes[i], i},
			fmt.Sprintf("the API server of %s asks for %s, and the gateway of %s leads it to %s: new pods of %s are refused",
				c.Context, host, home.Context, cmp.Or(route.Service, "nobody"), some(w.Injects)),
			e.webhookEvidence(i, w, "it is the Service "+w.Service+", which leads to "+words.And(w.Leads))[0],
			Evidence{"VirtualServices of " + home.Context, fmt.Sprintf("none leads %s to %s", host, w.Service),
				kubectl(home.Context, "get virtualservices -n %s", e.System)})
	}
}

// routeOf returns the route that Envoy takes for a server name: the most precise one. It is zero if there is none.
func routeOf(routes []facts.IstiodRoute, host string) (best facts.IstiodRoute) {
	longest := -1
	for _, r := range routes {
		for _, h := range r.Hosts {
			suffix, wild := strings.CutPrefix(h, "*")
			if (h == host || wild && strings.HasSuffix(host, suffix)) && len(h) > longest {
				longest, best = len(h), r
			}
		}
	}
	return best
}

// uninjected finds namespaces whose label names what no injector knows.
func (e *examination) uninjected(i int, c facts.Cluster) {
	if e.unread(c, facts.Webhooks) || e.unread(c, facts.Namespaces) {
		return
	}
	for _, n := range c.Namespaces {
		known := slices.ContainsFunc(c.Webhooks, func(w facts.Webhook) bool { return slices.Contains(w.Injects, n.Name) })
		if !n.Injected || known {
			continue
		}
		label := facts.RevisionLabel + "=" + n.Revision
		if n.Injection != "" {
			label = facts.InjectionLabel + "=" + n.Injection
		}
		e.add(findings.TagLeadsNowhere, []int{i},
			fmt.Sprintf("no injector of %s knows %s: new pods of %s start without a proxy", c.Context, label, n.Name),
			Evidence{"namespace " + n.Name + " in " + c.Context, "it has " + label, kubectl(c.Context, "get namespace %s --show-labels", n.Name)},
			Evidence{"injectors and tags of " + c.Context, cmp.Or(words.And(injectors(c)), "there is none"),
				e.istioctl(c.Context, "tag list")})
	}
}

// injectors names the injectors and tags of a cluster.
func injectors(c facts.Cluster) (names []string) {
	for _, w := range c.Webhooks {
		if !w.Validates {
			names = append(names, w.Name)
		}
	}
	return names
}

// contradictions finds namespaces with both labels for injection. Injectors look at istio.io/rev only where there is no
// istio-injection (mutatingwebhook.yaml of Istio's chart).
func (e *examination) contradictions(i int, c facts.Cluster) {
	for _, n := range c.Namespaces {
		if n.Injection == "" || n.Revision == "" {
			continue
		}
		first, second := facts.InjectionLabel+"="+n.Injection, facts.RevisionLabel+"="+n.Revision
		e.add(findings.InjectionLabelsContradict, []int{i},
			fmt.Sprintf("namespace %s of %s has %s, so its %s does nothing", n.Name, c.Context, first, second),
			Evidence{"namespace " + n.Name + " in " + c.Context, "it has " + first + " and " + second,
				kubectl(c.Context, "get namespace %s --show-labels", n.Name)})
	}
}

// mixedGateways finds gateways of one cluster with different revisions or versions. Those of two clusters are upgraded one after the
// other; and one gateway that is being rolled out has pods of both for a while.
func (e *examination) mixedGateways(network string, own []entrance) {
	describe := func(g entrance) string {
		return fmt.Sprintf("%s (revision %s, version %s)", g.FullName(),
			cmp.Or(words.And(g.Revisions), "not known"), cmp.Or(words.And(g.Versions), "not known"))
	}
	own = slices.DeleteFunc(own, func(g entrance) bool { return g.Pods == 0 })
	var texts []string
	differ := false
	for _, g := range own {
		texts = append(texts, describe(g))
		differ = differ || !slices.Equal(g.Revisions, own[0].Revisions) || !slices.Equal(g.Versions, own[0].Versions)
	}
	if !differ {
		return
	}
	c := e.Clusters[own[0].cluster]
	e.add(findings.GatewaysOfTwoRevisions, []int{own[0].cluster},
		fmt.Sprintf("the east-west gateways of %s for %s have different revisions or versions", c.Context, network),
		Evidence{"gateways of " + c.Context, words.And(texts),
			kubectl(c.Context, "get pods -n %s -l %s -L %s", own[0].Namespace, selectorText(own[0].Selector), facts.RevisionLabel)})
}

// selectorText is a selector as kubectl wants it.
func selectorText(s map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, k+"="+s[k])
	}
	return strings.Join(parts, ",")
}
