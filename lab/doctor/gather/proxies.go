package gather

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
)

// readProxies reads the certificates of the proxies in the sample, and asks some of them which connections fail.
func (r *reader) readProxies(ctx context.Context) error {
	c := r.cluster
	var mu sync.Mutex
	var errs []error
	chosen := sample(c.Proxies, r.Sample)
	each(chosen, func(i int) {
		p := &c.Proxies[i]
		page, err := r.page(ctx, r.pods[p.Name()], mesh.EnvoyAdminPort, observe.SecretsPage)
		if err == nil {
			var roots, chain []*x509.Certificate
			if roots, chain, err = observe.ParseSecrets(page); err == nil {
				p.Roots, p.Chain = r.add(roots), r.add(chain)
			}
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("%s: %w", p.Name(), err))
		}
	})
	asked := 0
	for i := len(chosen) - 1; i >= 0 && asked < witnesses; i-- {
		if p := &c.Proxies[chosen[i]]; !p.Gateway {
			asked++
			r.readConnections(ctx, p)
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// sample chooses the proxies whose certificates are read: the oldest and the newest Ready pod of every workload. If these are
// more than limit, it chooses as many as that, spread over their ages.
func sample(proxies []facts.Proxy, limit int) []int {
	byWorkload := map[string][]int{}
	for i, p := range proxies {
		if p.Ready {
			key := p.Namespace + "/" + p.Workload
			byWorkload[key] = append(byWorkload[key], i)
		}
	}
	byAge := func(a, b int) int {
		return cmp.Or(proxies[a].Created.Compare(proxies[b].Created), cmp.Compare(proxies[a].Name(), proxies[b].Name()))
	}
	var chosen []int
	for _, pods := range byWorkload {
		slices.SortFunc(pods, byAge)
		chosen = append(chosen, pods[0])
		if len(pods) > 1 {
			chosen = append(chosen, pods[len(pods)-1])
		}
	}
	slices.SortFunc(chosen, byAge)
	if len(chosen) <= limit {
		return chosen
	}
	spread := make([]int, limit)
	for i := range spread {
		spread[i] = chosen[i*(len(chosen)-1)/max(limit-1, 1)]
	}
	return spread
}

// watchFor is how long the counters of a proxy are watched. Doctor makes no calls here: it counts those of others.
const watchFor = 700 * time.Millisecond

// readConnections finds the gateways of other networks to which a proxy cannot connect: it never has, and more of its
// connections have failed when it is asked a second time.
func (r *reader) readConnections(ctx context.Context, p *facts.Proxy) {
	count := func() map[string]int {
		page, err := r.page(ctx, r.pods[p.Name()], mesh.EnvoyAdminPort, "/clusters?format=json")
		if err != nil {
			return nil // only a hint is lost: the connections that doctor tries itself matter more
		}
		made, failed, err := observe.Reached(page, facts.GatewayPort)
		p.Asked, p.Through = err == nil, slices.Sorted(maps.Keys(made))
		return failed
	}
	before := count()
	if len(before) == 0 {
		return
	}
	select {
	case <-time.After(watchFor):
	case <-ctx.Done():
	}
	for host, n := range count() {
		if was, ok := before[host]; ok && n > was {
			p.Failing = append(p.Failing, host)
		}
	}
	slices.Sort(p.Failing)
}

// readListeners finds out whether the pods of gateways listen.
func (r *reader) readListeners(ctx context.Context) error {
	var errs []error
	for i := range r.cluster.Gateways {
		g := &r.cluster.Gateways[i]
		p := r.behind(*g)
		if p == nil {
			continue
		}
		page, err := r.page(ctx, p, mesh.EnvoyAdminPort, "/listeners")
		errs = append(errs, err)
		g.Looked, g.Listens = err == nil, strings.Contains(string(page), ":"+strconv.Itoa(facts.GatewayPort))
	}
	return errors.Join(errs...)
}
