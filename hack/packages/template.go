package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// block is a text of a template that stands in a tree of YAML: an entry of a map or an item of a list, which YAML itself cannot say. It is given the
// indent of its place.
type block func(indent string) string

// mark is what stands for a block while the tree is encoded, alone in its line.
const mark = "@@"

var marks = regexp.MustCompile(`(?m)^( *)(?:[\w./-]+` + mark + `(\d+)` + mark + `: ""|- '` + mark + `(\d+)` + mark + `')$`)

// hostPaths stand for the directories of nodes that only the CNI plugin needs, by the names of their volumes.
var hostPaths = regexp.MustCompile(`directory-of-volume/(\w+)`)

// insert puts a block into a map, where a key would stand. In a map that is an item of a list it must not come first, where the item's dash is.
func (c *templates) insert(in map[string]any, near string, b block) {
	in[near+c.mark(b)] = ""
}

// item is a block as an item of a list.
func (c *templates) item(b block) any { return c.mark(b) }

func (c *templates) mark(b block) string {
	c.blocks = append(c.blocks, b)
	return mark + strconv.Itoa(len(c.blocks)-1) + mark
}

// write writes the template of an object, which is in the release under a condition.
func (c *templates) write(o *unstructured.Unstructured, when string) error {
	text, err := encode(o)
	if err != nil {
		return err
	}
	text = c.place(c.fill(escape(text)))
	if strings.Contains(text, mark) {
		return fmt.Errorf("%s: a mark is not alone in its line:\n%s", identity(o), text)
	}
	if when != "" {
		text = "{{- if " + when + " }}\n" + text + "{{- end }}\n"
	}
	c.out[fileOf(o)] = text
	return nil
}

// escape makes text that a template leaves as it is.
func escape(text string) string { return strings.ReplaceAll(text, "{{", `{{ "{{" }}`) }

// place puts the release's namespace where the placeholder stands, and the names of service accounts likewise: quoted, where it is all of a value, since
// a name may be a number.
func (c *templates) place(text string) string {
	for _, p := range []struct{ stands, is string }{
		{placeholder, `.Release.Namespace`},
		{accountOf + `(\w+)`, `include "ringfence.serviceAccountName" (list . "$2")`},
	} {
		alone := regexp.MustCompile(`(?m)^( *(?:- )?[\w./-]+: )` + p.stands + `$`)
		text = alone.ReplaceAllString(text, `${1}{{ `+p.is+` | quote }}`)
		text = regexp.MustCompile(p.stands).ReplaceAllString(text, `{{ `+strings.ReplaceAll(p.is, "$2", "$1")+` }}`)
	}
	return hostPaths.ReplaceAllString(text, `{{ .Values.firstPacket.hostPaths.$1 | quote }}`)
}

// fill replaces marks by their blocks.
func (c *templates) fill(text string) string {
	return marks.ReplaceAllStringFunc(text, func(line string) string {
		parts := marks.FindStringSubmatch(line)
		i, err := strconv.Atoi(parts[2] + parts[3])
		if err != nil || i >= len(c.blocks) {
			return line // write says it
		}
		return c.blocks[i](parts[1])
	})
}

// entry is an entry of a map as text; empty if there is none.
func entry(key string, value any, there bool, indent string) string {
	if !there {
		return ""
	}
	return indented(map[string]any{key: value}, indent)
}

// items are items of a list as text.
func items(list []any, indent string) string {
	if len(list) == 0 {
		return ""
	}
	return indented(list, indent)
}

func indented(value any, indent string) string {
	text, err := encode(value)
	if err != nil {
		panic(err) // what was decoded can be encoded
	}
	return indent + strings.ReplaceAll(strings.TrimSuffix(escape(text), "\n"), "\n", "\n"+indent)
}
