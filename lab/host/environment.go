package host

import (
	"fmt"
	"os"
	"strings"
)

// Environment returns a variable of a process, as it was when the process was started.
func Environment(pid int, name string) (value string, ok bool) {
	all, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "", false // it has ended
	}
	for variable := range strings.SplitSeq(string(all), "\x00") {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value, true
		}
	}
	return "", false
}
