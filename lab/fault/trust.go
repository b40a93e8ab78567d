package fault

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// Root says which CA signs in a cluster, or which roots are trusted there.
type Root string

// The roots.
const (
	SharedRoot     Root = "shared"      // the lab's common root, with the cluster's own intermediate, as at installation
	OwnRoot        Root = "own"         // a root that only this cluster has, with an intermediate
	SelfSignedRoot Root = "self-signed" // the CA that the cluster's istiod made for itself
	PeerRoots      Root = "peers"       // what the other clusters trust now; it cannot sign
)

func (r Root) words() string {
	return map[Root]string{
		SharedRoot: "the lab's shared root", OwnRoot: "a root that nobody else has",
		SelfSignedRoot: "istiod's self-signed CA", PeerRoots: "the roots of the other clusters",
	}[r]
}

// CreateCACerts creates or replaces the Secret cacerts of the clusters: root signs, and root-cert.pem holds
// the trusted roots in their order, or only root if none is given.
func CreateCACerts(in []string, root Root, trusted ...Root) Fault {
	sentence := fmt.Sprintf("put a CA below %s into the Secret cacerts of %s", root.words(), and(in))
	if root == SelfSignedRoot {
		sentence = fmt.Sprintf("put %s into the Secret cacerts of %s", root.words(), and(in))
	}
	if len(trusted) > 0 {
		words := make([]string, len(trusted))
		for i, r := range trusted {
			words[i] = r.words()
		}
		sentence += ", and trust " + and(words)
	}
	return &change{
		sentence: sentence,
		commands: commandsIn(in, func(c string) string {
			return "kubectl create secret generic cacerts -n istio-system --context=" + c + " --from-file=ca-cert.pem --from-file=ca-key.pem --from-file=root-cert.pem --from-file=cert-chain.pem --dry-run=client -o yaml | kubectl apply --context=" + c + " -f -"
		}),
		in: in,
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			// All is read before anything is written: what peers trust means what they trusted before.
			data := map[string]map[string][]byte{}
			for _, name := range in {
				member, err := m.Member(name)
				if err == nil {
					data[name], err = root.caCerts(ctx, m, member, trusted)
				}
				if err != nil {
					return nil, fmt.Errorf("making cacerts for %s: %w", name, err)
				}
			}
			return each(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) (Undo, error) {
				undo, err := keepSecret(ctx, member, mesh.CACerts)
				if err != nil {
					return nil, err
				}
				return undo, member.ApplyCACerts(ctx, data[member.Name()])
			})(ctx, m)
		},
	}
}

// caCerts is the data of the Secret cacerts.
func (r Root) caCerts(ctx context.Context, m *mesh.Mesh, member *mesh.Member, trusted []Root) (map[string][]byte, error) {
	var data map[string][]byte
	if r == SelfSignedRoot {
		s, err := selfSigned(ctx, member)
		if err != nil {
			return nil, err
		}
		cert := s.Data[pki.CACertFile]
		data = map[string][]byte{pki.CACertFile: cert, pki.CAKeyFile: s.Data[pki.CAKeyFile], pki.CertChainFile: cert, pki.RootCertFile: cert}
	} else {
		ca, err := r.ca(m, member.Name())
		if err != nil {
			return nil, err
		}
		if data, err = ca.CACerts(); err != nil {
			return nil, err
		}
	}
	if len(trusted) == 0 {
		return data, nil
	}
	var roots []byte
	seen := map[string]bool{}
	for _, t := range trusted {
		bundle, err := t.trusted(ctx, m, member)
		if err != nil {
			return nil, err
		}
		certs, err := pki.Roots(bundle)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", t.words(), err)
		}
		for _, c := range certs {
			if !seen[string(c.Raw)] {
				roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
			seen[string(c.Raw)] = true
		}
	}
	data[pki.RootCertFile] = roots
	return data, nil
}

