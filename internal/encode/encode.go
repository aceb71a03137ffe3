// Package encode prints what a command has found in the forms that programs read.
package encode

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// Value prints a value as "json" or "yaml". It reports false for any other form, of which it prints nothing. Names are those that JSON has.
func Value(w io.Writer, form string, value any) (bool, error) {
	switch form {
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
