package embedded

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// etcd's JSON gateway takes and returns bytes in base64.
func TestPairsAreWrittenAsEtcdWantsThem(t *testing.T) {
	data, err := json.Marshal(keyValue{Key: []byte("/registry/roles/a"), Value: []byte("k8s\x00")})
	require.NoError(t, err)
	require.JSONEq(t, `{"key": "L3JlZ2lzdHJ5L3JvbGVzL2E=", "value": "azhzAA=="}`, string(data))
}

// What tells one cluster from another must not be shared by all.
func TestNoIdentityIsInASeed(t *testing.T) {
	for _, kind := range []string{
		"namespaces", "serviceaccounts", "services", "secrets", "configmaps", "leases", "ipaddresses", "servicecidrs", "masterleases",
	} {
		require.NotContains(t, seeded, "/registry/"+kind+"/")
	}
}

func TestConditionsOfObjects(t *testing.T) {
	var o unstructured.Unstructured
	text := `{"status": {"conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "False"}]}}`
	require.NoError(t, json.Unmarshal([]byte(text), &o.Object))
	require.True(t, hasCondition(&o, "NamesAccepted", "True"))
	require.False(t, hasCondition(&o, "Established", "True"))
	require.False(t, hasCondition(&o, "Other", "True"))
}
