package observe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"istio.io/istio/pkg/test/echo/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/traffic"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Call makes calls now and looks at who answers. A 200 alone would prove nothing: local pods and retries answer, too, if
// no call gets into the other cluster.
type Call struct {
	// Which of its pods calls; the oldest if left out. Old and new pods can have different certificates.
	FromPod Which `yaml:"from-pod" enum:"oldest,newest"`
	// Who is called: echo@cluster-b is that cluster's own instance, echo is the service, balanced over every cluster
	// that has it.
	To Workload `yaml:"to" ref:"app-or-service" required:"true"`
	// How many calls; 5 if left out.
	Count int `yaml:"count" min:"1" max:"100"`
	// How many of them have to go as wanted; all if left out.
	AtLeast int `yaml:"at-least" min:"1" max:"100"`
	// Who answers: nobody else, and each of them at least once. The cluster of to if left out.
	AnsweredBy strict.List[string] `yaml:"answered-by" ref:"cluster"`
	// The caller's SPIFFE identity, as the answering proxy saw it.
	Client *regexp.Regexp `yaml:"client"`
	// The SPIFFE identity of the one who answered.
	Server *regexp.Regexp `yaml:"server"`
	// The answer comes in plain text; otherwise it has to come over mutual TLS.
	Plaintext bool `yaml:"plaintext"`
	// The calls fail, and their error matches: TLS texts move between versions, so match no more of one than you need.
	Fails   *regexp.Regexp `yaml:"fails"`
	From    Workload       `yaml:"-"`
	Reused  bool           `yaml:"-"` // over connections that are kept, not a new one for each call
	Timeout time.Duration  `yaml:"-"` // of each call; 3 s if zero
}

// Validate refuses what contradicts itself.
func (c Call) Validate() error {
	if c.Fails != nil && (len(c.AnsweredBy) > 0 || c.Client != nil || c.Server != nil || c.Plaintext) {
		return strict.At("fails", errors.New("a call that fails is answered by nobody: leave out answered-by, client, server, and plaintext"))
	}
	if c.AtLeast > c.count() {
		return strict.At("at-least", errors.New("more than there are calls"))
	}
	return nil
}

var _ Check = Call{}

// Calls are the same calls from several callers. Each must be as wanted.
type Calls []Call

var _ Check = Calls{}

func (c Calls) String() string {
	from := make([]string, len(c))
	for i, call := range c {
		from[i] = call.caption()
	}
	return c[0].sentence(words.And(from))
}

// Command implements Check.
func (c Calls) Command() string {
	lines := make([]string, len(c))
	for i, call := range c {
		lines[i] = call.Command()
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c Calls) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	seen, errs := make([]string, len(c)), make([]error, len(c))
	var group sync.WaitGroup
	for i, call := range c {
		group.Go(func() {
			seen[i], errs[i] = call.Look(ctx, m)
			if len(c) > 1 {
				seen[i] = call.From.String() + ": " + seen[i]
			}
		})
	}
	group.Wait()
	for i, err := range errs {
		var mismatch *Mismatch
		if errors.As(err, &mismatch) && len(c) > 1 {
			mismatch.Seen = c[i].From.String() + ": " + mismatch.Seen
		}
		if err != nil {
			return strings.Join(seen, "; "), err
		}
	}
	return strings.Join(seen, "; "), nil
}

// defaultCalls is how many calls a Call makes if it does not say.
const defaultCalls = 5

func (c Call) count() int { return cmp.Or(c.Count, defaultCalls) }

func (c Call) target() string {
	if c.To.Cluster == "" {
		return c.To.App
	}
	return c.To.String()
}

func (c Call) clusters() []string {
	if len(c.AnsweredBy) == 0 && c.To.Cluster != "" {
		return []string{c.To.Cluster}
	}
	return c.AnsweredBy
}

func (c Call) url() string { return mesh.URL(c.To.App, c.To.Cluster, !c.Reused) }

// subject returns the beginning of a sentence about the calls, and whether it is in the singular.
func (c Call) subject() (text string, one bool) {
	if c.AtLeast > 0 && c.AtLeast < c.count() {
		return fmt.Sprintf("at least %d of %s", c.AtLeast, words.Plural(c.count(), "call")), c.AtLeast == 1
	}
	return words.Plural(c.count(), "call"), c.count() == 1
}

