package mesh

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"istio.io/istio/pkg/test/echo/proto"

	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Answer is the answer to one call between two clusters of the mesh.
type Answer struct {
	From, To string        // clusters
	URL      string        // what was called
	Pod      string        // the pod that answered
	Cluster  string        // the cluster that the pod says it is in
	Client   string        // SPIFFE identity of the caller, as the answering proxy saw it
	Server   string        // SPIFFE identity of the pod that answered
	Took     time.Duration // duration of the call that succeeded
}

// Verify proves that the mesh works. The client of each cluster calls the echo app of each cluster that trusts it, on a
// new connection. The answer must come from that cluster, and both sides must have shown a certificate. Verify repeats
// failed calls for up to 30 s and returns one answer per pair of clusters.
func (m *Mesh) Verify(ctx context.Context) ([]Answer, error) {
	callers := m.InMesh()
	answers := make([][]Answer, len(callers))
	group, ctx := errgroup.WithContext(ctx)
	for i, from := range callers {
		to := slices.DeleteFunc(m.InMesh(), func(to *Member) bool { return !m.Trusts(from.Spec, to.Spec) })
		group.Go(func() (err error) {
			answers[i], err = from.verify(ctx, to)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(answers...), err
}

// verify makes the calls from one cluster.
func (m *Member) verify(ctx context.Context, others []*Member) ([]Answer, error) {
	conn, err := grpc.NewClient("passthrough:///client."+m.Name(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.DialPod(ctx, "client", OrderPort) }))
	if err != nil {
		return nil, fmt.Errorf("connecting to the client in %s: %w", m.Name(), err)
	}
	defer conn.Close() //nolint:errcheck // nothing depends on it
	client := proto.NewEchoTestServiceClient(conn)
	answers := make([]Answer, len(others))
	group, ctx := errgroup.WithContext(ctx)
	for i, to := range others {
		group.Go(func() error {
			what := fmt.Sprintf("an answer from %s to %s over mutual TLS", to.Name(), m.Name())
			return wait.Until(ctx, what, wait.Options{Every: 20 * time.Millisecond}, func(ctx context.Context) error {
				a := Answer{From: m.Name(), To: to.Name(), URL: URL("echo", to.Name(), true)}
				start := time.Now()
				err := a.ask(ctx, client)
				a.Took = time.Since(start)
				answers[i] = a
				return err
			})
		})
	}
	return answers, group.Wait()
}

func (a *Answer) ask(ctx context.Context, client proto.EchoTestServiceClient) error {
	res, err := client.ForwardEcho(ctx, &proto.ForwardEchoRequest{
		Count: 1, Url: a.URL, TimeoutMicros: (2 * time.Second).Microseconds(), NewConnectionPerRequest: true,
	})
	if err != nil {
		return err
	}
	fields := echoFields(strings.Join(res.Output, "\n"))
	a.Pod, a.Cluster = fields["Hostname"], fields["Cluster"]
	if code := fields["StatusCode"]; code != "200" {
		return fmt.Errorf("%s: status %s: %s", a.URL, code, strings.TrimSpace(fields[""]))
	}
	if a.Cluster != a.To {
		return fmt.Errorf("%s: wanted an answer from %s, got one from %s", a.URL, a.To, a.Cluster)
	}
	a.Server, a.Client = identities(fields["X-Forwarded-Client-Cert"])
	if a.Client == "" || a.Server == "" {
		return fmt.Errorf("%s: answered, but not over mutual TLS: X-Forwarded-Client-Cert is %q", a.URL, fields["X-Forwarded-Client-Cert"])
	}
	return nil
}

var echoLine = regexp.MustCompile(`(?m)^\[\d+(?: body)?\] (?:RequestHeader=([^:=]+):|([A-Za-z]+)=)?(.*)$`)

// echoFields reads what the echo app prints about a call: one "[0 body] Name=value" per line. Other lines, such as
// Envoy's reason for a 503, are stored under the empty name.
func echoFields(output string) map[string]string {
	fields := map[string]string{}
	for _, m := range echoLine.FindAllStringSubmatch(output, -1) {
		if name := m[1] + m[2]; name != "" {
			fields[name] = m[3]
		} else {
			fields[""] += m[3] + "\n"
		}
	}
	return fields
}

// identities reads X-Forwarded-Client-Cert, in which Envoy tells the app who called. The last element is the caller that
// this proxy itself has seen.
func identities(header string) (by, uri string) {
	for _, part := range strings.Split(header[strings.LastIndexByte(header, ',')+1:], ";") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "By":
			by = value
		case "URI":
			uri = value
		}
	}
	return by, uri
}
