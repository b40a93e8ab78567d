package fault

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Root names a root of the lab: that of the CA that signs in a cluster, or one that is trusted there.
type Root string

// The roots.
const (
	SharedRoot     Root = "shared"      // the root that all clusters of the lab share from their installation on
	NewRoot        Root = "new"         // a second root that all clusters share
	OwnRoot        Root = "own"         // a root that only this cluster has
	TwinRoot       Root = "twin"        // a root with the name of the shared one and another key; only the name links intermediates to it
	SelfSignedRoot Root = "self-signed" // the CA that the cluster's istiod has made for itself
	PeerRoots      Root = "peers"       // the roots that the other clusters hand out now; they cannot sign
)

func (r Root) phrase() string {
	return map[Root]string{
		SharedRoot: "the lab's shared root", NewRoot: "a new root that all clusters share", OwnRoot: "a root that nobody else has",
		TwinRoot: "another root of the same name", SelfSignedRoot: "istiod's self-signed CA", PeerRoots: "the roots of the other clusters",
	}[r]
}

// cas returns a root of the lab and the CA below it that signs in a cluster. Both are made at their first use, and are the
// same from then on.
func (r Root) cas(m *mesh.Mesh, cluster string) (root, ca *pki.CA, err error) {
	shared := mesh.Topology{Trust: mesh.SharedRoot}.RootName(cluster)
	own := mesh.Topology{Trust: mesh.SeparateRoots}.RootName(cluster)
	of := map[Root]struct {
		file  string // in the folder of CAs
		trust mesh.Trust
		name  string
	}{
		SharedRoot: {shared, mesh.SharedRoot, shared},
		OwnRoot:    {own, mesh.SeparateRoots, own},
		NewRoot:    {"new-root", "", "new root"},
		TwinRoot:   {"twin-root", "", shared},
	}
	which, ok := of[r]
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot sign", r.phrase())
	}
	if which.trust == m.Trust {
		if ca, err = m.CA(cluster); err == nil { // which makes the root too
			root, err = pki.Load(m.CADir(), which.file)
		}
		return root, ca, err
	}
	root, err = pki.LoadOrMake(m.CADir(), which.file, func() (*pki.CA, error) {
		return pki.NewRoot(pki.Options{Name: m.Lab + " " + which.name})
	})
	if err != nil {
		return nil, nil, err
	}
	ca, err = pki.LoadOrMake(m.CADir(), string(r)+"-"+mesh.CAName(cluster), func() (*pki.CA, error) {
		name := fmt.Sprintf("%s intermediate %s (%s root)", m.Lab, cluster, r)
		return root.Intermediate(pki.Options{Name: name, NoIssuerKeyID: r == TwinRoot})
	})
	return root, ca, err
}

// trusted returns the PEM of the roots.
func (r Root) trusted(ctx context.Context, m *mesh.Mesh, member *mesh.Member) ([]byte, error) {
	switch r {
	case SelfSignedRoot:
		s, err := selfSigned(ctx, member)
		if err != nil {
			return nil, err
		}
		return s.Data[pki.CACertFile], nil
	case PeerRoots:
		var all []byte
		for _, peer := range m.Members {
			if peer == member {
				continue
			}
			theirs, err := observe.RootsOf(ctx, m, peer.Name())
			if err != nil {
				return nil, fmt.Errorf("reading the roots of %s: %w", peer.Name(), err)
			}
			all = append(all, theirs...)
		}
		return all, nil
	}
	root, _, err := r.cas(m, member.Name())
	if err != nil {
		return nil, err
	}
	return root.CertPEM(), nil
}

func selfSigned(ctx context.Context, member *mesh.Member) (*corev1.Secret, error) {
	s, err := member.Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(ctx, observe.SelfSignedSecret, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the self-signed CA of %s: %w", member.Name(), err)
	}
	return s, nil
}

// DeleteCACerts deletes the Secret cacerts of the clusters.
func DeleteCACerts(in []string) Fault {
	return &change{
		sentence: "delete the Secret cacerts of " + words.And(in),
		commands: commandsIn(in, func(c string) string { return "kubectl delete secret cacerts -n istio-system --context=" + c }),
		in:       in,
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			return member.DeleteCACerts(ctx)
		}),
	}
}

// SelfSign puts the clusters into the state of an installation without cacerts. All of them get the same self-signed CA in
// istio-ca-secret, so that they still trust each other.
func SelfSign(in []string) Fault {
	return &change{
		sentence: fmt.Sprintf("make %s what they are after an installation without cacerts: istiod signs with its own self-signed CA",
			words.And(in)),
		commands: append(commandsIn(in, selfSignCommands), RestartIstiod(in).Command(), RestartWorkloads(in).Command()),
		in:       in,
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			ca, err := pki.LoadOrMake(m.CADir(), "self-signed", func() (*pki.CA, error) {
				return pki.NewRoot(pki.Options{Name: m.Lab + " self-signed"})
			})
			if err != nil {
				return err
			}
			data, err := ca.CACerts()
			if err != nil {
				return err
			}
			err = injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
				own := &corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Name: observe.SelfSignedSecret, Labels: m.Labels()}, Type: "istio.io/ca-root",
					Data: map[string][]byte{
						pki.CACertFile: data[pki.CACertFile], pki.CAKeyFile: data[pki.CAKeyFile], pki.RootCertFile: data[pki.RootCertFile],
					},
				}
				return errors.Join(putSecret(ctx, member, own), member.DeleteCACerts(ctx))
			})(ctx, m)
			if err != nil {
				return err
			}
			if err := RestartIstiod(in).Inject(ctx, m); err != nil {
				return err
			}
			return RestartWorkloads(in).Inject(ctx, m)
		},
	}
}

// putSecret creates the Secret, or replaces what is there.
func putSecret(ctx context.Context, member *mesh.Member, s *corev1.Secret) error {
	secrets := member.Kube.CoreV1().Secrets(mesh.SystemNamespace)
	wanted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.Labels, Annotations: s.Annotations}, Type: s.Type, Data: s.Data,
	}
	_, err := secrets.Update(ctx, wanted, metav1.UpdateOptions{FieldManager: mesh.FieldManager})
	if apierrors.IsInvalid(err) { // the type of a Secret cannot be changed
		if err = secrets.Delete(ctx, s.Name, metav1.DeleteOptions{}); err == nil {
			_, err = secrets.Create(ctx, wanted, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		}
	}
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(ctx, wanted, metav1.CreateOptions{FieldManager: mesh.FieldManager})
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", s.Name, err)
	}
	return nil
}
