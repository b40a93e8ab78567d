package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Topology is what was measured of one topology. The JSON names are stable.
type Topology struct {
	Topology        scenario.Kind    `json:"topology"`
	Network         scenario.Network `json:"network"`
	Clusters        []string         `json:"clusters"`
	Istiods         int              `json:"istiods"`          // Deployments of istiod, whatever they serve
	VerifiedSeconds float64          `json:"verified_seconds"` // from nothing until calls between all clusters were proven
	PeakMiB         float64          `json:"peak_mib"`         // of all processes of the lab while it was made
	// Objects is how many objects a person who installs by hand has to write, and to keep right, besides the apps:
	// one IstioOperator per `istioctl install`, one Secret for each cacerts and for each access to another API server,
	// and every object of the files given to `kubectl apply` that is not in the apps' namespace.
	Objects     int      `json:"objects"`
	AwaySeconds float64  `json:"away_seconds"` // how long each part was kept away
	Outages     []Outage `json:"outages"`      // the first takes nothing away: it shows what the rest compares with
}

// Part is what an outage takes away.
type Part string

// The parts of a cluster.
const (
	NothingAway   Part = "nothing"
	IstiodAway    Part = "istiod"         // scaled to none
	APIServerAway Part = "kube-apiserver" // stopped by SIGSTOP
	ClusterAway   Part = "cluster"        // every process of it frozen, pods included
)

// Outage is what was seen while a part was away, and after it came back.
type Outage struct {
	Part     Part            `json:"part"`
	Cluster  string          `json:"cluster,omitempty"` // where; empty for NothingAway
	Calls    []OutageCalls   `json:"calls"`
	Clusters []OutageCluster `json:"clusters"` // those of the mesh
	Recovery RecoverySeconds `json:"recovery_seconds"`
	Again    []OutageCluster `json:"again"` // the same questions, asked from the moment it was let back
	Seconds  float64         `json:"seconds"`
	Errors   []traffic.Count `json:"errors,omitempty"` // why calls were lost
}

// CallClass says where calls go, seen from the cluster that something is taken from.
type CallClass string

// The classes of calls.
const (
	InsideAffected CallClass = "inside"
	InsideOthers   CallClass = "others"
	AcrossBorder   CallClass = "across"
)

// OutageCalls are the calls of one class and one kind of connection that began while the part was away.
type OutageCalls struct {
	Class      CallClass          `json:"class"`
	Connection traffic.Connection `json:"connection"`
	Calls      int                `json:"calls"`
	Lost       int                `json:"lost"`
	NotIssued  int                `json:"not_issued"` // their source did not carry them out; in no other number
	// LongestGapSeconds is the longest time that one direction was without a good answer.
	LongestGapSeconds float64 `json:"longest_gap_seconds"`
}

// OutageCluster is what a cluster of the mesh could still do.
type OutageCluster struct {
	Cluster string  `json:"cluster"`
	Pod     Outcome `json:"new_pod"`       // a new pod with a proxy became Ready
	Config  Outcome `json:"config_change"` // a new VirtualService changed what a call in the cluster is answered
}

// Outcome is the answer to one question.
type Outcome struct {
	Worked  Answered `json:"worked"`
	Seconds float64  `json:"seconds,omitempty"` // until it worked
	Seen    string   `json:"seen,omitempty"`    // last, where it did not
}

// Answered is yes, no, or that nobody could be asked.
type Answered string

// The answers.
const (
	Yes      Answered = "yes"
	No       Answered = "no"
	NotAsked Answered = "n/a"
)

// goodAgain is how many good answers in a row count as working again.
const goodAgain = 10

// RecoverySeconds is how long each thing took to work everywhere, from the moment the part was let back.
type RecoverySeconds struct {
	Calls  float64 `json:"calls"`  // until the first of goodAgain good answers in a row in each direction
	Pod    float64 `json:"pod"`    // until a new pod was Ready in each cluster, its own start included
	Config float64 `json:"config"` // until a config change had arrived in each cluster
	All    float64 `json:"all"`
}

