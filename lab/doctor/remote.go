package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// istiodReads is what an istiod lists and watches in the clusters that it reads.
var istiodReads = []authorizationv1.ResourceAttributes{
	{Verb: "list", Resource: "services"},
	{Verb: "list", Resource: "pods"},
	{Verb: "list", Resource: "nodes"},
	{Verb: "list", Resource: "namespaces"},
	{Verb: "list", Group: "discovery.k8s.io", Resource: "endpointslices"},
}

// try uses the kubeconfig of a remote secret as an istiod does, from here and by the proxies by which from, the cluster
// that has it, is reached, and notes what came of it. A kubeconfig that would run a program or read files of this machine
// is not used.
func (s *RemoteSecret) try(ctx context.Context, from *rest.Config, kubeconfig []byte) {
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		s.Problem = "it is no kubeconfig"
		return
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil || config.AuthInfos[current.AuthInfo] == nil {
		s.Problem = "its current context is not complete"
		return
	}
	cluster, user := config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo]
	s.Server, s.Expires = cluster.Server, expires(user.Token)
	if why := foreign(cluster, user); why != "" {
		s.Problem = "it was not tried: " + why
		return
	}
	to, err := clientcmd.NewDefaultClientConfig(*config, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		s.Problem = "it is not complete"
		return
	}
	to.Timeout, to.Proxy = oneWithin/2, from.Proxy
	kube, err := kubernetes.NewForConfig(to)
	if err != nil {
		s.Problem = "it is not complete"
		return
	}
	space, err := kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case err == nil:
		s.UID = string(space.UID)
	case apierrors.IsUnauthorized(err):
		s.Refused = short(err.Error(), 200)
		return
	case apierrors.IsForbidden(err):
	default:
		s.Reach = short(err.Error(), 200)
		return
	}
	for _, may := range istiodReads {
		review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &may},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			s.Denied = append(s.Denied, strings.TrimPrefix(may.Group+"/"+may.Resource, "/"))
		}
	}
}

// foreign says what in a kubeconfig reaches beyond the cluster that it names.
func foreign(cluster *api.Cluster, user *api.AuthInfo) string {
	switch {
	case user.Exec != nil || user.AuthProvider != nil:
		return "it runs a program to log in"
	case user.TokenFile != "" || user.ClientCertificate != "" || user.ClientKey != "" || cluster.CertificateAuthority != "":
		return "it names files"
	case cluster.ProxyURL != "":
		return "it goes by way of a proxy"
	}
	return ""
}

// expires reads the end of a token that says so itself; zero if it does not.
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

// age says how long something is, or was, away, as people say it.
func age(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}
