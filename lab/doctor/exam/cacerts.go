package exam

import (
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

const (
	// onItsWay is how long a kubelet may take to bring a changed Secret into a pod, and istiod to read it.
	onItsWay = 2 * time.Minute

	rootEndsSoon         = 90 * 24 * time.Hour
	intermediateEndsSoon = 30 * 24 * time.Hour
)

// cacerts judges the CA of each control plane: the Secret cacerts by itself, and compared with what is in use.
func (e *examination) cacerts() {
	e.revisionRoots()
	for _, p := range e.planes {
		c := e.Clusters[p.at]
		if e.secret(p, c) {
			e.inUse(p, c)
		}
		e.istiods(p, c)
		e.ends(p)
	}
	e.selfSigned()
}

// cacertsEvidence is about the Secret cacerts of a cluster.
func (e *examination) cacertsEvidence(c facts.Cluster, seen string) Evidence {
	command := kubectl(c.Context, "get secret %s -n %s -o json | jq '.data | keys'", facts.CACertsSecret, e.System)
	return Evidence{"Secret " + facts.CACertsSecret + " in " + c.Context, seen, command}
}

// fileEvidence is about a file of the Secret cacerts. pipe says what to do with the file's content.
func (e *examination) fileEvidence(c facts.Cluster, file, seen, pipe string) Evidence {
	command := kubectl(c.Context, `get secret %s -n %s -o jsonpath='{.data.%s}' | base64 -d`,
		facts.CACertsSecret, e.System, strings.ReplaceAll(file, ".", `\.`))
	return Evidence{file + " of Secret " + facts.CACertsSecret + " in " + c.Context, seen, command + pipe}
}

// certEvidence is about a certificate in a file of the Secret cacerts.
func (e *examination) certEvidence(c facts.Cluster, file string, cert *x509.Certificate) Evidence {
	d := pki.Describe(cert)
	seen := fmt.Sprintf("%s, signed by %s, from %s to %s",
		d.Subject, d.Issuer, d.NotBefore.Format(time.RFC3339), d.NotAfter.Format(time.RFC3339))
	return e.fileEvidence(c, file, seen, " | openssl x509 -noout -subject -issuer -dates")
}

// logEvidence is the newest line of istiod's log that contains one of parts, if there is one.
func (e *examination) logEvidence(c facts.Cluster, parts ...string) []Evidence {
	pod, line := logLine(c, parts...)
	if line == "" {
		return nil
	}
	return []Evidence{{"log of " + pod + " in " + c.Context, line, kubectl(c.Context, "logs -n %s %s", e.System, pod)}}
}

func logLine(c facts.Cluster, parts ...string) (pod, line string) {
	for _, i := range slices.Backward(c.Istiods) {
		if line := i.Line(parts...); line != "" {
			return i.Pod, line
		}
	}
	return "", ""
}

// Parts of lines in istiod's log.
const (
	logSelfSigned    = "Use self-signed"
	logUpdateRefused = "Failed to update new Plug-in CA certs"
)

// secret judges the Secret cacerts by itself: whether an istiod that starts now accepts it, and whether what it signs then is
// accepted. It reports whether the Secret is good, so that it can be compared with what is in use.
func (e *examination) secret(p *plane, c facts.Cluster) bool {
	if c.CACerts == nil {
		e.elsewhere(p, c)
		return false
	}
	if !e.files(p, c) {
		return false
	}
	return e.content(p, c)
}

// elsewhere finds a Secret cacerts in a wrong namespace.
func (e *examination) elsewhere(p *plane, c facts.Cluster) {
	if len(c.Elsewhere) == 0 || !p.signsItself(c) {
		return
	}
	in := words.And(c.Elsewhere)
	evidence := Evidence{"Secret " + facts.CACertsSecret, "in namespace " + in + ", not in " + e.System,
		kubectl(c.Context, "get secrets -A --field-selector metadata.name=%s", facts.CACertsSecret)}
	e.add(findings.CACertsUnrecognized, p.clusters(),
		fmt.Sprintf("in %s the Secret %s is in namespace %s, where istiod does not look", c.Context, facts.CACertsSecret, in),
		append([]Evidence{evidence}, e.logEvidence(c, logSelfSigned)...)...)
}

// files reports whether the Secret has all its files, and certificates in them.
func (e *examination) files(p *plane, c facts.Cluster) bool {
	s, here := c.CACerts, p.clusters()
	wanted := []string{pki.CACertFile, pki.CAKeyFile, pki.CertChainFile, pki.RootCertFile}
	if slices.Contains(s.Keys, "tls.crt") {
		wanted = []string{"tls.crt", "tls.key", "ca.crt"}
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(k string) bool { return slices.Contains(s.Keys, k) })
	has := "its keys are " + words.And(s.Keys)
	switch {
	case len(missing) == len(wanted):
		e.add(findings.CACertsUnrecognized, here,
			fmt.Sprintf("in %s the Secret %s has keys that istiod does not know", c.Context, facts.CACertsSecret),
			append([]Evidence{e.cacertsEvidence(c, has+"; istiod knows "+words.And(wanted))}, e.logEvidence(c, logSelfSigned)...)...)
	case len(missing) > 0:
		e.add(findings.CACertsIncomplete, here,
			fmt.Sprintf("the Secret %s in %s lacks %s", facts.CACertsSecret, c.Context, words.And(missing)),
			append([]Evidence{e.cacertsEvidence(c, has)}, e.logEvidence(c, "incomplete signing CA bundle")...)...)
	case len(s.Damaged) > 0:
		for _, file := range slices.Sorted(maps.Keys(s.Damaged)) {
			e.add(findings.CACertsDamaged, here,
				fmt.Sprintf("%s in the Secret %s of %s is damaged", file, facts.CACertsSecret, c.Context),
				e.cacertsEvidence(c, file+": "+s.Damaged[file]))
		}
	default:
		return len(e.list(s.CA)) > 0 && len(e.list(s.Roots)) > 0
	}
	return false
}

// content judges the key and the certificates of a Secret that has all its files.
func (e *examination) content(p *plane, c facts.Cluster) (good bool) {
	s, here, in := c.CACerts, p.clusters(), facts.CACertsSecret+" of "+c.Context
	ca, chain, roots := e.list(s.CA), e.list(s.Chain), e.list(s.Roots)
	good = true
	bad := func(id findings.ID, says string, evidence ...Evidence) {
		e.add(id, here, says, evidence...)
		good = false
	}
	if s.Key == facts.KeyForeign || s.Key == facts.KeyDamaged {
		bad(findings.CACertsKeyMismatch, fmt.Sprintf("the private key in %s does not belong to the CA's certificate", in),
			append([]Evidence{e.certEvidence(c, pki.CACertFile, ca[0])}, e.logEvidence(c, "the cert does not match the key")...)...)
	}
	// istiod verifies the CA through the chain. With what it signs it sends the chain, not the CA.
	way, o := climb(append([]*x509.Certificate{ca[0]}, chain...), roots)
	sent := slices.ContainsFunc(roots, ca[0].Equal) ||
		slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return sameKey(c, ca[0]) })
	switch {
	case o != trusted:
		bad(findings.CACertsChainBroken,
			fmt.Sprintf("in %s the CA %q does not lead to a root in %s", in, pki.Name(ca[0]), pki.RootCertFile),
			append([]Evidence{e.certEvidence(c, pki.CACertFile, ca[0]), e.certEvidence(c, pki.RootCertFile, roots[0])},
				e.logEvidence(c, logUpdateRefused, "failed to create CA KeyCertBundle")...)...)
	case !sent:
		seen := fmt.Sprintf("it has %s, but not that of the CA %q", words.Plural(len(chain), "certificate"), pki.Name(ca[0]))
		if len(chain) == 0 {
			seen = "it is empty, and the CA is an intermediate"
		}
		bad(findings.CACertsChainEmpty,
			fmt.Sprintf("%s in %s lacks the intermediate CA, so new certificates come without it", pki.CertChainFile, in),
			e.fileEvidence(c, pki.CertChainFile, seen, ""), e.certEvidence(c, pki.CACertFile, ca[0]))
	}
	checked := map[string]bool{}
	for _, cert := range slices.Concat(way, ca, chain) {
		if checked[facts.ID(cert)] {
			continue
		}
		checked[facts.ID(cert)] = true
		root, file := slices.ContainsFunc(roots, cert.Equal), pki.CertChainFile
		switch {
		case root:
			file = pki.RootCertFile
		case cert.Equal(ca[0]):
			file = pki.CACertFile
		}
		if id, says, ok := e.dated(cert, root); ok {
			bad(id, fmt.Sprintf("in %s %s", in, says),
				append([]Evidence{e.certEvidence(c, file, cert)}, e.logEvidence(c, "has expired", "is not yet valid")...)...)
		}
	}
	if without := withoutList(chain, parseLists(s.CRLs)); len(s.CRLs) > 0 && len(without) > 0 {
		seen := fmt.Sprintf("%s has %s; %s has %s", pki.CRLFile, words.Plural(len(s.CRLs), "list"),
			pki.CertChainFile, words.Plural(len(chain), "certificate"))
		bad(findings.CRLIncomplete, fmt.Sprintf("%s has revocation lists, but none of %s", in, words.And(without)),
			append([]Evidence{e.cacertsEvidence(c, seen)}, e.logEvidence(c, "missing CRL signed by")...)...)
	}
	return good
}

