package prometheus

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// alert is one of config/prometheus/alerts.yaml.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var rule struct {
		Spec struct {
			Groups []struct{ Rules []alert }
		}
	}
	read(t, "../../config/prometheus/alerts.yaml", &rule)
	var all []alert
	for _, g := range rule.Spec.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func read(t *testing.T, file string, to any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, to); err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
}

// targetLabels are those that a scrape gives to each series: monitors.yaml, and the operator.
var targetLabels = []string{"job", "instance", "namespace", "pod", "node"}

// theirs are the metrics of others that we ask for, with their labels.
var theirs = map[string][]string{"up": nil, "leader_election_master_status": {"name"}}

var (
	quoted    = regexp.MustCompile(`"[^"]*"`)
	duration  = regexp.MustCompile(`\[[^\]]*\]`)
	matchers  = regexp.MustCompile(`(\w+)\{([^}]*)\}`)
	matched   = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouped   = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	word      = regexp.MustCompile(`[a-zA-Z_]\w*(\s*\()?`)
	operators = []string{"and", "or", "unless", "bool"}
)

// asked are the metrics of a query, with the labels of each that it names, and the labels by which it groups.
func asked(query string) (metrics map[string][]string, groups []string) {
	query = duration.ReplaceAllString(quoted.ReplaceAllString(query, ""), "")
	metrics = map[string][]string{}
	for _, m := range matchers.FindAllStringSubmatch(query, -1) {
		for _, label := range matched.FindAllStringSubmatch(m[2], -1) {
			metrics[m[1]] = append(metrics[m[1]], label[1])
		}
	}
	query = matchers.ReplaceAllString(query, "$1")
	for _, g := range grouped.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			groups = append(groups, strings.TrimSpace(label))
		}
	}
	// "sum by (node) (x)" has become "sum (x)", where sum is a function like others.
	for _, w := range word.FindAllString(grouped.ReplaceAllString(query, ""), -1) {
		if !strings.HasSuffix(w, "(") && !slices.Contains(operators, w) {
			if _, named := metrics[w]; !named {
				metrics[w] = nil
			}
		}
	}
	return metrics, groups
}

// existing is the metric of a name, with the suffixes of a histogram's series, and the labels that it has.
func existing(all map[string]metric, name string) (metric, []string, bool) {
	if labels, ok := theirs[name]; ok {
		return metric{name: name}, append(labels, targetLabels...), true
	}
	if m, ok := all[name]; ok && m.kind != "histogram" {
		return m, append(slices.Clone(m.labels), targetLabels...), true
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		base, ok := strings.CutSuffix(name, suffix)
		if m, known := all[base]; ok && known && m.kind == "histogram" {
			labels := append(slices.Clone(m.labels), targetLabels...)
			if suffix == "_bucket" {
				labels = append(labels, "le")
			}
			return m, labels, true
		}
	}
	return metric{}, nil, false
}

// A query for what no process has is silent for ever: an alert that never fires, a panel that is empty.
func TestQueriesAreAboutWhatExists(t *testing.T) {
	all := ours(t)
	queries := map[string]string{}
	for _, a := range alerts(t) {
		queries["alert "+a.Alert] = a.Expr
	}
	maps.Copy(queries, dashboardQueries(t))
	for where, query := range queries {
		names, groups := asked(query)
		var given []string
		if len(names) == 0 {
			t.Errorf("%s asks for nothing: %s", where, query)
		}
		for name, labels := range names {
			_, has, ok := existing(all, name)
			if !ok {
				t.Errorf("%s asks for %s, which no process has", where, name)
				continue
			}
			given = append(given, has...)
			for _, label := range labels {
				if !slices.Contains(has, label) {
					t.Errorf("%s asks for the label %s of %s, which has %v", where, label, name, has)
				}
			}
		}
		for _, label := range groups {
			if !slices.Contains(given, label) {
				t.Errorf("%s groups by %s, which is no label of what it asks for: %v", where, label, given)
			}
		}
	}
}

// What the test above finds in a query.
func TestQueriesAreUnderstood(t *testing.T) {
	for query, want := range map[string]string{
		`sum by (node) (rate(a_total{b="x", c=~"y"}[5m])) > 0 unless d`: "map[a_total:[b c] d:[]] [node]",
		`absent(up{job="a"} == 1)`:                                      "map[up:[job]] []",
		`max(time() - x) or sum(x{p="or"}) * 0`:                         "map[x:[p]] []",
		`count_over_time((sum(x) > 0)[30m:5m]) >= 3`:                    "map[x:[]] []",
		`topk(10, histogram_quantile(0.5, x_bucket{}))`:                 "map[x_bucket:[]] []",
		`a and on (pod, node) b == 1`:                                   "map[a:[] b:[]] [pod node]",
		`sum without (what) (increase(a_total[5m])) > 0`:                "map[a_total:[]] [what]",
	} {
		metrics, groups := asked(query)
		if got := fmt.Sprint(metrics, groups); got != want {
			t.Errorf("%s: asks for %s, want %s", query, got, want)
		}
	}
}

