// Package facts is what doctor knows about the clusters of a mesh: plain data that package gather reads and package exam
// judges. It holds certificates but no private key and no token, so it can be stored as JSON and examined elsewhere. Beside
// the types it has the few functions and names that both sides use. It imports nothing of Kubernetes and talks to nobody;
// `go test ./lab/doctor/facts` needs no cluster.
package facts

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Facts is what was read from the clusters of a mesh. The JSON names are stable.
type Facts struct {
	Taken    time.Time `json:"taken"`
	System   string    `json:"system,omitempty"` // Istio's namespace; istio-system if empty
	Clusters []Cluster `json:"clusters"`
	// Certificates holds every certificate that was seen, in DER, under its ID. All other fields name certificates by ID.
	Certificates map[string][]byte `json:"certificates"`
	Unread       []Unread          `json:"unread,omitempty"`
	Calls        []Call            `json:"calls,omitempty"` // made by --probe
}

// Part names a part of the facts that is read as a whole, or not at all.
type Part string

// The parts. Each finding lists the parts that it needs.
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

// Parts returns all parts.
func Parts() []Part {
	return []Part{
		APIServer, Namespaces, Pods, Secrets, RootMaps, Services, Policies, Gateways, Webhooks, IstiodPage, Signer, Proxies,
		Remote, Reach,
	}
}

// Unread is a part that could not be read, and why.
type Unread struct {
	Cluster string `json:"cluster"`
	Part    Part   `json:"part"`
	Object  string `json:"object,omitempty"`
	Why     string `json:"why"`
}

// Cluster is what one Kubernetes API, and the pods behind it, show.
type Cluster struct {
	Context string `json:"context"` // the user's name for it
	ID      string `json:"id"`      // the name that its proxies give it; empty if there is none
	UID     string `json:"uid"`     // of the namespace kube-system, which no two clusters share
	Server  string `json:"server"`
	Network string `json:"network"`
	Version string `json:"version"` // of Kubernetes
	// Down says why the API server does not answer. It is empty if the server answers, even if it lets nobody in.
	Down string `json:"down,omitempty"`

	IstiodDeployed bool         `json:"istiod_deployed"`
	Deployed       []string     `json:"istiods_deployed,omitempty"` // revisions of the Deployments of istiod
	IstiodService  string       `json:"istiod_service,omitempty"`   // the Service that leads to pods of istiod here
	Istiods        []Istiod     `json:"istiods,omitempty"`
	Settings       MeshSettings `json:"settings"` // of the newest istiod, from its debug page, otherwise from the ConfigMap

	CACerts    *CASecret       `json:"cacerts,omitempty"`
	SelfSigned *CASecret       `json:"self_signed,omitempty"`       // the Secret istio-ca-secret
	Elsewhere  []string        `json:"cacerts_elsewhere,omitempty"` // other namespaces with a Secret cacerts
	Namespaces []Namespace     `json:"namespaces,omitempty"`
	CRLs       [][]byte        `json:"crls,omitempty"` // the revocation lists that istiod hands out, in DER
	Remotes    []RemoteSecret  `json:"remote_secrets,omitempty"`
	Proxies    []Proxy         `json:"proxies,omitempty"`
	Plain      []string        `json:"plain,omitempty"` // NAMESPACE/POD without a proxy, in namespaces that inject one
	Stuck      []Stuck         `json:"stuck,omitempty"`
	Gateways   []Gateway       `json:"gateways,omitempty"`
	Exposed    []Exposed       `json:"exposed,omitempty"`
	Routes     []IstiodRoute   `json:"istiod_routes,omitempty"` // by which API servers of other clusters reach istiods
	Services   []Service       `json:"services,omitempty"`
	Principals []Principals    `json:"principals,omitempty"`
	Config     []Config        `json:"config,omitempty"`
	Tried      []Tried         `json:"tried,omitempty"`  // connections to other clusters
	Strict     map[string]bool `json:"strict,omitempty"` // whether mutual TLS is STRICT, by namespace; "" is the whole mesh
	Webhooks   []Webhook       `json:"webhooks,omitempty"`
}

// Istiod is one pod of istiod and what its pages show.
type Istiod struct {
	Pod      string            `json:"pod"`
	Revision string            `json:"revision,omitempty"` // DefaultRevision if empty
	Version  string            `json:"version,omitempty"`  // tag of its image
	Ready    bool              `json:"ready"`
	Created  time.Time         `json:"created"`
	State    string            `json:"state,omitempty"`   // what keeps it from being Ready
	Env      map[string]string `json:"env,omitempty"`     // the few settings that matter here
	Signer   []string          `json:"signer,omitempty"`  // the chain of its own certificate, which its CA signed
	Lines    []string          `json:"lines,omitempty"`   // lines of its log about its CA
	Watches  map[string]Watch  `json:"watches,omitempty"` // failures to read other clusters, by cluster ID

	Settings MeshSettings `json:"settings,omitzero"` // from its debug page, otherwise from its ConfigMap

	// The fields below are read from the newest Ready pod of each revision only.
	Read      bool                      `json:"read"`
	Clusters  map[string]string         `json:"clusters,omitempty"` // sync status by cluster ID
	Serves    map[string]int            `json:"serves,omitempty"`   // number of proxies by cluster ID
	Behind    []string                  `json:"behind,omitempty"`   // proxies that lack their latest configuration
	Networks  []NetworkGateway          `json:"networks,omitempty"`
	Endpoints map[string]map[string]int `json:"endpoints,omitempty"` // number by NAMESPACE/HOST and cluster ID
	Placed    map[string]map[string]int `json:"placed,omitempty"`    // number of pods with a proxy by cluster ID and network
	Errors    map[string]int            `json:"errors,omitempty"`    // controller_sync_errors_total by cluster ID
}

