package observe

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// SelfSignedSecret is the Secret in which an istiod without cacerts keeps the CA that it has made for itself.
const SelfSignedSecret = "istio-ca-secret"

// CASource names a CA of the lab.
type CASource string

// The CAs.
const (
	SharedRoot CASource = "shared"      // the root that the lab has made for all clusters
	InCACerts  CASource = "cacerts"     // what is now in the Secret cacerts of the cluster's istiod
	SelfSigned CASource = "self-signed" // the CA that the cluster's istiod has made for itself
)

func (s CASource) phrase(of string) string {
	switch s {
	case SharedRoot:
		return "the lab's shared " + of
	case SelfSigned:
		return "the self-signed CA of their cluster's istiod"
	}
	return "the " + of + " in their cluster's Secret cacerts"
}

// certificates returns the certificates in a file of the source, in one cluster.
func (s CASource) certificates(ctx context.Context, m *mesh.Mesh, cluster, file string) ([]*x509.Certificate, error) {
	member, err := m.Member(cluster)
	if err != nil {
		return nil, err
	}
	secret, in := mesh.CACerts, member.Primary() // the cluster of the istiod that signs
	switch s {
	case SharedRoot:
		if m.Adopted {
			return nil, mesh.ErrAdopted
		}
		root, err := pki.Load(m.CADir(), mesh.Topology{Trust: mesh.SharedRoot}.RootName(cluster))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errors.New("this lab has no shared root: its trust is " + string(m.Trust))
		}
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{root.Certificate()}, nil
	case SelfSigned:
		secret, file, in = SelfSignedSecret, pki.CACertFile, member.ConfigCluster() // istiod keeps it in the cluster that it reads
	}
	data, err := secretFile(ctx, m, in.Name(), secret, file)
	if err != nil {
		return nil, err
	}
	return pki.Roots(data)
}

// errAbsent says that a Secret or one of its keys is not there, which is what some checks want.
var errAbsent = errors.New("is not there")

func secretFile(ctx context.Context, m *mesh.Mesh, cluster, secret, file string) ([]byte, error) {
	member, err := m.Member(cluster)
	if err != nil {
		return nil, err
	}
	s, err := member.Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(ctx, secret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("Secret %s in %s %w", secret, cluster, errAbsent) //nolint:revive // a kind
	case err != nil:
		return nil, fmt.Errorf("reading Secret %s in %s: %w", secret, cluster, err)
	case len(s.Data[file]) == 0:
		return nil, fmt.Errorf("key %s of Secret %s in %s %w", file, secret, cluster, errAbsent)
	}
	return s.Data[file], nil
}

// CACertsFile returns a file of the Secret cacerts of a cluster. It is an error if it is not there.
func CACertsFile(ctx context.Context, m *mesh.Mesh, cluster, file string) ([]byte, error) {
	return secretFile(ctx, m, cluster, mesh.CACerts, file)
}

// RootsOf returns the PEM of the roots that a cluster's istiod hands out, by its Secrets: those in cacerts or, without
// cacerts, that of the CA that istiod has made for itself.
func RootsOf(ctx context.Context, m *mesh.Mesh, cluster string) ([]byte, error) {
	data, err := CACertsFile(ctx, m, cluster, pki.RootCertFile)
	if errors.Is(err, errAbsent) {
		return secretFile(ctx, m, cluster, SelfSignedSecret, pki.CACertFile)
	}
	return data, err
}

// Roots checks which roots proxies trust, by what each proxy uses now. No tool of Istio compares that between clusters.
// Everything that is set must hold for all these proxies.
type Roots struct {
	// Whose proxies: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of strict.List[Workload] `yaml:"of" ref:"workload"`
	// All proxies of these clusters, in place of of. All of the mesh if both are left out.
	In strict.List[string] `yaml:"in" ref:"cluster"`
	// Which pods of the workloads in of; all if left out.
	Pods Which `yaml:"pods" enum:"all,newest,oldest"`
	// true: all have the same set of roots. false: some have another.
	Same *bool `yaml:"same"`
	// Each trusts so many roots.
	Count int `yaml:"count" min:"1" max:"20"`
	// Each trusts just this: the lab's shared root, the roots in its cluster's Secret cacerts now, or the CA that its
	// istiod made for itself.
	Is CASource `yaml:"is" enum:"shared,cacerts,self-signed"`
	// Each trusts this, and possibly more.
	Trusts CASource `yaml:"trusts" enum:"shared,cacerts,self-signed"`
	// Each trusts a root with such a name.
	Matches *regexp.Regexp `yaml:"matches"`
}

