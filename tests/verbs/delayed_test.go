package verbs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// held is how long istiod stands still. A change that does not wait for it returns in a fraction of that; one that waits cannot
// return before, however slow the machine is. It is shorter than the time after which istiod counts as not Ready.
const held = 3 * time.Second

// delayed freezes istiod of cluster A, makes a change, and lets istiod go on: the change must not return before, and what it
// changes must be in use at that moment, without another look.
func delayed(t *testing.T, m *mesh.Mesh) {
	labs.Nightly(t)
	istiod, err := m.Member(a)
	require.NoError(t, err)
	meshHas := func(setting string) func(context.Context) error {
		return func(ctx context.Context) error {
			page, err := istiod.IstiodDebug(ctx, "/debug/mesh")
			if err != nil {
				return err
			}
			var used map[string]any
			if err := json.Unmarshal(page, &used); err != nil {
				return err
			}
			if used[setting] == nil {
				return fmt.Errorf("istiod's mesh configuration has no %s", setting)
			}
			return nil
		}
	}
	lists := func(id string, wanted bool) func(context.Context) error {
		return func(ctx context.Context) error {
			known, err := istiod.Remotes(ctx, "")
			if err == nil && slices.ContainsFunc(known, func(r mesh.Remote) bool { return r.ID == id }) != wanted {
				err = fmt.Errorf("istiod lists %v", known)
			}
			return err
		}
	}
	has := func(kind, name string, wanted bool) func(context.Context) error {
		return func(ctx context.Context) error {
			page, err := istiod.IstiodDebug(ctx, "/debug/configz")
			if err != nil {
				return err
			}
			var known []unstructured.Unstructured
			if err := json.Unmarshal(page, &known); err != nil {
				return err
			}
			is := func(o unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name }
			if slices.ContainsFunc(known, is) != wanted {
				return fmt.Errorf("istiod has %s %s: %t", kind, name, !wanted)
			}
			return nil
		}
	}
	gateway := fault.Object{Kind: "gateways.networking.istio.io", Name: "cross-network-gateway", Namespace: mesh.SystemNamespace}
	for _, c := range []struct {
		name string
		do   fault.Fault
		used func(context.Context) error
	}{
		{"mesh-config", must(fault.MeshConfig([]string{a}, map[string]any{"accessLogEncoding": "JSON"})), meshHas("accessLogEncoding")},
		{"ca-certificates", fault.CACertificates([]string{a}, b), meshHas("caCertificates")},
		{"create-remote-secret", fault.CreateRemoteSecret(a, b, mesh.RemoteSecret{Name: "elsewhere"}), lists("elsewhere", true)},
		{"revoke-remote-secret", fault.RevokeRemoteSecret(a, b), lists(b, false)},
		{"apply", fault.Apply([]string{a}, "late.yaml", []byte(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: late, namespace: production}
spec: {mtls: {mode: STRICT}}
`)), has("PeerAuthentication", "late", true)},
		{"delete", fault.Delete([]string{a}, gateway), has("Gateway", gateway.Name, false)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, wait.Measure())
			before, err := observe.TakeBaseline(t.Context(), m)
			require.NoError(t, err)
			defer func() { require.NoError(t, fault.Restore(t.Context(), m, before)) }()
			require.NoError(t, fault.Freeze(istiodA).Inject(t.Context(), m))
			done := make(chan error, 1)
			go func() { done <- c.do.Inject(t.Context(), m) }()
			var early error
			select {
			case err := <-done:
				early = errors.Join(errors.New("the change returned while istiod stood still"), err)
			case <-time.After(held):
			}
			require.NoError(t, fault.Thaw(istiodA).Inject(t.Context(), m))
			require.NoError(t, early)
			require.NoError(t, <-done)
			require.NoError(t, c.used(t.Context()))
		})
	}
}
