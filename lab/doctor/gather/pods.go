package gather

import (
	"cmp"
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/words"
)

const discoveryContainer = "discovery" // of istiod's pods

// readPods reads the pods of the cluster page by page and keeps little of each.
func (r *reader) readPods(ctx context.Context) error {
	options := metav1.ListOptions{Limit: podsPerPage}
	for {
		list, err := r.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			r.readPod(&list.Items[i])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	slices.SortFunc(r.istiods, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, p := range r.istiods {
		r.cluster.Istiods = append(r.cluster.Istiods, facts.Istiod{
			Pod: p.Name, Revision: p.Labels[facts.RevisionLabel], Version: version(p, discoveryContainer), Ready: mesh.Ready(p),
			Created: p.CreationTimestamp.UTC(), State: state(p),
			Env: env(p, discoveryContainer,
				"CLUSTER_ID", "ISTIO_MULTIROOT_MESH", "PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "LOCAL_CLUSTER_SECRET_WATCHER"),
		})
	}
	// A Deployment without pods is an istiod, too.
	found, err := r.kube.AppsV1().Deployments(r.System).List(ctx, metav1.ListOptions{LabelSelector: "app=" + facts.IstiodName})
	if err != nil {
		return err
	}
	r.cluster.IstiodDeployed = len(found.Items) > 0
	for _, d := range found.Items {
		r.cluster.Deployed = append(r.cluster.Deployed, cmp.Or(d.Labels[facts.RevisionLabel], facts.DefaultRevision))
	}
	return nil
}

func (r *reader) readPod(p *corev1.Pod) {
	c := r.cluster
	name := p.Namespace + "/" + p.Name
	switch {
	case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return
	case p.Namespace == r.System && p.Labels["app"] == facts.IstiodName:
		r.istiods = append(r.istiods, p)
		return
	case !observe.HasProxy(p):
		_, job := p.Labels["job-name"]
		wanted := r.Namespace == "" || p.Namespace == r.Namespace
		if wanted && !job && !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning {
			c.Plain = append(c.Plain, name) // settle drops those of namespaces that inject none
		}
		return
	}
	gateway := slices.Contains(container(p, facts.ProxyContainer).Args, "router")
	if r.Namespace != "" && p.Namespace != r.Namespace && !gateway {
		return
	}
	settings := env(p, facts.ProxyContainer, "ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK", "ISTIO_META_MESH_ID")
	c.Proxies = append(c.Proxies, facts.Proxy{
		Namespace: p.Namespace, Pod: p.Name, Workload: workload(p), Created: p.CreationTimestamp.UTC(), Ready: mesh.Ready(p),
		Gateway: gateway, Version: version(p, facts.ProxyContainer), Revision: revisionOf(p),
		Cluster: settings["ISTIO_META_CLUSTER_ID"], Network: cmp.Or(p.Labels[facts.NetworkLabel], settings["ISTIO_META_NETWORK"]),
		MeshID: settings["ISTIO_META_MESH_ID"],
	})
	if !mesh.Ready(p) {
		c.Stuck = append(c.Stuck, facts.Stuck{Pod: name, Why: cmp.Or(state(p), string(p.Status.Phase))})
	}
	r.pods[name] = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID, Labels: p.Labels},
		Status:     corev1.PodStatus{Conditions: p.Status.Conditions},
	}
}

// container returns a container of a pod by its name, or an empty one if the pod does not have it.
func container(p *corev1.Pod, name string) corev1.Container {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == name {
			return c
		}
	}
	return corev1.Container{}
}

// version returns the tag of a container's image.
func version(p *corev1.Pod, name string) string {
	image := container(p, name).Image
	_, tag, _ := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return tag
}

// workload returns the name of the Deployment of a pod, not that of its ReplicaSet, or of whatever else owns the pod.
func workload(p *corev1.Pod) string {
	if len(p.OwnerReferences) == 0 {
		return p.Name
	}
	return strings.TrimSuffix(p.OwnerReferences[0].Name, "-"+cmp.Or(p.Labels["pod-template-hash"], "-")) // no name ends in "--"
}

// env returns those of the named environment variables of a container whose values are in the pod itself.
func env(p *corev1.Pod, name string, variables ...string) map[string]string {
	found := map[string]string{}
	for _, e := range container(p, name).Env {
		if e.Value != "" && slices.Contains(variables, e.Name) {
			found[e.Name] = e.Value
		}
	}
	return found
}

// state says what keeps a pod from being Ready, "" if it is Ready.
func state(p *corev1.Pod) string {
	if mesh.Ready(p) {
		return ""
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return words.Short(s.Name+": "+w.Reason+" "+w.Message, 300)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return words.Short(c.Message, 300)
		}
	}
	return string(p.Status.Phase)
}

// revisionOf returns the revision whose istiod made a pod's proxy. The injector writes it into an annotation. The label says what the
// pod asked for, which may be a tag, and most pods have none.
func revisionOf(p *corev1.Pod) string {
	return cmp.Or(p.Annotations[facts.RevisionLabel], p.Labels[facts.RevisionLabel])
}
