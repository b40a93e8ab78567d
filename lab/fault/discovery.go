package fault

import (
	"cmp"
	"context"
	"fmt"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// RevokeRemoteSecret takes from the istiod of one cluster its access to the API server of another.
func RevokeRemoteSecret(in, of string) Fault {
	return &change{
		sentence: fmt.Sprintf("delete the remote secret of %s in %s", of, in),
		commands: []string{fmt.Sprintf("kubectl delete secret %s -n istio-system --context=%s", mesh.RemoteSecretName(of), in)},
		in:       []string{in, of},
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			member, err := m.Member(in)
			if err != nil {
				return err
			}
			return member.DeleteRemoteSecret(ctx, of)
		},
	}
}

// CreateRemoteSecret gives the istiod of one cluster access to the API server of another. With o it can be access that does
// not work.
func CreateRemoteSecret(in, of string, o mesh.RemoteSecret) Fault {
	id := cmp.Or(o.Name, of)
	sentence := fmt.Sprintf("create the remote secret of %s in %s", of, in)
	command := fmt.Sprintf("istioctl create-remote-secret --context=%s --name=%s", of, id)
	if o.Name != "" {
		sentence += ", under the name " + o.Name
	}
	if o.Server != "" {
		sentence += ", with the address " + o.Server
		command += " --server=" + o.Server
	}
	if o.Token != "" {
		sentence += ", with other credentials"
		command += " | sed 's/token: .*/token: " + o.Token + "/'"
	}
	return &change{
		sentence: sentence,
		commands: []string{command + " | kubectl apply -f - --context=" + in},
		in:       []string{in, of},
		inject: func(ctx context.Context, m *mesh.Mesh) error {
			member, err := m.Member(in)
			if err != nil {
				return err
			}
			other, err := m.Member(of)
			if err != nil {
				return err
			}
			return member.CreateRemoteSecret(ctx, other, o)
		},
	}
}
