package source

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plainYAML is a document as JSON, if it is plain: mappings and lists by indentation, and values that stand on one line each, or in the lines below a "|". Most
// objects are written so, by kubectl and by people. ok is false for a document that has anything else, or a mistake: that is for the full parser, which says
// the same of plain ones, and takes six times as long.
func plainYAML(document []byte) (json []byte, ok bool) {
	text := string(document)
	for _, r := range text {
		if r != '\n' && (!unicode.IsPrint(r) || r == utf8.RuneError) {
			return nil, false
		}
	}
	p := plainReader{rest: text, out: make([]byte, 0, len(document)+len(document)/4)}
	p.next()
	if p.indent != 0 || !p.mapping() || p.indent != end {
		return nil, false
	}
	return p.out, true
}

// plainReader reads a plain document from its first line to its last. Each of its methods reports whether what it has read is plain.
type plainReader struct {
	indent int    // of the line at hand: how many spaces stand in front of it, or end
	text   string // of that line, without the spaces around it
	rest   string // the lines below
	out    []byte // JSON
	keys   []string
}

// end is the indentation behind the last line.
const end = -1

// next goes to the next line that has more than a comment.
func (p *plainReader) next() {
	for p.rest != "" {
		var line string
		line, p.rest, _ = strings.Cut(p.rest, "\n")
		text := strings.TrimLeft(line, " ")
		if text != "" && text[0] != '#' {
			p.indent, p.text = len(line)-len(text), strings.TrimRight(text, " ")
			return
		}
	}
	p.indent, p.text = end, ""
}

// mapping reads the keys that stand below that of the line at hand, and their values.
func (p *plainReader) mapping() bool {
	indent, outer := p.indent, len(p.keys)
	p.out = append(p.out, '{')
	for {
		key, value, ok := cutKey(p.text)
		if !ok || !p.key(key, outer) || !p.value(indent, value) || p.indent > indent {
			return false
		}
		if p.indent < indent {
			p.keys, p.out = p.keys[:outer], append(p.out, '}')
			return true
		}
		p.out = append(p.out, ',')
	}
}

// key writes a key. One that is there twice is not plain. Nor are two that differ by case alone, since those who read JSON take them for one.
func (p *plainReader) key(key string, outer int) bool {
	if slices.ContainsFunc(p.keys[outer:], func(k string) bool { return strings.EqualFold(k, key) }) {
		return false
	}
	p.keys = append(p.keys, key)
	p.out = append(strconv.AppendQuote(p.out, key), ':')
	return true
}

// list reads the items that stand below that of the line at hand.
func (p *plainReader) list() bool {
	indent := p.indent
	p.out = append(p.out, '[')
	for {
		item := strings.TrimLeft(p.text[1:], " ")
		if item == "" || isItem(item) {
			return false
		}
		if _, _, ok := cutKey(item); ok {
			p.indent, p.text = p.indent+len(p.text)-len(item), item
			if !p.mapping() {
				return false
			}
		} else if !p.value(indent, item) {
			return false
		}
		if p.indent != indent || !isItem(p.text) {
			p.out = append(p.out, ']')
			return p.indent <= indent
		}
		p.out = append(p.out, ',')
	}
}

// value reads what stands behind a key or a dash, or below it and further to the right, and goes to the line behind it. Below a key, the items of a list need
// not be further to the right.
func (p *plainReader) value(indent int, text string) bool {
	if strings.HasPrefix(text, "#") {
		text = ""
	}
	switch text {
	case "":
		p.next()
		switch {
		case p.indent >= indent && isItem(p.text):
			return p.list()
		case p.indent > indent:
			return p.mapping()
		}
		p.out = append(p.out, "null"...)
		return true
	case "|", "|-":
		return p.literal(indent, text == "|")
	}
	rest, ok := p.oneLine(text, nothing, 0)
	if comment := strings.TrimLeft(rest, " "); len(comment) < len(rest) && comment[0] == '#' {
		rest = ""
	}
	p.next()
	return ok && rest == "" && p.indent <= indent // or else the value goes on
}

// literal reads the text of the lines below which are further to the right.
func (p *plainReader) literal(indent int, endsLine bool) bool {
	var lines []string
	margin := 0
	for {
		line, rest, more := strings.Cut(p.rest, "\n")
		text := strings.TrimLeft(line, " ")
		depth := len(line) - len(text)
		if margin == 0 {
			margin = depth
		}
		switch {
		case text != "" && depth < margin:
			p.next()
			text = strings.TrimRight(strings.Join(lines, "\n"), "\n")
			if endsLine {
				text += "\n"
			}
			p.out = strconv.AppendQuote(p.out, text)
			return depth <= indent && p.indent <= indent
		case !more || margin <= indent || text == "" && len(lines) == 0 || text == "" && depth > margin:
			return false
		}
		lines, p.rest = append(lines, line[min(margin, len(line)):]), rest
	}
}

