package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	jsonpatch "github.com/evanphx/json-patch/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

func sortedKeys[V any](of map[string]V) []string { return slices.Sorted(maps.Keys(of)) }

// MeshConfig merges settings into the mesh configuration of clusters (RFC 7386: null deletes a field). istiod uses most of
// them at once, and a trust domain from its next start on.
func MeshConfig(in []string, settings map[string]any) (Fault, error) {
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	sentence := fmt.Sprintf("set %s in the mesh configuration of %s", text, words.And(in))
	return meshConfig(in, sentence, func(context.Context, *mesh.Mesh, *mesh.Member) ([]byte, error) { return text, nil }), nil
}

// CACertificates puts the roots of another cluster into the setting caCertificates of the mesh configuration, by which
// clusters should trust them beside their own.
func CACertificates(in []string, of string) Fault {
	sentence := fmt.Sprintf("put the roots of %s into caCertificates of the mesh configuration of %s", of, words.And(in))
	return meshConfig(in, sentence, func(ctx context.Context, m *mesh.Mesh, _ *mesh.Member) ([]byte, error) {
		roots, err := observe.RootsOf(ctx, m, of)
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"caCertificates": []map[string]string{{"pem": string(roots)}}})
	})
}

// meshConfig merges a patch into the mesh configuration of each cluster.
func meshConfig(in []string, sentence string, patch func(context.Context, *mesh.Mesh, *mesh.Member) ([]byte, error)) Fault {
	const key = "mesh" // of the ConfigMap
	return &change{
		sentence: sentence,
		commands: commandsIn(in, func(c string) string { return "kubectl edit configmap istio -n istio-system --context=" + c }),
		in:       in,
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			merge, err := patch(ctx, m, member)
			if err != nil {
				return err
			}
			maps := member.Kube.CoreV1().ConfigMaps(mesh.SystemNamespace)
			now, err := maps.Get(ctx, observe.MeshSettings, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("reading the mesh configuration: %w", err)
			}
			before, err := yaml.YAMLToJSON([]byte(now.Data[key]))
			if err != nil {
				return fmt.Errorf("reading the mesh configuration: %w", err)
			}
			after, err := jsonpatch.MergePatch(before, merge)
			if err != nil {
				return fmt.Errorf("changing the mesh configuration: %w", err)
			}
			text, err := yaml.JSONToYAML(after)
			if err != nil {
				return fmt.Errorf("changing the mesh configuration: %w", err)
			}
			now.Data[key] = string(text)
			if _, err = maps.Update(ctx, now, metav1.UpdateOptions{FieldManager: mesh.FieldManager}); err != nil {
				return err
			}
			var was, changed map[string]any
			if err := errors.Join(json.Unmarshal(before, &was), json.Unmarshal(merge, &changed)); err != nil {
				return err
			}
			return member.AwaitMeshConfig(ctx, was, changed)
		}),
	}
}

// SetEnv sets environment variables of the workloads' main containers and waits for their new pods. An empty value removes
// the variable.
func SetEnv(env map[string]string, of ...observe.Workload) Fault {
	settings := make([]string, 0, len(env))
	flags := make([]string, 0, len(env))
	for _, name := range sortedKeys(env) {
		if env[name] == "" {
			settings, flags = append(settings, "unset "+name), append(flags, name+"-")
			continue
		}
		settings, flags = append(settings, "set "+name+"="+env[name]), append(flags, shellescape.Quote(name+"="+env[name]))
	}
	return template(of, func(names string) string { return words.And(settings) + " of " + names }, func(w observe.Workload) string {
		return fmt.Sprintf("kubectl set env deployment/%s -n %s --context=%s -c %s %s",
			w.App, mesh.NamespaceOf(w.App), w.Cluster, mainContainer(w.App), strings.Join(flags, " "))
	}, func(app string) any {
		list := make([]any, 0, len(env))
		for _, name := range sortedKeys(env) {
			if env[name] == "" {
				list = append(list, map[string]any{"name": name, "$patch": "delete"})
			} else {
				list = append(list, map[string]any{"name": name, "value": env[name]})
			}
		}
		return map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": mainContainer(app), "env": list}}}}
	})
}

func mainContainer(app string) string {
	switch app {
	case mesh.Istiod:
		return "discovery"
	case mesh.Gateway:
		return "istio-proxy"
	}
	return "app"
}

// CertificateLifetime gives the proxies of workloads certificates with this lifetime, and waits for their new pods. A proxy
// asks for its next certificate when half of the lifetime is over.
func CertificateLifetime(lifetime time.Duration, of ...observe.Workload) Fault {
	annotation := fmt.Sprintf("proxyMetadata: {SECRET_TTL: %s}", lifetime)
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]string{"proxy.istio.io/config": annotation}}}
	sentence := func(names string) string {
		return fmt.Sprintf("give %s certificates that live %s", names, words.Duration(lifetime))
	}
	return template(of, sentence, func(w observe.Workload) string {
		return fmt.Sprintf("kubectl patch deployment %s -n %s --context=%s -p "+
			`'{"spec":{"template":{"metadata":{"annotations":{"proxy.istio.io/config":"%s"}}}}}'`,
			w.App, mesh.NamespaceOf(w.App), w.Cluster, annotation)
	}, func(string) any { return patch })
}

// template changes the pod template of Deployments, and waits for the new pods.
func template(
	of []observe.Workload, sentence func(names string) string, command func(observe.Workload) string, patch func(app string) any,
) Fault {
	apps, in, names, commands := byCluster(of, command)
	return &change{
		sentence: sentence(words.And(names)), commands: commands, in: in,
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			for _, app := range apps[member.Name()] {
				text, err := json.Marshal(map[string]any{"spec": map[string]any{"template": patch(app)}})
				if err != nil {
					return err
				}
				deployments := member.Kube.AppsV1().Deployments(mesh.NamespaceOf(app))
				_, err = deployments.Patch(ctx, app, types.StrategicMergePatchType, text, metav1.PatchOptions{FieldManager: mesh.FieldManager})
				if err != nil {
					return fmt.Errorf("changing %s: %w", app, err)
				}
			}
			return awaitRollout(ctx, m, member, apps[member.Name()])
		}),
	}
}

// awaitRollout waits until Deployments have nothing but new pods, all Ready.
func awaitRollout(ctx context.Context, m *mesh.Mesh, member *mesh.Member, apps []string) error {
	of := make([]observe.Workload, len(apps))
	for i, app := range apps {
		of[i] = observe.Workload{App: app, Cluster: member.Name()}
	}
	o := wait.Options{Within: mesh.UsuallyWithin, Every: 200 * time.Millisecond}
	return wait.Until(ctx, "the new pods of "+words.And(apps), o, func(ctx context.Context) error {
		_, err := observe.RolledOut{Of: of}.Look(ctx, m)
		return err
	})
}
