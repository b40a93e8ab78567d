package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Address says what kind of address an endpoint is.
type Address string

// The kinds of addresses.
const (
	AtGateway Address = "gateway" // an east-west gateway: a pod of another network
	AtPod     Address = "pod"     // a pod itself
)

// Endpoints checks which endpoints of a service a proxy knows.
type Endpoints struct {
	SeenBy  Workload
	Of      Workload // with a cluster, that cluster's own pods; without, the service, wherever its pods are
	Address Address  // every endpoint is such an address
	Count   *int
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
		wanted = plural(*c.Count, "endpoint")
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
	return fmt.Sprintf("istioctl --context=%s proxy-config endpoints %s.%s --cluster '%s'", c.SeenBy.Cluster, c.SeenBy.object(), mesh.NamespaceOf(c.SeenBy.App), c.cluster())
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
	gateways, podAddresses := addresses(ctx, m)
	texts := make([]string, len(endpoints))
	right := true
	for i, e := range endpoints {
		kind, whose := Address(""), ""
		if name, ok := gateways[e.Address]; ok {
			kind, whose = AtGateway, "gateway of "+name
		} else if name, ok := podAddresses[e.Address.Addr()]; ok {
			kind, whose = AtPod, name
		}
		right = right && (c.Address == "" || c.Address == kind)
		texts[i] = e.String()
		if whose != "" {
			texts[i] = strings.Replace(texts[i], " ", " ("+whose+") ", 1)
		}
	}
	seen := plural(len(endpoints), "endpoint") + " of " + c.target()
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
		return seen, &Mismatch{Wanted: c.wanted(), Seen: seen, Try: "see what istiod knows: the remote secret, the networks' labels and the gateways' addresses"}
	}
	return seen, nil
}

// addresses names the gateways and the pods of all clusters. Pod ranges of a lab do not overlap; where
// they do, a name may be wrong and the kind is still right. A cluster that does not answer is left out.
func addresses(ctx context.Context, m *mesh.Mesh) (gateways map[netip.AddrPort]string, pods map[netip.Addr]string) {
	gateways, pods = map[netip.AddrPort]string{}, map[netip.Addr]string{}
	for _, member := range m.Members {
		if a, err := member.GatewayAddress(ctx); err == nil {
			gateways[a] = member.Name()
		}
		its, err := proxyPods(ctx, member)
		if err != nil {
			continue
		}
		for _, p := range its {
			if a, err := netip.ParseAddr(p.Status.PodIP); err == nil && p.Status.Phase == corev1.PodRunning {
				pods[a] = p.Name + " in " + member.Name()
			}
		}
	}
	return gateways, pods
}

type endpoint struct {
	Address              netip.AddrPort
	Health               string
	Connections, Refused int // made and failed since the proxy knows it
}

func (e endpoint) String() string {
	return fmt.Sprintf("%s %s, %d of %s failed", e.Address, e.Health, e.Refused, plural(e.Connections, "connection"))
}

// parseEndpoints finds a cluster on Envoy's page /clusters?format=json.
func parseEndpoints(page []byte, cluster string) (found bool, endpoints []endpoint, err error) {
	all, err := parseClusters(page)
	endpoints, found = all[cluster]
	return found, endpoints, err
}

// parseClusters reads Envoy's page /clusters?format=json. A number that is 0 is left out there, and an endpoint
// that is not at an address, such as a pipe, is left out here.
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
				n, _ := strconv.Atoi(s.Value) // absent is 0
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

// Reached reads Envoy's page /clusters?format=json and returns the addresses with that port to which a proxy has
// been connected, and those to which it has tried to connect and never was, with how often.
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

// health puts EDS's word first and then whatever else Envoy holds against the endpoint.
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

// Absent is the state of a cluster that istiod does not know.
const Absent = "absent"

// RemoteClusters checks which clusters an istiod reads, and how it says that goes. Istio's answer is
// latched: "synced" stays, whatever becomes of the remote API server or of the credentials.
type RemoteClusters struct {
	In     string
	Expect map[string]string // cluster: "synced", "syncing", "timeout", "closed", or Absent
}

var _ Check = RemoteClusters{}

func (c RemoteClusters) wanted() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(c.Expect)) {
		words = append(words, name+" "+c.Expect[name])
	}
	return join(words)
}

func (c RemoteClusters) String() string {
	return fmt.Sprintf("istiod of %s lists %s", c.In, c.wanted())
}

// Command implements Check.
func (c RemoteClusters) Command() string { return "istioctl remote-clusters --context=" + c.In }

