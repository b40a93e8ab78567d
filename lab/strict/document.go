package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	// MaxSize is how many bytes a file may have. Files that people write have some 3,000.
	MaxSize = 1 << 20
	// maxDepth bounds lists and mappings inside each other. Files that people write have 6, a free patch perhaps 15.
	maxDepth = 32
)

// ReadFile returns the content of a file. A file that is too large is not read, and its error is a *Problems. Neither is
// anything that is not a file: to open a pipe would wait forever.
func (f *Format) ReadFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file (a %s is a file, such as %s)", path, f.Name, filepath.Join(path, f.File))
	}
	if info.Size() > MaxSize {
		return nil, f.tooLarge(path, info.Size())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxSize+1)) // it may have grown since
	if err == nil && len(data) > MaxSize {
		return nil, f.tooLarge(path, int64(len(data)))
	}
	return data, err
}

func (f *Format) tooLarge(path string, size int64) *Problems {
	return &Problems{List: []Problem{{
		Place:  Place{File: path, Line: 1, Column: 1},
		What:   "the file is too large",
		Wanted: fmt.Sprintf("at most %d bytes", MaxSize),
		Seen:   fmt.Sprintf("%d bytes", size),
		Try:    f.Shrink,
	}}}
}

// Documents parses YAML. Each document is a node with one child, or with none if the document is empty.
func Documents(data []byte) ([]yaml.Node, error) {
	var documents []yaml.Node
	limit := yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth)))
	err := yaml.Load(data, &documents, yaml.WithAllDocuments(), limit)
	return documents, err
}

// Document parses the file and returns the content of its one document, for Decode. It returns nil if there is none,
// which it has reported then.
func (r *Reader) Document(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		r.problems = append(r.problems, r.format.tooLarge(r.file, int64(len(data))).List...)
		return nil
	}
	if !r.text(data) {
		return nil
	}
	documents, err := Documents(data)
	if err != nil {
		r.syntax(data, err)
		return nil
	}
	name := r.format.Name
	if len(documents) > 1 {
		r.Add(&documents[1], Problem{What: "a second YAML document", Wanted: "one document in the file",
			Seen: fmt.Sprintf("%d documents", len(documents)), Try: "remove the --- line, or make it a " + name + " of its own"})
	}
	var root *yaml.Node
	if len(documents) > 0 && len(documents[0].Content) > 0 {
		root = documents[0].Content[0]
	}
	if root == nil || isNull(root) {
		r.problems = append(r.problems, Problem{Place: Place{r.file, 1, 1}, What: "the file is empty",
			Wanted: "a " + name, Seen: fmt.Sprintf("%d bytes without content", len(data)), Try: r.format.Begin})
		return nil
	}
	return root
}

// text reports the first byte that cannot stand in such a file: the YAML library has no place for it.
func (r *Reader) text(data []byte) bool {
	place := Place{File: r.file, Line: 1, Column: 1}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			r.problems = append(r.problems, Problem{Place: place, What: "the file is not UTF-8 text", Wanted: "UTF-8",
				Seen: fmt.Sprintf("byte 0x%02x at offset %d", data[i], i), Try: "iconv -f LATIN1 -t UTF-8 " + r.file})
			return false
		case c < 0x20 && c != '\t' && c != '\n' && c != '\r', c == 0xFFFE, c == 0xFFFF:
			r.problems = append(r.problems, Problem{Place: place, What: "a control character",
				Wanted: "text", Seen: fmt.Sprintf("%U at offset %d", c, i), Try: "delete the character"})
			return false
		case c == '\n', c == '\r' && !bytes.HasPrefix(data[i+1:], []byte("\n")):
			place.Line++
			place.Column = 1
		case c != '\uFEFF' || i > 0: // a byte order mark has no width
			place.Column++
		}
		i += n
	}
	return true
}

// syntax turns the YAML library's error into a problem.
func (r *Reader) syntax(data []byte, err error) {
	p := Problem{Place: Place{File: r.file, Line: 1, Column: 1}, What: "not YAML: " + err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		p.What = "not YAML: " + load.Message
		if load.Mark.Line > 0 {
			p.Place.Line, p.Place.Column = load.Mark.Line, max(1, load.Mark.Column)
		}
		if load.ContextMsg != "" {
			p.Seen = load.ContextMsg
			if load.ContextMark.Line > 0 && load.ContextMark != load.Mark {
				p.Seen += fmt.Sprintf(" that starts at line %d, column %d", load.ContextMark.Line, load.ContextMark.Column)
			}
		}
		p.Try = r.advice(load.Message, at(data, load.Mark.Line, load.Mark.Column))
	}
	r.problems = append(r.problems, p)
}

// at returns the byte in that line and column of a text, counted from 1; 0 if there is none.
func at(data []byte, line, column int) byte {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1]) {
		return 0
	}
	return lines[line-1][column-1]
}

// advice says what to do about the library's messages that people meet. The byte is the one that the message is about.
func (r *Reader) advice(message string, c byte) string {
	switch {
	case c == '\t', strings.Contains(message, "tab character"):
		return "indent with spaces, never with tabs"
	case strings.Contains(message, "max depth"):
		return fmt.Sprintf("a %s nests lists and mappings at most %d deep", r.format.Name, maxDepth)
	case strings.Contains(message, "mapping values are not allowed"):
		return `a text with ": " in it needs quotes; a field needs a space after its colon`
	case strings.Contains(message, "cannot start any token"):
		return "put a text that starts with a special character into quotes"
	case strings.Contains(message, "expected ',' or"):
		return "close the bracket or brace, or put a comma between the items"
	case strings.Contains(message, "did not find expected key"):
		return "indent the fields of one mapping alike"
	case strings.Contains(message, "unexpected end of stream"):
		return "close the quote"
	}
	return ""
}

// plain refuses what would make the file say something else than what stands there.
func (r *Reader) plain(n *yaml.Node) {
	const wanted = "plain YAML: what stands there is what is meant"
	refuse := func(n *yaml.Node, what, try string) { r.Add(n, Problem{What: what, Wanted: wanted, Try: try}) }
	switch {
	case n.Kind == yaml.AliasNode:
		refuse(n, "the alias *"+n.Value, "write the value out")
	case n.Anchor != "":
		refuse(n, "the anchor &"+n.Anchor, "remove it, and write the value out where it is used")
	case n.Style&yaml.TaggedStyle != 0:
		refuse(n, "the tag "+n.ShortTag(), "remove it; put a text that looks like a number into quotes")
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && isMerge(child) {
			refuse(child, "the merge key <<", "write the fields out")
		}
		r.plain(child)
	}
}

func isMerge(key *yaml.Node) bool { return key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" }
