package look

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestContrast holds the colors to level AA of https://www.w3.org/TR/WCAG21: 4.5 for text, 3 for what is drawn.
func TestContrast(t *testing.T) {
	palettes := strings.Split(style, ":root {")[1:]
	require.Len(t, palettes, 3, "light, dark and paper")
	for i, text := range palettes {
		colors := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z0-9]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(strings.SplitN(text, "}", 2)[0], -1) {
			colors[m[1]] = m[2]
		}
		for _, on := range []string{"paper", "shade", "shade2"} {
			for _, name := range []string{"ink", "soft", "link", "bad", "warn", "good"} {
				assert.GreaterOrEqualf(t, contrast(t, colors[name], colors[on]), 4.5, "palette %d: %s on %s", i, name, on)
			}
		}
		for _, on := range []string{"paper", "shade", "shade2", "fault", "mend"} {
			for _, name := range []string{"c0", "c1", "c2", "c3", "c4", "bad", "soft"} {
				assert.GreaterOrEqualf(t, contrast(t, colors[name], colors[on]), 3.0, "palette %d: %s on %s", i, name, on)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	light, dark := luminance(t, a), luminance(t, b)
	if light < dark {
		light, dark = dark, light
	}
	return (light + 0.05) / (dark + 0.05)
}

func luminance(t *testing.T, color string) float64 {
	t.Helper()
	var parts [3]uint8
	_, err := fmt.Sscanf(color, "#%02x%02x%02x", &parts[0], &parts[1], &parts[2])
	require.NoErrorf(t, err, "color %q", color)
	var linear [3]float64
	for i, p := range parts {
		c := float64(p) / 255
		if linear[i] = c / 12.92; c > 0.04045 {
			linear[i] = math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*linear[0] + 0.7152*linear[1] + 0.0722*linear[2]
}

// TestManyRootsAndLongNames has more roots than colors, and names that are longer than a box.
func TestManyRootsAndLongNames(t *testing.T) {
	arn := "arn:aws:eks:eu-central-1:123456789012:cluster/" + strings.Repeat("long-", 10)
	m := Mesh{Title: "t", Clusters: []Cluster{{Name: arn, Note: "network-1"}}, Wires: []Wire{{From: arn, To: arn, Says: "no", Bad: true}}}
	for i := range 7 {
		m.Clusters[0].Holders = append(m.Clusters[0].Holders, Holder{Name: arn, Roots: []string{fmt.Sprintf("root %d", i)}})
	}
	d := draw(m, []string{"root 0", "root 1", "root 2", "root 3", "root 4", "root 5", "root 6"})
	assert.LessOrEqual(t, len([]rune(d.Boxes[0].Head))+len(d.Boxes[0].ShortNote), headWidth)
	assert.LessOrEqual(t, len([]rune(d.Lines[0].Short))*charWidth, d.Width)
	assert.Equal(t, circle{19, "f0", ""}, d.Boxes[0].Rows[0].Circles[0])
	assert.Equal(t, circle{19, "f0", "6"}, d.Boxes[0].Rows[5].Circles[0])
	assert.Equal(t, legend{"k1", "7", "root 6"}, d.Legend[6])
	page, err := Pictures([]Mesh{m})
	require.NoError(t, err)
	assert.Contains(t, string(page), "<title>"+arn+" network-1</title>")
	assert.Contains(t, string(page), "<title>"+arn+" → "+arn+": no</title>")
	assert.Contains(t, string(page), `</span>6: root 5`)
}

func TestPolicyNamesWhatThePageHolds(t *testing.T) {
	policy := Policy("alert(1)")
	assert.Contains(t, policy, "default-src 'none'")
	assert.Contains(t, policy, "script-src "+Hash("alert(1)"))
	assert.Contains(t, policy, "style-src "+Hash(string(Style())))
	assert.NotContains(t, policy, "unsafe")
	assert.NotContains(t, Policy(), "script-src")
}
