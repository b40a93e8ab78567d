package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/manifests"
)

var placeholder = regexp.MustCompile(`\$\{([A-Z]+)\}`)

// expand replaces every ${NAME} in a manifest by its value. A name without a value is an error.
func expand(file string, values map[string]string) ([]byte, error) {
	text, err := fs.ReadFile(manifests.FS, file)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	var missing []string
	out := placeholder.ReplaceAllFunc(text, func(m []byte) []byte {
		name := string(m[2 : len(m)-1])
		value, ok := values[name]
		if !ok {
			missing = append(missing, name)
		}
		return []byte(value)
	})
	if len(missing) > 0 {
		return nil, fmt.Errorf("filling in manifests/%s: no value for %s", file, strings.Join(missing, ", "))
	}
	return out, nil
}

// render returns the objects that `istioctl manifest generate -f FILE…` prints. The result is stored in the folder cache
// under the hash of everything that it depends on, so a second lab renders nothing.
func (i Istio) render(ctx context.Context, cache string, files ...string) ([]object, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "1\n%s\n", i.Digest)
	args := []string{"manifest", "generate"}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("rendering Istio's manifests: %w", err)
		}
		fmt.Fprintf(sum, "%d\n%s", len(data), data)
		args = append(args, "-f", file)
	}
	var kept string
	if cache != "" {
		kept = filepath.Join(cache, "istio-"+hex.EncodeToString(sum.Sum(nil))[:16]+".json")
		if objects, err := readObjects(kept); err == nil {
			return objects, nil
		} // it is missing or damaged: render again
	}
	cmd := exec.CommandContext(ctx, i.Istioctl, args...)
	// Without a kubeconfig istioctl cannot ask a cluster: the result depends only on the files.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+os.DevNull)
	out, err := host.Output(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("rendering Istio's manifests: %w", err)
	}
	objects, err := decode([]byte(out))
	if err != nil {
		return nil, fmt.Errorf("rendering Istio's manifests: %w", err)
	}
	if kept != "" {
		data, err := json.Marshal(objects)
		if err == nil {
			err = writeFile(kept, data, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("keeping Istio's manifests: %w", err)
		}
	}
	return objects, nil
}

func readObjects(file string) ([]object, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var objects []object
	return objects, json.Unmarshal(data, &objects)
}

// object is a Kubernetes object as JSON, with what is needed to find it in the API.
type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Namespace  string          `json:"namespace,omitempty"`
	Name       string          `json:"name"`
	JSON       json.RawMessage `json:"object"`
}

func (o object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// decode reads YAML documents. It skips empty ones.
func decode(manifest []byte) ([]object, error) {
	var objects []object
	for i, doc := range bytes.Split(append([]byte("\n"), manifest...), []byte("\n---")) {
		data, err := yaml.YAMLToJSON(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if string(data) == "null" {
			continue
		}
		var head struct {
			APIVersion string
			Kind       string
			Metadata   struct{ Name, Namespace string }
		}
		if err := json.Unmarshal(data, &head); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if head.APIVersion == "" || head.Kind == "" || head.Metadata.Name == "" {
			return nil, fmt.Errorf("document %d: it needs apiVersion, kind and metadata.name", i+1)
		}
		objects = append(objects, object{head.APIVersion, head.Kind, head.Metadata.Namespace, head.Metadata.Name, data})
	}
	return objects, nil
}