// Validate wants one way to say who, and something to look for.
func (c Roots) Validate() error {
	switch {
	case len(c.Of) > 0 && len(c.In) > 0:
		return strict.At("in", errors.New("stands in place of of: leave one out"))
	case c.Pods != "" && len(c.Of) == 0:
		return strict.At("pods", errors.New("goes with of"))
	case c.Same == nil && c.Count == 0 && c.Is == "" && c.Trusts == "" && c.Matches == nil:
		return errors.New("want at least one of same, count, is, trusts, and matches")
	}
	return nil
}

var _ Check = Roots{}

func (c Roots) who() string {
	switch {
	case len(c.Of) > 0:
		return "the proxies of " + c.Pods.of(list(c.Of))
	case len(c.In) > 0:
		return "all proxies in " + words.And(c.In)
	}
	return "all proxies of the mesh"
}

func (c Roots) wanted() string {
	var wanted []string
	if c.Same != nil && *c.Same {
		wanted = append(wanted, "trust the same roots")
	}
	if c.Same != nil && !*c.Same {
		wanted = append(wanted, "do not all trust the same roots")
	}
	if c.Is != "" {
		wanted = append(wanted, "trust nothing but "+c.Is.phrase("root"))
	}
	if c.Trusts != "" {
		wanted = append(wanted, "trust "+c.Trusts.phrase("root"))
	}
	if c.Count > 0 {
		wanted = append(wanted, "trust "+words.Plural(c.Count, "root"))
	}
	if c.Matches != nil {
		wanted = append(wanted, "trust a root named like "+quoted(c.Matches))
	}
	return c.who() + " " + words.And(wanted)
}

func (c Roots) String() string { return c.wanted() }

// Command shows one proxy of each; to compare is left to the reader.
func (c Roots) Command() string {
	of := c.Of
	if len(of) == 0 {
		for _, cluster := range c.In {
			of = append(of, Workload{"client", cluster})
		}
	}
	return secretCommand(of, "ROOTCA", "validationContext.trustedCa", "-subject -fingerprint -sha256")
}

// secretCommand returns commands that print a certificate that a proxy uses, one for each workload.
func secretCommand(of []Workload, secret, field, what string) string {
	lines := make([]string, len(of))
	for i, w := range of {
		lines[i] = fmt.Sprintf("istioctl --context=%s proxy-config secret %s.%s -o json | "+
			`jq -r '.dynamicActiveSecrets[] | select(.name == "%s") | .secret.%s.inlineBytes' | base64 -d | openssl x509 -noout %s`,
			w.Cluster, w.object(), mesh.NamespaceOf(w.App), secret, field, what)
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c Roots) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	var proxies []Proxy
	var err error
	if len(c.Of) > 0 {
		proxies, err = proxiesOf(ctx, m, c.Pods, c.Of...)
	} else {
		proxies, err = Proxies(ctx, m, c.In...)
	}
	if err != nil {
		return "", err
	}
	seen := group(proxies, func(p Proxy) string { return "trusts " + pki.Labels(p.Roots) })
	mismatch := &Mismatch{Wanted: c.wanted(), Seen: seen,
		Try: "a proxy keeps the roots that came with its certificate: compare cacerts, istiod's start and the pods' starts"}
	if len(proxies) == 0 {
		return "", &Mismatch{Wanted: c.wanted(), Seen: "no Ready pod with a proxy"}
	}
	same := !slices.ContainsFunc(proxies, func(p Proxy) bool { return !pki.SameSet(p.Roots, proxies[0].Roots) })
	if c.Same != nil && *c.Same != same {
		return seen, mismatch
	}
	sources := map[string][2][]*x509.Certificate{}
	for _, p := range proxies {
		if _, ok := sources[p.Cluster]; ok {
			continue
		}
		var is [2][]*x509.Certificate
		for i, source := range []CASource{c.Is, c.Trusts} {
			if source == "" {
				continue
			}
			is[i], err = source.certificates(ctx, m, p.Cluster, pki.RootCertFile)
			if errors.Is(err, errAbsent) {
				mismatch.Seen = err.Error() + "; " + seen
				return seen, mismatch
			}
			if err != nil {
				return seen, err
			}
		}
		sources[p.Cluster] = is
	}
	for _, p := range proxies {
		is := sources[p.Cluster]
		switch {
		case c.Count > 0 && len(p.Roots) != c.Count,
			c.Is != "" && !pki.SameSet(p.Roots, is[0]),
			c.Trusts != "" && !pki.Contains(p.Roots, is[1]),
			c.Matches != nil && !slices.ContainsFunc(p.Roots, func(r *x509.Certificate) bool { return c.Matches.MatchString(r.Subject.String()) }):
			return seen, mismatch
		}
	}
	return seen, nil
}

