package observe

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Log checks that the log of a workload's pods has a line that matches, or has none.
type Log struct {
	// Whose log: an app like client@cluster-a, istiod@cluster-a, or istio-eastwestgateway@cluster-a.
	Of Workload `yaml:"of" ref:"workload" required:"true"`
	// Which container: istiod's own, and the proxy of everything else, if left out; app is the app itself.
	Container string `yaml:"container"`
	// What the line says.
	Matches *regexp.Regexp `yaml:"matches" required:"true"`
	// There is no such line.
	Absent bool `yaml:"absent"`
	// Only lines that are no older; all since the scenario began if left out.
	Since time.Duration `yaml:"since"`
	From  time.Time     `yaml:"-"` // nothing from before: a pod may be older than what is asked about
}

var _ Check = Log{}

func (c Log) container() string {
	if c.Of.App == mesh.Istiod {
		return cmp.Or(c.Container, "discovery")
	}
	return cmp.Or(c.Container, ProxyContainer)
}

func (c Log) String() string {
	has := "has"
	if c.Absent {
		has = "does not have"
	}
	text := fmt.Sprintf("the log of %s %s a line like %s", c.Of, has, quoted(c.Matches))
	if c.Since > 0 {
		text += " in the last " + words.Duration(c.Since)
	}
	return text
}

// Command implements Check.
func (c Log) Command() string {
	text := fmt.Sprintf("kubectl --context=%s logs -n %s -l app=%s -c %s --tail=-1",
		c.Of.Cluster, mesh.NamespaceOf(c.Of.App), c.Of.App, c.container())
	if c.Since > 0 {
		text += " --since=" + c.Since.String()
	}
	return text + " | " + grep(c.Matches)
}

// Look implements Check.
func (c Log) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	member, err := m.Member(c.Of.Cluster)
	if err != nil {
		return "", err
	}
	pods, err := member.Pods(ctx, c.Of.App) // also pods that are not Ready: the log says why
	if err != nil {
		return "", err
	}
	if age := time.Since(c.From); !c.From.IsZero() && (c.Since == 0 || c.Since > age) {
		c.Since = age
	}
	lines, last := 0, ""
	for _, p := range pods {
		text, err := c.text(ctx, member, p)
		if err != nil {
			return "", err
		}
		if n, latest := matching(text, c.Matches); n > 0 {
			lines, last = lines+n, latest
		}
	}
	seen := words.Plural(lines, "line")
	if lines > 0 {
		seen += ", the last: " + words.Short(last, 500)
	}
	if c.Absent != (lines == 0) {
		wanted := "a line"
		if c.Absent {
			wanted = "no line"
		}
		return seen, &Mismatch{Wanted: fmt.Sprintf("%s like %s in the log of %s", wanted, quoted(c.Matches), c.Of), Seen: seen}
	}
	return seen, nil
}

// matching counts the lines that match, and returns the last of them. Lines are matched without their line breaks, as by
// grep, so that $ matches at the end of a line.
func matching(text string, pattern *regexp.Regexp) (lines int, last string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); pattern.MatchString(line) {
			lines++
			last = line
		}
	}
	return lines, last
}

// text returns the log of one pod, after the log of the container's previous life if it had one: if a container crashes at
// its start, only that log says why. A pod that has not started has no log.
func (c Log) text(ctx context.Context, member *mesh.Member, p *corev1.Pod) (string, error) {
	all := ""
	for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if status.Name != c.container() {
			continue
		}
		for _, life := range []struct{ previous, there bool }{
			{true, status.RestartCount > 0}, {false, status.State.Running != nil || status.State.Terminated != nil},
		} {
			if !life.there {
				continue
			}
			text, err := podLog(ctx, member, p, c.container(), c.Since, life.previous)
			if err != nil && !life.previous && p.DeletionTimestamp == nil {
				return "", err
			}
			all += text // empty if the container or the pod is gone meanwhile
		}
	}
	return all, nil
}

// logLimit bounds what is read of one log.
const logLimit = 8 << 20

// podLog reads the end of a container's log. For the previous log of a container that has not run before, the API server
// returns an error.
func podLog(ctx context.Context, m *mesh.Member, p *corev1.Pod, container string, since time.Duration, previous bool) (string, error) {
	o := &corev1.PodLogOptions{Container: container, Previous: previous}
	if since > 0 {
		seconds := int64(max(1, (since + time.Second - 1).Seconds()))
		o.SinceSeconds = &seconds
	}
	tail := int64(50_000)
	o.TailLines = &tail
	stream, err := m.Kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, o).Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the log of %s in %s of %s: %w", container, p.Name, m.Name(), err)
	}
	defer stream.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(stream, logLimit))
	if err != nil {
		return "", fmt.Errorf("reading the log of %s in %s of %s: %w", container, p.Name, m.Name(), err)
	}
	return string(text), nil
}

// GatewaySees makes a call to another cluster and finds it in the access log of the east-west gateway there. The gateway
// does not decrypt calls: it sees only the server name in the TLS handshake.
type GatewaySees struct {
	// Who calls, in one cluster.
	From Workload `yaml:"from" ref:"app" required:"true"`
	// Who is called, in the other: it is that cluster's gateway that sees the call.
	To Workload `yaml:"to" ref:"app" required:"true"`
	// The call does not get as far as the gateway.
	Absent bool `yaml:"absent"`
}

