package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const pageText = `late: a title

  A story that was wrapped by hand
  at some other width.

break
   1. a step whose text is much longer than the terminal is wide
      $ kubectl get pods --all-namespaces --context=cluster-a
   2. another step
`

func TestPageFillsATerminal(t *testing.T) {
	var out strings.Builder
	p := NewPage(&out, TerminalOptions{Width: 40})
	for _, piece := range strings.SplitAfter(pageText, "w") { // in pieces that are no lines
		_, err := fmt.Fprint(p, piece)
		require.NoError(t, err)
	}
	require.NoError(t, p.Flush())
	assert.Equal(t, `late: a title

  A story that was wrapped by hand at
  some other width.

break
   1. a step whose text is much longer
      than the terminal is wide
      $ kubectl get pods --all-namespaces --context=cluster-a
   2. another step
`, out.String(), "commands stay whole")

	out.Reset()
	p = NewPage(&out, TerminalOptions{Width: 40, Color: true})
	fmt.Fprint(p, pageText)
	require.NoError(t, p.Flush())
	assert.Contains(t, out.String(), "\x1b[1mbreak\x1b[0m\n")
	assert.Contains(t, out.String(), "\x1b[36m$ kubectl get pods")
}

func TestPageLeavesAFileAsItIs(t *testing.T) {
	var out strings.Builder
	p := NewPage(&out, TerminalOptions{})
	fmt.Fprint(p, pageText)
	require.NoError(t, p.Flush())
	assert.Equal(t, pageText, out.String())
}

func TestFillKeepsExamples(t *testing.T) {
	assert.Equal(t, "a text that\nwas wrapped\n\n  eastwest run --until symptoms",
		Fill("a text\nthat was\nwrapped\n\n  eastwest run --until symptoms", 12))
}