// Issuer checks who signed the certificates that proxies show now.
type Issuer struct {
	// Whose certificates: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of strict.List[Workload] `yaml:"of" ref:"workload" required:"true"`
	// Which of their pods; all if left out.
	Pods Which `yaml:"pods" enum:"all,newest,oldest"`
	// Who signed them: the CA that stands in the cluster's Secret cacerts now, or the one that istiod made for itself.
	Is CASource `yaml:"is" enum:"cacerts,self-signed"`
	// That is not who signed them.
	Not bool `yaml:"not"`
	// The name of the CA that signed them.
	Matches *regexp.Regexp `yaml:"matches"`
}

// Validate wants something to look for.
func (c Issuer) Validate() error {
	if c.Is == "" && (c.Matches == nil || c.Not) {
		return errors.New("want is or matches; not goes with is")
	}
	return nil
}

var _ Check = Issuer{}

func (c Issuer) wanted() string {
	what := "the proxies of " + c.Pods.of(list(c.Of)) + " show certificates that "
	var wanted []string
	if c.Is != "" {
		text := c.Is.phrase("CA") + " signed"
		if c.Not {
			text = c.Is.phrase("CA") + " did not sign"
		}
		wanted = append(wanted, text)
	}
	if c.Matches != nil {
		wanted = append(wanted, "a CA named like "+quoted(c.Matches)+" signed")
	}
	return what + words.And(wanted)
}

func (c Issuer) String() string { return c.wanted() }

// Command implements Check.
func (c Issuer) Command() string {
	return secretCommand(c.Of, "default", "tlsCertificate.certificateChain", "-issuer -subject")
}

// Look implements Check.
func (c Issuer) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	proxies, err := proxiesOf(ctx, m, c.Pods, c.Of...)
	if err != nil {
		return "", err
	}
	seen := group(proxies, func(p Proxy) string { return "shows a certificate signed by " + pki.Signer(p.Chain) })
	mismatch := &Mismatch{Wanted: c.wanted(), Seen: seen,
		Try: "istiod reads its CA when it starts, and a pod keeps its certificate until it is renewed or the pod is made anew"}
	for _, p := range proxies {
		leaf := p.Chain[0]
		if c.Matches != nil && !c.Matches.MatchString(leaf.Issuer.String()) {
			return seen, mismatch
		}
		if c.Is == "" {
			continue
		}
		ca, err := c.Is.certificates(ctx, m, p.Cluster, pki.CACertFile)
		if errors.Is(err, errAbsent) {
			mismatch.Seen = err.Error() + "; " + seen
			return seen, mismatch
		}
		if err != nil {
			return seen, err
		}
		if signed := leaf.CheckSignatureFrom(ca[0]) == nil; signed == c.Not {
			return seen, mismatch
		}
	}
	return seen, nil
}

// Certificate checks the certificates that proxies show now.
type Certificate struct {
	// Whose proxies: apps like client@cluster-a, or istio-eastwestgateway@cluster-a.
	Of strict.List[Workload] `yaml:"of" ref:"workload" required:"true"`
	// Which pods of each; all if left out.
	Pods Which `yaml:"pods" enum:"all,newest,oldest"`
	// The SPIFFE identity in it, like ^spiffe://cluster.local/.
	Identity *regexp.Regexp `yaml:"identity"`
	// Whether one of the certificates that it shows has expired.
	Expired *bool `yaml:"expired"`
	// Its own certificate ends within that time from now.
	ExpiresWithin time.Duration `yaml:"expires-within"`
	// Its own certificate ends no sooner than that from now.
	LivesAtLeast time.Duration `yaml:"lives-at-least"`
	// How many certificates it shows, its own and the root included.
	Chain int `yaml:"chain" min:"1" max:"9"`
}

// Validate wants something to look for.
func (c Certificate) Validate() error {
	if c.Identity == nil && c.Expired == nil && c.ExpiresWithin == 0 && c.LivesAtLeast == 0 && c.Chain == 0 {
		return errors.New("want at least one of identity, expired, expires-within, lives-at-least, and chain")
	}
	return nil
}

var _ Check = Certificate{}

func (c Certificate) String() string {
	var wanted []string
	if c.Identity != nil {
		wanted = append(wanted, "an identity like "+quoted(c.Identity))
	}
	if c.Expired != nil && *c.Expired {
		wanted = append(wanted, "a certificate that has expired")
	}
	if c.Expired != nil && !*c.Expired {
		wanted = append(wanted, "no certificate that has expired")
	}
	if c.ExpiresWithin > 0 {
		wanted = append(wanted, "a certificate that ends within "+words.Duration(wait.Lifetime(c.ExpiresWithin)))
	}
	if c.LivesAtLeast > 0 {
		wanted = append(wanted, "a certificate that lives at least "+words.Duration(c.LivesAtLeast))
	}
	if c.Chain > 0 {
		wanted = append(wanted, words.Plural(c.Chain, "certificate")+" in all")
	}
	return "the proxies of " + c.Pods.of(list(c.Of)) + " show " + words.And(wanted)
}

