package lab

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// told is a provider that writes down what it is asked.
type told struct {
	cluster.Provider
	calls []string
}

func (p *told) Check(context.Context) error { p.calls = append(p.calls, "check"); return nil }

func (p *told) Delete(context.Context, string) error { p.calls = append(p.calls, "delete"); return nil }

func (p *told) Claim(context.Context, string) (func(), error) {
	p.calls = append(p.calls, "claim")
	return func() {}, nil
}

// A name that is claimed stays claimed: nothing is removed between the claim and the making.
func TestWhatIsLeftGoesBeforeTheNameIsClaimed(t *testing.T) {
	home := t.TempDir()
	l := &Lab{Name: "demo", home: home, record: record{Name: "demo", Provider: Kind}}
	fresh := &told{}
	_, err := l.begin(t.Context(), fresh)
	require.NoError(t, err)
	require.Equal(t, []string{"check", "claim"}, fresh.calls)

	require.NoError(t, os.MkdirAll(labDir(home, "demo"), 0o755)) // what a crash has left
	again := &told{}
	_, err = l.begin(t.Context(), again)
	require.NoError(t, err)
	require.Equal(t, []string{"check", "delete", "claim"}, again.calls)
	require.NoDirExists(t, labDir(home, "demo"))
}
