package scenarios

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/catalogue"
	"github.com/eastwest-lab/eastwest/lab/scenario"
)

const (
	providersTable = "providers.md"
	measuredKind   = "measured-kind.json"
)

// TestProvidersTableIsCurrent holds providers.md to what was measured on each provider.
func TestProvidersTableIsCurrent(t *testing.T) {
	data, err := os.ReadFile(measuredKind)
	require.NoError(t, err)
	onKind, err := catalogue.ParseMeasurements(measuredKind, data)
	require.NoError(t, err)
	for name := range onKind {
		assert.FileExists(t, name+"/scenario.yaml", "%s has %s: take it out", measuredKind, name)
	}
	text := differences(load(t), measured(t), onKind)
	if *update {
		require.NoError(t, os.WriteFile(providersTable, []byte(text), 0o644))
	}
	current, err := os.ReadFile(providersTable)
	require.NoError(t, err)
	require.True(t, string(current) == text, "%s is not what the files say; run `make generate`", providersTable)
}

// differences is the table of what is another on kind.
func differences(all []*scenario.Scenario, embedded, kind catalogue.Measurements) string {
	var b strings.Builder
	b.WriteString(`# The same scenarios on embedded and on kind

<!-- Written by ` + "`make generate`" + ` from measured.json and measured-kind.json. -->

The files are the same, and so is everything that they demand. This is what may differ all the same: seconds, and the texts that the
checks of the symptoms saw. In texts · stands for what is another in every run: numbers, addresses, names of pods, identifiers.
Measured by ` + "`eastwest bench scenarios --lanes 1 --provider …`" + `, one scenario at a time on a live lab, on a machine with 2 CPUs.

| scenario | embedded | kind | kind / embedded | symptoms |
| --- | ---: | ---: | ---: | --- |
`)
	var texts strings.Builder
	for _, s := range all {
		e, onEmbedded := embedded[s.Name]
		k, onKind := kind[s.Name]
		seconds := func(m catalogue.Measurement, ok bool) string {
			if !ok {
				return none
			}
			return fmt.Sprintf("%.1f s", m.Seconds)
		}
		ratio, symptoms := none, none
		if onEmbedded && onKind {
			ratio = fmt.Sprintf("%.2f", k.Seconds/e.Seconds)
		}
		if len(e.Symptoms) > 0 && len(e.Symptoms) == len(k.Symptoms) {
			differ := 0
			for i := range e.Symptoms {
				if e.Symptoms[i] != k.Symptoms[i] {
					if differ++; differ == 1 {
						fmt.Fprintf(&texts, "\n### %s\n", s.Name)
					}
					fmt.Fprintf(&texts, "\n- embedded: `%s`\n- kind: `%s`\n", oneLine(e.Symptoms[i]), oneLine(k.Symptoms[i]))
				}
			}
			symptoms = fmt.Sprintf("%d, the same texts", len(e.Symptoms))
			if differ > 0 {
				symptoms = fmt.Sprintf("%d, of them %d [in other words](#%s)", len(e.Symptoms), differ, s.Name)
			}
		}
		row(&b, fmt.Sprintf("[%s](%[1]s/scenario.yaml)", s.Name), seconds(e, onEmbedded), seconds(k, onKind), ratio, symptoms)
	}
	if texts.Len() > 0 {
		b.WriteString("\n## Symptoms in other words\n" + texts.String())
	}
	return b.String()
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "`", "'")
}