// predicate returns the rest of the sentence, with the given forms of the two verbs: be is "are", "is" or "to be", fail is
// "fail", "fails" or "to fail".
func (c Call) predicate(be, fail string) string {
	if c.Fails != nil {
		return fail + " with a text like " + quoted(c.Fails)
	}
	text := be + " answered"
	if by := c.clusters(); len(by) > 0 {
		text += " by " + words.And(by)
	}
	if c.Plaintext {
		text += " in plain text"
	} else {
		text += " over mutual TLS"
	}
	if c.Client != nil {
		text += ", the client known as " + quoted(c.Client)
	}
	if c.Server != nil {
		text += ", the server known as " + quoted(c.Server)
	}
	return text
}

// wanted completes "wanted …": "5 calls to echo@cluster-b to be answered by cluster-b over mutual TLS".
func (c Call) wanted() string {
	subject, _ := c.subject()
	return fmt.Sprintf("%s to %s %s", subject, c.target(), c.predicate("to be", "to fail"))
}

func (c Call) String() string { return c.sentence(c.caption()) }

// caption names the caller.
func (c Call) caption() string {
	if c.FromPod == Newest {
		return c.FromPod.of(c.From.String())
	}
	return c.From.String()
}

func (c Call) sentence(from string) string {
	kind := "fresh"
	if c.Reused {
		kind = "reused"
	}
	subject, one := c.subject()
	predicate := c.predicate("are", "fail")
	if one {
		predicate = c.predicate("is", "fails")
	}
	return fmt.Sprintf("%s %s, from %s to %s, on %s connections", subject, predicate, from, c.target(), kind)
}

// Command implements Check. The echo image has its own client in place of curl.
func (c Call) Command() string {
	object := c.From.object()
	return fmt.Sprintf("kubectl --context=%s exec -n %s %s -c app -- client --count %d %s",
		c.From.Cluster, mesh.NamespaceOf(c.From.App), object, c.count(), c.url())
}

// Look implements Check.
func (c Call) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	calls, err := c.make(ctx, m)
	if err != nil {
		return "", err
	}
	return c.judge(calls)
}

// make makes the calls and adds to each failure what the caller's proxy has logged: the error's own text does not say why
// a TLS handshake failed, the access log does.
func (c Call) make(ctx context.Context, m *mesh.Mesh) ([]traffic.Call, error) {
	member, pod, err := c.caller(ctx, m)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		return nil, fmt.Errorf("reading the address of pod %s in %s: %w", pod.Name, c.From.Cluster, err)
	}
	from := traffic.FromDialer(c.From.String(), func(ctx context.Context) (net.Conn, error) {
		return member.Dial(ctx, netip.AddrPortFrom(addr, mesh.OrderPort))
	})
	id := "eastwest-" + strings.ToLower(rand.Text())
	calls, err := traffic.Many(ctx, from, c.url(), c.count(), traffic.Options{
		Fresh: !c.Reused, Timeout: c.Timeout, Headers: map[string]string{"X-Request-Id": id},
	})
	if err != nil {
		return nil, err
	}
	failed := 0
	for _, call := range calls {
		if call.Code >= 500 {
			failed++
		}
	}
	if failed == 0 {
		return calls, nil
	}
	reasons := c.reasons(ctx, member, pod, id, failed)
	for i := range calls {
		if calls[i].Code >= 500 && len(reasons) > 0 {
			calls[i].Err += " [" + reasons[0] + "]"
			reasons = reasons[1:]
		}
	}
	return calls, nil
}

// reasons returns why calls with this id failed, by the access log of the caller's proxy. There may be fewer reasons than
// wanted: not every mesh writes such a log.
func (c Call) reasons(ctx context.Context, member *mesh.Member, pod *corev1.Pod, id string, wanted int) []string {
	var reasons []string
	_ = wait.Until(ctx, "the access log", wait.Options{Within: flushed, Every: 100 * time.Millisecond}, func(ctx context.Context) error {
		text, err := podLog(ctx, member, pod, ProxyContainer, 2*flushed+c.Timeout, false)
		if err != nil {
			return wait.Permanent(err)
		}
		reasons = reasons[:0]
		for line := range strings.Lines(text) {
			if strings.Contains(line, id) {
				reasons = append(reasons, failure(line))
			}
		}
		if len(reasons) < wanted {
			return fmt.Errorf("%d lines of %d", len(reasons), wanted)
		}
		return nil
	}) // too few are better than none
	return slices.DeleteFunc(reasons, func(r string) bool { return r == "" })
}

