package bench

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// table is what one benchmark found, for people.
type table struct {
	title  string
	header []string
	rows   [][]string
}

// tables are those of this run, in the order of the benchmarks.
var tables []*table

// tableOf returns the table of that title, and makes it with the header if there is none yet.
func tableOf(title string, header ...string) *table {
	for _, t := range tables {
		if t.title == title {
			return t
		}
	}
	t := &table{title: title, header: header}
	tables = append(tables, t)
	return t
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func printTables(w io.Writer) {
	for _, t := range tables {
		fmt.Fprintf(w, "\n%s\n", t.title)
		out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{t.header}, t.rows...) {
			fmt.Fprintln(out, "  "+strings.Join(row, "\t"))
		}
		if err := out.Flush(); err != nil {
			fmt.Fprintln(os.Stderr, "printing a table:", err)
		}
	}
}

// missed is how many goals were, so far.
var missed int

// verdict says whether a figure meets its goal, and counts it if it does not.
func verdict(figure, goal float64) string {
	if figure <= goal {
		return "met"
	}
	missed++
	return "MISSED"
}

// sample is a figure measured many times. The median stands for it, the quartiles for how far to trust that.
type sample []float64

// quantile is the value below which a part q of the sample lies.
func (s sample) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func (s sample) median() float64 { return s.quantile(0.5) }

// minus is the sample of the differences, pair by pair: what disturbs one half of a pair mostly disturbs the other.
func (s sample) minus(t sample) sample {
	out := make(sample, len(s))
	for i := range s {
		out[i] = s[i] - t[i]
	}
	return out
}

// text is the median and the quartiles.
func (s sample) text(format string) string {
	return fmt.Sprintf(format+" ("+format+" to "+format+")", s.median(), s.quantile(0.25), s.quantile(0.75))
}

// report hands a figure to the benchmark's own line, for benchstat. A benchmark that is measured together with others, in turns, has
// no time per operation of its own.
func report(b *testing.B, name string, figures map[string]float64) {
	b.Run(name, func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		for unit, value := range figures {
			b.ReportMetric(value, unit)
		}
	})
}
