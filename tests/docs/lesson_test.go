package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

// lessonShell runs a script of the lesson after `eval "$(eastwest env …)"`, with nothing of the user's own Kubernetes around it.
func lessonShell(t *testing.T, env, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -eo pipefail\neval \"$(eastwest env "+env+")\"\n"+script)
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Dir(string(eastwest))+":"+os.Getenv("PATH"), "KUBECONFIG=/nonexistent", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// theLessonsCommands are the lesson's own, word for word, in the lab of the README.
func theLessonsCommands(t *testing.T) {
	home := labs.Need(t)
	// The shell's HOME is another, and the bundle stays where it is.
	t.Setenv("EASTWEST_HOME", home)
	dir, err := bundle.DefaultDir()
	require.NoError(t, err)
	t.Setenv("EASTWEST_BUNDLE", dir)
	t.Setenv("EASTWEST_LAB", lab.DefaultName)

	t.Run("the gateway runs in both clusters", func(t *testing.T) {
		for _, cluster := range []string{"cluster-a", "cluster-b"} {
			out, err := lessonShell(t, "--context "+cluster, `kubectl get pod -n istio-system -l istio=eastwestgateway`)
			require.NoError(t, err, out)
			require.Regexp(t, `istio-eastwestgateway-\S+ +1/1 +Running`, out)
		}
	})

	t.Run("cluster A is given the remote secret of cluster B", func(t *testing.T) {
		out, err := lessonShell(t, "", `kubectl delete secret istio-remote-secret-cluster-b -n istio-system --context=cluster-a
istioctl create-remote-secret \
  --context=cluster-b \
  --name=cluster-b | kubectl apply -f - --context=cluster-a`)
		require.NoError(t, err, out)
		require.Contains(t, out, "secret/istio-remote-secret-cluster-b created")
	})

	t.Run("cluster A knows cluster B", func(t *testing.T) {
		var out string
		err := wait.Until(t.Context(), "cluster-b to be synced", wait.Options{Within: 20 * time.Second}, func(context.Context) (err error) {
			out, err = lessonShell(t, "", `istioctl remote-clusters --context=cluster-a | grep cluster-b | grep -i synced`)
			return err
		})
		require.NoError(t, err, out)
	})

	t.Run("a call inside the mesh is answered", func(t *testing.T) {
		out, err := lessonShell(t, "", `kubectl exec -n production my-pod -c istio-proxy -- \
  curl -s http://service-b.production.svc.cluster.local/healthz`)
		require.NoError(t, err, out)
		require.Contains(t, out, "Hostname=echo-")
		require.Contains(t, out, "URL=/healthz")
		// What the lesson does not say: a call of the proxy's own user does not pass the proxy. It is plain
		// text to a pod of the same cluster and says nothing about the border.
		require.Contains(t, out, "Cluster=cluster-a")
		require.NotContains(t, out, "X-Forwarded-Client-Cert")
	})

	t.Run("the gateway's log names the cluster whose border was crossed", func(t *testing.T) {
		// A gateway writes a connection down when it ends: a host with a connection per call shows at once.
		out, err := lessonShell(t, "", `kubectl exec -n production my-pod -c app -- \
  curl -s http://echo-cluster-b-fresh.production.svc.cluster.local/healthz`)
		require.NoError(t, err, out)
		require.Contains(t, out, "Cluster=cluster-b")
		within := wait.Options{Within: 20 * time.Second}
		require.NoError(t, wait.Until(t.Context(), "the call to appear in the log", within, func(context.Context) error {
			out, err := lessonShell(t, "--context cluster-b", `kubectl logs -n istio-system -l istio=eastwestgateway \
  -c istio-proxy | grep "cluster-b"`)
			if err == nil && !strings.Contains(out, "outbound_.80_._.echo-cluster-b-fresh.production.svc.cluster.local") {
				err = fmt.Errorf("only %s", out)
			}
			return err
		}))
	})

	t.Run("the fingerprints are equal", func(t *testing.T) {
		fingerprint := func(cluster string) string {
			out, err := lessonShell(t, "", `kubectl get secret cacerts -n istio-system --context=`+cluster+` \
  -o jsonpath='{.data.root-cert\.pem}' | base64 -d | openssl x509 -noout -fingerprint`)
			require.NoError(t, err, out)
			require.Regexp(t, `(?i)^sha1 Fingerprint=([0-9A-F]{2}:){19}[0-9A-F]{2}\n$`, out)
			return out
		}
		require.Equal(t, fingerprint("cluster-a"), fingerprint("cluster-b"))
	})

	t.Run("the user's own kubeconfig is not touched", func(t *testing.T) {
		out, err := lessonShell(t, "", `echo "$KUBECONFIG"; kubectl config current-context; kubectl config get-contexts -o name`)
		require.NoError(t, err, out)
		lines := strings.Fields(out)
		require.Contains(t, lines[0], lab.DefaultName)
		require.Equal(t, []string{"cluster-a", "cluster-a", "cluster-b"}, lines[1:])
	})
}
