package main

import (
	"regexp"
	"strings"
)

// page is a Markdown page in the pieces that are checked. Code blocks and what a generator writes are in none of them.
type page struct {
	lines    []piece // of paragraphs and lists, as they stand
	texts    []piece // whole paragraphs, list items and cells, each on one line
	cells    []piece
	strays   []piece // what looks like code, and is a paragraph of the list above
	headings []string
}

// piece is a piece of a page, and the line at which it begins, from 1.
type piece struct {
	line int
	text string
}

var (
	item      = regexp.MustCompile(`^ *(?:[-*]|\d+\.) +`)
	cellBreak = regexp.MustCompile(`(?:^|[^\\])\|`)
)

// parser reads a page line by line.
type parser struct {
	page
	paragraph piece
	list      int  // how far the text of the list item is indented, 0 outside of lists
	blank     bool // the line before is blank
	code      bool // the line before is code
	fenced    bool
	generated bool // between the comments that a generator has left
}

func parse(text string) page {
	p := &parser{blank: true}
	for n, line := range strings.Split(text, "\n") {
		p.read(n+1, line)
	}
	p.end()
	return p.page
}

// end ends a paragraph.
func (p *parser) end() {
	if p.paragraph.text != "" {
		p.texts = append(p.texts, p.paragraph)
	}
	p.paragraph = piece{}
}

func (p *parser) read(n int, line string) {
	trimmed := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(trimmed, "```"):
		p.end()
		p.fenced = !p.fenced
	case p.fenced:
	case strings.HasPrefix(trimmed, "<!--"):
		p.end()
		p.generated = strings.HasPrefix(trimmed, "<!-- begin")
	case p.generated:
	case trimmed == "":
		p.end()
		p.blank = true
	case p.isCode(line):
		p.code, p.blank = true, false
	default:
		p.code = false
		p.readProse(n, line, trimmed)
		p.blank = false
	}
}

// isCode reports whether a line is of an indented code block: four columns further in than the text around it, behind a blank line or more code.
func (p *parser) isCode(line string) bool {
	return (p.blank || p.code) && indentOf(line) >= p.list+4
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func (p *parser) readProse(n int, line, trimmed string) {
	switch {
	case strings.HasPrefix(line, "#"):
		p.end()
		p.list = 0
		p.headings = append(p.headings, strings.TrimLeft(line, "# "))
		return
	case strings.HasPrefix(trimmed, "|"):
		p.end()
		for _, cell := range splitRow(trimmed) {
			p.cells = append(p.cells, piece{n, cell})
			p.texts = append(p.texts, piece{n, cell})
		}
		return
	}
	p.lines = append(p.lines, piece{n, line})
	if marker := item.FindString(line); marker != "" {
		p.end()
		p.list = len(marker)
		trimmed = line[len(marker):]
	} else if indent := indentOf(line); p.blank && indent == 0 {
		p.list = 0
	} else if p.blank && indent >= 4 && indent > p.list {
		p.strays = append(p.strays, piece{n, line})
	}
	if p.paragraph.text == "" {
		p.paragraph = piece{n, trimmed}
		return
	}
	p.paragraph.text += " " + trimmed
}

// splitRow gives the cells of a table's row. A bar behind a backslash is text.
func splitRow(row string) []string {
	row = strings.TrimSuffix(strings.TrimPrefix(row, "|"), "|")
	var cells []string
	begin := 0
	for _, at := range cellBreak.FindAllStringIndex(row, -1) {
		cells = append(cells, strings.TrimSpace(row[begin:at[1]-1]))
		begin = at[1]
	}
	return append(cells, strings.TrimSpace(row[begin:]))
}
