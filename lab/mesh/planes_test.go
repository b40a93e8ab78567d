package mesh

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestControlPlanesAreThoseThatStay(t *testing.T) {
	istiod := func(version, revision string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "istiod", Labels: map[string]string{RevisionLabel: revision}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Image: "reg:5000/istio/pilot:" + version}}},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}
	}
	ends, starts := istiod("1.30", "default"), istiod("1.31", "1-31")
	ends.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	starts.Status.Conditions = nil
	require.Equal(t, []ControlPlane{{Revision: "1-31", Version: "1.31"}, {Revision: "default", Version: "1.29", Ready: true}},
		ControlPlanesOf([]*corev1.Pod{istiod("1.29", ""), ends, starts, istiod("1.29", "default")}))
}
