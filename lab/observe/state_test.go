package observe

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/report"
)

func podWith(name string, labels map[string]string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: mesh.SystemNamespace, Labels: labels},
		Spec:       corev1.PodSpec{Containers: containers},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func TestProxiesAreCountedByVersionAndByWhoServesThem(t *testing.T) {
	proxy := func(name, version string) podOf {
		return podOf{nil, podWith(name, map[string]string{"app": name[:len(name)-2]},
			corev1.Container{Name: "app", Image: "app:v7"}, corev1.Container{Name: ProxyContainer, Image: "reg:5000/proxyv2:" + version})}
	}
	ends := proxy("echo-3", "1.30")
	ends.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	sidecar := proxy("client-2", "1.31")
	sidecar.Spec.InitContainers, sidecar.Spec.Containers = sidecar.Spec.Containers[1:], sidecar.Spec.Containers[:1]
	pods := []podOf{proxy("client-1", "1.30"), sidecar, proxy("echo-1", "1.30"), ends, proxy(mesh.Gateway+"-1", "1.31")}
	served := map[string]Served{
		"client-1.istio-system": {Revision: "default"}, "client-2.istio-system": {Revision: "1-31"}, "echo-3.istio-system": {Revision: "default"},
		mesh.Gateway + "-1.istio-system": {Revision: "1-31"},
	}
	all := func(*corev1.Pod) bool { return true }
	require.Equal(t, []report.ProxyCount{{Version: "1.30", Count: 1}, {Version: "1.30", Revision: "default", Count: 1},
		{Version: "1.31", Revision: "1-31", Count: 2}}, countProxies(pods, served, all))
	gateway := func(p *corev1.Pod) bool { return p.Labels["app"] == mesh.Gateway }
	require.Equal(t, []report.ProxyCount{{Version: "1.31", Revision: "1-31", Count: 1}}, countProxies(pods, served, gateway))
}

func TestCertificatesInUseAreCounted(t *testing.T) {
	roots, chain, err := ParseSecrets(recorded(t, "secrets.json"))
	require.NoError(t, err)
	both := &Proxy{Roots: append([]*x509.Certificate{chain[1]}, roots...), Chain: chain[:1]}
	short := &Proxy{Roots: roots, Chain: chain[:1]}
	whole := &Proxy{Roots: roots, Chain: chain}
	require.Equal(t, []report.InUse{{Certificates: "D7:4F:E8:AF", Proxies: 2}, {Certificates: "D1:39:F1:7C + D7:4F:E8:AF", Proxies: 1}},
		countInUse([]*Proxy{both, short, whole}, rootsText))
	require.Equal(t, "D1:39:F1:7C", issuerText(whole), "the intermediate that it shows")
	require.Equal(t, "D1:39:F1:7C", issuerText(both), "a root that it trusts")
	require.Equal(t, chain[0].Issuer.String(), issuerText(short), "somebody who is not known")
}

func TestWhereValidationLeads(t *testing.T) {
	webhook := func(name, service string, selector *metav1.LabelSelector) *admissionv1.ValidatingWebhookConfiguration {
		to := admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Name: service, Namespace: mesh.SystemNamespace}}
		return &admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionv1.ValidatingWebhook{{ClientConfig: to, ObjectSelector: selector}},
		}
	}
	by := func(op metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: mesh.RevisionLabel, Operator: op, Values: values}}}
	}
	others := webhook("cert-manager", "cert-manager", nil)
	others.Webhooks[0].ClientConfig.Service.Namespace = "cert-manager"
	elsewhere := webhook("istio-elsewhere", "", nil)
	url := "https://10.1.2.3:15017/validate"
	elsewhere.Webhooks[0].ClientConfig = admissionv1.WebhookClientConfig{URL: &url}
	r := &stateReader{member: &mesh.Member{
		Spec: mesh.ClusterSpec{Name: "cluster-a"}, Cluster: named{name: "cluster-a"}, Kube: fake.NewClientset(
			webhook("istiod-default-validator", "istiod", by(metav1.LabelSelectorOpDoesNotExist)),
			webhook("istio-validator-1-31-istio-system", "istiod-1-31", by(metav1.LabelSelectorOpIn, "1-31")),
			others, elsewhere,
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "istiod-1-31", Namespace: mesh.SystemNamespace}},
		),
	}}
	require.NoError(t, r.validation(t.Context()))
	require.Equal(t, []report.Webhook{
		{Name: "istio-elsewhere", Service: url},
		{Name: "istio-validator-1-31-istio-system", Service: "istiod-1-31", Labelled: true},
		{Name: "istiod-default-validator", Service: "istiod", Gone: true},
	}, r.state.Validation)
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	r := &stateReader{}
	r.unread(errors.New("the API server\nis frozen"), "proxies", "gateway")
	require.Equal(t, map[string]string{"proxies": "the API server is frozen", "gateway": "the API server is frozen"}, r.state.Unread)
}
