package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/bundle"
)

// TestPlainProgressOfTheBundle plays what bundle.Build reports, on a clock of its own: downloads, packages, and a program whose
// linking takes minutes.
func TestPlainProgressOfTheBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		show := bundleLines(&out)
		// tick is what Build reports of the whole, every second.
		tick := func(seconds int, p bundle.Progress) {
			for range seconds {
				<-time.After(time.Second)
				show(p)
			}
		}
		show(bundle.Progress{Component: "pilot", State: bundle.Waiting})
		show(bundle.Progress{Component: "cni", State: bundle.Waiting, Detail: "was damaged"})
		show(bundle.Progress{Component: "pilot", State: bundle.Downloading, Detail: "k8s.io/api v0.36.1"})
		tick(25, bundle.Progress{State: bundle.Building, Detail: "pilot: downloading k8s.io/api v0.36.1"})
		show(bundle.Progress{Component: "pilot", State: bundle.Building, Total: 1762})
		show(bundle.Progress{Component: "pilot", State: bundle.Building, Total: 1762, Done: 3})
		tick(9, bundle.Progress{State: bundle.Building, Detail: "istio: 3 of 2272 packages", Share: 0.0199})
		tick(120, bundle.Progress{
			State: bundle.Building, Detail: "istio: 2272 of 2272 packages, linking pilot-discovery", Share: 0.5, Left: 154 * time.Second,
		})
		show(bundle.Progress{Component: "pilot", State: bundle.Packing, Detail: "eastwest.local/pilot:v1"})
		tick(2, bundle.Progress{State: bundle.Building, Detail: "pilot: packing", Share: 0.99, Left: time.Second})
		show(bundle.Progress{Component: "pilot", State: bundle.Done, Took: 131 * time.Second})
		show(bundle.Progress{Component: "cni", State: bundle.Failed, Detail: "building cni: no such luck"})

		var last float64
		for line := range strings.Lines(out.String()) {
			seconds, err := strconv.ParseFloat(strings.Fields(line)[0], 64)
			require.NoError(t, err, line)
			require.LessOrEqual(t, seconds-last, 10.0, "nothing was said for too long:\n%s", out.String())
			last = seconds
		}
		require.Equal(t, `    0.0 s  cni         was damaged
    9.0 s              pilot: downloading k8s.io/api v0.36.1
   18.0 s              pilot: downloading k8s.io/api v0.36.1
   25.0 s  pilot       building 1762 packages, less those in Go's cache
   34.0 s  1 %         istio: 3 of 2272 packages
   43.0 s  50 %        istio: 2272 of 2272 packages, linking pilot-discovery; about 3 min left
`, firstLines(out.String(), 6))
		require.Equal(t, `  154.0 s  pilot       packing eastwest.local/pilot:v1
  156.0 s  pilot       done in 2m11s
  156.0 s  cni         building cni: no such luck
`, lastLines(out.String(), 3))
	})
}

func firstLines(s string, n int) string { return strings.Join(strings.SplitAfter(s, "\n")[:n], "") }

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[len(lines)-1-n:], "")
}

// TestWaitingForAnotherBuild holds the reports of a build that waits for the folder's lock.
func TestWaitingForAnotherBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		show := bundleLines(&out)
		for range 12 {
			show(bundle.Progress{State: bundle.Waiting, Detail: "another eastwest builds or imports in /b"})
			<-time.After(time.Second)
		}
		require.Equal(t, "    0.0 s              waiting: another eastwest builds or imports in /b\n"+
			"    9.0 s              waiting: another eastwest builds or imports in /b\n", out.String())
	})
}

func TestTimeThatIsLeft(t *testing.T) {
	for d, want := range map[time.Duration]string{
		3 * time.Second: "a few seconds left", 10 * time.Second: "about 10 s left", 44 * time.Second: "about 40 s left",
		119 * time.Second: "about 120 s left", 2 * time.Minute: "about 2 min left", 630 * time.Second: "about 11 min left",
	} {
		require.Equal(t, want, left(d), fmt.Sprint(d))
	}
}
