package cli

import (
	"fmt"
	"slices"
	"strings"
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
