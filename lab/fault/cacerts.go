package fault

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// CACerts says what the Secret cacerts of clusters will hold.
type CACerts struct {
	// Who signs. shared: the cluster's intermediate below the root that all clusters of the lab share. new: an
	// intermediate below a second root, also common to all. own: an intermediate below a root that only this cluster has.
	// twin: the same, but that root is called like the shared one, and nothing but the name links an intermediate to it.
	// self-signed: the CA that istiod made for itself, as the first step away from it.
	Root Root `yaml:"root" enum:"shared,new,own,twin,self-signed" required:"true"`
	// The roots in root-cert.pem, in this order; only that of root if left out. peers: those that the other clusters have
	// now.
	Trusted strict.List[Root] `yaml:"trusts" enum:"shared,new,own,twin,self-signed,peers"`
	// Asks for an intermediate that has never been used, {} for an ordinary one. Without it a cluster has the same one
	// below a root each time.
	Intermediate *Intermediate `yaml:"intermediate"`
	// Asks for a root that has never been used and has this lifetime; the clusters share it, and root does not matter.
	RootLifetime time.Duration `yaml:"root-lifetime"`
	// ca-crl.pem. complete: an empty list of the shared root and of each of the lab's intermediates. kept: what stands
	// there now. Without it there is none.
	CRL CRL `yaml:"crl" enum:"complete,kept"`
}

// Intermediate is an intermediate that has never been used.
type Intermediate struct {
	// How long it lives; two years if left out.
	Lifetime time.Duration `yaml:"lifetime"`
	// It is not valid before that time has passed, as if it was made by a clock that is ahead.
	StartsIn time.Duration `yaml:"starts-in"`
	// The usual intermediate stays in ca-cert.pem, and cert-chain.pem gets a second certificate for the same key. istiod
	// checks the one in ca-cert.pem.
	Reissued bool `yaml:"reissued"`
}

// Validate refuses what a self-signed CA cannot have.
func (o CACerts) Validate() error {
	if o.Root == SelfSignedRoot && o.Intermediate != nil {
		return strict.At("intermediate", errors.New("the CA that istiod made for itself signs alone"))
	}
	return nil
}

// intermediate returns what is asked of the intermediate: nothing if none is asked for.
func (o CACerts) intermediate() Intermediate {
	if o.Intermediate == nil {
		return Intermediate{}
	}
	return *o.Intermediate
}

// CRL says which revocation lists the Secret has.
type CRL string

// The revocation lists.
const (
	NoCRL       CRL = ""
	CompleteCRL CRL = "complete" // a list of the root and of each intermediate of the lab, all empty
	KeptCRL     CRL = "kept"     // the lists that are there now
)

func (o CACerts) sentence(in []string) string {
	what := "a CA below " + o.Root.phrase()
	switch {
	case o.Root == SelfSignedRoot:
		what = o.Root.phrase()
	case o.RootLifetime > 0:
		what = fmt.Sprintf("a CA below a new root that lives %s", words.Duration(o.RootLifetime))
	case o.intermediate().Reissued:
		what = fmt.Sprintf("a CA below %s, with a certificate in cert-chain.pem that becomes valid in %s",
			o.Root.phrase(), words.Duration(o.intermediate().StartsIn))
	case o.intermediate().StartsIn > 0:
		what = fmt.Sprintf("a new CA below %s that becomes valid in %s", o.Root.phrase(), words.Duration(o.intermediate().StartsIn))
	case o.intermediate().Lifetime > 0:
		what = fmt.Sprintf("a new CA below %s that lives %s", o.Root.phrase(), words.Duration(o.intermediate().Lifetime))
	case o.Intermediate != nil:
		what = "a new CA below " + o.Root.phrase()
	}
	text := fmt.Sprintf("put %s into the Secret cacerts of %s", what, words.And(in))
	if len(o.Trusted) > 0 {
		roots := make([]string, len(o.Trusted))
		for i, r := range o.Trusted {
			roots[i] = r.phrase()
		}
		text += ", and trust " + words.And(roots)
	}
	switch o.CRL {
	case CompleteCRL:
		text += ", with revocation lists of all CAs"
	case KeptCRL:
		text += ", with the revocation lists that are there"
	}
	return text
}