// withoutList names the certificates of a chain that have signed none of the revocation lists. istiod looks for one of each
// (security/pkg/pki/util/keycertbundle.go).
func withoutList(chain []*x509.Certificate, lists []*x509.RevocationList) (names []string) {
	for _, cert := range chain {
		if !slices.ContainsFunc(lists, func(l *x509.RevocationList) bool { return l.CheckSignatureFrom(cert) == nil }) {
			names = append(names, fmt.Sprintf("%q", pki.Name(cert)))
		}
	}
	return names
}

// signsItself reports whether the istiod signs with a CA that it made for itself.
func (p *plane) signsItself(c facts.Cluster) bool {
	if p.ca == nil {
		return slices.ContainsFunc(p.pods, func(i *facts.Istiod) bool { return i.Line(logSelfSigned) != "" })
	}
	if c.SelfSigned != nil && len(c.SelfSigned.CA) > 0 {
		return c.SelfSigned.CA[0] == facts.ID(p.ca)
	}
	return signed(p.ca, p.ca) && (c.CACerts == nil || !slices.Contains(c.CACerts.Roots, facts.ID(p.ca)))
}

// signer names the CA that signed the plane's own certificate.
func (p *plane) signer() string {
	if p.ca == nil {
		return fmt.Sprintf("%q, which is in no Secret", p.chain[0].Issuer)
	}
	return pki.Label(p.ca)
}

