package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// outputs are the forms in which a command prints what it has found. Names in json and yaml are in lower camel case.
var outputs = []string{"text", "json", "yaml"}

const outputUsage = "text, json or yaml"

// checkOutput refuses a form that there is not.
func checkOutput(output string) error {
	if !slices.Contains(outputs, output) {
		return fmt.Errorf("--output %q is not known: %s", output, strings.Join(outputs, ", "))
	}
	return nil
}

// printValue prints a value in a form that programs read. It reports whether the form is one.
func printValue(w io.Writer, output string, value any) (bool, error) {
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return true, encoder.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return true, fmt.Errorf("encoding YAML: %w", err)
		}
		_, err = w.Write(text)
		return true, err
	}
	return false, nil
}
