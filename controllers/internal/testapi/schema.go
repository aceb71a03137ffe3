package testapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/test/kit"
)

// Schema is what the CustomResourceDefinition of one of our kinds says about its objects, as far as bounds go.
type Schema struct {
	props apiextensionsv1.JSONSchemaProps
}

// SchemaOf reads that of a resource.
func SchemaOf(t testing.TB, resource string) Schema {
	t.Helper()
	text, err := config.CRDs.ReadFile("crd/bases/policy.ringfence.io_" + resource + ".yaml")
	kit.Must(t, err)
	var crd apiextensionsv1.CustomResourceDefinition
	kit.Must(t, yaml.Unmarshal(text, &crd))
	return Schema{*crd.Spec.Versions[0].Schema.OpenAPIV3Schema}
}

// Violations are what the API server would say against an object, and how many bytes it has as JSON.
func (s Schema) Violations(t testing.TB, object any) (bytes int, violations []string) {
	t.Helper()
	text, err := json.Marshal(object)
	kit.Must(t, err)
	var parsed any
	kit.Must(t, json.Unmarshal(text, &parsed))
	walk(s.props, "", parsed, func(path, why string, args ...any) {
		violations = append(violations, path+" "+fmt.Sprintf(why, args...))
	})
	return len(text), violations
}

func walk(s apiextensionsv1.JSONSchemaProps, path string, v any, say func(path, why string, args ...any)) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range s.Required {
			if v[name] == nil {
				say(path, "lacks %s", name)
			}
		}
		for name, value := range v {
			below, known := s.Properties[name]
			switch {
			case value == nil: // the API server drops it
			case known:
				walk(below, path+"."+name, value, say)
			case path != ".metadata":
				say(path, "has %s, which is unknown", name)
			}
		}
	case []any:
		walkList(s, path, v, say)
	case string:
		walkText(s, path, v, say)
	case float64:
		if s.Minimum != nil && v < *s.Minimum || s.Maximum != nil && v > *s.Maximum {
			say(path, "is %v", v)
		}
	}
}

func walkList(s apiextensionsv1.JSONSchemaProps, path string, list []any, say func(path, why string, args ...any)) {
	if s.MaxItems != nil && int64(len(list)) > *s.MaxItems {
		say(path, "has %d items", len(list))
	}
	keys := map[string]bool{}
	for i, one := range list {
		walk(*s.Items.Schema, fmt.Sprintf("%s[%d]", path, i), one, say)
		var key any
		switch {
		case s.XListType == nil || *s.XListType == "atomic":
			continue
		case *s.XListType == "map":
			key = one.(map[string]any)[s.XListMapKeys[0]]
		default:
			key = one
		}
		if keys[fmt.Sprint(key)] {
			say(path, "has %v twice", key)
		}
		keys[fmt.Sprint(key)] = true
	}
}

func walkText(s apiextensionsv1.JSONSchemaProps, path, text string, say func(path, why string, args ...any)) {
	if n := utf8.RuneCountInString(text); s.MaxLength != nil && int64(n) > *s.MaxLength {
		say(path, "has %d characters", n)
	}
	if _, err := time.Parse(time.RFC3339, text); s.Format == "date-time" && err != nil {
		say(path, "is %q: %v", text, err)
	}
	quoted, _ := json.Marshal(text)
	if s.Enum != nil && !slices.ContainsFunc(s.Enum, func(one apiextensionsv1.JSON) bool { return string(one.Raw) == string(quoted) }) {
		say(path, "is %q", text)
	}
}
