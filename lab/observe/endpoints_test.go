package observe

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// named is a cluster with nothing but a name.
type named struct {
	cluster.Cluster
	name string
}

func (n named) Name() string { return n.name }

// gatewayService is a Service as Istio's gateways have, with an address of its LoadBalancer.
func gatewayService(name, address string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: mesh.SystemNamespace, Labels: map[string]string{NetworkLabel: "network-b"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "status-port", Port: 15021}, {Name: "tls", Port: 15443}},
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address}}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

// istiod takes every Service with the label of a network for one of its gateways, and so does the check of endpoints.
func TestANetworkHasSeveralGateways(t *testing.T) {
	at := netip.MustParseAddrPort
	m := &mesh.Mesh{Members: []*mesh.Member{{
		Cluster: named{name: "cluster-b"},
		Kube: fake.NewClientset(
			gatewayService(mesh.Gateway, "10.0.0.1", nil),
			gatewayService("second", "10.0.0.2", func(s *corev1.Service) { s.Namespace = "elsewhere" }),
			gatewayService("other-port", "10.0.0.3", func(s *corev1.Service) {
				s.Labels[gatewayPortLabel] = "443"
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 443})
			}),
			gatewayService("external", "10.0.0.4", func(s *corev1.Service) {
				s.Status, s.Spec.ExternalIPs = corev1.ServiceStatus{}, []string{"10.0.0.5"}
			}),
			gatewayService("no-label", "10.0.0.6", func(s *corev1.Service) { delete(s.Labels, NetworkLabel) }),
			gatewayService("no-port", "10.0.0.7", func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] }),
			gatewayService("inside", "10.0.0.8", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }),
			&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "echo-1", Namespace: mesh.AppNamespace},
				Spec:       corev1.PodSpec{InitContainers: []corev1.Container{{Name: ProxyContainer}}},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.0.1"},
			},
		),
	}}}
	known := addresses(t.Context(), m)
	for address, wanted := range map[string]struct {
		kind  Address
		owner string
	}{
		"10.0.0.1:15443": {AtGateway, "gateway of cluster-b"},
		"10.0.0.2:15443": {AtGateway, "gateway of cluster-b"},
		"10.0.0.3:443":   {AtGateway, "gateway of cluster-b"},
		"10.0.0.5:15443": {AtGateway, "gateway of cluster-b"},
		"10.1.0.1:8080":  {AtPod, "echo-1 in cluster-b"},
		"10.0.0.1:15021": {}, "10.0.0.3:15443": {}, "10.0.0.6:15443": {}, "10.0.0.7:15443": {}, "10.0.0.8:15443": {},
	} {
		kind, owner := known.of(at(address))
		require.Equal(t, wanted.kind, kind, address)
		require.Equal(t, wanted.owner, owner, address)
	}
}

func TestEndpointsNameTheirOwners(t *testing.T) {
	e := endpoint{Address: netip.MustParseAddrPort("10.0.0.1:15443"), Health: "HEALTHY", Connections: 2, Refused: 1}
	require.Equal(t, "10.0.0.1:15443 HEALTHY, 1 of 2 connections failed", e.text(""))
	require.Equal(t, "10.0.0.1:15443 (gateway of cluster-b) HEALTHY, 1 of 2 connections failed", e.text("gateway of cluster-b"))
}