// accessLine finds status, response flags, details, termination and the transport's reason, in the order of Istio's own
// access log format, with which the lab's begins.
var accessLine = regexp.MustCompile(`" (\d+) (\S+) (\S+) (\S+) "([^"]*)"`)

// failure returns why a request failed, by its line in the access log: "UF,URX TLS_error:…". It is empty if the request
// did not fail.
func failure(line string) string {
	m := accessLine.FindStringSubmatch(line)
	if m == nil || m[2] == "-" {
		return ""
	}
	if m[5] != "-" && m[5] != "" {
		return m[2] + " " + m[5]
	}
	return m[2] + " " + m[3]
}

func (c Call) caller(ctx context.Context, m *mesh.Mesh) (*mesh.Member, *corev1.Pod, error) {
	member, pods, err := cmp.Or(c.FromPod, Oldest).pods(ctx, m, c.From)
	if err != nil {
		return nil, nil, err
	}
	return member, pods[0], nil
}

// judge compares calls with what is wanted.
func (c Call) judge(calls []traffic.Call) (string, error) {
	good := 0
	answered := map[string]int{}
	for _, call := range calls {
		if c.good(call) {
			good++
		}
		if call.Code == 200 {
			answered[call.Cluster]++
		}
	}
	seen := summary(calls)
	need := c.count()
	if c.AtLeast > 0 {
		need = c.AtLeast
	}
	ok := good >= need
	if c.Fails == nil {
		for _, by := range c.clusters() {
			ok = ok && answered[by] > 0
		}
	}
	if !ok {
		return seen, &Mismatch{Wanted: c.wanted(), Seen: seen, Try: tryAfter(calls)}
	}
	return seen, nil
}

func (c Call) good(call traffic.Call) bool {
	if c.Fails != nil {
		return call.Err != "" && c.Fails.MatchString(call.Err)
	}
	mutual := call.ClientID != "" && call.ServerID != ""
	by := c.clusters()
	return call.Code == 200 && mutual != c.Plaintext &&
		(len(by) == 0 || slices.Contains(by, call.Cluster)) &&
		(c.Client == nil || c.Client.MatchString(call.ClientID)) &&
		(c.Server == nil || c.Server.MatchString(call.ServerID))
}

// summary describes the results of calls, equal ones once with their number.
func summary(calls []traffic.Call) string {
	times := map[string]int{}
	for _, call := range calls {
		what := call.Err
		if call.Code == 200 {
			what = fmt.Sprintf("200 from %s in %s", cmp.Or(call.Pod, "an unknown pod"), cmp.Or(call.Cluster, "an unknown cluster"))
			if call.ClientID != "" {
				what += fmt.Sprintf(" (client %s, server %s)", call.ClientID, call.ServerID)
			} else {
				what += " (no mutual TLS)"
			}
			if call.Attempts > 1 {
				what += fmt.Sprintf(" at try %d", call.Attempts)
			}
		}
		times[what]++
	}
	texts := slices.SortedFunc(maps.Keys(times), func(a, b string) int { return cmp.Or(times[b]-times[a], strings.Compare(a, b)) })
	for i, t := range texts {
		texts[i] = fmt.Sprintf("%d × %s", times[t], words.Short(t, 400))
	}
	return strings.Join(texts, "; ")
}

// tryAfter says where to look next, by the errors of the calls.
func tryAfter(calls []traffic.Call) string {
	for _, call := range calls {
		switch {
		case strings.Contains(call.Err, "CERTIFICATE_VERIFY_FAILED"):
			return "the caller's proxy does not accept the other side's certificate: compare the roots in use on both sides"
		case strings.Contains(call.Err, "UNKNOWN_CA"):
			return "the other side does not accept the caller's certificate: compare the roots in use on both sides"
		case strings.Contains(call.Err, "no healthy upstream"):
			return "the caller's proxy knows no endpoint: look at the remote secret, and at the endpoints that the proxy sees"
		case strings.Contains(call.Err, "no answer within"), strings.Contains(call.Err, "connection timeout"):
			return "packets get lost: look at the network between the clusters and at port 15443 of the gateway"
		}
	}
	return ""
}

