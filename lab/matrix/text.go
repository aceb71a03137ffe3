package matrix

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Style says how text may look.
type Style struct {
	// Color uses a terminal's colours.
	Color bool
}

// shade is a terminal's escape for a colour.
type shade string

const (
	plain  shade = ""
	bold   shade = "1"
	green  shade = "32"
	dim    shade = "2"
	danger shade = "1;31"
)

func (s Style) paint(text string, with shade) string {
	if !s.Color || with == plain || text == "" {
		return text
	}
	return "\x1b[" + string(with) + "m" + text + "\x1b[0m"
}

// cell is a piece of a table: its width is that of text, whatever colour it gets.
type cell struct {
	text  string
	shade shade
}

// Write writes the matrix as an aligned table: a line for each source, a column for each target.
func (m *Matrix) Write(w io.Writer, style Style) error {
	rows := m.header()
	for i, s := range m.Sources {
		row := []cell{{s.Name, bold}}
		for j := range m.Targets {
			row = append(row, m.cell(i, j))
		}
		rows = append(rows, row)
	}
	return writeTable(w, style, rows)
}

// header is three lines: namespace, name and port of each target. What repeats the column to its left is left out.
func (m *Matrix) header() [][]cell {
	first, second, third := []cell{{}}, []cell{{"from \\ to", dim}}, []cell{{}}
	var lastSpace, lastName string
	for _, t := range m.Targets {
		space, name, ok := strings.Cut(t.Name, "/")
		if !ok {
			space, name = "", t.Name
		}
		top, middle := space+"/", name
		if space == lastSpace {
			top = ""
			if name == lastName {
				middle = ""
			}
		}
		lastSpace, lastName = space, name
		if top == "/" {
			top = ""
		}
		first = append(first, cell{top, dim})
		second = append(second, cell{middle, bold})
		third = append(third, cell{fmt.Sprintf("%s/%d", t.Protocol, t.Port), dim})
	}
	return [][]cell{first, second, third}
}

// cell says what passes from a source to a target: one word if both families agree, else both.
func (m *Matrix) cell(source, target int) cell {
	var texts []string
	wrong, pass := false, false
	for _, a := range m.Attempts {
		if a.Source == source && a.Target == target {
			text := verdict(a.Got)
			if !a.AsDemanded() {
				text, wrong = text+"!", true
			}
			pass = pass || a.Got
			texts = append(texts, text)
		}
	}
	c := cell{shade: dim}
	switch {
	case len(texts) == 0:
		c.text = "-"
	case len(texts) == 2 && texts[0] != texts[1]:
		c.text = "v4:" + texts[0] + " v6:" + texts[1]
	default:
		c.text = texts[0]
	}
	switch {
	case wrong:
		c.shade = danger
	case pass:
		c.shade = green
	}
	return c
}

// Legend explains the words of the table.
func (m *Matrix) Legend(style Style) string {
	families := map[iptables.Family]bool{}
	for _, a := range m.Attempts {
		families[a.Family] = true
	}
	how := "over IPv4"
	switch {
	case families[iptables.IPv4] && families[iptables.IPv6]:
		how = "over IPv4 and IPv6 alike"
	case families[iptables.IPv6]:
		how = "over IPv6"
	}
	return fmt.Sprintf("%s connects, %s does not (%s), %s is not what the API demands",
		style.paint("yes", green), style.paint("no", dim), how, style.paint("!", danger))
}

// Summary counts what is as demanded.
func (m *Matrix) Summary(style Style) string {
	right := len(m.Attempts) - m.Differences()
	text := fmt.Sprintf("%d of %d connections are as the API demands", right, len(m.Attempts))
	if m.Differences() > 0 {
		return style.paint(text, danger)
	}
	return style.paint(text, green)
}

// writeTable pads all columns but the last to equal width.
func writeTable(w io.Writer, style Style, rows [][]cell) error {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		last := len(row) - 1
		for last > 0 && row[last].text == "" {
			last--
		}
		for i, c := range row[:last+1] {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(style.paint(c.text, c.shade))
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
