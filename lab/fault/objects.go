package fault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// Object names an object as kubectl does.
type Object struct {
	Kind      string // "deployment", "Deployment", "gateways.networking.istio.io"
	Name      string
	Namespace string // empty for objects that have none
}

func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return fmt.Sprintf("%s/%s in namespace %s", o.Kind, o.Name, o.Namespace)
}

func (o Object) flags(cluster string) string {
	if o.Namespace == "" {
		return fmt.Sprintf("%s %s --context=%s", o.Kind, o.Name, cluster)
	}
	return fmt.Sprintf("%s %s -n %s --context=%s", o.Kind, o.Name, o.Namespace, cluster)
}

// Apply applies the objects of a manifest.
func Apply(in []string, file string, manifest []byte) Fault {
	objects, problem := decode(manifest)
	if problem != nil {
		problem = fmt.Errorf("reading %s: %w", file, problem)
	}
	names := make([]Object, len(objects))
	for i, u := range objects {
		names[i] = Object{Kind: u.GroupVersionKind().GroupKind().String(), Name: u.GetName(), Namespace: namespaceOf(u)}
	}
	return &change{
		sentence: fmt.Sprintf("apply %s in %s", file, and(in)),
		commands: commandsIn(in, func(c string) string { return "kubectl apply -f " + file + " --context=" + c }),
		in:       in, objects: names,
		available: func(*mesh.Mesh) error { return problem },
		inject: each(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) (Undo, error) {
			var undos []Undo
			for _, u := range objects {
				undo, err := apply(ctx, member, u)
				if undo != nil {
					undos = append(undos, undo)
				}
				if err != nil {
					return unwind(undos), fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
				}
			}
			return unwind(undos), nil
		}),
	}
}

// decode reads the objects of a manifest.
func decode(manifest []byte) (objects []*unstructured.Unstructured, _ error) {
	for reader := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var u unstructured.Unstructured
		err := reader.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			objects = append(objects, &u)
		}
	}
}

// namespaceOf is where an object goes if it is of a kind that has namespaces.
func namespaceOf(u *unstructured.Unstructured) string {
	return cmp.Or(u.GetNamespace(), metav1.NamespaceDefault)
}

func apply(ctx context.Context, member *mesh.Member, u *unstructured.Unstructured) (Undo, error) {
	client, err := observe.Resource(member, u.GroupVersionKind().GroupKind().String(), namespaceOf(u))
	if err != nil {
		return nil, err
	}
	undo, err := keepObject(ctx, client, u.GetName())
	if err != nil {
		return nil, err
	}
	_, err = client.Apply(ctx, u.GetName(), labeled(u, member.Labels()), metav1.ApplyOptions{FieldManager: mesh.FieldManager, Force: true})
	return undo, err
}

// labeled returns the object with the labels of what a lab makes.
func labeled(u *unstructured.Unstructured, more map[string]string) *unstructured.Unstructured {
	u = u.DeepCopy()
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, more)
	u.SetLabels(labels)
	return u
}

// unwind takes back in the other order.
func unwind(undos []Undo) Undo {
	return func(ctx context.Context) error {
		var problems []error
		for _, undo := range slices.Backward(undos) {
			problems = append(problems, undo(ctx))
		}
		return errors.Join(problems...)
	}
}

// Delete deletes an object and waits until it is gone, or another has taken its place.
func Delete(in []string, o Object) Fault {
	return object(in, o, "delete "+o.String(), func(c string) string { return "kubectl delete " + o.flags(c) },
		func(ctx context.Context, client dynamic.ResourceInterface) error {
			before, err := client.Get(ctx, o.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := client.Delete(ctx, o.Name, metav1.DeleteOptions{}); err != nil {
				return err
			}
			return wait.Until(ctx, "the end of "+o.String(), wait.Options{Within: patience}, func(ctx context.Context) error {
				now, err := client.Get(ctx, o.Name, metav1.GetOptions{})
				switch {
				case apierrors.IsNotFound(err) || err == nil && now.GetUID() != before.GetUID():
					return nil
				case err != nil:
					return err
				}
				return errors.New("it is still there")
			})
		})
}

// Patch merges a patch into an object (RFC 7386: null deletes a field).
func Patch(in []string, o Object, patch any) (Fault, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	return object(in, o, "patch "+o.String(), func(c string) string {
		return fmt.Sprintf("kubectl patch %s --type=merge -p '%s'", o.flags(c), text)
	}, merge(o, text)), nil
}

// Label sets labels of an object; a nil value removes one.
func Label(in []string, o Object, labels map[string]*string) (Fault, error) {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return nil, err
	}
	return object(in, o, "label "+o.String(), func(c string) string {
		line := "kubectl label --overwrite " + o.flags(c)
		for name, value := range labels {
			if value == nil {
				line += " " + name + "-"
			} else {
				line += " " + name + "=" + *value
			}
		}
		return line
	}, merge(o, text)), nil
}

