package report

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPasswordsOfProxiesAreTakenOut(t *testing.T) {
	assert.Equal(t, `"HTTP_PROXY=http://me:[redacted]@proxy.example:3128",`, Redact(`"HTTP_PROXY=http://me:s3cret!@proxy.example:3128",`))
	for _, text := range []string{"http://proxy.example:3128/a@b", "spiffe://cluster.local/ns/a/sa/b and me@example.com",
		"https://10.0.0.1:6443, as admin@cluster-a"} {
		assert.Equal(t, text, Redact(text))
	}
}

// material is real keys in every form that they have in a cluster.
type material struct {
	pem         []string
	base64      []string // of the first PEM, in lines of 76 as openssl writes them
	certificate string
}

func keys(t *testing.T) material {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var m material
	add := func(kind string, der []byte, err error) {
		require.NoError(t, err)
		m.pem = append(m.pem, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	der, err := x509.MarshalECPrivateKey(ec)
	add("EC PRIVATE KEY", der, err)
	add("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)
	for _, key := range []any{ec, rsaKey, ed} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		add("PRIVATE KEY", der, err)
	}
	add("ENCRYPTED PRIVATE KEY", []byte(strings.Repeat("only its label counts", 9)), nil)
	whole := base64.StdEncoding.EncodeToString([]byte(m.pem[0]))
	for len(whole) > 76 {
		m.base64 = append(m.base64, whole[:76])
		whole = whole[76:]
	}
	m.base64 = append(m.base64, whole)
	// A key of its own: the public half of those above stands in their files too.
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour)}
	der, err = x509.CreateCertificate(rand.Reader, template, template, root.Public(), root)
	require.NoError(t, err)
	m.certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return m
}

func TestRedactTakesEveryFormOfASecret(t *testing.T) {
	m := keys(t)
	token := "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJlLWluLWJhc2U2NA"
	for _, key := range m.pem {
		block, _ := pem.Decode([]byte(key))
		body := base64.StdEncoding.EncodeToString(block.Bytes)
		quoted, err := json.Marshal(key)
		require.NoError(t, err)
		kubeconfig := "users:\n- name: x\n  user:\n    client-key-data: " + base64.StdEncoding.EncodeToString([]byte(key)) + "\n"
		secretValue, err := json.Marshal(map[string]string{"cluster-b": base64.StdEncoding.EncodeToString([]byte(kubeconfig))})
		require.NoError(t, err)
		again, err := json.Marshal(string(secretValue))
		require.NoError(t, err)
		for form, text := range map[string]string{
			"PEM":                       key,
			"PEM after a certificate":   m.certificate + key,
			"PEM with Windows lines":    strings.ReplaceAll(key, "\n", "\r\n"),
			"PEM in JSON":               string(quoted),
			"PEM that is cut off":       key[:len(key)/2],
			"base64":                    base64.StdEncoding.EncodeToString([]byte(key)),
			"base64 behind a slash":     "data/" + base64.StdEncoding.EncodeToString([]byte(key)),
			"base64 behind two":         "a/b" + base64.StdEncoding.EncodeToString([]byte(key)),
			"base64 of a chain and key": base64.StdEncoding.EncodeToString([]byte(m.certificate + key)),
			"kubeconfig":                kubeconfig,
			"Secret with a kubeconfig":  string(secretValue),
			"the same in JSON":          string(again),
		} {
			got := Redact("before: x\n" + text + "\nafter")
			assert.Contains(t, got, redacted, form)
			assert.True(t, strings.HasPrefix(got, "before: x\n"), form)
			assertNothingOf(t, got, body, form)
			assertNothingOf(t, got, base64.StdEncoding.EncodeToString([]byte(key)), form)
			assert.Equal(t, got, Redact(got), "once is enough")
		}
		if block.Type != "ENCRYPTED PRIVATE KEY" {
			assert.Equal(t, "key "+redacted, Redact("key "+body), "a key without its PEM lines")
		}
	}
	wrapped := Redact("x: |\n  " + strings.Join(m.base64, "\n  ") + "\ny: z\n")
	for _, line := range m.base64 {
		assert.NotContains(t, wrapped, line)
	}
	for _, text := range []string{
		"token: " + token, `{"token":"` + token + `"}`, `{\"token\":\"` + token + `\"}`, "Authorization: Bearer " + token, "got " + token,
		"    token: 0123456789abcdef0123", "password=correcthorsebatterystaple", "id-token: 'a1b2c3d4e5f6a7b8c9d0'",
		"kubectl --token=0123456789abcdef0123",
	} {
		got := Redact(text)
		assert.Contains(t, got, redacted, text)
		assert.NotContains(t, got, token)
		assert.NotContains(t, got, "0123456789abcdef")
		assert.NotContains(t, got, "correcthorse")
	}
}

