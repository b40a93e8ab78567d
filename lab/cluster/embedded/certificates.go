package embedded

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/eastwest-lab/eastwest/lab/pki"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// identity is one certificate of a node. Its files are pki/NAME.crt and pki/NAME.key.
type identity struct {
	name           string
	leaf           pki.LeafOptions
	withKubeconfig bool
}

// makeCertificates fills the node's pki folder and writes the kubeconfigs of the components and of the administrator.
// Names and groups are kubeadm's, so that RBAC's default roles fit.
func makeCertificates(n node) error {
	dir := n.path("pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := pki.NewRoot(pki.Options{Name: n.Lab + " " + n.Name + " Kubernetes CA"})
	if err != nil {
		return err
	}
	front, err := pki.NewRoot(pki.Options{Name: n.Lab + " " + n.Name + " front proxy CA"})
	if err != nil {
		return err
	}
	private, public, err := pki.NewKeyPair()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.crt": ca.CertPEM(), "front-proxy-ca.crt": front.CertPEM(), "sa.key": private, "sa.pub": public,
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, id := range []identity{
		{"apiserver", pki.LeafOptions{
			CommonName: "kube-apiserver", Server: true,
			DNSNames: []string{
				n.hostName(), n.Name, "localhost",
				"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			},
			IPs: []netip.Addr{n.ip(), n.Addresses().APIService(n.Index), loopback},
		}, false},
		{"apiserver-kubelet-client", pki.LeafOptions{
			CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"kubeadm:cluster-admins"}, Client: true,
		}, false},
		{"kubelet", pki.LeafOptions{
			CommonName: "system:node:" + n.hostName(), Organizations: []string{"system:nodes"}, Server: true, Client: true,
			DNSNames: []string{n.hostName()}, IPs: []netip.Addr{n.ip(), loopback},
		}, true},
		// All controllers share one client (without use-service-account-credentials, some thirty token requests are
		// saved at the start), so the manager needs more than its own role.
		{"kube-controller-manager", pki.LeafOptions{
			CommonName: "system:kube-controller-manager", Organizations: []string{"system:masters"}, Client: true,
		}, true},
		// What the controller manager and the scheduler show to those who read their metrics, on the node's loopback.
		{"components", pki.LeafOptions{
			CommonName: "components", Server: true, DNSNames: []string{n.hostName(), "localhost"}, IPs: []netip.Addr{loopback},
		}, false},
		{"kube-scheduler", pki.LeafOptions{CommonName: "system:kube-scheduler", Client: true}, true},
		{"kube-proxy", pki.LeafOptions{CommonName: "system:kube-proxy", Client: true}, true},
		{"admin", pki.LeafOptions{CommonName: n.Name + "-admin", Organizations: []string{"system:masters"}, Client: true}, true},
	} {
		cert, key, err := ca.Leaf(id.leaf)
		if err != nil {
			return err
		}
		files[id.name+".crt"], files[id.name+".key"] = cert, key
		if id.withKubeconfig {
			if err := writeKubeconfig(n, n.path("pki", id.name+".conf"), ca.CertPEM(), cert, key); err != nil {
				return err
			}
		}
	}
	cert, key, err := front.Leaf(pki.LeafOptions{CommonName: "front-proxy-client", Client: true})
	if err != nil {
		return err
	}
	files["front-proxy-client.crt"], files["front-proxy-client.key"] = cert, key
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig names cluster, context and user after the cluster. If all clusters used the same names, merged
// kubeconfigs would log in as the wrong user.
func writeKubeconfig(n node, path string, ca, cert, key []byte) error {
	c := api.NewConfig()
	c.Clusters[n.Name] = &api.Cluster{Server: n.server(), CertificateAuthorityData: ca}
	c.AuthInfos[n.Name+"-admin"] = &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts[n.Name] = &api.Context{Cluster: n.Name, AuthInfo: n.Name + "-admin"}
	c.CurrentContext = n.Name
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		return fmt.Errorf("writing kubeconfig %s: %w", path, err)
	}
	return nil
}
