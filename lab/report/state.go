package report

// State is what a mesh was like between two changes, read in one go. Only meshes that are made for upgrades of Istio have states:
// see observe.ReadState. The JSON names are stable.
type State struct {
	Clusters []ClusterState `json:"clusters"`
}

// ClusterState is the part of one cluster. What could not be read is in Unread, and nothing of it elsewhere.
type ClusterState struct {
	Cluster       string            `json:"cluster"`
	ControlPlanes []ControlPlane    `json:"controlPlanes,omitempty"`
	Proxies       []ProxyCount      `json:"proxies,omitempty"` // all of the cluster, the gateway's included
	Gateway       []ProxyCount      `json:"gateway,omitempty"` // of the east-west gateway alone
	Tags          map[string]string `json:"tags,omitempty"`    // and the revisions that they stand for
	Injection     string            `json:"injection,omitempty"`
	Validation    []Webhook         `json:"validation,omitempty"`
	Roots         []InUse           `json:"roots,omitempty"`   // that the proxies trust
	Issuers       []InUse           `json:"issuers,omitempty"` // of the certificates that they show
	Unread        map[string]string `json:"unread,omitempty"`  // names of fields, or of what they are made of, and why
}

// ControlPlane is an istiod.
type ControlPlane struct {
	Revision string `json:"revision"`
	Version  string `json:"version"`
	Ready    bool   `json:"ready"`
}

// ProxyCount is how many proxies have a version and are served by a revision.
type ProxyCount struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the istiod that they are connected to; empty: to none
	Count    int    `json:"count"`
}

// Webhook is where the API server sends objects of Istio to be validated.
type Webhook struct {
	Name     string `json:"name"`
	Service  string `json:"service"`
	Labelled bool   `json:"labelled,omitempty"` // it sees only objects with the label of a revision
	Gone     bool   `json:"gone,omitempty"`     // there is no such Service: nothing can be written
}

// InUse is a set of certificates that proxies use, and how many do.
type InUse struct {
	Certificates string `json:"certificates"` // short SHA-256 fingerprints
	Proxies      int    `json:"proxies"`
}

// clean returns the state as it may be shown.
func (s *State) clean() *State {
	if s == nil {
		return nil
	}
	c := &State{Clusters: make([]ClusterState, len(s.Clusters))}
	for i, of := range s.Clusters {
		of.Injection = Redact(of.Injection)
		if of.Unread != nil {
			unread := make(map[string]string, len(of.Unread))
			for what, why := range of.Unread {
				unread[what] = Redact(why)
			}
			of.Unread = unread
		}
		c.Clusters[i] = of
	}
	return c
}
