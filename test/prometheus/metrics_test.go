// Package prometheus holds config/prometheus and docs/metrics.md to the metrics that the processes have. What the alerts fire for is in alerts.yaml,
// which promtool plays (hack/verify.sh).
package prometheus

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/denials"
	"github.com/ringfence-io/ringfence/enforcer/passing"
	"github.com/ringfence-io/ringfence/internal/cli"
)

var update = flag.Bool("update", false, "write the tables of docs/metrics.md anew, from what the code and the alerts say now")

const metricsPage = "../../docs/metrics.md"

// metric is one that a process of ours has.
type metric struct {
	name, kind, help string
	labels           []string
}

// processes are ours, with their metrics; both have the first ones.
var processes = []struct {
	name       string
	collectors []prometheus.Collector
}{
	{"both", []prometheus.Collector{cli.BuildInfo()}},
	{"enforcer", slices.Concat(node.Metrics(), denials.Metrics(), passing.Metrics())},
	{"controller", append((&status.Policies{}).Metrics(), startup.Metrics()...)},
}

// ours are the metrics of all processes by name.
func ours(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	for _, p := range processes {
		for _, m := range described(t, p.collectors) {
			if _, twice := all[m.name]; twice {
				t.Errorf("%s is a metric of two processes", m.name)
			}
			all[m.name] = m
		}
	}
	return all
}

// A Desc tells what it is in one text alone.
var descText = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: ("(?:[^"\\]|\\.)*"), .*variableLabels: \{([\w,]*)\}`)

func described(t *testing.T, collectors []prometheus.Collector) []metric {
	t.Helper()
	var all []metric
	for _, c := range collectors {
		descs := make(chan *prometheus.Desc, 10)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			parts := descText.FindStringSubmatch(d.String())
			if parts == nil {
				t.Fatalf("reading %s", d)
			}
			help, err := strconv.Unquote(parts[2])
			if err != nil {
				t.Fatalf("reading %s: %v", d, err)
			}
			m := metric{name: parts[1], kind: kindOf(c), help: help}
			if parts[3] != "" {
				m.labels = strings.Split(parts[3], ",")
			}
			all = append(all, m)
		}
	}
	return all
}

func kindOf(c prometheus.Collector) string {
	switch c.(type) {
	case prometheus.Gauge, *prometheus.GaugeVec: // a Gauge can all that a Counter can
		return "gauge"
	case prometheus.Counter, *prometheus.CounterVec:
		return "counter"
	case prometheus.Histogram, *prometheus.HistogramVec:
		return "histogram"
	}
	return "gauge" // of the present, counted when it is read
}

// A name says what is counted and in what: Prometheus' own conventions.
func TestNamesSayTheUnit(t *testing.T) {
	for name, m := range ours(t) {
		if !strings.HasPrefix(name, "ringfence_") {
			t.Errorf("%s does not say whose it is", name)
		}
		if strings.HasSuffix(name, "_total") != (m.kind == "counter") {
			t.Errorf("%s is a %s: counters end in _total, and nothing else does", name, m.kind)
		}
		for _, label := range m.labels {
			if strings.ToLower(label) != label {
				t.Errorf("the label %s of %s is not in snake case", label, name)
			}
		}
		if m.kind == "histogram" && unit(m) != "seconds" {
			t.Errorf("the histogram %s is not in seconds", name)
		}
		if !strings.HasSuffix(m.help, ".") {
			t.Errorf("the help of %s is no sentence: %q", name, m.help)
		}
	}
}

func unit(m metric) string {
	switch {
	case strings.HasSuffix(m.name, "_timestamp_seconds"):
		return "Unix time in seconds"
	case strings.HasSuffix(m.name, "_seconds"):
		return "seconds"
	}
	return "number"
}

// The tables of docs/metrics.md are written by this test with -update.
func TestThePageSaysWhatTheCodeSays(t *testing.T) {
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for _, p := range processes {
		want = replaceTable(t, want, p.name, metricsTable(described(t, p.collectors)))
	}
	want = replaceTable(t, want, "alerts", alertsTable(alerts(t)))
	if *update {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("%s (-code +page; -update writes it anew):\n%s", metricsPage, diff)
	}
}

// Labels have few values, and the page says which.
func TestThePageExplainsEachLabel(t *testing.T) {
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range ours(t) {
		for _, label := range m.labels {
			if !strings.Contains(string(text), fmt.Sprintf("\n| `%s` | `%s` |", label, name)) {
				t.Errorf("%s does not say which values %s has in %s", metricsPage, label, name)
			}
		}
	}
}

func metricsTable(all []metric) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | unit | meaning |\n| --- | --- | --- | --- | --- |\n")
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	for _, m := range all {
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, labels, unit(m), m.help)
	}
	return b.String()
}

var filledIn = regexp.MustCompile(`\{\{.*?\}\}`)

func alertsTable(all []alert) string {
	var b strings.Builder
	b.WriteString("| alert | severity | after | says |\n| --- | --- | --- | --- |\n")
	for _, a := range all {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a.Alert, a.Labels["severity"], a.For, filledIn.ReplaceAllString(a.Annotations["summary"], "…"))
	}
	return b.String()
}

// replaceTable puts a table where the comments of its name are.
func replaceTable(t *testing.T, text, name, table string) string {
	t.Helper()
	begin, end := "<!-- begin "+name+": written by make golden -->\n", "<!-- end "+name+" -->\n"
	head, rest, ok := strings.Cut(text, begin)
	_, tail, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no place for the table of %s", metricsPage, name)
	}
	return head + begin + table + end + tail
}