// inUse compares a good Secret with what the control plane signs with and hands out.
func (e *examination) inUse(p *plane, c facts.Cluster) {
	s := c.CACerts
	if len(p.chain) == 0 {
		return // istiod is down, or could not be asked: the checks say which
	}
	matches, here, written := signed(p.chain[0], e.list(s.CA)[0]), p.clusters(), e.Taken.Sub(s.Modified)
	now := Evidence{e.called(p), "its own certificate is signed by " + p.signer(),
		kubectl(c.Context, "port-forward -n %s deploy/%s 15012 & openssl s_client -connect localhost:15012 -showcerts </dev/null",
			e.System, p.deployment())}
	if p.split && matches {
		return // the root of the one beside it is handed out
	}
	if !matches && p.signsItself(c) {
		when := "the start of istiod is not known"
		if p.istiod != nil {
			when = fmt.Sprintf("istiod started %s before that", words.Age(s.Modified.Sub(p.istiod.Created)))
		}
		e.add(findings.LateCACerts, here,
			fmt.Sprintf("%s still signs with the CA that it made for itself, and will change to %s when it restarts",
				e.called(p), facts.CACertsSecret),
			append([]Evidence{now, e.cacertsEvidence(c, fmt.Sprintf("written %s ago; %s", words.Age(written), when))},
				e.logEvidence(c, logSelfSigned)...)...)
		return
	}
	_, leads := climb(p.chain, e.list(s.Roots))
	otherRoot := len(p.roots) > 0 && (!pki.SameSet(e.list(s.Roots), p.roots) || !matches && leads != trusted)
	said := e.logSince(c, s.Modified, "Updating new ROOT-CA not supported", "Multi root is disabled")
	switch {
	case otherRoot && (written > onItsWay || len(said) > 0):
		command := kubectl(c.Context, `get configmap %s -n %s -o jsonpath='{.data.root-cert\.pem}' `+
			`| openssl x509 -noout -subject -fingerprint -sha256`, facts.RootConfigMap, e.System)
		e.add(findings.RootChangeRefused, here,
			fmt.Sprintf("the root in %s of %s is not the one that istiod hands out", facts.CACertsSecret, c.Context),
			append([]Evidence{
				e.certEvidence(c, pki.RootCertFile, e.list(s.Roots)[0]),
				{"ConfigMap " + facts.RootConfigMap + " in " + c.Context, "its roots are " + pki.Labels(p.roots), command},
				now,
			}, said...)...)
	case otherRoot || !matches:
		severity := findings.Severity("")
		if written <= onItsWay {
			severity = findings.Info
		}
		e.addAs(findings.CACertsNotInUse, severity, here,
			fmt.Sprintf("%s signs with another CA than the one in %s", e.called(p), facts.CACertsSecret),
			append([]Evidence{now, e.cacertsEvidence(c, "written "+words.Age(written)+" ago")}, e.logEvidence(c, logUpdateRefused)...)...)
	}
}