// DefaultAway is how long each part is kept away: several times what a new pod takes on a healthy cluster.
const DefaultAway = 10 * time.Second

const (
	changeWithin  = 90 * time.Second       // taking a part away
	gateWithin    = 30 * time.Second       // good calls before that
	lookEvery     = 100 * time.Millisecond // between two looks
	benchEvery    = 100 * time.Millisecond // between two calls of one direction and kind
	benchBack     = 2 * time.Minute        // how long everything may take to work again
	benchAttempt  = 5 * time.Second        // one request to an API server
	benchLabel    = "eastwest.dev/bench"
	benchAnswer   = 418 // what the VirtualService answers, and nobody else
	proxyInPod    = "istio-proxy"
	benchClient   = "client"
	benchAnswerer = "echo"
)

// MeasureTopology makes a lab of the options' topology, takes away one part after another, and removes the lab, also when it
// fails or ctx ends. A lab of that name must not be there. report is called before each outage and with its result. On an
// error, b holds what was measured so far.
func MeasureTopology(ctx context.Context, o lab.Options, away time.Duration, report func(string)) (b Topology, err error) {
	b = Topology{Topology: o.Topology.Kind, Network: o.Topology.Network, Clusters: o.Topology.Clusters(), AwaySeconds: away.Seconds()}
	_, err = do(ctx, o, func(ctx context.Context, l *lab.Lab, made *making) error {
		b.VerifiedSeconds, b.PeakMiB = made.up.VerifiedSeconds, made.up.PeakMiB
		if b.Objects, err = objectsByHand(made.commands, os.ReadFile); err != nil {
			return err
		}
		if b.Istiods, err = istiods(ctx, l.Mesh); err != nil {
			return err
		}
		release, err := l.Hold(ctx)
		if err != nil {
			return err
		}
		defer release()
		return b.takeAway(ctx, &outages{Lab: l, away: away}, report)
	})
	return b, err
}

// takeAway takes all parts away, one after another.
func (b *Topology) takeAway(ctx context.Context, r *outages, report func(string)) error {
	parts, err := r.parts()
	if err != nil {
		return &lab.SetupError{Err: err}
	}
	for _, p := range parts {
		report(p.String() + " …")
		out, err := r.outage(ctx, p)
		if err != nil {
			if ctx.Err() != nil {
				return &lab.SetupError{Err: context.Cause(ctx)}
			}
			return &lab.SetupError{Err: fmt.Errorf("%s, %s: %w", b.Topology, p, err)}
		}
		b.Outages = append(b.Outages, out)
		report(fmt.Sprintf("%s: everything works again after %.1f s", p, out.Recovery.All))
	}
	return nil
}

func istiods(ctx context.Context, m *mesh.Mesh) (int, error) {
	n := 0
	for _, c := range m.Members {
		list, err := c.Kube.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "app=" + mesh.Istiod})
		if err != nil {
			return 0, fmt.Errorf("counting the istiods of %s: %w", c.Name(), err)
		}
		n += len(list.Items)
	}
	return n, nil
}

// objectsByHand counts what a person writes who types the commands: see Topology.Objects.
func objectsByHand(commands []string, read func(file string) ([]byte, error)) (int, error) {
	n := 0
	for _, command := range commands {
		for line := range strings.Lines(command) {
			switch {
			case strings.HasPrefix(line, "istioctl "), strings.HasPrefix(line, "kubectl create secret "):
				n++
			case strings.HasPrefix(line, "kubectl apply "):
				_, file, _ := strings.Cut(strings.TrimSpace(line), " -f ")
				text, err := read(file)
				if err != nil {
					return 0, fmt.Errorf("counting objects: %w", err)
				}
				more, err := objectsOutside(mesh.AppNamespace, string(text))
				if err != nil {
					return 0, fmt.Errorf("counting the objects of %s: %w", file, err)
				}
				n += more
			}
		}
	}
	return n, nil
}

