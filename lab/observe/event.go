package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Event checks that Kubernetes has reported something about an object, or has not: an object of the kind Event.
type Event struct {
	// In which clusters; it has to hold in each.
	In strict.List[string] `yaml:"in" ref:"cluster" required:"true"`
	// The namespace of what was reported, which is that of the object.
	Namespace string `yaml:"namespace" ref:"namespace" required:"true"`
	// How kind and name of the object begin, like Pod/echo-.
	Object string `yaml:"object"`
	// The reason, word for word, like FailedMount.
	Reason string `yaml:"reason"`
	// What the message is like.
	Message *regexp.Regexp `yaml:"message"`
	// Warning (the default), or Normal for what goes well.
	Type string `yaml:"type" enum:"Warning,Normal"`
	// Nothing like that was reported.
	Absent bool      `yaml:"absent"`
	From   time.Time `yaml:"-"` // nothing from before
}

// Validate refuses events of which nothing is known.
func (c Event) Validate() error {
	if c.Object == "" && c.Reason == "" && c.Message == nil {
		return errors.New("want at least one of object, reason and message")
	}
	return nil
}

var _ Check = Event{}

func (c Event) kind() string { return cmp.Or(c.Type, corev1.EventTypeWarning) }

func (c Event) String() string {
	text := fmt.Sprintf("in %s there is ", words.And(c.In))
	if c.Absent {
		text += "no "
	} else {
		text += "a "
	}
	text += c.kind() + " event"
	if c.Reason != "" {
		text += " " + c.Reason
	}
	if c.Object != "" {
		text += " about " + c.Object + "…"
	}
	text += " in namespace " + c.Namespace
	if c.Message != nil {
		text += " with a message like " + quoted(c.Message)
	}
	return text
}

// Command implements Check.
func (c Event) Command() string {
	selector := "type=" + c.kind()
	if c.Reason != "" {
		selector += ",reason=" + c.Reason
	}
	lines := make([]string, len(c.In))
	for i, cluster := range c.In {
		lines[i] = fmt.Sprintf("kubectl --context=%s get events -n %s --field-selector=%s", cluster, c.Namespace, shellescape.Quote(selector))
		if c.Object != "" {
			lines[i] += " | grep -F -e " + shellescape.Quote(" "+lowerKind(c.Object))
		}
		if c.Message != nil {
			lines[i] += " | " + grep(c.Message)
		}
	}
	return strings.Join(lines, "\n")
}

// Look implements Check.
func (c Event) Look(ctx context.Context, m *mesh.Mesh) (string, error) {
	texts := make([]string, len(c.In))
	good := true
	for i, cluster := range c.In {
		member, err := m.Member(cluster)
		if err != nil {
			return "", err
		}
		list, err := member.Kube.CoreV1().Events(c.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=" + c.kind()})
		if err != nil {
			return "", fmt.Errorf("listing the events of %s: %w", cluster, err)
		}
		events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return !c.matches(&e) })
		texts[i] = cluster + ": " + words.Plural(len(events), "event")
		if len(events) > 0 {
			last := slices.MaxFunc(events, func(a, b corev1.Event) int { return lastSeen(&a).Compare(lastSeen(&b)) })
			texts[i] += fmt.Sprintf(", the last: %s %s: %s", last.Reason, about(&last), words.Short(last.Message, 500))
		}
		good = good && c.Absent == (len(events) == 0)
	}
	seen := strings.Join(texts, "; ")
	if !good {
		return seen, &Mismatch{Wanted: c.String(), Seen: seen}
	}
	return seen, nil
}

// matches reports whether an event is one that is meant, and no older than it may be. Kubernetes notes whole seconds.
func (c Event) matches(e *corev1.Event) bool {
	return e.Type == c.kind() && (c.Reason == "" || e.Reason == c.Reason) &&
		strings.HasPrefix(about(e), lowerKind(c.Object)) && (c.Message == nil || c.Message.MatchString(e.Message)) &&
		!lastSeen(e).Before(c.From.Truncate(time.Second))
}

// about names the object of an event as kubectl does.
func about(e *corev1.Event) string {
	return lowerKind(e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name)
}

// lowerKind makes pod/echo of Pod/echo.
func lowerKind(object string) string {
	kind, name, both := strings.Cut(object, "/")
	if !both {
		return strings.ToLower(kind)
	}
	return strings.ToLower(kind) + "/" + name
}

// lastSeen returns when an event happened for the last time. What happens again and again is one event, whose times depend on who
// reports it.
func lastSeen(e *corev1.Event) time.Time {
	last := e.CreationTimestamp.Time
	times := []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time}
	if e.Series != nil {
		times = append(times, e.Series.LastObservedTime.Time)
	}
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