// logSince is logEvidence, if the line is no older than since.
func (e *examination) logSince(c facts.Cluster, since time.Time, parts ...string) []Evidence {
	return slices.DeleteFunc(e.logEvidence(c, parts...), func(v Evidence) bool {
		stamp, _, _ := strings.Cut(v.Seen, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		return err != nil || at.Before(since.Add(-time.Second)) // the API server notes whole seconds
	})
}

// istiods judges the pods of an istiod. One that nobody uses yet, or any more, may be away while another revision serves.
func (e *examination) istiods(p *plane, c facts.Cluster) {
	e.signers(p, c)
	pods := kubectl(c.Context, "get pods -n %s -l app=%s", e.System, facts.IstiodName)
	reasons := e.logEvidence(c, "failed to create", "x509:")
	ready := p.istiod != nil
	idle := p.beside && !e.used(p) && slices.ContainsFunc(c.Istiods, func(i facts.Istiod) bool { return i.Ready })
	seen := "it has no pod"
	for _, i := range p.pods {
		seen = i.Pod + ": " + i.State
		if (ready || idle) && !i.Ready && e.Taken.Sub(i.Created) > startsWithin {
			e.add(findings.IstiodNotReady, p.clusters(), "a pod of "+e.called(p)+" does not become Ready, while another one serves",
				append([]Evidence{{"pod " + i.Pod + " in " + c.Context, i.State, pods}}, reasons...)...)
		}
	}
	switch {
	case ready || idle || e.unread(c, facts.Pods):
	case e.lacksIstiod(c):
		e.add(findings.IstiodMissing, p.clusters(), "the istiod of "+c.Context+" was deleted",
			Evidence{"Service " + c.IstiodService + " in " + c.Context, "it leads to pods of istiod, and there is no pod and no Deployment",
				kubectl(c.Context, "get deployments,pods,services -n %s -l app=%s", e.System, facts.IstiodName)})
	default:
		says := "no istiod is Ready in " + c.Context
		if p.beside {
			says = "no pod of " + e.called(p) + " is Ready"
		}
		e.add(findings.IstiodDown, p.clusters(), says,
			append([]Evidence{{"Deployment " + p.deployment() + " in " + c.Context, seen, pods}}, reasons...)...)
	}
}

// signers finds pods of one istiod, of one revision, that sign with different CAs.
func (e *examination) signers(p *plane, c facts.Cluster) {
	signers := map[string]bool{}
	var evidence []Evidence
	for _, i := range p.pods {
		chain := e.list(i.Signer)
		if len(chain) == 0 {
			continue
		}
		by := chain[0].Issuer.String() + string(chain[0].AuthorityKeyId)
		if ca := e.signerOf(chain, c); ca != nil {
			by = string(ca.RawSubjectPublicKeyInfo)
		}
		signers[by] = true
		seen := fmt.Sprintf("its own certificate is signed by %q, it started %s ago", chain[0].Issuer, words.Age(e.Taken.Sub(i.Created)))
		evidence = append(evidence, Evidence{"pod " + i.Pod + " in " + c.Context, seen, ""})
	}
	if len(signers) > 1 {
		e.add(findings.IstiodsDiffer, p.clusters(), "the pods of "+e.called(p)+" sign with different CAs", evidence...)
	}
}

// ends finds CAs of a control plane that expire soon, among them all roots of its bundle.
func (e *examination) ends(p *plane) {
	c := e.Clusters[p.at]
	for _, ca := range slices.Concat(p.roots, []*x509.Certificate{p.ca}) {
		if ca == nil {
			continue
		}
		soon, left := intermediateEndsSoon, ca.NotAfter.Sub(e.Taken)
		if slices.ContainsFunc(p.roots, ca.Equal) {
			soon = rootEndsSoon
		}
		if left > soon {
			continue
		}
		severity, says := findings.Warning, fmt.Sprintf("%q, in use in %s, expires in %s", pki.Name(ca), c.Context, words.Age(left))
		if left <= 0 {
			if p.ca != nil && (ca.Equal(p.ca) || signed(p.ca, ca)) {
				continue // root-expired or intermediate-expired
			}
			severity = findings.Info
			says = fmt.Sprintf("%q, a root in %s that signs nothing any more, expired %s ago", pki.Name(ca), c.Context, words.Age(left))
		}
		e.addAs(findings.CAExpiresSoon, severity, p.clusters(), says, Evidence{"CA of " + c.Context, pki.Describe(ca).String(), ""})
	}
}

// selfSigned finds CAs that only istiod keeps.
func (e *examination) selfSigned() {
	for _, p := range e.planes {
		c := e.Clusters[p.at]
		if p.ca == nil || !p.signsItself(c) {
			continue
		}
		if c.CACerts != nil && slices.Contains(c.CACerts.CA, facts.ID(p.ca)) {
			continue // cacerts keeps it, too
		}
		severity := findings.Warning
		if len(e.sites()) == 1 {
			severity = findings.Info // one istiod signs for the whole mesh, which only matters once the mesh grows
		}
		e.addAs(findings.SelfSignedCA, severity, p.clusters(), e.called(p)+" signs with a CA that it made for itself",
			Evidence{"Secret " + facts.SelfSignedSecret + " in " + c.Context, pki.Label(p.ca),
				kubectl(c.Context, "get secrets -n %s %s %s", e.System, facts.SelfSignedSecret, facts.CACertsSecret)})
	}
}
