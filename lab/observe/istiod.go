package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Absent is the state of a cluster that istiod does not know.
const Absent = "absent"

// RemoteClusters checks which clusters an istiod reads, and in which state it lists them. The state "synced" is final:
// istiod keeps it, whatever happens to the remote API server or the credentials.
type RemoteClusters struct {
	// Whose istiod.
	In string `yaml:"in" ref:"cluster" required:"true"`
	// What it says of each cluster, by the id under which it knows it. absent: it does not list it.
	Expect map[string]string `yaml:"expect" enum:"synced,syncing,timeout,closed,absent" required:"true"`
	// Which of several istiods, by its revision; default is the one that was installed without a revision.
	Revision string `yaml:"revision"`
}

var _ Check = RemoteClusters{}

func (c RemoteClusters) wanted() string {
	var states []string
	for _, name := range slices.Sorted(maps.Keys(c.Expect)) {
		states = append(states, name+" "+c.Expect[name])
	}
	return words.And(states)
}

func (c RemoteClusters) String() string {
	return fmt.Sprintf("%s lists %s", c.who(), c.wanted())
}

func (c RemoteClusters) who() string {
	if c.Revision == "" {
		return "istiod of " + c.In
	}
	return "istiod of revision " + c.Revision + " in " + c.In
}

// Command implements Check.
func (c RemoteClusters) Command() string {
	command := "istioctl remote-clusters --context=" + c.In
	if c.Revision != "" {
		command += " --revision=" + c.Revision
	}
	return command
}

// Look implements Check. It reads the page that istioctl reads.
func (c RemoteClusters) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	known, err := member.Remotes(ctx, c.Revision)
	if err != nil {
		return "", err
	}
	states := map[string]string{}
	var texts []string
	for _, k := range known {
		states[k.ID] = k.SyncStatus
		texts = append(texts, k.String())
	}
	seen := c.who() + " lists " + words.And(texts)
	for name, want := range c.Expect {
		state, ok := states[name]
		if !ok {
			state = Absent
		}
		if state != want {
			return seen, &Mismatch{Wanted: c.wanted(), Seen: seen,
				Try: fmt.Sprintf("kubectl --context=%s get secrets -n %s -l istio/multiCluster=true", c.In, mesh.SystemNamespace)}
		}
	}
	return seen, nil
}

// ProxyStatus checks that all proxies of a cluster have what its istiod has sent. It does not check trust between proxies.
type ProxyStatus struct {
	// Which cluster's proxies.
	In string `yaml:"in" ref:"cluster" required:"true"`
}

var _ Check = ProxyStatus{}

func (c ProxyStatus) String() string {
	return "all proxies of " + c.In + " are in sync with their istiod"
}

// Command implements Check.
func (c ProxyStatus) Command() string { return "istioctl proxy-status --context=" + c.In }

// Look implements Check.
func (c ProxyStatus) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.In)
	if err != nil {
		return "", err
	}
	primary, err := m.Member(member.Spec.Primary)
	if err != nil {
		return "", err
	}
	serving, err := Serving(ctx, primary)
	if err != nil {
		return "", err
	}
	pods, err := proxyPods(ctx, member)
	if err != nil {
		return "", err
	}
	good := 0
	var bad []string
	for _, p := range pods {
		if !mesh.Ready(p.Pod) {
			continue
		}
		switch s, ok := serving[p.Name+"."+p.Namespace]; {
		case !ok:
			bad = append(bad, p.Name+" is not connected")
		case s.Problem != "":
			bad = append(bad, p.Name+": "+s.Problem)
		default:
			good++
		}
	}
	seen := fmt.Sprintf("%d in sync", good)
	if len(bad) > 0 || good == 0 {
		seen = strings.Join(append([]string{seen}, bad...), "; ")
		return seen, &Mismatch{Wanted: "all proxies of " + c.In + " in sync", Seen: seen, Try: c.Command()}
	}
	return seen, nil
}

// InSync returns nil if all proxies of the mesh have what their istiods have sent. A proxy that has lost its istiod tries
// again after pauses of up to half a minute, and does not know new pods until then.
func InSync(ctx context.Context, m *mesh.Mesh) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, member := range m.InMesh() {
		group.Go(func() error {
			_, err := ProxyStatus{In: member.Name()}.Look(ctx, m)
			return err
		})
	}
	return group.Wait()
}

// Synced is a proxy that is connected to an istiod.
type Synced struct {
	Proxy, Cluster, Version string // POD.NAMESPACE, the cluster's id, Istio's version
	Problem                 string // why it does not have what istiod has sent; empty if it has
}

// ParseSync reads istiod's page /debug/syncz.
func ParseSync(page []byte) ([]Synced, error) {
	var proxies []struct {
		Proxy     string `json:"proxy"`
		Cluster   string `json:"cluster_id"`
		Version   string `json:"istio_version"`
		Resources map[string]struct {
			Sent, Acked, LastError string
		} `json:"resources"`
	}
	if err := json.Unmarshal(page, &proxies); err != nil {
		return nil, fmt.Errorf("reading istiod's proxies: %w", err)
	}
	synced := make([]Synced, len(proxies))
	for i, p := range proxies {
		synced[i] = Synced{Proxy: p.Proxy, Cluster: p.Cluster, Version: p.Version}
		state := &synced[i].Problem
		for _, kind := range slices.Sorted(maps.Keys(p.Resources)) {
			r := p.Resources[kind]
			what := kind[strings.LastIndexByte(kind, '.')+1:]
			switch {
			case r.LastError != "":
				*state = what + " refused: " + words.Short(r.LastError, 200)
			case r.Sent != r.Acked && *state == "":
				*state = what + " not acknowledged"
			}
		}
	}
	return synced, nil
}
