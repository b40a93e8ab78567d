package doctor

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

const (
	// onItsWay is how long a kubelet may take to bring a changed Secret into a pod, and istiod to read it.
	onItsWay = 2 * time.Minute
	// skew is by how much the clocks of those who sign and of those who look may differ.
	skew = time.Minute

	rootEndsSoon         = 90 * 24 * time.Hour
	intermediateEndsSoon = 30 * 24 * time.Hour
	tokenEndsSoon        = 7 * 24 * time.Hour
)

// secrets compares, for each control plane, the Secret cacerts with itself and with what is in use.
func (e *exam) secrets() {
	for _, p := range e.planes {
		c := e.Clusters[p.at]
		good := e.secret(p, c)
		if good {
			e.inUse(p, c)
		}
		e.istiods(p, c)
		e.ends(p)
	}
	e.selfSigned()
}

// evidence of the Secret cacerts of a cluster.
func cacertsEvidence(c Cluster, seen string) Evidence {
	return Evidence{"Secret " + mesh.CACerts + " in " + c.Context, seen,
		fmt.Sprintf("kubectl --context=%s get secret %s -n %s -o json | jq '.data | keys'", c.Context, mesh.CACerts, mesh.SystemNamespace)}
}

func (e *exam) certEvidence(c Cluster, file string, cert *x509.Certificate) Evidence {
	d := pki.Describe(cert)
	return Evidence{file + " of Secret " + mesh.CACerts + " in " + c.Context,
		fmt.Sprintf("%s, signed by %s, from %s to %s", d.Subject, d.Issuer, d.NotBefore.Format(time.RFC3339), d.NotAfter.Format(time.RFC3339)),
		fmt.Sprintf(`kubectl --context=%s get secret %s -n %s -o jsonpath='{.data.%s}' | base64 -d | openssl x509 -noout -subject -issuer -dates`, c.Context, mesh.CACerts, mesh.SystemNamespace, strings.ReplaceAll(file, ".", `\.`))}
}

// logEvidence is what istiod itself said of it.
func logEvidence(c Cluster, parts ...string) []Evidence {
	for _, i := range slices.Backward(c.Istiods) {
		for _, line := range slices.Backward(i.Lines) {
			if slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(line, p) }) {
				return []Evidence{{"log of " + i.Pod + " in " + c.Context, line,
					fmt.Sprintf("kubectl --context=%s logs -n %s %s", c.Context, mesh.SystemNamespace, i.Pod)}}
			}
		}
	}
	return nil
}

