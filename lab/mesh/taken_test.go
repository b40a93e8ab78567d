package mesh

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIstiodUsesAMergePatch(t *testing.T) {
	parse := func(text string) map[string]any {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &m), text)
		return m
	}
	for _, c := range []struct{ used, before, patch, problem string }{
		{`{"trustDomain": "cluster.local"}`, `{}`, `{"trustDomainAliases": ["old.example"]}`, `trustDomainAliases is null`},
		{`{"trustDomainAliases": ["old.example"]}`, `{}`, `{"trustDomainAliases": ["old.example"]}`, ""},
		{`{"trustDomainAliases": ["a", "b"]}`, `{}`, `{"trustDomainAliases": ["a"]}`, `trustDomainAliases is ["a","b"]`},
		{`{"trustDomainAliases": ["a"]}`, `{"trustDomainAliases": ["a"]}`, `{"trustDomainAliases": null}`, `trustDomainAliases is still ["a"]`},
		{`{}`, `{"trustDomainAliases": ["a"]}`, `{"trustDomainAliases": null}`, ""},
		{`{"connectTimeout": "10s"}`, `{"connectTimeout": "3s"}`, `{"connectTimeout": null}`, ""},
		{`{}`, `{}`, `{"enableTracing": false}`, ""},
		{`{}`, `{}`, `{"enableTracing": true}`, `enableTracing is null`},
		{`{"caCertificates": [{"pem": "x", "trustDomains": []}]}`, `{}`, `{"caCertificates": [{"pem": "x"}]}`, ""},
		{`{"caCertificates": [{"pem": "y"}]}`, `{}`, `{"caCertificates": [{"pem": "x"}]}`, `caCertificates is [{"pem":"y"}]`},
		{
			`{"defaultConfig": {"concurrency": 1, "proxyMetadata": {"A": "1"}}}`, `{"defaultConfig": {"concurrency": 1}}`,
			`{"defaultConfig": {"proxyMetadata": {"A": "1", "B": "2"}}}`, `defaultConfig.proxyMetadata.B is null`,
		},
		{`{"defaultConfig": {"concurrency": 1}}`, `{}`, `{"defaultConfig": {"concurrency": 1}}`, ""},
	} {
		err := differs("", parse(c.used), parse(c.before), parse(c.patch))
		if c.problem == "" {
			assert.NoError(t, err, "%+v", c)
		} else {
			assert.EqualError(t, err, c.problem, "%+v", c)
		}
	}
}

func TestResourceVersionsAreNumbers(t *testing.T) {
	assert.True(t, older("99", "100"))
	assert.True(t, older("100", "101"))
	assert.False(t, older("101", "101"))
	assert.False(t, older("1000", "999"))
}
