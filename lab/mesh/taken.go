package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// What is written to an API server is not what istiod works with: istiod reads it a moment later, and seconds later where
// the machine is busy. A pod that is injected in between keeps the old settings. The functions of this file wait for the
// moment that matters. Where no istiod is Ready there is nobody to wait for.

// takenWithin bounds what an istiod that is Ready does in less than a second if it has a CPU.
const takenWithin = 30 * time.Second

// readers returns the members whose istiod reads its configuration from the cluster.
func (m *Member) readers() (readers []*Member) {
	for _, other := range m.mesh.Members {
		if other.Spec.HasIstiod() && other.ConfigCluster() == m {
			readers = append(readers, other)
		}
	}
	return readers
}

// untilTaken waits until look returns nil for each istiod of the members. An istiod that is not Ready, or stops being so,
// is not waited for.
func untilTaken(ctx context.Context, members []*Member, what string, look func(context.Context, *Member) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range members {
		group.Go(func() error {
			return wait.Until(ctx, "istiod of "+m.Name()+" to take "+what, wait.Options{Within: takenWithin}, func(ctx context.Context) error {
				if pods, err := m.Pods(ctx, Istiod); err != nil || !slices.ContainsFunc(pods, Ready) {
					return err
				}
				return look(ctx, m)
			})
		})
	}
	return group.Wait()
}

// AwaitMeshConfig waits until the istiods that read the cluster's mesh configuration use what a merge patch has made of it,
// for themselves and for the pods that they inject.
func (m *Member) AwaitMeshConfig(ctx context.Context, before, patch map[string]any) error {
	return untilTaken(ctx, m.readers(), "the mesh configuration", func(ctx context.Context, istiod *Member) error {
		page, err := istiod.IstiodDebug(ctx, "/debug/mesh")
		if err != nil {
			return err
		}
		var used map[string]any
		if err := json.Unmarshal(page, &used); err != nil {
			return fmt.Errorf("reading istiod's mesh configuration: %w", err)
		}
		if err := differs("", used, before, patch); err != nil {
			return err
		}
		// The injector has a copy, which it renews a moment later than the page.
		proxies, ok := patch["defaultConfig"].(map[string]any)
		if !ok || istiod != m {
			return nil
		}
		return istiod.injectsConfig(ctx, before["defaultConfig"], proxies)
	})
}

// injectsConfig returns an error if a pod that was made now would have another proxy configuration.
func (m *Member) injectsConfig(ctx context.Context, before any, patch map[string]any) error {
	proxy, err := m.injected(ctx, AppNamespace, "echo")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(proxy.Env, func(e corev1.EnvVar) bool { return e.Name == "PROXY_CONFIG" })
	if i < 0 {
		return errors.New("a new pod would have no PROXY_CONFIG")
	}
	var used map[string]any
	if err := json.Unmarshal([]byte(proxy.Env[i].Value), &used); err != nil {
		return fmt.Errorf("reading PROXY_CONFIG of a new pod: %w", err)
	}
	old, _ := before.(map[string]any)
	return differs("defaultConfig of a new pod: ", used, old, patch)
}

// differs returns an error for the first setting of a merge patch that is not in use. A setting that the patch removes must
// not have the value that it had before.
func differs(where string, used, before, patch map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		want, now, was := patch[name], used[name], before[name]
		switch inside, isMap := want.(map[string]any); {
		case isMap:
			nowMap, _ := now.(map[string]any)
			wasMap, _ := was.(map[string]any)
			if err := differs(where+name+".", nowMap, wasMap, inside); err != nil {
				return err
			}
		case want == nil && was != nil && reflect.DeepEqual(now, was):
			return fmt.Errorf("%s%s is still %s", where, name, short(was))
		case want != nil && !uses(now, want):
			return fmt.Errorf("%s%s is %s", where, name, short(now))
		}
	}
	return nil
}

