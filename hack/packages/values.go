package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// value is what people may set of the chart.
type value struct {
	path     string // with dots between the names of sections
	standard any
	doc      string
	schema   map[string]any
}

// renamed are values of earlier releases: who still sets one is told what takes its place.
var renamed = []struct{ section, name, now string }{
	{"prometheus", "enabled", "serviceMonitor.enabled, prometheusRule.enabled and dashboard.enabled"},
	{"prometheus", "labels", "serviceMonitor.labels, prometheusRule.labels and dashboard.labels"},
	{"firstPacket.hostPaths", "cni-bin", "firstPacket.hostPaths.cniBin"},
	{"firstPacket.hostPaths", "cni-conf", "firstPacket.hostPaths.cniConf"},
}

func schemaOf(kind string) map[string]any { return map[string]any{"type": kind} }

func arrayOf(kind string) map[string]any {
	return map[string]any{"type": "array", "items": schemaOf(kind)}
}

func mapOf(kind string) map[string]any {
	return map[string]any{"type": "object", "additionalProperties": schemaOf(kind)}
}

// labelsSchema is that of labels which stand beside ours.
func labelsSchema() map[string]any {
	schema := mapOf("string")
	schema["propertyNames"] = map[string]any{"not": map[string]any{"pattern": `^(app\.kubernetes\.io|helm\.sh)/`}}
	return schema
}

