package observe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

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

// Leaves implements traffic.Leaver. A pod that is not Ready goes on to call: what its calls meet is what a scenario wants to know.
func (p *podSource) Leaves(pod string) bool {
	pods, err := p.member.Pods(context.Background(), p.app) // known without waiting since Dial was called
	if err != nil || !slices.ContainsFunc(pods, mesh.Ready) {
		return false
	}
	i := slices.IndexFunc(pods, func(q *corev1.Pod) bool { return q.Name == pod })
	return i < 0 || pods[i].DeletionTimestamp != nil
}
