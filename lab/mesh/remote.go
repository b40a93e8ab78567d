package mesh

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	readerAccount = "istio-reader-service-account" // may read what istiods of other clusters read
	istiodAccount = "istiod"                       // may do what an istiod may
	// An istiod that finds this Secret reads and writes the cluster that it names instead of its own.
	configSecret = "istio-kubeconfig"
)

// RemoteSecretName returns the name of the Secret with which an istiod reads the given cluster.
func RemoteSecretName(cluster string) string { return "istio-remote-secret-" + cluster }

// RemoteSecret changes what CreateRemoteSecret writes. The zero value is right for a healthy mesh.
type RemoteSecret struct {
	Server string // address of the API server; if empty, the cluster's own
	Token  string // credentials; if empty, those of the cluster's istio-reader-service-account
	Name   string // the id by which the reader knows the cluster; if empty, the cluster's name
}

// CreateRemoteSecret gives the istiod of m access to the API server of another cluster, like
// `istioctl create-remote-secret --context=OF --name=OF | kubectl apply --context=M -f -`, and waits until istiod lists the
// cluster. Whether istiod has taken a Secret that replaces another one is nowhere to be seen.
func (m *Member) CreateRemoteSecret(ctx context.Context, of *Member, o RemoteSecret) error {
	if err := m.createRemoteSecret(ctx, of, o); err != nil {
		return err
	}
	id := cmp.Or(o.Name, of.Name())
	return m.awaitRemote(ctx, "the new remote secret of "+id, true, func(r Remote) bool { return r.ID == id })
}

func (m *Member) createRemoteSecret(ctx context.Context, of *Member, o RemoteSecret) error {
	secret, err := of.remoteSecret(ctx, o)
	if err == nil {
		err = m.apply(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("creating remote secret for %s in %s: %w", of.Name(), m.Name(), err)
	}
	return nil
}

// DeleteRemoteSecret removes the access to a cluster and waits until istiod does not list it. It is no error if there is none.
func (m *Member) DeleteRemoteSecret(ctx context.Context, of string) error {
	err := m.Kube.CoreV1().Secrets(SystemNamespace).Delete(ctx, RemoteSecretName(of), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting remote secret for %s in %s: %w", of, m.Name(), err)
	}
	return m.awaitRemote(ctx, "the end of the remote secret of "+of, false, func(r Remote) bool {
		return r.SecretName == SystemNamespace+"/"+RemoteSecretName(of)
	})
}

// createConfigSecret creates the Secret that `istioctl create-remote-secret --type=config` prints. An istiod of m that
// starts later reads everything from its config cluster.
func (m *Member) createConfigSecret(ctx context.Context) error {
	of := m.ConfigCluster()
	ca, token, err := of.accountToken(ctx, istiodAccount)
	if err != nil {
		return err
	}
	kubeconfig, err := kubeconfigFor(of.Name(), of.server, string(token), ca)
	if err != nil {
		return err
	}
	secret, err := newSecret(configSecret, string(corev1.SecretTypeOpaque), nil, nil, map[string][]byte{"config": kubeconfig})
	if err != nil {
		return err
	}
	return m.apply(ctx, secret)
}

func (m *Member) remoteSecret(ctx context.Context, o RemoteSecret) (object, error) {
	ca, token, err := m.accountToken(ctx, readerAccount)
	if err != nil {
		return object{}, err
	}
	return newRemoteSecret(cmp.Or(o.Name, m.Name()), cmp.Or(o.Server, m.server), cmp.Or(o.Token, string(token)), ca)
}

// newRemoteSecret returns the Secret that `istioctl create-remote-secret` prints.
func newRemoteSecret(name, server, token string, ca []byte) (object, error) {
	kubeconfig, err := kubeconfigFor(name, server, token, ca)
	if err != nil {
		return object{}, err
	}
	return newSecret(RemoteSecretName(name), string(corev1.SecretTypeOpaque),
		map[string]string{"istio/multiCluster": "true"},
		map[string]string{"networking.istio.io/cluster": name},
		map[string][]byte{name: kubeconfig})
}

func kubeconfigFor(name, server, token string, ca []byte) ([]byte, error) {
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
}

// tokenSecret returns the name of the Secret with the token of an account. It is the name that istioctl uses, so that
// istioctl finds this Secret and does not make a second one.
func tokenSecret(account string) string { return account + "-istio-remote-secret-token" }

// accountToken returns the API server's CA and a token that does not expire, of an account that Istio made.
func (m *Member) accountToken(ctx context.Context, account string) (ca, token []byte, err error) {
	name := tokenSecret(account)
	secret, err := newSecret(name, string(corev1.SecretTypeServiceAccountToken), nil,
		map[string]string{corev1.ServiceAccountNameKey: account}, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := m.apply(ctx, secret); err != nil {
		return nil, nil, err
	}
	// The controller manager fills it in.
	err = watchOne(ctx, "the token of "+account+" in "+m.Name(), name,
		func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return m.Kube.CoreV1().Secrets(SystemNamespace).Watch(ctx, o)
		},
		func(o runtime.Object) (bool, string) {
			data := o.(*corev1.Secret).Data
			ca, token = data[corev1.ServiceAccountRootCAKey], data[corev1.ServiceAccountTokenKey]
			return len(ca) > 0 && len(token) > 0, "the Secret has no token yet"
		})
	return ca, token, err
}
