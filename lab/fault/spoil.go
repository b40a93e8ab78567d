package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/pki"
	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Spoiled says how the Secret cacerts is made wrong. The rest of the Secret stays as it is.
type Spoiled struct {
	// Keys that get another name.
	Rename map[string]string `yaml:"rename"`
	// Keys that go away.
	Remove strict.List[string] `yaml:"remove"`
	// Keys whose file becomes empty.
	Empty strict.List[string] `yaml:"empty"`
	// ca-key.pem becomes a private key that belongs to no certificate of it.
	OtherKey bool `yaml:"other-key"`
	// The namespace that the Secret is moved to.
	MoveTo string `yaml:"move-to" ref:"namespace"`
}

// Validate wants something to make wrong.
func (o Spoiled) Validate() error {
	if len(o.Rename)+len(o.Remove)+len(o.Empty) == 0 && !o.OtherKey && o.MoveTo == "" {
		return errors.New("want something to make wrong: rename, remove, empty, other-key, or move-to")
	}
	return nil
}

// changes returns phrases that say what is changed.
func (o Spoiled) changes() []string {
	var changes []string
	for _, from := range sortedKeys(o.Rename) {
		changes = append(changes, fmt.Sprintf("call its key %s %s", from, o.Rename[from]))
	}
	for _, key := range o.Remove {
		changes = append(changes, "take its key "+key+" away")
	}
	for _, key := range o.Empty {
		changes = append(changes, "empty its key "+key)
	}
	if o.OtherKey {
		changes = append(changes, "give it another private key")
	}
	if o.MoveTo != "" {
		changes = append(changes, "move it to namespace "+o.MoveTo)
	}
	return changes
}

// command is what a person would type for one cluster.
func (o Spoiled) command(c string) string {
	const patch = "kubectl patch secret cacerts -n istio-system --context=%s --type=json -p '[%s]'"
	operation := func(op, key, more string) string {
		return fmt.Sprintf(`{"op":"%s","path":"/data/%s"%s}`, op, key, more)
	}
	var operations []string
	for _, from := range sortedKeys(o.Rename) {
		operations = append(operations, operation("move", o.Rename[from], fmt.Sprintf(`,"from":"/data/%s"`, from)))
	}
	for _, key := range o.Remove {
		operations = append(operations, operation("remove", key, ""))
	}
	for _, key := range o.Empty {
		operations = append(operations, operation("replace", key, `,"value":""`))
	}
	if o.OtherKey {
		operations = append(operations, operation("replace", pki.CAKeyFile,
			`,"value":"'$(openssl ecparam -name prime256v1 -genkey -noout | base64 -w0)'"`))
	}
	var lines []string
	if len(operations) > 0 {
		lines = append(lines, fmt.Sprintf(patch, c, strings.Join(operations, ",")))
	}
	if o.MoveTo != "" {
		lines = append(lines, fmt.Sprintf("kubectl get secret cacerts -n istio-system --context=%[1]s -o yaml"+
			" | sed 's/namespace: istio-system/namespace: %[2]s/' | kubectl create --context=%[1]s -f -"+
			" && kubectl delete secret cacerts -n istio-system --context=%[1]s", c, o.MoveTo))
	}
	return strings.Join(lines, "\n")
}

// SpoilCACerts makes the Secret cacerts of clusters wrong, in ways in which people make it wrong.
func SpoilCACerts(in []string, o Spoiled) Fault {
	return &change{
		sentence: fmt.Sprintf("spoil the Secret cacerts of %s: %s", words.And(in), words.And(o.changes())),
		commands: commandsIn(in, o.command),
		in:       in,
		inject: injectIn(in, func(ctx context.Context, m *mesh.Mesh, member *mesh.Member) error {
			now, err := member.Kube.CoreV1().Secrets(mesh.SystemNamespace).Get(ctx, mesh.CACerts, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("reading Secret %s: %w", mesh.CACerts, err)
			}
			data, err := o.spoil(now.Data)
			if err != nil {
				return err
			}
			if o.MoveTo == "" {
				return putCACerts(ctx, m, member, data)
			}
			elsewhere := member.Kube.CoreV1().Secrets(o.MoveTo)
			moved := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: mesh.CACerts, Labels: m.Labels()}, Data: data}
			if _, err := elsewhere.Create(ctx, moved, metav1.CreateOptions{FieldManager: mesh.FieldManager}); err != nil {
				return fmt.Errorf("creating Secret %s in namespace %s: %w", mesh.CACerts, o.MoveTo, err)
			}
			return member.DeleteCACerts(ctx)
		}),
	}
}

// spoil returns the data with the changes. A key that is to be changed and is not there is an error.
func (o Spoiled) spoil(now map[string][]byte) (map[string][]byte, error) {
	data := map[string][]byte{}
	for key, value := range now {
		switch {
		case o.Rename[key] != "":
			data[o.Rename[key]] = value
		case slices.Contains(o.Remove, key):
		case slices.Contains(o.Empty, key):
			data[key] = []byte{}
		default:
			data[key] = value
		}
	}
	if o.OtherKey {
		private, _, err := pki.NewKeyPair()
		if err != nil {
			return nil, err
		}
		data[pki.CAKeyFile] = private
	}
	for _, key := range slices.Concat(sortedKeys(o.Rename), o.Remove, o.Empty) {
		if now[key] == nil {
			return nil, fmt.Errorf("Secret %s has no key %s: it has %s", mesh.CACerts, key, words.And(sortedKeys(now))) //nolint:revive // a kind
		}
	}
	return data, nil
}
