package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	syaml "sigs.k8s.io/yaml"
)

// tree is config, of which kustomize makes objects.
type tree struct {
	config    string // its directory
	namespace string // that of the objects
}

// original is config as it is.
func original() (tree, error) {
	t := tree{config: filepath.Join(root, "config")}
	text, err := os.ReadFile(filepath.Join(t.config, "default/kustomization.yaml"))
	if err != nil {
		return t, fmt.Errorf("reading config/default: %w", err)
	}
	var k struct{ Namespace string }
	if err := syaml.Unmarshal(text, &k); err != nil || k.Namespace == "" {
		return t, fmt.Errorf("config/default/kustomization.yaml names no namespace: %w", err)
	}
	t.namespace = k.Namespace
	return t, nil
}

// in calls use with a copy whose kustomizations are changed as people change them who want another namespace: so that whatever follows the namespace
// there, names it. The copy is gone afterwards.
func (t tree) in(namespace string, use func(tree) error) error {
	dir, err := os.MkdirTemp("", "ringfence-config-")
	if err != nil {
		return fmt.Errorf("copying config: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(t.config)); err != nil {
		return fmt.Errorf("copying config: %w", err)
	}
	kustomizations, err := filepath.Glob(filepath.Join(dir, "*/kustomization.yaml"))
	if err != nil {
		return fmt.Errorf("copying config: %w", err)
	}
	names := regexp.MustCompile(`(?m)^namespace: ` + regexp.QuoteMeta(t.namespace) + `$`)
	for _, file := range kustomizations {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("copying config: %w", err)
		}
		if err := os.WriteFile(file, names.ReplaceAll(text, []byte("namespace: "+namespace)), 0o600); err != nil {
			return fmt.Errorf("copying config: %w", err)
		}
	}
	return use(tree{config: dir, namespace: namespace})
}

// render is what kustomize makes of a directory of config.
func (t tree) render(dir string) ([]*unstructured.Unstructured, error) {
	cmd := exec.Command(kubectl(), "kustomize", filepath.Join(t.config, dir))
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rendering config/%s with kubectl, which hack/kube/build.sh builds: %w: %s", dir, err, said.Bytes())
	}
	objects, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading what config/%s renders to: %w", dir, err)
	}
	return objects, nil
}

// kubectl is that of KUBEBUILDER_ASSETS, which hack/kube/build.sh prints, else the one in the path.
func kubectl() string {
	if path := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"); filepath.IsAbs(path) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "kubectl"
}

func decode(text []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(o); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("decoding YAML: %w", err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

func encode(value any) (string, error) {
	if o, ok := value.(*unstructured.Unstructured); ok {
		value = o.Object
	}
	text, err := syaml.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("encoding YAML: %w", err)
	}
	return string(text), nil
}

// names reports whether a text is in any of the strings of a value.
func names(value any, text string) bool {
	found := false
	walk(value, func(s string) { found = found || strings.Contains(s, text) })
	return found
}

// walk calls see with each string of a value, keys included.
func walk(value any, see func(string)) {
	switch value := value.(type) {
	case string:
		see(value)
	case map[string]any:
		for k, v := range value {
			see(k)
			walk(v, see)
		}
	case []any:
		for _, v := range value {
			walk(v, see)
		}
	}
}

// identity names an object among others.
func identity(o *unstructured.Unstructured) string {
	return strings.TrimSuffix(o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName(), "/")
}

// is reports whether an object is of one of these kinds.
func is(o *unstructured.Unstructured, kinds ...string) bool {
	for _, kind := range kinds {
		if o.GetKind() == kind {
			return true
		}
	}
	return false
}
