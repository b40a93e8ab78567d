package doctor

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"
)

// Reads is what an istiod knows of another cluster, and by what it knows that.
type Reads struct {
	Istiod  string    `json:"istiod"`  // the cluster where it runs
	Cluster string    `json:"cluster"` // that it reads
	Secret  string    `json:"secret,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // of its token, if that says so
	Server  string    `json:"server,omitempty"`
	Status  string    `json:"status,omitempty"` // as istiod says, whatever became of the server since
	// Endpoints are those of the cluster by NAMESPACE/HOST, and Own how many its own istiod knows; -1 if that was not
	// read, or is the same one.
	Endpoints map[string]int `json:"endpoints,omitempty"`
	Own       int            `json:"own"`
	Network   string         `json:"network,omitempty"`  // of the cluster
	Gateways  []string       `json:"gateways,omitempty"` // of its network, as istiod knows them
}

// reads lists for every istiod the other clusters of the mesh.
func (e *exam) reads() (all []Reads) {
	for _, p := range e.planes {
		for i, c := range e.Clusters {
			other := e.served[i]
			if other == nil || c.ID == "" || c.ID == p.id {
				continue
			}
			one := Reads{Istiod: e.Clusters[p.at].Context, Cluster: c.Context, Network: c.Network, Own: -1}
			for _, s := range e.secretsAt(p).Remotes {
				if s.ID == c.ID {
					one.Secret, one.Created, one.Expires, one.Server = s.Name, s.Created, s.Expires, s.Server
				}
			}
			if other != p && other.istiod != nil && other.istiod.Read {
				one.Own = total(other.istiod, c.ID)
			}
			if p.istiod != nil && p.istiod.Read {
				one.Status, one.Endpoints = p.istiod.Clusters[c.ID], map[string]int{}
				for key, its := range p.istiod.Endpoints {
					if its[c.ID] > 0 {
						one.Endpoints[key] = its[c.ID]
					}
				}
				for _, g := range p.istiod.Networks {
					if g.Network == c.Network {
						one.Gateways = append(one.Gateways, net.JoinHostPort(g.Addr, strconv.Itoa(g.Port)))
					}
				}
				slices.Sort(one.Gateways)
				one.Gateways = slices.Compact(one.Gateways)
			}
			all = append(all, one)
		}
	}
	return all
}

// By names the remote secret and its age.
func (r Reads) By(now time.Time) string {
	if r.Secret == "" {
		return "-"
	}
	text := fmt.Sprintf("%s, made %s ago", r.Secret, age(now.Sub(r.Created)))
	if !r.Expires.IsZero() {
		text += ", its token ends " + until(r.Expires.Sub(now))
	}
	return text
}

// Knows counts endpoints.
func (r Reads) Knows() string {
	n := 0
	for _, its := range r.Endpoints {
		n += its
	}
	if r.Own < 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of %d", n, r.Own)
}