// Validate refuses calls that cross no border.
func (c GatewaySees) Validate() error {
	if c.From.Cluster == c.To.Cluster && c.To.Cluster != "" {
		return strict.At("to", fmt.Errorf("the other cluster is meant, not %s again", c.To.Cluster))
	}
	return nil
}

var _ Check = GatewaySees{}

func (c GatewaySees) sni() string {
	// Istio's form of outbound|80||HOST for server names, in which a bar is not allowed.
	return "outbound_.80_._." + outbound(c.To)[len("outbound|80||"):]
}

func (c GatewaySees) String() string {
	sees := "sees"
	if c.Absent {
		sees = "does not see"
	}
	return fmt.Sprintf("the east-west gateway of %s %s a call from %s to %s, by its server name %s",
		c.To.Cluster, sees, c.From, c.To, c.sni())
}

// Command implements Check.
func (c GatewaySees) Command() string {
	return fmt.Sprintf("kubectl logs -n %s -l istio=eastwestgateway -c %s --context=%s | grep -F '%s'",
		mesh.SystemNamespace, ProxyContainer, c.To.Cluster, c.sni())
}

// flushed is how long a line may take to get into the log: with Istio's settings Envoy writes once a second.
const flushed = 3 * time.Second

// Look implements Check.
func (c GatewaySees) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	gateway := Workload{mesh.Gateway, c.To.Cluster}
	member, pods, err := Newest.pods(ctx, m, gateway)
	if err != nil {
		return "", err
	}
	dump, err := member.Admin(ctx, pods[0], "/config_dump?resource=dynamic_listeners")
	if err != nil {
		return "", err
	}
	protocols, err := protocolsFor(dump, c.sni())
	if err != nil {
		return "", err
	}
	start := time.Now()
	calls, err := Call{From: c.From, To: c.To, Count: 1}.make(ctx, m)
	if err != nil {
		return "", err
	}
	line := ""
	flush := wait.Options{Within: flushed, Every: 200 * time.Millisecond}
	err = wait.Until(ctx, "the gateway's access log", flush, func(ctx context.Context) error {
		text, err := podLog(ctx, member, pods[0], ProxyContainer, time.Since(start)+time.Second, false)
		if err != nil {
			return wait.Permanent(err)
		}
		for l := range strings.Lines(text) {
			// A connection that is older than the call is not the call's. This needs clusters whose clocks agree.
			if began, ok := beganAt(l); ok && !began.Before(start.Truncate(time.Millisecond)) && strings.Contains(l, c.sni()) {
				line = l
				return nil
			}
		}
		return fmt.Errorf("no new line with %s", c.sni())
	})
	if err != nil && !errors.Is(err, wait.ErrTimeout) {
		return "", err
	}
	seen := "the gateway did not see it"
	if err == nil {
		seen = fmt.Sprintf("the gateway saw server name %s (it accepts ALPN %s): %s", c.sni(), words.And(protocols), gatewayLine(line))
	}
	seen += "; the caller saw " + summary(calls)
	if c.Absent != (err != nil) {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen,
			Try: "see which address the caller's proxy has for the service, and whether that address is reachable"}
	}
	return seen, nil
}

// beganAt reads when a request or connection began: its access log line starts with the time.
func beganAt(line string) (time.Time, bool) {
	text, _, ok := strings.Cut(strings.TrimPrefix(line, "["), "]")
	at, err := time.Parse(time.RFC3339, text)
	return at, ok && err == nil
}

// protocolsFor returns the ALPN protocols of which a connection with this server name must offer one.
func protocolsFor(dump []byte, sni string) ([]string, error) {
	var page struct {
		Configs []struct {
			Active struct {
				Listener struct {
					Chains []struct {
						Match struct {
							Names     []string `json:"server_names"`
							Protocols []string `json:"application_protocols"`
						} `json:"filter_chain_match"`
					} `json:"filter_chains"`
				} `json:"listener"`
			} `json:"active_state"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(dump, &page); err != nil {
		return nil, fmt.Errorf("reading the gateway's listeners: %w", err)
	}
	for _, c := range page.Configs {
		for _, chain := range c.Active.Listener.Chains {
			if slices.Contains(chain.Match.Names, sni) {
				return chain.Match.Protocols, nil
			}
		}
	}
	return []string{"nothing: no filter chain has this name"}, nil
}

// pickedField finds the field picked= in the access log of the lab's meshes.
var pickedField = regexp.MustCompile(`picked=(\S*)`)

// gatewayLine says where the gateway passed a connection on, by its line in the access log.
func gatewayLine(line string) string {
	picked := "nobody"
	if m := pickedField.FindStringSubmatch(line); m != nil && strings.Trim(m[1], ";-") != "" {
		picked = strings.ReplaceAll(m[1], ";", " ")
	}
	return "passed on to " + picked + ": " + words.Short(line, 300)
}