// objectsOutside counts the YAML documents that neither are the namespace nor are in it.
func objectsOutside(namespace, text string) (int, error) {
	n := 0
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		var head struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			return 0, err
		}
		if head.Kind != "" && cmp.Or(head.Metadata.Namespace, head.Metadata.Name) != namespace {
			n++
		}
	}
	return n, nil
}

// outages takes parts of a lab away.
type outages struct {
	*lab.Lab
	away   time.Duration
	probes int // that were made so far: each needs names of its own
}

// takeable is a part with the way to take it away.
type takeable struct {
	part    Part
	cluster string
	take    func(context.Context) (back func(context.Context) error, err error)
}

func (t takeable) String() string {
	if t.cluster == "" {
		return string(t.part) + " away"
	}
	if t.part == ClusterAway {
		return t.cluster + " away"
	}
	return fmt.Sprintf("%s of %s away", t.part, t.cluster)
}

// parts are all that is taken away, in this order: nothing, each istiod, each API server, each cluster.
func (r *outages) parts() ([]takeable, error) {
	all := []takeable{{part: NothingAway, take: func(context.Context) (func(context.Context) error, error) {
		return func(context.Context) error { return nil }, nil
	}}}
	by := func(p Part, m *mesh.Member, away, back fault.Fault, gone func(context.Context, *mesh.Member) error) error {
		letBack := func(ctx context.Context) error { return back.Inject(ctx, r.Mesh) }
		all = append(all, takeable{p, m.Name(), func(ctx context.Context) (func(context.Context) error, error) {
			err := away.Inject(ctx, r.Mesh)
			if err == nil {
				err = gone(ctx, m)
			}
			if err != nil {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchBack)
				defer cancel()
				return nil, errors.Join(err, letBack(ctx))
			}
			return letBack, nil
		}})
		return away.Available(r.Mesh)
	}
	var problems []error
	for _, m := range r.Mesh.Members {
		if m.Spec.HasIstiod() {
			istiod := observe.Workload{App: mesh.Istiod, Cluster: m.Name()}
			problems = append(problems, by(IstiodAway, m, fault.Scale(0, istiod), fault.Scale(1, istiod), awaitNoIstiod))
		}
	}
	for _, m := range r.Mesh.Members {
		server := string(APIServerAway)
		problems = append(
			problems,
			by(APIServerAway, m, fault.StopComponent(m.Name(), server), fault.ContinueComponent(m.Name(), server), awaitSilence),
		)
	}
	for _, m := range r.Mesh.Members {
		pauser, ok := m.Cluster.(cluster.Pauser)
		if !ok {
			problems = append(problems, fmt.Errorf("the machines below %s are not ours to freeze: use the provider embedded", m.Name()))
			continue
		}
		all = append(all, takeable{ClusterAway, m.Name(), func(ctx context.Context) (func(context.Context) error, error) {
			return pauser.Pause(ctx)
		}})
	}
	return all, errors.Join(problems...)
}

// awaitNoIstiod waits until no pod of istiod is left: one that is being deleted still serves for seconds.
func awaitNoIstiod(ctx context.Context, m *mesh.Member) error {
	return wait.Until(
		ctx,
		"the end of the last istiod in "+m.Name(),
		wait.Options{Within: changeWithin, Every: lookEvery},
		func(ctx context.Context) error {
			pods, err := m.Pods(ctx, mesh.Istiod)
			if err == nil && len(pods) > 0 {
				err = fmt.Errorf("%s is still there", pods[0].Name)
			}
			return err
		},
	)
}

