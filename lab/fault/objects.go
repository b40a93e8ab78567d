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
	"strings"

	"al.essio.dev/pkg/shellescape"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Object names an object as kubectl does.
type Object struct {
	// The object's kind, like Service or gateways.networking.istio.io.
	Kind string `yaml:"kind" required:"true"`
	// The object's name.
	Name string `yaml:"name" required:"true"`
	// The object's namespace; none for kinds without.
	Namespace string `yaml:"namespace" ref:"namespace"`
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
		sentence: fmt.Sprintf("apply %s in %s", file, words.And(in)),
		commands: commandsIn(in, func(c string) string { return "kubectl apply -f " + file + " --context=" + c }),
		in:       in, objects: names,
		available: func(*mesh.Mesh) error { return problem },
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			for _, u := range objects {
				if err := apply(ctx, member, withLabels(u, m.Labels())); err != nil {
					return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
				}
			}
			return nil
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

// namespaceOf returns the namespace that an object is put into, if its kind has namespaces.
func namespaceOf(u *unstructured.Unstructured) string {
	return cmp.Or(u.GetNamespace(), metav1.NamespaceDefault)
}

func apply(ctx context.Context, member *mesh.Member, u *unstructured.Unstructured) error {
	client, err := observe.Resource(member, u.GroupVersionKind().GroupKind().String(), namespaceOf(u))
	if err != nil {
		return err
	}
	is, err := client.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: mesh.FieldManager, Force: true})
	if err != nil {
		return err
	}
	return awaitTaken(ctx, member, is, is)
}

// awaitTaken waits until istiod has an object of Istio's kinds as it is now; is is nil if it was deleted.
func awaitTaken(ctx context.Context, member *mesh.Member, o, is *unstructured.Unstructured) error {
	kind := o.GroupVersionKind()
	if !strings.HasSuffix(kind.Group, observe.IstioGroup) {
		return nil
	}
	return member.AwaitObject(ctx, kind.Kind, o.GetNamespace(), o.GetName(), is)
}

// withLabels returns a copy of the object that has more labels.
func withLabels(u *unstructured.Unstructured, more map[string]string) *unstructured.Unstructured {
	u = u.DeepCopy()
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, more)
	u.SetLabels(labels)
	return u
}

// Delete deletes an object and waits until it is gone, or a new one has taken its place. It is an error if there is
// no such object.
func Delete(in []string, o Object) Fault {
	return object(in, o, "delete "+o.String(), func(c string) string { return "kubectl delete " + o.flags(c) },
		func(ctx context.Context, member *mesh.Member, client dynamic.ResourceInterface) error {
			return remove(ctx, member, client, o)
		})
}

// DeleteIfThere is Delete for an object that may be absent, which is no error then.
func DeleteIfThere(in []string, o Object) Fault {
	command := func(c string) string { return "kubectl delete --ignore-not-found " + o.flags(c) }
	return object(in, o, "delete "+o.String()+" if it is there", command,
		func(ctx context.Context, member *mesh.Member, client dynamic.ResourceInterface) error {
			return ignoreNotFound(remove(ctx, member, client, o))
		})
}

// remove deletes an object and waits for its end.
func remove(ctx context.Context, member *mesh.Member, client dynamic.ResourceInterface, o Object) error {
	before, err := client.Get(ctx, o.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := client.Delete(ctx, o.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	var now *unstructured.Unstructured // nil, or a new one that has taken its place
	err = wait.Until(ctx, "the end of "+o.String(), wait.Options{Within: mesh.UsuallyWithin}, func(ctx context.Context) error {
		now, err = client.Get(ctx, o.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			now = nil
			return nil
		case err != nil || now.GetUID() != before.GetUID():
			return err
		}
		return errors.New("it is still there")
	})
	if err != nil {
		return err
	}
	return awaitTaken(ctx, member, before, now)
}

// Patch merges a patch into an object (RFC 7386: null deletes a field).
func Patch(in []string, o Object, patch any) (Fault, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	return object(in, o, "patch "+o.String(), func(c string) string {
		return fmt.Sprintf("kubectl patch %s --type=merge -p %s", o.flags(c), shellescape.Quote(string(text)))
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
		for _, name := range sortedKeys(labels) {
			if value := labels[name]; value == nil {
				line += " " + name + "-"
			} else {
				line += " " + name + "=" + *value
			}
		}
		return line
	}, merge(o, text)), nil
}

// Scale changes the number of pods of workloads and waits until they are Ready and no others are left.
func Scale(replicas int, of ...observe.Workload) Fault {
	apps, in, names, commands := byCluster(of, func(w observe.Workload) string {
		return fmt.Sprintf("kubectl scale deployment/%s -n %s --replicas=%d --context=%s", w.App, mesh.NamespaceOf(w.App), replicas, w.Cluster)
	})
	return &change{
		sentence: fmt.Sprintf("scale %s to %d", words.And(names), replicas), commands: commands, in: in,
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			for _, app := range apps[member.Name()] {
				_, err := member.Kube.AppsV1().Deployments(mesh.NamespaceOf(app)).Patch(ctx, app, types.MergePatchType,
					fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{FieldManager: mesh.FieldManager})
				if err != nil {
					return fmt.Errorf("scaling %s: %w", app, err)
				}
			}
			return awaitRollout(ctx, m, member, apps[member.Name()])
		}),
	}
}

func merge(o Object, patch []byte) func(context.Context, *mesh.Member, dynamic.ResourceInterface) error {
	return func(ctx context.Context, member *mesh.Member, client dynamic.ResourceInterface) error {
		is, err := client.Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: mesh.FieldManager})
		if err != nil {
			return err
		}
		return awaitTaken(ctx, member, is, is)
	}
}

// object is a change of one object in several clusters.
func object(
	in []string, o Object, sentence string, command func(string) string,
	do func(context.Context, *mesh.Member, dynamic.ResourceInterface) error,
) Fault {
	return &change{
		sentence: sentence + " in " + words.And(in), commands: commandsIn(in, command), in: in, objects: []Object{o},
		inject: injectIn(in, func(ctx context.Context, _ *mesh.Mesh, member *mesh.Member) error {
			client, err := observe.Resource(member, o.Kind, o.Namespace)
			if err != nil {
				return err
			}
			return do(ctx, member, client)
		}),
	}
}
