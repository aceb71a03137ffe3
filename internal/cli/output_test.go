package cli

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// said is what a command line prints.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("ringfence %v: %v", args, err)
	}
	return out.String()
}

// The flag says what the command does.
func TestTheVersion(t *testing.T) {
	byCommand, byFlag := said(t, "version"), said(t, "--version")
	if byCommand != byFlag || !strings.HasPrefix(byFlag, "ringfence "+thisBuild().Version+" (commit ") {
		t.Errorf("the command says %q, the flag says %q", byCommand, byFlag)
	}
	var asJSON, asYAML build
	if err := json.Unmarshal([]byte(said(t, "version", "-o", "json")), &asJSON); err != nil {
		t.Error(err)
	}
	if err := yaml.UnmarshalStrict([]byte(said(t, "version", "-o", "yaml")), &asYAML); err != nil {
		t.Error(err)
	}
	if asJSON != thisBuild() || asYAML != thisBuild() {
		t.Errorf("json says %v, yaml says %v, want %v", asJSON, asYAML, thisBuild())
	}
}

func TestOutputsThatAreRefused(t *testing.T) {
	for _, command := range [][]string{{"version"}, {"preflight"}, {"audit"}} {
		root := newRootCommand()
		root.SetArgs(append(command, "-o", "xml"))
		if err := root.ExecuteContext(t.Context()); err == nil || err.Error() != `--output "xml" is not known: text, json, yaml` {
			t.Errorf("%v: got %v", command, err)
		}
	}
}

// Programs read names in lower camel case, whatever the command.
func TestNamesOfOutputsAreInLowerCamelCase(t *testing.T) {
	findings := []dataplane.Finding{
		{Name: "xt_set", OK: true, Detail: "there"},
		{Name: "xt_bpf", Severity: dataplane.Degraded, Detail: "missing", Cost: "some", Remedy: "load it"},
	}
	rule := 1
	rows := []auditRow{{ID: "a", Object: "NetworkPolicy a/b", Direction: "ingress", Rule: &rule, Audit: true, Packets: 3}}
	name := regexp.MustCompile(`(?m)^[ -]*"?(\w+)"?: `)
	for _, output := range []string{"json", "yaml"} {
		var text bytes.Buffer
		for what, err := range map[string]error{
			"preflight": printFindings(&text, findings, output), "audit": printAudit(&text, rows, true, output),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		text.WriteString(said(t, "version", "-o", output))
		found := map[string]bool{}
		for _, n := range name.FindAllStringSubmatch(text.String(), -1) {
			found[n[1]] = true
			if !regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`).MatchString(n[1]) {
				t.Errorf("%s: %s is not in lower camel case", output, n[1])
			}
		}
		want := map[string]bool{
			"name": true, "ok": true, "severity": true, "detail": true, "cost": true, "remedy": true,
			"id": true, "object": true, "direction": true, "rule": true, "audit": true, "packets": true,
			"version": true, "commit": true, "go": true, "os": true, "arch": true,
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("%s: names (-want +got):\n%s\n%s", output, diff, text.String())
		}
	}
}

// Both processes say which build they are.
func TestBuildInfo(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(BuildInfo())
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("got %v, %v", families, err)
	}
	metric := families[0].GetMetric()[0]
	labels := map[string]string{}
	for _, l := range metric.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	b := thisBuild()
	want := map[string]string{"version": b.Version, "revision": b.Commit, "goversion": b.Go}
	if diff := cmp.Diff(want, labels); diff != "" || metric.GetGauge().GetValue() != 1 {
		t.Errorf("it is %v, with labels (-want +got):\n%s", metric.GetGauge().GetValue(), diff)
	}
}