// CreateCACerts creates or replaces the Secret cacerts of the clusters.
func CreateCACerts(in []string, o CACerts) Fault {
	return &change{
		sentence: o.sentence(in),
		commands: commandsIn(in, o.commands),
		in:       in,
		available: func(m *mesh.Mesh) error {
			if m.Adopted && slices.Contains(append(o.Trusted, o.Root), SharedRoot) {
				return mesh.ErrAdopted
			}
			return nil
		},
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			var expiring *pki.CA
			if o.RootLifetime > 0 {
				var err error
				if expiring, err = pki.NewRoot(pki.Options{Name: m.Lab + " expiring root", Lifetime: o.RootLifetime}); err != nil {
					return err
				}
			}
			// Everything is read before anything is written: PeerRoots means what the peers trusted before.
			data := map[string]map[string][]byte{}
			for _, name := range in {
				member, err := m.Member(name)
				if err == nil {
					data[name], err = o.data(ctx, m, member, expiring)
				}
				if err != nil {
					return fmt.Errorf("making cacerts for %s: %w", name, err)
				}
			}
			return injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
				return putCACerts(ctx, m, member, data[member.Name()])
			})(ctx, m)
		},
	}
}

// putCACerts replaces the whole Secret. Server-side apply would keep keys that another client has written by an update.
func putCACerts(ctx context.Context, m *mesh.Mesh, member *mesh.Member, data map[string][]byte) error {
	return putSecret(ctx, member, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: mesh.CACerts, Labels: m.Labels()}, Type: corev1.SecretTypeOpaque, Data: data,
	})
}

// data returns the data of the Secret cacerts of a cluster.
func (o CACerts) data(ctx context.Context, m *mesh.Mesh, member *mesh.Member, expiring *pki.CA) (map[string][]byte, error) {
	data, err := o.signer(ctx, m, member, expiring)
	if err != nil {
		return nil, err
	}
	if len(o.Trusted) > 0 {
		if data[pki.RootCertFile], err = bundle(ctx, m, member, o.Trusted); err != nil {
			return nil, err
		}
	}
	switch o.CRL {
	case CompleteCRL:
		data[pki.CRLFile], err = emptyCRLs(m)
	case KeptCRL:
		data[pki.CRLFile], err = observe.CACertsFile(ctx, m, member.Name(), pki.CRLFile)
	}
	return data, err
}

// signer returns the data of the CA that signs, with its own root.
func (o CACerts) signer(ctx context.Context, m *mesh.Mesh, member *mesh.Member, expiring *pki.CA) (map[string][]byte, error) {
	if o.Root == SelfSignedRoot {
		s, err := selfSigned(ctx, member)
		if err != nil {
			return nil, err
		}
		cert := s.Data[pki.CACertFile]
		return map[string][]byte{
			pki.CACertFile: cert, pki.CAKeyFile: s.Data[pki.CAKeyFile], pki.CertChainFile: cert, pki.RootCertFile: cert,
		}, nil
	}
	root, ca := expiring, (*pki.CA)(nil)
	var err error
	if root == nil {
		if root, ca, err = o.Root.cas(m, member.Name()); err != nil {
			return nil, err
		}
	}
	options := pki.Options{Lifetime: o.intermediate().Lifetime}
	if o.intermediate().StartsIn > 0 {
		options.NotBefore = time.Now().Add(o.intermediate().StartsIn)
	}
	if o.intermediate().Reissued {
		data, err := ca.CACerts()
		if err != nil {
			return nil, err
		}
		again, err := ca.Reissue(root, options)
		if err != nil {
			return nil, err
		}
		data[pki.CertChainFile] = again.CertPEM()
		return data, nil
	}
	if o.Intermediate != nil || expiring != nil {
		options.Name = fmt.Sprintf("%s intermediate %s (made %s)", m.Lab, member.Name(), time.Now().UTC().Format("15:04:05"))
		if ca, err = root.Intermediate(options); err != nil {
			return nil, err
		}
	}
	return ca.CACerts()
}

// bundle returns the PEM of roots, each once.
func bundle(ctx context.Context, m *mesh.Mesh, member *mesh.Member, roots []Root) ([]byte, error) {
	var all []byte
	seen := map[string]bool{}
	for _, r := range roots {
		text, err := r.trusted(ctx, m, member)
		if err != nil {
			return nil, err
		}
		certs, err := pki.Roots(text)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", r.phrase(), err)
		}
		for _, c := range certs {
			if !seen[string(c.Raw)] {
				all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
			seen[string(c.Raw)] = true
		}
	}
	return all, nil
}

// emptyCRLs returns lists of the shared root and of every cluster's intermediate below it. As soon as Envoy has any list,
// it wants one of each CA of a chain: so the lists of the other clusters' CAs have to be there, too.
func emptyCRLs(m *mesh.Mesh) ([]byte, error) {
	var all []byte
	for i, member := range m.InMesh() {
		root, ca, err := SharedRoot.cas(m, member.Name())
		if err != nil {
			return nil, err
		}
		signers := []*pki.CA{ca}
		if i == 0 {
			signers = append(signers, root)
		}
		for _, s := range signers {
			list, err := s.RevocationList()
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
	}
	return all, nil
}
