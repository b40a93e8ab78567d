package gather

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// readSecrets reads the Secrets with a CA and those with access to other clusters, and keeps what is public in them.
func (r *reader) readSecrets(ctx context.Context) error {
	secrets := r.kube.CoreV1().Secrets(r.System)
	for name, to := range map[string]**facts.CASecret{
		facts.CACertsSecret: &r.cluster.CACerts, facts.SelfSignedSecret: &r.cluster.SelfSigned,
	} {
		s, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		*to = facts.ReadCASecret(s.Data, modified(s.ObjectMeta), r.add)
	}
	if r.cluster.CACerts == nil {
		if err := r.findElsewhere(ctx); err != nil {
			return err
		}
	}
	list, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "istio/multiCluster=true"})
	if err != nil {
		return err
	}
	r.readRemotes(ctx, list.Items)
	return nil
}

// findElsewhere looks for cacerts in other namespaces. The names of Secrets are enough for that.
func (r *reader) findElsewhere(ctx context.Context) error {
	list, err := r.meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).
		List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + facts.CACertsSecret})
	if apierrors.IsForbidden(err) {
		return nil // the rights that doctor asks for are those in Istio's namespace
	}
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		r.cluster.Elsewhere = append(r.cluster.Elsewhere, s.Namespace)
	}
	return nil
}

func (r *reader) readRemotes(ctx context.Context, secrets []corev1.Secret) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range secrets {
		s := &secrets[i]
		for id, kubeconfig := range s.Data {
			all.Go(func() {
				remote := facts.RemoteSecret{Name: s.Name, ID: id, Created: s.CreationTimestamp.UTC()}
				try(ctx, &remote, r.config, kubeconfig)
				mu.Lock()
				defer mu.Unlock()
				r.cluster.Remotes = append(r.cluster.Remotes, remote)
			})
		}
	}
	all.Wait()
	slices.SortFunc(r.cluster.Remotes, func(a, b facts.RemoteSecret) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// modified returns when an object's content was last written.
func modified(m metav1.ObjectMeta) time.Time {
	last := m.CreationTimestamp.Time
	for _, f := range m.ManagedFields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last.UTC()
}

// istiodReads is what an istiod lists and watches in the clusters that it reads.
var istiodReads = []authorizationv1.ResourceAttributes{
	{Verb: "list", Resource: "services"},
	{Verb: "list", Resource: "pods"},
	{Verb: "list", Resource: "nodes"},
	{Verb: "list", Resource: "namespaces"},
	{Verb: "list", Group: "discovery.k8s.io", Resource: "endpointslices"},
	{Verb: "list", Resource: facts.ConfigMaps, Namespace: mesh.SystemNamespace},
}

// try uses the kubeconfig of a remote secret from here, as an istiod would, and notes the result in s. It goes through the same
// HTTP proxy as from, the connection to the cluster that has the Secret. A kubeconfig that would run a program or read files of
// this machine is not used.
func try(ctx context.Context, s *facts.RemoteSecret, from *rest.Config, kubeconfig []byte) {
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		s.Problem = "it is not a kubeconfig"
		return
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil || config.AuthInfos[current.AuthInfo] == nil {
		s.Problem = "its current context is incomplete"
		return
	}
	cluster, user := config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo]
	s.Server, s.Expires = cluster.Server, expires(user.Token)
	if why := unsafeToUse(cluster, user); why != "" {
		s.Problem = "it was not tried: " + why
		return
	}
	to, err := clientcmd.NewDefaultClientConfig(*config, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		s.Problem = "it is incomplete"
		return
	}
	to.Timeout, to.Proxy = oneWithin()/2, from.Proxy
	kube, err := kubernetes.NewForConfig(to)
	if err != nil {
		s.Problem = "it is incomplete"
		return
	}
	space, err := kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case err == nil:
		s.UID = string(space.UID)
	case apierrors.IsUnauthorized(err):
		s.Refused = words.Short(err.Error(), 200)
		return
	case apierrors.IsForbidden(err):
	default:
		s.Reach = words.Short(err.Error(), 200)
		return
	}
	for _, attributes := range istiodReads {
		review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			s.Denied = append(s.Denied, strings.TrimPrefix(attributes.Group+"/"+attributes.Resource, "/"))
		}
	}
}

// unsafeToUse says what in a kubeconfig reaches beyond its cluster, "" if nothing does.
func unsafeToUse(cluster *api.Cluster, user *api.AuthInfo) string {
	switch {
	case user.Exec != nil || user.AuthProvider != nil:
		return "it runs a program to log in"
	case user.TokenFile != "" || user.ClientCertificate != "" || user.ClientKey != "" || cluster.CertificateAuthority != "":
		return "it names files"
	case cluster.ProxyURL != "":
		return "it goes through a proxy"
	}
	return ""
}

// expires returns the expiry that a token itself contains, or zero.
func expires(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Expires == 0 {
		return time.Time{}
	}
	return time.Unix(claims.Expires, 0).UTC()
}
