package kubectl

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// outputs are the forms in which most commands print an answer.
var outputs = []string{"text", "json", "yaml"}

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