// Line returns the newest line of the log that contains one of parts, "" if none does.
func (i Istiod) Line(parts ...string) string {
	for _, line := range slices.Backward(i.Lines) {
		if slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(line, p) }) {
			return line
		}
	}
	return ""
}

// Watch is what an istiod's log shows about reading a cluster: when lists and watches failed in the last ten minutes.
type Watch struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Why   string    `json:"why"` // of the last one
}

// NetworkGateway is an address at which an istiod believes a network can be entered.
type NetworkGateway struct {
	Network string `json:"network"`
	Cluster string `json:"cluster"`
	Addr    string `json:"addr"`
	Port    int    `json:"port"`
}

// MeshSettings are settings of the mesh configuration.
type MeshSettings struct {
	Read           bool             `json:"read"`
	TrustDomain    string           `json:"trust_domain"`
	Aliases        []string         `json:"aliases,omitempty"`
	CACertificates []CACertificates `json:"ca_certificates,omitempty"`
	RootNamespace  string           `json:"root_namespace,omitempty"`
}

// CACertificates is one entry of caCertificates.
type CACertificates struct {
	Roots        []string `json:"roots"`
	TrustDomains []string `json:"trust_domains,omitempty"`
}

// Namespace is a namespace whose pods get a proxy, or have one.
type Namespace struct {
	Name      string   `json:"name"`
	Injected  bool     `json:"injected"`
	Injection string   `json:"injection,omitempty"` // the label istio-injection
	Revision  string   `json:"revision,omitempty"`  // the label istio.io/rev: a revision or a tag
	HasRoot   bool     `json:"has_root"`            // it has the ConfigMap istio-ca-root-cert
	Roots     []string `json:"roots,omitempty"`     // in that ConfigMap
}

// ConfigMaps is what RemoteSecret.Denied has if its account may not read the mesh configuration.
const ConfigMaps = "configmaps"

