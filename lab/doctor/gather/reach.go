package gather

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/exec"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// across tries the paths between clusters, once all clusters are known: from proxies of each to the gateways of the others,
// from istiods to the API servers that they read, and through gateways to a service behind them.
func across(ctx context.Context, readers []*reader) {
	var all sync.WaitGroup
	for _, r := range readers {
		all.Go(func() {
			start := time.Now()
			r.tryConnections(ctx, readers)
			if r.Progress != nil {
				r.Progress(r.cluster.Context, string(facts.Reach), time.Since(start))
			}
		})
		hosts := r.hosts(readers)
		for i := range r.cluster.Gateways {
			all.Go(func() { r.handshake(ctx, &r.cluster.Gateways[i], hosts) })
		}
	}
	all.Wait()
}

// tryConnections connects from proxies of the cluster to gateways of other networks, and to the API servers that istiods of the
// cluster may read.
func (r *reader) tryConnections(ctx context.Context, readers []*reader) {
	workload, near := r.callers()
	from := map[string]*facts.Proxy{} // by address
	for _, other := range readers {
		for _, g := range other.cluster.Gateways {
			network := cmp.Or(g.Network, other.cluster.Network)
			elsewhere := r.cluster.Network != "" && network != "" && network != r.cluster.Network
			if workload == nil || !elsewhere || g.Port == 0 {
				continue
			}
			for _, address := range g.HostPorts() {
				from[address] = workload
			}
		}
		for _, s := range other.cluster.Remotes {
			if address := s.HostPort(); address != "" && near != nil && len(r.istiods) > 0 && !s.Loopback() {
				from[address] = near
			}
		}
	}
	each(slices.Sorted(maps.Keys(from)), func(address string) {
		tried := facts.Tried{From: from[address].Name(), Address: address}
		err := r.connect(ctx, r.pods[tried.From], tried)
		if errors.Is(err, errCannotTry) {
			return // the proxies' own counters may show it, otherwise it stays unknown
		}
		if err != nil {
			tried.Err = words.Short(err.Error(), 200)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cluster.Tried = append(r.cluster.Tried, tried)
	})
	slices.SortFunc(r.cluster.Tried, func(a, b facts.Tried) int { return cmp.Compare(a.Address, b.Address) })
}

// callers returns the Ready proxies from which connections are tried: the newest one of a workload, and one in istiod's
// namespace, or any if that has none. Both are nil if there is none.
func (r *reader) callers() (workload, near *facts.Proxy) {
	for i := range r.cluster.Proxies {
		p := &r.cluster.Proxies[i]
		if !p.Ready {
			continue
		}
		if !p.Gateway && (workload == nil || p.Created.After(workload.Created)) {
			workload = p
		}
		if near == nil || near.Namespace != r.System && p.Namespace == r.System {
			near = p
		}
	}
	return workload, near
}

// errCannotTry means that a command cannot be run in a pod: that is not allowed, or its image has no curl.
var errCannotTry = errors.New("no command can be run there")

// connect tries a TCP connection from the proxy's container of a pod.
func (r *reader) connect(ctx context.Context, pod *corev1.Pod, t facts.Tried) error {
	ctx, cancel := context.WithTimeout(ctx, oneWithin())
	defer cancel()
	_, err := r.run(ctx, pod, facts.ProxyContainer, t.Command()...)
	var exit exec.CodeExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return errCannotTry
	}
	switch exit.Code { // https://curl.se/docs/manpage.html#EXIT
	case 6:
		return errors.New("its name does not resolve")
	case 7:
		return errors.New("it was refused")
	case 28:
		return errors.New("there was no answer within 2 s")
	case 126, 127:
		return errCannotTry
	}
	return nil // there was a connection: TLS without a certificate is expected to fail
}

// mostHosts is how many hosts of a cluster are tried through its gateway. One that works is enough.
const mostHosts = 2

// hosts returns the names under which a gateway of the cluster passes TLS on to services that have endpoints there.
func (r *reader) hosts(readers []*reader) (names []string) {
	served := map[string]string{} // host by NAMESPACE/NAME of the service
	for _, other := range readers {
		for _, i := range other.cluster.Istiods {
			for key, endpoints := range i.Endpoints {
				space, host, _ := strings.Cut(key, "/")
				name, domain, _ := strings.Cut(host, ".")
				if endpoints[r.cluster.ID] > 0 && strings.HasPrefix(domain, space+".") {
					served[space+"/"+name] = host
				}
			}
		}
	}
	for _, s := range r.cluster.Services {
		port := firstTCP(s)
		if host := served[s.Namespace+"/"+s.Name]; port != 0 && !s.Headless && host != "" {
			names = append(names, fmt.Sprintf("outbound_.%d_._.%s", port, host))
		}
	}
	slices.Sort(names)
	return names[:min(len(names), mostHosts)]
}

// firstTCP returns the first TCP port of a Service, 0 if it has none.
func firstTCP(s facts.Service) int {
	for _, p := range s.Ports {
		number, protocol, _ := strings.Cut(p, "/")
		if port, err := strconv.Atoi(number); err == nil && strings.HasPrefix(protocol, "TCP") {
			return port
		}
	}
	return 0
}

// handshake begins TLS handshakes through a pod of a gateway, as proxies of other networks do. It ends them as soon as the
// service behind the gateway presents its certificate: the service would count a client without one as refused
// (ssl.fail_verify_no_cert).
func (r *reader) handshake(ctx context.Context, g *facts.Gateway, hosts []string) {
	if !g.Listens || len(hosts) == 0 {
		return
	}
	pod := r.behind(*g)
	if pod == nil {
		return
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, oneWithin())
	defer cancel()
	defer func() {
		if whole.Err() != nil && g.Passes == "" { // doctor's own time is over, which says nothing of the gateway
			g.Refuses = ""
			r.unread(facts.Unread{
				Cluster: r.cluster.Context, Part: facts.Reach, Object: "gateway " + g.FullName(), Why: context.Cause(whole).Error(),
			})
		}
	}()
	for _, host := range hosts {
		conn, err := r.pages.Dial(ctx, pod, facts.GatewayPort)
		if err != nil {
			if !apierrors.IsForbidden(err) {
				g.Refuses = words.Short(host+": "+err.Error(), 300)
			}
			continue
		}
		passed := false
		secured := tls.Client(conn, &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // only whether there is a certificate matters, not whose
			ServerName:         host,
			NextProtos:         []string{"istio-http/1.1", "istio", "http/1.1"}, // gateways and sidecars accept what Istio's proxies offer
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error {
				passed = true
				return conn.Close() // before the alert that an error would send
			},
		})
		err = secured.HandshakeContext(ctx)
		_ = conn.Close() // nothing more is read from it
		if passed {
			g.Passes, g.Refuses = host, ""
			return
		}
		g.Refuses = words.Short(host+": "+err.Error(), 300)
	}
}
