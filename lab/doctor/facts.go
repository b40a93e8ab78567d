// Package doctor says what is wrong between clusters that share a mesh: trust, discovery, the path between
// networks, and what should be the same on both sides.
//
// It has two halves. Gather reads clusters, all at once and without changing anything, into Facts: one plain
// struct that holds no secrets and may be handed on as JSON. Examine makes a Report of Facts alone: findings,
// root causes first with their effects below them, the matrix of who trusts whom, and the state of every
// check. A check that could not look is unknown, never ok. Every finding has an entry in Findings, which is
// what `eastwest doctor explain` prints. The package needs no lab; `go test ./lab/doctor` needs no cluster.
package doctor

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Facts is what was read of the clusters of a mesh. The JSON names are stable. No private key and no token is
// ever in it.
type Facts struct {
	Taken    time.Time `json:"taken"`
	Clusters []Cluster `json:"clusters"`
	// Certificates are all that were seen, DER by the SHA-256 of it. Everything else names them by that.
	Certificates map[string][]byte `json:"certificates"`
	Unread       []Unread          `json:"unread,omitempty"`
	Calls        []Call            `json:"calls,omitempty"` // what --probe has tried
}

// Part is a part of the facts that is read, or not, as a whole.
type Part string

// The parts. Each check says in Findings which of them it needs.
const (
	APIServer  Part = "api-server"
	Namespaces Part = "namespaces"
	Pods       Part = "pods"
	Secrets    Part = "secrets"
	RootMaps   Part = "root-configmaps"
	Services   Part = "services"
	Policies   Part = "policies"
	Gateways   Part = "gateways"
	Webhooks   Part = "webhooks"
	IstiodPage Part = "istiod-debug-pages"
	Signer     Part = "istiod-certificate"
	Proxies    Part = "proxy-certificates"
	Remote     Part = "remote-api-servers"
	Reach      Part = "gateway-reach"
)

// Unread is a part that could not be read, and why.
type Unread struct {
	Cluster string `json:"cluster"`
	Part    Part   `json:"part"`
	Object  string `json:"object,omitempty"`
	Why     string `json:"why"`
}

// Cluster is what one Kubernetes API and what runs behind it say.
type Cluster struct {
	Context string `json:"context"` // how the user names it
	ID      string `json:"id"`      // how its proxies name it; empty if it has none
	UID     string `json:"uid"`     // of the namespace kube-system: no two clusters have one
	Server  string `json:"server"`
	Network string `json:"network"`
	Version string `json:"version"` // of Kubernetes
	// Down is why the API server does not answer; empty if it does, also if it lets nobody in.
	Down string `json:"down,omitempty"`

	IstiodDeployed bool         `json:"istiod_deployed"`
	Istiods        []Istiod     `json:"istiods,omitempty"`
	Settings       MeshSettings `json:"settings"` // of istiod's debug page, or else of the ConfigMap

	CACerts    *CASecret       `json:"cacerts,omitempty"`
	SelfSigned *CASecret       `json:"self_signed,omitempty"` // istio-ca-secret
	Elsewhere  []string        `json:"cacerts_elsewhere,omitempty"`
	Namespaces []Namespace     `json:"namespaces,omitempty"`
	CRLs       [][]byte        `json:"crls,omitempty"` // DER of those that istiod hands out
	Remotes    []RemoteSecret  `json:"remote_secrets,omitempty"`
	Proxies    []Proxy         `json:"proxies,omitempty"`
	Plain      []string        `json:"plain,omitempty"` // NAMESPACE/POD without a proxy where pods are given one
	Stuck      []Stuck         `json:"stuck,omitempty"`
	Gateways   []Gateway       `json:"gateways,omitempty"`
	Exposed    []Exposed       `json:"exposed,omitempty"`
	Services   []Service       `json:"services,omitempty"`
	Principals []Principals    `json:"principals,omitempty"`
	Config     []Config        `json:"config,omitempty"`
	Tried      []Tried         `json:"tried,omitempty"`  // gateways of other networks
	Strict     map[string]bool `json:"strict,omitempty"` // namespaces, "" is the whole mesh
	Webhooks   []Webhook       `json:"webhooks,omitempty"`
}

