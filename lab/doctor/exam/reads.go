package exam

import (
	"net"
	"slices"
	"strconv"
	"time"
)

// Reads is what an istiod knows about another cluster, and the remote secret with which it reads it.
type Reads struct {
	Istiod   string    `json:"istiod"`             // the cluster where it runs
	Revision string    `json:"revision,omitempty"` // of the istiod, if another one runs beside it
	Cluster  string    `json:"cluster"`            // the cluster that it reads
	Secret   string    `json:"secret,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"` // of its token, if the token says
	Server   string    `json:"server,omitempty"`
	Status   string    `json:"status,omitempty"` // in istiod's list, which does not change when the server goes away
	// Endpoints are those of the cluster by NAMESPACE/HOST. Own is how many its own istiod knows; -1 if that was not read, or is
	// the same istiod.
	Endpoints map[string]int `json:"endpoints,omitempty"`
	Own       int            `json:"own"`
	Network   string         `json:"network,omitempty"`  // of the cluster
	Gateways  []string       `json:"gateways,omitempty"` // of its network, as istiod knows them
}

// reads lists for every istiod the other clusters of the mesh.
func (e *examination) reads() (all []Reads) {
	for _, p := range e.planes {
		for i, c := range e.Clusters {
			if e.served[i] != nil && c.ID != "" && c.ID != p.id {
				all = append(all, e.read(p, i))
			}
		}
	}
	return all
}

// read says what a plane's istiod knows about one cluster.
func (e *examination) read(p *plane, cluster int) Reads {
	c, own := e.Clusters[cluster], e.served[cluster]
	r := Reads{Istiod: e.Clusters[p.at].Context, Cluster: c.Context, Network: c.Network, Own: -1}
	if p.beside {
		r.Revision = p.revision
	}
	for _, s := range e.secretsOf(p).Remotes {
		if s.ID == c.ID {
			r.Secret, r.Created, r.Expires, r.Server = s.Name, s.Created, s.Expires, s.Server
		}
	}
	if own.at != p.at && own.reads() {
		r.Own = total(own.istiod, c.ID)
	}
	if !p.reads() {
		return r
	}
	r.Status, r.Endpoints = p.istiod.Clusters[c.ID], map[string]int{}
	for key, endpoints := range p.istiod.Endpoints {
		if endpoints[c.ID] > 0 {
			r.Endpoints[key] = endpoints[c.ID]
		}
	}
	for _, g := range p.istiod.Networks {
		if g.Network == c.Network {
			r.Gateways = append(r.Gateways, net.JoinHostPort(g.Addr, strconv.Itoa(g.Port)))
		}
	}
	slices.Sort(r.Gateways)
	r.Gateways = slices.Compact(r.Gateways)
	return r
}
