package kubectl

import (
	"encoding/json"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// outputs are the forms in which most commands print an answer.
var outputs = []string{"text", "json", "yaml"}

// printValue prints a value as JSON or YAML, with the names that JSON has.
func printValue(w io.Writer, output string, value any) error {
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	text, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding YAML: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// plain is an object as people write it: without what the API server or a controller fills in.
func plain(o metav1.Object) (map[string]any, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", o.GetName(), err)
	}
	delete(fields, "status")
	if metadata, ok := fields["metadata"].(map[string]any); ok {
		for _, key := range []string{"creationTimestamp", "uid", "resourceVersion", "generation", "managedFields"} {
			delete(metadata, key)
		}
	}
	return fields, nil
}

// manifest are objects as a YAML stream.
func manifest(objects []metav1.Object) (string, error) {
	text := ""
	for _, o := range objects {
		fields, err := plain(o)
		if err != nil {
			return "", err
		}
		document, err := yaml.Marshal(fields)
		if err != nil {
			return "", fmt.Errorf("encoding %s: %w", o.GetName(), err)
		}
		text += "---\n" + string(document)
	}
	return text, nil
}