// camel is a name in camel case, as in cniBin for cni-bin.
func camel(name string) string {
	first, rest, _ := strings.Cut(name, "-")
	for part := range strings.SplitSeq(rest, "-") {
		if part != "" {
			first += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return first
}

func oneOf(texts ...any) map[string]any { return map[string]any{"type": "string", "enum": texts} }

// orEmpty is a value, or the empty one of its kind.
func orEmpty(value any, kind string) any {
	if value != nil {
		return value
	}
	return map[string]any{"object": map[string]any{}, "array": []any{}, "string": ""}[kind]
}

// commonValues are those that concern no single workload.
func (c *templates) commonValues(cniDirectories map[string]any) {
	c.values = []value{
		{"imagePullSecrets", []any{}, "Secrets for the image's registry, such as [{name: registry}].", arrayOf("object")},
		{"commonLabels", map[string]any{}, "More labels of every object and every pod.", labelsSchema()},
		{"logLevel", "info", "What both programs log; debug shows every change to the kernel.", oneOf("debug", "info", "warn", "error")},
		{"firstPacket.enabled", false, "Whether policy holds from a pod's first packet: each enforcer installs its CNI plugin on its node.",
			schemaOf("boolean")},
	}
	docs := map[string]string{
		"cniBin":  "Where nodes keep CNI plugins. k3s: /var/lib/rancher/k3s/data/cni. GKE: /home/kubernetes/bin.",
		"cniConf": "Where nodes keep their network configurations. k3s: /var/lib/rancher/k3s/agent/etc/cni/net.d.",
		"usr":     "The directory in which lib/cni and libexec/cni are looked for.",
	}
	for _, name := range slices.Sorted(maps.Keys(cniDirectories)) {
		c.values = append(c.values, value{"firstPacket.hostPaths." + name, cniDirectories[name], docs[name], schemaOf("string")})
	}
	c.values = append(c.values, []value{
		{"serviceMonitor.enabled", false, "Whether Prometheus finds the metrics: needs the kind ServiceMonitor of the Prometheus operator.", schemaOf("boolean")},
		{"serviceMonitor.interval", "", "How often metrics are read, such as 30s; empty for Prometheus' own interval.", schemaOf("string")},
		{"serviceMonitor.labels", map[string]any{}, "More labels of the monitors, such as {release: kube-prometheus-stack}.", labelsSchema()},
		{"prometheusRule.enabled", false, "Whether the alerts are installed: needs the kind PrometheusRule of the Prometheus operator.", schemaOf("boolean")},
		{"prometheusRule.labels", map[string]any{}, "More labels of the alerts, such as {release: kube-prometheus-stack}.", labelsSchema()},
		{"dashboard.enabled", false, "Whether the dashboard is installed, in a ConfigMap for Grafana's sidecar.", schemaOf("boolean")},
		{"dashboard.labels", map[string]any{}, "More labels of that ConfigMap.", labelsSchema()},
		{"crds.install", true, "Whether the kinds of policy.ringfence.io are part of the release, and so are upgraded with it.", schemaOf("boolean")},
		{"crds.keep", true, "Whether they, and with them all policies, stay when the release is uninstalled.", schemaOf("boolean")},
		{"namespace.create", false, "Whether the release makes its namespace, with the label that Pod Security wants. " +
			"Leave --create-namespace out then: Helm cannot do both.", schemaOf("boolean")},
	}...)
}

// imageValues are those of the image that config/default names.
func (c *templates) imageValues() {
	repository, digest, _ := strings.Cut(c.image, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	c.values = append([]value{
		{"image.repository", repository, "The image without its tag.", map[string]any{"type": "string", "minLength": 1}},
		{"image.tag", "", "Its tag; empty for the chart's appVersion.", schemaOf("string")},
		{"image.digest", digest, "Its digest, such as sha256:...; with one, nodes fetch what it names, whatever the tag.",
			map[string]any{"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}},
		{"image.pullPolicy", c.pull, "When nodes fetch it.", oneOf("Always", "IfNotPresent", "Never")},
	}, c.values...)
}

// about is what a chart says of itself, which it has from the bundle.
type about struct {
	version, minKube, description string
	keywords, maintainers, links  []any
	home, capabilities            string
	kinds                         []any
}

func aboutChart(t tree) (about, error) {
	objects, err := t.render("manifests")
	if err != nil {
		return about{}, err
	}
	i := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return is(o, "ClusterServiceVersion") })
	if i < 0 {
		return about{}, fmt.Errorf("config/manifests has no ClusterServiceVersion, which has the version")
	}
	spec, _ := objects[i].Object["spec"].(map[string]any)
	text := func(field string) string { s, _ := spec[field].(string); return s }
	a := about{version: text("version"), minKube: text("minKubeVersion"), description: objects[i].GetAnnotations()["description"]}
	a.keywords, _ = spec["keywords"].([]any)
	a.maintainers, _ = spec["maintainers"].([]any)
	a.links, _ = spec["links"].([]any)
	a.home, a.capabilities = objects[i].GetAnnotations()["repository"], objects[i].GetAnnotations()["capabilities"]
	b := &parts{}
	for _, o := range objects {
		if is(o, "CustomResourceDefinition") {
			b.crds = append(b.crds, o)
		}
	}
	owned, _ := b.owned()
	for _, kind := range owned {
		k := kind.(map[string]any)
		a.kinds = append(a.kinds, map[string]any{
			"kind": k["kind"], "version": k["version"], "name": k["name"], "displayName": k["displayName"], "description": k["description"],
		})
	}
	return a, sameVersion(slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return is(o, "ClusterServiceVersion") }), a.version)
}

// annotations are what Artifact Hub reads: each value is a text, and lists are texts of YAML.
func (a about) annotations(image string) (map[string]any, error) {
	out := map[string]any{
		"artifacthub.io/category": "networking", "artifacthub.io/license": "Apache-2.0",
		"artifacthub.io/operator": "true", "artifacthub.io/operatorCapabilities": a.capabilities,
	}
	for name, list := range map[string][]any{
		"crds": a.kinds, "links": a.links, "images": {map[string]any{"name": packageName, "image": image}},
	} {
		text, err := encode(list)
		if err != nil {
			return nil, err
		}
		out["artifacthub.io/"+name] = text
	}
	return out, nil
}

// describe writes the files that are no templates of objects.
func (c *templates) describe(a about) error {
	texts := map[string]func() (string, error){
		"Chart.yaml": func() (string, error) {
			annotations, err := a.annotations(c.image)
			if err != nil {
				return "", err
			}
			return encode(map[string]any{
				"apiVersion": "v2", "name": packageName, "type": "application", "version": a.version, "appVersion": "v" + a.version,
				"kubeVersion": ">=" + a.minKube + "-0", "description": a.description, "home": a.home, "sources": []any{a.home},
				"keywords": a.keywords, "maintainers": a.maintainers, "annotations": annotations,
				"icon": strings.Replace(a.home, "https://github.com/", "https://raw.githubusercontent.com/", 1) + "/main/config/manifests/bases/icon.svg",
			})
		},
		"values.yaml":                   c.valuesFile,
		"templates/renamed-values.yaml": func() (string, error) { return renamedFile(), nil },
		"values.schema.json":            c.schemaFile,
		"README.md":                     c.readme,
	}
	for name, text := range texts {
		made, err := text()
		if err != nil {
			return err
		}
		c.out[path.Join(chartDir, name)] = made
	}
	return fs.WalkDir(written, "chart/templates", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(written, file)
		c.out[path.Join(chartDir, "templates", filepath.Base(file))] = string(text)
		return err
	})
}

