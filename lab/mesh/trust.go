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

// CACerts is the name of the Secret from which istiod reads its CA when it starts.
const CACerts = "cacerts"

// ApplyCACerts creates or updates the Secret cacerts. istiod notices a change only if it was started with cacerts;
// otherwise restart it.
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

// DeleteCACerts deletes the Secret cacerts. It is no error if there is none.
func (m *Member) DeleteCACerts(ctx context.Context) error {
	err := m.Kube.CoreV1().Secrets(SystemNamespace).Delete(ctx, CACerts, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s in %s: %w", CACerts, m.Name(), err)
	}
	return nil
}

// newSecret returns a Secret in Istio's namespace.
func newSecret(name, kind string, labels, annotations map[string]string, data map[string][]byte) (object, error) {
	content, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": kind,
		"metadata": map[string]any{"name": name, "namespace": SystemNamespace, "labels": labels, "annotations": annotations},
		"data":     data,
	})
	return object{"v1", "Secret", SystemNamespace, name, content}, err
}

// CADir returns the folder of the lab's CAs, for pki.Load. Its name has capital letters, so it is never the folder of a
// cluster.
func (m *Mesh) CADir() string { return filepath.Join(m.dir, "CA") }

// CAName returns the name of a cluster's intermediate CA in CADir.
func CAName(cluster string) string { return "intermediate-" + cluster }

// RootName returns the name of a cluster's root CA in CADir.
func (t Topology) RootName(cluster string) string {
	if t.Trust == SharedRoot {
		return "root"
	}
	return "root-" + cluster
}

// ErrAdopted is returned by CA if the mesh was adopted.
var ErrAdopted = errors.New("the mesh was adopted: the keys of its CAs are its owner's, and the lab has none that it trusts")

// CA returns the lab's intermediate CA for a cluster. It makes that CA and its root if they do not exist. With
// self-signed trust it is an error: only istiod has a CA then.
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
		// Tools show names: roots with the same name would look like one.
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