// What may end a value that is not quoted: nothing but a comment, or the next item or the end of what it is in.
const (
	nothing  = ""
	flowEnds = ",]}"
)

// maxFlow is how deep lists and mappings of one line may be in each other.
const maxFlow = 20

// oneLine reads a value that stands on one line. It returns what stands behind it.
func (p *plainReader) oneLine(text, ends string, depth int) (rest string, ok bool) {
	if text == "" || depth > maxFlow {
		return text, false
	}
	switch quote := text[0]; quote {
	case '[':
		return p.flow(text[1:], ']', depth)
	case '{':
		return p.flow(text[1:], '}', depth)
	case '"', '\'':
		value, rest, ok := strings.Cut(text[1:], text[:1])
		if !ok || quote == '"' && strings.Contains(value, `\`) || quote == '\'' && strings.HasPrefix(rest, "'") {
			return rest, false
		}
		p.out = strconv.AppendQuote(p.out, value)
		return rest, true
	}
	value := text
	if ends == nothing {
		value, _, _ = strings.Cut(text, " #")
		return "", p.scalar(strings.TrimRight(value, " "))
	}
	if i := strings.IndexAny(text, ends); i >= 0 {
		value, rest = strings.TrimRight(text[:i], " "), text[i:]
	}
	return rest, !strings.ContainsAny(value, `:#?[{`) && p.scalar(value)
}

// flow reads a list or a mapping of one line, behind what opens it.
func (p *plainReader) flow(text string, closes byte, depth int) (rest string, ok bool) {
	outer := len(p.keys)
	p.out = append(p.out, closes-2) // "[" and "{"
	text = strings.TrimLeft(text, " ")
	for first := true; text != ""; first = false {
		if first && text[0] == closes {
			p.out = append(p.out, closes)
			return text[1:], true
		}
		if closes == '}' {
			key, value, ok := cutKey(text)
			if !ok || !p.key(key, outer) {
				return text, false
			}
			text = value
		}
		if text, ok = p.oneLine(text, flowEnds, depth+1); !ok {
			return text, false
		}
		if text = strings.TrimLeft(text, " "); text == "" || text[0] != ',' && text[0] != closes {
			return text, false
		}
		p.out = append(p.out, text[0])
		if text[0] == closes {
			p.keys = p.keys[:outer]
			return text[1:], true
		}
		text = strings.TrimLeft(text[1:], " ")
	}
	return text, false
}

// words are not text, but truth values and the like, in YAML of one version or another, however they are written.
var words = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

func isWord(text string) bool {
	return len(text) <= len("false") && slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, text) })
}

// scalar writes a value that is not quoted. Numbers are plain if they are whole, and text if it can be nothing else.
func (p *plainReader) scalar(text string) bool {
	switch {
	case text == "":
		return false
	case text == "true", text == "false", text == "null", isWhole(text):
		p.out = append(p.out, text...)
		return true
	case isWord(text), strings.Contains(text, ": "), strings.HasSuffix(text, ":"):
		return false
	case isLetter(text[0]), text[0] == '/', text[0] >= utf8.RuneSelf, isDigit(text[0]) && isNoNumber(text):
		p.out = strconv.AppendQuote(p.out, text)
		return true
	}
	return false
}

// isWhole reports whether a text is a whole number, as JSON has it.
func isWhole(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return len(text) <= 15 && (text[0] != '0' || text == "0")
}

// isNoNumber reports whether a text that begins with a digit is surely no number: an address, a block of addresses, or with a letter that none has.
func isNoNumber(text string) bool {
	if strings.Count(text, ".") > 1 && strings.Trim(text, "0123456789./") == "" {
		return true
	}
	return text[0] != '0' && strings.ContainsFunc(text, func(r rune) bool { return r < utf8.RuneSelf && isLetter(byte(r)) && r != 'e' && r != 'E' })
}

// cutKey cuts a key from its value.
func cutKey(text string) (key, value string, ok bool) {
	i := strings.IndexByte(text, ':')
	if i < 1 || i > 200 || !isLetter(text[0]) || i+1 < len(text) && text[i+1] != ' ' || isWord(text[:i]) {
		return "", "", false
	}
	for k := range i {
		if c := text[k]; !isLetter(c) && !isDigit(c) && c != '-' && c != '_' && c != '.' && c != '/' {
			return "", "", false
		}
	}
	return text[:i], strings.TrimLeft(text[i+1:], " "), true
}

func isItem(text string) bool { return text == "-" || strings.HasPrefix(text, "- ") }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
