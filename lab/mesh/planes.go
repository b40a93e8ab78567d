package mesh

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ControlPlane is an istiod of a cluster.
type ControlPlane struct {
	Revision string `json:"revision"` // DefaultRevision if it was installed without one
	Version  string `json:"version"`  // the tag of its image
	Ready    bool   `json:"ready"`
}

func (p ControlPlane) String() string {
	text := p.Version + ", revision " + p.Revision
	if !p.Ready {
		text += ", not Ready"
	}
	return text
}

// ControlPlanes returns the control planes that run in a cluster, as ControlPlanesOf.
func ControlPlanes(ctx context.Context, kube kubernetes.Interface) ([]ControlPlane, error) {
	list, err := kube.CoreV1().Pods(SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + Istiod})
	if err != nil {
		return nil, fmt.Errorf("reading the pods of istiod: %w", err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return ControlPlanesOf(pods), nil
}

// ControlPlanesOf returns the control planes that pods of istiod are, each once, sorted by revision and version. Pods that are being
// deleted do not count.
func ControlPlanesOf(pods []*corev1.Pod) (all []ControlPlane) {
	for _, p := range pods {
		plane := ControlPlane{Revision: RevisionOf(p), Version: ImageTag(p.Spec.Containers[0].Image), Ready: Ready(p)}
		if p.DeletionTimestamp == nil && !slices.Contains(all, plane) {
			all = append(all, plane)
		}
	}
	slices.SortFunc(all, func(a, b ControlPlane) int {
		return cmp.Or(strings.Compare(a.Revision, b.Revision), strings.Compare(a.Version, b.Version))
	})
	return all
}

// RevisionOf returns the revision that an object of Istio belongs to.
func RevisionOf(o metav1.Object) string { return cmp.Or(o.GetLabels()[RevisionLabel], DefaultRevision) }

// ImageTag returns the tag of an image's name.
func ImageTag(image string) string { return image[strings.LastIndexByte(image, ':')+1:] }