// Command implements Check.
func (c Certificate) Command() string {
	return secretCommand(c.Of, "default", "tlsCertificate.certificateChain", "-enddate -ext subjectAltName")
}

// Look implements Check.
func (c Certificate) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	proxies, err := proxiesOf(ctx, m, c.Pods, c.Of...)
	if err != nil {
		return "", err
	}
	now := time.Now()
	left := func(p Proxy) time.Duration { return p.Chain[0].NotAfter.Sub(now).Round(time.Second) }
	seen := group(proxies, func(p Proxy) string {
		return fmt.Sprintf("%s, %s left, %s in all", identity(p.Chain[0]), left(p), words.Plural(len(p.Chain), "certificate"))
	})
	for _, p := range proxies {
		expired := slices.ContainsFunc(p.Chain, func(x *x509.Certificate) bool { return now.After(x.NotAfter) })
		switch {
		case c.Identity != nil && !c.Identity.MatchString(identity(p.Chain[0])),
			c.Expired != nil && *c.Expired != expired,
			c.ExpiresWithin > 0 && left(p) > wait.Lifetime(c.ExpiresWithin),
			c.LivesAtLeast > 0 && left(p) < c.LivesAtLeast,
			c.Chain > 0 && len(p.Chain) != c.Chain:
			return seen, &Mismatch{Wanted: c.String(), Seen: seen,
				Try: "a proxy asks for its next certificate when half of its lifetime is over: see whether istiod answers, and with what"}
		}
	}
	return seen, nil
}

// identity returns the SPIFFE ID in a certificate, or says that there is none.
func identity(c *x509.Certificate) string { return cmp.Or(pki.SPIFFE(c), "no identity") }

// Fingerprints compares the roots in the Secrets cacerts of clusters, as the lesson's openssl command does.
type Fingerprints struct {
	// The clusters to compare.
	In strict.List[string] `yaml:"in" ref:"cluster" required:"true"`
	// Whether they are equal.
	Equal bool `yaml:"equal" required:"true"`
	// Whether the names in the certificates are equal, which is what people compare by mistake.
	Names *bool `yaml:"names-equal"`
}

// Validate refuses to compare one with itself.
func (c Fingerprints) Validate() error {
	if len(c.In) < 2 {
		return strict.At("in", errors.New("want at least two clusters"))
	}
	return nil
}

var _ Check = Fingerprints{}

func (c Fingerprints) String() string {
	has := func(equal bool, what string) string {
		if equal {
			return "has the same " + what
		}
		return "does not have the same " + what
	}
	wanted := []string{has(c.Equal, "fingerprint")}
	if c.Names != nil {
		wanted = append(wanted, has(*c.Names, "name"))
	}
	return "the root in cacerts " + words.And(wanted) + " in " + words.And(c.In)
}

// Command implements Check.
func (c Fingerprints) Command() string {
	lines := make([]string, len(c.In))
	for i, cluster := range c.In {
		lines[i] = fmt.Sprintf("kubectl get secret cacerts -n istio-system --context=%s "+
			`-o jsonpath='{.data.root-cert\.pem}' | base64 -d | openssl x509 -noout -fingerprint`, cluster)
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c Fingerprints) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	var prints, subjects, texts []string
	missing := false
	for _, cluster := range c.In {
		data, err := secretFile(ctx, m, cluster, mesh.CACerts, pki.RootCertFile)
		if errors.Is(err, errAbsent) {
			texts, missing = append(texts, err.Error()), true
			continue
		}
		if err != nil {
			return "", err
		}
		sum, err := pki.FingerprintSHA1(data)
		if err != nil {
			return "", fmt.Errorf("reading the root in cacerts of %s: %w", cluster, err)
		}
		roots, err := pki.Roots(data)
		if err != nil {
			return "", fmt.Errorf("reading the root in cacerts of %s: %w", cluster, err)
		}
		prints, subjects = append(prints, sum), append(subjects, roots[0].Subject.String())
		text := cluster + ": " + sum
		if c.Names != nil {
			text += " " + roots[0].Subject.String()
		}
		texts = append(texts, text)
	}
	seen := strings.Join(texts, "; ")
	same := func(texts []string) bool { return len(slices.Compact(slices.Clone(texts))) <= 1 }
	if missing || same(prints) != c.Equal || c.Names != nil && same(subjects) != *c.Names {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen,
			Try: "give each cluster an intermediate of one shared root in cacerts, before istiod starts"}
	}
	return seen, nil
}