// awaitSilence waits until the API server answers no more. A stopped process goes on until each of its threads has had
// its turn to stop: on a busy machine that is long enough to take an object.
func awaitSilence(ctx context.Context, m *mesh.Member) error {
	return wait.Until(ctx, "the silence of the API server of "+m.Name(), wait.Options{Every: lookEvery}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := m.Kube.CoreV1().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
}

// outage takes one part away for the fixed time, lets it back, and waits until everything works again.
func (r *outages) outage(ctx context.Context, p takeable) (out Outage, err error) {
	out = Outage{Part: p.part, Cluster: p.cluster}
	start := time.Now()
	streams, err := r.startCalls(ctx)
	defer func() {
		for _, s := range streams {
			_, stopped := s.Stop()
			err = errors.Join(err, stopped)
		}
	}()
	if err != nil {
		return out, err
	}
	if _, err := goodCalls(ctx, streams, start, gateWithin); err != nil {
		return out, fmt.Errorf("before it: %w", err)
	}

	from := time.Now()
	taking, cancel := context.WithTimeoutCause(ctx, changeWithin, fmt.Errorf("not done within %s", changeWithin))
	giveBack, err := p.take(taking)
	cancel()
	if err != nil {
		return out, fmt.Errorf("taking it away: %w", err)
	}
	letBack := func() error { // also after an interrupt
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), benchBack, fmt.Errorf("not done within %s", benchBack))
		defer cancel()
		if err := giveBack(ctx); err != nil {
			return fmt.Errorf("letting it back: %w", err)
		}
		return nil
	}
	over := time.NewTimer(r.away)
	defer over.Stop()
	out.Clusters = r.ask(ctx, r.away, p)
	select {
	case <-over.C:
	case <-ctx.Done():
		return out, errors.Join(context.Cause(ctx), letBack())
	}

	back := time.Now()
	var (
		working           sync.WaitGroup
		backErr, callsErr error
		callsAfter        time.Duration
		nothing           takeable // asks every cluster
	)
	working.Go(func() { backErr = letBack() })
	working.Go(func() { callsAfter, callsErr = goodCalls(ctx, streams, back, benchBack) })
	out.Again = r.ask(ctx, benchBack, nothing)
	working.Wait()
	if err := errors.Join(backErr, callsErr, missing(out.Again, fmt.Sprintf("within %s after it was back", benchBack))); err != nil {
		return out, err
	}
	out.Recovery = recovery(callsAfter, out.Again)
	var recordings []directed
	for _, s := range streams {
		recording, err := s.Stop()
		if err != nil {
			return out, err
		}
		recordings = append(recordings, directed{s.from, s.to, s.fresh, recording.Between(from, back)})
	}
	out.Calls, out.Errors = judgeCalls(recordings, p)
	out.Seconds = time.Since(start).Seconds()
	if p.part == NothingAway { // a no later on says something only if this is a yes
		if err := missing(out.Clusters, fmt.Sprintf("within %s, as nothing is away", r.away)); err != nil {
			return out, fmt.Errorf("%w: give the machine less to do, or take parts away for longer", err)
		}
	}
	return out, r.sweep(ctx)
}

// missing returns an error that names everything that did not work, and what was wanted of it.
func missing(clusters []OutageCluster, wanted string) error {
	var problems []error
	for _, c := range clusters {
		for _, question := range []struct {
			what string
			got  Outcome
		}{{"a new pod to become Ready", c.Pod}, {"a config change to arrive", c.Config}} {
			if question.got.Worked != Yes {
				problems = append(problems, fmt.Errorf("%s: wanted %s %s; seen: %s", c.Cluster, question.what, wanted, question.got.Seen))
			}
		}
	}
	return errors.Join(problems...)
}

func recovery(calls time.Duration, clusters []OutageCluster) RecoverySeconds {
	s := RecoverySeconds{Calls: calls.Seconds()}
	for _, c := range clusters {
		s.Pod, s.Config = max(s.Pod, c.Pod.Seconds), max(s.Config, c.Config.Seconds)
	}
	s.All = max(s.Calls, s.Pod, s.Config)
	return s
}

// directed are the calls of one direction and one kind of connection.
type directed struct {
	from, to string
	fresh    bool
	traffic.Window
}

// classOf says what calls mean to somebody who has lost a part of the cluster affected.
func classOf(affected, from, to string) CallClass {
	switch {
	case from != to:
		return AcrossBorder
	case from == affected:
		return InsideAffected
	}
	return InsideOthers
}