// secret looks at the Secret alone: whether an istiod that starts now takes it, and whether what it signs then is
// accepted. It reports whether it is worth comparing with what is in use.
func (e *exam) secret(p *plane, c Cluster) (good bool) {
	s, here := c.CACerts, p.all()
	if s == nil {
		if len(c.Elsewhere) > 0 && p.signsItself(c) {
			e.add("cacerts-unrecognized", "", here, fmt.Sprintf("in %s the Secret %s is in namespace %s, where istiod does not look", c.Context, mesh.CACerts, words(c.Elsewhere)),
				append([]Evidence{{"Secret " + mesh.CACerts, "in namespace " + words(c.Elsewhere) + ", not in " + mesh.SystemNamespace,
					fmt.Sprintf("kubectl --context=%s get secrets -A --field-selector metadata.name=%s", c.Context, mesh.CACerts)}}, logEvidence(c, "Use self-signed")...)...)
		}
		return false
	}
	wanted := []string{pki.CACertFile, pki.CAKeyFile, pki.CertChainFile, pki.RootCertFile}
	if slices.Contains(s.Keys, "tls.crt") {
		wanted = []string{"tls.crt", "tls.key", "ca.crt"}
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(k string) bool { return slices.Contains(s.Keys, k) })
	switch {
	case len(missing) == len(wanted):
		e.add("cacerts-unrecognized", "", here, fmt.Sprintf("in %s the Secret %s has keys that istiod does not know", c.Context, mesh.CACerts),
			append([]Evidence{cacertsEvidence(c, "its keys are "+words(s.Keys)+"; istiod knows "+words(wanted))}, logEvidence(c, "Use self-signed")...)...)
		return false
	case len(missing) > 0:
		e.add("cacerts-incomplete", "", here, fmt.Sprintf("the Secret %s in %s lacks %s", mesh.CACerts, c.Context, words(missing)),
			append([]Evidence{cacertsEvidence(c, "its keys are "+words(s.Keys))}, logEvidence(c, "incomplete signing CA bundle")...)...)
		return false
	case len(s.Damaged) > 0:
		for _, file := range keys(s.Damaged) {
			e.add("cacerts-damaged", "", here, fmt.Sprintf("%s in the Secret %s of %s is damaged", file, mesh.CACerts, c.Context), cacertsEvidence(c, file+": "+s.Damaged[file]))
		}
		return false
	}
	ca, chain, roots := e.list(s.CA), e.list(s.Chain), e.list(s.Roots)
	if len(ca) == 0 || len(roots) == 0 {
		return false
	}
	good = true
	bad := func(kind, says string, evidence ...Evidence) {
		e.add(kind, "", here, says, evidence...)
		good = false
	}
	switch s.Key {
	case "another", "damaged":
		bad("cacerts-key-mismatch", fmt.Sprintf("the private key in %s of %s does not belong to the CA's certificate", mesh.CACerts, c.Context),
			append([]Evidence{e.certEvidence(c, pki.CACertFile, ca[0])}, logEvidence(c, "the cert does not match the key")...)...)
	}
	// istiod verifies the CA by way of the chain, and sends the chain, and not the CA, with what it signs.
	root := slices.ContainsFunc(roots, ca[0].Equal)
	used, o := climb(append([]*x509.Certificate{ca[0]}, chain...), roots)
	sent := root || slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return samePublicKey(c, ca[0]) })
	switch {
	case o != found:
		bad("cacerts-chain-broken", fmt.Sprintf("in %s of %s the CA %q does not lead to a root in %s", mesh.CACerts, c.Context, name(ca[0]), pki.RootCertFile),
			append([]Evidence{e.certEvidence(c, pki.CACertFile, ca[0]), e.certEvidence(c, pki.RootCertFile, roots[0])}, logEvidence(c, "Failed to update new Plug-in CA certs", "failed to create CA KeyCertBundle")...)...)
	case !sent:
		seen := fmt.Sprintf("it has %s, and not that of the CA %q", plural(len(chain), "certificate"), name(ca[0]))
		if len(chain) == 0 {
			seen = "it is empty, and the CA is an intermediate"
		}
		bad("cacerts-chain-empty", fmt.Sprintf("%s in %s of %s lacks the intermediate CA, so new certificates come without it", pki.CertChainFile, mesh.CACerts, c.Context),
			Evidence{pki.CertChainFile + " of Secret " + mesh.CACerts + " in " + c.Context, seen,
				fmt.Sprintf(`kubectl --context=%s get secret %s -n %s -o jsonpath='{.data.cert-chain\.pem}' | base64 -d`, c.Context, mesh.CACerts, mesh.SystemNamespace)},
			e.certEvidence(c, pki.CACertFile, ca[0]))
	}
	checked := map[string]bool{}
	for _, one := range slices.Concat(used, ca, chain) {
		if checked[id(one)] {
			continue
		}
		checked[id(one)] = true
		file := pki.CertChainFile
		switch {
		case slices.ContainsFunc(roots, one.Equal):
			file = pki.RootCertFile
		case one.Equal(ca[0]):
			file = pki.CACertFile
		}
		kind, says := e.dated(one, slices.ContainsFunc(roots, one.Equal))
		if kind != "" {
			bad(kind, fmt.Sprintf("in %s of %s %s", mesh.CACerts, c.Context, says),
				append([]Evidence{e.certEvidence(c, file, one)}, logEvidence(c, "has expired", "is not yet valid")...)...)
		}
	}
	e.lists(c, chain, bad)
	return good
}

// dated says what is wrong with the dates of a CA's certificate.
func (e *exam) dated(c *x509.Certificate, root bool) (kind, says string) {
	switch {
	case e.Taken.After(c.NotAfter) && root:
		return "root-expired", fmt.Sprintf("the root %q ended %s ago", name(c), age(e.Taken.Sub(c.NotAfter)))
	case e.Taken.After(c.NotAfter):
		return "intermediate-expired", fmt.Sprintf("the intermediate %q ended %s ago", name(c), age(e.Taken.Sub(c.NotAfter)))
	case e.Taken.Add(skew).Before(c.NotBefore):
		return "certificate-not-yet-valid", fmt.Sprintf("%q begins to be valid in %s", name(c), age(c.NotBefore.Sub(e.Taken)))
	}
	return "", ""
}