// DNS checks that a name resolves inside a pod, to the address of the Service in the pod's own cluster.
type DNS struct {
	// Whose pod looks the name up.
	From Workload `yaml:"from" ref:"app" required:"true"`
	// The full host name, like echo.production.svc.cluster.local.
	Name string `yaml:"name" required:"true"`
	// It does not resolve.
	Fails bool `yaml:"fails"`
}

var _ Check = DNS{}

func (c DNS) String() string {
	if c.Fails {
		return fmt.Sprintf("%s does not resolve in %s", c.Name, c.From)
	}
	return fmt.Sprintf("%s resolves in %s to the address of its Service", c.Name, c.From)
}

// Command implements Check.
func (c DNS) Command() string {
	return fmt.Sprintf("kubectl --context=%s exec -n %s %s -c app -- client dns://%s",
		c.From.Cluster, mesh.NamespaceOf(c.From.App), c.From.object(), c.Name)
}

// Look implements Check.
func (c DNS) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.From.Cluster)
	if err != nil {
		return "", err
	}
	addresses, problem, err := resolve(ctx, member, c.From.App, c.Name)
	if err != nil {
		return "", err
	}
	seen := c.Name + " is " + words.And(addresses)
	if problem != "" {
		seen = words.Short(problem, 200)
	}
	if c.Fails {
		if problem == "" {
			return seen, &Mismatch{Wanted: c.Name + " not to resolve in " + c.From.String(), Seen: seen}
		}
		return seen, nil
	}
	if problem != "" {
		return seen, &Mismatch{Wanted: c.Name + " to resolve in " + c.From.String(), Seen: seen,
			Try: "cluster DNS knows only Services of its own cluster: the namespace and the Service have to exist where the caller is"}
	}
	parts := strings.Split(c.Name, ".")
	if len(parts) < 3 || parts[2] != "svc" {
		return seen, nil
	}
	service, err := member.Kube.CoreV1().Services(parts[1]).Get(ctx, parts[0], metav1.GetOptions{})
	if err != nil {
		return seen, fmt.Errorf("reading Service %s of %s in %s: %w", parts[0], parts[1], c.From.Cluster, err)
	}
	if service.Spec.ClusterIP != "None" && !slices.Contains(addresses, service.Spec.ClusterIP) {
		return seen, &Mismatch{Wanted: fmt.Sprintf("%s, the address of the Service in %s", service.Spec.ClusterIP, c.From.Cluster), Seen: seen}
	}
	return seen + ", the Service's address in " + c.From.Cluster, nil
}

// resolve makes the app look a name up inside its pod. problem is the resolver's error.
func resolve(ctx context.Context, member *mesh.Member, app, host string) (addresses []string, problem string, err error) {
	conn, err := grpc.NewClient("passthrough:///"+app,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return member.DialPod(ctx, app, mesh.OrderPort) }))
	if err != nil {
		return nil, "", fmt.Errorf("connecting to %s in %s: %w", app, member.Name(), err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	ctx, cancel := wait.Timeout(ctx, 10*time.Second)
	defer cancel()
	timeout := wait.Bound(5 * time.Second)
	order := &proto.ForwardEchoRequest{Count: 1, Url: "dns://" + host + "?query=A", TimeoutMicros: timeout.Microseconds()}
	res, err := proto.NewEchoTestServiceClient(conn).ForwardEcho(ctx, order)
	if err != nil {
		if at := strings.Index(err.Error(), "lookup "); at >= 0 {
			return nil, err.Error()[at:], nil
		}
		return nil, "", fmt.Errorf("resolving %s from %s in %s: %w", host, app, member.Name(), err)
	}
	for _, m := range dnsAnswer.FindAllStringSubmatch(strings.Join(res.Output, "\n"), -1) {
		addresses = append(addresses, m[1])
	}
	if len(addresses) == 0 {
		return nil, "the lookup came back without an address", nil
	}
	return addresses, "", nil
}

var dnsAnswer = regexp.MustCompile(`Response\d+=(\S+)`)
