package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyTheCapabilityIsTaken(t *testing.T) {
	for name, c := range map[string]struct{ before, after string }{
		"container": {
			`{"ociVersion":"1.0.2","process":{"capabilities":{"bounding":["CAP_SYS_RESOURCE","CAP_SYS_ADMIN"]},"cwd":"/"},"linux":{"x":1}}`,
			`{"ociVersion":"1.0.2","process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]},"cwd":"/"},"linux":{"x":1}}`,
		},
		"process": {
			`{"args":["sh"],"capabilities":{"effective":["CAP_SYS_RESOURCE"],"permitted":["CAP_CHOWN"]},"cwd":"/"}`,
			`{"args":["sh"],"capabilities":{"effective":[],"permitted":["CAP_CHOWN"]},"cwd":"/"}`,
		},
		"process without capabilities": {`{"args":["sh"],"cwd":"/"}`, `{"args":["sh"],"cwd":"/"}`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			require.NoError(t, os.WriteFile(file, []byte(c.before), 0o600))
			require.NoError(t, without(file))
			after, err := os.ReadFile(file)
			require.NoError(t, err)
			require.JSONEq(t, c.after, string(after))
		})
	}
}

// TestCommandLines holds the forms in which containerd's shim calls runc.
func TestCommandLines(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"--root", "/r", "--log", "/l", "create", "--bundle", "/b", "--pid-file", "/p", "id"}, []string{"/b/config.json"}},
		{[]string{"run", "--bundle=/b", "id"}, []string{"/b/config.json"}},
		{[]string{"--root", "/r", "exec", "--process", "/p.json", "--detach", "id"}, []string{"/p.json"}},
		{[]string{"--root", "/r", "exec", "id", "sh"}, nil},
		{[]string{"--root", "/r", "delete", "--force", "id"}, nil},
	} {
		require.Equal(t, c.want, asks(c.args), "%v", c.args)
	}
}