// lists looks for a revocation list of every certificate of the chain, as istiod does
// (security/pkg/pki/util/keycertbundle.go).
func (e *exam) lists(c Cluster, chain []*x509.Certificate, bad func(string, string, ...Evidence)) {
	if len(c.CACerts.CRLs) == 0 {
		return
	}
	var without []string
	for _, cert := range chain {
		if !slices.ContainsFunc(c.CACerts.CRLs, func(der []byte) bool {
			list, err := x509.ParseRevocationList(der)
			return err == nil && list.CheckSignatureFrom(cert) == nil
		}) {
			without = append(without, fmt.Sprintf("%q", name(cert)))
		}
	}
	if len(without) > 0 {
		bad("crl-incomplete", fmt.Sprintf("%s of %s has revocation lists, and none of %s", mesh.CACerts, c.Context, words(without)),
			append([]Evidence{cacertsEvidence(c, fmt.Sprintf("%s has %s; %s has %s", pki.CRLFile, plural(len(c.CACerts.CRLs), "list"), pki.CertChainFile, plural(len(chain), "certificate")))},
				logEvidence(c, "missing CRL signed by")...)...)
	}
}

// signsItself says whether the istiod signs with a CA that it made for itself.
func (p *plane) signsItself(c Cluster) bool {
	if p.ca == nil {
		return len(logEvidence(c, "Use self-signed")) > 0
	}
	if c.SelfSigned != nil && len(c.SelfSigned.CA) > 0 {
		return c.SelfSigned.CA[0] == id(p.ca)
	}
	return samePublicKeyAsIssuer(p.ca) && (c.CACerts == nil || !slices.Contains(c.CACerts.Roots, id(p.ca)))
}

// inUse compares a Secret that is good with what the control plane signs with and hands out.
func (e *exam) inUse(p *plane, c Cluster) {
	s := c.CACerts
	ca := e.list(s.CA)[0]
	if len(p.chain) == 0 {
		return // istiod is down, or was not asked: the state of the check says which
	}
	matches, here := signed(p.chain[0], ca), p.all()
	now := Evidence{"istiod of " + c.Context, "its own certificate is signed by " + e.signerName(p),
		fmt.Sprintf("kubectl --context=%s port-forward -n %s deploy/%s 15012 & openssl s_client -connect localhost:15012 -showcerts </dev/null", c.Context, mesh.SystemNamespace, mesh.Istiod)}
	old := e.Taken.Sub(s.Modified) > onItsWay
	if !matches && p.signsItself(c) {
		when := "its start is not known"
		if p.istiod != nil {
			when = fmt.Sprintf("istiod started %s before that", age(s.Modified.Sub(p.istiod.Created)))
		}
		e.add("late-cacerts", "", here, fmt.Sprintf("istiod of %s still signs with the CA that it made for itself, and will change to %s when it restarts", c.Context, mesh.CACerts),
			append([]Evidence{now, cacertsEvidence(c, fmt.Sprintf("written %s ago; %s", age(e.Taken.Sub(s.Modified)), when))}, logEvidence(c, "Use self-signed")...)...)
		return
	}
	roots := e.list(s.Roots)
	said := afterwards(c, s.Modified, "Updating new ROOT-CA not supported", "Multi root is disabled")
	_, leads := climb(p.chain, roots)
	if len(p.roots) > 0 && (!sameSet(roots, p.roots) || !matches && leads != found) {
		if old || len(said) > 0 {
			e.add("root-change-refused", "", here, fmt.Sprintf("the root in %s of %s is not the one that istiod hands out", mesh.CACerts, c.Context),
				append([]Evidence{e.certEvidence(c, pki.RootCertFile, roots[0]),
					{"ConfigMap " + rootMap + " in " + c.Context, "its roots are " + names(p.roots),
						fmt.Sprintf(`kubectl --context=%s get configmap %s -n %s -o jsonpath='{.data.root-cert\.pem}' | openssl x509 -noout -subject -fingerprint -sha256`, c.Context, rootMap, mesh.SystemNamespace)}, now}, said...)...)
			return
		}
	} else if matches {
		return
	}
	severity := Severity("")
	if !old {
		severity = Info
	}
	e.add("cacerts-not-in-use", severity, here, fmt.Sprintf("istiod of %s signs with another CA than the one in %s", c.Context, mesh.CACerts),
		append([]Evidence{now, cacertsEvidence(c, "written "+age(e.Taken.Sub(s.Modified))+" ago")}, logEvidence(c, "Failed to update new Plug-in CA certs")...)...)
}

