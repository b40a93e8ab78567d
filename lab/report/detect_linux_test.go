package report

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// On a real terminal (a pseudo-terminal of our own): color and a live line, unless the environment
// says otherwise.
func TestDetectOnATerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here (mount devpts on /dev/pts): %v", err)
	}
	defer master.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer terminal.Close()
	require.NoError(t, unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 132}))
	for _, c := range []struct {
		name, value string
		want        TerminalOptions
	}{
		{"TERM", "xterm", TerminalOptions{Color: true, Live: true, Width: 132}},
		{"NO_COLOR", "1", TerminalOptions{Live: true, Width: 132}},
		{"NO_COLOR", "", TerminalOptions{Color: true, Live: true, Width: 132}},
		{"TERM", "dumb", TerminalOptions{}},
	} {
		got := Detect(terminal, func(name string) string {
			if name == c.name {
				return c.value
			}
			return ""
		})
		assert.Equal(t, c.want, got, "%s=%s", c.name, c.value)
	}
}