// Look implements Check. It reads the page that istioctl reads.
func (c RemoteClusters) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	page, err := member.IstiodDebug(ctx, "/debug/clusterz")
	if err != nil {
		return "", err
	}
	var known []struct{ ID, SyncStatus string }
	if err := json.Unmarshal(page, &known); err != nil {
		return "", fmt.Errorf("reading istiod's clusters in %s: %w", c.In, err)
	}
	states := map[string]string{}
	var texts []string
	for _, k := range known {
		states[k.ID] = k.SyncStatus
		texts = append(texts, k.ID+" "+k.SyncStatus)
	}
	seen := "istiod of " + c.In + " lists " + join(texts)
	for name, want := range c.Expect {
		state, ok := states[name]
		if !ok {
			state = Absent
		}
		if state != want {
			return seen, &Mismatch{Wanted: c.wanted(), Seen: seen,
				Try: fmt.Sprintf("kubectl --context=%s get secrets -n %s -l istio/multiCluster=true", c.In, mesh.SystemNamespace)}
		}
	}
	return seen, nil
}

// ProxyStatus checks that all proxies of a cluster have what its istiod has sent. That says nothing about
// trust between proxies.
type ProxyStatus struct{ In string }

var _ Check = ProxyStatus{}

func (c ProxyStatus) String() string {
	return "all proxies of " + c.In + " are in sync with their istiod"
}

// Command implements Check.
func (c ProxyStatus) Command() string { return "istioctl proxy-status --context=" + c.In }

// Look implements Check.
func (c ProxyStatus) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	primary, err := m.Member(member.Spec.Primary)
	if err != nil {
		return "", err
	}
	page, err := primary.IstiodDebug(ctx, "/debug/syncz")
	if err != nil {
		return "", err
	}
	synced, err := ParseSync(page)
	if err != nil {
		return "", err
	}
	states := map[string]string{}
	for _, s := range synced {
		states[s.Proxy] = s.Problem
	}
	pods, err := proxyPods(ctx, member)
	if err != nil {
		return "", err
	}
	good := 0
	var bad []string
	for _, p := range pods {
		if !mesh.Ready(p.Pod) {
			continue
		}
		switch state, ok := states[p.Name+"."+p.Namespace]; {
		case !ok:
			bad = append(bad, p.Name+" is not connected")
		case state != "":
			bad = append(bad, p.Name+": "+state)
		default:
			good++
		}
	}
	seen := fmt.Sprintf("%d in sync", good)
	if len(bad) > 0 || good == 0 {
		seen = strings.Join(append([]string{seen}, bad...), "; ")
		return seen, &Mismatch{Wanted: "all proxies of " + c.In + " in sync", Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// InSync returns nil if all proxies of the mesh have what their istiods have sent. One that has lost its istiod looks
// for it again after pauses of up to half a minute, and until then knows nothing of pods that are made.
func InSync(ctx context.Context, m *mesh.Mesh) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.InMesh() {
		group.Go(func() error {
			_, err := ProxyStatus{In: member.Name()}.Look(ctx, m)
			return err
		})
	}
	return group.Wait()
}

// Synced is a proxy that is connected to an istiod.
type Synced struct {
	Proxy, Cluster, Version string // POD.NAMESPACE, the cluster's id, Istio's version
	Problem                 string // why it does not have what was sent; empty if it has
}

// ParseSync reads istiod's page /debug/syncz.
func ParseSync(page []byte) ([]Synced, error) {
	var proxies []struct {
		Proxy     string `json:"proxy"`
		Cluster   string `json:"cluster_id"`
		Version   string `json:"istio_version"`
		Resources map[string]struct {
			Sent, Acked, LastError string
		} `json:"resources"`
	}
	if err := json.Unmarshal(page, &proxies); err != nil {
		return nil, fmt.Errorf("reading istiod's proxies: %w", err)
	}
	synced := make([]Synced, len(proxies))
	for i, p := range proxies {
		synced[i] = Synced{Proxy: p.Proxy, Cluster: p.Cluster, Version: p.Version}
		state := &synced[i].Problem
		for _, kind := range slices.Sorted(maps.Keys(p.Resources)) {
			r := p.Resources[kind]
			what := kind[strings.LastIndexByte(kind, '.')+1:]
			switch {
			case r.LastError != "":
				*state = what + " refused: " + short(r.LastError, 200)
			case r.Sent != r.Acked && *state == "":
				*state = what + " not acknowledged"
			}
		}
	}
	return synced, nil
}