// Scale changes the number of pods of workloads and waits until there are as many.
func Scale(replicas int, of ...observe.Workload) Fault {
	apps, in, names, commands := byCluster(of, func(w observe.Workload) string {
		return fmt.Sprintf("kubectl scale deployment/%s -n %s --replicas=%d --context=%s", w.App, mesh.NamespaceOf(w.App), replicas, w.Cluster)
	})
	return &change{
		sentence: fmt.Sprintf("scale %s to %d", and(names), replicas), commands: commands, in: in,
		inject: each(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) (Undo, error) {
			var undos []Undo
			for _, app := range apps[member.Name()] {
				undo, err := scale(ctx, m, member, app, replicas)
				undos = append(undos, undo)
				if err != nil {
					return together(undos), err
				}
			}
			return together(undos), nil
		}),
	}
}

func scale(ctx context.Context, m *mesh.Mesh, member *mesh.Member, app string, replicas int) (Undo, error) {
	deployments := member.Kube.AppsV1().Deployments(mesh.NamespaceOf(app))
	now, err := deployments.GetScale(ctx, app, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	before := now.Spec.Replicas
	set := func(ctx context.Context, n int) error {
		_, err := deployments.Patch(ctx, app, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n), metav1.PatchOptions{FieldManager: mesh.FieldManager})
		if err != nil {
			return err
		}
		return awaitRollout(ctx, m, member, []string{app})
	}
	return func(ctx context.Context) error { return set(ctx, int(before)) }, set(ctx, replicas)
}

func merge(o Object, patch []byte) func(context.Context, dynamic.ResourceInterface) error {
	return func(ctx context.Context, client dynamic.ResourceInterface) error {
		_, err := client.Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: mesh.FieldManager})
		return err
	}
}

// object is a change of one object in several clusters, taken back by making the object what it was.
func object(in []string, o Object, sentence string, command func(string) string, do func(context.Context, dynamic.ResourceInterface) error) Fault {
	return &change{
		sentence: sentence + " in " + and(in), commands: commandsIn(in, command), in: in, objects: []Object{o},
		inject: each(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) (Undo, error) {
			client, err := observe.Resource(member, o.Kind, o.Namespace)
			if err != nil {
				return nil, err
			}
			undo, err := keepObject(ctx, client, o.Name)
			if err != nil {
				return nil, err
			}
			return undo, do(ctx, client)
		}),
	}
}

// keepObject returns an Undo that makes an object what it is now, or absent.
func keepObject(ctx context.Context, client dynamic.ResourceInterface, name string) (Undo, error) {
	before, err := client.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return func(ctx context.Context) error {
			return ignoreNotFound(client.Delete(ctx, name, metav1.DeleteOptions{}))
		}, nil
	}
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"} {
		unstructured.RemoveNestedField(before.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(before.Object, "status")
	return func(ctx context.Context) error {
		err := wait.Until(ctx, "putting "+name+" back", wait.Options{}, func(ctx context.Context) error {
			err := put(ctx, client, before)
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) { // somebody else changes it, too
				return wait.Permanent(err)
			}
			return err
		})
		if err != nil || before.GetKind() != "Deployment" {
			return err
		}
		return wait.Until(ctx, "the pods of "+name, wait.Options{Within: patience, Every: 200 * time.Millisecond}, func(ctx context.Context) error {
			return rolledOut(ctx, client, name)
		})
	}, nil
}

func rolledOut(ctx context.Context, client dynamic.ResourceInterface, name string) error {
	now, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	var d appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(now.Object, &d); err != nil {
		return wait.Permanent(err)
	}
	if seen, through := observe.Rollout(&d); !through {
		return errors.New(seen)
	}
	return nil
}

func put(ctx context.Context, client dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	now, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err := client.Create(ctx, o, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		return err
	}
	if err != nil {
		return err
	}
	wanted := o.DeepCopy()
	wanted.SetResourceVersion(now.GetResourceVersion())
	_, err = client.Update(ctx, wanted, metav1.UpdateOptions{FieldManager: mesh.FieldManager})
	if apierrors.IsInvalid(err) && !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") { // what cannot be changed, like the type of a Secret
		if err = client.Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err == nil {
			_, err = client.Create(ctx, o, metav1.CreateOptions{FieldManager: mesh.FieldManager})
		}
	}
	return err
}
