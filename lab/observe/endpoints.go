package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Address says what kind of address an endpoint is.
type Address string

// The kinds of addresses.
const (
	AtGateway Address = "gateway" // of an east-west gateway, for pods of another network
	AtPod     Address = "pod"     // of the pod itself
)

// Endpoints checks which endpoints of a service a proxy knows.
type Endpoints struct {
	// Whose proxy.
	SeenBy Workload `yaml:"seen-by" ref:"app" required:"true"`
	// Of whom: echo@cluster-b is that cluster's own instance, echo the service in all clusters.
	Of Workload `yaml:"of" ref:"app-or-service" required:"true"`
	// Every endpoint is the address of an east-west gateway, or of a pod itself.
	Address Address `yaml:"address" enum:"gateway,pod"`
	// How many endpoints; at least one if left out.
	Count *int `yaml:"count" min:"0" max:"1000"`
}

var _ Check = Endpoints{}

func (c Endpoints) cluster() string { return outbound(c.Of) }

// outbound is Envoy's name for the port 80 of an app as its clients see it.
func outbound(of Workload) string {
	host := strings.TrimSuffix(strings.TrimPrefix(mesh.URL(of.App, of.Cluster, true), "http://"), "/")
	return "outbound|80||" + host
}

func (c Endpoints) target() string {
	if c.Of.Cluster == "" {
		return c.Of.App
	}
	return c.Of.String()
}

func (c Endpoints) wanted() string {
	wanted := "at least one endpoint"
	if c.Count != nil {
		wanted = words.Plural(*c.Count, "endpoint")
	}
	wanted += " of " + c.target()
	switch c.Address {
	case AtGateway:
		wanted += " at an east-west gateway"
	case AtPod:
		wanted += " at the address of a pod"
	}
	return wanted
}

func (c Endpoints) String() string {
	return fmt.Sprintf("the proxy of %s sees %s", c.SeenBy, c.wanted())
}

// Command implements Check.
func (c Endpoints) Command() string {
	return fmt.Sprintf("istioctl --context=%s proxy-config endpoints %s.%s --cluster '%s'",
		c.SeenBy.Cluster, c.SeenBy.object(), mesh.NamespaceOf(c.SeenBy.App), c.cluster())
}

// Look implements Check.
func (c Endpoints) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, pods, err := Newest.pods(ctx, m, c.SeenBy)
	if err != nil {
		return "", err
	}
	page, err := member.Admin(ctx, pods[0], "/clusters?format=json")
	if err != nil {
		return "", err
	}
	found, endpoints, err := parseEndpoints(page, c.cluster())
	if err != nil {
		return "", err
	}
	known := addresses(ctx, m)
	texts := make([]string, len(endpoints))
	right := true
	for i, e := range endpoints {
		kind, owner := known.of(e.Address)
		right = right && (c.Address == "" || c.Address == kind)
		texts[i] = e.text(owner)
	}
	seen := words.Plural(len(endpoints), "endpoint") + " of " + c.target()
	switch {
	case !found:
		seen = fmt.Sprintf("no cluster %s: the proxy does not know the service", c.cluster())
	case len(texts) > 0:
		seen += ": " + strings.Join(texts, ", ")
	}
	counted := len(endpoints) > 0
	if c.Count != nil {
		counted = len(endpoints) == *c.Count
	}
	if !right || !counted {
		return seen, &Mismatch{Wanted: c.wanted(), Seen: seen,
			Try: "see what istiod knows: the remote secret, the networks' labels and the gateways' addresses"}
	}
	return seen, nil
}

// owners says who has an address.
type owners struct {
	gateways map[netip.AddrPort]string
	pods     map[netip.Addr]string
}

// of returns the kind of an address and its owner, both empty if they are not known.
func (o owners) of(a netip.AddrPort) (Address, string) {
	if owner, ok := o.gateways[a]; ok {
		return AtGateway, owner
	}
	if owner, ok := o.pods[a.Addr()]; ok {
		return AtPod, owner
	}
	return "", ""
}

// addresses names the owners of addresses in all clusters. Pod ranges of a lab do not overlap; where they do, a name may
// be wrong and the kind is still right. A cluster that does not answer is left out.
func addresses(ctx context.Context, m *mesh.Mesh) owners {
	known := owners{map[netip.AddrPort]string{}, map[netip.Addr]string{}}
	for _, member := range m.Members {
		services, err := member.Kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: NetworkLabel})
		if err != nil {
			continue
		}
		for i := range services.Items {
			for _, a := range gatewayAddresses(ctx, &services.Items[i]) {
				known.gateways[a] = "gateway of " + member.Name()
			}
		}
		// The lab's own gateway stays one for proxies that still know it, when its label is gone.
		if a, err := member.GatewayAddress(ctx); err == nil {
			known.gateways[a] = "gateway of " + member.Name()
		}
		pods, err := proxyPods(ctx, member)
		if err != nil {
			continue
		}
		for _, p := range pods {
			if a, err := netip.ParseAddr(p.Status.PodIP); err == nil && p.Status.Phase == corev1.PodRunning {
				known.pods[a] = p.Name + " in " + member.Name()
			}
		}
	}
	return known
}

