package observe

import (
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

func TestEventsAreMatched(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 500_000_000, time.UTC)
	event := func(change func(*corev1.Event)) *corev1.Event {
		e := &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "production", CreationTimestamp: metav1.NewTime(began.Add(-time.Hour))},
			Type:       "Warning", Reason: "FailedMount", Message: `MountVolume failed: secret "x" not found`,
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "echo-58774b8c6-xpk97"},
			LastTimestamp:  metav1.NewTime(began.Truncate(time.Second)), Count: 3,
		}
		change(e)
		return e
	}
	wants := Event{In: []string{"cluster-a"}, Namespace: "production", Object: "Pod/echo-", Reason: "FailedMount",
		Message: regexp.MustCompile(`"x" not found$`), From: began}
	for name, test := range map[string]struct {
		change func(*corev1.Event)
		want   bool
	}{
		"in the same second": {func(*corev1.Event) {}, true},
		"from before":        {func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(began.Add(-time.Minute)) }, false},
		"of a newer kind": {func(e *corev1.Event) {
			e.LastTimestamp = metav1.Time{}
			e.EventTime = metav1.NewMicroTime(began.Add(time.Second))
		}, true},
		"of a series": {func(e *corev1.Event) {
			e.LastTimestamp = metav1.Time{}
			e.Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(began.Add(time.Second))}
		}, true},
		"of another type":   {func(e *corev1.Event) { e.Type = "Normal" }, false},
		"of another object": {func(e *corev1.Event) { e.InvolvedObject.Name = "client-1" }, false},
		"of another kind":   {func(e *corev1.Event) { e.InvolvedObject.Kind = "ReplicaSet" }, false},
		"another reason":    {func(e *corev1.Event) { e.Reason = "FailedMountAgain" }, false},
		"another message":   {func(e *corev1.Event) { e.Message = `secret "x" not found, yet` }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mesh.Mesh{Members: []*mesh.Member{{
				Spec: mesh.ClusterSpec{Name: "cluster-a"}, Cluster: named{name: "cluster-a"}, Kube: fake.NewClientset(event(test.change)),
			}}}
			seen, err := wants.Look(t.Context(), m)
			absent := wants
			absent.Absent = true
			_, other := absent.Look(t.Context(), m)
			if !test.want {
				err, other = other, err
			} else {
				require.Equal(t, `cluster-a: 1 event, the last: FailedMount pod/echo-58774b8c6-xpk97: MountVolume failed: secret "x" not found`, seen)
			}
			require.NoError(t, err)
			var mismatch *Mismatch
			require.ErrorAs(t, other, &mismatch)
		})
	}
	require.Equal(t, "kubectl --context=cluster-a get events -n production --field-selector=type=Warning,reason=FailedMount"+
		` | grep -F -e ' pod/echo-' | grep -P -e '"x" not found$'`, wants.Command())
	require.ErrorContains(t, Event{In: []string{"cluster-a"}, Namespace: "production"}.Validate(), "at least one of")
}
