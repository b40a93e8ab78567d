package embedded

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eastwest-lab/eastwest/lab/bundle"
	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
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

const uid = "0d1f6a52-9e2b-4c55-8a53-5a8e0f6f9d11"

// Two clusters made from one seed have no UID in common, and nothing else of an object changes.
func TestEachClusterGetsUIDsOfItsOwn(t *testing.T) {
	before, after := "k8s\x00\x0a\x04role\x2a\x24", "\x32\x00\x42"
	one := seed{{Key: []byte("/registry/roles/a"), Value: []byte(before + uid + after)}}
	a, b := one.renewed(), one.renewed()
	for _, each := range []seed{a, b} {
		require.Len(t, each, 1)
		value := string(each[0].Value)
		require.Equal(t, "/registry/roles/a", string(each[0].Key))
		require.True(t, strings.HasPrefix(value, before) && strings.HasSuffix(value, after), "%q", value)
		require.Len(t, value, len(one[0].Value))
		require.NotContains(t, value, uid)
	}
	require.NotEqual(t, a, b)
	require.Contains(t, string(one[0].Value), uid, "the seed stays as it is")
}

// An API server writes what a seed lacks, so an object is left out where it is not clear which text is its UID.
func TestOnlyObjectsWithOneUIDAreInASeed(t *testing.T) {
	all := seed{
		{Key: []byte("none"), Value: []byte("{}")},
		{Key: []byte("one"), Value: []byte(uid)},
		{Key: []byte("two"), Value: []byte(uid + "," + uid)},
	}
	require.Equal(t, all[1:2], all.plain())
}

// A seed that was made in another way is not taken.
func TestASeedIsNamedAfterAllItDependsOn(t *testing.T) {
	p := &Provider{Lab: cluster.Lab{Home: t.TempDir(), Bundle: &bundle.Bundle{}}}
	name := p.seedName([]byte("[]"))
	require.Equal(t, name, p.seedName([]byte("[]")))
	require.NotEqual(t, name, p.seedName([]byte("[1]")), "other definitions")
	other := *p
	other.Settings.Egress = true
	require.Equal(t, name, other.seedName([]byte("[]")), "a way out is nothing to an API server")
	kinds := seeded
	t.Cleanup(func() { seeded = kinds })
	seeded = kinds[1:]
	require.NotEqual(t, name, p.seedName([]byte("[]")), "other kinds")
}

// Two homes on one machine have makers of their own, so neither ends the other's.
func TestEachHomeHasItsMaker(t *testing.T) {
	a := &Provider{Lab: cluster.Lab{Home: "/a", Bundle: &bundle.Bundle{}}}
	b := &Provider{Lab: cluster.Lab{Home: "/b", Bundle: &bundle.Bundle{}}}
	require.NotEqual(t, a.maker().Lab, b.maker().Lab)
	require.Equal(t, a.maker(), a.maker())
}

// What was written in part, or not at all, is made again.
func TestADamagedSeedIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.json")
	require.False(t, goodSeed(path), "there is none")
	require.NoError(t, machine.WriteJSON(path, seed{{Key: []byte("a"), Value: []byte("b")}}))
	require.True(t, goodSeed(path))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, part := range [][]byte{nil, whole[:len(whole)/2], make([]byte, len(whole)), []byte("[]")} {
		require.NoError(t, os.WriteFile(path, part, 0o600))
		require.False(t, goodSeed(path), "%q", part)
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
