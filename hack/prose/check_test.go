package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var long = strings.Repeat("word ", 33) // 165 characters

// Each row is a page and what is wrong with it.
func TestPages(t *testing.T) {
	for _, c := range []struct {
		name, page string
		want       []string
	}{
		{"plain words", "# A page\n\nRingfence enforces policy.\n\n- One idea.\n- Another.\n", nil},
		{"a long line", "# A page\n\n" + long + "end\n", []string{"3: a line of 168 characters: 160 at most"}},
		{"a long line of a list", "- short\n- " + long + "end\n", []string{"2: a line of 170 characters: 160 at most"}},
		{"characters, not bytes", strings.Repeat("…", 160) + "\n", nil},
		{"a long row of short cells", "| a | b |\n| --- | --- |\n| " + long[:150] + " | " + long[:150] + " |\n", nil},
		{"a long cell", "| a | b |\n| --- | --- |\n| x | " + long + "end |\n", []string{"3: a cell of 168 characters: 160 at most"}},
		{"a bar that is text", "| `a \\| " + long[:75] + "` | " + long[:100] + " |\n", nil},
		{"code is as wide as it is", "Run:\n\n    " + long + "somebody\n\nDone.\n", nil},
		{"code in a list", "1. Run:\n\n       " + long + "somebody\n\n2. Done.\n", nil},
		{"code in a fence", "```\n" + long + "somebody\n```\n", nil},
		{"text in a list is no code", "1. Run this.\n\n   It is what somebody wants.\n", []string{`3: "somebody": name the one who does it`}},
		{"an indented line of a paragraph is no code", "- one\n      what somebody does\n", []string{`1: "somebody": name the one who does it`}},
		{"what looks like code behind a list", "- one\n\n    make run\n", []string{"3: it looks like code, and is a paragraph of the list above: " +
			"indent it by four more than the list's text, or put a line of text between"}},
		{"code behind a list and a line of text", "- one\n\nRun:\n\n    make run\n", nil},
		{"a list in a list", "- one\n  - two\n\n    more of two\n", nil},
		{"what a generator writes", "<!-- begin x: written by make golden -->\n| " + long + "ours |\n<!-- end x -->\nours\n", []string{`4: "ours": Ringfence's`}},
		{"a turn over two lines", "There are ten, of\nwhich two fail.\n", []string{`1: "of which": begin a second sentence`}},
		{"a turn at the beginning", "Whoever asks.\n", []string{`1: "whoever": name the one who does it`}},
		{"a turn in a cell", "| it is said by the log | |\n", []string{`1: "is said by": say who reports or logs it`}},
		{"a part of a word is no turn", "Hours, yours and tours.\n", nil},
		{"what programs print", "The line `somebody else changed our rules`.\n", nil},
		{"a link to a heading of the page", "# A page\n\n[there](#a-page) and [not](#another).\n", []string{"3: #another: there is no such heading"}},
		{"links to other pages", "[a](other.md#the-log), [b](other.md#the-logs), [c](other.md), [d](https://example.com/x.md#y), [e](gone.md#x)\n",
			[]string{"1: other.md#the-logs: there is no such heading"}},
		{"two headings of one name", "# Check\n\n# Check\n\n[one](#check) [two](#check-1) [three](#check-2)\n", []string{"5: #check-2: there is no such heading"}},
		{"a heading with signs", "## \"It should not\": `x`, or *y*?\n\n[there](#it-should-not-x-or-y)\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				if name != "docs/other.md" {
					return nil, errors.New("no such page")
				}
				return []byte("# Other\n\n## The log\n"), nil
			}
			p := parse(c.page)
			var got []string
			for _, problem := range append(p.problems(), brokenLinks("docs/page.md", p, read)...) {
				got = append(got, fmt.Sprintf("%d: %s", problem.line, problem.text))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