// uses tells whether the value that istiod shows is the one that was written. istiod leaves out what has its type's zero
// value, and adds to the objects of a list what they have by default.
func uses(now, want any) bool {
	switch want := want.(type) {
	case nil:
		return true
	case map[string]any:
		now, _ := now.(map[string]any)
		for name, value := range want {
			if !uses(now[name], value) {
				return false
			}
		}
		return true
	case []any:
		now, _ := now.([]any)
		return slices.EqualFunc(now, want, uses)
	}
	if now == nil {
		return reflect.ValueOf(want).IsZero()
	}
	return fmt.Sprint(now) == fmt.Sprint(want)
}

func short(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return words.Short(string(text), 100)
}

// AwaitObject waits until the istiods that read objects of Istio's kinds from the cluster have the object as the API server
// has it, or, if it is nil, have none of that kind, namespace and name. What they are told to leave alone, by discovery
// selectors or by a revision, is waited for in vain; that is no error.
func (m *Member) AwaitObject(ctx context.Context, kind, namespace, name string, is *unstructured.Unstructured) error {
	what := fmt.Sprintf("%s %s/%s", kind, namespace, name)
	err := untilTaken(ctx, m.readers(), what, func(ctx context.Context, istiod *Member) error {
		page, err := istiod.IstiodDebug(ctx, "/debug/configz")
		if err != nil {
			return err
		}
		var known []unstructured.Unstructured
		if err := json.Unmarshal(page, &known); err != nil {
			return fmt.Errorf("reading istiod's objects: %w", err)
		}
		i := slices.IndexFunc(known, func(k unstructured.Unstructured) bool {
			return k.GetKind() == kind && k.GetNamespace() == namespace && k.GetName() == name
		})
		switch {
		case is == nil && i >= 0:
			return errors.New("it still has it")
		case is != nil && i < 0:
			return errors.New("it does not have it")
		case is != nil && older(known[i].GetResourceVersion(), is.GetResourceVersion()):
			return fmt.Errorf("it has version %s and not %s", known[i].GetResourceVersion(), is.GetResourceVersion())
		}
		return nil
	})
	if errors.Is(err, wait.ErrTimeout) && ctx.Err() == nil {
		return nil
	}
	return err
}

// older compares resource versions. They are numbers that grow, since Kubernetes 1.35 by its API conventions, too.
func older(a, b string) bool { return len(a) < len(b) || len(a) == len(b) && a < b }

// awaitRemote waits until one of the remote clusters that the cluster's istiod lists, in whatever state, is meant, or none is.
func (m *Member) awaitRemote(ctx context.Context, what string, listed bool, meant func(Remote) bool) error {
	if !m.Spec.HasIstiod() {
		return nil
	}
	return untilTaken(ctx, []*Member{m}, what, func(ctx context.Context, istiod *Member) error {
		known, err := istiod.Remotes(ctx, "")
		if err != nil {
			return err
		}
		if slices.ContainsFunc(known, meant) == listed {
			return nil
		}
		texts := make([]string, len(known))
		for i, r := range known {
			texts[i] = r.String()
		}
		return fmt.Errorf("it lists %s", words.And(texts))
	})
}

// Remote is a cluster that an istiod lists: its own, or one that it has a remote secret of.
type Remote struct {
	ID         string // by which istiod knows it
	SecretName string // NAMESPACE/NAME; empty for its own
	SyncStatus string // synced, syncing, timeout or closed
}

func (r Remote) String() string { return r.ID + " " + r.SyncStatus }

// Remotes returns the clusters that the cluster's istiod lists: that of a revision, or without one that which IstiodDebug asks.
func (m *Member) Remotes(ctx context.Context, revision string) (known []Remote, err error) {
	const clusters = "/debug/clusterz"
	var page []byte
	if revision == "" {
		page, err = m.IstiodDebug(ctx, clusters)
	} else {
		var pages map[string][]byte
		if pages, err = m.IstiodPages(ctx, clusters); err == nil && pages[revision] == nil {
			err = fmt.Errorf("no istiod of revision %s is Ready in %s: there is %s", revision, m.Name(),
				words.And(slices.Sorted(maps.Keys(pages))))
		}
		page = pages[revision]
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(page, &known); err != nil {
		return nil, fmt.Errorf("reading istiod's clusters in %s: %w", m.Name(), err)
	}
	return known, nil
}