// judgeCalls sums up the calls by class and kind, and why calls were lost. Calls from a cluster that is away whole are
// left out: nobody was there to make them.
func judgeCalls(all []directed, p takeable) ([]OutageCalls, []traffic.Count) {
	var sums []OutageCalls
	why := map[string]int{}
	for _, class := range []CallClass{InsideAffected, InsideOthers, AcrossBorder} {
		for _, connection := range []traffic.Connection{traffic.Reused, traffic.Fresh} {
			sum, some := OutageCalls{Class: class, Connection: connection}, false
			for _, d := range all {
				gone := p.part == ClusterAway && d.from == p.cluster
				if gone || d.fresh != (connection == traffic.Fresh) || classOf(p.cluster, d.from, d.to) != class {
					continue
				}
				s := d.Stats()
				some = true
				sum.Calls, sum.Lost, sum.NotIssued = sum.Calls+s.Calls, sum.Lost+s.Lost, sum.NotIssued+s.NotIssued
				sum.LongestGapSeconds = max(sum.LongestGapSeconds, s.LongestGapSeconds)
				for _, e := range s.Errors {
					why[e.Text] += e.Count
				}
			}
			if some {
				sums = append(sums, sum)
			}
		}
	}
	var errs []traffic.Count
	for text, n := range why {
		errs = append(errs, traffic.Count{Text: text, Count: n})
	}
	slices.SortFunc(errs, func(a, b traffic.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return sums, errs
}

// benchStream is a stream with its direction.
type benchStream struct {
	*traffic.Stream
	from, to string
	fresh    bool
}

// startCalls starts calls from each cluster of the mesh to each, on reused and on fresh connections.
func (r *outages) startCalls(ctx context.Context) ([]benchStream, error) {
	var streams []benchStream
	for _, from := range r.Mesh.InMesh() {
		for _, to := range r.Mesh.InMesh() {
			for _, fresh := range []bool{false, true} {
				stream, err := traffic.Start(context.WithoutCancel(ctx), traffic.Plan{
					Name: from.Name() + " to " + to.Name(), From: clientOf(from), URL: mesh.URL(benchAnswerer, to.Name(), fresh),
					ExpectCluster: to.Name(), Every: benchEvery, Fresh: fresh,
				})
				if err != nil {
					return streams, err
				}
				streams = append(streams, benchStream{stream, from.Name(), to.Name(), fresh})
			}
		}
	}
	return streams, nil
}

func clientOf(m *mesh.Member) traffic.Source { return observe.Source(m, benchClient) }

// goodCalls waits until every stream has good answers in a row, and returns how long after since that began.
func goodCalls(ctx context.Context, streams []benchStream, since time.Time, within time.Duration) (time.Duration, error) {
	var longest time.Duration
	err := wait.Until(
		ctx,
		fmt.Sprintf("%d good calls in a row in each direction", goodAgain),
		wait.Options{Within: within, Every: lookEvery},
		func(context.Context) error {
			longest = 0
			for _, s := range streams {
				recording := s.Recording()
				took, ok := recording.TimeToRecover(since, goodAgain)
				if !ok {
					return fmt.Errorf("%s (%s): %s", recording.Stream, recording.URL, verb.DescribeStats(recording.Since(time.Second).Stats()))
				}
				longest = max(longest, took)
			}
			return nil
		},
	)
	return longest, err
}

// ask starts a pod and changes the configuration in every cluster of the mesh and tells what came of it in that time.
// A cluster that is away has nobody who could tell what config its proxies have.
func (r *outages) ask(ctx context.Context, within time.Duration, p takeable) []OutageCluster {
	r.probes++
	probe := fmt.Sprintf("bench-%d", r.probes)
	members := r.Mesh.InMesh()
	all := make([]OutageCluster, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		all[i].Cluster = m.Name()
		asking.Go(func() {
			all[i].Pod = outcome(func() error { return newPod(ctx, m, probe, within) })
		})
		if p.part == ClusterAway && p.cluster == m.Name() {
			all[i].Config.Worked = NotAsked
			continue
		}
		asking.Go(func() {
			all[i].Config = outcome(func() error { return changeConfig(ctx, m, probe, within) })
		})
	}
	asking.Wait()
	return all
}

func outcome(do func() error) Outcome {
	start := time.Now()
	if err := do(); err != nil {
		var late *wait.TimeoutError
		if errors.As(err, &late) {
			err = late.Last
		}
		return Outcome{Worked: No, Seen: words.FirstLine(err.Error())}
	}
	return Outcome{Worked: Yes, Seconds: time.Since(start).Seconds()}
}

// newPod starts a pod like those of the client and waits until it and its proxy are Ready.
func newPod(ctx context.Context, m *mesh.Member, name string, within time.Duration) error {
	pods := m.Kube.CoreV1().Pods(mesh.AppNamespace)
	var made *corev1.Pod
	return wait.Until(ctx, "a new pod in "+m.Name(), wait.Options{Within: within, Every: lookEvery}, func(ctx context.Context) error {
		if made == nil {
			ctx, cancel := context.WithTimeout(ctx, benchAttempt)
			defer cancel()
			like, err := m.Kube.AppsV1().Deployments(mesh.AppNamespace).Get(ctx, benchClient, metav1.GetOptions{})
			if err != nil {
				return err
			}
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Name:        name,
					Labels:      map[string]string{"app": name, benchLabel: name},
					Annotations: like.Spec.Template.Annotations,
				},
				Spec: like.Spec.Template.Spec,
			}
			made, err = pods.Create(ctx, pod, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) { // by an attempt that was given up too early
				made, err = pods.Get(ctx, name, metav1.GetOptions{})
			}
			if err != nil {
				made = nil // the client returns an empty one
				return err
			}
			its := slices.Concat(made.Spec.InitContainers, made.Spec.Containers)
			if !slices.ContainsFunc(its, func(c corev1.Container) bool { return c.Name == proxyInPod }) {
				return wait.Permanent(errors.New("the pod was made without a proxy"))
			}
		}
		_, err := m.ReadyPods(ctx, name)
		return err
	})
}