// sections are the values in the order of their sections.
func (c *templates) sections() []value {
	var order []string
	for _, v := range c.values {
		if s := section(v.path); !slices.Contains(order, s) {
			order = append(order, s)
		}
	}
	return slices.SortedStableFunc(slices.Values(c.values), func(a, b value) int {
		return slices.Index(order, section(a.path)) - slices.Index(order, section(b.path))
	})
}

func section(path string) string {
	s, _, _ := strings.Cut(path, ".")
	return s
}

func (c *templates) valuesFile() (string, error) {
	out := "# `make chart` writes this file, from config.\n"
	var in []string // the sections of the line before
	for _, v := range c.sections() {
		names := strings.Split(v.path, ".")
		last := len(names) - 1
		for i, name := range names[:last] {
			if i >= len(in) || !slices.Equal(names[:i+1], in[:i+1]) {
				out += strings.Repeat("  ", i) + name + ":\n"
			}
		}
		in = names[:last]
		indent := strings.Repeat("  ", last)
		text, err := encode(map[string]any{names[last]: v.standard})
		if err != nil {
			return "", err
		}
		out += indent + "# " + v.doc + "\n" + indent + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+indent) + "\n"
	}
	return out, nil
}

// schemaFile refuses what no template looks at: a value that is misspelt would have no effect. It lets renamed values in, of which a template says more.
func (c *templates) schemaFile() (string, error) {
	closed := func() map[string]any {
		return map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
	}
	root := closed()
	add := func(path string, field map[string]any) {
		names := strings.Split(path, ".")
		at := root
		for _, name := range names[:len(names)-1] {
			properties := at["properties"].(map[string]any)
			if properties[name] == nil {
				properties[name] = closed()
			}
			at = properties[name].(map[string]any)
		}
		at["properties"].(map[string]any)[names[len(names)-1]] = field
	}
	add("global", schemaOf("object")) // Helm gives it to charts that others depend on
	for _, v := range c.values {
		field := map[string]any{"description": v.doc}
		maps.Copy(field, v.schema)
		add(v.path, field)
	}
	for _, r := range renamed {
		add(r.section+"."+r.name, map[string]any{"description": "Renamed: set " + r.now + "."})
	}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	text, err := json.MarshalIndent(root, "", "  ")
	return string(text) + "\n", err
}

// renamedFile is a template of nothing: it fails where a value is set that has another name by now.
func renamedFile() string {
	out := "{{- /* `make chart` writes this file: values that have other names by now. */ -}}\n"
	for _, r := range renamed {
		out += fmt.Sprintf("{{- if hasKey (.Values.%s | default dict) %q }}\n"+
			"{{- fail \"%s.%s is not a value any more: set %s (docs/upgrade.md)\" }}\n{{- end }}\n", r.section, r.name, r.section, r.name, r.now)
	}
	return out
}

func (c *templates) readme() (string, error) {
	head, err := written.ReadFile("chart/README.md")
	if err != nil {
		return "", fmt.Errorf("reading the README: %w", err)
	}
	out := string(head)
	for _, v := range c.sections() {
		standard, err := json.Marshal(v.standard)
		if err != nil {
			return "", fmt.Errorf("encoding a value: %w", err)
		}
		out += fmt.Sprintf("| `%s` | `%s` | %s |\n", v.path, standard, v.doc)
	}
	return out, nil
}
