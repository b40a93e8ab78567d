package report

import (
	"io"
	"regexp"
	"strings"
)

// Page lays plain text out for a terminal: paragraphs are filled to its width, titles are bold, and commands are colored but never
// broken, so that they can be copied. Text that does not go to a terminal passes through as it is.
//
// A line without indentation is a title. Lines of one indentation are a paragraph; one that begins with a number or a mark begins a
// new one. A line that begins with $ or # is a command or its comment.
type Page struct {
	out       io.Writer
	o         TerminalOptions
	rest      string // of a line that has not ended
	paragraph string // that is being filled
	err       error
}

// maxColumn is the longest line that people read with ease.
const maxColumn = 100

// NewPage returns a page. Flush has to be called at its end.
func NewPage(w io.Writer, o TerminalOptions) *Page { return &Page{out: w, o: o} }

// Write implements io.Writer.
func (p *Page) Write(data []byte) (int, error) {
	if p.o.Width == 0 {
		return p.out.Write(data)
	}
	p.rest += string(data)
	for {
		line, rest, ended := strings.Cut(p.rest, "\n")
		if !ended {
			return len(data), p.err
		}
		p.rest = rest
		p.line(strings.TrimRight(line, " "))
	}
}

// Flush writes what is left, and returns the first error of writing.
func (p *Page) Flush() error {
	if p.rest != "" {
		p.line(p.rest)
		p.rest = ""
	}
	p.endParagraph()
	return p.err
}

// item matches the beginning of a numbered step or of one of a list.
var item = regexp.MustCompile(`^ *(\d+\.|[-*•✓✗]) +`)

func (p *Page) line(line string) {
	text := strings.TrimLeft(line, " ")
	indent := len(line) - len(text)
	switch {
	case text == "":
		p.endParagraph()
		p.put("")
	case strings.HasPrefix(text, "$ "), strings.HasPrefix(text, "# "):
		p.endParagraph()
		p.put(line[:indent] + p.o.paint(cyan, text))
	case indent == 0:
		p.endParagraph()
		for _, part := range wrap(line, p.width()) {
			p.put(p.o.paint(bold, part))
		}
	case p.paragraph != "" && !item.MatchString(line) && p.hanging() == indent:
		p.paragraph += " " + text
	default:
		p.endParagraph()
		p.paragraph = line
	}
}

// hanging is the indentation of the lines after the first of the paragraph.
func (p *Page) hanging() int {
	if mark := item.FindString(p.paragraph); mark != "" {
		return len([]rune(mark))
	}
	return len(p.paragraph) - len(strings.TrimLeft(p.paragraph, " "))
}

func (p *Page) endParagraph() {
	if p.paragraph == "" {
		return
	}
	indent := strings.Repeat(" ", p.hanging())
	mark := item.FindString(p.paragraph)
	if mark == "" {
		mark = indent
	}
	body := strings.TrimPrefix(p.paragraph, mark)
	for i, part := range wrap(body, max(p.width()-len(indent), 20)) {
		if i > 0 {
			mark = indent
		}
		p.put(mark + part)
	}
	p.paragraph = ""
}

func (p *Page) width() int { return min(p.o.Width, maxColumn) }

func (p *Page) put(line string) {
	if _, err := io.WriteString(p.out, line+"\n"); err != nil && p.err == nil {
		p.err = err
	}
}

// Fill fills the paragraphs of a text to a width. What is indented stays as it is.
func Fill(text string, width int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") {
			paragraphs[i] = strings.Join(wrap(p, min(width, maxColumn)), "\n")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}