// assertNothingOf finds any 40 characters of a secret.
func assertNothingOf(t *testing.T, text, secret, form string) {
	t.Helper()
	for i := 0; i+40 <= len(secret); i += 20 {
		if strings.Contains(text, secret[i:i+40]) {
			t.Fatalf("%s: a part of the secret is left: %s", form, text)
		}
	}
}

func TestRedactLeavesWhatIsPublic(t *testing.T) {
	m := keys(t)
	for _, text := range []string{
		"", "short", m.certificate,
		"ca-cert.pem: " + base64.StdEncoding.EncodeToString([]byte(m.certificate)),
		"certificate-authority-data: " + base64.StdEncoding.EncodeToString([]byte(m.certificate)),
		"invalid token: expired", "found unexpected token: }",
		"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		"spiffe://cluster.local/ns/production/sa/client-with-a-long-name-for-the-test-of-it",
		"/apis/networking/istio/io/v1/namespaces/istiosystem/gateways/crossnetworkgateway/status",
		"scenarios/remote-secret-revoked/scenario.yaml:22:5: symptoms: calls on away",
		"outbound_.15443_._.echo.production.svc.cluster.local",
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat("harmless text ", 20))),
	} {
		assert.Equal(t, text, Redact(text))
	}
}

// Every sink guards itself: none relies on another having been first.
func TestEverySinkRedacts(t *testing.T) {
	m := keys(t)
	secret := m.pem[0] + base64.StdEncoding.EncodeToString([]byte(m.pem[1]))
	e := Event{
		Scenario: "s", Phase: "break", Name: "n " + secret, Command: secret, Wanted: secret, Seen: secret, Try: secret, Detail: secret,
		Result: Failed, Properties: map[string]string{"a": secret},
	}
	var events []Event
	for _, kind := range []Type{ScenarioStarted, PhaseStarted, StepStarted, StepEnded, Note, PhaseEnded, ScenarioEnded} {
		e.Type = kind
		events = append(events, e)
	}
	folder, err := NewFolder(t.TempDir())
	require.NoError(t, err)
	var quiet, story, log, junit, summary strings.Builder
	recording := &Recording{}
	environment := map[string]string{"GITHUB_ACTIONS": "true"}
	for _, sink := range []Sink{folder, recording, Terminal(&quiet, TerminalOptions{Live: true}),
		Terminal(&story, TerminalOptions{Verbose: true}),
		GitHub(&log, func(name string) string { return environment[name] })} {
		for _, e := range events {
			sink.Emit(e)
		}
	}
	require.NoError(t, folder.Close())
	kept, err := Read(folder.Dir())
	require.NoError(t, err)
	require.NoError(t, JUnit(&junit, events))
	require.NoError(t, JSON(&summary, Summarize(events)))
	all, err := json.Marshal([]any{kept, recording.Events()})
	require.NoError(t, err)
	for _, text := range []string{
		quiet.String(), story.String(), log.String(), junit.String(), summary.String(), string(all), markdown(events),
	} {
		assert.Contains(t, text, redacted)
		assert.NotContains(t, text, "PRIVATE KEY")
		assertNothingOf(t, text, base64.StdEncoding.EncodeToString([]byte(m.pem[1])), "sink")
	}
}
