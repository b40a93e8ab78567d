package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/pki"
)

// CACerts is the Secret that istiod reads its CA from, at its start.
const CACerts = "cacerts"

// ApplyCACerts creates the Secret cacerts, or makes it what it is to be again. istiod notices a
// change by itself only if it has been running with cacerts before; otherwise restart it.
func (m *Member) ApplyCACerts(ctx context.Context, data map[string][]byte) error {
	secret, err := newSecret(CACerts, string(corev1.SecretTypeOpaque), nil, nil, data)
	if err == nil {
		err = m.apply(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("applying %s in %s: %w", CACerts, m.Name(), err)
	}
	return nil
}

// DeleteCACerts deletes the Secret cacerts; no error if there is none.
func (m *Member) DeleteCACerts(ctx context.Context) error {
	err := m.Kube.CoreV1().Secrets(SystemNamespace).Delete(ctx, CACerts, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s in %s: %w", CACerts, m.Name(), err)
	}
	return nil
}

// newSecret is a Secret in Istio's namespace.
func newSecret(name, kind string, labels, annotations map[string]string, data map[string][]byte) (object, error) {
	content, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": kind,
		"metadata": map[string]any{"name": name, "namespace": SystemNamespace, "labels": labels, "annotations": annotations},
		"data":     data,
	})
	return object{"v1", "Secret", SystemNamespace, name, content}, err
}

// CADir is the folder that holds the lab's CAs: pki.Load finds them by their names.
// Its name has capital letters, so that it is never the folder of a cluster.
func (m *Mesh) CADir() string { return filepath.Join(m.dir, "CA") }

// CAName is the name of a cluster's intermediate in CADir.
func CAName(cluster string) string { return "intermediate-" + cluster }

// RootName is the name of a cluster's root in CADir. Clusters that share trust share the root.
func (t Topology) RootName(cluster string) string {
	if t.Trust == SharedRoot {
		return "root"
	}
	return "root-" + cluster
}

// ErrAdopted says why there is no CA for a cluster.
var ErrAdopted = errors.New("the mesh was adopted: the keys of its CAs are its owner's, and the lab has none that it trusts")

// CA returns the intermediate that the lab made for the cluster, making it and its root if they are not
// there. It is an error with self-signed trust, where only istiod has a CA.
func (m *Mesh) CA(cluster string) (*pki.CA, error) {
	if m.Adopted {
		return nil, ErrAdopted
	}
	if m.Trust == SelfSigned {
		return nil, fmt.Errorf("trust is %s: the lab has no CA for %s", SelfSigned, cluster)
	}
	m.making.Lock() // clusters that share a root must not both make it
	defer m.making.Unlock()
	root, err := m.ca(m.RootName(cluster), func() (*pki.CA, error) {
		// Roots with equal names would look like one in every tool that shows names.
		return pki.NewRoot(pki.Options{Name: m.Lab + " " + m.RootName(cluster)})
	})
	if err != nil {
		return nil, err
	}
	return m.ca(CAName(cluster), func() (*pki.CA, error) {
		return root.Intermediate(pki.Options{Name: m.Lab + " intermediate " + cluster})
	})
}

func (m *Mesh) ca(name string, create func() (*pki.CA, error)) (*pki.CA, error) {
	ca, err := pki.Load(m.CADir(), name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if ca, err = create(); err != nil {
		return nil, fmt.Errorf("making the CA %q: %w", name, err)
	}
	return ca, ca.Save(m.CADir(), name)
}