// afterwards is logEvidence of lines that are no older than a time.
func afterwards(c Cluster, since time.Time, parts ...string) []Evidence {
	return slices.DeleteFunc(logEvidence(c, parts...), func(v Evidence) bool {
		stamp, _, _ := strings.Cut(v.Seen, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		return err != nil || at.Before(since.Add(-time.Second)) // the API server notes whole seconds
	})
}

func (e *exam) signerName(p *plane) string {
	if p.ca == nil {
		return fmt.Sprintf("%q, which nobody knows", p.chain[0].Issuer)
	}
	return names([]*x509.Certificate{p.ca})
}

// istiods looks at the pods of an istiod.
func (e *exam) istiods(p *plane, c Cluster) {
	var signers []string
	var evidence []Evidence
	ready := 0
	for _, i := range c.Istiods {
		if i.Ready {
			ready++
		}
		if chain := e.list(i.Signer); len(chain) > 0 {
			by := chain[0].Issuer.String() + string(chain[0].AuthorityKeyId)
			if ca := e.signerOf(chain, c); ca != nil {
				by = string(ca.RawSubjectPublicKeyInfo)
			}
			signers = append(signers, by)
			evidence = append(evidence, Evidence{"pod " + i.Pod + " in " + c.Context, "its own certificate is signed by " + fmt.Sprintf("%q", chain[0].Issuer) + ", it started " + age(e.Taken.Sub(i.Created)) + " ago", ""})
		}
	}
	slices.Sort(signers)
	if len(slices.Compact(signers)) > 1 {
		e.add("istiods-differ", "", p.all(), "the pods of istiod in "+c.Context+" sign with different CAs", evidence...)
	}
	pods := fmt.Sprintf("kubectl --context=%s get pods -n %s -l app=%s", c.Context, mesh.SystemNamespace, mesh.Istiod)
	if ready > 0 || e.unread(c, Pods) {
		for _, i := range c.Istiods {
			if !i.Ready && e.Taken.Sub(i.Created) > startsWithin && ready > 0 {
				e.add("istiod-not-ready", "", p.all(), "a pod of istiod in "+c.Context+" does not become Ready, another one serves",
					append([]Evidence{{"pod " + i.Pod + " in " + c.Context, i.State, pods}}, logEvidence(c, "failed to create", "x509:")...)...)
			}
		}
		return
	}
	seen := "there is no pod of it"
	for _, i := range c.Istiods {
		seen = i.Pod + ": " + i.State
	}
	e.add("istiod-down", "", p.all(), "no istiod is ready in "+c.Context,
		append([]Evidence{{"Deployment " + mesh.Istiod + " in " + c.Context, seen, pods}},
			logEvidence(c, "failed to create", "x509:")...)...)
}

// ends looks for CAs of a control plane that end soon, all roots of its bundle included.
func (e *exam) ends(p *plane) {
	c := e.Clusters[p.at]
	for _, one := range slices.Concat(p.roots, []*x509.Certificate{p.ca}) {
		if one == nil {
			continue
		}
		root := slices.ContainsFunc(p.roots, one.Equal)
		within, left := intermediateEndsSoon, one.NotAfter.Sub(e.Taken)
		if root {
			within = rootEndsSoon
		}
		if left > within {
			continue
		}
		severity, says := Warning, fmt.Sprintf("%q, in use in %s, ends in %s", name(one), c.Context, age(left))
		if left <= 0 {
			if p.ca != nil && (one.Equal(p.ca) || signed(p.ca, one)) {
				continue // that is a finding of its own
			}
			severity, says = Info, fmt.Sprintf("%q, a root that signs nothing any more in %s, ended %s ago", name(one), c.Context, age(left))
		}
		e.add("ca-expires-soon", severity, p.all(), says, Evidence{"CA of " + c.Context, pki.Describe(one).String(), ""})
	}
}

// selfSigned looks for a CA that nobody keeps but istiod.
func (e *exam) selfSigned() {
	for _, p := range e.planes {
		c := e.Clusters[p.at]
		if p.ca == nil || !p.signsItself(c) {
			continue
		}
		if c.CACerts != nil && slices.Contains(c.CACerts.CA, id(p.ca)) {
			continue // cacerts carries it over
		}
		severity := Warning
		if len(e.planes) == 1 {
			severity = Info // it signs for the whole mesh, and a mesh that grows is another matter
		}
		e.add("self-signed-ca", severity, p.all(), "istiod of "+c.Context+" signs with a CA that it made for itself",
			Evidence{"Secret " + observe.SelfSignedSecret + " in " + c.Context, names([]*x509.Certificate{p.ca}),
				fmt.Sprintf("kubectl --context=%s get secrets -n %s %s %s", c.Context, mesh.SystemNamespace, observe.SelfSignedSecret, mesh.CACerts)})
	}
}

func samePublicKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

func samePublicKeyAsIssuer(c *x509.Certificate) bool { return signed(c, c) }