// RemoteSecret is what an istiod reads another cluster with.
type RemoteSecret struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // the cluster's name in the Secret
	Server  string    `json:"server"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // of its token, if the token says
	Problem string    `json:"problem,omitempty"`
	// What happened when it was used from here.
	UID     string   `json:"uid,omitempty"`     // of the cluster that answered
	Reach   string   `json:"reach,omitempty"`   // why its server did not answer
	Refused string   `json:"refused,omitempty"` // why its credentials were refused
	Denied  []string `json:"denied,omitempty"`  // what it may not read
}

// HostPort returns the address of the API server, or "" if its URL has none.
func (s RemoteSecret) HostPort() string {
	u, err := url.Parse(s.Server)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
}

// Loopback reports whether the API server's address is one that only its own machine reaches.
func (s RemoteSecret) Loopback() bool {
	u, err := url.Parse(s.Server)
	if err != nil {
		return false
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return a.IsLoopback() || a.IsUnspecified()
	}
	return u.Hostname() == "localhost"
}

// Proxy is a pod with an Envoy. Its certificates are read only if it is in the sample.
type Proxy struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Workload  string    `json:"workload"`
	Created   time.Time `json:"created"`
	Ready     bool      `json:"ready"`
	Gateway   bool      `json:"gateway,omitempty"`
	Version   string    `json:"version,omitempty"`  // tag of its image
	Revision  string    `json:"revision,omitempty"` // its label istio.io/rev; empty if it has none
	Cluster   string    `json:"cluster,omitempty"`
	Network   string    `json:"network,omitempty"`
	MeshID    string    `json:"mesh_id,omitempty"`
	Chain     []string  `json:"chain,omitempty"`
	Roots     []string  `json:"roots,omitempty"`
	// Asked reports whether the proxy was asked about its connections to gateways of other networks. Failing are the
	// addresses to which more connections failed while doctor looked, and none was ever made; Through those to which the
	// proxy has connected since it started.
	Asked   bool     `json:"asked,omitempty"`
	Failing []string `json:"failing,omitempty"`
	Through []string `json:"through,omitempty"`
}

// Name returns NAMESPACE/POD.
func (p Proxy) Name() string { return p.Namespace + "/" + p.Pod }

// Stuck is a pod with a proxy that is not Ready, and why.
type Stuck struct {
	Pod string `json:"pod"` // NAMESPACE/POD
	Why string `json:"why"`
}

// Gateway is a Service through which other networks come in.
type Gateway struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Network   string   `json:"network"` // its label
	Type      string   `json:"type"`
	Addresses []string `json:"addresses,omitempty"`
	Port      int      `json:"port"` // GatewayPort, or 0 if the Service does not have it
	Pods      int      `json:"pods"` // number of Ready ones
	// Revisions and Versions are those of its Ready pods.
	Revisions []string `json:"revisions,omitempty"`
	Versions  []string `json:"versions,omitempty"`
	// Looked reports whether the listeners of a pod could be read, Listens whether one of them is on GatewayPort.
	Looked   bool              `json:"looked"`
	Listens  bool              `json:"listens"`
	Selector map[string]string `json:"labels,omitempty"`
	// Passes is the host of a TLS handshake that succeeded through a pod of the gateway. If none did, Refuses is the host
	// and why. Both are empty if there was nothing to try.
	Passes  string `json:"passes,omitempty"`
	Refuses string `json:"refuses,omitempty"`
}

// FullName returns NAMESPACE/NAME of the Service.
func (g Gateway) FullName() string { return g.Namespace + "/" + g.Name }

// HostPorts returns the addresses at which other networks come in.
func (g Gateway) HostPorts() []string {
	all := make([]string, len(g.Addresses))
	for i, a := range g.Addresses {
		all[i] = net.JoinHostPort(a, strconv.Itoa(g.Port))
	}
	return all
}

// Tried is a connection that was tried from a proxy's container.
type Tried struct {
	From    string `json:"from"` // NAMESPACE/POD
	Address string `json:"address"`
	Err     string `json:"err,omitempty"`
}

// Command returns the command that tries the connection. Its user is the proxy's, so the proxy does not intercept it.
func (t Tried) Command() []string {
	return []string{"curl", "-sk", "-o", "/dev/null", "--connect-timeout", "2", "-m", "3", "https://" + t.Address}
}

// Exposed is a server of a Gateway object with AUTO_PASSTHROUGH: it passes TLS on to the services behind it.
type Exposed struct {
	Name     string            `json:"name"` // NAMESPACE/NAME of the object
	Selector map[string]string `json:"selector,omitempty"`
	Hosts    []string          `json:"hosts"`
	Port     int               `json:"port"`
}

// WebhookPort is the port of the east-west gateway for API servers of other clusters that ask an istiod.
const WebhookPort = 15017

// IstiodRoute says to which Service in Istio's namespace a gateway leads those who come to WebhookPort with a TLS server name.
type IstiodRoute struct {
	Name    string   `json:"name"`  // of the VirtualService
	Hosts   []string `json:"hosts"` // server names, maybe with a leading "*"
	Service string   `json:"service"`
}

// Service is a Service in a namespace of the mesh.
type Service struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Headless  bool     `json:"headless,omitempty"`
	Ports     []string `json:"ports"` // such as "80/TCP http"
}

// Principals are the callers that an AuthorizationPolicy names.
type Principals struct {
	Policy string   `json:"policy"` // NAMESPACE/NAME
	Action string   `json:"action"`
	Names  []string `json:"names"`
}

// Config is an object of Istio that should be the same in every cluster whose istiod reads it.
type Config struct {
	Kind string `json:"kind"`
	Name string `json:"name"`           // NAMESPACE/NAME
	Hash string `json:"hash"`           // of its spec
	Host string `json:"host,omitempty"` // of a DestinationRule that turns Istio's mutual TLS off
	TLS  string `json:"tls,omitempty"`  // the mode of that DestinationRule
}

// Webhook is an object with webhooks that the API server calls an istiod with: an injector, a revision tag, or a validator.
type Webhook struct {
	Name      string   `json:"name"`
	Validates bool     `json:"validates,omitempty"`
	Roots     []string `json:"roots,omitempty"` // that the API server verifies istiod with; empty if it knows by itself
	Revision  string   `json:"revision,omitempty"`
	Tag       string   `json:"tag,omitempty"`
	Service   string   `json:"service,omitempty"` // in Istio's namespace; empty if it is called elsewhere, or by a URL
	Nowhere   string   `json:"nowhere,omitempty"` // why the Service leads to nobody; empty if it leads somewhere
	Leads     []string `json:"leads,omitempty"`   // the addresses behind a Service without pods of its own
	Refuses   bool     `json:"refuses,omitempty"` // failurePolicy Fail: what it should have looked at is refused
	Narrow    bool     `json:"narrow,omitempty"`  // a validator that looks only at objects with a label
	Injects   []string `json:"injects,omitempty"` // namespaces whose pods it gives proxies
}

// Call is a call that --probe made.
type Call struct {
	From string `json:"from"`
	To   string `json:"to"`
	URL  string `json:"url"`
	Code string `json:"code,omitempty"`
	Err  string `json:"err,omitempty"`
}