var virtualServices = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}

// changeConfig creates a VirtualService where the cluster's istiod reads it and waits until a call in the cluster is
// answered as it says: then a proxy has it and goes by it. The host it is about is new and in no DNS, so that nothing
// else is disturbed.
func changeConfig(ctx context.Context, m *mesh.Member, name string, within time.Duration) error {
	host := name + ".eastwest.test"
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
		"metadata": map[string]any{"name": name, "labels": map[string]any{benchLabel: name}},
		"spec": map[string]any{
			"hosts": []any{host},
			"http":  []any{map[string]any{"directResponse": map[string]any{"status": int64(benchAnswer)}}},
		},
	}}
	created := false
	return wait.Until(ctx, "a config change in "+m.Name(), wait.Options{Within: within, Every: lookEvery}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, benchAttempt)
		defer cancel()
		if !created {
			_, err := m.ConfigCluster().Dynamic.Resource(virtualServices).Namespace(mesh.AppNamespace).Create(ctx, object, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) { // clusters can share a config cluster
				return err
			}
			created = true
		}
		call, err := traffic.Once(
			ctx,
			clientOf(m),
			mesh.URL(benchAnswerer, m.Name(), false),
			traffic.Options{Timeout: time.Second, Headers: map[string]string{"Host": host}},
		)
		if err == nil && call.Code != benchAnswer {
			err = fmt.Errorf("the change was taken in %s, and calls are answered as before: %s", m.ConfigCluster().Name(), call)
		}
		return err
	})
}