// Istiod is one pod of istiod and what its pages say.
type Istiod struct {
	Pod     string            `json:"pod"`
	Version string            `json:"version,omitempty"` // tag of its image
	Ready   bool              `json:"ready"`
	Created time.Time         `json:"created"`
	State   string            `json:"state,omitempty"` // what keeps it from running
	Env     map[string]string `json:"env,omitempty"`   // the few settings that matter here
	Signer  []string          `json:"signer,omitempty"`
	Lines   []string          `json:"lines,omitempty"`   // of its log, those that say something of its CA
	Watches map[string]Watch  `json:"watches,omitempty"` // those of clusters that it reads which have failed, by id

	// The rest is of the newest Ready pod only.
	Read      bool                      `json:"read"`
	Clusters  map[string]string         `json:"clusters,omitempty"` // sync status by id
	Serves    map[string]int            `json:"serves,omitempty"`   // proxies by cluster id
	Behind    []string                  `json:"behind,omitempty"`   // proxies that do not have what was sent
	Networks  []NetworkGateway          `json:"networks,omitempty"`
	Endpoints map[string]map[string]int `json:"endpoints,omitempty"` // by NAMESPACE/HOST and cluster id
	Placed    map[string]map[string]int `json:"placed,omitempty"`    // endpoints of pods with a proxy, by cluster id and network
	Errors    map[string]int            `json:"errors,omitempty"`    // controller_sync_errors_total by cluster id
}

// Watch is what an istiod's log says of reading a cluster: lists and watches that failed. It says nothing of those
// that went on.
type Watch struct {
	First time.Time `json:"first"` // of the last ten minutes
	Last  time.Time `json:"last"`
	Why   string    `json:"why"` // the last one
}

// NetworkGateway is a way into a network as an istiod knows it.
type NetworkGateway struct {
	Network string `json:"Network"`
	Cluster string `json:"Cluster"`
	Addr    string `json:"Addr"`
	Port    int    `json:"Port"`
}

// MeshSettings are of the mesh configuration.
type MeshSettings struct {
	Read           bool             `json:"read"`
	TrustDomain    string           `json:"trust_domain"`
	Aliases        []string         `json:"aliases,omitempty"`
	CACertificates []CACertificates `json:"ca_certificates,omitempty"`
	RootNamespace  string           `json:"root_namespace,omitempty"`

	selectors []metav1.LabelSelector // discoverySelectors, which Gather goes by
}

// CACertificates is one entry of caCertificates.
type CACertificates struct {
	Roots        []string `json:"roots"`
	TrustDomains []string `json:"trust_domains,omitempty"`
}

// CASecret is the public part of a Secret with a CA.
type CASecret struct {
	Keys     []string  `json:"keys"`
	Modified time.Time `json:"modified"`
	CA       []string  `json:"ca,omitempty"`
	Chain    []string  `json:"chain,omitempty"`
	Roots    []string  `json:"roots,omitempty"`
	CRLs     [][]byte  `json:"crls,omitempty"` // DER
	// Key says what the private key is: "matches" the CA's certificate, is of "another" one, or what else.
	Key string `json:"key,omitempty"`
	// Damaged are keys whose content is no certificate, with the reason.
	Damaged map[string]string `json:"damaged,omitempty"`
}

// Namespace is a namespace in which pods are given proxies, or run with one.
type Namespace struct {
	Name     string   `json:"name"`
	Injected bool     `json:"injected"`
	Revision string   `json:"revision,omitempty"`
	HasRoot  bool     `json:"has_root"` // the ConfigMap istio-ca-root-cert
	Roots    []string `json:"roots,omitempty"`
}

