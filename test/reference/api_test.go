// Package reference holds docs/api.md to the CustomResourceDefinitions, from which it is written.
package reference

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/test/kit"
)

var update = flag.Bool("update", false, "write docs/api.md anew, from what the CustomResourceDefinitions say now")

const (
	page  = "../../docs/api.md"
	begin = `# The kinds of policy.ringfence.io

Every field of every kind. ` + "`make golden`" + ` writes this page from the CustomResourceDefinitions. [policies.md](policies.md) explains what policies mean,
and [status.md](status.md) what statuses mean. ` + "`kubectl explain`" + ` shows the same fields on a cluster.

` + "`[]` is each item of a list; * marks a required field." + ` Below each table stands what the API server refuses besides, with the field that it is about.
`
)

// The page has every field of our kinds, with what the API server refuses in it.
func TestThePageSaysWhatTheKindsSay(t *testing.T) {
	var want strings.Builder
	want.WriteString(begin)
	for _, crd := range kinds(t) {
		write(&want, crd)
	}
	if *update {
		kit.Must(t, os.WriteFile(page, []byte(want.String()), 0o644))
		return
	}
	text, err := os.ReadFile(page)
	kit.Must(t, err)
	if diff := gocmp.Diff(want.String(), string(text)); diff != "" {
		t.Errorf("%s (-definitions +page; -update writes it anew):\n%s", page, diff)
	}
}

// kinds are our definitions, by their names.
func kinds(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := fs.Glob(config.CRDs, "crd/bases/*.yaml")
	kit.Must(t, err)
	var all []*apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		text, err := fs.ReadFile(config.CRDs, file)
		kit.Must(t, err)
		crd := &apiextensionsv1.CustomResourceDefinition{}
		kit.Must(t, yaml.UnmarshalStrict(text, crd))
		all = append(all, crd)
	}
	if len(all) == 0 {
		t.Fatal("there is no definition")
	}
	return all
}

// field is a row of the page.
type field struct {
	path, kind, byDefault, about string
	rules                        []string
}

func write(to *strings.Builder, crd *apiextensionsv1.CustomResourceDefinition) {
	names := crd.Spec.Names
	for _, version := range crd.Spec.Versions {
		root := version.Schema.OpenAPIV3Schema
		fmt.Fprintf(to, "\n## %s\n\n%s\n\n", names.Kind, oneLine(root.Description))
		fmt.Fprintf(to, "`%s/%s`, %s; `kubectl get %s`\n", crd.Spec.Group, version.Name, scopes[crd.Spec.Scope],
			strings.Join(append([]string{names.Plural}, names.ShortNames...), "`, `"))
		var fields []field
		for _, part := range []string{"spec", "status"} {
			if schema, ok := root.Properties[part]; ok {
				collect(&fields, part, schema, slices.Contains(root.Required, part))
			}
		}
		to.WriteString("\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n")
		var rules []string
		for _, rule := range root.XValidations {
			rules = append(rules, message(rule))
		}
		for _, f := range fields {
			fmt.Fprintf(to, "| `%s` | %s | %s | %s |\n", f.path, f.kind, f.byDefault, f.about)
			for _, rule := range f.rules {
				rules = append(rules, "`"+strings.TrimSuffix(f.path, "*")+"`: "+rule)
			}
		}
		if len(rules) > 0 {
			to.WriteString("\nRefused unless:\n\n")
			for _, rule := range rules {
				fmt.Fprintf(to, "- %s\n", rule)
			}
		}
	}
}

var scopes = map[apiextensionsv1.ResourceScope]string{
	apiextensionsv1.ClusterScoped: "one of a name in a cluster", apiextensionsv1.NamespaceScoped: "in a namespace",
}

// collect adds a field, and what is in it, to the rows.
func collect(rows *[]field, path string, schema apiextensionsv1.JSONSchemaProps, required bool) {
	f := field{path: path, kind: typeOf(&schema), about: oneLine(schema.Description)}
	if required {
		f.path += "*"
	}
	if schema.Default != nil {
		f.byDefault = "`" + string(schema.Default.Raw) + "`"
	}
	for _, rule := range schema.XValidations {
		f.rules = append(f.rules, message(rule))
	}
	inside := &schema
	if schema.Items != nil && schema.Items.Schema != nil {
		inside, path = schema.Items.Schema, path+"[]"
		for _, rule := range inside.XValidations {
			f.rules = append(f.rules, message(rule))
		}
	}
	*rows = append(*rows, f)
	if known(inside) != "" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(inside.Properties)) {
		collect(rows, path+"."+name, inside.Properties[name], slices.Contains(inside.Required, name))
	}
}

// known is the name of a type of Kubernetes' own, whose fields everybody knows.
func known(schema *apiextensionsv1.JSONSchemaProps) string {
	has := func(names ...string) bool {
		return len(schema.Properties) == len(names) && !slices.ContainsFunc(names, func(name string) bool { _, ok := schema.Properties[name]; return !ok })
	}
	switch {
	case has("matchExpressions", "matchLabels"):
		return "LabelSelector"
	case has("lastTransitionTime", "message", "observedGeneration", "reason", "status", "type"):
		return "Condition"
	}
	return ""
}

// typeOf is a field's type, and what its values are held to.
func typeOf(schema *apiextensionsv1.JSONSchemaProps) string {
	if name := known(schema); name != "" {
		return name
	}
	var text string
	switch {
	case schema.XIntOrString:
		text = "number or string"
	case len(schema.Enum) > 0:
		var values []string
		for _, value := range schema.Enum {
			var s string
			if json.Unmarshal(value.Raw, &s) != nil {
				s = string(value.Raw)
			}
			values = append(values, "`"+s+"`")
		}
		text = strings.Join(values, ", ")
	case schema.Type == "array" && schema.Items != nil && schema.Items.Schema != nil:
		text = "list of " + typeOf(schema.Items.Schema)
	case schema.Type == "object" && schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil:
		text = "map of " + typeOf(schema.AdditionalProperties.Schema)
	default:
		text = cmp.Or(schema.Format, schema.Type)
	}
	return text + limits(schema)
}

func limits(schema *apiextensionsv1.JSONSchemaProps) string {
	var all []string
	add := func(format string, value any, ok bool) {
		if ok {
			all = append(all, fmt.Sprintf(format, value))
		}
	}
	number := func(p *float64) float64 {
		if p == nil {
			return 0
		}
		return *p
	}
	count := func(p *int64) int64 {
		if p == nil {
			return 0
		}
		return *p
	}
	add("at least %v", number(schema.Minimum), schema.Minimum != nil)
	add("at most %v", number(schema.Maximum), schema.Maximum != nil)
	add("at least %d items", count(schema.MinItems), schema.MinItems != nil)
	add("at most %d items", count(schema.MaxItems), schema.MaxItems != nil)
	add("at least %d fields", count(schema.MinProperties), schema.MinProperties != nil)
	add("at most %d fields", count(schema.MaxProperties), schema.MaxProperties != nil)
	add("at least %d characters", count(schema.MinLength), schema.MinLength != nil)
	add("at most %d characters", count(schema.MaxLength), schema.MaxLength != nil)
	add("like `%s`", strings.ReplaceAll(schema.Pattern, "|", `\|`), schema.Pattern != "")
	if len(all) == 0 {
		return ""
	}
	return ", " + strings.Join(all, ", ")
}

func message(rule apiextensionsv1.ValidationRule) string {
	return oneLine(cmp.Or(rule.Message, "`"+rule.Rule+"`"))
}

// oneLine is a text that fits into a cell.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
