// Command queries writes what config/prometheus asks of Prometheus as plain rule files, which promtool can check: alerts.yaml, that a Prometheus without
// the operator can load too, and dashboard.yaml, with each query of the dashboard as a rule.
//
// usage: queries DIR
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: queries DIR")
		os.Exit(2)
	}
	if err := write("config/prometheus", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "queries:", err)
		os.Exit(1)
	}
}

// write writes both files to a directory.
func write(from, to string) error {
	for _, file := range []struct {
		from, to string
		convert  func([]byte) (any, error)
	}{
		{"alerts.yaml", "alerts.yaml", spec},
		{"dashboard.json", "dashboard.yaml", asRules},
	} {
		text, err := os.ReadFile(filepath.Join(from, file.from))
		if err != nil {
			return fmt.Errorf("reading queries: %w", err)
		}
		plain, err := file.convert(text)
		if err != nil {
			return fmt.Errorf("reading %s: %w", file.from, err)
		}
		out, err := yaml.Marshal(plain)
		if err != nil {
			return fmt.Errorf("writing the rules of %s: %w", file.from, err)
		}
		if err := os.WriteFile(filepath.Join(to, file.to), out, 0o644); err != nil {
			return fmt.Errorf("writing the rules of %s: %w", file.from, err)
		}
	}
	return nil
}

// spec is what a PrometheusRule holds: a rule file.
func spec(text []byte) (any, error) {
	var rule struct{ Spec map[string]any }
	err := yaml.Unmarshal(text, &rule)
	return rule.Spec, err
}

// variables are what Grafana puts in.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$node", ".*")

// asRules is a rule file with the queries of a dashboard.
func asRules(text []byte) (any, error) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return nil, err
	}
	var rules []map[string]string
	for _, p := range dashboard.Panels {
		for _, t := range p.Targets {
			rules = append(rules, map[string]string{"record": fmt.Sprintf("panel_%d:%s", p.ID, t.RefID), "expr": variables.Replace(t.Expr)})
		}
	}
	return map[string]any{"groups": []map[string]any{{"name": "dashboard", "rules": rules}}}, nil
}
