package host

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

func TestListsThatChangeAreReadAgain(t *testing.T) {
	asked := 0
	all, err := whole(func() ([]string, error) {
		if asked++; asked < 3 {
			return []string{"half"}, netlink.ErrDumpInterrupted
		}
		return []string{"one", "two"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, all)

	asked = 0
	_, err = whole(func() ([]string, error) { asked++; return nil, netlink.ErrDumpInterrupted })
	require.ErrorIs(t, err, netlink.ErrDumpInterrupted, "it does not ask for ever")
	require.Equal(t, 100, asked)

	broken := errors.New("broken")
	_, err = whole(func() ([]string, error) { return nil, broken })
	require.ErrorIs(t, err, broken)
}