// sweep deletes what the questions have made.
func (r *outages) sweep(ctx context.Context) error {
	now := int64(0)
	selector := metav1.ListOptions{LabelSelector: benchLabel}
	for _, m := range r.Mesh.InMesh() {
		// An API server that was away may refuse a request or two.
		err := wait.Until(ctx, "the end of the measurement's objects in "+m.Name(), wait.Options{}, func(ctx context.Context) error {
			return errors.Join(
				m.Kube.CoreV1().Pods(mesh.AppNamespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, selector),
				m.ConfigCluster().
					Dynamic.Resource(virtualServices).
					Namespace(mesh.AppNamespace).
					DeleteCollection(ctx, metav1.DeleteOptions{}, selector),
			)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// saysLesson is the lesson's own row for a topology.
type saysLesson struct{ resilience, complexity, bestFor string }

var lesson = map[scenario.Kind]saysLesson{
	scenario.Single:               {"Single cluster SLA", "Low", "Starting point, single region"},
	scenario.PrimaryRemote:        {"Primary istiod is SPOF for remote", "Medium", "Dev/staging remote, tight control plane"},
	scenario.MultiPrimary:         {"Each cluster independently operational", "High", "Multi-region HA, failure isolation"},
	scenario.ExternalControlPlane: {"Dedicated control plane infra", "Very high", "Managed Istio services, large scale"},
}

// BenchedTopologies are those that the lesson compares, in its order.
func BenchedTopologies() []scenario.Kind {
	return []scenario.Kind{scenario.Single, scenario.PrimaryRemote, scenario.MultiPrimary, scenario.ExternalControlPlane}
}

// TopologiesMarkdown is the measurements as two tables: the topologies beside what the lesson says of them, and their
// outages.
func TopologiesMarkdown(all []Topology) string {
	var w strings.Builder
	row := func(cells ...string) { w.WriteString(words.Row(cells...)) }
	row("topology", "istiods", "set-up s", "peak MiB", "objects", "resilience", "complexity", "best for")
	row("---", "---:", "---:", "---:", "---:", "---", "---", "---")
	for _, b := range all {
		says := lesson[b.Topology]
		row(
			string(b.Topology),
			fmt.Sprint(b.Istiods),
			fmt.Sprintf("%.1f", b.VerifiedSeconds),
			fmt.Sprintf("%.0f", b.PeakMiB),
			fmt.Sprint(b.Objects),
			says.resilience,
			says.complexity,
			says.bestFor,
		)
	}
	w.WriteString("\n")
	row("topology", "away", "calls inside it", "calls inside others", "calls across", "new pod", "config change", "works again after s")
	row("---", "---", "---", "---", "---", "---", "---", "---")
	for _, b := range all {
		for _, o := range b.Outages {
			row(string(b.Topology), strings.TrimSuffix(takeable{part: o.Part, cluster: o.Cluster}.String(), " away"),
				o.callsCell(InsideAffected), o.callsCell(InsideOthers), o.callsCell(AcrossBorder),
				clustersCell(o.Clusters, func(c OutageCluster) Answered { return c.Pod.Worked }),
				clustersCell(o.Clusters, func(c OutageCluster) Answered { return c.Config.Worked }),
				fmt.Sprintf("%.1f (calls %.1f, pod %.1f, config %.1f)", o.Recovery.All, o.Recovery.Calls, o.Recovery.Pod, o.Recovery.Config))
		}
	}
	return w.String()
}

// callsCell is "0/100 · 37/98 (9.8 s), 2 not made": lost of all on reused connections, then on fresh ones.
func (o Outage) callsCell(class CallClass) string {
	var kinds []string
	for _, c := range o.Calls {
		if c.Class != class {
			continue
		}
		text := fmt.Sprintf("%d/%d", c.Lost, c.Calls)
		if c.Lost > 0 {
			text += fmt.Sprintf(" (%.1f s)", c.LongestGapSeconds)
		}
		if c.NotIssued > 0 {
			text += fmt.Sprintf(", %d not made", c.NotIssued)
		}
		kinds = append(kinds, text)
	}
	return cmp.Or(strings.Join(kinds, " · "), string(NotAsked))
}

// clustersCell is one word where all clusters agree.
func clustersCell(all []OutageCluster, of func(OutageCluster) Answered) string {
	var each []string
	agree := true
	for _, c := range all {
		each = append(each, c.Cluster+" "+string(of(c)))
		agree = agree && of(c) == of(all[0])
	}
	if agree && len(all) > 0 {
		return string(of(all[0]))
	}
	return strings.Join(each, ", ")
}
