package look

import (
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mesh is what a picture shows: clusters, what in them has certificates, and which roots each of these has in use.
type Mesh struct {
	Title    string
	Clusters []Cluster
	Wires    []Wire
}

// Cluster is a box of the picture.
type Cluster struct {
	Name, Note string
	Holders    []Holder
}

// Holder is an istiod, a gateway, an app, or several of them that have the same.
type Holder struct {
	Name  string
	Roots []string // each is a circle; its color is the same in all pictures of a page
	Tip   string   // more about its certificates
}

// Wire says whether calls from one cluster to another are accepted.
type Wire struct {
	From, To, Says string
	Bad            bool
}

//go:embed mesh.html
var meshPage string

// The measures of a picture, in pixels.
const (
	boxWidth  = 360
	boxHead   = 44
	rowHeight = 28
	perRow    = 3
	gap       = 20
	nameWidth = 38 // characters that fit into a box beside circles
	headWidth = 44 // characters that fit into its head, with the note
	noteWidth = 16
	charWidth = 8 // at most, of a text
)

type drawnCluster struct {
	Cluster
	X, Y, Height    int
	Head, ShortNote string
	Rows            []drawnHolder
}

type drawnHolder struct {
	Holder
	Y, TextX int
	Short    string
	Circles  []circle
}

type circle struct {
	X             int
	Class, Number string
}

type drawnWire struct {
	Wire
	Y           int
	Text, Short string
}

type drawing struct {
	Mesh
	Width, Height int
	BoxWidth      int
	NoteX         int
	Boxes         []drawnCluster
	Lines         []drawnWire
	Legend        []legend
}

type legend struct {
	Class, Number, Root string
}

// Pictures draws meshes side by side in time: the same root has the same color in all of them. Each picture is followed by a table that
// says the same.
func Pictures(all []Mesh) (template.HTML, error) {
	var roots []string
	for _, m := range all {
		for _, c := range m.Clusters {
			for _, h := range c.Holders {
				roots = append(roots, h.Roots...)
			}
		}
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	join := func(list []string) string { return strings.Join(list, ", ") }
	t, err := template.New("mesh").Funcs(template.FuncMap{"join": join}).Parse(meshPage)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range all {
		if err := t.Execute(&b, draw(m, roots)); err != nil {
			return "", fmt.Errorf("drawing the mesh: %w", err)
		}
	}
	return template.HTML(b.String()), nil // the template has escaped it
}

func draw(m Mesh, roots []string) drawing {
	class := func(root string) string { return strconv.Itoa(Color(slices.Index(roots, root))) }
	number := func(root string) string { // tells roots apart that have the same color
		if i := slices.Index(roots, root); i != Color(i) {
			return strconv.Itoa(i + 1)
		}
		return ""
	}
	d := drawing{Mesh: m, Width: min(len(m.Clusters), perRow)*(boxWidth+gap) - gap + 2, BoxWidth: boxWidth, NoteX: boxWidth - 10}
	y := 1
	for row := range slices.Chunk(m.Clusters, perRow) {
		tallest := 0
		for i, c := range row {
			box := drawnCluster{Cluster: c, X: 1 + i*(boxWidth+gap), Y: y, Height: boxHead + rowHeight*max(len(c.Holders), 1)}
			box.ShortNote = short(c.Note, noteWidth)
			box.Head = short(c.Name, headWidth-utf8.RuneCountInString(box.ShortNote))
			tallest = max(tallest, box.Height)
			for n, h := range c.Holders {
				line := drawnHolder{Holder: h, Y: y + boxHead + rowHeight*n + 6, TextX: box.X + 34, Short: short(h.Name, nameWidth)}
				for k, root := range h.Roots {
					line.Circles = append(line.Circles, circle{box.X + 18 + 14*k, "f" + class(root), number(root)})
					line.TextX = box.X + 34 + 14*k
				}
				if len(h.Roots) == 0 {
					line.Circles = []circle{{box.X + 18, "fnone", ""}}
				}
				box.Rows = append(box.Rows, line)
			}
			d.Boxes = append(d.Boxes, box)
		}
		y += tallest + gap
	}
	for _, w := range m.Wires {
		text := fmt.Sprintf("%s → %s: %s", w.From, w.To, w.Says)
		d.Lines = append(d.Lines, drawnWire{w, y, text, short(text, d.Width/charWidth)})
		y += 22
	}
	d.Height = y
	for _, root := range roots {
		if slices.ContainsFunc(m.Clusters, func(c Cluster) bool {
			return slices.ContainsFunc(c.Holders, func(h Holder) bool { return slices.Contains(h.Roots, root) })
		}) {
			d.Legend = append(d.Legend, legend{"k" + class(root), number(root), root})
		}
	}
	return d
}

// short cuts a text to so many characters.
func short(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