// Labels of a Service that leads to an east-west gateway, by which istiod finds it.
const (
	NetworkLabel     = "topology.istio.io/network"
	gatewayPortLabel = "networking.istio.io/gatewayPort" // mesh.GatewayPort without it
)

// gatewayAddresses returns where a Service leads to an east-west gateway, as istiod finds it
// (pilot/pkg/serviceregistry/kube/controller/network.go, getGatewayDetails): a network can have several such Services.
func gatewayAddresses(ctx context.Context, s *corev1.Service) []netip.AddrPort {
	if s.Labels[NetworkLabel] == "" || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	port := int32(mesh.GatewayPort)
	if n, err := strconv.ParseUint(s.Labels[gatewayPortLabel], 10, 16); err == nil {
		port = int32(n)
	}
	if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port }) {
		return nil
	}
	var all []netip.AddrPort
	add := func(a netip.Addr) { all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(port))) } //nolint:gosec // parsed with 16 bits
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			add(a)
		} else if in.Hostname != "" { // as some clouds have it; istiod looks it up, too
			found, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", in.Hostname)
			for _, a := range found {
				add(a)
			}
		}
	}
	for _, text := range s.Spec.ExternalIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			add(a)
		}
	}
	return all
}

type endpoint struct {
	Address              netip.AddrPort
	Health               string
	Connections, Refused int // how many were tried and how many failed, since the proxy knows the endpoint
}

// text describes the endpoint, with the owner of its address if that is known.
func (e endpoint) text(owner string) string {
	address := e.Address.String()
	if owner != "" {
		address += " (" + owner + ")"
	}
	return fmt.Sprintf("%s %s, %d of %s failed", address, e.Health, e.Refused, words.Plural(e.Connections, "connection"))
}

// parseEndpoints finds a cluster on Envoy's page /clusters?format=json.
func parseEndpoints(page []byte, cluster string) (found bool, endpoints []endpoint, err error) {
	all, err := parseClusters(page)
	endpoints, found = all[cluster]
	return found, endpoints, err
}

// parseClusters reads Envoy's page /clusters?format=json. Envoy leaves out numbers that are 0; parseClusters leaves out
// endpoints without an address, such as pipes.
func parseClusters(page []byte) (map[string][]endpoint, error) {
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address string `json:"address"`
						Port    uint16 `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
				Stats []struct {
					Name  string `json:"name"`
					Value string `json:"value"`
				} `json:"stats"`
				Health map[string]any `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(page, &all); err != nil {
		return nil, fmt.Errorf("reading Envoy's clusters: %w", err)
	}
	clusters := map[string][]endpoint{}
	for _, c := range all.Clusters {
		clusters[c.Name] = nil
		for _, h := range c.Hosts {
			addr, err := netip.ParseAddr(h.Address.Socket.Address)
			if err != nil {
				continue
			}
			e := endpoint{Address: netip.AddrPortFrom(addr, h.Address.Socket.Port), Health: health(h.Health)}
			for _, s := range h.Stats {
				n, _ := strconv.Atoi(s.Value) // empty is 0
				switch s.Name {
				case "cx_total":
					e.Connections = n
				case "cx_connect_fail":
					e.Refused = n
				}
			}
			clusters[c.Name] = append(clusters[c.Name], e)
		}
		slices.SortFunc(clusters[c.Name], func(a, b endpoint) int { return a.Address.Compare(b.Address) })
	}
	return clusters, nil
}

// Reached reads Envoy's page /clusters?format=json. Of the addresses with that port it returns those to which the proxy
// has been connected, and how often it has tried in vain to connect to the others.
func Reached(page []byte, port uint16) (made map[string]bool, refused map[string]int, err error) {
	all, err := parseClusters(page)
	if err != nil {
		return nil, nil, err
	}
	made, refused = map[string]bool{}, map[string]int{}
	for _, endpoints := range all {
		for _, e := range endpoints {
			if e.Address.Port() != port {
				continue
			}
			refused[e.Address.String()] += e.Refused
			made[e.Address.String()] = made[e.Address.String()] || e.Connections > e.Refused
		}
	}
	maps.DeleteFunc(refused, func(a string, n int) bool { return n == 0 || made[a] })
	maps.DeleteFunc(made, func(_ string, was bool) bool { return !was })
	return made, refused, nil
}

// health returns the state that EDS gave the endpoint, and then what Envoy itself has found wrong with it.
func health(status map[string]any) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(status)) {
		switch v := status[key].(type) {
		case string:
			words = append(words, v)
		case bool:
			if v {
				words = append(words, strings.TrimPrefix(key, "failed_"))
			}
		}
	}
	return strings.Join(words, " ")
}
