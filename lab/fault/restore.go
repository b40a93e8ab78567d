package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// settled is how long a mesh may take to show that it is as it was, once all has been put back.
const settled = 30 * time.Second

// Restore puts back what undoing leaves: the Secrets that trust and discovery hang on, and what proxies and
// istiod still hold of others. Nothing is restarted that is as it was. The error tells what still differs.
func Restore(ctx context.Context, m *mesh.Mesh, want observe.Baseline) error {
	now, err := observe.TakeBaseline(ctx, m)
	if err != nil {
		return err
	}
	if len(want.Diff(now)) == 0 {
		return nil
	}
	secrets, secretsCtx := errgroup.WithContext(ctx)
	for _, member := range m.Members {
		secrets.Go(func() error { return restoreSecrets(secretsCtx, member, want.Secrets(member.Name())) })
	}
	if err := secrets.Wait(); err != nil {
		return err
	}
	if in := want.Distrusted(now); len(in) > 0 {
		istiods, served := sharing(m, in)
		for _, restart := range []Fault{RestartIstiod(istiods), RestartWorkloads(served)} {
			if _, err := restart.Inject(ctx, m); err != nil {
				return err
			}
		}
	}
	return wait.Until(ctx, "the mesh to be as it was", wait.Options{Within: settled, Every: time.Second}, func(ctx context.Context) error {
		now, err := observe.TakeBaseline(ctx, m)
		if err != nil {
			return err
		}
		if differences := want.Diff(now); len(differences) > 0 {
			return errors.New(strings.Join(differences, "; "))
		}
		return nil
	})
}

// sharing returns the clusters whose istiods sign for any of those named, and all that these istiods serve.
func sharing(m *mesh.Mesh, clusters []string) (istiods, served []string) {
	for _, name := range clusters {
		member, err := m.Member(name)
		if err != nil || slices.Contains(istiods, member.Spec.Primary) {
			continue
		}
		istiods = append(istiods, member.Spec.Primary)
		for _, s := range m.ServedBy(member.Spec.Primary) {
			served = append(served, s.Name())
		}
	}
	return istiods, served
}

func restoreSecrets(ctx context.Context, member *mesh.Member, want map[string]*corev1.Secret) error {
	list, err := member.Kube.CoreV1().Secrets(mesh.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("restoring the Secrets of %s: %w", member.Name(), err)
	}
	for _, s := range list.Items {
		if want[s.Name] == nil && observe.Matters(&s) {
			err := member.Kube.CoreV1().Secrets(mesh.SystemNamespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("restoring the Secrets of %s: %w", member.Name(), err)
			}
		}
	}
	for _, s := range want {
		if err := putSecret(ctx, member, s); err != nil {
			return fmt.Errorf("restoring the Secrets of %s: %w", member.Name(), err)
		}
	}
	return nil
}
