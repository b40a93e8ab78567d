package gather

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// caLines match the lines of istiod's log about its CA.
var caLines = regexp.MustCompile(strings.Join([]string{
	`Use self-signed certificate`,
	`Use local CA certificate`,
	`Failed to update new Plug-in CA certs`,
	`Multi root is disabled`,
	`Updating new ROOT-CA not supported`,
	`failed to create (an istiod CA|CA KeyCertBundle|discovery service)`,
	`ignoring cluster as it would overwrite`,
	`client claims to be in cluster`,
	`signing certificate has expired`,
	`istio-ca-root-cert.*(denied|forbidden)`,
	`x509: certificate has expired or is not yet valid`,
}, "|"))

// watchError matches what istiod logs when a list or a watch of a cluster fails (informermetric.ErrorHandlerForCluster).
var watchError = regexp.MustCompile(`^(\S+)\s+error\s+watch error in cluster (\S+): (.*)$`)

const (
	mostLines    = 12               // kept of each istiod's log
	watchesSince = 10 * time.Minute // how far back failed watches count
	// unknownKind is the error for a kind that the cluster does not have, which is no failure to read it.
	unknownKind = "the server could not find the requested resource"
)

// readIstiod reads the logs of all istiods and, of each revision, the pages of the newest one that is Ready: every revision serves
// proxies of its own. If none is Ready, that is a finding and not an error.
func (r *reader) readIstiod(ctx context.Context) error {
	var errs []error
	for i, p := range r.istiods {
		if err := r.readLog(ctx, p, &r.cluster.Istiods[i]); err != nil && mesh.Ready(p) {
			errs = append(errs, fmt.Errorf("reading the log of %s: %w", p.Name, err))
		}
	}
	read := map[string]bool{}
	var all sync.WaitGroup
	var mu sync.Mutex
	for i, p := range slices.Backward(r.istiods) {
		revision := cmp.Or(p.Labels[facts.RevisionLabel], facts.DefaultRevision)
		if read[revision] || !mesh.Ready(p) {
			continue
		}
		read[revision] = true
		all.Go(func() {
			err := r.readPages(ctx, p, &r.cluster.Istiods[i])
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	for _, i := range slices.Backward(r.cluster.Istiods) {
		if i.Read {
			r.cluster.Settings = i.Settings
			break
		}
	}
	return errors.Join(errs...)
}

// readLog reads the end of an istiod's log and, if the pod is not Ready, the log of the container that crashed before.
func (r *reader) readLog(ctx context.Context, p *corev1.Pod, i *facts.Istiod) error {
	tail, most := int64(3000), int64(1<<20)
	var lines []string
	read := func(previous bool) error {
		options := &corev1.PodLogOptions{Container: discoveryContainer, TailLines: &tail, LimitBytes: &most, Previous: previous}
		stream, err := r.kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, options).Stream(ctx)
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // it was only read
		scanner := bufio.NewScanner(stream)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			line := scanner.Text()
			if caLines.MatchString(line) {
				lines = append(lines, words.Short(line, 300))
			}
			readWatch(i, line, r.facts.Taken)
		}
		return scanner.Err()
	}
	if !mesh.Ready(p) {
		_ = read(true) // there may be none
	}
	err := read(false)
	i.Lines = lines[max(len(lines)-mostLines, 0):]
	return err
}

// readWatch notes a line of istiod's log if it is about a list or a watch that failed.
func readWatch(i *facts.Istiod, line string, now time.Time) {
	m := watchError.FindStringSubmatch(line)
	if m == nil || strings.Contains(m[3], unknownKind) {
		return
	}
	at, err := time.Parse(time.RFC3339Nano, m[1])
	if err != nil || now.Sub(at) > watchesSince {
		return
	}
	w := i.Watches[m[2]]
	if w.First.IsZero() {
		w.First = at
	}
	w.Last, w.Why = at, words.Short(m[3], 300)
	if i.Watches == nil {
		i.Watches = map[string]facts.Watch{}
	}
	i.Watches[m[2]] = w
}

// readPages reads the debug pages of an istiod, all at once.
func (r *reader) readPages(ctx context.Context, p *corev1.Pod, i *facts.Istiod) error {
	pages := []struct {
		path string
		read func(page []byte) error
	}{
		{"/debug/mesh", func(page []byte) (err error) {
			i.Settings, _, err = r.parseSettings(page)
			return err
		}},
		{"/debug/clusterz", func(page []byte) error {
			var known []struct{ ID, SyncStatus string }
			err := json.Unmarshal(page, &known)
			i.Clusters = map[string]string{}
			for _, k := range known {
				i.Clusters[k.ID] = k.SyncStatus
			}
			return err
		}},
		{"/debug/syncz", func(page []byte) error {
			synced, err := observe.ParseSync(page)
			i.Serves = map[string]int{}
			for _, s := range synced {
				i.Serves[s.Cluster]++
				if s.Problem != "" && len(i.Behind) < mostLines {
					i.Behind = append(i.Behind, s.Proxy+": "+s.Problem)
				}
			}
			return err
		}},
		{"/debug/networkz", func(page []byte) (err error) {
			i.Networks, err = parseNetworks(page)
			return err
		}},
		{"/metrics", func(page []byte) error {
			i.Errors = map[string]int{}
			for _, m := range syncErrors.FindAllSubmatch(page, -1) {
				i.Errors[string(m[1])], _ = strconv.Atoi(string(m[2])) // the pattern matches digits only
			}
			return nil
		}},
	}
	var all sync.WaitGroup
	errs := make([]error, len(pages)+1)
	for n, one := range pages {
		all.Go(func() {
			page, err := r.page(ctx, p, mesh.IstiodDebugPort, one.path)
			if err == nil {
				err = one.read(page)
			}
			errs[n] = err
		})
	}
	all.Go(func() { errs[len(pages)] = r.readEndpoints(ctx, p, i) })
	all.Wait()
	err := errors.Join(errs...)
	i.Read = err == nil
	return err
}

// syncErrors matches istiod's counters of lists and watches that failed.
var syncErrors = regexp.MustCompile(`(?m)^controller_sync_errors_total\{cluster="([^"]*)"\} (\d+)$`)

// parseNetworks reads istiod's page /debug/networkz. It is empty without any gateway.
func parseNetworks(page []byte) ([]facts.NetworkGateway, error) {
	if len(page) == 0 {
		return nil, nil
	}
	var gateways []struct { // Istio's own names: model.NetworkGateway has no JSON tags
		Network, Cluster, Addr string
		Port                   int
	}
	if err := json.Unmarshal(page, &gateways); err != nil {
		return nil, fmt.Errorf("reading istiod's networks: %w", err)
	}
	all := make([]facts.NetworkGateway, len(gateways))
	for i, g := range gateways {
		all[i] = facts.NetworkGateway{Network: g.Network, Cluster: g.Cluster, Addr: g.Addr, Port: g.Port}
	}
	return all, nil
}

func (r *reader) readEndpoints(ctx context.Context, p *corev1.Pod, i *facts.Istiod) error {
	ctx, cancel := context.WithTimeout(ctx, 2*oneWithin())
	defer cancel()
	page, err := r.open(ctx, p, mesh.IstiodDebugPort, "/debug/endpointShardz")
	if err != nil {
		return err
	}
	defer page.Close() //nolint:errcheck // it was only read
	i.Endpoints, i.Placed, err = countEndpoints(page)
	return err
}

// countEndpoints reads istiod's page /debug/endpointShardz service by service and keeps only numbers: endpoints by service and
// cluster, and endpoints with a proxy by cluster and network.
func countEndpoints(page io.Reader) (counts, placed map[string]map[string]int, err error) {
	d := json.NewDecoder(page)
	if _, err := d.Token(); err != nil {
		return nil, nil, fmt.Errorf("reading istiod's endpoints: %w", err)
	}
	counts, placed = map[string]map[string]int{}, map[string]map[string]int{}
	for d.More() {
		host, err := d.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("reading istiod's endpoints: %w", err)
		}
		var byNamespace map[string]struct {
			Shards map[string][]struct{ Network, TLSMode string }
		}
		if err := d.Decode(&byNamespace); err != nil {
			return nil, nil, fmt.Errorf("reading istiod's endpoints of %v: %w", host, err)
		}
		for namespace, service := range byNamespace {
			key := fmt.Sprintf("%s/%v", namespace, host)
			counts[key] = map[string]int{}
			for shard, endpoints := range service.Shards { // such as Kubernetes/cluster-a
				cluster := shard[strings.LastIndexByte(shard, '/')+1:]
				counts[key][cluster] += len(endpoints)
				for _, e := range endpoints {
					if placed[cluster] == nil {
						placed[cluster] = map[string]int{}
					}
					if e.TLSMode == "istio" { // an endpoint without a proxy is never behind a gateway
						placed[cluster][e.Network]++
					}
				}
			}
		}
	}
	return counts, placed, nil
}

// readSigners reads the certificate of each istiod, which its own CA has signed.
func (r *reader) readSigners(ctx context.Context) error {
	errs := make([]error, len(r.istiods))
	var all sync.WaitGroup
	for i, p := range r.istiods {
		if !mesh.Ready(p) {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, oneWithin())
			defer cancel()
			conn, err := r.pages.Dial(ctx, p, observe.IstiodPort)
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close() //nolint:errcheck // it was only read
			chain, err := observe.PeerChain(ctx, conn)
			if err != nil {
				errs[i] = fmt.Errorf("reading the certificate of %s: %w", p.Name, err)
				return
			}
			r.cluster.Istiods[i].Signer = r.add(chain)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