// RemoteSecret is how an istiod gets at another cluster.
type RemoteSecret struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // the name of the cluster in it
	Server  string    `json:"server"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // of its token, if that says so
	Problem string    `json:"problem,omitempty"`
	// What came of using it from here.
	UID     string   `json:"uid,omitempty"`     // of the cluster that answered
	Reach   string   `json:"reach,omitempty"`   // why its server did not answer
	Refused string   `json:"refused,omitempty"` // why it was not let in
	Denied  []string `json:"denied,omitempty"`  // what it may not read
}

// Proxy is a pod with an Envoy. Its certificates are there only if it is in the sample.
type Proxy struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Workload  string    `json:"workload"`
	Created   time.Time `json:"created"`
	Ready     bool      `json:"ready"`
	Gateway   bool      `json:"gateway,omitempty"`
	Version   string    `json:"version,omitempty"` // tag of its image
	Cluster   string    `json:"cluster,omitempty"`
	Network   string    `json:"network,omitempty"`
	MeshID    string    `json:"mesh_id,omitempty"`
	Chain     []string  `json:"chain,omitempty"`
	Roots     []string  `json:"roots,omitempty"`
	// Failing are addresses of other networks' gateways to which connections failed while we looked, and Through
	// those to which it has been connected since it started. Asked says whether it was asked.
	Asked   bool     `json:"asked,omitempty"`
	Failing []string `json:"failing,omitempty"`
	Through []string `json:"through,omitempty"`
}

// Name is NAMESPACE/POD.
func (p Proxy) Name() string { return p.Namespace + "/" + p.Pod }

// Stuck is a pod with a proxy that does not start.
type Stuck struct {
	Pod string `json:"pod"`
	Why string `json:"why"`
}

// Gateway is a Service by which other networks come in.
type Gateway struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Network   string   `json:"network"` // its label
	Type      string   `json:"type"`
	Addresses []string `json:"addresses,omitempty"`
	Port      int      `json:"port"` // 15443, as its clients see it; 0 if there is none
	Pods      int      `json:"pods"` // Ready ones
	// Listens says whether a pod listens on 15443; Looked is false if that could not be read.
	Looked  bool              `json:"looked"`
	Listens bool              `json:"listens"`
	Labels  map[string]string `json:"labels,omitempty"` // of its pods
	// Passes is a host to which a TLS handshake was made through a pod of it, and Refuses why none was made, with the
	// host. Both are empty if there is nothing to try.
	Passes  string `json:"passes,omitempty"`
	Refuses string `json:"refuses,omitempty"`
}

// Tried is a connection from a proxy of this cluster to a gateway of another network.
type Tried struct {
	From    string `json:"from"` // NAMESPACE/POD
	Address string `json:"address"`
	Err     string `json:"err,omitempty"`
}

// Exposed is a Gateway object that passes TLS on (AUTO_PASSTHROUGH).
type Exposed struct {
	Name     string            `json:"name"`
	Selector map[string]string `json:"selector,omitempty"`
	Hosts    []string          `json:"hosts"`
	Port     int               `json:"port"`
}

// Service is a Service of a namespace of the mesh.
type Service struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Headless  bool     `json:"headless,omitempty"`
	Ports     []string `json:"ports"` // "80/TCP http"
}

// Principals are who an AuthorizationPolicy names.
type Principals struct {
	Policy string   `json:"policy"` // NAMESPACE/NAME
	Action string   `json:"action"`
	Names  []string `json:"names"`
}

// Config is an object of Istio's that should be the same in every cluster whose istiod reads it.
type Config struct {
	Kind string `json:"kind"`
	Name string `json:"name"`           // NAMESPACE/NAME
	Hash string `json:"hash"`           // of its spec
	Host string `json:"host,omitempty"` // of a DestinationRule that has calls made without Istio's mutual TLS
	TLS  string `json:"tls,omitempty"`  // its mode
}

// Webhook is what an API server is told to check an istiod's webhook with.
type Webhook struct {
	Name  string   `json:"name"`
	Roots []string `json:"roots"`
}

// Call is a call that --probe has made.
type Call struct {
	From string `json:"from"`
	To   string `json:"to"`
	URL  string `json:"url"`
	Code string `json:"code,omitempty"`
	Err  string `json:"err,omitempty"`
}

// id returns the name of a certificate in Facts.
func id(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
