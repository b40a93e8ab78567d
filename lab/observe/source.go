package observe

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/traffic"
)

// Source returns the newest Ready pod of an app as a source of calls. The pod is found again for each connection, so that
// a stream moves to the new pod when the app is restarted.
func Source(member *mesh.Member, app string) traffic.Source { return &podSource{member, app} }

type podSource struct {
	member *mesh.Member
	app    string
}

func (p *podSource) String() string { return Workload{App: p.app, Cluster: p.member.Name()}.String() }

// Dial implements traffic.Source.
func (p *podSource) Dial(ctx context.Context) (net.Conn, string, error) {
	pods, err := p.member.ReadyPods(ctx, p.app)
	if err != nil {
		return nil, "", err
	}
	newest := pods[len(pods)-1]
	addr, err := netip.ParseAddr(newest.Status.PodIP)
	if err != nil {
		return nil, newest.Name, fmt.Errorf("the address of pod %s: %w", newest.Name, err)
	}
	conn, err := p.member.Dial(ctx, netip.AddrPortFrom(addr, traffic.ForwardPort))
	return conn, newest.Name, err
}
