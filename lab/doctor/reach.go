package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/exec"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

// hostsTried are so many hosts of a cluster, one of which has to be reached through its gateway.
const hostsTried = 2

// across looks at the ways between clusters, as soon as all of them are known: whether proxies of each get to the
// gateways of the others, whether istiods get to the API servers that they read, and whether gateways pass TLS on to a
// service behind them.
func across(ctx context.Context, readers []*reader) {
	var all sync.WaitGroup
	for _, r := range readers {
		all.Go(func() {
			start := time.Now()
			r.tryWays(ctx, readers)
			if r.Progress != nil {
				r.Progress(r.cluster.Context, Reach, time.Since(start))
			}
		})
		hosts := r.hosts(readers)
		for i := range r.cluster.Gateways {
			all.Go(func() { r.passes(ctx, &r.cluster.Gateways[i], hosts) })
		}
	}
	all.Wait()
}

// tryWays connects from proxies of the cluster to gateways of other networks, and to the API servers that its istiods
// may read. What the proxy's user sends goes straight out and not through the proxy itself.
func (r *reader) tryWays(ctx context.Context, readers []*reader) {
	var workload, near *Proxy // the newest beside a workload; one in istiod's namespace, or else any
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
	from := map[string]*Proxy{}
	for _, other := range readers {
		for _, g := range other.cluster.Gateways {
			network := cmp.Or(g.Network, other.cluster.Network)
			if workload == nil || r.cluster.Network == "" || network == r.cluster.Network || network == "" || g.Port == 0 {
				continue
			}
			for _, way := range g.ways() {
				from[way] = workload
			}
		}
		for _, s := range other.cluster.Remotes {
			if address := s.address(); address != "" && near != nil && len(r.istiods) > 0 && !loopback(s.Server) {
				from[address] = near
			}
		}
	}
	each(keys(from), func(address string) {
		p := from[address]
		err := r.connects(ctx, r.pods[p.Name()], address)
		if errors.Is(err, errCannotTry) {
			return // what proxies themselves have counted tells, or nobody knows
		}
		tried := Tried{From: p.Name(), Address: address}
		if err != nil {
			tried.Err = short(err.Error(), 200)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cluster.Tried = append(r.cluster.Tried, tried)
	})
	slices.SortFunc(r.cluster.Tried, func(a, b Tried) int { return strings.Compare(a.Address, b.Address) })
}

// ways are the hosts and ports by which other networks come in.
func (g Gateway) ways() (all []string) {
	for _, a := range g.Addresses {
		all = append(all, net.JoinHostPort(a, strconv.Itoa(g.Port)))
	}
	return all
}

// address is the host and port of the API server; empty if it cannot be told.
func (s RemoteSecret) address() string {
	u, err := url.Parse(s.Server)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
}

// evidence shows a connection that was tried from a cluster.
func (t Tried) evidence(context string) Evidence {
	space, pod, _ := strings.Cut(t.From, "/")
	return Evidence{"a connection from " + t.From + " in " + context, t.Address + ": " + cmp.Or(t.Err, "it was made"),
		fmt.Sprintf("kubectl --context=%s exec -n %s %s -c %s -- %s", context, space, pod, observe.ProxyContainer, strings.Join(curlTo(t.Address), " "))}
}

// errCannotTry says that a command cannot be run in a pod: it is not allowed, or its image has no curl.
var errCannotTry = errors.New("no command can be run there")

// connects tries a TCP connection from the proxy's container of a pod.
func (r *reader) connects(ctx context.Context, pod *corev1.Pod, address string) error {
	ctx, cancel := context.WithTimeout(ctx, oneWithin)
	defer cancel()
	_, err := r.run(ctx, pod, observe.ProxyContainer, curlTo(address)...)
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
	return nil // there was a connection: what came of TLS without a certificate says nothing
}

func curlTo(address string) []string {
	return []string{"curl", "-sk", "-o", "/dev/null", "--connect-timeout", "2", "-m", "3", "https://" + address}
}

// hosts are names under which a gateway of the cluster passes TLS on to services that have endpoints there, the first few.
func (r *reader) hosts(readers []*reader) (names []string) {
	served := map[string]string{} // NAMESPACE/NAME of a service, to its host
	for _, other := range readers {
		for _, i := range other.cluster.Istiods {
			for key, its := range i.Endpoints {
				space, host, _ := strings.Cut(key, "/")
				if name, rest, _ := strings.Cut(host, "."); its[r.cluster.ID] > 0 && strings.HasPrefix(rest, space+".") {
					served[space+"/"+name] = host
				}
			}
		}
	}
	for _, s := range r.cluster.Services {
		port, ok := s.tcp()
		if host := served[s.Namespace+"/"+s.Name]; ok && !s.Headless && host != "" {
			names = append(names, fmt.Sprintf("outbound_.%d_._.%s", port, host))
		}
	}
	slices.Sort(names)
	return names[:min(len(names), hostsTried)]
}

// tcp is the first TCP port of a Service.
func (s Service) tcp() (int, bool) {
	for _, p := range s.Ports {
		number, rest, _ := strings.Cut(p, "/")
		if port, err := strconv.Atoi(number); err == nil && strings.HasPrefix(rest, "TCP") {
			return port, true
		}
	}
	return 0, false
}

// passes begins TLS handshakes through a pod of a gateway, as proxies of other networks do, and ends them as soon as
// the service behind it shows its certificate: a client that shows none would be counted there as refused
// (ssl.fail_verify_no_cert).
func (r *reader) passes(ctx context.Context, g *Gateway, hosts []string) {
	if !g.Listens || len(hosts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, oneWithin)
	defer cancel()
	pod := r.behind(*g)
	if pod == nil {
		return
	}
	for _, host := range hosts {
		conn, err := r.pages.Dial(ctx, pod, gatewayTLSPort)
		if err != nil {
			if !strings.Contains(err.Error(), "forbidden") {
				g.Refuses = short(host+": "+err.Error(), 300)
			}
			continue
		}
		// Gateways and sidecars choose what to do by ALPN, and let in what Istio's proxies say.
		passed := false
		secured := tls.Client(conn, &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // whom to trust is another question
			ServerName:         host, NextProtos: []string{"istio-http/1.1", "istio", "http/1.1"},
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error {
				passed = true
				return conn.Close() // before the alert that an error would send
			},
		})
		err = secured.HandshakeContext(ctx)
		_ = conn.Close() // that is all
		if passed {
			g.Passes, g.Refuses = host, ""
			return
		}
		g.Refuses = short(host+": "+err.Error(), 300)
	}
}

// behind is a Ready pod of a gateway; nil if there is none.
func (r *reader) behind(g Gateway) *corev1.Pod {
	for _, name := range keys(r.pods) {
		if p := r.pods[name]; p.Namespace == g.Namespace && matches(g.Labels, p.Labels) && mesh.Ready(p) {
			return p
		}
	}
	return nil
}