var (
	by       = regexp.MustCompile(`^\w+ by \(([^)]*)\)`)
	without  = regexp.MustCompile(`without \(([^)]*)\)`)
	shown    = regexp.MustCompile(`\$labels\.(\w+)`)
	command  = regexp.MustCompile("Run\\s+`[a-z]+ [^`]*`")
	headings = regexp.MustCompile(`(?m)^## (.*)$`)
)

// Whoever is woken reads what it means, what it costs and what to do next.
func TestAlertsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if !strings.HasPrefix(a.Alert, "Ringfence") || seen[a.Alert] {
			t.Errorf("%s: a name begins with Ringfence, and there is one alert of it", a.Alert)
		}
		seen[a.Alert] = true
		if severity := a.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, severity) {
			t.Errorf("%s: severity %q", a.Alert, severity)
		}
		if a.Annotations["summary"] == "" || !command.MatchString(a.Annotations["description"]) {
			t.Errorf("%s: no summary, or a description without a command to run: %v", a.Alert, a.Annotations)
		}
		if got, want := a.Annotations["runbook_url"], runbook+"#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("%s: the runbook is %s, want %s", a.Alert, got, want)
		}
		for _, text := range a.Annotations {
			for _, label := range shown.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(remaining(t, a.Expr), label[1]) {
					t.Errorf("%s: says the label %s, which its query does not give", a.Alert, label[1])
				}
			}
		}
	}
}

// runbook is where the sections are that alerts lead to.
const runbook = "https://github.com/ringfence-io/ringfence/blob/main/docs/runbook.md"

// Each alert has a section of its own, in the order of the alerts, which says what it means, what it costs, what to look at and what to do.
func TestEachAlertHasASectionOfTheRunbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, a := range alerts(t) {
		want = append(want, a.Alert)
	}
	for _, h := range headings.FindAllStringSubmatch(string(text), -1) {
		got = append(got, h[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sections (-alerts +docs/runbook.md):\n%s", diff)
	}
	for _, section := range headings.Split(string(text), -1)[1:] {
		for _, part := range []string{"**Means**: ", "**Costs**: ", "**Look**:\n\n    ", "**Do**:"} {
			if !strings.Contains(section, part) {
				t.Errorf("a section lacks %q:\n%s", part, section)
			}
		}
	}
}

// remaining are the labels that the answer to a query has.
func remaining(t *testing.T, query string) []string {
	t.Helper()
	if strings.HasPrefix(query, "absent(") {
		return nil
	}
	if kept := by.FindStringSubmatch(query); kept != nil {
		return strings.Split(kept[1], ", ")
	}
	var labels []string
	metrics, _ := asked(query)
	for name := range metrics {
		_, has, _ := existing(ours(t), name)
		labels = append(labels, has...)
	}
	for _, dropped := range without.FindAllStringSubmatch(query, -1) {
		labels = slices.DeleteFunc(labels, func(label string) bool { return label == dropped[1] })
	}
	return labels
}

// promtool plays for each alert what it fires for, and what not.
func TestEachAlertIsPlayed(t *testing.T) {
	var file struct {
		Tests []struct {
			Expressions []struct {
				Expr    string
				Samples []any `json:"exp_samples"`
			} `json:"promql_expr_test"`
		}
	}
	read(t, "alerts.yaml", &file)
	name := regexp.MustCompile(`alertname="(\w+)"`)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, played := range file.Tests {
		for _, e := range played.Expressions {
			about := name.FindStringSubmatch(e.Expr)
			if about == nil {
				t.Fatalf("%s is about no alert", e.Expr)
			}
			fires[about[1]] = fires[about[1]] || len(e.Samples) > 0
			silent[about[1]] = silent[about[1]] || len(e.Samples) == 0
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: alerts.yaml shows it firing: %t, and silent: %t", a.Alert, fires[a.Alert], silent[a.Alert])
		}
		delete(fires, a.Alert)
	}
	for gone := range fires {
		t.Errorf("alerts.yaml is about %s, which is no alert", gone)
	}
}
