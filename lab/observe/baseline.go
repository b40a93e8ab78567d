package observe

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Baseline is what a mesh is like, as far as scenarios can change it, with the objects that are put back. It holds
// Secrets: its JSON belongs into a file that only its owner can read.
type Baseline struct {
	facts   map[Fact]string
	objects map[Fact]*unstructured.Unstructured // of the facts whose topic is AnObject
	named   []Named
}

// Named is an object that a baseline is to know besides those that every baseline knows.
type Named struct {
	Cluster   string `json:"cluster"`
	Kind      string `json:"kind"` // as people write it
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Topic is what a fact is about.
type Topic string

// The topics.
const (
	AnObject          Topic = "object"             // an object of Kubernetes: its labels, annotations and content
	ProxyTrust        Topic = "proxy-trust"        // the certificates that the proxies of an app use
	IstiodRoot        Topic = "istiod-root"        // the root that istiod hands out in each namespace
	IstiodCertificate Topic = "istiod-certificate" // what istiod itself shows, which its CA has signed
	GatewayAddress    Topic = "gateway-address"    // the address of the east-west gateway
	UnderlayFaults    Topic = "underlay-faults"    // faults below Kubernetes that are in force
	Definitions       Topic = "definitions"        // Istio's definitions of its kinds
)

// Fact names one thing in a cluster that can change. Its value is in the baseline.
type Fact struct {
	Cluster   string `json:"cluster"`
	Topic     Topic  `json:"topic"`
	Group     string `json:"group,omitempty"` // of the object's API
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"` // of the object or the app
}

// ObjectFact names an object. The group is that of its API: "apps" for Deployments, empty for Secrets.
func ObjectFact(cluster, group, kind, namespace, name string) Fact {
	return Fact{Cluster: cluster, Topic: AnObject, Group: group, Kind: kind, Namespace: namespace, Name: name}
}

// String names the fact for people, without its cluster. Two facts may have one text.
func (f Fact) String() string {
	const inUse = "trust in use: "
	switch f.Topic {
	case AnObject:
		switch {
		case f.Kind == "Namespace":
			return "labels of namespace " + f.Name
		case f.Namespace == "", f.Namespace == mesh.SystemNamespace && (f.Kind == "Secret" || f.Kind == "ConfigMap"):
			return f.Kind + " " + f.Name
		}
		return f.Kind + " " + f.Name + " in namespace " + f.Namespace
	case ProxyTrust:
		return inUse + f.Name + " in namespace " + f.Namespace
	case IstiodRoot:
		return inUse + "istiod"
	case IstiodCertificate:
		return inUse + "istiod's own certificate"
	case GatewayAddress:
		return "address of the east-west gateway"
	case Definitions:
		return "definitions of Istio's kinds"
	case UnderlayFaults:
		return "faults of the underlay"
	}
	return string(f.Topic)
}

// IsTrust reports whether the fact is about certificates in use. Restarts put them right, once the Secrets are right.
func (f Fact) IsTrust() bool {
	return f.Topic == ProxyTrust || f.Topic == IstiodRoot || f.Topic == IstiodCertificate
}

// IsObject reports whether the fact is about the object of that kind, namespace and name.
func (f Fact) IsObject(kind, namespace, name string) bool {
	return f.Topic == AnObject && f.Kind == kind && f.Namespace == namespace && f.Name == name
}

func (f Fact) compare(g Fact) int {
	return cmp.Or(strings.Compare(f.Cluster, g.Cluster), strings.Compare(f.String(), g.String()), strings.Compare(f.Group, g.Group))
}

// String says how much was written down.
func (b Baseline) String() string {
	trust, clusters := 0, map[string]bool{}
	for f := range b.facts {
		clusters[f.Cluster] = true
		if f.IsTrust() {
			trust++
		}
	}
	return fmt.Sprintf("%s of %s, %d of them about the certificates in use",
		words.Plural(len(b.facts), "fact"), words.Plural(len(clusters), "cluster"), trust)
}

// Has reports whether an object was there.
func (b Baseline) Has(f Fact) bool {
	_, ok := b.objects[f]
	return ok
}

// Difference is one thing that is not what it was.
type Difference struct {
	Fact
	Was, Is string // empty: it was not there, or is not there now
	// Before and Now are the object, if the fact is about one and it was there, or is there now. They must not be changed.
	Before, Now *unstructured.Unstructured
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: was %s, is %s", d.Cluster, d.Fact, cmp.Or(d.Was, "nothing"), cmp.Or(d.Is, "nothing"))
}

// ObjectChanged reports whether an object itself changed. A Deployment of which only the pods differ did not.
func (d Difference) ObjectChanged() bool {
	return (d.Before == nil) != (d.Now == nil) || d.Before != nil && content(d.Before) != content(d.Now)
}

// Object returns the object as it was, or as it is now if it was not there; nil if the fact is not about an object.
func (d Difference) Object() *unstructured.Unstructured {
	if d.Before != nil {
		return d.Before
	}
	return d.Now
}

// Differences returns what differs now, sorted by cluster and by what the facts are called; none if the mesh is as it was.
func (b Baseline) Differences(now Baseline) []Difference {
	var differences []Difference
	add := func(f Fact) {
		if b.facts[f] != now.facts[f] {
			differences = append(differences, Difference{f, b.facts[f], now.facts[f], b.objects[f], now.objects[f]})
		}
	}
	for f := range b.facts {
		add(f)
	}
	for f := range now.facts {
		if _, ok := b.facts[f]; !ok {
			add(f)
		}
	}
	slices.SortFunc(differences, func(a, b Difference) int { return a.compare(b.Fact) })
	return differences
}

// Diff returns the differences as sentences.
func (b Baseline) Diff(now Baseline) []string {
	var sentences []string
	for _, d := range b.Differences(now) {
		sentences = append(sentences, d.String())
	}
	return sentences
}

// baselineFormat is the version of the JSON. What was written in another format is refused: a mesh is put back from it.
const baselineFormat = 4

type baselineJSON struct {
	Format int        `json:"format"`
	Facts  []factJSON `json:"facts"`
	Named  []Named    `json:"named,omitempty"`
}

type factJSON struct {
	Fact
	Is     string                     `json:"is"`
	Object *unstructured.Unstructured `json:"object,omitempty"`
}

// MarshalJSON writes the baseline in the current format.
func (b Baseline) MarshalJSON() ([]byte, error) {
	out := baselineJSON{Format: baselineFormat, Facts: make([]factJSON, 0, len(b.facts)), Named: b.named}
	for f, is := range b.facts {
		out.Facts = append(out.Facts, factJSON{f, is, b.objects[f]})
	}
	slices.SortFunc(out.Facts, func(a, b factJSON) int { return a.compare(b.Fact) })
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote. Another format is an error.
func (b *Baseline) UnmarshalJSON(data []byte) error {
	var in baselineJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("reading a baseline: %w", err)
	}
	if in.Format != baselineFormat {
		return fmt.Errorf("reading a baseline: wanted format %d, seen %d: another version of eastwest wrote it", baselineFormat, in.Format)
	}
	*b = Baseline{facts: map[Fact]string{}, objects: map[Fact]*unstructured.Unstructured{}, named: in.Named}
	for _, f := range in.Facts {
		b.facts[f.Fact] = f.Is
		if f.Object != nil {
			b.objects[f.Fact] = f.Object
		}
	}
	return nil
}