// ca returns the CA that signs below a root of the lab, made on first use and the same from then on.
func (r Root) ca(m *mesh.Mesh, cluster string) (*pki.CA, error) {
	own := mesh.Topology{Trust: mesh.SeparateRoots}.RootName(cluster)
	name, of := mesh.Topology{Trust: mesh.SharedRoot}.RootName(cluster), mesh.SharedRoot
	switch r {
	case SharedRoot:
	case OwnRoot:
		name, of = own, mesh.SeparateRoots
	default:
		return nil, fmt.Errorf("%s cannot sign", r.words())
	}
	if m.Trust == of {
		return m.CA(cluster)
	}
	root, err := pki.LoadOrMake(m.CADir(), name, func() (*pki.CA, error) {
		return pki.NewRoot(pki.Options{Name: m.Lab + " " + name})
	})
	if err != nil {
		return nil, err
	}
	name = string(r) + "-" + mesh.CAName(cluster)
	return pki.LoadOrMake(m.CADir(), name, func() (*pki.CA, error) {
		return root.Intermediate(pki.Options{Name: fmt.Sprintf("%s intermediate %s (%s root)", m.Lab, cluster, r)})
	})
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
			s, err := peer.Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(ctx, mesh.CACerts, metav1.GetOptions{})
			key := pki.RootCertFile
			if apierrors.IsNotFound(err) {
				s, err = selfSigned(ctx, peer)
				key = pki.CACertFile
			}
			if err != nil {
				return nil, fmt.Errorf("reading the roots of %s: %w", peer.Name(), err)
			}
			all = append(all, s.Data[key]...)
		}
		return all, nil
	}
	ca, err := r.ca(m, member.Name())
	if err != nil {
		return nil, err
	}
	return ca.RootPEM(), nil
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
		sentence: "delete the Secret cacerts of " + and(in),
		commands: commandsIn(in, func(c string) string { return "kubectl delete secret cacerts -n istio-system --context=" + c }),
		in:       in,
		inject: each(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) (Undo, error) {
			undo, err := keepSecret(ctx, member, mesh.CACerts)
			if err != nil {
				return nil, err
			}
			return undo, member.DeleteCACerts(ctx)
		}),
	}
}

// SelfSign puts the clusters into the state of an installation without cacerts. All of them get one
// self-signed CA in istio-ca-secret, so that they trust each other as they did.
func SelfSign(in []string) Fault {
	return &change{
		sentence: fmt.Sprintf("make %s what they are after an installation without cacerts: istiod signs with its own self-signed CA", and(in)),
		commands: append(commandsIn(in, func(c string) string {
			return "kubectl apply -n istio-system --context=" + c + " -f istio-ca-secret.yaml && kubectl delete secret cacerts -n istio-system --context=" + c
		}), append(RestartIstiod(in).(*change).commands, RestartWorkloads(in).(*change).commands...)...),
		in: in,
		inject: func(ctx context.Context, m *mesh.Mesh) (Undo, error) {
			ca, err := pki.LoadOrMake(m.CADir(), "self-signed", func() (*pki.CA, error) {
				return pki.NewRoot(pki.Options{Name: m.Lab + " self-signed"})
			})
			if err != nil {
				return nil, err
			}
			data, err := ca.CACerts()
			if err != nil {
				return nil, err
			}
			undo, err := each(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) (Undo, error) {
				keepCA, err := keepSecret(ctx, member, mesh.CACerts)
				if err != nil {
					return nil, err
				}
				keepOwn, err := keepSecret(ctx, member, observe.SelfSignedSecret)
				if err != nil {
					return nil, err
				}
				undo := together([]Undo{keepCA, keepOwn})
				own := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: observe.SelfSignedSecret}, Type: "istio.io/ca-root", Data: map[string][]byte{
					pki.CACertFile: data[pki.CACertFile], pki.CAKeyFile: data[pki.CAKeyFile], pki.RootCertFile: data[pki.RootCertFile],
				}}
				return undo, errors.Join(putSecret(ctx, member, own), member.DeleteCACerts(ctx))
			})(ctx, m)
			if err != nil {
				return nil, err
			}
			for _, restart := range []Fault{RestartIstiod(in), RestartWorkloads(in)} {
				if _, err := restart.Inject(ctx, m); err != nil {
					return nil, takeBack(ctx, undo, err)
				}
			}
			return undo, nil
		},
	}
}

// keepSecret returns an Undo that makes a Secret of Istio's namespace what it is now, or absent.
func keepSecret(ctx context.Context, member *mesh.Member, name string) (Undo, error) {
	secrets := member.Kube.CoreV1().Secrets(mesh.SystemNamespace)
	before, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return func(ctx context.Context) error {
			err := secrets.Delete(ctx, name, metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return func(ctx context.Context) error { return putSecret(ctx, member, before) }, nil
}

// putSecret makes the Secret what it is to be, whatever it is now.
func putSecret(ctx context.Context, member *mesh.Member, s *corev1.Secret) error {
	secrets := member.Kube.CoreV1().Secrets(mesh.SystemNamespace)
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = map[string]string{mesh.ManagedByLabel: mesh.ManagedBy}
	}
	wanted := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: labels, Annotations: s.Annotations}, Type: s.Type, Data: s.Data}
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
