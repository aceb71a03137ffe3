package main

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longest is how many characters a line of prose, or a cell of a table, may have. Code blocks may be wider.
const longest = 160

// problem is what is wrong, and at which line.
type problem struct {
	line int
	text string
}

// turn is one that readers stumble over, and what to write instead.
type turn struct {
	pattern *regexp.Regexp
	instead string
}

var turns = []turn{
	{regexp.MustCompile(`\bwhose most is\b`), "say what is the most"},
	{regexp.MustCompile(`\bof which\b`), "begin a second sentence"},
	{regexp.MustCompile(`\bsomebody\b`), "name the one who does it"},
	{regexp.MustCompile(`\bwho(m?)ever\b`), "name the one who does it"},
	{regexp.MustCompile(`\bours\b`), "Ringfence's"},
	{regexp.MustCompile(`\b(is|are|was) said (of|in|by|at|with)\b`), "say who reports or logs it"},
	{regexp.MustCompile(`\bsays so\b`), "reports it"},
	{regexp.MustCompile(`\bin audit mode\b`), "in the dry run (Audit)"},
	{regexp.MustCompile(`\bpass(es)? (iptables|policy|their rules) by\b`), "bypass"},
	{regexp.MustCompile(`\b(leave|leaves) away\b`), "leave out"},
	{regexp.MustCompile(`, as of (a|an|the)\b`), "such as"},
}

var (
	span = regexp.MustCompile("`[^`]*`")
	link = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]*)\)`)
)

// problems are those of lengths, of turns, and of what is not what it looks like.
func (p page) problems() []problem {
	var all []problem
	for _, l := range p.lines {
		if n := utf8.RuneCountInString(l.text); n > longest {
			all = append(all, problem{l.line, fmt.Sprintf("a line of %d characters: %d at most", n, longest)})
		}
	}
	for _, c := range p.cells {
		if n := utf8.RuneCountInString(c.text); n > longest {
			all = append(all, problem{c.line, fmt.Sprintf("a cell of %d characters: %d at most", n, longest)})
		}
	}
	for _, s := range p.strays {
		all = append(all, problem{s.line, "it looks like code, and is a paragraph of the list above: indent it by four more than the list's text, " +
			"or put a line of text between"})
	}
	for _, t := range p.texts {
		plain := strings.ToLower(span.ReplaceAllString(t.text, ""))
		for _, turn := range turns {
			if found := turn.pattern.FindString(plain); found != "" {
				all = append(all, problem{t.line, fmt.Sprintf("%q: %s", found, turn.instead)})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b problem) int { return a.line - b.line })
	return all
}

// brokenLinks are the links of a page to headings that no page has. Whether files exist is checked elsewhere.
func brokenLinks(file string, p page, read func(string) ([]byte, error)) []problem {
	var all []problem
	for _, t := range p.texts {
		for _, l := range link.FindAllStringSubmatch(t.text, -1) {
			target, heading, found := strings.Cut(l[1], "#")
			if !found || strings.Contains(target, "://") || target != "" && !strings.HasSuffix(target, ".md") {
				continue
			}
			there := p
			if target != "" {
				text, err := read(path.Join(path.Dir(file), target))
				if err != nil {
					continue
				}
				there = parse(string(text))
			}
			if !slices.Contains(there.anchors(), heading) {
				all = append(all, problem{t.line, fmt.Sprintf("%s: there is no such heading", l[1])})
			}
		}
	}
	return all
}

// anchors are the names by which links reach the headings, as GitHub makes them.
func (p page) anchors() []string {
	var all []string
	for _, h := range p.headings {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, link.ReplaceAllStringFunc(h, func(l string) string { return l[1:strings.Index(l, "]")] }))
		for n := 1; slices.Contains(all, name); n++ {
			name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", n-1)), n)
		}
		all = append(all, name)
	}
	return all
}
