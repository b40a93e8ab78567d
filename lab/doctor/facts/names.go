package facts

// Names that Istio gives to things in a cluster. Package exam prints them in commands and may not import the packages that
// read clusters; a test of package gather compares them with what those packages use.
const (
	SystemNamespace  = "istio-system"
	IstiodName       = "istiod"
	CACertsSecret    = "cacerts"
	SelfSignedSecret = "istio-ca-secret"
	RootConfigMap    = "istio-ca-root-cert"
	ProxyContainer   = "istio-proxy"
	NetworkLabel     = "topology.istio.io/network"
	GatewayPort      = 15443 // of an east-west gateway, as its clients see it
	RevisionLabel    = "istio.io/rev"
	TagLabel         = "istio.io/tag"
	InjectionLabel   = "istio-injection"
	DefaultRevision  = "default" // of an istiod that was installed without one
)

// Revisioned returns the name that Istio's charts give to the Deployment, the Service or the ConfigMap of a revision.
func Revisioned(name, revision string) string {
	if revision == "" || revision == DefaultRevision {
		return name
	}
	return name + "-" + revision
}

// Selects reports whether a selector selects labels. An empty one selects nothing.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// MostCommon returns the most frequent value of all, and the first such one if there are several. Empty values do not count.
func MostCommon[T any](all []T, value func(T) string) string {
	count, best := map[string]int{}, ""
	for _, a := range all {
		if v := value(a); v != "" {
			if count[v]++; best == "" || count[v] > count[best] {
				best = v
			}
		}
	}
	return best
}
